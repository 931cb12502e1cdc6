"""Names of modalities: what a series of DICOM, or the name of a file, says of its kind."""

import re
from collections.abc import Iterable
from pathlib import Path

MASK_WORDS = {
    "mask", "masks", "maske", "seg", "dseg", "segmentation", "label", "labels", "labelmap", "roi", "gtv",
    "tumor", "tumour", "lesion", "läsion",
}  # fmt: skip
IMAGE_WORDS = {"image", "img", "volume", "vol"}
WORD = re.compile(r"[\w+]+")
ENTITY = re.compile(
    r"(?<![^\W_])(sub|ses|acq|run|rec|dir|space|desc|res)-([^\W_]+)_?", re.IGNORECASE
)
MODALITIES = {  # of DICOM, by words of a study's names; those with a unit
    "CT": {"CT", "CECT", "NECT", "NCCT", "CTA", "CBCT", "LDCT", "HRCT", "MSCT", "MDCT", "DECT"},
    "PT": {"PET", "PT", "FDG", "SUV", "SUVBW", "SUVLBM", "FMISO", "FLT", "PSMA", "DOTATATE"},
    "NM": {"SPECT", "NM"},
    "RTDOSE": {"DOSE", "RTDOSE", "PLANDOSE"},
}
SEPARATORS = ("_", "-", ".", " ")
BIDS = {"t1w": "T1", "t2w": "T2", "pdw": "PD", "t2starw": "T2star"}  # suffixes of the standard


def _alone(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])({words})(?![^\W_])", re.IGNORECASE)


CONTRAST = re.compile(
    r"(?<![^\W_])(gd|gad\w*|ce|cm|km|contrast|post)(?![^\W_])|\+ ?c(?![^\W_])|(?<![^\W_])c\+",
    re.IGNORECASE,
)
WEIGHTING = re.compile(r"(?<![^\W_])t ?([12])(\*|[ _]?star)?(?![0-9])", re.IGNORECASE)
FAT = _alone("fs|fatsat|fat ?sat|stir|spir|tirm|dixon")
GLUED = re.compile(  # T1c, CT1, T1FSGd
    r"(?<![^\W_])(c|ce|gd|km|cm|fs)?(t[12])(?:wi?)?((?:fs|fatsat|gad|gd|ce|km|cm|post|c)*)(?![^\W_])",
    re.IGNORECASE,
)
GLUED_PARTS = re.compile("fatsat|fs|gad|gd|ce|km|cm|post|c", re.IGNORECASE)
NUMBERED_CT = re.compile(r"(?<![^\W_])CT[12](?![^\W_])", re.IGNORECASE)
JOINED = re.compile(r"(?<![^\W_])(?:(?:SPECT|PET|PT|FDG)CT|CT(?:PET|PT))(?![^\W_])", re.IGNORECASE)
KINDS = (
    ("ADC", _alone("adc")),
    ("DWI", _alone(r"dwi|diff\w*|trace\w*")),
    ("FLAIR", re.compile("flair", re.IGNORECASE)),
)


def sequence_name(modality: str, description: str) -> str:
    """The name by which a study knows a series of DICOM: CT, PET, T1, T1CE, T2FS, FLAIR.

    Args:
        modality: of the series.
        description: of the series; nothing of it but these words reaches the name.
    """
    if modality != "MR":
        return {"PT": "PET"}.get(modality, modality or "image")
    description = GLUED.sub(_apart, description)
    contrast = "CE" if CONTRAST.search(description) else ""
    for name, pattern in KINDS:
        if pattern.search(description):
            return name + contrast
    weighting = WEIGHTING.search(description)
    if not weighting:
        return "MR"
    mapped = "map" if _alone("map|mapping").search(description) else ""
    fat = "FS" if FAT.search(description) else ""
    return f"T{weighting[1]}{'star' if weighting[2] else ''}{mapped}{contrast}{fat}"


def dicom_modality(name: str) -> str:
    """What DICOM calls a modality by a study's name: PT for FDG_PET; empty where none, or two, are named.

    T1_post_CT is MRI.
    """
    kinds = named_modalities(name)
    return kinds[0] if len(kinds) == 1 else ""


def named_modalities(name: str) -> tuple[str, ...]:
    """The modalities of DICOM that a study's name may mean: CT and PT for PETCT, MR and CT for CT1."""
    if NUMBERED_CT.search(name):
        return ("MR", "CT")
    return ("CT", "PT") if JOINED.search(name) else tuple(_kinds(name))


def _kinds(name: str) -> list[str]:
    """What DICOM calls the modalities that a name has words of; none of MRI."""
    if WEIGHTING.search(name):
        return []
    words = {word.upper() for part in WORD.findall(name) for word in part.split("_")}
    words |= {word.rstrip("0123456789") for word in words if word.startswith(("CT", "PET"))}
    return [kind for kind, own in MODALITIES.items() if words & own]


def _apart(glued: re.Match[str]) -> str:
    """The words of a weighting written as one: T1FSGd as T1 FS Gd, c as ce."""
    parts = [glued[2], *GLUED_PARTS.findall(f"{glued[1] or ''} {glued[3]}")]
    return " ".join("ce" if part.lower() == "c" else part for part in parts)


def image_name(path: Path, case: str = "") -> str:
    """The same of a file, by its name: MR_T1_image and sub-03_ses-1_T1w are T1."""
    words = [word for word in words_of(path, case) if word.lower() not in IMAGE_WORDS]
    if len(words) > 1 and words[0].upper() in ("MR", "MRI"):
        words = words[1:]
    return "_".join(BIDS.get(word.lower(), word) for word in words) or "image"


def session_of(path: Path) -> str:
    """The session that a file's name states (ses-2); empty where it states none."""
    return _entities(path).get("ses", "")


def subject_of(path: Path) -> str:
    """The subject that a file's name states (sub-03); empty where it states none."""
    return _entities(path).get("sub", "")


def _entities(path: Path) -> dict[str, str]:
    return {key.lower(): value for key, value in ENTITY.findall(path.name)}


def words_of(path: Path, case: str = "") -> list[str]:
    """The words of a file's name, without its suffix and without what BIDS says of subject and session.

    Args:
        path: of the file.
        case: the folder of the patient, which names of files may begin with.
    """
    name = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"):
        name = name.removesuffix(suffix)
    if (
        case
        and name.lower().startswith(case.lower())
        and name[len(case) : len(case) + 1] in SEPARATORS
    ):
        name = name[len(case) + 1 :]
    name = ENTITY.sub("", name)
    return [word for part in WORD.findall(name) for word in part.split("_") if word]


def is_mask(path: Path, case: str = "") -> bool:
    """Whether a file is a label map, by its name."""
    return bool({word.lower() for word in words_of(path, case)} & MASK_WORDS)


def plain_words(words: Iterable[str]) -> set[str]:
    """Words that tell files apart: without those that say image or mask, in lower case."""
    return {word.lower() for word in words} - IMAGE_WORDS - MASK_WORDS
