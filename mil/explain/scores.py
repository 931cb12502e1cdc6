"""One number per tile, and the files that carry it to a table or to QuPath."""

import csv
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.files.atomic import atomic_path, write_atomic
from mil.explain.target import ExplanationTarget


@dataclass(frozen=True, kw_only=True)
class TileScores:
    """What an explanation says of each tile of one slide.

    Attributes:
        bag: the tiles.
        method: how the scores were made, e.g. ``attention``.
        model: the model's name.
        values: (N,) the scores themselves; for attention the weights, which sum to 1.
        relative: (N,) the same on the scale that is drawn: for attention 1 is a uniform share; shares of the
            margin are times N, so that their mean is what they sum to; the answer to a single tile is the
            margin itself, if all tiles were like this one.
        target: the class that positive scores speak for; empty where scores have no sign.
        facts: numbers on the map as a whole; ``gap`` is by how much the sum misses what is ``explained``.
    """

    bag: Bag
    method: str
    model: str
    values: NDArray[np.float64]
    relative: NDArray[np.float64]
    target: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)


def signed(
    question: ExplanationTarget,
    method: str,
    values: NDArray[np.float64],
    facts: Mapping[str, float],
    *,
    relative: NDArray[np.float64] | None = None,
) -> TileScores:
    """Scores that speak for or against the class asked about, in units of its margin.

    Args:
        question: what was asked.
        method: its name.
        values: (N,) shares of the margin.
        facts: numbers on the map as a whole.
        relative: (N,) the scores on the drawn scale, where they are not shares.
    """
    return TileScores(
        bag=question.bag,
        method=method,
        model=question.fitted.model,
        values=values,
        relative=values * len(values) if relative is None else relative,
        target=question.class_name,
        facts=facts,
    )


def write_csv(path: Path, scores: TileScores) -> None:
    """One row per tile, in the bag's order; positions and sides in level-0 pixels.

    Column class is what positive scores speak for; it is empty where scores have no sign.
    """
    bag = scores.bag
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        header = ["slide", "x_l0", "y_l0", "width_l0", "height_l0", "coverage", "class"]
        writer.writerow([*header, scores.method, f"{scores.method}_relative"])
        width, height = (round(side, 2) for side in bag.side_l0)
        for (x, y), covered, value, relative in zip(
            bag.coords_l0, bag.coverage, scores.values, scores.relative, strict=True
        ):
            place = [bag.slide, int(x), int(y), width, height, round(float(covered), 4)]
            writer.writerow([*place, scores.target, f"{value:.8g}", f"{relative:.6g}"])


def write_geojson(path: Path, scores: TileScores) -> None:
    """Tiles with their scores as measurements, for QuPath: drag the file onto the opened slide."""
    features = [_feature(scores, index) for index in range(len(scores.values))]
    collection = {"type": "FeatureCollection", "features": features}
    write_atomic(path, json.dumps(collection, allow_nan=False) + "\n")


def _feature(scores: TileScores, index: int) -> dict[str, Any]:
    # QuPath counts from the corner of the scanned part.
    x, y = (float(value) for value in scores.bag.coords_l0[index] - scores.bag.bounds_l0)
    right, bottom = round(x + scores.bag.side_l0[0], 2), round(y + scores.bag.side_l0[1], 2)
    ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
    name = f"{scores.bag.slide}/{scores.model}/{scores.method}/{scores.target}/{index}"
    told = f"{scores.method} for {scores.target}" if scores.target else scores.method
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "measurements": {
                told: float(f"{scores.values[index]:.6g}"),
                f"{told} relative": float(f"{scores.relative[index]:.6g}"),
                "coverage": round(float(scores.bag.coverage[index]), 4),
            },
        },
    }
