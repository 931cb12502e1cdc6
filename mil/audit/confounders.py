"""Possible confounders: variables beside the tissue that alone could separate the classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mil.audit.association import Association, Associations, associate
from mil.audit.predictors import cohort_predictors
from mil.audit.single_predictor import count_correct_alone
from mil.data.cohort import Cohort
from mil.data.splits import Fold


@dataclass(frozen=True)
class Confounder:
    """A variable of the cases beside their tissue.

    Attributes:
        association: association with the label, against permuted labels.
        right: cases that it alone classifies correctly in the run's folds, mean over repeats; None without
            data.
    """

    association: Association
    right: float | None

    @property
    def verdict(self) -> str:
        """The result in words."""
        association = self.association
        if association.auc is None or association.noticed is None or association.p is None:
            return association.reason
        if association.significant:
            return "TELLS THE CLASSES APART"
        if association.p <= 0.05:
            return "may do: alone, not among all that were asked"
        return f"no sign; an AUC below {association.noticed:.2f} could not show"


def find_confounders(
    cohort: Cohort, folds: Sequence[Fold]
) -> tuple[tuple[Confounder, ...], Associations]:
    """Test all variables of a cohort.

    Returns:
        One confounder per variable, and their associations together.
    """
    truth = np.array([cohort.classes.index(case.label) for case in cohort.cases])
    predictors = cohort_predictors(cohort)
    associations = associate(predictors, truth)
    names = [case.name for case in cohort.cases]
    confounders = tuple(
        Confounder(
            association,
            None
            if predictor.values is None
            else count_correct_alone(predictor, names, truth, folds),
        )
        for predictor, association in zip(predictors, associations.results, strict=True)
    )
    return confounders, associations
