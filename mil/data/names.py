"""When two spellings are one name: a case written twice must not be trained on and tested."""

import re
import unicodedata
from collections.abc import Iterable

# Cyrillic and Greek letters that look like Latin ones, small or capital.
LOOKALIKES = str.maketrans("авекмнорстухіјѕαβεζηικμνορτυχ", "abekmhopctyxijsabezhikmnoptyx")


def matching(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of the names, sorted, that are among the others in any spelling: Case_01 is case-01."""
    known = set(map(normalised, others))
    return sorted({name for name in names if normalised(name) in known})


def normalised(name: str) -> str:
    """A name without what the eye does not tell apart, or a hand writes now so and now otherwise.

    A dash counts between two digits alone, where it tells 1-12 from 11-2, and before a number.
    """
    seen = unicodedata.normalize("NFKC", name).casefold().translate(LOOKALIKES)
    seen = "".join(letter for letter in seen if unicodedata.category(letter) != "Cf")  # invisible
    return re.sub(r"(?<!\d)(?<!^)-|-(?!\d)", "", re.sub(r"[\W_]+", "-", seen))
