"""What the data cannot show, computed from the data."""

from mil.audit.expect import cases_for
from mil.evaluation.comparison import Comparison
from mil.evaluation.evaluate import Evaluation, ModelResult

FEW = 10  # cases of a class
WIDE = 0.2  # an interval


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
            needed = cases_for(lead.correct / lead.n, WIDE / 2)
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
        said.append(str(comparison.power))
        said.append(
            f"{len(evaluation.models)} models were tried on the same cases. The best of them looks better "
            "than it is; only cases that chose nothing can say by how much."
        )
    if len(evaluation.repeats) == 1:
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
    return tuple(said)
