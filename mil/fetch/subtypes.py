"""Spellings of the histology in TCGA-SARC, and the subtype that is meant.

They are those of the clinical tables (TCGA-CDR, Liu 2018, doi 10.1016/j.cell.2018.02.052) and of the GDC's
``primary_diagnosis``. What was called malignant fibrous histiocytoma is undifferentiated pleomorphic sarcoma,
and fibromyxosarcoma is myxofibrosarcoma, in the WHO classification of 2020 and in the study of these cases
(TCGA 2017, doi 10.1016/j.cell.2017.10.014).
"""

import re

SARCOMA_SPELLINGS = {
    "LMS": (
        "Leiomyosarcoma (LMS)",
        "Leiomyosarcoma, NOS",
        "Leiomyosarcoma",
        "Myxoid leiomyosarcoma",
        "Epithelioid leiomyosarcoma",
    ),
    "DDLPS": ("Dedifferentiated liposarcoma",),
    "UPS": (
        "Pleomorphic 'MFH' / Undifferentiated pleomorphic sarcoma",
        "Undifferentiated Pleomorphic Sarcoma (UPS)",
        "Giant cell 'MFH' / Undifferentiated pleomorphic sarcoma with giant cells",
        "Undifferentiated pleomorphic sarcoma",
        "Undifferentiated sarcoma",
        "Malignant fibrous histiocytoma",
        "Giant cell sarcoma",
    ),
    "MFS": ("Myxofibrosarcoma", "Fibromyxosarcoma"),
    "MPNST": (
        "Malignant Peripheral Nerve Sheath Tumors (MPNST)",
        "Malignant peripheral nerve sheath tumor",
    ),
    "SS": (
        "Synovial Sarcoma - Monophasic",
        "Synovial Sarcoma - Biphasic",
        "Sarcoma; synovial; poorly differentiated",
        "Synovial sarcoma, NOS",
        "Synovial sarcoma, spindle cell",
        "Synovial sarcoma, epithelioid cell",
        "Synovial sarcoma, biphasic",
    ),
    "DF": ("Desmoid Tumor", "Aggressive fibromatosis", "Abdominal fibromatosis"),
    "PLPS": ("Pleomorphic liposarcoma",),
    "WDLPS": ("Liposarcoma, well differentiated", "Well differentiated liposarcoma"),
}


def plain_spelling(text: str) -> str:
    """A spelling without regard to capitals, blanks, kinds of quotation marks and of hyphens."""
    text = re.sub("[\u2018\u2019`\u00b4]", "'", text)
    text = re.sub("[\u2010-\u2015\u2212]", "-", text)
    return re.sub(r"\s+", " ", text).strip().casefold()


SUBTYPE_OF = {
    plain_spelling(spelling): label
    for label, spellings in SARCOMA_SPELLINGS.items()
    for spelling in spellings
}
