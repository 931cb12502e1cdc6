"""Small bags and cohorts made up for the tests of this package."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from features.bags.bag import Bag
from mil.data.case import Case
from mil.data.cohort import Cohort
from mil.data.splits import Fold, split_cases
from mil.evaluation.survival.predictions import column_of
from mil.learning.fitted import EMPTY, predict
from mil.settings import FitSettings, SplitSettings
from mil.tasks.diagnosis import Diagnosis

RECIPE: dict[str, Any] = {"backbone": "toy", "weights": "pretrained", "mpp": 0.5, "tile": 224}
QUICK = FitSettings(seeds=1, epochs=3, width=8, dropout=0.1)


def made_bag(
    slide: str,
    features: Any = None,
    *,
    n_tiles: int = 6,
    dim: int = 5,
    seed: int = 0,
    recipe: Mapping[str, Any] = RECIPE,
    **given: Any,
) -> Bag:
    """A bag of one row of tiles on a slide of 100 x 80 tiles; random features if none are given."""
    if features is None:
        rng = np.random.default_rng([seed, zlib.crc32(slide.encode())])
        features = rng.normal(size=(n_tiles, dim)).astype(np.float32)
    n_tiles = len(features)
    x = 448 * np.arange(n_tiles)
    facts = {
        "coords_l0": np.stack([x, np.zeros_like(x)], axis=1).astype(np.int64),
        "coverage": np.linspace(0.6, 1, n_tiles).astype(np.float32),
        "side_l0": (448.0, 448.0),
        "size_l0": (44800, 35840),
        "mpp_l0": (0.25, 0.25),
        "mpp_source": "file",
        "tile_px": 224,
        "target_mpp": 0.5,
        "request_sha256": f"request of {slide}",
    }
    return Bag(slide=slide, features=features, recipe=recipe, **(facts | given))


def made_case(name: str, label: str, *features: Any, **given: Any) -> Case:
    """A case with one slide per array of features."""
    bags = [made_bag(f"{name}-s{i}", each, **given) for i, each in enumerate(features, start=1)]
    return Case(name=name, label=label, bags=tuple(bags), other=made_columns(name))


def made_columns(name: str) -> dict[str, str]:
    """Clinical columns of a case that have nothing to do with its label."""
    drawn = np.random.default_rng(zlib.crc32(name.encode()))
    return {"age": str(drawn.integers(20, 90)), "site of tumour": drawn.choice(["arm", "leg"])}


def cohort_of(cases: Sequence[Case]) -> Cohort:
    classes = tuple(sorted({case.label for case in cases}))
    return Cohort(cases=tuple(cases), classes=classes, task=Diagnosis())


def made_cohort(
    counts: Sequence[int] = (4, 4),
    *,
    slides: int = 2,
    n_tiles: int = 6,
    dim: int = 5,
    seed: int = 0,
) -> Cohort:
    """Features without any signal; ``counts`` cases per class, every other with one slide only."""
    rng = np.random.default_rng(seed)
    cases = []
    for label, count in enumerate(counts):
        for i in range(count):
            bags = [
                rng.normal(size=(n_tiles + rng.integers(3), dim)).astype(np.float32)
                for _ in range(slides if i % 2 else 1)
            ]
            cases.append(made_case(f"{'abcdef'[label]}{i}", f"class-{'abcdef'[label]}", *bags))
    return cohort_of(cases)


def planted_cohort(
    n_classes: int = 4, per_class: int = 5, *, dim: int = 32, shift: float = 5.5, seed: int = 0
) -> tuple[Cohort, dict[str, np.ndarray]]:
    """Bags of 40 to 60 tiles: 15 % key tiles moved in their class's direction, the rest shared.

    Returns:
        the cohort, and which tiles of each slide are key tiles.
    """
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(dim, n_classes)))[0].T  # (C, D), of length 1
    cases, keys = [], {}
    for label in range(n_classes):
        for i in range(per_class):
            n_tiles = int(rng.integers(40, 61))
            key = rng.permutation(n_tiles) < round(0.15 * n_tiles)
            features = rng.normal(size=(n_tiles, dim))
            features[key] += shift * directions[label]
            case = made_case(f"{'abcdef'[label]}{i}", f"class-{label}", features.astype(np.float32))
            keys[case.bags[0].slide] = key
            cases.append(case)
    return cohort_of(cases), keys


def relabelled(cohort: Cohort, seed: int) -> Cohort:
    """The same cases with their labels shuffled."""
    labels = np.random.default_rng(seed).permutation([case.label for case in cohort.cases])
    return cohort_of(
        [replace(case, label=str(label)) for case, label in zip(cohort.cases, labels, strict=True)]
    )


def folds_of(cohort: Cohort, **settings: Any) -> tuple[Fold, ...]:
    """The folds of a cohort; settings are those of SplitSettings."""
    return split_cases(
        [case.name for case in cohort.cases],
        [case.label for case in cohort.cases],
        [case.site for case in cohort.cases],
        SplitSettings(**settings),
    )


def probabilities(fitted, bag, other=EMPTY) -> list[float]:
    """What a model of classes answers, in the order of the classes."""
    return [predict(fitted, bag, other)[f"p_{name}"] for name in fitted.classes]


def risk(fitted, bag, times=(), other=EMPTY) -> tuple[float, list[float]]:
    """What a model of survival answers: the risk, and survival until each time."""
    columns = [column_of(time) for time in times]
    answer = predict(fitted, bag, other, columns)
    return answer["risk"], [answer[name] for name in columns]
