"""A page of CT and MRI says series and slices, where a page of slides says slides and tiles."""

import re

from features.recipe import VOLUME

PHRASES = {
    "scanner, stain, and time between surgery and slide": (
        "scanner, protocol, and time from scan to treatment"
    ),
    "whether by somebody who knew the slides": "whether by somebody who knew the scans",
}
WORDS = {"slide": "series", "slides": "series", "tile": "slice", "tiles": "slices"}
# Scripts, styles and tags are left as they are, and so are names such as tile-vote.
PARTS = re.compile(
    r"<(script|style)\b.*?</\1>|<[^>]*>|(?<![\w-])(slides?|tiles?)(?![\w-])",
    re.DOTALL | re.IGNORECASE,
)


def fit_words(page: str, region: object) -> str:
    """The page, in the words of what its bags hold.

    Args:
        page: HTML that speaks of slides and tiles.
        region: of the recipe of the bags.
    """
    if region != VOLUME:
        return page
    for phrase, other in PHRASES.items():
        page = page.replace(phrase, other)
    return PARTS.sub(_replaced, page)


def _replaced(match: re.Match[str]) -> str:
    word = match[2]
    if not word:
        return match[0]
    other = WORDS[word.lower()]
    return other.capitalize() if word[0].isupper() else other
