"""Small tables of predicted grades made up for tests."""

import numpy as np
import pandas as pd

from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.grade.predictions import GradePredictions

GRADES = ("1", "2", "3")


def grade_table(
    counts=(4, 5, 3), models=("abmil", "votes"), repeats=2, slides=2, seed=0, signal=1.0, folds=3
):
    """One row per model, repeat and slide; the first model knows the grade as well as ``signal`` says."""
    rng = np.random.default_rng(seed)
    grades = GRADES if len(counts) == 3 else tuple(str(k + 1) for k in range(len(counts)))
    truth = np.repeat(np.arange(len(counts)), counts)
    order = rng.permutation(len(truth))
    rows = []
    for model in models:
        strength = signal if model == models[0] else 0.0
        for repeat in range(repeats):
            for i, grade in enumerate(truth):
                for slide in range(1 + i % slides):
                    center = strength * grade + rng.normal()
                    line = -((np.arange(len(counts)) - center) ** 2)
                    p = np.exp(line) / np.exp(line).sum()
                    rows.append(
                        {
                            "model": model,
                            "repeat": repeat,
                            "fold": int(order[i] + repeat) % folds,
                            "case": f"case{i:02d}",
                            "slide": f"case{i:02d}-{slide}",
                            "grade": grades[grade],
                            **{f"g_{name}": p[k] for k, name in enumerate(grades)},
                        }
                    )
    return pd.DataFrame(rows)


def grade_predictions(**options) -> GradePredictions:
    table = grade_table(**options)
    return GradePredictions(
        table, tuple(name[2:] for name in table.columns if name.startswith("g_"))
    )


def scores_of(truth, grade, n_grades=3, fold=None) -> CaseScores:
    """A model that is sure of the grades it predicts."""
    truth, n = np.asarray(truth, dtype=np.int64), len(truth)
    fold = np.zeros(n, np.int64) if fold is None else np.asarray(fold)
    names = tuple(f"c{i:03d}" for i in range(n))
    return CaseScores(names, truth, np.eye(n_grades)[np.asarray(grade)], fold)
