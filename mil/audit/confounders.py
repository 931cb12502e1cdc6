"""Possible confounders: variables beside the tissue that alone could predict the outcome."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mil.audit.association import (
    Association,
    Associations,
    CaseVariable,
    ClassOutcome,
    Outcome,
    associate,
)
from mil.audit.ordinal_association import OrderedOutcome, kappa_alone
from mil.audit.predictors import cohort_predictors
from mil.audit.single_predictor import count_correct_alone
from mil.audit.survival_association import SurvivalOutcome, concordance_alone
from mil.data.cohort import Cohort
from mil.data.outcomes import EVENT, Outcomes
from mil.data.splits import Fold


@dataclass(frozen=True)
class Confounder:
    """A variable of the cases beside their tissue.

    Attributes:
        association: with the outcome, against permuted outcomes.
        achieved: how well it does alone in the run's folds, mean over repeats: cases classified correctly,
            Harrell's C or quadratic kappa; None without data.
        performance: the same as text.
    """

    association: Association
    achieved: float | None
    performance: str

    @property
    def verdict(self) -> str:
        """The result in words."""
        association = self.association
        if association.measure is None or association.noticed is None or association.p is None:
            return association.reason
        if association.significant:
            return "PREDICTS THE OUTCOME"
        if association.p <= 0.05:
            return "perhaps: significant alone, not after adjustment for all facts"
        return f"not significant; with these cases a value below {association.noticed:.2f} would not be"


Alone = Callable[[CaseVariable], float | None]


def find_confounders(
    cohort: Cohort, folds: Sequence[Fold]
) -> tuple[tuple[Confounder, ...], Associations]:
    """Test all variables of a cohort of classes.

    Returns:
        One confounder per variable, and their associations together.
    """
    truth = np.array([cohort.classes.index(case.label) for case in cohort.cases])
    names = [case.name for case in cohort.cases]
    return _test(
        cohort_predictors(cohort),
        ClassOutcome(truth),
        lambda predictor: count_correct_alone(predictor, names, truth, folds),
        lambda right: f"{right:.{0 if right == round(right) else 1}f}/{len(names)}",
    )


def find_grade_confounders(
    cohort: Cohort, folds: Sequence[Fold]
) -> tuple[tuple[Confounder, ...], Associations]:
    """Test all variables of a cohort of ordered grades; returns as ``find_confounders``."""
    truth = np.array([cohort.classes.index(case.label) for case in cohort.cases])
    names = [case.name for case in cohort.cases]
    return _test(
        cohort_predictors(cohort),
        OrderedOutcome(truth),
        lambda predictor: kappa_alone(predictor, names, truth, folds),
        lambda kappa: f"{kappa:.2f}",
    )


def find_survival_confounders(
    cohort: Cohort, folds: Sequence[Fold]
) -> tuple[tuple[Confounder, ...], Associations]:
    """Test all variables of a cohort of times and events; returns as ``find_confounders``."""
    outcomes = Outcomes(
        np.array([case.time for case in cohort.cases], dtype=np.float64),
        np.array([case.label == EVENT for case in cohort.cases]),
    )
    names = [case.name for case in cohort.cases]
    return _test(
        cohort_predictors(cohort),
        SurvivalOutcome(outcomes),
        lambda predictor: concordance_alone(predictor, names, outcomes, folds),
        lambda c: f"{c:.2f}",
    )


def _test(
    predictors: Sequence[CaseVariable], outcome: Outcome, alone: Alone, text: Callable[[float], str]
) -> tuple[tuple[Confounder, ...], Associations]:
    associations = associate(predictors, outcome)
    confounders = []
    for predictor, association in zip(predictors, associations.results, strict=True):
        achieved = None if predictor.values is None else alone(predictor)
        words = "" if achieved is None else text(achieved)
        confounders.append(Confounder(association, achieved, words))
    return tuple(confounders), associations
