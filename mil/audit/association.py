"""Association of one variable with the outcome of a case, against permutations of the outcomes.

For classes the measure is a macro one-vs-rest AUC, for survival Harrell's C, for grades concordance; the
direction that fits better counts. At 20 cases it is well above .5 even without an association, so it is
compared with the same measure under permuted outcomes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mil.distributions import rankdata
from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.paired_tests import holm

SHUFFLES = 4999
MOST_EXACT = 5000  # label permutations; up to here all are tried
ALPHA = 0.05
ROUNDING = 1e-9
MOST_AT_ONCE = 5_000_000  # numbers in a block of permutations


@dataclass(frozen=True, eq=False)
class CaseVariable:
    """One variable, known for every case.

    Attributes:
        name: name for people.
        values: (n, d) numbers, nan where missing; (n, 1) codes of categories.
        categorical: whether the values are codes without an order.
        reason: why there are no values.
        note: remark on the values for the reader.
    """

    name: str
    values: Floats | None = None
    categorical: bool = False
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Association:
    """Permutation test of one predictor.

    Attributes:
        name: name of the predictor.
        measure: macro one-vs-rest AUC, Harrell's C or concordance, in the direction that fits best; None
            without data.
        chance: its median over the permutations.
        noticed: the value that one permutation in twenty reaches.
        p: share of permutations, the true outcomes among them, that reach the value (Phipson & Smyth 2010).
        p_holm: p adjusted over all predictors.
        exact: whether all permutations of the outcomes were tried.
        reason: why there is no data.
        note: remark on the values.
    """

    name: str
    measure: float | None = None
    chance: float | None = None
    noticed: float | None = None
    p: float | None = None
    p_holm: float | None = None
    exact: bool = False
    reason: str = ""
    note: str = ""

    @property
    def significant(self) -> bool:
        """Whether the association is significant after adjustment over all predictors."""
        return self.p_holm is not None and self.p_holm <= ALPHA

    def to_json(self) -> dict[str, object]:
        """The fields as plain values, and whether the association is significant (``found``)."""
        return asdict(self) | {"found": self.significant}


@dataclass(frozen=True)
class Associations:
    """Associations of all predictors of a cohort.

    Attributes:
        results: one per predictor, in their order.
        largest: value that the best numeric predictor reaches in one permutation in twenty; None where
            there is no numeric predictor.
        numeric: number of numeric predictors.
    """

    results: tuple[Association, ...]
    largest: float | None
    numeric: int


class Outcome(Protocol):
    """The outcomes of n cases, and how far a variable of the cases predicts them."""

    @property
    def observed(self) -> Ints:
        """(1, n) the arrangement of the outcomes as they are."""

    def permutations(self, shuffles: int, seed: int) -> tuple[Ints, bool]:
        """(B, n) permuted arrangements, and whether these are all there are."""

    def measure(self, predictor: CaseVariable, arrangements: Ints) -> Floats:
        """(B,) how far the predictor goes with each arrangement, in the direction that fits best."""


@dataclass(frozen=True, eq=False)
class ClassOutcome:
    """The classes of n cases.

    Attributes:
        truth: (n,) class indices; every class has a case.
    """

    truth: Ints

    @property
    def observed(self) -> Ints:
        """(1, n) the true classes."""
        return self.truth[None]

    def permutations(self, shuffles: int, seed: int) -> tuple[Ints, bool]:
        """(B, n) permuted classes, and whether these are all there are."""
        return permute_labels(self.truth, shuffles, seed)

    def measure(self, predictor: CaseVariable, arrangements: Ints) -> Floats:
        """(B,) macro AUC in the direction that fits best."""
        return best_auc(predictor, arrangements)


def associate(
    predictors: Sequence[CaseVariable], outcome: Outcome, *, shuffles: int = SHUFFLES, seed: int = 0
) -> Associations:
    """Test each predictor against permuted outcomes, the same permutations for all.

    Args:
        predictors: variables of the same n cases.
        outcome: of these cases.
        shuffles: number of permutations; all are tried where there are few.
        seed: seed of the permutations.
    """
    permuted, exact = outcome.permutations(shuffles, seed)
    available = [predictor for predictor in predictors if predictor.values is not None]
    observed = {p.name: outcome.measure(p, outcome.observed)[0] for p in available}
    null = {p.name: outcome.measure(p, permuted) for p in available}
    p = {
        name: (np.sum(null[name] >= observed[name] - ROUNDING) + (not exact))
        / (len(permuted) + (not exact))
        for name in observed
    }
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    results = tuple(
        Association(predictor.name, reason=predictor.reason)
        if predictor.values is None
        else Association(
            predictor.name,
            float(observed[predictor.name]),
            float(np.median(null[predictor.name])),
            float(np.quantile(null[predictor.name], 1 - ALPHA)),
            float(p[predictor.name]),
            float(adjusted[predictor.name]),
            exact,
            note=predictor.note,
        )
        for predictor in predictors
    )
    numeric = [null[predictor.name] for predictor in available if not predictor.categorical]
    largest = float(np.quantile(np.max(numeric, axis=0), 1 - ALPHA)) if numeric else None
    return Associations(results, largest, len(numeric))


def best_auc(predictor: CaseVariable, labels: Ints) -> Floats:
    """Macro AUC (B,) in the direction that fits best, for B labellings (B, n) of the same cases.

    For several numbers (colour channels) it is that of the best one; for categories, that of the share of
    each class within the category of the case.
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
    ranks = rankdata(np.where(np.isnan(values), middle, values))  # (n, d)
    folded = []
    for k in range(n_classes):
        members = (labels == k).astype(np.float64)
        m = members.sum(axis=1, keepdims=True)
        auc = ((members @ ranks) / m - (m + 1) / 2) / (labels.shape[1] - m)  # (B, d)
        folded.append(np.maximum(auc, 1 - auc))
    best: Floats = np.mean(folded, axis=0).max(axis=1)
    return best


def _category_auc(codes: npt.NDArray[np.intp], labels: Ints, n_classes: int) -> Floats:
    """As ``best_auc``: the AUC of the share of each class within a category, from counts."""
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


def permute_labels(truth: Ints, shuffles: int, seed: int) -> tuple[Ints, bool]:
    """(B, n) permuted labels, all of them where there are few, and whether these are all there are."""
    counts = np.bincount(truth)
    ways = math.factorial(len(truth)) // math.prod(math.factorial(int(c)) for c in counts)
    if ways <= min(shuffles + 1, MOST_EXACT):
        return np.array(list(_labellings(tuple(range(len(truth))), counts.tolist()))), True
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(truth, (shuffles, 1)), axis=1), False


def _labellings(places: tuple[int, ...], counts: Sequence[int]) -> Iterator[Ints]:
    """All ways to assign the places to classes with these counts."""
    if len(counts) == 1:
        yield np.full(len(places), 0)
        return
    *others, last = counts
    for chosen in combinations(range(len(places)), last):
        free = tuple(place for i, place in enumerate(places) if i not in chosen)
        labels = np.full(len(places), len(others))
        for labelling in _labellings(free, others):
            labels[[i for i in range(len(places)) if i not in chosen]] = labelling
            yield labels.copy()
