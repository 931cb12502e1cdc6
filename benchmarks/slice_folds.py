"""What folds of slices would show where there is nothing to find, and folds of patients do not.

Labels are dealt at random to patients. Neighbouring slices of a patient are nearly equal, so that slices of a
test fold have twins among those that were trained on, and the twins have the label. The product has no folds
of slices: a table with a row per slice falls into folds of cases.

    python -m benchmarks.slice_folds STORE [--deals 10]

STORE: bags of `mil volumes extract`. Beside it, made slices of the size of a published study: 61 patients, 20
of them positive, 2,395 slices, 64 features, in which each patient has a signature of so many standard
deviations of its slices.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.table import print_table, save
from features.bags.bag import read_bag

FOLDS = 10
SIGNATURES = (0.0, 0.1, 0.25, 0.5, 1.0)
PATIENTS, POSITIVE, SLICES, FEATURES = 61, 20, 2395, 64
MODELS = {
    "nearest slice": lambda: KNeighborsClassifier(1),
    "logistic": lambda: LogisticRegression(max_iter=300),
}


def judge(x, patient, label, model, *, by_patient, seed):
    """(accuracy over slices, AUC over slices, AUC over patients by the mean of their slices)."""
    kind = StratifiedGroupKFold if by_patient else KFold
    folds = kind(FOLDS, shuffle=True, random_state=seed)
    p = np.zeros(len(x))
    for train, test in folds.split(x, label, patient):
        fitted = make_pipeline(StandardScaler(), MODELS[model]()).fit(x[train], label[train])
        p[test] = fitted.predict_proba(x[test])[:, list(fitted.classes_).index(1)]
    names = np.unique(patient)
    means = np.array([p[patient == name].mean() for name in names])
    truth = np.array([label[patient == name][0] for name in names])
    return ((p > 0.5) == label).mean(), roc_auc_score(label, p), roc_auc_score(truth, means)


def deal(patient, positive, seed):
    """A label for every slice: so many patients, drawn at random, are positive."""
    names = np.unique(patient)
    chosen = np.random.default_rng(seed).permutation(names)[:positive]
    return np.isin(patient, chosen).astype(int)


def made_slices(signature, seed):
    """(features, patient) of noise, and of what each patient is."""
    rng = np.random.default_rng(seed)
    patient = np.arange(SLICES) % PATIENTS
    return rng.normal(size=(SLICES, FEATURES)) + signature * rng.normal(size=(PATIENTS, FEATURES))[
        patient
    ], patient  # fmt: skip


def compare(title, slices_of, positive, deals):
    """Rows of the table: each model under both kinds of folds, mean and spread over deals."""
    rows = []
    for model in MODELS:
        for by_patient in (False, True):
            results = []
            for seed in range(deals):
                x, patient = slices_of(seed)
                label = deal(patient, positive, 1000 + seed)
                results.append(judge(x, patient, label, model, by_patient=by_patient, seed=seed))
            mean, spread = np.mean(results, axis=0), np.std(results, axis=0, ddof=1)
            cells = [f"{m:.3f} ({s:.3f})" for m, s in zip(mean, spread, strict=True)]
            rows.append([title, model, "patients" if by_patient else "slices", *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--deals", type=int, default=10)
    options = parser.parse_args()
    rows = []
    if options.store:
        bags = [read_bag(path) for path in sorted(options.store.glob("*.h5"))]
        x = np.concatenate([np.asarray(bag.features, np.float32) for bag in bags])
        patient = np.repeat([bag.slide for bag in bags], [len(bag) for bag in bags])
        title = f"{len(bags)} real patients, {len(x)} slices"
        rows += compare(title, lambda _seed: (x, patient), round(0.4 * len(bags)), options.deals)
    for signature in SIGNATURES:
        rows += compare(
            f"made, signature {signature:g}",
            lambda seed, s=signature: made_slices(s, seed),
            POSITIVE,
            max(2, options.deals // 2),
        )
    header = ("slices of", "model", "folds of", "accuracy, slices", "AUC, slices", "AUC, patients")
    print_table(header, rows)
    print(
        "Labels are dealt at random: .50 is right. Mean over deals, and their standard deviation."
    )
    save("slice-folds", header, rows, {"deals": options.deals, "folds": FOLDS})


if __name__ == "__main__":
    main()
