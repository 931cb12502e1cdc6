"""Which cases are missed, as what, how surely, and whether the misses follow anything in the table."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mil.evaluation.classification.metrics import predicted
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.comparison import mostly_right
from mil.report.table_one import Variable, table_one

SURE = 0.8  # a wrong call with at least this probability
RIGHT, WRONG = "right", "wrong"


@dataclass(frozen=True)
class Failures:
    """The errors of one model.

    Attributes:
        model: its name.
        by_all: cases that no model of the run gets right.
        confusions: (truth, called, cases), most frequent first.
        sure: (case, truth, called, probability) of wrong calls with a probability of at least ``SURE``.
        against: the columns of the cohort, cases classified correctly against the others.
    """

    model: str
    by_all: tuple[str, ...]
    confusions: tuple[tuple[str, str, int], ...]
    sure: tuple[tuple[str, str, str, float], ...]
    against: tuple[Variable, ...]


def failures(predictions: ClassPredictions, model: str, cohort: pd.DataFrame) -> Failures:
    """The errors of a model; a case is called what most of its probability says, mean over repeats.

    Args:
        predictions: out of fold.
        model: one of its models.
        cohort: one row per case, with ``case`` and ``label``.
    """
    repeats = [predictions.case_scores(model, repeat) for repeat in predictions.repeats]
    p = np.mean([scores.p for scores in repeats], axis=0)
    cases, truth, called = repeats[0].case, repeats[0].truth, predicted(p)
    names = predictions.classes
    wrong = np.flatnonzero(called != truth)
    by_all = ~np.any([_right(predictions, name) for name in predictions.models], axis=0)
    judged = cohort.set_index(cohort["case"].astype(str)).loc[list(cases)].reset_index(drop=True)
    judged["label"] = np.where(called == truth, RIGHT, WRONG)
    pairs = Counter((names[truth[i]], names[called[i]]) for i in wrong)
    return Failures(
        model=model,
        by_all=tuple(np.array(cases)[by_all].tolist()),
        confusions=tuple((a, b, n) for (a, b), n in pairs.most_common()),
        sure=tuple(
            (cases[i], names[truth[i]], names[called[i]], float(p[i, called[i]]))
            for i in sorted(wrong, key=lambda i: -p[i, called[i]])
            if p[i, called[i]] >= SURE
        ),
        against=table_one(judged, (RIGHT, WRONG)) if 0 < len(wrong) < len(cases) else (),
    )


def _right(predictions: ClassPredictions, model: str) -> np.ndarray:
    return mostly_right([predictions.case_scores(model, repeat) for repeat in predictions.repeats])
