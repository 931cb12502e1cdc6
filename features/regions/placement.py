"""Whether a drawing fits the tissue of its slide, or would fit better turned, mirrored, scaled or moved.

Annotations reach a slide in a wrong frame where a viewer turns or mirrors slides, or exports micrometres,
rows before columns, or pixels of another level. Most of such drawings lie on glass or outside the slide.
Others land on tissue by chance. A drawing that follows what can be seen, such as the edge of a tumour or of
a piece of tissue, is betrayed by its outline: the colours on both sides of it differ less than they do after
the drawing is turned back. Both are measured on a small overview.

Limits were set on 20 slides of the demo cohort, 60 made slides of pieces of tissue on glass and 2 real
ones; ``python -m benchmarks.annotation_frames`` measures how often the notes are given. What cannot be seen:
a small region, or one without a visible edge, that lands on tissue; a drawing as symmetric as its tissue; a
shift within the tissue of a drawing that covers less than half of it; a single drawing in micrometres that
lands on tissue of a slide at 20x, where it reaches half as far as a true one, as some true ones do.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import fft, ndimage
from shapely.affinity import affine_transform

from features.regions.drawing import Region, polygonal_parts
from features.summary import listed

NOTABLE_OUTSIDE = 0.05  # of the drawn area outside the slide: strokes run over its edge
NOTABLE_GLASS = 0.25  # of the drawn area on glass: hulls round true tissue have up to 0.2
GRID_PX = 256  # longest side of the overview that frames are compared on
BAND = 0.01  # of the longest side: width of the bands on both sides of the outline
TOLERANCE = 0.02  # of the longest side: how far a true outline may lie beside the edge it follows
MIN_CONTRAST = 0.06  # optical density: an outline with less follows nothing that can be seen
COVER = (0.2, 1.6)  # of the tissue: smaller drawings cross some edge by chance
BETTER_TURNED = 1.6  # ratio of contrasts
VAGUE = 0.08  # optical density: a true outline with less is exceeded elsewhere by chance
BETTER_SCALED = 0.9  # few scales are plausible, and few drawings fit the slide at another one
BETTER_MOVED = 2.5  # of thousands of places, some have a high contrast by chance
MOVED_COVER = 0.45  # as COVER, for moved drawings
MIN_MOVE = 0.06  # of the longest side
SMALL_REACH = 0.55  # of a slide's sides: one true drawing in thirty does not reach farther
LEAST_DRAWINGS = 3  # in a cohort
ODD_REACH = (
    0.3  # of a slide's sides, where others reach far: of 3,000 made true drawings none is so near
)
LEAST_OTHERS = 5  # drawings with which such a one is compared
SMALLER = "micrometres or pixels of a smaller picture"
_Matrix = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Placement:
    """How a drawing lies on its slide.

    Attributes:
        glass: fraction of the drawn area that is glass, by colour.
        outside: fraction of the drawn area that lies outside the slide.
        better: how the drawing would fit better, as ``turned by 180 degrees``; empty if no other way is.
    """

    glass: float
    outside: float
    better: str = ""

    @property
    def note(self) -> str:
        """A remark with the remedy if the drawing seems to be misplaced; else empty."""
        facts = [
            f"{share:.0%} of the drawn area {where}"
            for share, limit, where in (
                (self.outside, NOTABLE_OUTSIDE, "lies outside the slide"),
                (self.glass, NOTABLE_GLASS, "is glass"),
            )
            if share > limit
        ]
        if self.better:
            facts.append(f"the drawing would fit what the slide shows better {self.better}")
        if not facts:
            return ""
        sentence = " and ".join(facts)
        return (
            f"{sentence[0].upper()}{sentence[1:]}. Look at the picture of the slide: an annotation has to be "
            "this slide's, in full-resolution pixels, and not rotated or flipped."
        )


def judge_placement(
    drawn: Region,
    on_tissue: float,
    overview: NDArray[np.uint8],
    tissue: NDArray[np.bool_],
    scales: Mapping[str, float],
    size_l0: tuple[int, int],
) -> Placement:
    """Measure how a drawing lies on its slide, and compare the given frame with others.

    Args:
        drawn: in level-0 pixels; not empty.
        on_tissue: fraction of the drawn area that is tissue.
        overview: (H, W, 3) of the whole slide.
        tissue: (H, W) True where there is tissue.
        scales: what the coordinates may have been taken for, as ``taken as micrometres``, with the factor
            that makes level-0 pixels of them.
        size_l0: the slide's (width, height) in level-0 pixels.
    """
    outside = _outside(drawn, size_l0)
    picture = _Picture(overview, tissue, size_l0)
    as_drawn = _Fit(picture, drawn)
    best, better = 0.0, ""
    for way, ratio, matrix in _other_frames(size_l0, scales):
        moved = affine_transform(drawn, matrix)
        if _outside(moved, size_l0) > NOTABLE_OUTSIDE:
            continue
        other = _Fit(picture, moved)
        if _fits_better(other, as_drawn, ratio) and other.contrast > best:
            best, better = other.contrast, way
    if not better and outside <= NOTABLE_OUTSIDE:
        better = _better_place(as_drawn)
    return Placement(max(0.0, 1 - outside - on_tissue), outside, better)


def note_reach(reaches: Mapping[str, float]) -> list[str]:
    """Remarks on drawings that lie in the upper left part of their slides, on tissue or not.

    Drawings in micrometres, or in pixels of a smaller picture, all do. On one slide this is no evidence; of
    true drawings, it is rare on several slides of a cohort at once, or on one where others reach far.

    Args:
        reaches: by slide, of the whole drawing, as a fraction of the slide's sides; NaN if unknown.
    """
    known = {slide: reach for slide, reach in reaches.items() if math.isfinite(reach)}
    if len(known) < LEAST_DRAWINGS:
        return []
    if max(known.values()) <= SMALL_REACH:
        return [
            f"All {len(known)} drawings lie within the upper left {max(known.values()):.0%} of the width and "
            f"height of their slides, as drawings do whose coordinates are {SMALLER}. Look at the pictures; "
            "if they are misplaced, export the annotations again in full-resolution pixels."
        ]
    near = sorted(slide for slide, reach in known.items() if reach <= ODD_REACH)
    others = [reach for slide, reach in known.items() if slide not in near]
    if not near or len(others) < max(LEAST_OTHERS, len(near)) or np.median(others) <= SMALL_REACH:
        return []
    farthest = max(known[slide] for slide in near)
    return [
        f"Drawings of {listed(near)} lie within the upper left {farthest:.0%} of the width and height of "
        f"their slides, where those of others reach to {np.median(others):.0%}: as drawings do whose "
        f"coordinates are {SMALLER}. Look at these slides, even if the drawing lies on tumour."
    ]


class _Picture:
    """A small overview whose colours and tissue can be compared with a drawing at all places at once."""

    def __init__(
        self, overview: NDArray[np.uint8], tissue: NDArray[np.bool_], size_l0: tuple[int, int]
    ) -> None:
        self._step = max(1, round(max(tissue.shape) / GRID_PX))
        self._middle = np.s_[self._step // 2 :: self._step, self._step // 2 :: self._step]
        self._overview = overview
        self.tissue = tissue[self._middle]
        self.tissue_pixels = int(self.tissue.sum())
        self.height, self.width = self.tissue.shape
        self.longest = max(self.height, self.width)
        self.scale = (self.width / size_l0[0], self.height / size_l0[1])
        margin = 2 * max(
            1, round(TOLERANCE * self.longest)
        )  # else what leaves one edge enters at the other
        self.shape = tuple(fft.next_fast_len(side + margin) for side in self.tissue.shape)

    def contrasts(self, sides: NDArray[np.float64]) -> NDArray[np.float32]:
        """The contrast between two sides of an outline, moved to every place."""
        squares = [self._correlate(colour, sides) ** 2 for colour in self._colours]
        lengths: NDArray[np.float32] = np.sqrt(np.sum(squares, axis=0))
        return lengths

    def tissue_shares(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The fraction of a drawing that is tissue, moved to every place."""
        return self._correlate(self._tissue_spectrum, mask / mask.sum())

    def rasterise(self, drawn: Region) -> NDArray[np.bool_]:
        """(H, W) True inside the drawing."""
        mask = np.zeros(self.tissue.shape, dtype=np.bool_)
        across, down = self.scale
        within = shapely.clip_by_rect(drawn, -1 / across, -1 / down, (self.width + 1) / across,
                                      (self.height + 1) / down)  # fmt: skip
        for part in shapely.get_parts(polygonal_parts(within)):
            image = Image.new("1", (self.width, self.height))
            draw = ImageDraw.Draw(image)
            for ring, fill in [(part.exterior, 1), *((hole, 0) for hole in part.interiors)]:
                draw.polygon([(x * across, y * down) for x, y in ring.coords], fill=fill)
            mask |= np.asarray(image)
        return mask

    @cached_property
    def _colours(self) -> list[NDArray[Any]]:
        """The spectra of the optical densities of red, green and blue."""
        density = -np.log((self._overview.astype(np.float32) + 8) / 263)
        density = block_means(density, self._step)
        channels = np.moveaxis(density - density.min(axis=(0, 1)), -1, 0)
        return [fft.rfft2(channel, self.shape) for channel in channels]

    @cached_property
    def _tissue_spectrum(self) -> NDArray[Any]:
        spectrum: NDArray[Any] = fft.rfft2(self.tissue.astype(np.float32), self.shape)
        return spectrum

    def _correlate(self, spectrum: NDArray[Any], mask: NDArray[np.float64]) -> NDArray[np.float32]:
        """The sum of a picture under a mask at every shift; negative shifts count from the end."""
        shifted = np.conj(fft.rfft2(mask.astype(np.float32), self.shape))
        sums: NDArray[np.float32] = fft.irfft2(spectrum * shifted, self.shape)
        return sums


class _Fit:
    """How a drawing in level-0 pixels lies in one frame.

    What takes long is computed where it is asked: most drawings are too small for it to matter.
    """

    def __init__(self, picture: _Picture, drawn: Region) -> None:
        self.picture = picture
        self._mask = picture.rasterise(drawn)

    @property
    def cover(self) -> float:
        """Drawn pixels per pixel of tissue."""
        return float(self._mask.sum() / max(1, self.picture.tissue_pixels))

    @cached_property
    def tissue(self) -> float:
        """Fraction of the drawn pixels that is tissue; 0 without an outline."""
        return 0.0 if self._sides is None else float(self.picture.tissue[self._mask].mean())

    @cached_property
    def contrast(self) -> float:
        """Between both sides of the outline, at the best place within ``TOLERANCE``.

        It is the distance of mean optical densities.
        """
        reach = round(TOLERANCE * self.picture.longest)
        near = np.ix_(*[np.arange(-reach, reach + 1)] * 2)
        shares, contrasts = self._everywhere
        return float(np.where(shares[near] >= self.tissue - 0.05, contrasts[near], 0).max())

    @cached_property
    def best_place(self) -> tuple[int, int, float]:
        """Where on tissue the contrast would be highest: (x, y) from here in pixels of the grid, and it."""
        rows, columns = (np.flatnonzero(self._mask.any(axis=axis)) for axis in (1, 0))
        y = np.arange(-rows[0], self.picture.height - rows[-1])
        x = np.arange(-columns[0], self.picture.width - columns[-1])
        shares, contrasts = (values[np.ix_(y, x)] for values in self._everywhere)
        anywhere = np.where(shares >= 0.85, contrasts, 0)
        row, column = np.unravel_index(anywhere.argmax(), anywhere.shape)
        return int(x[column]), int(y[row]), float(anywhere.max())

    @cached_property
    def _sides(self) -> NDArray[np.float64] | None:
        """(H, W) weights whose sum over a picture is the difference between both sides of the outline."""
        inner, outer = _bands(self._mask, max(2, round(BAND * self.picture.longest)))
        if not (inner.any() and outer.any() and self.picture.tissue_pixels):
            return None
        sides: NDArray[np.float64] = inner / inner.sum() - outer / outer.sum()
        return sides

    @cached_property
    def _everywhere(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The fraction that is tissue, and the contrast, at every place."""
        if self._sides is None:
            nothing = np.zeros(self.picture.shape, dtype=np.float32)
            return nothing, nothing
        return self.picture.tissue_shares(self._mask), self.picture.contrasts(self._sides)


def _better_place(as_drawn: _Fit) -> str:
    """By how many level-0 pixels the drawing would have to be moved to fit better; empty if it fits."""
    if not MOVED_COVER <= as_drawn.cover <= COVER[1]:
        return ""
    right, down, highest = as_drawn.best_place
    if float(np.hypot(right, down)) / as_drawn.picture.longest < MIN_MOVE:
        return ""
    if highest < max(MIN_CONTRAST, BETTER_MOVED * as_drawn.contrast):
        return ""
    across, along = as_drawn.picture.scale
    return f"moved by about {right / across:+.0f} pixels in x and {down / along:+.0f} in y"


def _outside(drawn: Region, size_l0: tuple[int, int]) -> float:
    """The fraction of a drawing that lies outside the slide."""
    return max(0.0, 1 - shapely.clip_by_rect(drawn, 0, 0, *size_l0).area / drawn.area)


def block_means(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """The means of squares of ``step`` pixels, (H, W, C) -> (h, w, C), of each whose middle is inside.

    A picture is mirrored at its edges. To filter all of it and take these means takes four times as long.
    """
    sides = values.shape[:2]
    height, width = (len(range(step // 2, side, step)) * step for side in sides)
    missing = [(0, max(0, end - side)) for end, side in zip((height, width), sides, strict=True)]
    whole = np.pad(values, [*missing, (0, 0)], mode="symmetric")[:height, :width]
    rows = whole[::step].copy()
    for start in range(1, step):
        rows += whole[start::step]
    sums = rows[:, ::step].copy()
    for start in range(1, step):
        sums += rows[:, start::step]
    return sums / np.float32(step**2)


def _bands(mask: NDArray[np.bool_], width: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pixels just inside and just outside the outline."""
    square = np.ones((3, 3), dtype=np.bool_)
    inside = ndimage.binary_erosion(mask, square, width, border_value=1)
    around = ndimage.binary_dilation(mask, square, width)
    return mask & ~inside, around & ~mask


def _fits_better(other: _Fit, as_drawn: _Fit, ratio: float) -> bool:
    """Whether an outline follows clearly more of what can be seen in another frame."""
    if not COVER[0] <= other.cover <= COVER[1]:
        return False
    if other.tissue >= max(as_drawn.tissue + 0.15, 0.9):
        return other.contrast >= max(MIN_CONTRAST, 1.2 * as_drawn.contrast)
    if other.tissue < max(as_drawn.tissue - 0.08, 0.8):
        return False
    return other.contrast >= max(MIN_CONTRAST, ratio * max(as_drawn.contrast, VAGUE))


def _other_frames(
    size_l0: tuple[int, int], scales: Mapping[str, float]
) -> Iterator[tuple[str, float, _Matrix]]:
    """What coordinates may need: in words, the ratio of contrasts that is telling, and as a matrix."""
    width, height = size_l0
    turned: dict[str, _Matrix] = {
        "turned by 180 degrees": (-1, 0, 0, -1, width, height),
        "mirrored left to right": (-1, 0, 0, 1, width, 0),
        "mirrored top to bottom": (1, 0, 0, -1, 0, height),
        "with x and y swapped": (0, 1, 1, 0, 0, 0),
        "turned clockwise by 90 degrees": (0, -1, 1, 0, width, 0),
        "turned anticlockwise by 90 degrees": (0, 1, -1, 0, 0, height),
        "with x and y swapped, and turned by 180 degrees": (0, -1, -1, 0, width, height),
    }
    for way, matrix in turned.items():
        yield way, BETTER_TURNED, matrix
    for way, factor in scales.items():
        if abs(factor - 1) > 0.1:
            yield way, BETTER_SCALED, (factor, 0, 0, factor, 0, 0)
