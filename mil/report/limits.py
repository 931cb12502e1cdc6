"""What the data cannot show, computed from the data."""

import math

import numpy as np

from mil.audit.sample_size import cases_for_width
from mil.data.outcomes import Outcomes
from mil.evaluation.classification.evaluate import Evaluation, ModelResult
from mil.evaluation.comparison import Comparison
from mil.evaluation.survival.evaluate import (
    CAVEAT,
    HARRELL_OF_NOISE,
    SurvivalEvaluation,
    SurvivalResult,
)
from mil.evaluation.survival.metrics import misordered, number_at_risk

FEW = 10  # cases of a class
WIDE = 0.2  # an interval
PER_COLUMN = 10  # events; P. Peduzzi et al., J Clin Epidemiol 1995, 48:1503


def limitations(
    evaluation: Evaluation, lead: ModelResult, comparison: Comparison, n_sites: int
) -> tuple[str, ...]:
    """Sentences that a paper on this run owes its readers.

    Args:
        evaluation: of the run.
        lead: the model its headline names.
        comparison: of its models.
        n_sites: distinct sites in the cohort table; 0 where it names none.
    """
    low, high = lead.accuracy.low, lead.accuracy.high
    said = []
    if low is not None and high is not None:
        said.append(
            f"With {lead.n} cases the accuracy of {lead.model} is known to within "
            f"{100 * (high - low):.0f} points: anything between {100 * low:.0f} and {100 * high:.0f} % "
            "agrees with what was seen."
        )
        if high - low > WIDE:
            needed = cases_for_width(lead.correct / lead.n, WIDE / 2)
            said.append(
                f"An interval of {100 * WIDE:.0f} points would take about {needed} cases at this accuracy."
            )
    small = [
        f"{name} ({count})"
        for name, count in zip(evaluation.classes, evaluation.class_counts, strict=True)
        if count < FEW
    ]
    if small:
        said.append(
            f"Fewer than {FEW} cases: {', '.join(small)}. What is said of such a class alone, its "
            "sensitivity and its place in the confusion matrix, hangs on single cases."
        )
    if len(evaluation.models) > 1:
        said += [str(comparison.power), _picked(len(evaluation.models))]
    return (*said, *_of_design(len(evaluation.repeats), n_sites))


def survival_limitations(
    evaluation: SurvivalEvaluation,
    lead: SurvivalResult,
    outcomes: Outcomes,
    beside: int,
    n_sites: int,
) -> tuple[str, ...]:
    """The same of survival.

    Args:
        evaluation: of the run.
        lead: the model its headline names.
        outcomes: of the cases.
        beside: columns that stand beside the risk in the Cox regressions; 0 where there are none.
        n_sites: distinct sites in the cohort table; 0 where it names none.
    """
    n, events = evaluation.n_cases, evaluation.n_events
    c, said = lead.harrell, []
    if c.low is not None and c.high is not None:
        width = c.high - c.low
        said.append(
            f"With {n} cases and {events} events the C of {lead.model} is known to within {width:.2f}: "
            f"anything between {c.low:.2f} and {c.high:.2f} agrees with what was seen."
        )
        if width > WIDE:
            needed = math.ceil(n * (width / WIDE) ** 2)
            said.append(
                f"An interval of {WIDE:.2f} would take about {needed} cases with this share of events."
            )
        said.append(
            "That interval covers less than it says: it is one of risks that do not depend on one another, "
            f"and risks out of fold do. {HARRELL_OF_NOISE}"
        )
    if any(result.groups.p is not None for result in evaluation.models):
        said.append(
            f"The log-rank p, and so Holm's of it, is {CAVEAT}: the cases of one "
            "cross-validation do not come to their groups independently."
        )
    said += _of_times(evaluation, outcomes)
    if beside:
        said.append(
            f"As a rule of thumb a Cox regression takes {PER_COLUMN} events for each column; those here hold "
            f"{beside + 1} columns and {events} events."
        )
    else:
        said.append(
            "No column of the table stands beside the risk: whether it says more than age, stage and grade "
            "do is not known (--clinical)."
        )
    if len(evaluation.models) > 1:
        said += ["No C was tested against another.", _picked(len(evaluation.models))]
    return (*said, *_of_design(len(evaluation.repeats), n_sites))


def _of_times(evaluation: SurvivalEvaluation, outcomes: Outcomes) -> list[str]:
    """What the times that were observed leave open."""
    n, last = evaluation.n_cases, evaluation.horizons[1]
    _, pairs = misordered(outcomes.time, outcomes.event, np.zeros(n))
    [left] = number_at_risk(outcomes.time, np.array([last]))
    return [
        f"Of {n * (n - 1) // 2} pairs of cases {pairs.sum() // 2} can be compared: in the others it is not "
        "known whose event comes first.",
        f"Nothing is judged beyond {last:.4g} {evaluation.unit}, when {left} of {n} cases are still "
        "observed.",
        "An event is what the table calls one: of deaths from another cause, and of cases lost because they "
        "fared ill, these numbers know nothing.",
    ]


def _picked(n_models: int) -> str:
    return (
        f"{n_models} models were tried on the same cases. The best of them looks better "
        "than it is; only cases that chose nothing can say by how much."
    )


def _of_design(n_repeats: int, n_sites: int) -> list[str]:
    """What one cross-validation of one cohort leaves open, whatever it asks."""
    said = []
    if n_repeats == 1:
        said.append(
            "The folds were drawn once. Another draw gives other numbers; --repeats shows how far apart."
        )
    said.append(
        {
            0: "The table names no site: nothing is known of how the model does on another one's slides.",
            1: "All cases come from one site: nothing is known of how the model does on another's slides.",
        }.get(
            n_sites,
            f"The cases come from {n_sites} sites; unless folds follow them (--folds site), the numbers say "
            "little of a site that took no part.",
        )
    )
    said.append(
        "Every number is from cross-validation of one cohort: no case is from outside, and the model that "
        "would be used is not among those of the folds."
    )
    return said
