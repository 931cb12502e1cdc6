"""Where the fits looked for an answer: the mean of their default maps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from features.bags.bag import Bag
from mil.answers.predictor import Fit, FitKey
from mil.explanation.default import default_scores
from mil.explanation.scores import TileScores
from mil.explanation.target import explanation_target

SHARED: Mapping[FitKey, Bag] = MappingProxyType({})


def answer_map(
    fits: Sequence[Fit], bag: Bag, name: str | None, own: Mapping[FitKey, Bag] = SHARED
) -> TileScores:
    """The mean map of several fits for one class, or for the risk or the grade.

    Args:
        fits: of one model.
        bag: as the model reads it.
        own: by fit, the same tiles by its own backbone, where it has one.
        name: the class; None for the one score of the model.

    Raises:
        FitError: the model has no map.
    """
    read = [own.get(fit.key, bag) for fit in fits]
    maps = [
        default_scores(explanation_target(fit.model, one, name))
        for fit, one in zip(fits, read, strict=True)
    ]
    return replace(
        maps[0],
        values=np.mean([one.values for one in maps], axis=0),
        relative=np.mean([one.relative for one in maps], axis=0),
        facts={},
    )
