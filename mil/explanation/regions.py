"""How the score changes when regions of neighbouring tiles are left out of the bag."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.explanation.scores import TileScores, signed_scores
from mil.explanation.target import ExplanationTarget

N_REGIONS = 12
N_PERMUTATIONS = 50
SEED = 0


@lru_cache(maxsize=1)  # the same for all maps of a bag
def assign_regions(target: ExplanationTarget, at_most: int = N_REGIONS) -> NDArray[np.int64]:
    """(N,) the region of each tile: compact groups by k-means of the tiles' positions."""
    from sklearn.cluster import KMeans

    # Neighbours on the film of a volume are not always neighbours in the patient.
    in_patient = target.bag.positions_mm
    positions = target.bag.coords_l0.astype(np.float64) if in_patient is None else in_patient
    count = min(at_most, len(np.unique(positions, axis=0)))
    clusters = KMeans(count, n_init=1, random_state=SEED).fit_predict(positions)
    regions: NDArray[np.int64] = clusters.astype(np.int64)
    return regions


def ablation_scores(target: ExplanationTarget) -> TileScores:
    """How far the score falls when a region is left out, shared evenly among its tiles.

    Where several regions show the same, leaving one out changes little; Shapley values share it out.
    """
    from captum.attr import FeatureAblation

    regions = assign_regions(target)
    attributions: Tensor = FeatureAblation(_subset_function(target)).attribute(
        torch.ones(1, len(regions)),
        baselines=0.0,
        feature_mask=torch.from_numpy(regions).unsqueeze(0),
        perturbations_per_eval=N_REGIONS,
    )
    return _share_evenly(target, "ablation", attributions, regions)


def shapley_scores(target: ExplanationTarget) -> TileScores:
    """Shapley values of regions by sampled orders (J. Castro et al., Computers & OR 2009).

    They sum to the score less that of a bag of the mean training tile alone.
    """
    from captum.attr import ShapleyValueSampling

    regions = assign_regions(target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        attributions: Tensor = ShapleyValueSampling(_subset_function(target)).attribute(
            torch.ones(1, len(regions)),
            baselines=0.0,
            feature_mask=torch.from_numpy(regions).unsqueeze(0),
            n_samples=N_PERMUTATIONS,
            perturbations_per_eval=N_REGIONS,
        )
    return _share_evenly(target, "shapley", attributions, regions)


def _subset_function(target: ExplanationTarget) -> Callable[[Tensor], Tensor]:
    """From masks (K, N) of ones and zeros to scores (K,)."""
    return lambda keep: torch.from_numpy(target.subset_scores(keep.numpy() > 0.5))


def _share_evenly(
    target: ExplanationTarget, method: str, attributions: Tensor, regions: NDArray[np.int64]
) -> TileScores:
    sizes = np.bincount(regions)
    values = attributions[0].double().numpy() / sizes[regions]
    return signed_scores(
        target, method, values, {"regions": float(len(sizes)), "sum": values.sum()}
    )
