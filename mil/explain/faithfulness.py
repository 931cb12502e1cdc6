"""How true a map is: does the answer fall when the tiles it points at are taken away?

The map's order of tiles is set against random orders of the same bag and the same model: of single tiles,
or, where a region has one score, of regions, since neighbours that leave together move the answer further
than as many tiles from everywhere. It says whether the map tells what the *model* reads; whether the model
is right is for the evaluation to say.
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
from mil.explain.regions import BY_REGION, regions_of
from mil.explain.scores import TileScores
from mil.explain.target import ExplanationTarget

Floats = NDArray[np.float64]

N_ORDERS = 100
N_STEPS = 20
TIE_BREAKS = 10  # orders of equal scores that are averaged
SIGNIFICANT = 0.05
SAME_MARGIN = 1e-4  # of a margin: less is rounding of sums over thousands of tiles
ROUNDING = 1e-6  # of a probability; gains that differ by less are equal


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Probability of the class as tiles go and come, for one or more orders.

    Attributes:
        shares: (S,) share of the tiles taken, from 0 to all but one, and put in, from one to all.
        deletion: (R, S) after the first tiles of the order were taken away.
        insertion: (R, S) with the first tiles of the order alone.
    """

    shares: Floats
    deletion: Floats
    insertion: Floats

    @property
    def deletion_area(self) -> Floats:
        """(R,) mean probability over the deletion; low where the first tiles carry the answer."""
        return _area(self.deletion, self.shares)

    @property
    def insertion_area(self) -> Floats:
        """(R,) mean probability over the insertion; high where the first tiles suffice."""
        return _area(self.insertion, self.shares)

    @property
    def gain(self) -> Floats:
        """(R,) insertion less deletion: 0 on average where the order means nothing.

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
        ordered: what those are orders of, tiles or regions.
    """

    curves: Curves
    random: Curves
    ordered: str = "tiles"

    @property
    def p(self) -> float:
        """Share of orders, the map's own among them, whose gain is at least the map's."""
        reached = self.random.gain >= self.curves.gain[0] - ROUNDING
        return float((1 + reached.sum()) / (1 + len(reached)))

    @property
    def better_than_random(self) -> bool:
        """Whether chance would rarely do as well."""
        return self.p <= SIGNIFICANT

    @property
    def deletion_percentile(self) -> float:
        """Percent of random orders after which more of the answer is left; ties count half."""
        return _percentile(self.random.deletion_area - self.curves.deletion_area[0])

    @property
    def insertion_percentile(self) -> float:
        """Percent of random orders that build up less of the answer; ties count half."""
        return _percentile(self.curves.insertion_area[0] - self.random.insertion_area)

    @property
    def verdict(self) -> str:
        """In words."""
        word = "Better" if self.better_than_random else "No better"
        return (
            f"{word} than random orders of {self.ordered} (p = {self.p:.2g}): beats "
            f"{self.deletion_percentile:.0f} of 100 by deletion, {self.insertion_percentile:.0f} by insertion"
        )


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """How well a map finds tiles that are known to matter.

    Attributes:
        auc: probability that a known tile scores above another.
        mass: share of the map's positive scores that lies on known tiles.
        share: share of the tiles that are known: the mass of a flat map.
        pointing: whether the highest tile is a known one.
        p: of an AUC this high by chance, one-sided (Mann-Whitney).
    """

    auc: float
    mass: float
    share: float
    pointing: bool
    p: float


def random_curves(
    question: ExplanationTarget,
    orders: int = N_ORDERS,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    regions: NDArray[np.int64] | None = None,
) -> Curves:
    """Curves of random orders, to be shared by all maps of one question.

    Args:
        question: what is asked.
        orders: how many.
        seed: of the draw.
        progress: told of each order.
        regions: (N,) of the tiles, where those of a region stay together.
    """
    rng = np.random.default_rng(seed)
    found = []
    with (progress or Silent()).task("random orders", orders, "orders") as advance:
        for _ in range(orders):
            found.append(curves_of(question, _drawn(len(question.bag), regions, rng)[None]))
            advance(1)
    return Curves(
        shares=found[0].shares,
        deletion=np.concatenate([each.deletion for each in found]),
        insertion=np.concatenate([each.insertion for each in found]),
    )


@lru_cache(maxsize=1)
def region_curves(question: ExplanationTarget) -> tuple[NDArray[np.int64], Curves]:
    """The regions of a question's tiles (N,) and curves of random orders of them."""
    regions = regions_of(question)
    return regions, random_curves(question, regions=regions)


def judge(question: ExplanationTarget, scores: TileScores, random: Curves) -> Faithfulness:
    """Set a map against random orders; where scores are equal their order is drawn, several times.

    Args:
        question: what was asked.
        scores: the map.
        random: of single tiles; a map of regions is set against orders of those.
    """
    by_region = scores.method in BY_REGION
    regions, random = region_curves(question) if by_region else (None, random)
    rng = np.random.default_rng(0)
    ties = len(np.unique(scores.relative)) < len(scores.relative)
    drawn = [_drawn(len(scores.bag), regions, rng) for _ in range(TIE_BREAKS if ties else 1)]
    orders = np.stack([each[np.argsort(-scores.relative[each], kind="stable")] for each in drawn])
    found = curves_of(question, orders)
    mean = Curves(
        shares=found.shares,
        deletion=found.deletion.mean(axis=0, keepdims=True),
        insertion=found.insertion.mean(axis=0, keepdims=True),
    )
    return Faithfulness(curves=mean, random=random, ordered="regions" if by_region else "tiles")


def curves_of(
    question: ExplanationTarget, orders: NDArray[np.int64], steps: int = N_STEPS
) -> Curves:
    """Curves of orders (R, N) in some twenty equal steps; the bag is never empty.

    Tiles that are taken away leave the bag shorter: nothing is put in their place (compare V. Petsiuk,
    A. Das, K. Saenko, RISE, BMVC 2018, section 4.2, for pixels).
    """
    n_tiles = orders.shape[1]
    taken = np.unique(np.linspace(0, n_tiles - 1, min(steps, n_tiles - 1) + 1).round().astype(int))
    rank = np.argsort(orders, axis=1)[:, None, :]  # (R, 1, N)
    counts = taken[None, :, None]  # (1, S, 1)
    deletion, insertion = (
        question.probability_of_kept(kept.reshape(-1, n_tiles)).reshape(len(orders), -1)
        for kept in (rank >= counts, rank <= counts)
    )
    return Curves(shares=taken / max(1, n_tiles - 1), deletion=deletion, insertion=insertion)


def localise(scores: TileScores, known: NDArray[np.bool_]) -> Localisation:
    """Hold a map against tiles that are known to matter, planted or annotated.

    Raises:
        FitError: all tiles are known, or none.
    """
    if known.all() or not known.any():
        raise FitError(
            f"{scores.bag.slide}: {int(known.sum())} of {len(known)} tiles lie in the regions. To locate "
            "means to tell tiles inside from tiles outside; give regions that hold some of them."
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
    question: ExplanationTarget, scores: TileScores, *, samples: int = 200, seed: int = 0
) -> float | None:
    """How little the scores tell of the change when random tiles leave: 0 is all, 1 is nothing.

    The infidelity of C.-K. Yeh et al., NeurIPS 2019 (equation 1), of keep masks from which a random half
    of the tiles is taken, the scores scaled and shifted at best: a head that averages answers no less when
    half of all like tiles are gone, one that adds does. Divided by that of the best even score, so that
    models and methods compare. None where that leaves nothing but rounding: where the answer does not move,
    and of a single tile.
    """
    from captum.metrics import infidelity as measured

    generator = torch.Generator().manual_seed(seed)
    left_out = (torch.rand(samples, len(question.bag), generator=generator) < 0.5).double()
    keep = torch.ones(1, len(question.bag), dtype=torch.float64)

    def answers(masks: Tensor) -> Tensor:
        return torch.from_numpy(question.margin_of_kept(masks.numpy() > 0.5))

    change = answers(keep) - answers(keep - left_out)

    def of(columns: Tensor) -> float:
        fitted: Tensor = torch.linalg.lstsq(left_out @ columns, change[:, None], driver="gelsd")[0]
        return float(
            measured(
                answers,
                lambda masks: (left_out, masks - left_out),
                keep,
                (columns @ fitted).T,
                n_perturb_samples=samples,
            )
        )

    even = torch.ones(len(question.bag), 1, dtype=torch.float64)
    untold = of(even)
    if math.sqrt(untold) <= SAME_MARGIN * (1 + abs(float(answers(keep)))):
        return None
    own = torch.from_numpy(scores.values)[:, None]
    return of(torch.cat([own, even], dim=1)) / untold


def sensitivity(
    question: ExplanationTarget,
    method: Callable[[ExplanationTarget], TileScores],
    *,
    radius: float = 0.05,
    samples: int = 5,
) -> float:
    """The largest relative change of a map when every feature is moved a little.

    The sensitivity of C.-K. Yeh et al., NeurIPS 2019 (definition 2), relative to the map's length; the
    features are moved evenly up to ``radius`` times their spread over the bag's tiles.
    """
    from captum.metrics import sensitivity_max

    spread = float(question.features[0].std(dim=0, correction=0).square().mean().sqrt())
    generator = torch.Generator().manual_seed(0)

    def moved(features: Tensor | tuple[Tensor]) -> Tensor:
        bag = _only(features)
        return bag + radius * spread * (torch.rand(bag.shape, generator=generator) * 2 - 1)

    def explained(features: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        about = question.about(_only(features))
        with torch.enable_grad():  # captum asks without
            # In a tuple: of a bare tensor captum divides by the length of each row, here of each tile.
            return (torch.from_numpy(method(about).values).unsqueeze(0),)

    told: Tensor = sensitivity_max(
        explained,
        question.features,
        moved,
        n_perturb_samples=samples,
        max_examples_per_batch=1,
    )
    return float(told)


def _only(features: Tensor | tuple[Tensor]) -> Tensor:
    """The one tensor that captum hands on, at times in a tuple."""
    return features[0] if isinstance(features, tuple) else features


def _drawn(
    n_tiles: int, regions: NDArray[np.int64] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A random order of tiles (N,), those of a region together where regions (N,) are given."""
    order = rng.permutation(n_tiles)
    if regions is None:
        return order
    places = rng.permutation(regions.max() + 1)[regions]
    return order[np.argsort(places[order], kind="stable")]


def _area(curves: Floats, shares: Floats) -> Floats:
    """(R, S) -> (R,) by the trapezoid rule; a bag of one tile has one point."""
    if len(shares) == 1:
        return curves[:, 0]
    return np.asarray(np.trapezoid(curves, shares, axis=1))


def _percentile(ahead: Floats) -> float:
    """Percent of differences that are above 0, those of 0 counting half."""
    return float(100 * np.mean((ahead > ROUNDING) + 0.5 * (np.abs(ahead) <= ROUNDING)))
