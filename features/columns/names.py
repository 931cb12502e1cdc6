"""Names of columns that hold no measurement: cases, slides, numbers of rows, outcomes, follow-up.

All are compared as plain headers without accents: ``Tumour grade`` is ``tumourgrade``.
"""

import re

from features.columns.follow_up_words import FOLLOW_UP, UNIT_OF_TIME
from features.columns.spelling import plain_header, without_accents

CASE = ("case", "case_id", "patient", "patient_id")
SLIDE = ("slide", "slide_id", "filename")
ROW_NAMES = frozenset(("row", "rownumber", "rowid", "index", "id", "no", "nr", "number", "lfd", "lfdnr", "#",
                       "unnamed:0", "level0", "mrn", "uuid", "barcode", "accession", "column1"))  # fmt: skip
ID_NAMES = re.compile(r".*(_|\s|-)(id|ids|uuid|barcode|mrn|accession)", re.IGNORECASE)
# In English, German, French, Spanish, Italian, Portuguese, Dutch, the languages of Scandinavia, Polish.
OUTCOME = re.compile(
    "(?:true|known|final|gold|reference|ground|case|bag|slide|patient|instance|tile|primary|original|overall"
    "|histologic(?:al)?|pathologic(?:al)?|who|fnclcc|tumou?r|clinical|treatment|therapy|binary)?"
    "(?:labels?|class(?:es|ification)?|outcomes?|targets?|diagnos(?:is|es|e|i|tico|tic)|dx|subtypes?|subtipos?|sottotipo"
    "|types?|typ|entit(?:y|aet|at)|histolog(?:y|ie|ia|ical|ic)(?:type|subtype)?|histotypes?|status|respon(?:se|der|ders)"
    "|grad(?:e|es|ing|o|us)?|graad|stopien|malign(?:ancy|itat|itaet|ite|idad|ita)|survival|truth|gt"
    "|et(?:i)?quet(?:te|a)|etichetta|etykieta|klasse|clase|classe|stage|stadium|stadio|estadio|stade"
    "|predict(?:ed|ion|ions))(?:code|coded|name|index|idx|id|binary|num|int|\\d*)?"
    "|y|ytrue|event|fnclcc|mets|metasta(?:sis|ses|sen|tic|tisch)|prognos(?:is|e|tico)"
)


def is_follow_up(name: str) -> bool:
    """Whether a column, by its name, holds what is known only from the follow-up of a case."""
    header = UNIT_OF_TIME.sub("", without_accents(plain_header(name)))
    return bool(FOLLOW_UP.fullmatch(header))


def is_outcome(name: str) -> bool:
    """Whether a column, by its name, holds what models are to find out."""
    return bool(OUTCOME.fullmatch(without_accents(plain_header(name)))) or is_follow_up(name)
