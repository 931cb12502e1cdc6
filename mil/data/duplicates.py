"""Slides of different cases that show the same tissue: scanned twice, cropped, or saved again."""

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.bags.bag import Bag
from features.recipe import NO_PLACES
from features.regions.masks import tissue_mask
from features.slides.second_scans import SecondScan, find_second_scans, is_comparable
from features.slides.structure import Structure, find_structure
from features.threads import one_thread
from mil.data.cohort import Cohort

NEIGHBOURS = 5  # slides of other cases, nearest by mean features, that a slide is compared with
TILES = 256  # of a slide that are looked up in the other
MIN_TILES = 8  # matched in one arrangement: fewer may be chance
MIN_SLICES = 3  # with equal features, of two patients: one or two may be without anything on them
ABOVE_CHANCE = 4  # times as many matches as with shuffled matches

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Lookalike:
    """Two slides of which one holds tissue of the other, in the same arrangement.

    Attributes:
        first, second: (case, slide).
        matches: fields or tiles of one slide that lie in the other in one arrangement.
        compared: those that were looked up.
        scan: how the second lies, by the pictures of the slides; None where their tiles were compared.
        series: both are of one series of CT or MRI, by its voxels or by slices with equal features.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    matches: int
    compared: int
    scan: SecondScan | None = None
    series: bool = False

    def __str__(self) -> str:
        (first_case, first), (second_case, second) = self.first, self.second
        if self.series:
            equal = "all its voxels are equal"
            if self.matches < self.compared:
                equal = f"{self.matches} of {self.compared} slices are equal"
            return (
                f"{first} (case {first_case}) and {second} (case {second_case}) show one series: {equal}. "
                "Give both the same case: else a model is tested on what it was trained on."
            )
        what, how = "two scans of one specimen", str(self.scan)
        if self.scan is None:
            what = "the same tissue"
            how = f"{self.matches} of {self.compared} tiles of one lie in the other in the same arrangement"
        return (
            f"Slides {first} (case {first_case}) and {second} (case {second_case}) look like {what}: {how}. "
            "If they come from one patient, give them the same case: else a model is tested on what it was "
            "trained on."
        )


@dataclass(frozen=True)
class Lookalikes:
    """The slides of different cases that seem to show the same tissue.

    Attributes:
        pairs: of slides.
        unknown: slides without a picture that shows enough tissue; their tiles were compared instead, by
            which only a scan with the same colours and the same side up is recognised.
    """

    pairs: tuple[Lookalike, ...]
    unknown: tuple[str, ...]


def lookalikes(cohort: Cohort) -> Lookalikes:
    """Slides of different cases that seem to show the same tissue.

    The pictures in the bags are compared by the structure of the tissue, whatever its colours, sharpness,
    orientation or place (``features.slides.second_scans``). Where a bag has no picture, or one with too
    little tissue on it, each tile of the slide is looked up in the slides most like it. In another patient's
    slide the nearest tiles lie anywhere; in a second scan, a crop or a copy they lie at one offset. Matches
    by chance are counted with the matches shuffled.

    Volumes are compared by the voxels of their series, and by slices with equal features, as where a few
    voxels were changed: slices of two patients lie in one order, and look alike, by nature. A series that was
    resampled, or whose scale of grey another highest value has changed, is not recognised. Identical bags,
    which a cohort refuses or counts, are left out.
    """
    slides = _slides(cohort)
    if any(bag.volume for _, bag in slides):
        return Lookalikes(tuple(_same_series(slides)), ())
    structures = _structures(slides)
    known = [is_comparable(structure) for structure in structures]
    identical = {second: first for first, second in cohort.duplicates}
    pairs = []
    for scan in find_second_scans(structures, [case for case, _ in slides]):
        first, second = ((slides[n][0], slides[n][1].slide) for n in (scan.first, scan.second))
        if identical.get(first[1], first[1]) != identical.get(second[1], second[1]):
            pairs.append(Lookalike(first, second, scan.matches, scan.compared, scan))
    pairs += _compare_tiles(slides, known)
    unknown = [bag.slide for (_, bag), is_known in zip(slides, known, strict=True) if not is_known]
    return Lookalikes(tuple(pairs), tuple(unknown))


def lookalikes_across(trained: Cohort, tested: Cohort) -> tuple[Lookalike, ...]:
    """Slides of one cohort that show a specimen of the other, by the pictures in their bags."""
    parts = _slides(trained), _slides(tested)
    slides = [*parts[0], *parts[1]]
    pairs = find_second_scans(_structures(slides), [0] * len(parts[0]) + [1] * len(parts[1]))
    names = [(case, bag.slide) for case, bag in slides]
    return tuple(
        Lookalike(names[scan.first], names[scan.second], scan.matches, scan.compared, scan)
        for scan in pairs
    )


def _slides(cohort: Cohort) -> list[tuple[str, Bag]]:
    """(case, bag) of all slides."""
    return [(case.name, bag) for case in cohort.cases for bag in case.bags]


def _same_series(slides: Sequence[tuple[str, Bag]]) -> Iterator[Lookalike]:
    """Pairs of volumes of different cases with a series in common, or with slices that are equal."""
    rows = [_distinct_rows(bag) for _, bag in slides]
    for i, j in itertools.combinations(range(len(slides)), 2):
        (first_case, first), (second_case, second) = slides[i], slides[j]
        if first_case == second_case:
            continue
        names = (first_case, first.slide), (second_case, second.slide)
        compared, equal = min(len(rows[i]), len(rows[j])), len(rows[i] & rows[j])
        if first.sources & second.sources:
            yield Lookalike(*names, len(second), len(second), series=True)
        elif equal >= MIN_SLICES and 2 * equal >= compared:
            yield Lookalike(*names, equal, compared, series=True)


def _distinct_rows(bag: Bag) -> set[bytes]:
    """The features of the slices of a volume, each once: black slices of all patients are one."""
    return {np.ascontiguousarray(row).tobytes() for row in bag.features[:]}


def _structures(slides: Sequence[tuple[str, Bag]]) -> list[Structure | None]:
    return [structure_of(bag) for _, bag in slides]


def structure_of(bag: Bag) -> Structure | None:
    """The structure of the tissue on the picture in a bag; None for volumes, or without either."""
    return None if bag.volume else read_structure(bag.thumbnail, bag.size_l0[0] * bag.mpp_l0[0])


def read_structure(thumbnail: bytes, width_um: float) -> Structure | None:
    """The structure of the tissue on a picture; None without a picture or tissue on it.

    Args:
        thumbnail: JPEG of the whole slide, or nothing.
        width_um: of the slide, in micrometres.
    """
    if not thumbnail:
        return None
    with Image.open(io.BytesIO(thumbnail)) as opened:
        picture = opened.convert("RGB")
    half = picture.reduce(2)  # takes a quarter of the time; the structure is no finer
    mask = tissue_mask(np.asarray(half), width_um / half.width)
    tissue = mask.repeat(2, axis=0).repeat(2, axis=1)[: picture.height, : picture.width]
    return find_structure(np.asarray(picture), tissue, width_um / picture.width)


def _compare_tiles(slides: Sequence[tuple[str, Bag]], known: Sequence[bool]) -> Iterator[Lookalike]:
    """Pairs by their tiles, where at least one slide is not known by its picture."""
    if all(known) or slides[0][1].recipe.get("region") == NO_PLACES:
        return  # rows without places have no arrangement
    pairs = [(i, j) for i, j in _candidates(slides) if not (known[i] and known[j])]
    with one_thread():
        counts = sorted(_count_all(slides, pairs))
    for (i, j), (matches, by_chance, compared) in counts:
        (first_case, first), (second_case, second) = slides[i], slides[j]
        if matches >= max(MIN_TILES, ABOVE_CHANCE * by_chance):
            yield Lookalike(
                (first_case, first.slide), (second_case, second.slide), matches, compared
            )


def _candidates(slides: Sequence[tuple[str, Bag]]) -> Iterator[tuple[int, int]]:
    """Pairs of slides of different cases, one of which is among the most like the other."""
    means = np.stack([np.asarray(bag.features, dtype=np.float32).mean(axis=0) for _, bag in slides])
    case = np.array([name for name, _ in slides])
    square = np.square(means).sum(axis=1)
    distance = square[:, None] + square - 2 * means @ means.T
    distance[case[:, None] == case] = np.inf
    nearest = np.argsort(distance, axis=1)[:, :NEIGHBOURS]
    pairs = {
        (min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row
        if np.isfinite(distance[i, j])
    }  # fmt: skip
    yield from sorted(pairs)


def _count_all(
    slides: Sequence[tuple[str, Bag]], pairs: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], tuple[int, int, int]]]:
    """Each pair with what ``_count_matches`` says; every slide in which others are looked up is read once."""
    smaller_in: dict[int, list[int]] = {}
    for i, j in pairs:
        small, large = (i, j) if len(slides[i][1]) <= len(slides[j][1]) else (j, i)
        smaller_in.setdefault(large, []).append(small)
    for large, smaller in smaller_in.items():
        bag = slides[large][1]
        tiles = np.array(bag.features, dtype=np.float32)
        mean = tiles.mean(axis=0)  # what all tiles share tells none from another
        tiles -= mean
        half_square = np.einsum("nd,nd->n", tiles, tiles) / 2
        for small in smaller:
            counted = _count_matches(slides[small][1], bag, tiles, half_square, mean)
            yield (min(small, large), max(small, large)), counted


def _count_matches(
    small: Bag, large: Bag, tiles: Floats, half_square: Floats, mean: Floats
) -> tuple[int, int, int]:
    """(tiles at the commonest offset, the same with shuffled matches, tiles compared).

    Args:
        small: whose tiles are looked up.
        large: the other slide.
        tiles: (N, D) features of its tiles less their mean.
        half_square: (N,) half of their squared lengths.
        mean: (D,) of its tiles.
    """
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(small))[:TILES])
    queries = np.asarray(small.features[rows], dtype=np.float32) - mean
    nearest = np.argmin(half_square - queries @ tiles.T, axis=1)
    side_um = max(small.side_l0[0] * small.mpp_l0[0], large.side_l0[0] * large.mpp_l0[0])
    origin = small.coords_l0[rows] * np.array(small.mpp_l0) / side_um
    match = (large.coords_l0[nearest] * np.array(large.mpp_l0)) / side_um
    matches = _commonest(match - origin)
    by_chance = _commonest(rng.permutation(match) - origin) if matches >= MIN_TILES else 0
    return matches, by_chance, len(rows)


def _commonest(offsets: NDArray[np.float64]) -> int:
    """How many offsets lie within half a tile, in x and y, of the one with most neighbours."""
    x, y = offsets.T
    close = (np.abs(x[:, None] - x) <= 0.5) & (np.abs(y[:, None] - y) <= 0.5)
    return int(close.sum(axis=1).max())
