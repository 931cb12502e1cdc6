"""The concepts of a cohort as one page: their tiles, their share in each case, and their weights."""

import base64
import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from features.bags.bag import Bag
from features.errors import SlideError
from features.files.atomic import write_atomic
from features.files.tables import write_table
from features.slides.slide import Slide, open_slide
from features.volumes.film import check_film
from mil.concepts.find import Concepts
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.words import fit_words
from mil.report.template import render_template

EXAMPLES = 8  # tiles shown per concept, from as many cases as possible
PICTURE_PX = 112
GREY = (150, 150, 150)
NAMED = 3  # concepts named for either side of a pair of classes


@dataclass(frozen=True)
class ConceptTile:
    """A typical tile of a concept.

    Attributes:
        case: the tile's case.
        label: the case's class.
        bag: of the tile's slide.
        index: of the tile in the bag.
    """

    case: str
    label: str
    bag: Bag
    index: int


def choose_examples(concepts: Concepts) -> list[list[ConceptTile]]:
    """For each concept the tiles nearest to its centre, taking cases in turn."""
    nearest: list[list[tuple[int, float, ConceptTile]]] = [[] for _ in concepts.clusters.centres]
    for case in concepts.cases:
        per_concept: list[list[tuple[float, ConceptTile]]] = [[] for _ in nearest]
        for bag in case.bags:
            distances = concepts.clusters.distances(bag)
            assigned = distances.argmin(axis=1)
            for concept, candidates in enumerate(per_concept):
                rows = np.flatnonzero(assigned == concept)
                for row in rows[np.argsort(distances[rows, concept])][:EXAMPLES]:
                    example = ConceptTile(case.name, case.label, bag, int(row))
                    candidates.append((float(distances[row, concept]), example))
        for concept, candidates in enumerate(per_concept):
            ordered = sorted(candidates, key=lambda pair: pair[0])
            nearest[concept] += [(turn, d, example) for turn, (d, example) in enumerate(ordered)]
    return [
        [example for _, _, example in sorted(tiles, key=lambda tile: tile[:2])[:EXAMPLES]]
        for tiles in nearest
    ]


def encode_tiles(
    examples: Sequence[Sequence[ConceptTile]], files: Mapping[str, Path]
) -> list[list[str]]:
    """The examples as data URLs of JPEGs; grey where slide or tile cannot be read."""
    by_slide: dict[str, list[tuple[int, int]]] = {}
    for row, concept_examples in enumerate(examples):
        for column, example in enumerate(concept_examples):
            by_slide.setdefault(example.bag.slide, []).append((row, column))
    urls = [["" for _ in concept_examples] for concept_examples in examples]
    for name, positions in by_slide.items():
        row, column = positions[0]
        slide = _open_slide(examples[row][column].bag, files.get(name))
        for row, column in positions:
            urls[row][column] = _encode_tile(slide, examples[row][column])
        if slide:
            slide.__exit__(None, None, None)
    return urls


def _open_slide(bag: Bag, path: Path | None) -> Slide | None:
    """The slide of a bag; None without a file that can be opened."""
    if path is None:
        return None
    try:
        check_film(path, bag.volume)
        slide = open_slide(path, mpp=None if bag.mpp_source == "file" else bag.mpp_l0[0])
    except SlideError:
        return None
    return slide if slide.size_l0 == bag.size_l0 else None


def _encode_tile(slide: Slide | None, example: ConceptTile) -> str:
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
    folder: Path, concepts: Concepts, files: Mapping[str, Path], *, title: str, random: bool
) -> Path:
    """Write ``concepts.html``, ``shares.csv`` (a row per case) and ``weights.csv`` (per fold and class).

    Args:
        folder: for the files.
        concepts: the content.
        files: the available slide files, by slide.
        title: name of the run.
        random: whether the backbone's weights are random.

    Returns:
        the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [str(number + 1) for number in range(concepts.shares.shape[1])]
    write_table(
        folder / "shares.csv",
        ["case", "label", *numbers],
        [
            [case.name, case.label, *(f"{share:.6g}" for share in shares)]
            for case, shares in zip(concepts.cases, concepts.shares, strict=True)
        ],
    )
    write_table(
        folder / "weights.csv",
        ["fit", "class", *numbers],
        [
            [str(fit), name, *(f"{weight:.6g}" for weight in row)]
            for fit, fold_weights in enumerate(concepts.weights)
            for name, row in zip(concepts.classes, fold_weights, strict=True)
        ],
    )
    path = folder / "concepts.html"
    write_atomic(path, render(concepts, files, title=title, random=random))
    return path


def render(concepts: Concepts, files: Mapping[str, Path], *, title: str, random: bool) -> str:
    """The page as one HTML document without script or network access; every name is escaped."""
    examples = choose_examples(concepts)
    weights = concepts.weights.mean(axis=0)  # (C, K)
    steady = (np.sign(concepts.weights) == np.sign(weights)).all(axis=0)
    labels = np.array([case.label for case in concepts.cases])
    page = render_template(
        "concepts/page.html",
        title=f"Concepts of {title}",
        random=random,
        judged=evaluate(concepts.predictions),
        classes=concepts.classes,
        n_fits=len(concepts.weights),
        weights=weights,
        steady=steady,
        strongest=max(float(np.abs(weights).max()), 1e-9),
        missing=sorted({bag.slide for case in concepts.cases for bag in case.bags} - set(files)),
        examples=[
            list(zip(*pair, strict=True))
            for pair in zip(examples, encode_tiles(examples, files), strict=True)
        ],
        shares=concepts.shares,
        by_class=[(name, np.flatnonzero(labels == name)) for name in concepts.classes],
        cases=[case.name for case in concepts.cases],
        pairs=[
            _compare_pair(concepts.classes, weights, i, j)
            for i, j in combinations(range(len(concepts.classes)), 2)
        ],
    )
    [*_, bag] = concepts.cases[0].bags
    return fit_words(page, bag.recipe.get("region"))


def _compare_pair(
    classes: Sequence[str], weights: np.ndarray, first: int, second: int
) -> tuple[str, str, list[int], list[int]]:
    """Two classes, and the concepts that separate them most, for either side."""
    gap = weights[first] - weights[second]
    order, least = np.argsort(gap), np.abs(gap).max() / 2  # weaker ones are not named
    return (
        classes[first],
        classes[second],
        [int(k) for k in order[::-1][:NAMED] if gap[k] > least],
        [int(k) for k in order[:NAMED] if gap[k] < -least],
    )
