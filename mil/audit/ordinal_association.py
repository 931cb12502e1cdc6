"""Association of one variable with an ordered grade: concordance, against permutations of the grades."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mil.audit.association import MOST_AT_ONCE, CaseVariable, permute_labels
from mil.audit.single_predictor import predict_alone
from mil.data.splits import Fold
from mil.distributions import rankdata
from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.grade.metrics import median_grade, quadratic_kappa, ranked_confusion


@dataclass(frozen=True, eq=False)
class OrderedOutcome:
    """The grades of n cases.

    Attributes:
        truth: (n,) indices of the grades in their order; every grade has a case.
    """

    truth: Ints

    @property
    def observed(self) -> Ints:
        """(1, n) the true grades."""
        return self.truth[None]

    def permutations(self, shuffles: int, seed: int) -> tuple[Ints, bool]:
        """(B, n) permuted grades, and whether these are all there are."""
        return permute_labels(self.truth, shuffles, seed)

    def measure(self, predictor: CaseVariable, arrangements: Ints) -> Floats:
        """(B,) concordance in the direction that fits best.

        Of pairs of cases of different grade, the share that the predictor puts in the right order, equal
        values counting half: half of Somers' D plus one. Of several numbers (colour channels) it is that of
        the best one; of categories, that of the mean grade within the category of the case.
        """
        assert predictor.values is not None
        if predictor.categorical:
            codes = np.unique(predictor.values[:, 0], return_inverse=True)[1]
            width = (codes.max() + 1) ** 2 + arrangements.shape[1] * (codes.max() + 2)
            blocks = np.array_split(arrangements, 1 + len(arrangements) * width // MOST_AT_ONCE)
            excess = np.concatenate([self._of_categories(codes, block) for block in blocks])
            return _concordance(np.abs(excess), self.truth)
        values = predictor.values
        ranks = rankdata(np.where(np.isnan(values), np.nanmedian(values, axis=0), values))
        by_column = [np.abs(self._of_ranks(column, arrangements)) for column in ranks.T]
        return _concordance(np.max(by_column, axis=0), self.truth)

    def _of_ranks(self, ranks: Floats, arrangements: Ints) -> Floats:
        """(B,) pairs in the order of the grades less pairs against it."""
        order = np.sign(ranks[:, None] - ranks)  # (n, n)
        excess = np.zeros(len(arrangements))
        for grade in range(1, int(self.truth.max()) + 1):
            above = (arrangements == grade).astype(np.float64) @ order  # (B, n)
            excess += (above * (arrangements < grade)).sum(axis=1)
        return excess

    def _of_categories(self, codes: Ints, arrangements: Ints) -> Floats:
        """As ``_of_ranks``, of categories in the order of their mean grades."""
        member = np.eye(codes.max() + 1)[codes]  # (n, S)
        mean = arrangements @ member / member.sum(axis=0)  # (B, S)
        order = np.sign(mean[:, :, None] - mean[:, None])  # (B, S, S)
        order *= np.abs(mean[:, :, None] - mean[:, None]) > 1e-9
        excess = np.zeros(len(arrangements))
        for grade in range(1, int(self.truth.max()) + 1):
            here, below = (arrangements == grade) @ member, (arrangements < grade) @ member
            excess += np.einsum("bs,bst,bt->b", here, order, below)
        return excess


def _concordance(excess: Floats, truth: Ints) -> Floats:
    """Concordance from concordant less discordant pairs of the same grades in any arrangement."""
    counts = np.bincount(truth)
    pairs = (len(truth) ** 2 - (counts**2).sum()) / 2
    concordance: Floats = (1 + excess / pairs) / 2
    return concordance


def kappa_alone(
    predictor: CaseVariable, names: Sequence[str], truth: Ints, folds: Sequence[Fold]
) -> float:
    """Quadratic kappa of a logistic regression on one predictor in the folds of a run, mean over repeats.

    As of every model, the grade is the median of the predicted distribution.

    Args:
        predictor: a variable with values for n cases.
        names: names of the n cases in the order of the values.
        truth: (n,) indices of the grades in their order.
        folds: folds of these cases.
    """
    n_grades = int(truth.max()) + 1
    kappas = [
        float(quadratic_kappa(ranked_confusion(truth, median_grade(p), n_grades)))
        for p in predict_alone(predictor, names, truth, folds)
    ]
    return float(np.mean(kappas))
