"""One number per tile, and the files that carry it to a table or to QuPath."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.files.atomic import write_atomic
from features.files.tables import write_table
from mil.explanation.target import ExplanationTarget


@dataclass(frozen=True, kw_only=True)
class TileScores:
    """One score for each tile of a slide.

    Attributes:
        bag: the tiles.
        method: name of the explanation method, e.g. ``attention``.
        model: name of the model.
        values: (N,) the scores themselves; for attention the weights, which sum to 1.
        relative: (N,) the scores on the scale of the drawing. For attention 1 is a uniform share. Shares of
            a score are multiplied by N, so that their mean is the whole. The score of a single tile stays
            as it is.
        target: the class, or other name, that positive scores speak for; empty for scores without a sign.
        quantity: name of the number that is shared out, e.g. ``margin of LMS``; empty where ``target`` is.
        facts: numbers on the map as a whole; ``gap`` is the sum of the scores less what is ``explained``.
    """

    bag: Bag
    method: str
    model: str
    values: NDArray[np.float64]
    relative: NDArray[np.float64]
    target: str = ""
    quantity: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """What a row of the bag shows: a tile, or a slice."""
        return "tile" if self.bag.volume is None else "slice"


def signed_scores(
    target: ExplanationTarget,
    method: str,
    values: NDArray[np.float64],
    facts: Mapping[str, float],
    *,
    relative: NDArray[np.float64] | None = None,
) -> TileScores:
    """Scores that speak for or against a target, in units of what is explained.

    Args:
        target: what is explained.
        method: name of the explanation method.
        values: (N,) shares of the score.
        facts: numbers on the map as a whole.
        relative: (N,) the scores on the scale of the drawing, where they are not shares.
    """
    return TileScores(
        bag=target.bag,
        method=method,
        model=target.fitted.model,
        values=values,
        relative=values * len(values) if relative is None else relative,
        target=target.name,
        quantity=target.quantity.label,
        facts=facts,
    )


def write_csv(path: Path, scores: TileScores) -> None:
    """One row per tile, in the bag's order; positions and sides in level-0 pixels.

    Column class is what positive scores speak for; it is empty for scores without a sign. Slices of a volume
    have the place of their centre in the patient too: x to the left, y to the back, z to the head.
    """
    bag = scores.bag
    places = np.zeros((len(bag), 0)) if bag.positions_mm is None else bag.positions_mm
    header = ["slide", "x_l0", "y_l0", "width_l0", "height_l0", "coverage", "class"]
    in_patient = ("x_mm", "y_mm", "z_mm")[: places.shape[1]]
    width, height = (round(side, 2) for side in bag.side_l0)
    rows = []
    for (x, y), coverage, value, relative, place in zip(
        bag.coords_l0, bag.coverage, scores.values, scores.relative, places, strict=True
    ):
        position = [bag.slide, int(x), int(y), width, height, round(float(coverage), 4)]
        numbers = [f"{value:.8g}", f"{relative:.6g}", *(f"{mm:.2f}" for mm in place)]
        rows.append([*position, scores.target, *numbers])
    write_table(path, [*header, scores.method, f"{scores.method}_relative", *in_patient], rows)


def write_geojson(path: Path, scores: TileScores) -> None:
    """Write tiles with their scores as measurements for QuPath: drag the file onto the opened slide."""
    features = [_feature(scores, index) for index in range(len(scores.values))]
    collection = {"type": "FeatureCollection", "features": features}
    write_atomic(path, json.dumps(collection, allow_nan=False) + "\n")


def _feature(scores: TileScores, index: int) -> dict[str, Any]:
    # QuPath's origin is the corner of the scanned area.
    x, y = (float(value) for value in scores.bag.coords_l0[index] - scores.bag.bounds_l0)
    right, bottom = round(x + scores.bag.side_l0[0], 2), round(y + scores.bag.side_l0[1], 2)
    ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
    name = f"{scores.bag.slide}/{scores.model}/{scores.method}/{scores.target}/{index}"
    label = f"{scores.method} for {scores.target}" if scores.target else scores.method
    places = scores.bag.positions_mm
    in_patient = {} if places is None else {"z mm": round(float(places[index, 2]), 2)}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "measurements": {
                label: float(f"{scores.values[index]:.6g}"),
                f"{label} relative": float(f"{scores.relative[index]:.6g}"),
                "coverage": round(float(scores.bag.coverage[index]), 4),
                **in_patient,
            },
        },
    }
