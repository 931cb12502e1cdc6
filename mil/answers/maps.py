"""Where the fits looked for an answer: the mean of their default maps."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from features.bags.bag import Bag
from mil.answers.predictor import Fit
from mil.explanation.default import default_scores
from mil.explanation.scores import TileScores
from mil.explanation.target import explanation_target


def answer_map(fits: Sequence[Fit], bag: Bag, name: str | None) -> TileScores:
    """The mean map of several fits for one class, or for the risk or the grade.

    Args:
        fits: of one model.
        bag: as the model reads it.
        name: the class; None for the one score of the model.

    Raises:
        FitError: the model has no map.
    """
    maps = [default_scores(explanation_target(fit.model, bag, name)) for fit in fits]
    return replace(
        maps[0],
        values=np.mean([one.values for one in maps], axis=0),
        relative=np.mean([one.relative for one in maps], axis=0),
        facts={},
    )
