"""The tags of a TIFF slide, read without any library: contradictions, and kinds of pixels nothing decodes.

Damaged tags end the whole process inside the libraries that decode slides, or make them draw a canvas of
10^10 pixels that no tile fills. So what a few numbers give away is refused before those libraries see it.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from features.errors import SlideError

# Numbers of tags and types: TIFF 6.0 (Adobe, 1992) and the BigTIFF extension.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 256, 257, 258, 259, 262, 277, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_PAGES = 322, 323, 324, 325, 330
SAMPLE_FORMAT, NDPI = 339, 65420
TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
MAX_PAGES = 4096  # a loop of pages never ends
MAX_TILE_PIXELS = 1 << 28  # 1 GiB once decoded; slides have tiles of 2^14 to 2^24
MAX_TAGS = 4096
SAMPLE_KINDS = {
    1: "whole-number",
    2: "signed whole-number",
    3: "floating-point",
    5: "complex",
    6: "complex",
}
COMPRESSIONS = {
    6: "old-style JPEG", 34676: "SGI LogLuv", 34677: "SGI LogLuv", 34887: "LERC", 34892: "lossy JPEG (DNG)",
    34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
    22610: "JPEG XR", 34934: "JPEG XR", 34933: "PNG", 48124: "JetRaw",
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """One page of a TIFF file.

    Attributes:
        tags: the numbers of every tag that holds numbers; long lists as arrays.
    """

    tags: Mapping[int, NDArray[np.int64]]

    def number(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        values = self.tags.get(tag)
        return default if values is None or not len(values) else int(values[0])

    @property
    def tiled(self) -> bool:
        """Whether the page is stored in tiles, as levels of slides are."""
        return TILE_WIDTH in self.tags and TILE_OFFSETS in self.tags


def check_tags(path: Path) -> None:
    """Refuse a TIFF slide whose tags contradict each other; other files pass.

    Raises:
        SlideError: a tile has an impossible size, tiles are missing, or one is larger than the file.
    """
    for page in _pages_of(path):
        problem = _contradiction(page, path.stat().st_size) if page.tiled else ""
        if problem:
            raise SlideError(
                f"{path.name}: its tags contradict each other: {problem}. Copy the file again or scan the "
                "slide again."
            )


def undecodable_pixels(path: Path) -> str:
    """The kind of a TIFF's pixels, such as ``32-bit floating-point samples``, if slides do not have it.

    Returns:
        A noun; empty for 8-bit colour in a compression that is decoded, and for files that are no TIFF.
    """
    for page in _pages_of(path):
        bits = page.tags.get(BITS, np.ones(1, np.int64))
        kind = page.number(SAMPLE_FORMAT, 1)
        samples, compression = page.number(SAMPLES, 1), page.number(COMPRESSION, 1)
        if kind != 1 or bits.max(initial=0) != 8:
            noun = SAMPLE_KINDS.get(kind, "")
            return f"{bits.max(initial=0)}-bit {noun} samples".replace("  ", " ")
        if compression in COMPRESSIONS:  # a number that nobody uses is damage
            return f"{COMPRESSIONS[compression]} tiles"
        if samples not in (1, 3, 4):
            return f"{samples} channels"
        if samples > 1 and page.number(PLANAR, 1) == 2:
            return "channels stored one after the other"
        if not page.tiled:
            return "strips instead of tiles"
        break
    return ""


def _contradiction(page: Page, file_bytes: int) -> str:
    """What is wrong with the tags of a tiled page; empty if nothing is."""
    width, height = page.number(WIDTH, 0), page.number(HEIGHT, 0)
    tile = page.number(TILE_WIDTH, 0), page.number(TILE_HEIGHT, 0)
    if min(width, height, *tile) < 1:
        return f"{width} x {height} pixels in tiles of {tile[0]} x {tile[1]}"
    if tile[0] * tile[1] > MAX_TILE_PIXELS:
        return f"{width:,} x {height:,} pixels in tiles of {tile[0]:,} x {tile[1]:,}"
    needed = -(-width // tile[0]) * -(-height // tile[1])
    if page.number(PLANAR, 1) == 2:
        needed *= page.number(SAMPLES, 1)
    counts = page.tags.get(TILE_BYTES, np.zeros(0, np.int64))
    for listed in (len(page.tags[TILE_OFFSETS]), len(counts)):
        if listed < needed:
            return (
                f"{width:,} x {height:,} pixels are {needed:,} tiles of {tile[0]} x {tile[1]}, but it lists "
                f"{listed:,}"
            )
    largest = int(counts.max(initial=0))
    if largest > file_bytes or counts.min(initial=0) < 0:
        return f"a tile of {largest:,} bytes in a file of {file_bytes:,}"
    return ""


def _pages_of(path: Path) -> Iterator[Page]:
    """The pages of a TIFF file in order; none of an NDPI, whose offsets do not follow the standard."""
    try:
        with path.open("rb") as file:
            layout = _Layout.of(file)
            if layout is None:
                return
            yield from _walk(file, layout)
    except (OSError, struct.error, ValueError, OverflowError, MemoryError):
        return  # cut off: what remains is for the decoder to judge


def _walk(file: BinaryIO, layout: "_Layout") -> Iterator[Page]:
    seen: set[int] = set()
    waiting = [layout.first]
    while waiting and len(seen) < MAX_PAGES:
        place = waiting.pop(0)
        if not place or place in seen:
            continue
        seen.add(place)
        tags, following = layout.page(file, place)
        if NDPI in tags:
            return
        yield Page(tags)
        waiting += [following, *tags.get(SUB_PAGES, ())]


@dataclass(frozen=True)
class _Layout:
    """How numbers are written in a TIFF or BigTIFF file."""

    order: str
    big: bool
    first: int
    file_bytes: int

    @classmethod
    def of(cls, file: BinaryIO) -> "_Layout | None":
        """The layout of a file; None if it is no TIFF."""
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return None
        version = struct.unpack(f"{order}H", head[2:4])[0]
        size = os.fstat(file.fileno()).st_size
        if version == 42:
            (first,) = struct.unpack(f"{order}I", head[4:8])
            return cls(order=order, big=False, first=first, file_bytes=size)
        if version == 43:
            (first,) = struct.unpack(f"{order}Q", head[8:16])
            return cls(order=order, big=True, first=first, file_bytes=size)
        return None

    def page(self, file: BinaryIO, place: int) -> tuple[dict[int, NDArray[np.int64]], int]:
        """The numeric tags of the page at an offset, and the offset of the next page."""
        count_form, entry, offset_form = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        file.seek(place)
        size = struct.calcsize(count_form)
        (n_tags,) = struct.unpack(self.order + count_form, file.read(size))
        if n_tags > MAX_TAGS:
            raise ValueError("more tags than a page has")
        entries = file.read(n_tags * entry)
        width = struct.calcsize(offset_form)
        (following,) = struct.unpack(self.order + offset_form, file.read(width))
        tags = {}
        for start in range(0, n_tags * entry, entry):
            tag, kind, count = struct.unpack_from(f"{self.order}HH{offset_form}", entries, start)
            if kind in TYPES:
                inline = entries[start + 4 + width : start + entry]
                tags[tag] = self._values(file, kind, count, inline)
        return tags, following

    def _values(self, file: BinaryIO, kind: int, count: int, inline: bytes) -> NDArray[np.int64]:
        """The numbers of one tag, from the entry itself or from where it points."""
        dtype = np.dtype(self.order + TYPES[kind])
        stored = inline[: count * dtype.itemsize]
        if count * dtype.itemsize > len(inline):
            (place,) = struct.unpack(self.order + ("Q" if self.big else "I"), inline)
            if place + count * dtype.itemsize > self.file_bytes:
                return np.zeros(0, np.int64)
            file.seek(place)
            stored = file.read(count * dtype.itemsize)
        return np.frombuffer(stored, dtype).astype(np.int64)
