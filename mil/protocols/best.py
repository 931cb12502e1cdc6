"""What the best of several arms is worth."""

from collections.abc import Sequence

from scipy.stats import mannwhitneyu

from mil.evaluation.classification.predictions import PREFIX, ClassPredictions
from mil.evaluation.display import state_p
from mil.evaluation.paired_tests import holm
from mil.protocols.measures import ArmResult

MANY_ARMS = 3  # of one question: the best of so many is chosen, not found


def describe_best(arms: Sequence[ArmResult]) -> list[str]:
    """What the best of several arms of one question is worth, as it is chosen on the figures shown."""
    sentences = []
    for question in dict.fromkeys(result.arm.question for result in arms):
        aucs = {
            result.arm.name: value
            for result in arms
            if result.arm.question == question
            and (value := result.measures.get("case_auc")) is not None
        }
        p_values = {
            result.arm.name: rank_p(result.predictions)
            for result in arms
            if result.arm.name in aucs
            and result.predictions
            and len(result.predictions.classes) == 2
        }
        if len(p_values) < MANY_ARMS:
            continue
        corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
        best = max(p_values, key=lambda name: aucs[name])
        sentences.append(
            f"{best} is the best of {len(aucs)} arms (AUC {aucs[best]:.2f} over cases), chosen on the "
            "figures shown here: expect less of it on other cases. Against guessing "
            f"{state_p(p_values[best])}, after Holm's correction for {len(p_values)} arms "
            f"{state_p(corrected[best])}."
        )
    return sentences


def rank_p(predictions: ClassPredictions) -> float:
    """One-sided p of the ranks of two classes (Mann-Whitney), of the mean probability of each case."""
    first = predictions.classes[0]
    cases = predictions.table.groupby("case").agg({PREFIX + first: "mean", "label": "first"})
    of_first = (cases["label"] == first).to_numpy()
    scores = cases[PREFIX + first].to_numpy()
    return float(mannwhitneyu(scores[of_first], scores[~of_first], alternative="greater").pvalue)
