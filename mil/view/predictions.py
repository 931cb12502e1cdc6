"""What each model of a cross-validation predicts of each case, for the list of cases."""

from typing import Any

from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.survival.predictions import RiskPredictions
from mil.report.class_cards import case_cards
from mil.runs.run import Run

CasePredictions = dict[str, dict[str, dict[str, Any]]]  # by case, then by model


def case_predictions(run: Run) -> CasePredictions:
    """Predictions out of fold; empty for models that were trained on all cases.

    Of classes the probabilities ``p`` and whether the likeliest class is ``right``; of survival the
    ``risk``.
    """
    if not run.cross_validated:
        return {}
    predictions = run.predictions()
    if isinstance(predictions, ClassPredictions):
        return _probabilities(predictions)
    if isinstance(predictions, RiskPredictions):
        return _risks(predictions)
    return {}


def _probabilities(predictions: ClassPredictions) -> CasePredictions:
    return {
        card.case: {
            model: {"p": [round(p, 4) for p in verdict.p], "right": verdict.right}
            for model, verdict in zip(predictions.models, card.verdicts, strict=True)
        }
        for card in case_cards(predictions)
    }


def _risks(predictions: RiskPredictions) -> CasePredictions:
    by_case: CasePredictions = {}
    for model in predictions.models:
        risks = predictions.mean_risks(model)
        for case, risk in zip(risks.case, risks.risk, strict=True):
            by_case.setdefault(case, {})[model] = {"risk": round(float(risk), 4)}
    return by_case
