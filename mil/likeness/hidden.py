"""Names that are compared and not shown: a package tells which cases it knows without naming them.

A plain fingerprint of a short name is found by trying all names. A package therefore stretches fingerprints
by scrypt (Percival and Josefsson 2016, RFC 7914) with a salt of its own: a list of names that was computed
once fits no package, two packages share no fingerprint, and every guess costs time and memory. Who suspects
a certain name can still check it, and numbers such as case-01 to case-99 are all tried within seconds.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mil.data.names import identity_of, normalised

DIGITS = 24
SALT_BYTES = 16
COST = {"n": 2**14, "r": 8, "p": 1}  # about 50 ms and 16 MB for a name
MOST_BYTES = 2**26  # that a package of others may ask for


def hidden(name: str) -> str:
    """A fingerprint of a slide's name, the same in every spelling that is taken for one name."""
    return _short_hash(normalised(name))


def hidden_case(name: str) -> str:
    """A fingerprint of a case, the same for all names of a patient; see ``mil.data.names.identity_of``."""
    return _short_hash(identity_of(name))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Veil:
    """How a package stretches fingerprints.

    Attributes:
        salt: in hexadecimal digits.
        n, r, p: cost, block size and parallelisation of scrypt.
    """

    salt: str
    n: int
    r: int
    p: int

    def __post_init__(self) -> None:
        if not 128 * self.n * self.r * self.p <= MOST_BYTES:
            raise ValueError(f"fingerprints that cost more than {MOST_BYTES} bytes")

    @classmethod
    def new(cls) -> "Veil":
        """One with a salt that no other has."""
        return cls(secrets.token_hex(SALT_BYTES), **COST)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Veil":
        """The one of a package.

        Raises:
            KeyError, TypeError, ValueError: these are no such values.
        """
        bytes.fromhex(values["salt"])
        return cls(values["salt"], int(values["n"]), int(values["r"]), int(values["p"]))

    def over(self, fingerprint: str) -> str:
        """The fingerprint that the package holds in place of a plain one; an empty one stays empty."""
        return _stretched(fingerprint, self) if fingerprint else ""


@lru_cache(maxsize=8192)
def _stretched(fingerprint: str, veil: Veil) -> str:
    return hashlib.scrypt(
        fingerprint.encode(),
        salt=bytes.fromhex(veil.salt),
        n=veil.n,
        r=veil.r,
        p=veil.p,
        maxmem=2 * MOST_BYTES,
        dklen=DIGITS // 2,
    ).hex()
