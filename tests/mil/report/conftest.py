"""A report made of invented predictions."""

import functools

import numpy as np
import pandas as pd
import pytest

from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.comparison import compare_models
from mil.report.facts import Facts, Heatmap
from mil.report.sections import Report

PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)
FOLDS = 4


@functools.cache
def _judged(classes, models, repeats, n, stem, absent):
    """Predictions and what is computed of them, which takes longest; no test changes any of it."""
    rng = np.random.default_rng(7)
    present = [name for name in classes if name != absent]
    cases = [f"{stem}{index:02d}" for index in range(n)]
    label = [present[index % len(present)] for index in range(n)]
    slides = {
        case: [f"{case}/{k}" for k in range(1 + (i % 5 == 0))] for i, case in enumerate(cases)
    }
    fold = {repeat: rng.permutation(n) % FOLDS for repeat in range(repeats)}
    rows = []
    for skill, model in enumerate(reversed(models)):
        for repeat in range(repeats):
            for index, case in enumerate(cases):
                for slide in slides[case]:
                    p = rng.dirichlet(np.ones(len(classes)))
                    p[classes.index(label[index])] += 0.2 * skill + 0.1
                    where = (model, repeat, fold[repeat][index], case, slide, label[index])
                    rows.append((*where, *(p / p.sum())))
    columns = ["model", "repeat", "fold", "case", "slide", "label", *(f"p_{c}" for c in classes)]
    predictions = ClassPredictions(pd.DataFrame(rows, columns=columns), tuple(classes))
    return {
        "predictions": predictions,
        "evaluation": evaluate(predictions),
        "comparison": compare_models(predictions),
    }, (cases, label, slides, fold)


def _report(
    *,
    classes=("dedifferentiated", "leiomyosarcoma", "myxofibrosarcoma", "UPS"),
    models=("abmil", "mean pooling", "tile vote"),
    repeats=1,
    n=20,
    stem="case-",
    heatmaps=True,
    absent=None,
    **changes,
):
    """Every fifth case has two slides; `absent` is a class that no case has."""
    results, drawn = _judged(tuple(classes), tuple(models), repeats, n, stem, absent)
    cases, label, slides, fold = drawn
    facts = {
        "title": "run-7",
        "created": "2025-03-01T12:00:00+00:00",
        "warnings": (),
        "cohort": pd.DataFrame(
            {
                "case": cases,
                "label": label,
                "slides": [len(slides[case]) for case in cases],
                "tiles": 1000,
                "site": [None, "Oslo"] * (n // 2),
            }
        ),
        "in_table": (n + 1, sum(map(len, slides.values())) + 1),
        "excluded": (("case-90", "no annotation"),),
        "folds": pd.DataFrame(
            [
                (repeat, fold[repeat][index], case, label[index])
                for repeat in range(repeats)
                for index, case in enumerate(cases)
            ],
            columns=["repeat", "fold", "case", "label"],
        ),
        "heatmaps": {
            slide: Heatmap(slide_picture=PNG, map_png=PNG, caption=f"abmil on {slide}")
            for case in cases[3:]
            for slide in slides[case]
            if heatmaps
        },
        "recipe": {"tiles": {"side_px": 224, "target_mpp": 0.625}, "stain": None},
        "settings": {"folds": FOLDS, "models": list(models)},
        "versions": {"sarcomil": "0.1.0"},
    }
    return Report(
        page="mil.report.diagnosis_sections:DiagnosisSections",
        facts=Facts(**(facts | changes)),
        **results,
    )


@pytest.fixture(scope="session")
def make():
    """Build a report: `make(repeats=3)`."""
    return _report
