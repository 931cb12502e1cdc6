"""What a segmenter's file makes of slides; each slide once while a block lasts."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from features.lowpower.feature_map import CellGrid
from features.lowpower.segmenter import Segmenter, load_segmenter
from features.lowpower.tumour_map import TumourMap
from features.slides.slide import Slide

Key = tuple[Path, int, Path, int, tuple[float, float]]


@dataclass
class _Kept:
    """The maps of the blocks that last; none outside of them."""

    blocks: int = 0
    maps: dict[Key, TumourMap] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_KEPT = _Kept()


@contextlib.contextmanager
def maps_kept() -> Iterator[None]:
    """Within the block no slide is segmented twice by one file; a map takes 1 MB per square centimetre."""
    with _KEPT.lock:
        _KEPT.blocks += 1
    try:
        yield
    finally:
        with _KEPT.lock:
            _KEPT.blocks -= 1
            if not _KEPT.blocks:
                _KEPT.maps.clear()


def tumour_map_of(slide: Slide, segmenter: Path, grid: CellGrid | None = None) -> TumourMap:
    """What a segmenter marks as tumour on a slide.

    Args:
        slide: open.
        segmenter: the file.
        grid: the slide's cells, if they were laid before.

    Raises:
        FeaturesError: the file is no segmenter.
        NoTissue: the slide shows none.
        TileError: its pixels cannot be decoded.
    """
    changed = segmenter.stat().st_mtime_ns
    key = (segmenter, changed, slide.path, slide.path.stat().st_mtime_ns, slide.mpp)
    with _KEPT.lock:
        known_map = _KEPT.maps.get(key)
    if known_map is not None:
        return known_map
    tumour = loaded_segmenter(segmenter, changed).tumour_map(slide, grid)
    with _KEPT.lock:
        if _KEPT.blocks:
            _KEPT.maps[key] = tumour
    return tumour


@lru_cache(maxsize=1)
def loaded_segmenter(file: Path, changed_ns: int) -> Segmenter:
    """The segmenter of a file, read once for all slides.

    Raises:
        FeaturesError: the file is no segmenter.
    """
    del changed_ns
    return load_segmenter(file)
