"""That the outcomes of the cases are still those a run was judged by."""

from mil.data.cohort import Cohort
from mil.errors import RunError
from mil.evaluation.predictions import Predictions


def check_outcomes(predictions: Predictions, cohort: Cohort) -> None:
    """Refuse cases whose outcome is not the one they were judged by.

    Raises:
        RunError: naming one.
    """
    judged = predictions.outcomes_by_case()
    changed = [
        case.name
        for case in cohort.cases
        if judged.get(case.name) != tuple(cohort.task.outcome_fields(case).values())
    ]
    if changed:
        raise RunError(
            f"{len(changed)} cases have another outcome than in the run, e.g. {changed[0]}. "
            "Make the run again."
        )
