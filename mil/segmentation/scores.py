"""How well a mask agrees with what is drawn, case by case; cases count once, whatever their slides' size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features.lowpower.feature_map import CELL_UM
from mil.segmentation.targets import Target

BOUNDARY_PERCENTILE = 95
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class MaskScores:
    """How well a method finds the tumour of one case; NaN where a number is not defined.

    Attributes:
        case: the patient.
        method: what made the masks.
        full: whether all its slides are annotated in full.
        dice: overlap of mask and drawing, as a share of their mean area; NaN without drawn tumour, and where
            nothing drawn says what would be called tumour wrongly.
        iou: overlap as a share of their union.
        sensitivity: share of the drawn tumour in the mask.
        specificity: share of the tissue without tumour outside the mask.
        boundary_um: 95th percentile of the distances between both outlines.
        false_mm2: area of the mask that is no tumour.
    """

    case: str
    method: str
    full: bool
    dice: float
    iou: float
    sensitivity: float
    specificity: float
    boundary_um: float
    false_mm2: float


def score_case(
    case: str, method: str, masks: Sequence[Mask], targets: Sequence[Target]
) -> MaskScores:
    """The scores of one case over all its slides.

    Cells that are not known count nowhere, whatever the mask says of them.

    Args:
        case: the patient.
        method: what made the masks.
        masks: (rows, columns) of each slide, True where tumour is called.
        targets: of the same slides.
    """
    hits = missed = false = clear = 0
    distances = []
    for mask, target in zip(masks, targets, strict=True):
        positive, negative = target.positive, target.negative & target.tissue
        hits += int((mask & positive).sum())
        missed += int((~mask & positive).sum())
        false += int((mask & negative).sum())
        clear += int((~mask & negative).sum())
        distances.append(boundary_distances(mask & target.known, positive))
    joined = np.concatenate(distances)
    drawn, full = hits + missed > 0, all(target.full for target in targets)
    judged = drawn and (full or clear + false > 0)
    return MaskScores(
        case=case,
        method=method,
        full=full,
        dice=2 * hits / (2 * hits + missed + false) if judged else np.nan,
        iou=hits / (hits + missed + false) if judged else np.nan,
        sensitivity=hits / (hits + missed) if drawn else np.nan,
        specificity=clear / (clear + false) if clear + false else np.nan,
        boundary_um=float(np.percentile(joined, BOUNDARY_PERCENTILE)) if joined.size else np.nan,
        false_mm2=false * CELL_UM**2 / 1e6,
    )


def boundary_distances(first: Mask, second: Mask) -> NDArray[np.float64]:
    """Distances of the outline of each mask from that of the other, in micrometres; none if one is empty.

    Args:
        first: (rows, columns).
        second: (rows, columns).
    """
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    if not all(outline.any() for outline in outlines):
        return np.zeros(0)
    distances = [
        ndimage.distance_transform_edt(~other)[own] for own, other in (outlines, reversed(outlines))
    ]
    return np.asarray(CELL_UM * np.concatenate(distances), dtype=np.float64)
