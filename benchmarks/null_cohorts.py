"""Cohorts in which there is nothing to find: what does each model's cross-validation say of them?

    python -m benchmarks.null_cohorts [--cohorts 40] [--first 0] [--models abmil,mean]

Thirty cases of three classes, one to three slides each. Features are noise, with a signature of the case on
all its slides that varies as much as the tiles do: whoever has seen one slide of a case knows the others.
The labels have nothing to do with either. An honest macro AUC is 0.5 on average; a model passes within 0.03
of that. It is judged by the pooled cases; beside it stands the mean of the folds' own AUCs, since pooling by
itself is below chance where there is no signal and few columns (A. Airola et al., Computational Statistics &
Data Analysis 2011): a few lines of scikit-learn, run beside the models, show the same.

Two protocols that leak are run beside the models, to show that the measure would tell: the epoch is chosen by
the loss of the tested fold, and folds are made of slides, so that a case trains and is tested.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.table import print_table, save
from mil.data.cohort import Cohort
from mil.evaluation.classification.metrics import macro_auc
from mil.evaluation.classification.predictions import PREFIX
from mil.heads.table import MODELS
from mil.learning.crossval import cross_validate
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.made import cohort_of, folds_of, made_case, probabilities

CASES_PER_CLASS, N_CLASSES, N_TILES, DIM = 10, 3, 16, 16
WITHIN, HIGH = 0.03, 0.7
SETTINGS = FitSettings(
    seeds=1,
    epochs=12,
    width=32,
    batch_bags=16,
    learning_rate=1e-2,
    precision="fp32",
    early_stopping="never",
)
# It takes each bag by itself, fifty times as slowly, and has halved its loss after four epochs.
FEWER_EPOCHS = {"transmil": 4}

Measure = Callable[[Cohort, int], tuple[float, float]]  # AUC pooled and within folds, for a seed


def made(seed: int) -> Cohort:
    """A cohort without any signal; every case has a signature."""
    rng = np.random.default_rng([seed, 1])
    cases = []
    for number in range(N_CLASSES * CASES_PER_CLASS):
        signature = rng.normal(size=DIM)
        slides = [
            (signature + rng.normal(size=(N_TILES, DIM))).astype(np.float32)
            for _ in range(rng.integers(1, 4))
        ]
        cases.append(made_case(f"{seed}-{number:02d}", "abc"[number % N_CLASSES], *slides))
    return cohort_of(cases)


def honest(model: str, cohort: Cohort, seed: int) -> tuple[float, float]:
    """The library's own cross-validation: all cases pooled, and the mean of each fold's own AUC."""
    settings = replace(SETTINGS, epochs=FEWER_EPOCHS.get(model, SETTINGS.epochs))
    found = cross_validate(cohort, folds_of(cohort, seed=seed), [model], settings, seed=seed)
    scores = found.case_scores(model, 0)
    within = [
        _auc(scores.truth[scores.fold == fold], scores.p[scores.fold == fold])
        for fold in np.unique(scores.fold)
    ]
    return _auc(scores.truth, scores.p), float(np.mean(within))


def split_by_slide(cohort: Cohort, seed: int) -> tuple[float, float]:
    """Every slide as a case of its own; judged by case all the same."""
    slides = [
        replace(case, name=bag.slide, bags=(bag,)) for case in cohort.cases for bag in case.bags
    ]
    split = cohort_of(slides)
    found = cross_validate(split, folds_of(split, seed=seed), ["abmil"], SETTINGS, seed=seed)
    table = found.table.assign(case=found.table["case"].str.rsplit("-s", n=1).str[0])
    return _auc_of_table(table, cohort.classes), np.nan  # a case is in several folds


def epoch_by_tested_fold(cohort: Cohort, seed: int) -> tuple[float, float]:
    """The tested fold chooses the epoch by its loss."""
    settings = replace(SETTINGS, patience=SETTINGS.epochs)
    parts = []
    names = [PREFIX + name for name in cohort.classes]
    for fold in folds_of(cohort, seed=seed):
        train, test = cohort.named(fold.train), cohort.named(fold.test)
        fitted = fit_model("abmil", train, test, cohort.classes, settings, seed=seed)
        rows = [
            [case.name, case.label, *probabilities(fitted, bag)]
            for case in test
            for bag in case.bags
        ]
        parts.append(pd.DataFrame(rows, columns=["case", "label", *names]))
    within = [_auc_of_table(part, cohort.classes) for part in parts]
    return _auc_of_table(pd.concat(parts), cohort.classes), float(np.mean(within))


def _auc_of_table(table: pd.DataFrame, classes: tuple[str, ...]) -> float:
    by_case = table.groupby("case")
    truth = by_case["label"].first().map({name: i for i, name in enumerate(classes)})
    return _auc(truth.to_numpy(), by_case[[PREFIX + name for name in classes]].mean().to_numpy())


def _auc(truth: np.ndarray, p: np.ndarray) -> float:
    auc = macro_auc(truth, p)
    assert auc is not None
    return auc


def of_the_table_by_scikit_learn(cohort: Cohort, seed: int) -> tuple[float, float]:
    """Nothing of this library but the folds: what model clinical should find."""
    x = np.array(
        [[float(c.other["age"]), c.other["site of tumour"] == "arm"] for c in cohort.cases]
    )
    names = np.array([case.name for case in cohort.cases])
    truth = np.array([cohort.classes.index(case.label) for case in cohort.cases])
    p, within = np.zeros((len(x), N_CLASSES)), []
    for fold in folds_of(cohort, seed=seed):
        test = np.isin(names, fold.test)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
        p[test] = model.fit(x[~test], truth[~test]).predict_proba(x[test])
        within.append(roc_auc_score(truth[test], p[test], multi_class="ovr"))
    return roc_auc_score(truth, p, multi_class="ovr"), float(np.mean(within))


CONTRASTS: dict[str, Measure] = {
    "LEAK epoch by tested fold": epoch_by_tested_fold,
    "LEAK folds of slides": split_by_slide,
    "scikit-learn on the table": of_the_table_by_scikit_learn,
}


def row(name: str, found: list[tuple[float, float]], cpu: float) -> list[str]:
    """One row of the table."""
    aucs, within = zip(*found, strict=True)
    mean, sd = float(np.mean(aucs)), float(np.std(aucs, ddof=1))
    verdict = "within" if abs(mean - 0.5) <= WITHIN else "OUTSIDE"
    return [
        name,
        str(len(aucs)),
        f"{mean:.3f}",
        f"{sd:.3f}",
        f"{sd / len(aucs) ** 0.5:.3f}",
        f"{np.mean(np.array(aucs) > HIGH):.0%}",
        verdict,
        f"{np.mean(within):.3f} ({np.std(within, ddof=1) / len(aucs) ** 0.5:.3f})",
        f"{cpu:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="number of the first cohort")
    parser.add_argument("--models", help="rows of the table; all if not given")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cohorts = range(asked.first, asked.first + asked.cohorts)
    known = CONTRASTS | {m: partial(honest, m) for m in MODELS if m != "majority"}
    measures = {name: known[name] for name in (asked.models.split(",") if asked.models else known)}
    header = [
        "model",
        "cohorts",
        "mean AUC",
        "SD",
        "standard error",
        f"above {HIGH}",
        "is",
        "within folds (standard error)",
        "CPU s",
    ]
    rows = []
    for name, measure in measures.items():
        started = time.process_time()
        found = [measure(made(seed), seed) for seed in cohorts]
        rows.append(row(name, found, time.process_time() - started))
        print(*rows[-1], flush=True)
    print_table(header, rows)
    name = f"null-cohorts-{asked.first}" if asked.first else "null-cohorts"
    save(name, header, rows, {**vars(SETTINGS), "cohorts": [cohorts.start, cohorts.stop]})


if __name__ == "__main__":
    main()
