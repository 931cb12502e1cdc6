"""New slides that show a specimen of a training slide: scanned again, saved again with loss, or cropped.

Such a slide has another file, other pixels and perhaps another name, so that only its picture tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.slides.second_scans import SecondScan, find_second_scans
from features.slides.structure import Structure
from mil.data.duplicates import structure_of

Known = tuple[Structure | None, ...]  # of the training slides; None without a picture


@dataclass(frozen=True)
class Rescan:
    """A new slide that looks like a second scan of a training slide.

    Attributes:
        slide, case: of the training slide, as its reference names them.
        scan: how the new slide lies.
    """

    slide: str
    case: str
    scan: SecondScan


def find_rescans(
    known: Known, slides: Sequence[str], cases: Sequence[str], bags: Mapping[str, Bag]
) -> dict[str, tuple[Rescan, ...]]:
    """The training slides that new ones look like second scans of, by the name of the new one.

    Of 17,141 pairs of different specimens none was taken for one (``benchmarks/second_scans.py``).

    Args:
        known: structures of the training slides.
        slides: their names, as their reference has them.
        cases: their cases, likewise.
        bags: of new slides, by name.
    """
    if not any(known):
        return {}
    names = list(bags)
    new = [structure_of(bags[name]) for name in names]
    scans = find_second_scans([*new, *known], [0] * len(new) + [1] * len(known))
    found: dict[str, tuple[Rescan, ...]] = {}
    for scan in scans:
        name, at = names[scan.first], scan.second - len(new)
        found[name] = (*found.get(name, ()), Rescan(slides[at], cases[at], scan))
    return found


def pack_structures(known: Known) -> tuple[NDArray[np.uint8], list[dict[str, Any] | None]]:
    """Structures as one array of bytes and the facts that it is cut by; see ``unpack_structures``."""
    parts = [part.ravel() for s in known if s is not None for part in (s.grey, s.tissue)]
    facts = [
        None
        if s is None
        else {
            "shape": list(s.grey.shape),
            "step": s.step,
            "corner_um": list(s.corner_um),
            "size_um": list(s.size_um),
        }
        for s in known
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8), facts


def unpack_structures(
    pixels: NDArray[np.uint8], facts: Sequence[Mapping[str, Any] | None]
) -> Known:
    """What ``pack_structures`` packed.

    Raises:
        ValueError: the array has another length than the facts say.
    """
    known: list[Structure | None] = []
    at = 0
    for fact in facts:
        if fact is None:
            known.append(None)
            continue
        height, width = map(int, fact["shape"])
        grey, tissue = pixels[at : at + 2 * height * width].reshape(2, height, width)
        at += 2 * height * width
        corner, size = (tuple(map(float, fact[name])) for name in ("corner_um", "size_um"))
        known.append(
            Structure(
                grey=grey,
                tissue=tissue,
                step=int(fact["step"]),
                corner_um=(corner[0], corner[1]),
                size_um=(size[0], size[1]),
            )
        )
    if at != len(pixels):
        raise ValueError("pictures of training slides of another size than stated")
    return tuple(known)
