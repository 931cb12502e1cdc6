"""What a model keeps of the slides it was trained on, and whether a new slide is like them."""

import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from features.bags.bag import Bag
from features.files.atomic import write_atomic
from features.files.parse import parse_json
from features.reference import UNLIKE, Reference, describe_distance
from features.regions.masks import is_bright_field
from features.summary import listed
from features.tiles.quality import FLAGS
from mil.data.duplicates import structure_of
from mil.errors import RunError
from mil.likeness.hidden import hidden, hidden_case
from mil.likeness.rescans import (
    Known,
    Rescan,
    find_rescans,
    pack_structures,
    unpack_structures,
)

Floats = NDArray[np.float64]

CHUNK_ROWS = 4096
FEWER = 0.5  # of the tiles of the smallest training slide: too few to answer from
MORE_FLAGGED = 0.1  # share of tiles above the largest of a training slide
MORE_TUMOUR = 0.1  # of the tissue, more or less than in any training slide
SAMPLED, LEAST_SAMPLED = 256, 10  # tiles whose directions are counted
TIMES_AS_MANY = 3.0  # directions more or fewer than in any training slide
FLAG_WORDS = {"background": "glass", "blur": "blurred", "pen": "covered with pen"}


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How a slide compares with those that a model was trained on.

    Attributes:
        ratio: its distance to the nearest training slide, in multiples of the largest such distance among
            these; above 1 unusual, above 1.5 unlike. NaN where it is not known.
        unfit: why the slide is no input of this model at all; else empty.
        abstains: why the model has no answer for it; else empty.
        notes: what a reader should know of an answer.
    """

    ratio: float = float("nan")
    unfit: str = ""
    abstains: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class SlideReference:
    """Facts of n training slides, one row each.

    Attributes:
        slides: their names.
        cases: their cases.
        sources: fingerprints of their files, as ``Bag.sources``.
        descriptors: (n, 2 D) mean and spread of each feature over the tiles.
        n_tiles: (n,) tiles.
        directions: (n,) in how many directions the features of a slide vary; NaN for a few tiles.
        flagged: (n, 3) share of tiles with each flag of ``features.tiles.quality``.
        tumour_of_tissue: (n,) share of the tissue that is annotated; NaN if unknown.
        bright_field: (n,) 1 for a slide scanned in transmitted light, 0 if not; NaN without a picture of it.
        structures: of their tissue, small and without colours, by which second scans of them are recognised;
            None without a picture; empty in a reference of earlier versions.
    """

    slides: tuple[str, ...]
    cases: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...]
    descriptors: NDArray[np.float32]
    n_tiles: Floats
    directions: Floats
    flagged: Floats
    tumour_of_tissue: Floats
    bright_field: Floats
    structures: Known = ()

    @classmethod
    def of_bags(cls, bags: Sequence[Bag], cases: Sequence[str]) -> "SlideReference":
        """The facts of bags, whose cases are named in the same order."""
        flagged = [_flagged(bag) for bag in bags]
        return cls(
            slides=tuple(bag.slide for bag in bags),
            cases=tuple(cases),
            sources=tuple(tuple(sorted(bag.sources)) for bag in bags),
            descriptors=np.stack([describe(bag) for bag in bags]),
            n_tiles=np.array([len(bag) for bag in bags], np.float64),
            directions=np.array([count_directions(bag) for bag in bags]),
            flagged=np.array(flagged),
            tumour_of_tissue=np.array([bag.tumour_of_tissue for bag in bags]),
            bright_field=np.array([_bright_field(bag) for bag in bags]),
            structures=tuple(map(structure_of, bags)),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], names: Mapping[str, Any]) -> "SlideReference":
        """The facts as ``arrays`` and ``names`` hold them."""
        arrays = dict(arrays)
        pixels = arrays.pop("structures", np.zeros(0, np.uint8))
        return cls(
            **arrays,
            structures=unpack_structures(pixels, names.get("structures", ())),
            slides=tuple(names["slides"]),
            cases=tuple(names["cases"]),
            sources=tuple(map(tuple, names.get("sources") or [()] * len(names["slides"]))),
        )

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The facts that are numbers."""
        names = ("descriptors", "n_tiles", "directions", "flagged", "tumour_of_tissue")
        numbers = {name: getattr(self, name) for name in (*names, "bright_field")}
        return numbers | {"structures": pack_structures(self.structures)[0]}

    @property
    def names(self) -> dict[str, list[Any]]:
        """Slides, cases, fingerprints of files, and what the structures are cut by."""
        return {
            "slides": list(self.slides),
            "cases": list(self.cases),
            "sources": [list(row) for row in self.sources],
            "structures": pack_structures(self.structures)[1],
        }

    def hidden(self) -> "SlideReference":
        """The facts with fingerprints in place of names."""
        slides, cases = map(hidden, self.slides), map(hidden_case, self.cases)
        return replace(self, slides=tuple(slides), cases=tuple(cases))

    def renamed(self, new: Callable[[str], str]) -> "SlideReference":
        """The facts with other names of slides and cases."""
        slides, cases = (tuple(map(new, names)) for names in (self.slides, self.cases))
        return replace(self, slides=slides, cases=cases)

    def rescans(self, bags: Mapping[str, Bag]) -> dict[str, tuple[Rescan, ...]]:
        """The training slides that new ones look like second scans of, by the name of the new one."""
        return find_rescans(self.structures, self.slides, self.cases, bags)

    @cached_property
    def reference(self) -> Reference:
        """The descriptors, by case."""
        return Reference(self.descriptors, self.cases)

    def compare(
        self,
        bag: Bag,
        cases: Collection[str] = (),
        *,
        same_region: bool = True,
        ratio: float | None = None,
    ) -> Likeness:
        """How a slide compares with the training slides of other cases.

        Args:
            bag: of the slide, by the same encoder.
            cases: of the slide, as the facts name them, where it is a training slide.
            same_region: whether its tiles were chosen as theirs were; if not, their number says nothing.
            ratio: see ``Likeness``; by these facts if not given.
        """
        if unfit := self._unfit(bag):
            return Likeness(unfit=unfit)
        if ratio is None:
            ratio = self.reference.ratio(describe(bag), cases)
        reasons = [self._strange(bag), self._too_few(bag) if same_region else ""]
        notes = [*self._flag_notes(bag), self._tumour_note(bag)]
        (reasons if ratio > UNLIKE else notes).append(
            describe_distance(ratio, "the training slides")
        )
        return Likeness(
            ratio=ratio,
            abstains="; ".join(reason for reason in reasons if reason),
            notes=tuple(note for note in notes if note),
        )

    def _unfit(self, bag: Bag) -> str:
        """Why a slide is no input at all: a fluorescence scan, where none was trained on."""
        if _bright_field(bag) != 0 or (self.bright_field == 0).any():
            return ""
        return (
            "not a bright-field scan: most of what is lit lacks one colour altogether, as in fluorescence, "
            "and the model learnt from bright-field slides"
        )

    def _too_few(self, bag: Bag) -> str:
        smallest = int(self.n_tiles.min())
        if len(bag) >= FEWER * smallest:
            return ""
        return f"too few tiles: {len(bag)}, where the smallest training slide has {smallest}"

    def _strange(self, bag: Bag) -> str:
        """Why the features are not those of an image: they vary in too many directions, or too few."""
        known = self.directions[np.isfinite(self.directions)]
        directions = count_directions(bag)
        if not len(known) or not np.isfinite(directions):
            return ""
        low, high = float(known.min()), float(known.max())
        if low / TIMES_AS_MANY <= directions <= high * TIMES_AS_MANY:
            return ""
        return (
            f"its features vary in about {directions:.0f} directions, those of training slides in "
            f"{low:.0f} to {high:.0f}, so that they are no features of such tissue"
        )

    def _flag_notes(self, bag: Bag) -> list[str]:
        largest, shares = self.flagged.max(axis=0), _flagged(bag)
        return [
            f"{share:.0%} of its tiles are {FLAG_WORDS[name]}; at most {limit:.0%} of a training slide's"
            for name, share, limit in zip(FLAGS, shares, largest, strict=True)
            if share > limit + MORE_FLAGGED
        ]

    def _tumour_note(self, bag: Bag) -> str:
        known = self.tumour_of_tissue[np.isfinite(self.tumour_of_tissue)]
        share = bag.tumour_of_tissue
        if not len(known) or not np.isfinite(share):
            return ""
        if known.min() - MORE_TUMOUR <= share <= known.max() + MORE_TUMOUR:
            return ""
        return (
            f"tumour is {share:.0%} of its tissue, where it is {known.min():.0%} to {known.max():.0%} in "
            "training slides"
        )

    def __str__(self) -> str:
        return f"{len(self.slides)} slides: {listed(self.slides)}"


def describe(bag: Bag) -> NDArray[np.float32]:
    """(2 D,) the mean and the standard deviation of each feature over the tiles of a bag."""
    total = np.zeros(bag.dim)
    squares = np.zeros(bag.dim)
    shift = np.asarray(bag.features[:1], np.float64)[0]  # keeps the difference of large sums exact
    for start in range(0, len(bag), CHUNK_ROWS):
        rows = np.asarray(bag.features[start : start + CHUNK_ROWS], np.float64) - shift
        total += rows.sum(axis=0)
        squares += np.square(rows).sum(axis=0)
    mean = total / len(bag)
    with np.errstate(invalid="ignore"):  # features that are not finite stay so
        spread = np.sqrt(np.maximum(squares / len(bag) - np.square(mean), 0))
    return np.concatenate([mean + shift, spread]).astype(np.float32)


def count_directions(bag: Bag) -> float:
    """In how many directions the features of a bag vary: squared trace of their covariance over its square's.

    The trace of the squared covariance is estimated without the bias of few tiles (Srivastava 2005,
    doi:10.14490/jjss.35.251). Noise varies in as many directions as there are features, images in a few.

    Returns:
        The number; NaN for fewer than ``LEAST_SAMPLED`` tiles, or tiles that are all alike.
    """
    rows = np.asarray(bag.features[:: -(-len(bag) // SAMPLED)], np.float64)
    n = len(rows)
    if n < LEAST_SAMPLED:
        return float("nan")
    rows = rows - rows.mean(axis=0)
    products = rows @ rows.T / (n - 1)
    trace, squares = float(np.trace(products)), float(np.square(products).sum())
    unbiased = (n - 1) ** 2 / ((n - 2) * (n + 1)) * (squares - trace**2 / (n - 1))
    if trace <= 0:
        return float("nan")
    return trace**2 / unbiased if unbiased > trace**2 / bag.dim else float(bag.dim)


def _flagged(bag: Bag) -> list[float]:
    """The share of tiles with each quality flag."""
    if bag.tile_flags is None or not len(bag):
        return [0.0] * len(FLAGS)
    return [float(np.mean((bag.tile_flags & bit) > 0)) for bit in FLAGS.values()]


def _bright_field(bag: Bag) -> float:
    """1 or 0: whether the slide was scanned in transmitted light; NaN without a picture of it."""
    if not bag.thumbnail:
        return float("nan")
    with Image.open(io.BytesIO(bag.thumbnail)) as picture:
        return float(is_bright_field(np.asarray(picture.convert("RGB"))))


def save_reference(path: Path, reference: SlideReference) -> None:
    """Write the facts as safetensors, names in the header."""
    names = {"names": json.dumps(reference.names)}
    arrays = {name: np.ascontiguousarray(array) for name, array in reference.arrays.items()}
    write_atomic(path, save(arrays, metadata=names))


def load_reference(path: Path) -> SlideReference:
    """Read what ``save_reference`` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return SlideReference.from_arrays(arrays, parse_json(file.metadata()["names"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{path}: not a reference of training slides ({error}). Make the run again."
        ) from error
