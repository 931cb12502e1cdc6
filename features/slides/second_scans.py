"""Find slides that show one specimen, scanned twice: turned, mirrored, moved, recoloured, or saved again.

In two steps. First, all slides are correlated with each other, small, in all eight orientations and at all
shifts, by the Fourier transform; a specimen that is seen twice stands out from all other shifts. Where
something stands out, fields of one slide are looked up in the other. In another specimen the best match of a
field lies anywhere in the part that is searched; in the same specimen the matches lie in one arrangement, up
to a small turn and scale. By chance they do so with the probability of a binomial tail.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import bdtrc

from features.slides.structure import FIELD_PX, Structure, scale_of

Floats = NDArray[np.float32]

SMALL_PX = 48  # side of the small pictures, with room for the longest side of any tissue
COARSER = math.ceil(2 * math.log2(FIELD_PX / SMALL_PX))  # steps of the ladder down to it
SMALLER = 4  # steps: a slide is not looked for in one that is more than four times as wide
STANDS_OUT = 6.0  # standard deviations of the correlation over all shifts; others reach 5 to 6
ORIENTATIONS = 8  # four turns, as it is and mirrored
TRIED = 2  # orientations of two slides whose fields are looked up
AT_ONCE = 64  # slides that are correlated with one
FIELD_SIDE_PX = 24
SEARCH_PX = 16  # how far from its expected place a field is looked for
WINDOW_PX = FIELD_SIDE_PX + 2 * SEARCH_PX
LEAST_STRUCTURE = (
    0.25  # mean square of a field, and of its expected place; flat tissue and glass have less
)
LEAST_FIELDS = 6
NEAR_PX = 1.5  # of a common arrangement
MAX_SCALE, MAX_TURN = 0.07, math.radians(7)
CHANCE = 1e-6  # of so many matches in one arrangement, at most
LEAST_SHARE = 0.5  # of the fields; an outline of one shape gives fewer, a second scan nearly all


@dataclass(frozen=True, kw_only=True)
class SecondScan:
    """Two slides that show one specimen.

    Attributes:
        first, second: numbers of the slides.
        turn: degrees by which the second is to be turned counter-clockwise to lie like the first.
        mirrored: whether it is to be mirrored left to right after that.
        scale: the specimen is so much larger on the second than on the first.
        shift_um: how far (right, down) the specimen then lies from its place on the first, at the middle.
        um_per_px: of the pictures that were compared: what is smaller is not known.
        matches: fields of one slide that lie in the other in one arrangement.
        compared: fields that were looked up.
        chance: probability of so many matches between two specimens, at most.
    """

    first: int
    second: int
    turn: float
    mirrored: bool
    scale: float
    shift_um: tuple[float, float]
    um_per_px: float
    matches: int
    compared: int
    chance: float

    def __str__(self) -> str:
        turn = (round(self.turn) + 179) % 360 - 179
        right, down = (round(shift) for shift in self.shift_um)
        how = [
            f"turned by {turn}°" if turn else "",
            "mirrored" if self.mirrored else "",
            f"scaled by {self.scale:.2f}" if abs(self.scale - 1) >= 0.005 else "",
            f"moved by {right} and {down} µm"
            if max(map(abs, self.shift_um)) >= self.um_per_px
            else "",
        ]
        changes = ", ".join(filter(None, how))
        return (
            f"{self.matches} of {self.compared} fields of one lie in the other in the same arrangement"
            + (f" ({changes})" if changes else "")
        )


@dataclass(frozen=True)
class _Arrangement:
    """A field at ``a`` lies at ``factor * a + offset`` on the other slide; both are x + iy in pixels."""

    factor: complex
    offset: complex
    matches: int
    compared: int
    chance: float

    @property
    def is_certain(self) -> bool:
        return self.chance <= CHANCE and self.matches >= LEAST_SHARE * self.compared


def find_second_scans(
    structures: Sequence[Structure | None], groups: Sequence[Hashable]
) -> list[SecondScan]:
    """Pairs of slides that show one specimen, although they are of different groups.

    Other colours, sharpness and compression, quarter turns, mirroring, a tilt of some degrees and crops to
    half of the width do not matter; micrometres per pixel must be right to about 5 %.

    Args:
        structures: of all slides; None for those that have none.
        groups: of the same slides; those of one group are not compared.
    """
    usable = [n for n, structure in enumerate(structures) if is_comparable(structure)]
    known = {n: structure for n in usable if (structure := structures[n]) is not None}
    pairs = []
    for step in sorted({structure.step for structure in known.values()}):
        near = {n: s for n, s in known.items() if step - SMALLER <= s.step <= step}
        pictures = _Pictures(near, step)
        for first, second, places in _candidates(near, groups, step):
            if there := _look_up(first, second, pictures, places):
                pairs.append(
                    _describe((first, second), (known[first], known[second]), step, *there)
                )
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def is_comparable(structure: Structure | None) -> bool:
    """Whether a slide's tissue has enough structure, on so small a picture, to be recognised."""
    if structure is None:
        return False
    fields = _cut(
        structure.standardise(structure.step), _field_corners(structure.grey.shape), FIELD_SIDE_PX
    )
    return int(_have_structure(fields).sum()) >= LEAST_FIELDS


@dataclass(frozen=True)
class _Place:
    """An orientation of the second slide and the (down, right) shift to the first, in small pixels."""

    orientation: int
    shift: tuple[int, int]


def _candidates(
    structures: dict[int, Structure], groups: Sequence[Hashable], step: int
) -> Iterator[tuple[int, int, list[_Place]]]:
    """Pairs of slides, the wider of which is of this step, that stand out in some place."""
    numbers = np.array(list(structures))
    spectra = np.stack([_spectra(s.standardise(step + COARSER)) for s in structures.values()])
    steps = np.array([s.step for s in structures.values()])
    names = {name: n for n, name in enumerate(dict.fromkeys(groups))}
    group = np.array([names[groups[n]] for n in numbers])
    for at in np.flatnonzero(steps == step):
        others = (group != group[at]) & ((steps < step) | (np.arange(len(steps)) > at))
        rows = np.flatnonzero(others)
        for chunk in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
            earlier = (chunk < at)[:, None, None, None]  # the first of a pair stays as it is
            one = np.where(earlier, spectra[chunk, :1], spectra[at, :1])
            product = one * np.where(earlier, spectra[at], spectra[chunk]).conj()
            surface = scipy.fft.irfft2(product, s=(SMALL_PX, SMALL_PX), workers=-1)
            surface = surface.reshape(len(chunk), ORIENTATIONS, SMALL_PX**2)
            spread = np.sqrt(np.einsum("bos,bos->bo", surface, surface)) / SMALL_PX
            height = surface.max(axis=2) / (spread + 1e-6)
            for b in np.flatnonzero(height.max(axis=1) >= STANDS_OUT):
                best = [o for o in np.argsort(-height[b])[:TRIED] if height[b, o] >= STANDS_OUT]
                peaks = [int(surface[b, o].argmax()) for o in best]
                places = [
                    _Place(int(o), divmod(peak, SMALL_PX))
                    for o, peak in zip(best, peaks, strict=True)
                ]
                first, second = sorted((int(numbers[at]), int(numbers[chunk[b]])))
                yield first, second, places


def _spectra(small: Floats) -> NDArray[np.complex64]:
    """(8, SMALL_PX, SMALL_PX // 2 + 1) Fourier transforms of a small picture in all orientations."""
    fields = np.zeros((ORIENTATIONS, SMALL_PX, SMALL_PX), np.float32)
    for orientation, field in enumerate(fields):
        turned = _orient(small, orientation)
        field[: turned.shape[0], : turned.shape[1]] = turned
    return np.asarray(scipy.fft.rfft2(fields), np.complex64)


def _orient(values: Floats, orientation: int) -> Floats:
    """Turned counter-clockwise by 90 degrees so many times, and from 4 on then mirrored left to right."""
    turned = np.rot90(values, orientation % 4)
    return turned[:, ::-1] if orientation >= 4 else turned


class _Pictures:
    """The slides at one step of the ladder: as fields that are looked up, and as the place of the search."""

    def __init__(self, structures: Mapping[int, Structure], step: int) -> None:
        self._structures, self._step = structures, step
        # Pairs come sorted by one of their slides, so that a few others are enough to remember.
        self.fields = lru_cache(maxsize=2 * AT_ONCE)(self._fields)
        self.ground = lru_cache(maxsize=2 * AT_ONCE)(self._ground)
        self._standardise = lru_cache(maxsize=2 * AT_ONCE)(self._standardised)

    def _standardised(self, number: int) -> Floats:
        return self._structures[number].standardise(self._step)

    def _fields(self, number: int) -> "_Fields":
        return _Fields.cut(self._standardise(number))

    def _ground(self, number: int, orientation: int) -> "_Ground":
        return _Ground.of(_orient(self._standardise(number), orientation))


@dataclass(frozen=True)
class _Fields:
    """The fields of a slide that have structure.

    Attributes:
        corners: (N, 2) rows and columns where they begin.
        spectra: (N, WINDOW_PX, WINDOW_PX // 2 + 1) their Fourier transforms, conjugated.
    """

    corners: NDArray[np.int64]
    spectra: NDArray[np.complex64]

    @classmethod
    def cut(cls, values: Floats) -> "_Fields":
        """The fields of a standardised picture."""
        corners = _field_corners(values.shape)
        fields = _cut(values, corners, FIELD_SIDE_PX)
        rows = _have_structure(fields)
        spectra = scipy.fft.rfft2(fields[rows], s=(WINDOW_PX, WINDOW_PX))
        return cls(corners[rows], np.asarray(spectra.conj(), np.complex64))


@dataclass(frozen=True)
class _Ground:
    """A standardised picture in which fields are looked up, with nothing around it.

    Attributes:
        windows: all squares of WINDOW_PX, by the row and column where they begin.
        power: the sums of squares of all squares of FIELD_SIDE_PX, likewise.
    """

    windows: Floats
    power: Floats

    @classmethod
    def of(cls, values: Floats) -> "_Ground":
        """All squares of a picture."""
        wide = np.pad(values, WINDOW_PX)
        sums = np.pad(
            np.square(wide, dtype=np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0))
        )
        side = FIELD_SIDE_PX
        power = (
            sums[side:, side:] - sums[:-side, side:] + sums[:-side, :-side] - sums[side:, :-side]
        )
        reach = 2 * SEARCH_PX + 1
        return cls(
            sliding_window_view(wide, (WINDOW_PX, WINDOW_PX)),
            sliding_window_view(power.astype(np.float32), (reach, reach)),
        )

    def places(self, corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where windows begin that begin at these corners of the picture; far outside there is nothing."""
        last = np.array(self.windows.shape[:2]) - 1
        down, right = np.clip(corners + WINDOW_PX, 0, last).T
        return down, right


def _look_up(
    first: int, second: int, pictures: _Pictures, places: Sequence[_Place]
) -> tuple[int, _Arrangement] | None:
    """The orientation and arrangement of the second slide in which fields of the first lie in it."""
    fields = pictures.fields(first)
    per_px = scale_of(COARSER)
    for place in places:
        ground = pictures.ground(second, place.orientation)
        for wrapped in ((0, 0), (1, 0), (0, 1), (1, 1)):  # shifts are known up to whole pictures
            shift = np.rint((np.array(place.shift) - SMALL_PX * np.array(wrapped)) * per_px).astype(
                np.int64
            )
            arrangement = _arrange(fields, ground, shift)
            if arrangement and arrangement.is_certain:
                return place.orientation, arrangement
    return None


def _arrange(fields: _Fields, ground: _Ground, shift: NDArray[np.int64]) -> _Arrangement | None:
    """The arrangement in the ground that most of the fields agree on.

    Args:
        fields: of the first slide.
        ground: the second, at the same scale, in a likely orientation.
        shift: (down, right) from a place in the second to the expected one in the first.
    """
    down, right = ground.places(fields.corners - shift - SEARCH_PX)
    expected = ground.power[down, right, SEARCH_PX, SEARCH_PX]
    rows = np.flatnonzero(expected >= LEAST_STRUCTURE * FIELD_SIDE_PX**2)
    if len(rows) < LEAST_FIELDS:
        return None
    near = down[rows], right[rows]
    down, right = _best_places(fields.spectra[rows], ground.windows[near], ground.power[near])
    centres = fields.corners[rows] + FIELD_SIDE_PX / 2
    moved = (right - shift[1]) + 1j * (down - shift[0])
    return _agree(centres[:, 1] + 1j * centres[:, 0], moved)


def _have_structure(fields: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.square(fields).mean(axis=(1, 2)) >= LEAST_STRUCTURE)


def _best_places(
    spectra: NDArray[np.complex64], windows: Floats, power: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How far (down, right) from the middle of its window each field correlates best."""
    reach = power.shape[1]
    product = scipy.fft.rfft2(windows) * spectra
    correlation = scipy.fft.irfft2(product, s=windows.shape[1:])[:, :reach, :reach]
    correlation /= np.sqrt(np.maximum(power, 0) + FIELD_SIDE_PX**2 / 5)
    down, right = np.divmod(correlation.reshape(len(windows), -1).argmax(axis=1), reach)
    return down - SEARCH_PX, right - SEARCH_PX


def _agree(at: NDArray[np.complex128], moved: NDArray[np.complex128]) -> _Arrangement | None:
    """The turn, scale and shift, given by any two fields, that most fields follow."""
    i, j = np.triu_indices(len(at), 1)
    change = (moved[i] - moved[j]) / (at[i] - at[j])
    small = (np.abs(change.real) <= MAX_SCALE) & (np.abs(change.imag) <= MAX_TURN)
    change, i = change[small], i[small]
    if not len(change):
        return None
    offset = moved[i] - change * at[i]
    followed = np.abs(moved - offset[:, None] - change[:, None] * at) <= NEAR_PX
    best = followed.sum(axis=1).argmax()
    follow, n_tried = followed[best], len(change)
    matches = int(follow.sum())
    by_chance = math.pi * NEAR_PX**2 / (2 * SEARCH_PX + 1) ** 2
    # The two fields that gave the arrangement follow it in any case; of the others, more than this many:
    tail = n_tried * float(bdtrc(matches - 3, len(at) - 2, by_chance)) if matches > 2 else 1.0
    design = np.stack([at[follow], np.ones(matches)], axis=1)
    (slope, start), *_ = np.linalg.lstsq(design, moved[follow], rcond=None)
    return _Arrangement(1 + complex(slope), complex(start), matches, len(at), min(tail, 1.0))


def _describe(
    numbers: tuple[int, int],
    pair: tuple[Structure, Structure],
    step: int,
    orientation: int,
    arrangement: _Arrangement,
) -> SecondScan:
    um_per_px = scale_of(step)
    middles = [
        complex(
            *((size / 2 - at) / um_per_px for size, at in zip(s.size_um, s.corner_um, strict=True))
        )
        for s in pair
    ]
    height, width = (side * scale_of(pair[1].step - step) for side in pair[1].grey.shape)
    middle = middles[1]
    for _ in range(orientation % 4):
        middle, width, height = complex(middle.imag, width - middle.real), height, width
    if orientation >= 4:
        middle = complex(width - middle.real, middle.imag)
    factor, offset = arrangement.factor, arrangement.offset
    shift = (middles[0] - (middle - offset) / factor) * um_per_px
    tilt = math.degrees(math.atan2(factor.imag, factor.real)) * (-1 if orientation >= 4 else 1)
    return SecondScan(
        first=numbers[0],
        second=numbers[1],
        turn=(90 * (orientation % 4) + tilt) % 360,
        mirrored=orientation >= 4,
        scale=abs(factor),
        shift_um=(shift.real, shift.imag),
        um_per_px=um_per_px,
        matches=arrangement.matches,
        compared=arrangement.compared,
        chance=arrangement.chance,
    )


def _field_corners(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """(N, 2) rows and columns where the fields of a picture begin."""
    rows, columns = (np.arange(0, side - FIELD_SIDE_PX + 1, FIELD_SIDE_PX) for side in shape)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _cut(values: NDArray[Any], corners: NDArray[np.int64], side: int) -> NDArray[Any]:
    """(N, side, side) squares; 0 outside."""
    margin = side + int(max(0, -corners.min(initial=0)))
    wide = np.pad(values, ((margin, side + margin), (margin, side + margin)))
    last = np.array(wide.shape) - side
    squares = [
        wide[y : y + side, x : x + side] for y, x in np.clip(corners + margin, 0, last).tolist()
    ]
    return np.stack(squares) if squares else np.zeros((0, side, side), values.dtype)
