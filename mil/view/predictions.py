"""What each model of a cross-validation predicts of each case, for the list of cases."""

from importlib import import_module

from mil.report.cards import CaseAnswers
from mil.runs.run import Run


def case_predictions(run: Run) -> CaseAnswers:
    """Predictions out of fold; empty for models that were trained on all cases.

    Of classes and of grades the probabilities ``p`` and whether the prediction is ``right``; of survival the
    ``risk``.
    """
    if not run.cross_validated:
        return {}
    module, _, name = run.task.case_answers.partition(":")
    answers: CaseAnswers = getattr(import_module(module), name)(run.predictions())
    return answers
