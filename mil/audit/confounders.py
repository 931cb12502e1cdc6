"""Facts of the cases beside their tissue, and whether they alone could tell the classes apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mil.audit.association import Association, Associations, associate
from mil.audit.predictors import predictors_of
from mil.audit.single_predictor import right_alone
from mil.data.cohort import Cohort
from mil.data.splits import Fold


@dataclass(frozen=True)
class Confounder:
    """A fact of the cases beside their tissue.

    Attributes:
        association: with the label, against shuffled labels.
        right: cases that it alone calls rightly in the run's folds, mean over repeats; None without data.
    """

    association: Association
    right: float | None

    @property
    def verdict(self) -> str:
        """In words."""
        told = self.association
        if told.auc is None or told.noticed is None or told.p is None:
            return told.reason
        if told.found:
            return "TELLS THE CLASSES APART"
        if told.p <= 0.05:
            return "may do: alone, not among all that were asked"
        return f"no sign; an AUC below {told.noticed:.2f} could not show"


def confounders_of(
    cohort: Cohort, folds: Sequence[Fold]
) -> tuple[tuple[Confounder, ...], Associations]:
    """Ask every fact of the cases; one per fact, and what chance gives to the best of them."""
    truth = np.array([cohort.classes.index(case.label) for case in cohort.cases])
    predictors = predictors_of(cohort)
    associations = associate(predictors, truth)
    names = [case.name for case in cohort.cases]
    found = tuple(
        Confounder(told, None if each.values is None else right_alone(each, names, truth, folds))
        for each, told in zip(predictors, associations.each, strict=True)
    )
    return found, associations
