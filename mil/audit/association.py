"""How far one fact of a case tells its class, and how far it would by chance.

The measure is the macro one-vs-rest AUC at its best: of each class against the rest, in whichever
direction the fact points. At 20 cases that is well above .5 where there is nothing, so that it is read
against the same measure on labels dealt out anew to whole cases, and never alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.comparison import holm

SHUFFLES = 4999
MOST_EXACT = 5000  # arrangements of the labels up to which all are tried
ALPHA = 0.05
ROUNDING = 1e-9
MOST_AT_ONCE = 5_000_000  # numbers of a block of shuffles


@dataclass(frozen=True, eq=False)
class Predictor:
    """One fact of every case.

    Attributes:
        name: what it is.
        values: (n, d) numbers, nan where not known; of categories (n, 1) codes.
        categorical: whether the values are codes without an order.
        reason: why there is no data; then there are no values.
        note: what a reader should know of the values.
    """

    name: str
    values: Floats | None = None
    categorical: bool = False
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Association:
    """What labels dealt out anew say of one predictor.

    Attributes:
        name: of the predictor.
        auc: macro one-vs-rest AUC in the direction that fits best; None without data.
        chance: its median over the shuffles.
        noticed: what one shuffle in twenty reaches.
        p: share of shuffles, the true labels among them, that reach the AUC (Phipson & Smyth 2010).
        p_holm: adjusted for all predictors.
        exact: whether every arrangement of the labels was tried.
        reason: why there is no data.
        note: of the values.
    """

    name: str
    auc: float | None = None
    chance: float | None = None
    noticed: float | None = None
    p: float | None = None
    p_holm: float | None = None
    exact: bool = False
    reason: str = ""
    note: str = ""

    @property
    def found(self) -> bool:
        """Whether it tells the classes apart beyond chance, all predictors considered."""
        return self.p_holm is not None and self.p_holm <= ALPHA

    def to_json(self) -> dict[str, object]:
        """The fields and the verdict as plain values."""
        return asdict(self) | {"found": self.found}


@dataclass(frozen=True)
class Associations:
    """All predictors of one cohort.

    Attributes:
        each: one per predictor, in their order.
        largest: the AUC that the best of the numeric predictors reaches in one shuffle of twenty; None
            without any.
        numeric: how many those are.
    """

    each: tuple[Association, ...]
    largest: float | None
    numeric: int


def associate(
    predictors: Sequence[Predictor], truth: Ints, *, shuffles: int = SHUFFLES, seed: int = 0
) -> Associations:
    """Hold each predictor's AUC against shuffled labels, the same shuffles for all.

    Args:
        predictors: of the same n cases.
        truth: (n,) class indices; every class has a case.
        shuffles: of the labels; all arrangements are tried where there are few.
        seed: of the shuffles.
    """
    dealt, exact = _arrangements(truth, shuffles, seed)
    asked = [each for each in predictors if each.values is not None]
    seen = {each.name: best_auc(each, truth[None])[0] for each in asked}
    under = {each.name: best_auc(each, dealt) for each in asked}
    p = {
        name: (np.sum(under[name] >= seen[name] - ROUNDING) + (not exact))
        / (len(dealt) + (not exact))
        for name in seen
    }
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    each = tuple(
        Association(predictor.name, reason=predictor.reason)
        if predictor.values is None
        else Association(
            predictor.name,
            float(seen[predictor.name]),
            float(np.median(under[predictor.name])),
            float(np.quantile(under[predictor.name], 1 - ALPHA)),
            float(p[predictor.name]),
            float(adjusted[predictor.name]),
            exact,
            note=predictor.note,
        )
        for predictor in predictors
    )
    numeric = [under[each.name] for each in asked if not each.categorical]
    largest = float(np.quantile(np.max(numeric, axis=0), 1 - ALPHA)) if numeric else None
    return Associations(each, largest, len(numeric))


def best_auc(predictor: Predictor, labels: Ints) -> Floats:
    """(B,) macro AUC in the direction that fits best, of B labellings (B, n) of the same cases.

    Of several numbers (colour channels) the best one; of categories, that of the share each class has
    within the case's own category.
    """
    assert predictor.values is not None
    n_classes = int(labels.max()) + 1
    if predictor.categorical:
        codes = np.unique(predictor.values[:, 0], return_inverse=True)[1]
        width = (codes.max() + 1) ** 2 * n_classes + labels.shape[1] * n_classes
        blocks = np.array_split(labels, 1 + len(labels) * width // MOST_AT_ONCE)
        return np.concatenate([_category_auc(codes, block, n_classes) for block in blocks])
    values = predictor.values
    middle = np.nanmedian(values, axis=0)
    ranks = rankdata(np.where(np.isnan(values), middle, values), axis=0)  # (n, d)
    folded = []
    for k in range(n_classes):
        mine = (labels == k).astype(np.float64)
        m = mine.sum(axis=1, keepdims=True)
        auc = ((mine @ ranks) / m - (m + 1) / 2) / (labels.shape[1] - m)  # (B, d)
        folded.append(np.maximum(auc, 1 - auc))
    best: Floats = np.mean(folded, axis=0).max(axis=1)
    return best


def _category_auc(codes: npt.NDArray[np.intp], labels: Ints, n_classes: int) -> Floats:
    """As ``best_auc``: the AUC of each class's share within a category, from counts."""
    member = np.eye(codes.max() + 1)[codes]  # (n, S)
    one_hot = np.eye(n_classes)[labels]  # (B, n, K)
    counts = np.einsum("ns,bnk->bsk", member, one_hot)
    size = member.sum(axis=0)[:, None]
    share = counts / size  # (B, S, K)
    rest = size - counts
    above = (share[:, :, None] > share[:, None] + ROUNDING).astype(np.float64)
    level = np.abs(share[:, :, None] - share[:, None]) <= ROUNDING
    pairs = np.einsum("bsk,btk,bstk->bk", counts, rest, above + level / 2)
    auc: Floats = (pairs / (counts.sum(axis=1) * rest.sum(axis=1))).mean(axis=1)
    return auc


def _arrangements(truth: Ints, shuffles: int, seed: int) -> tuple[Ints, bool]:
    """((B, n) labels dealt out anew, whether these are all there are)."""
    counts = np.bincount(truth)
    ways = math.factorial(len(truth)) // math.prod(math.factorial(int(c)) for c in counts)
    if ways <= min(shuffles + 1, MOST_EXACT):
        return np.array(list(_every(tuple(range(len(truth))), counts.tolist()))), True
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(truth, (shuffles, 1)), axis=1), False


def _every(places: tuple[int, ...], counts: Sequence[int]) -> Iterator[Ints]:
    """All ways to give so many of the places to each class."""
    if len(counts) == 1:
        yield np.full(len(places), 0)
        return
    *others, last = counts
    for chosen in combinations(range(len(places)), last):
        left = tuple(place for i, place in enumerate(places) if i not in chosen)
        labels = np.full(len(places), len(others))
        for rest in _every(left, others):
            labels[[i for i in range(len(places)) if i not in chosen]] = rest
            yield labels.copy()
