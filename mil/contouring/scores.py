"""How well contours agree with what is drawn, on the grid of the image and in its millimetres."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.volumes.surfaces import dice, hausdorff95_mm, hausdorff_mm
from mil.contouring.baselines import best_window, usual_place
from mil.contouring.cases import ContourCase
from mil.contouring.network import SliceUNet, confidence_of

UNET, WINDOW, PLACE, ALL = "unet", "window", "place", "everything"
METHODS = (UNET, WINDOW, PLACE, ALL)
CUT = 0.5  # of confidence, from which a voxel is called region


@dataclass(frozen=True, kw_only=True)
class ContourScores:
    """How well one method contours one volume; NaN where a number is not defined.

    Attributes:
        volume: its name.
        case: the patient.
        method: one of ``METHODS``.
        dice: overlap with what is drawn; 0 where nothing is called, undefined where nothing is drawn.
        continuous_dice: the same of the confidence, without a cut; of other methods, equal to ``dice``.
        hausdorff_mm: greatest distance between their surfaces; undefined where either is empty.
        hausdorff95_mm: that 95 % of their surfaces keep; undefined likewise.
        drawn_ml: volume of what is drawn.
        called_ml: volume of the contour.
    """

    volume: str
    case: str
    method: str
    dice: float
    continuous_dice: float
    hausdorff_mm: float
    hausdorff95_mm: float
    drawn_ml: float
    called_ml: float


def score(case: ContourCase, method: str, confidence: NDArray[np.float32]) -> ContourScores:
    """The scores of one volume.

    Args:
        case: with a drawing.
        method: what made the contour.
        confidence: (z, y, x) in [0, 1], on the grid of the image.
    """
    assert case.drawn is not None, "nothing is drawn"
    drawn, called, grid = case.drawn, confidence >= CUT, case.image_grid
    exists = bool(drawn.any())
    soft = confidence if method == UNET else called
    return ContourScores(
        volume=case.name,
        case=case.case,
        method=method,
        dice=dice(called, drawn) if exists else math.nan,
        continuous_dice=dice(soft, drawn) if exists else math.nan,
        hausdorff_mm=hausdorff_mm(called, drawn, grid.spacing_mm),
        hausdorff95_mm=hausdorff95_mm(called, drawn, grid.spacing_mm),
        drawn_ml=int(drawn.sum()) * grid.voxel_ml,
        called_ml=int(called.sum()) * grid.voxel_ml,
    )


def contours_of(
    network: SliceUNet, train: Sequence[ContourCase], test: Sequence[ContourCase]
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """The confidence of every method in every test volume on the grid of its image, by volume and method.

    Args:
        network: trained on the training cases.
        train: that the other methods are fitted to.
        test: of other patients.
    """
    window, place = best_window(train), usual_place(train)
    made: dict[str, dict[str, NDArray[np.float32]]] = {}
    for case in test:
        maps: Mapping[str, NDArray[np.generic]] = {
            UNET: confidence_of(network, case),
            WINDOW: window.mask(case),
            PLACE: place.mask(case),
            ALL: case.inside,
        }
        made[case.name] = {method: case.on_image(values) for method, values in maps.items()}
    return made
