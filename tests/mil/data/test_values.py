"""What a cell means: whether it is missing, which number it holds; the same in all columns."""

import math
import subprocess
from pathlib import Path

import pytest

from features.bags.bag import write_bag
from features.columns.missing_words import MISSING_WORDS
from mil.data.case import Case
from mil.data.cohort import assemble, load_cohort
from mil.data.encoding import fit_encoding
from mil.data.reading import TableReading
from mil.data.table import read_table
from mil.data.values import (
    doubtful_word,
    is_missing,
    read_number,
    read_numbers,
    without_missing,
)
from mil.errors import CohortError
from mil.evaluation.regression.design import fit_design
from tests.mil.made import made_bag

WORDS = ["", "  ", "NA", "N/A", "nan", "None", "null", "?", "-", ".", "Unknown", "#N/A", "missing"]
BRACKETED = [
    "[Not Available]",
    "[Not Applicable]",
    "[Not Evaluated]",
    "[Unknown]",
    "<NA>",
    "[Discrepancy]",
]


@pytest.mark.parametrize("text", [*WORDS, *BRACKETED, *map(str.upper, sorted(MISSING_WORDS))])
def test_words_for_a_missing_value(text):
    assert is_missing(text)
    assert is_missing(f" {text} ")
    assert math.isnan(read_number(text))


@pytest.mark.parametrize(
    "text",
    [
        "#NV",
        "#NAME?",
        "N / A",
        "Not_Available",
        "[Unknown]|[Unknown]",
        "nicht bekannt",
        "\u200b",
        "Non disponible",
        "n. d.", "N. A.", "k A", "n.k.", "n v t", "NA/NA", "unknown; NA", "\u00b7", "xxxx",
        "TODO", "Befund ausstehend", "results pending", "awaiting review", "r\u00e9sultat en attente",
    ],
)  # fmt: skip
def test_errors_of_excel_and_words_of_other_languages_are_missing(text):
    assert is_missing(text)


@pytest.mark.parametrize("text", ["A|B", "A|NA", "NDRG1", "N1", "n/a positive", "fehlt nicht"])
def test_what_only_begins_like_a_missing_value_is_one(text):
    assert not is_missing(text)


@pytest.mark.parametrize(
    "text", ["0", "no", "negative", "NAM", "n.a. Berg", "not sure", "Nancy", "-1"]
)
def test_other_words_are_values(text):
    assert not is_missing(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("4.5", 4.5), ("4,5", 4.5), ("-0,25", -0.25), (" 7 ", 7.0), ("0,125", 0.125), ("1,2345", 1.2345),
     ("1e3", 1000.0), ("12,50", 12.5)],
)  # fmt: skip
def test_numbers_have_a_decimal_point_or_a_comma(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize("text", ["1,234", "1,234.5", "1,2,3", "4,", ",5", "five", "61 years", ""])
def test_what_may_be_a_thousand_or_is_no_number_is_none(text):
    assert math.isnan(read_number(text))


@pytest.mark.parametrize(
    "word",
    [
        "[Completed]",
        "[Pending]",
        "'--",
        "???",
        "n.a.",
        "\N{EM DASH}",
        "k.A.",
        "#REF!",
        "(none)",
        "...",
    ],
)
def test_siblings_of_these_words(word):
    assert is_missing(word)


@pytest.mark.parametrize(
    "word", ["completed", "redacted", "+", "(+)", "<", "\N{GREATER-THAN OR EQUAL TO}", "0"]
)
def test_words_and_signs_that_say_something(word):
    assert not is_missing(word)


def test_a_dash_beside_a_plus_is_a_value():
    assert without_missing(["+", "-", "+", "NA", ""]) == ["+", "-", "+", "", ""]
    assert without_missing(["(+)", "(-)", "++"]) == ["(+)", "(-)", "++"]
    assert without_missing(["high", "-", "low"]) == ["high", "", "low"]
    assert without_missing(["NA", "none", "b"], ("NA",)) == ["NA", "", "b"]


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (("pos", "-"), "-"),
        (("MDM2 Pos.", "\N{EN DASH}", "?"), "\N{EN DASH}"),
        (("3+", "2+", "--"), "--"),
        (("y", "(-)"), "(-)"),
        (("0", "-"), "-"),
        (("amplified", "Nil"), "Nil"),
        (("moderate", "severe", "None"), "None"),
        (("SSX1", "SSX2", "none"), "none"),
        (("mutated", "n.d.", ""), "n.d."),
    ],
)
def test_a_label_that_may_mean_negative_is_not_taken_for_missing(tmp_path, labels, word):
    lines = [f"c{i},s{i},{label}" for i, label in enumerate(labels * 2)]
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(["Patient,slide,Label", *lines]) + "\n")
    with pytest.raises(CohortError, match=r"column 'Label' holds .* Set label_is to") as error:
        read_table(path)
    assert repr(word) in str(error.value)
    rows = read_table(path, TableReading(label_is=(word,)))
    assert [row.label for row in rows[: len(labels)]] == [
        "" if label == "?" else label for label in labels
    ]
    path.write_text(path.read_text().replace(f",{word}\n", ",\n"))
    assert [row.label for row in read_table(path)].count("") >= 2


@pytest.mark.parametrize(
    "labels",
    [
        ("pos", "neg", "-"),
        ("pos.", "neg."),
        ("n", "y", "-"),
        ("no", "yes", "none"),
        ("+", "-"),
        ("MDM2+", "MDM2-", "-"),
        ("LMS", "DDLPS", "-", "None"),
        ("pos", "NA"),
        ("1", "0", "\N{EM DASH}"),
        ("mutant", "wild type", "-"),
        ("LMS", "unknown"),
        ("1", "2", "3", "-"),
        ("LMS", "None"),
    ],
)
def test_labels_without_doubt(labels):
    assert doubtful_word(labels * 3, of_labels=True) is None


def test_other_columns_get_a_note(tmp_path):
    path, notes = tmp_path / "cohort.csv", []
    path.write_text("case,slide,label,MDM2,necrosis,age\nc,s,a,pos,-,-\nd,t,b,-,-,60\n")
    read_table(path, notify=notes.append)
    assert notes == [
        f"{path}: column 'MDM2' holds '-' beside 'pos': it is read as missing. Write negative there if "
        "that is meant."
    ]


def test_numbers_but_for_a_few_cells_are_numbers():
    column = read_numbers(["61", "52", "[Unknown]", "70", "48", "about 60", "3e1"])
    assert column is not None
    assert column.odd == (5,)
    assert [v for v in column.values if v == v] == [61, 52, 70, 48, 30]
    assert read_numbers(["1a", "1b", "2", "3"]) is None
    assert read_numbers(["NA", "-"]) is None


@pytest.fixture
def cohort_table(tmp_path):
    """Four cases with bags; the table of one whose label and site are the word."""

    def write(word):
        lines = [
            "case,slide,label,site,age",
            "c0,s0,a,x,50",
            "c1,s1,a,y,60",
            "c2,s2,b,x,70",
            "c3,s3,b,y,80",
        ]
        lines += [f'c4,s4,{word},{word},"4,5"']
        for i in range(5):
            write_bag(tmp_path / "store" / f"s{i}.h5", made_bag(f"s{i}"))
        (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
        return read_table(tmp_path / "cohort.csv"), tmp_path / "store"

    return write


@pytest.mark.parametrize("word", ["", "NA", "nan", "[Not Available]"])
def test_a_missing_label_is_refused_or_left_out_with_its_reason(cohort_table, word):
    rows, store = cohort_table(word)
    with pytest.raises(CohortError, match=r"1 of 5 rows .*s4 \(no label\)"):
        assemble(rows, store)
    cohort = assemble(rows, store, allow_missing=True)
    assert cohort.excluded == (("s4", "no label"),)
    assert cohort.classes == ("a", "b")  # the word is no third class
    assert rows[-1].site == ""


def case_with(value, label="a"):
    return Case(
        name=f"c {value}", label=label, bags=(made_bag("s"),), other={"grade": value, "age": value}
    )


@pytest.mark.parametrize(
    "word", ["NA", "n/a", "[Not Available]", "#N/A", "--", "Not reported", "."]
)
def test_clinical_models_read_a_missing_value_alike(word):
    """A column of numbers stays one: the median takes the place of the word, which is no category."""
    values = ["1", "2,5", "3", word]
    [column] = fit_encoding([case_with(v) for v in values], ["age"]).columns
    assert (column.categories, column.middle) == ((), 2.5)
    assert column.encode(word) == [0.0, 1.0]
    [term] = fit_design({"age": values}).terms
    assert (term.level, term.middle, term.encode(word)) == ("", 2.5, 2.5)
    words = ["low", "low", "high", "high", word]
    [column] = fit_encoding([case_with(v) for v in words], ["grade"]).columns
    assert column.categories == ("high", "low")
    [term] = fit_design({"grade": words}).terms
    assert {term.level, term.reference} == {"high", "low"}


def test_one_list_of_words_and_one_reader_of_numbers():
    """No other file lists words for a missing value."""
    root = Path(__file__).parents[3]
    files = subprocess.run(
        ["git", "ls-files", "mil/*.py", "cli/*.py", "features/*.py"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    lists = [f for f in files if '"n/a"' in (root / f).read_text().casefold()]
    assert lists == ["features/columns/missing_words.py"]


@pytest.mark.parametrize(
    "word",
    ["Pending", "TBD", "Missing data", "(Blank)", "not stated", "N/A (not tested)", "unknown [not reported]",
     "NA, not done", "n.a. - pending", "pd.NA", "#\N{CYRILLIC CAPITAL LETTER EN}/\u0434",
     "Entf\u00e4llt", "n. b.", "Niet bekend", "N\u00e3o dispon\u00edvel", "[\u672a\u77e5]", "Undefined",
     "No information available", "none given", "<pending>"],
)  # fmt: skip
def test_further_words_for_a_missing_value(word):
    assert is_missing(word)


@pytest.mark.parametrize(
    "word",
    ["blank", "pending surgery", "N.E.D.", "O.K.", "p.o.", "MET/NA", "xx", "A B", "in progress",
     "N/A (SS18-SSX1)", "unknown primary", "CUP (unknown primary)", "NB",
     "T (NA)", "not otherwise specified", "NOS",
     "NET, G1", "undifferentiated", "none (wild type)", "Unknown - DDLPS",
     "no residual", "no mutation", "NV", "TB", "NAT1", "n.b.c.", "No", "nodal"],
)  # fmt: skip
def test_labels_that_only_resemble_a_missing_word_stay(word):
    assert not is_missing(word)


def test_a_label_that_is_read_as_missing_is_named_with_the_way_to_keep_it(cohort_table):
    rows, store = cohort_table("NK")
    words = r"s4 \(no label\)\. .* 'NK' \(s4\) is read as a missing label\. Set label_is to 'NK' if"
    with pytest.raises(CohortError, match=words):
        assemble(rows, store)
    notes = []
    load_cohort(store.parent / "cohort.csv", store, allow_missing=True, notify=notes.append)
    assert any("'NK' (s4) is read as a missing label" in note for note in notes)
    cohort = load_cohort(store.parent / "cohort.csv", store, label_is=["NK"], notify=notes.clear)
    assert cohort.classes == ("NK", "a", "b")
    rows, store = cohort_table("")
    with pytest.raises(CohortError) as error:
        assemble(rows, store)
    assert "label_is" not in str(error.value)


@pytest.mark.parametrize(
    "word", ["Blank(s)", "N/A not seq 0-59", "INCONNU", "non precise", "niet bepaald", "Não se aplica",
             "nao informado", "sin dato", "ns/nc", "不詳", "未検査", "不适用", "모름",
             "не указано", "asked but unknown", "b.d."]
)  # fmt: skip
def test_words_of_registries_for_a_missing_value_with_or_without_accents(word):
    assert is_missing(word)


@pytest.mark.parametrize(
    "word", ["refused", "not found", "liegt nicht vor", "withheld", "无", "なし", "absent", "N/A positive",
             "NR", "NC", "NI", "equivocal", "indeterminate", "unstaged"]
)  # fmt: skip
def test_findings_and_categories_are_no_missing_value(word):
    assert not is_missing(word)
