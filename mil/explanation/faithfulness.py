"""How faithful a map is: does the answer fall when the tiles it points at are removed?

The map's order of tiles is compared with random orders of the same bag under the same model. Where all
tiles of a region have one score, these are orders of regions, because neighbours that leave together move
the answer further than as many scattered tiles. The measure says whether the map shows what the *model*
reads. Whether the model is right is for the evaluation to say.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.progress import Progress, Silent
from mil.errors import FitError
from mil.evaluation.classification.metrics import placements
from mil.evaluation.display import state_p
from mil.explanation.methods import METHODS
from mil.explanation.regions import assign_regions
from mil.explanation.scores import TileScores
from mil.explanation.target import TILES_AT_ONCE, ExplanationTarget

Floats = NDArray[np.float64]

N_ORDERS = 100
N_STEPS = 20
TIE_BREAKS = 10  # random orders of equal scores to average
SIGNIFICANT = 0.05
SAME_SCORE = 1e-4  # relative: less is rounding of sums over thousands of tiles
ROUNDING = 1e-6  # of a probability, or of the largest answer: gains that differ by less are equal


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The answer, a probability or a risk, as tiles are removed and inserted, for one or more orders.

    Attributes:
        shares: (S,) share of the tiles: removed, from 0 to all but one, and inserted, from one to all.
        deletion: (R, S) answers after the first tiles of the order were removed.
        insertion: (R, S) answers to the first tiles of the order alone.
    """

    shares: Floats
    deletion: Floats
    insertion: Floats

    @property
    def deletion_area(self) -> Floats:
        """(R,) mean answer over the deletion; low if the first tiles carry it."""
        return _area(self.deletion, self.shares)

    @property
    def insertion_area(self) -> Floats:
        """(R,) mean answer over the insertion; high if the first tiles suffice."""
        return _area(self.insertion, self.shares)

    @property
    def gain(self) -> Floats:
        """(R,) insertion less deletion: 0 on average if the order means nothing.

        S. Bluecher, J. Vielhaben, N. Strodthoff, Decoupling Pixel Flipping and Occlusion Strategy for
        Consistent XAI Benchmarks, TMLR 2024: their symmetric relevance gain.
        """
        return self.insertion_area - self.deletion_area


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """A map's curves beside those of random orders.

    Attributes:
        curves: of the map, one row.
        random: of random orders.
        ordered: what those orders permute: tiles or regions.
    """

    curves: Curves
    random: Curves
    ordered: str = "tiles"

    @property
    def p(self) -> float:
        """Share of orders, the map's own included, whose gain is at least the map's."""
        reached = self.random.gain >= self.curves.gain[0] - self._rounding
        return float((1 + reached.sum()) / (1 + len(reached)))

    @property
    def better_than_random(self) -> bool:
        """Whether random orders rarely do as well."""
        return self.p <= SIGNIFICANT

    @property
    def deletion_percentile(self) -> float:
        """Percent of random orders whose deletion leaves more of the answer; ties count half."""
        ahead = self.random.deletion_area - self.curves.deletion_area[0]
        return _percentile(ahead, self._rounding)

    @property
    def insertion_percentile(self) -> float:
        """Percent of random orders whose insertion restores less of the answer; ties count half."""
        ahead = self.curves.insertion_area[0] - self.random.insertion_area
        return _percentile(ahead, self._rounding)

    @property
    def verdict(self) -> str:
        """In words."""
        word, meaning = "No more faithful", ""
        if self.better_than_random:
            word, meaning = "More faithful", ". It shows what the model uses, right or wrong"
        return (
            f"{word} to the model than random orders of {self.ordered} ({state_p(self.p)}): beats "
            f"{self.deletion_percentile:.0f} of 100 by deletion, {self.insertion_percentile:.0f} by "
            f"insertion{meaning}"
        )

    @property
    def _rounding(self) -> float:
        """Differences of areas up to this are rounding."""
        answers = (self.random.deletion, self.random.insertion)
        return ROUNDING * max(1.0, *(float(np.abs(rows).max()) for rows in answers))


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """How well a map finds tiles that are known to matter.

    Attributes:
        auc: probability that a known tile scores above another tile.
        mass: share of the map's positive scores on known tiles.
        share: share of the tiles that are known; the mass of a flat map.
        pointing: whether the highest tile is a known one.
        p: one-sided p value of the AUC (Mann-Whitney).
    """

    auc: float
    mass: float
    share: float
    pointing: bool
    p: float


def random_curves(
    target: ExplanationTarget,
    orders: int = N_ORDERS,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    regions: NDArray[np.int64] | None = None,
) -> Curves:
    """Curves of random orders, shared by all maps of one target.

    Args:
        target: what is explained.
        orders: number of orders.
        seed: of the random orders.
        progress: advances by one per order.
        regions: (N,) region of each tile; tiles of a region then stay together.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    at_once = max(1, TILES_AT_ONCE // len(target.bag))
    with (progress or Silent()).task("random orders", orders, "orders") as advance:
        for start in range(0, orders, at_once):
            count = min(at_once, orders - start)
            rows = [draw_order(len(target.bag), regions, rng) for _ in range(count)]
            drawn.append(order_curves(target, np.stack(rows)))
            advance(count)
    return Curves(
        shares=drawn[0].shares,
        deletion=np.concatenate([curves.deletion for curves in drawn]),
        insertion=np.concatenate([curves.insertion for curves in drawn]),
    )


@lru_cache(maxsize=1)
def region_curves(target: ExplanationTarget) -> tuple[NDArray[np.int64], Curves]:
    """The region of each tile (N,), and curves of random orders of the regions."""
    regions = assign_regions(target)
    return regions, random_curves(target, regions=regions)


def judge(target: ExplanationTarget, scores: TileScores, random: Curves) -> Faithfulness:
    """Compare a map with random orders; ties are broken at random, several times.

    Args:
        target: what is explained.
        scores: the map.
        random: curves of random orders of tiles; a map of regions is compared with orders of regions.
    """
    by_region = METHODS[scores.method].by_region
    regions, random = region_curves(target) if by_region else (None, random)
    rng = np.random.default_rng(0)
    ties = len(np.unique(scores.relative)) < len(scores.relative)
    n_draws = TIE_BREAKS if ties else 1
    drawn = [draw_order(len(scores.bag), regions, rng) for _ in range(n_draws)]
    orders = [order[np.argsort(-scores.relative[order], kind="stable")] for order in drawn]
    curves = order_curves(target, np.stack(orders))
    mean = Curves(
        shares=curves.shares,
        deletion=curves.deletion.mean(axis=0, keepdims=True),
        insertion=curves.insertion.mean(axis=0, keepdims=True),
    )
    return Faithfulness(
        curves=mean, random=random, ordered="regions" if by_region else f"{scores.part}s"
    )


def order_curves(
    target: ExplanationTarget, orders: NDArray[np.int64], steps: int = N_STEPS
) -> Curves:
    """Curves of orders (R, N) in some twenty equal steps; the bag is never empty.

    Removed tiles leave the bag shorter: nothing replaces them (compare V. Petsiuk,
    A. Das, K. Saenko, RISE, BMVC 2018, section 4.2, for pixels).
    """
    n_tiles = orders.shape[1]
    steps_at = np.unique(
        np.linspace(0, n_tiles - 1, min(steps, n_tiles - 1) + 1).round().astype(int)
    )
    deletion, insertion = target.order_answers(orders, steps_at)
    return Curves(shares=steps_at / max(1, n_tiles - 1), deletion=deletion, insertion=insertion)


def localise(scores: TileScores, known: NDArray[np.bool_]) -> Localisation:
    """Compare a map with tiles that are known to matter, planted or annotated.

    Raises:
        FitError: all tiles are known, or none.
    """
    if known.all() or not known.any():
        raise FitError(
            f"{scores.bag.slide}: {int(known.sum())} of {len(known)} {scores.part}s lie in the regions. "
            f"Localisation compares {scores.part}s inside with {scores.part}s outside; give regions that "
            "contain some of them."
        )
    from scipy.stats import mannwhitneyu

    positive = np.maximum(scores.relative, 0)
    inside, outside = scores.relative[known], scores.relative[~known]
    highest = scores.relative == scores.relative.max()
    return Localisation(
        auc=float(placements(known, scores.relative)[0].mean()),
        mass=float(positive[known].sum() / max(positive.sum(), np.finfo(float).tiny)),
        share=float(known.mean()),
        pointing=bool(known[highest].mean() > 0.5),
        p=float(mannwhitneyu(inside, outside, alternative="greater", method="asymptotic").pvalue)
        if np.ptp(scores.relative) > 0
        else 1.0,
    )


def infidelity(
    target: ExplanationTarget, scores: TileScores, *, samples: int = 200, seed: int = 0
) -> float | None:
    """How badly the scores predict the change when random tiles leave: 0 is perfectly, 1 is not at all.

    The infidelity of C.-K. Yeh et al., NeurIPS 2019 (equation 1), for masks that remove a random half of
    the tiles. The scores are first scaled and shifted for the best fit, because a head that averages does
    not fall when half of all equal tiles leave, while a head that adds does. Divided by the infidelity of
    the best uniform score, so that models and methods compare. None if only rounding is left: for an
    answer that does not move, and for a single tile.
    """
    left_out, change = _random_halves(target, samples, seed)

    def best_fit_infidelity(columns: Tensor) -> float:
        predictors = left_out @ columns
        solution = torch.linalg.lstsq(predictors, change[:, None], driver="gelsd").solution
        return float((predictors @ solution - change[:, None]).square().mean())

    uniform = torch.ones(len(target.bag), 1, dtype=torch.float64)
    unexplained = best_fit_infidelity(uniform)
    whole = target.subset_scores(np.ones((1, len(target.bag)), dtype=bool))
    if math.sqrt(unexplained) <= SAME_SCORE * (1 + abs(float(whole[0]))):
        return None
    values = torch.from_numpy(scores.values)[:, None]
    return best_fit_infidelity(torch.cat([values, uniform], dim=1)) / unexplained


@lru_cache(maxsize=1)  # the same for all maps of a bag
def _random_halves(target: ExplanationTarget, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tiles that leave (S, N), ones and zeros, and by how much the score falls then (S,); both float64."""
    generator = torch.Generator().manual_seed(seed)
    left_out = torch.rand(samples, len(target.bag), generator=generator) < 0.5
    keep = torch.cat([torch.ones(1, len(target.bag), dtype=torch.bool), ~left_out])
    scores = torch.from_numpy(target.subset_scores(keep.numpy()))
    return left_out.double(), scores[0] - scores[1:]


def sensitivity(
    target: ExplanationTarget,
    method: Callable[[ExplanationTarget], TileScores],
    *,
    radius: float = 0.05,
    samples: int = 5,
) -> float:
    """The largest relative change of a map under small perturbations of every feature.

    The sensitivity of C.-K. Yeh et al., NeurIPS 2019 (definition 2), relative to the map's norm. The
    perturbations are uniform, up to ``radius`` times the features' spread over the bag's tiles.
    """
    from captum.metrics import sensitivity_max

    spread = float(target.features[0].std(dim=0, correction=0).square().mean().sqrt())
    generator = torch.Generator().manual_seed(0)

    def perturb(features: Tensor | tuple[Tensor]) -> Tensor:
        bag = _single_tensor(features)
        return bag + radius * spread * (torch.rand(bag.shape, generator=generator) * 2 - 1)

    def explain(features: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        perturbed = target.with_features(_single_tensor(features))
        with torch.enable_grad():  # captum calls this without
            # In a tuple: captum divides a bare tensor by the norm of each row, here of each tile.
            return (torch.from_numpy(method(perturbed).values).unsqueeze(0),)

    largest: Tensor = sensitivity_max(
        explain,
        target.features,
        perturb,
        n_perturb_samples=samples,
        max_examples_per_batch=1,
    )
    return float(largest)


def _single_tensor(features: Tensor | tuple[Tensor]) -> Tensor:
    """The tensor that captum passes, sometimes in a tuple."""
    return features[0] if isinstance(features, tuple) else features


def draw_order(
    n_tiles: int, regions: NDArray[np.int64] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A random order of tiles (N,); with regions (N,), the tiles of a region stay together."""
    order = rng.permutation(n_tiles)
    if regions is None:
        return order
    ranks = rng.permutation(regions.max() + 1)[regions]
    return order[np.argsort(ranks[order], kind="stable")]


def _area(curves: Floats, shares: Floats) -> Floats:
    """(R, S) -> (R,) by the trapezoid rule; a bag of one tile has one point."""
    if len(shares) == 1:
        return curves[:, 0]
    return np.asarray(np.trapezoid(curves, shares, axis=1))


def _percentile(ahead: Floats, rounding: float) -> float:
    """Percent of differences above 0; those within rounding count half."""
    return float(100 * np.mean((ahead > rounding) + 0.5 * (np.abs(ahead) <= rounding)))
