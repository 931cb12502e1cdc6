"""Checksums of files, and the tags of files that a bucket took in parts.

Such a tag is the md5 of the md5s of the parts, a hyphen and the number of parts (Amazon S3 User Guide,
"Checking object integrity"). How long a part was is stated nowhere; programs take whole MiB.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
USUAL_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024)
MOST_LENGTHS = 16  # of parts that are tried
TAG = re.compile(r"[0-9a-f]{32}(-\d{1,5})?")
TAG_OF_PARTS = re.compile(r"[0-9a-f]{32}-(\d{1,5})")


@dataclass(frozen=True)
class Digest:
    """Checksums of a file.

    Attributes:
        md5: of all of it, in hexadecimal digits.
        tags: that it would have if it had been taken in parts, by the lengths of parts that may be.
    """

    md5: str
    tags: frozenset[str]


def part_lengths(size: int, tag: str) -> list[int]:
    """Lengths in MiB of which a file has as many parts as its tag says, the usual ones first.

    Args:
        size: of the file, in bytes.
        tag: of the file; of another form than ``<md5>-<parts>`` it has no lengths.
    """
    match = TAG_OF_PARTS.fullmatch(tag)
    n_parts = int(match[1]) if match else 0
    if not n_parts or size < n_parts:
        return []
    least = max(1, -(-size // (n_parts * MIB)))
    most = (size - 1) // ((n_parts - 1) * MIB) if n_parts > 1 else least
    usual = [length for length in USUAL_MIB if least <= length <= most]
    others = [length for length in range(least, most + 1) if length not in USUAL_MIB]
    return (usual + others)[:MOST_LENGTHS]


def is_tag(text: str) -> bool:
    """Whether a tag has the form of those that are made of content; a mirror may have its own."""
    return bool(TAG.fullmatch(text))


def digest_file(path: Path, tag: str = "") -> Digest:
    """The checksums of a file, in one reading.

    Raises:
        OSError: it cannot be read.
    """
    whole = _md5()
    parts: dict[int, list[Any]] = {n: [] for n in part_lengths(path.stat().st_size, tag)}
    with path.open("rb") as stream:
        number = 0
        while piece := stream.read(MIB):
            whole.update(piece)
            for length, own in parts.items():
                if number % length == 0:
                    own.append(_md5())
                own[-1].update(piece)
            number += 1
    tags = (
        f"{_md5(b''.join(part.digest() for part in own)).hexdigest()}-{len(own)}"
        for own in parts.values()
    )
    return Digest(whole.hexdigest(), frozenset(tags))


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)
