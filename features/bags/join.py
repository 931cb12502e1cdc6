"""Join stores: the features of two scales, encoders or modalities side by side, in bags of one store.

Joined by tile, each tile of the first store gets the features of the tile of every other store that has its
centre. Joined by slide or by case, a bag is one row: the mean feature vector of each store, one after the
other. What a part has seen, its training cases and its stain reference, the joined bag has seen.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import shapely
from numpy.typing import NDArray

from features.bags.bag import Bag, read_bag, read_request, recipe_differences, write_bag
from features.bags.store import missing_store
from features.bags.vectors import mean_vector, vector_bag
from features.choices import choice_problem
from features.errors import BagError, FeaturesError, InputError
from features.files.checksum import fingerprint
from features.progress import Progress, Silent
from features.recipe import NO_PLACES, PARTS, VECTOR, is_vector

JoinBy = Literal["tile", "slide", "case"]
REGION = "joined"  # of tiles; joined slides and cases are vectors
PLACELESS = (NO_PLACES, VECTOR)
SAME_MPP = 0.03  # relative: tools round differently
FEW_TILES = 0.5  # a slide of which a smaller share has a partner is remarked upon


@dataclass
class Joined(os.PathLike[str]):
    """The result of joining; it may be passed wherever the path of its folder is taken.

    Attributes:
        out: the store.
        by: what was joined.
        dims: features of each part, in the order of the stores.
        n_done: bags written.
        n_existing: bags that were there already.
        n_tiles: rows of all bags, and those of the first store that have no partner.
        n_alone: see ``n_tiles``.
        notes: remarks, each with the slides or cases it is about.
        failures: why some were not joined.
    """

    out: Path
    by: JoinBy
    dims: tuple[int, ...] = ()
    n_done: int = 0
    n_existing: int = 0
    n_tiles: int = 0
    n_alone: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __fspath__(self) -> str:
        return str(self.out)


def join(
    stores: Sequence[Path | str],
    out: Path | str,
    *,
    by: JoinBy = "tile",
    cases: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Joined:
    """Join the bags of several stores into one store.

    Args:
        stores: two or more folders of bags.
        out: the store to write.
        by: ``tile``, ``slide`` or ``case``.
        cases: the case of each slide, for ``case``; as stored in the bags if not given.
        overwrite: replace other bags of the store.
        progress: shows bags.

    Returns:
        Counts, remarks and failures; a bag that cannot be joined raises nothing.

    Raises:
        InputError: fewer than two stores, one without bags, none in common, ``out`` is among them, or rows
            without places are to be joined by tile.

    Example:
        joined = features.join(["external-store", "converted"], "joined", by="tile")
        print(joined.n_done, joined.dims)
    """
    if problem := choice_problem("by", by, get_args(JoinBy)):
        raise InputError(problem)
    folders, out = [Path(store) for store in stores], Path(out)
    _check_folders(folders, out)
    slides = [_slides_of(folder) for folder in folders]
    groups = _group_by_case(slides, cases) if by == "case" else _group_by_slide(slides)
    result = Joined(out, by)
    counts = Counter(name for group in groups for name in group)
    if left_out := sorted(name for name, count in counts.items() if count < len(groups)):
        result.notes["not in every store, left out"] = left_out
    names = [name for name, count in counts.items() if count == len(groups)]
    if not names:
        of = "case" if by == "case" else "slide"
        raise InputError(
            f"The stores have no {of} in common. Join stores of the same {of}s; the case of a slide is that "
            "of the table, if one is named."
        )
    if by == "tile":
        for group in groups:
            with contextlib.suppress(BagError):  # a damaged one fails alone
                _check_places(read_bag(group[names[0]][0]), InputError)
    make = _join_tiles if by == "tile" else _join_vectors
    with (progress or Silent()).task("bags joined", len(names), "bags") as advance:
        for name in names:
            try:
                parts = [[read_bag(path) for path in group[name]] for group in groups]
                _check_sources(parts, by)
                _write(result, make(name, parts, result), overwrite=overwrite)
            except FeaturesError as error:
                result.failures.append(str(error))
            advance(1)
    return result


def _check_folders(folders: Sequence[Path], out: Path) -> None:
    real = [os.path.realpath(folder) for folder in folders]
    if len(folders) < 2 or len(set(real)) < len(real):
        raise InputError("Give at least two different stores to join.")
    if os.path.realpath(out) in real:
        raise InputError(f"out is {out}, one of the stores to join. Name another folder.")


def _slides_of(folder: Path) -> dict[str, Path]:
    slides = {path.stem: path for path in sorted(folder.glob("*.h5")) if path.name[0] != "."}
    if problem := missing_store(folder):
        raise InputError(problem)
    return slides


def _group_by_slide(slides: Sequence[Mapping[str, Path]]) -> list[dict[str, list[Path]]]:
    return [{name: [path] for name, path in of_store.items()} for of_store in slides]


def _group_by_case(
    slides: Sequence[Mapping[str, Path]], cases: Mapping[str, str] | None
) -> list[dict[str, list[Path]]]:
    groups = []
    for of_store in slides:
        group: dict[str, list[Path]] = {}
        for name, path in of_store.items():
            case = cases.get(name, "") if cases is not None else read_bag(path).case
            if case:  # slides that are not in the table are of no case
                group.setdefault(case, []).append(path)
            elif cases is None:
                raise InputError(
                    f"{path} does not know its case. Name the table with cases and slides."
                )
        groups.append(group)
    return groups


def _check_sources(parts: Sequence[Sequence[Bag]], by: JoinBy) -> None:
    """Refuse bags of one name that were made of different slides."""
    if by == "case":
        return
    first, *others = (bags[0] for bags in parts)
    for other in others:
        sources = {first.source_sha256, other.source_sha256} - {""}
        if len(sources) > 1 or (by == "tile" and first.size_l0 != other.size_l0):
            raise BagError(
                f"{first.slide}: its bags are of two different slides of this name. Extract both scales from "
                "the same files."
            )
        is_one = first.source_sha256 and first.source_sha256 == other.source_sha256
        if len(cases := sorted({first.case, other.case} - {""})) > 1 and not is_one:
            raise BagError(
                f"{first.slide}: its bags say that it is of case {cases[0]} and of case {cases[1]}. Convert "
                "both with one table of cases."
            )
        ratio = max(a / b for a, b in zip(first.mpp_l0, other.mpp_l0, strict=True))
        if by == "tile" and abs(np.log(ratio)) > SAME_MPP:
            raise BagError(
                f"{first.slide}: one bag says {first.mpp_l0[0]:g} and the other {other.mpp_l0[0]:g} "
                "micrometres per level-0 pixel, so that one of their scales is wrong. Extract it again with "
                "the right slide_mpp."
            )


def _check_places(bag: Bag, error: type[FeaturesError]) -> None:
    """Refuse rows without places, which say nothing of the row of another store that they belong to.

    Raises:
        FeaturesError: of the given kind.
    """
    if bag.recipe.get("region") in PLACELESS:
        what = "one vector" if is_vector(bag.recipe) else "features without places"
        raise error(
            f"The bag of {bag.slide} is {what} ({bag.recipe['backbone']}), so that no tile of another store "
            "holds the centre of its rows. Join by slide or by case."
        )


def _join_tiles(name: str, parts: Sequence[Sequence[Bag]], result: Joined) -> Bag:
    for bags in parts:
        _check_places(bags[0], BagError)
    first, *others = (bags[0] for bags in parts)
    partners = [holding_tiles(first, other) for other in others]
    usable = np.all([partner >= 0 for partner in partners], axis=0)
    if not usable.any():
        raise BagError(
            f"{name}: no tile of the first store has its centre in a tile of every other store. Extract all "
            "of them from the same regions."
        )
    alone = int((~usable).sum())
    result.n_alone += alone
    if usable.mean() < FEW_TILES:
        result.notes.setdefault(
            f"less than {FEW_TILES:.0%} of its tiles have a partner in every store", []
        ).append(name)
    rows = [
        np.asarray(other.features[partner[usable]])
        for other, partner in zip(others, partners, strict=True)
    ]
    flags = first.tile_flags
    return replace(
        _merge([first, *others], first),
        features=np.concatenate([np.asarray(first.features[usable]), *rows], axis=1),
        coords_l0=first.coords_l0[usable],
        coverage=first.coverage[usable],
        tile_flags=None if flags is None else flags[usable],
        recipe=_recipe([first, *others], "tile") | {"region": REGION},
    )


def holding_tiles(bag: Bag, other: Bag) -> NDArray[np.int64]:
    """(N,) for each tile of a bag the tile of the other that has its centre; -1 where there is none.

    A tile has its left and upper edges and not the others. Of several the one whose centre is nearest.
    """
    centres = bag.coords_l0 + np.array(bag.side_l0) / 2  # (N, 2)
    corners = other.coords_l0.astype(np.float64)  # (M, 2)
    far = corners + np.array(other.side_l0)
    boxes: Any = shapely.box(*corners.T, *far.T)
    at, holder = shapely.STRtree(boxes).query(shapely.points(centres), predicate="intersects")
    inside = ((centres[at] >= corners[holder]) & (centres[at] < far[holder])).all(axis=1)
    at, holder = at[inside], holder[inside]
    distance = np.abs((corners + far)[holder] / 2 - centres[at]).sum(axis=1)
    order = np.lexsort((holder, distance, at))
    tiles, first = np.unique(at[order], return_index=True)
    partner = np.full(len(bag), -1, np.int64)
    partner[tiles] = holder[order][first]
    return partner


def _join_vectors(name: str, parts: Sequence[Sequence[Bag]], result: Joined) -> Bag:
    bags = [bag for of_store in parts for bag in of_store]
    vectors = [
        np.mean([mean_vector(bag) for bag in of_store], axis=0, dtype=np.float64)
        for of_store in parts
    ]
    for of_store in parts:
        if len({bag.recipe_sha256 for bag in of_store}) > 1:
            differing = recipe_differences(of_store[0].recipe, of_store[1].recipe)
            raise BagError(
                f"{name}: its slides in one store were made differently ({', '.join(differing)}). Extract "
                "all slides of a store with one recipe."
            )
    recipe = _recipe([of_store[0] for of_store in parts], result.by)
    vector = np.concatenate(vectors).astype(np.float32)
    return _merge(bags, vector_bag(name, vector, recipe, case=bags[0].case))


def _recipe(bags: Sequence[Bag], by: str) -> dict[str, Any]:
    """The recipe of a joined bag: all of its parts, and what pages and messages name of them."""
    recipes = [dict(bag.recipe) for bag in bags]
    return {
        "backbone": " + ".join(str(recipe.get("backbone", "unknown")) for recipe in recipes),
        "weights": " + ".join(str(recipe.get("weights", "unknown")) for recipe in recipes),
        "joined": by,
        "dims": [bag.dim for bag in bags],
        PARTS: recipes,
    }


def _merge(bags: Sequence[Bag], first: Bag) -> Bag:
    """The bag with what all parts have seen."""
    sources = (
        frozenset().union(*(bag.sources for bag in bags))
        - replace(first, merged_sources=()).sources
    )
    return replace(
        first,
        merged_sources=tuple(sorted(sources)),
        trained_on=tuple(sorted({case for bag in bags for case in bag.trained_on})),
        trained_on_slides=tuple(sorted({slide for bag in bags for slide in bag.trained_on_slides})),
        request_sha256="",
    )


def _write(result: Joined, bag: Bag, *, overwrite: bool) -> None:
    """Write a bag unless it is there already."""
    bag = replace(bag, request_sha256=fingerprint({"recipe": bag.recipe, "data": bag.data_sha256}))
    result.dims = tuple(bag.recipe["dims"])
    target = result.out / f"{bag.slide}.h5"
    if target.exists() and not overwrite:
        if read_request(target) != bag.request_sha256:
            raise BagError(
                f"{target} has other content. Set overwrite to replace it, or set out to another folder."
            )
        result.n_existing += 1
    else:
        write_bag(target, bag)
        result.n_done += 1
    result.n_tiles += len(bag)
