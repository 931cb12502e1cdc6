"""Small tables of predictions made up for the tests of this room."""

import numpy as np
import pandas as pd
import pytest

from mil.evaluation.classification.predictions import ClassPredictions


def made_up(
    counts=(3, 4, 5), models=("abmil", "votes"), repeats=2, slides=2, seed=0, signal=1.0
) -> ClassPredictions:
    rng = np.random.default_rng(seed)
    classes = tuple(f"c{k}" for k in range(len(counts)))
    truth = np.repeat(np.arange(len(counts)), counts)
    rows = []
    for model in models:
        for repeat in range(repeats):
            for i, label in enumerate(truth):
                for slide in range(1 + (i % slides)):
                    score = rng.normal(size=len(counts))
                    score[label] += signal
                    p = np.exp(score) / np.exp(score).sum()
                    rows.append(
                        {
                            "model": model,
                            "repeat": repeat,
                            "fold": (i + repeat) % 3,
                            "case": f"case{i:02d}",
                            "slide": f"case{i:02d}-{slide}",
                            "label": classes[label],
                            **{f"p_{name}": p[k] for k, name in enumerate(classes)},
                        }
                    )
    return ClassPredictions(pd.DataFrame(rows), classes)


@pytest.fixture
def predictions() -> ClassPredictions:
    return made_up()


@pytest.fixture
def make():
    return made_up
