"""The concepts of a cohort as one page: their tiles, where they are, what they speak for."""

import base64
import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from features.bags.bag import Bag
from features.errors import SlideError
from features.files.atomic import atomic_path, write_atomic
from features.slides.slide import Slide, open_slide
from mil.concepts.find import Concepts
from mil.evaluation.classification.evaluate import evaluate
from mil.report.template import render_template

EXAMPLES = 8  # tiles of each concept, of as many cases as there are
PICTURE_PX = 112
GREY = (150, 150, 150)
NAMED = 3  # concepts named for each side of a pair of classes


@dataclass(frozen=True)
class Example:
    """A tile that is typical of a concept.

    Attributes:
        case: its case.
        label: the case's class.
        bag: its slide's tiles.
        index: of the tile in the bag.
    """

    case: str
    label: str
    bag: Bag
    index: int


def examples(found: Concepts) -> list[list[Example]]:
    """For each concept the tiles nearest to its centre, at first one of each case."""
    nearest: list[list[tuple[int, float, Example]]] = [[] for _ in found.clusters.centres]
    for case in found.cases:
        held: list[list[tuple[float, Example]]] = [[] for _ in nearest]
        for bag in case.bags:
            distances = found.clusters.distances(bag)
            own = distances.argmin(axis=1)
            for concept, of_concept in enumerate(held):
                rows = np.flatnonzero(own == concept)
                for row in rows[np.argsort(distances[rows, concept])][:EXAMPLES]:
                    example = Example(case.name, case.label, bag, int(row))
                    of_concept.append((float(distances[row, concept]), example))
        for concept, of_concept in enumerate(held):
            ordered = sorted(of_concept, key=lambda pair: pair[0])
            nearest[concept] += [(turn, d, each) for turn, (d, each) in enumerate(ordered)]
    return [
        [each for _, _, each in sorted(tiles, key=lambda tile: tile[:2])[:EXAMPLES]]
        for tiles in nearest
    ]


def pictures(shown: Sequence[Sequence[Example]], files: Mapping[str, Path]) -> list[list[str]]:
    """The examples as addresses that hold a JPEG; grey where the slide or the place cannot be read."""
    wanted: dict[str, list[tuple[int, int]]] = {}
    for row, of_concept in enumerate(shown):
        for column, example in enumerate(of_concept):
            wanted.setdefault(example.bag.slide, []).append((row, column))
    found = [["" for _ in of_concept] for of_concept in shown]
    for name, places in wanted.items():
        slide = _opened(shown[places[0][0]][places[0][1]].bag, files.get(name))
        for row, column in places:
            found[row][column] = _picture(slide, shown[row][column])
        if slide:
            slide.__exit__(None, None, None)
    return found


def _opened(bag: Bag, path: Path | None) -> Slide | None:
    """The slide of a bag; None where there is no file of it that can be opened."""
    if path is None:
        return None
    try:
        slide = open_slide(path, mpp=None if bag.mpp_source == "file" else bag.mpp_l0[0])
    except SlideError:
        return None
    return slide if slide.size_l0 == bag.size_l0 else None


def _picture(slide: Slide | None, example: Example) -> str:
    bag = example.bag
    picture = Image.new("RGB", (PICTURE_PX, PICTURE_PX), GREY)
    if slide:
        x, y = (int(value) for value in bag.coords_l0[example.index])
        with contextlib.suppress(SlideError):
            picture = Image.fromarray(slide.read(x, y, bag.tile_px, bag.target_mpp))
    buffer = io.BytesIO()
    picture.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=82
    )
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_concepts(
    folder: Path, found: Concepts, files: Mapping[str, Path], *, title: str, random: bool
) -> Path:
    """Write ``concepts.html``, ``shares.csv`` (a row per case) and ``weights.csv`` (per fold and class).

    Args:
        folder: to write to.
        found: what is shown.
        files: the slide files there are, by slide.
        title: the name of the run.
        random: the backbone's weights are.

    Returns:
        the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [str(number + 1) for number in range(found.shares.shape[1])]
    _write_csv(
        folder / "shares.csv",
        ["case", "label", *numbers],
        [
            [case.name, case.label, *(f"{share:.6g}" for share in shares)]
            for case, shares in zip(found.cases, found.shares, strict=True)
        ],
    )
    _write_csv(
        folder / "weights.csv",
        ["fit", "class", *numbers],
        [
            [str(fit), name, *(f"{weight:.6g}" for weight in row)]
            for fit, of_fold in enumerate(found.weights)
            for name, row in zip(found.classes, of_fold, strict=True)
        ],
    )
    path = folder / "concepts.html"
    write_atomic(path, render(found, files, title=title, random=random))
    return path


def render(found: Concepts, files: Mapping[str, Path], *, title: str, random: bool) -> str:
    """The page as one HTML document without script or network; every name escaped."""
    shown = examples(found)
    weights = found.weights.mean(axis=0)  # (C, K)
    steady = (np.sign(found.weights) == np.sign(weights)).all(axis=0)
    labels = np.array([case.label for case in found.cases])
    return render_template(
        "concepts/page.html",
        title=f"Concepts of {title}",
        random=random,
        judged=evaluate(found.predictions),
        classes=found.classes,
        n_fits=len(found.weights),
        weights=weights,
        steady=steady,
        strongest=max(float(np.abs(weights).max()), 1e-9),
        missing=sorted({bag.slide for case in found.cases for bag in case.bags} - set(files)),
        shown=[
            list(zip(*pair, strict=True))
            for pair in zip(shown, pictures(shown, files), strict=True)
        ],
        shares=found.shares,
        by_class=[(name, np.flatnonzero(labels == name)) for name in found.classes],
        cases=[case.name for case in found.cases],
        pairs=[
            _pair(found.classes, weights, i, j)
            for i, j in combinations(range(len(found.classes)), 2)
        ],
    )


def _pair(
    classes: Sequence[str], weights: np.ndarray, first: int, second: int
) -> tuple[str, str, list[int], list[int]]:
    """Two classes, and the concepts that speak most for the one against the other."""
    gap = weights[first] - weights[second]
    order, least = np.argsort(gap), np.abs(gap).max() / 2  # what says less is not worth a name
    return (
        classes[first],
        classes[second],
        [int(k) for k in order[::-1][:NAMED] if gap[k] > least],
        [int(k) for k in order[:NAMED] if gap[k] < -least],
    )


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
