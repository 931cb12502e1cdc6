"""When two names are of one patient: one that comes twice must not be trained on and tested."""

import re
import unicodedata
from collections.abc import Iterable

from features.columns.spelling import plain_header, without_accents
from mil.errors import CohortError

# Cyrillic and Greek letters that look like Latin ones, small or capital.
LOOKALIKES = str.maketrans("авекмнорстухіјѕαβεζηικμνορτυχ", "abekmhopctyxijsabezhikmnoptyx")

NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
NEGATIVE = re.compile(r"[-\u2010-\u2015\u2212]\W*$")  # MDM2-, (-)
# Grades, groups and letters on both sides, between which a sign counts: I-II is not III, A/B not AB.
JOINED = re.compile(
    r"(?<![^\W_])(?:[ivx]+|[a-z]|[a-z]{0,2}\d[a-c])\d?[a-c]?\s*[-/&+\u2010-\u2015]\s*(?:[ivx]+|[a-z])\d?[a-c]?(?![^\W_])",
    re.IGNORECASE,
)
OF_A_PERSON = ("case", "slide")  # names in which a dash at the end is a slip
TOKEN = re.compile(r"(?<![^\W_])(?<!\d[.,])[^\W_]+")  # of a name; not the decimals of a number
# The last part that names a patient of TCGA: 0001, A1L2, AAUM, and no word such as CASE.
PATIENT = r"(?=[0-9A-Z]{0,3}\d|A[AB])[0-9A-Z]{4}"
# The part of a barcode that names the patient, wherever it stands: TCGA, TARGET, GTEx, CPTAC, HTAN, HCMI,
# CGCI, MMRF, Moonshot Biobank, and MSK-IMPACT and other centres of GENIE.
BARCODE = re.compile(
    r"(?<![0-9A-Z])(?:GENIE-(?:MSK-(?=P-))?)?(TCGA-[0-9A-Z]{2}-"
    + PATIENT
    + r"|TARGET-\d\d-[0-9A-Z]{6}|GTEX-(?!(?:CASE|CASES|DONOR|SLIDE|BLOCK)(?![0-9A-Z]))[0-9A-Z]{4,5}"
    r"|C3[LN]-\d{5}|HTA\d{1,2}-\d{1,4}|HCM-[A-Z]{4}-\d{4}|(?:HTMCP|BLGSP)-\d\d-\d\d-\d{5}|MMRF-\d{4}|MSB-\d{5}"
    r"|P-\d{7}(?=$|-[TN]\d\d(?!\d))|(?<=GENIE-)[A-Z]{2,5}-(?=[A-Z]*\d)[0-9A-Z]{3,})(?![0-9A-Z])",
    re.IGNORECASE,
)
# The same of TCGA where nothing stands between the parts.
SOLID = re.compile(
    rf"(?<![0-9A-Z])TCGA([0-9A-Z]{{2}})({PATIENT})(?=$|[^0-9A-Z]|\d\d[A-Z]|[DTB][SX]\d)",
    re.IGNORECASE,
)


def matching(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of the names, sorted, that are of a patient among the others: Case_01 is case-1.

    Barcodes of public programmes are compared by the patient that they name, all other names in any spelling.
    """
    known = set(map(identity_of, others))
    return sorted({name for name in names if identity_of(name) in known})


def cases_among(slides: Iterable[tuple[str, str]], others: Iterable[str]) -> list[str]:
    """The cases, sorted, of a patient among the others, as their names or the barcodes of their slides say.

    Args:
        slides: the case and the name of each slide.
        others: names of cases or slides.
    """
    known = set(map(identity_of, others)) - {""}
    return sorted(
        {case for case, slide in slides if identity_of(case) in known or patient_of(slide) in known}
    )


def identity_of(name: str) -> str:
    """What all names of a patient share: the patient in a barcode, else the name in one spelling."""
    return patient_of(name) or normalised(name)


def patient_of(name: str) -> str:
    """The patient that a barcode names, in capitals; empty if the name is none.

    Dots (as R and Xena write), underscores, blanks and long dashes stand for the dashes of a barcode.
    """
    plain = unicodedata.normalize("NFKC", name).rpartition("/")[2].strip()
    dashed = re.sub(r"[\s._\u2010-\u2015\u2212-]+", "-", plain)
    if match := BARCODE.search(dashed):
        return match.group(1).upper()
    if match := SOLID.search(dashed):
        return f"TCGA-{match.group(1)}-{match.group(2)}".upper()
    return ""


def normalised(name: str) -> str:
    """A name without what the eye does not tell apart, or a hand writes now so and now otherwise.

    Equal whole numbers are one name: 7, 007 and 7.0, P7 and P07; 3.1 and 3.10 are two. A dash counts between
    two digits alone, where it tells 1-12 from 11-2, and before a number. The signs + < > = count.
    """
    seen = unicodedata.normalize("NFKC", name).casefold().translate(LOOKALIKES).strip()
    seen = without_accents(seen)
    seen = "".join(letter for letter in seen if unicodedata.category(letter) != "Cf")  # invisible
    if NUMBER.fullmatch(seen):
        whole, _, decimals = seen.removeprefix("+").replace(",", ".").partition(".")
        sign, digits = "-" * whole.startswith("-"), whole.lstrip("-0")
        return f"{sign}{digits or 0}.{decimals if decimals.strip('0') else ''}".removesuffix(".")
    seen = TOKEN.sub(lambda token: _without_zeros(token.group()), seen)
    parts = re.sub(r"[^\w+<>=]+|_+", "-", seen.replace("\u2264", "<=").replace("\u2265", ">="))
    return re.sub(r"(?<!\d)(?<!^)-|-(?!\d)", "", re.sub(r"-+", "-", parts))


def _without_zeros(token: str) -> str:
    """Without the zeros before a number; a code in which digits and letters alternate stays as it is."""
    return re.sub(r"0+(?=\d)", "", token, count=1) if re.fullmatch(r"\D*0\d+\D*", token) else token


def check_spelling(source: str, column: str, names: Iterable[str]) -> None:
    """Refuse one name in two spellings: other capitals, spaces, dashes or dots, or 7 and 007.

    A dash at the end of a label counts, as in MDM2-, and so does a sign between two grades, as in I-II.

    Raises:
        CohortError: naming both.
    """
    if pair := spelt_alike(names, signs_count=column not in OF_A_PERSON):
        raise CohortError(
            f"{source}: {column} {pair[0]!r} and {pair[1]!r} differ in spelling only. Write them alike if "
            "they are the same, or make the difference plain."
        )


def spelt_alike(names: Iterable[str], *, signs_count: bool = True) -> tuple[str, str] | None:
    """Two of the names that differ in spelling only; None if there are none.

    Args:
        names: in any number.
        signs_count: whether a dash at the end and signs between grades tell them apart, as in labels.
    """
    spellings: dict[tuple[str, bool, int], str] = {}
    for name in names:
        negative = signs_count and bool(NEGATIVE.search(name))
        joined = len(JOINED.findall(name)) if signs_count else 0
        twin = spellings.setdefault((normalised(name), negative, joined), name)
        if twin != name:
            return twin, name
    return None


def find_column(name: str, columns: Iterable[str]) -> str | None:
    """The column that is called so, or else so without regard to capitals, blanks and underscores."""
    columns = list(columns)
    if name in columns:
        return name
    alike = [column for column in columns if plain_header(column) == plain_header(name)]
    return alike[0] if len(alike) == 1 else None
