"""What becomes of the answer when regions of neighbouring tiles are left out of the bag."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.explain.scores import TileScores, signed
from mil.explain.target import ExplanationTarget

BY_REGION = ("ablation", "shapley")  # methods that give all tiles of a region one score
N_REGIONS = 12
N_PERMUTATIONS = 50
SEED = 0


def regions_of(question: ExplanationTarget, at_most: int = N_REGIONS) -> NDArray[np.int64]:
    """(N,) the region of each tile: compact groups by k-means of where tiles lie."""
    from sklearn.cluster import KMeans

    places = question.bag.coords_l0.astype(np.float64)
    count = min(at_most, len(np.unique(places, axis=0)))
    found: NDArray[np.int64] = (
        KMeans(count, n_init=1, random_state=SEED).fit_predict(places).astype(np.int64)
    )
    return found


def ablation_scores(question: ExplanationTarget) -> TileScores:
    """How far the margin falls when a region is left out, shared evenly among its tiles.

    Where several regions show the same, leaving one out changes nothing: Shapley values share that.
    """
    from captum.attr import FeatureAblation

    regions = regions_of(question)
    told: Tensor = FeatureAblation(_keeping(question)).attribute(
        torch.ones(1, len(regions)),
        baselines=0.0,
        feature_mask=torch.from_numpy(regions).unsqueeze(0),
        perturbations_per_eval=N_REGIONS,
    )
    return _shared(question, "ablation", told, regions)


def shapley_scores(question: ExplanationTarget) -> TileScores:
    """Shapley values of regions by sampled orders (J. Castro et al., Computers & OR 2009).

    They sum to the margin less that of a bag of the mean training tile alone.
    """
    from captum.attr import ShapleyValueSampling

    regions = regions_of(question)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        told: Tensor = ShapleyValueSampling(_keeping(question)).attribute(
            torch.ones(1, len(regions)),
            baselines=0.0,
            feature_mask=torch.from_numpy(regions).unsqueeze(0),
            n_samples=N_PERMUTATIONS,
            perturbations_per_eval=N_REGIONS,
        )
    return _shared(question, "shapley", told, regions)


def _keeping(question: ExplanationTarget) -> Callable[[Tensor], Tensor]:
    """From keep masks (K, N) of ones and zeros to margins (K,)."""
    return lambda keep: torch.from_numpy(question.margin_of_kept(keep.numpy() > 0.5))


def _shared(
    question: ExplanationTarget, method: str, told: Tensor, regions: NDArray[np.int64]
) -> TileScores:
    sizes = np.bincount(regions)
    values = told[0].double().numpy() / sizes[regions]
    return signed(question, method, values, {"regions": float(len(sizes)), "sum": values.sum()})
