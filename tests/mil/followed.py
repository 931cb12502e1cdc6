"""Cohorts of survival made up for tests: times, events, and bags that say the risk or nothing."""

from dataclasses import replace

import numpy as np

from mil.data.cohort import Cohort
from mil.data.outcomes import CENSORED, EVENT
from mil.data.splits import Fold, split_cases
from mil.settings import SplitSettings
from mil.tasks.survival import Survival
from tests.mil.made import made_case


def drawn(rng, n, *, strength=1.5, ties=False):
    """Times, events and true risks of n cases, about half of them censored."""
    risk = rng.normal(size=n)
    met, left = rng.exponential(size=n) * np.exp(-strength * risk), rng.exponential(size=n)
    time, event = np.minimum(met, left) * 1000, met <= left
    return np.ceil(time / 200) if ties else time, event, risk


def followed_cohort(n=40, *, planted=True, seed=0, dim=8, n_tiles=30):
    """Cases of one or two slides; in a planted cohort the share of key tiles rises with the risk."""
    rng = np.random.default_rng(seed)
    time, event, risk = drawn(rng, n)
    cases = []
    for i in range(n):
        slides = []
        for _ in range(1 + i % 2):
            features = rng.normal(size=(n_tiles, dim))
            share = 1 / (1 + np.exp(-risk[i])) if planted else rng.random()
            features[: round(share * n_tiles), 0] += 3
            slides.append(rng.permutation(features).astype(np.float32))
        case = made_case(f"c{i:03d}", EVENT if event[i] else CENSORED, *slides)
        cases.append(replace(case, time=float(time[i])))
    return Cohort(cases=tuple(cases), classes=(CENSORED, EVENT), task=Survival())


def folds_by_event(cohort, folds="5", seed=0, repeats=1) -> tuple[Fold, ...]:
    names, labels = [c.name for c in cohort.cases], [c.label for c in cohort.cases]
    settings = SplitSettings(folds=folds, seed=seed, repeats=repeats)
    return split_cases(names, labels, [""] * len(names), settings)
