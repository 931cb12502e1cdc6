"""Names that are compared and not shown: a package tells which cases it knows without naming them."""

import hashlib

from mil.data.names import normalised

DIGITS = 24


def hidden(name: str) -> str:
    """A fingerprint of a name, the same in every spelling that ``mil.data.names`` takes for one name."""
    return hashlib.sha256(normalised(name).encode()).hexdigest()[:DIGITS]
