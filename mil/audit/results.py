"""The results of a run as a study would print them, to be checked by the rules of published tables."""

from mil.evaluation.classification.metrics import confusion
from mil.evaluation.classification.predictions import ClassPredictions

TABLE = ("model", "accuracy", "sensitivity", "specificity", "precision", "f1", "n", "n_pos")


def results_table(predictions: ClassPredictions) -> list[dict[str, str]]:
    """Each model's numbers as a study would print them: one class against the rest, each repeat."""
    rows = []
    for model in predictions.models:
        for repeat in predictions.repeats:
            scores = predictions.case_scores(model, repeat)
            table = confusion(scores.truth, scores.p)
            for k, name in enumerate(predictions.classes):
                tp, n_pos, called, n = table[k, k], table[k].sum(), table[:, k].sum(), table.sum()
                tn = n - n_pos - called + tp
                shares = (
                    (tp + tn, n),
                    (tp, n_pos),
                    (tn, n - n_pos),
                    (tp, called),
                    (2 * tp, n_pos + called),
                )
                texts = [f"{part / whole:.3f}" if whole else "" for part, whole in shares]
                label = f"{model}: {name}, repeat {repeat}"
                rows.append(dict(zip(TABLE, [label, *texts, str(n), str(n_pos)], strict=True)))
    return rows
