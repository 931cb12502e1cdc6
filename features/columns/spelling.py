"""Headers of tables without what writers of tables vary: capitals, accents, and what stands between words."""

import re
import unicodedata

ACCENT = re.compile("[\u0300-\u036f]")


def plain_header(name: str) -> str:
    """The name of a column without capitals, blanks, underscores, dots and dashes."""
    return re.sub(r"[\s_.\-]+", "", name.casefold())


def without_accents(text: str) -> str:
    """The text with plain Latin, Greek and Cyrillic letters: décédé is decede."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", ACCENT.sub("", unicodedata.normalize("NFKD", text)))
