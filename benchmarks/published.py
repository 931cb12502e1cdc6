"""Classic MIL sets with their published 5 x 10 folds, through the library's own training code.

    python -m benchmarks.published --data FOLDER [--models abmil,gated-abmil] [--sets musk1,elephant]

FOLDER holds <set>.npz with X (instances, D), bag, y (bags,) and train_mask (5, 10, bags).
Published accuracy, attention and gated attention: Ilse, Tomczak, Welling, ICML 2018, Table 1, quoted
from memory; its +- is a standard error.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.table import print_table, save
from features.bags.bag import Bag
from mil.data.case import Case
from mil.evaluation.intervals import wilson
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.made import probabilities

PUBLISHED = {
    ("musk1", "abmil"): (0.892, 0.040),
    ("musk1", "gated-abmil"): (0.900, 0.050),
    ("elephant", "abmil"): (0.868, 0.022),
    ("elephant", "gated-abmil"): (0.857, 0.027),
    ("tiger", "abmil"): (0.839, 0.022),
    ("tiger", "gated-abmil"): (0.845, 0.018),
}
# One recipe for all sets and heads, chosen on repeats 0 and 1 with the plain attention head.
SETTINGS = FitSettings(
    seeds=1, epochs=20, width=64, dropout=0.5, learning_rate=1e-3, weight_decay=5e-2, batch_bags=1
)
CLASSES = ("negative", "positive")


def load(path: Path) -> tuple[list[Case], np.ndarray]:
    """Each bag as a case of its own, and the training masks (5, 10, bags)."""
    data = np.load(path)
    cases = []
    for number, label in enumerate(data["y"]):
        tiles = data["X"][data["bag"] == number].astype(np.float32)
        bag = Bag(
            slide=f"bag-{number}", features=tiles, coords_l0=np.zeros((len(tiles), 2), np.int64),
            coverage=np.ones(len(tiles), np.float32), side_l0=(1.0, 1.0), size_l0=(1, 1), mpp_l0=(1.0, 1.0),
            mpp_source="given", tile_px=1, target_mpp=1.0, recipe={"set": path.stem},
        )  # fmt: skip
        cases.append(Case(name=f"bag-{number}", label=CLASSES[int(label > 0)], bags=(bag,)))
    return cases, data["train_mask"].astype(bool)


def fold_accuracy(path: Path, model: str, repeat: int, fold: int) -> tuple[int, int]:
    """(right, tested) of one published fold."""
    torch.set_num_threads(1)
    cases, masks = load(path)
    mask = masks[repeat, fold]
    train = [case for case, used in zip(cases, mask, strict=True) if used]
    test = [case for case, used in zip(cases, mask, strict=True) if not used]
    fitted = fit_model(model, train, (), CLASSES, SETTINGS, seed=100 * repeat + fold)
    right = sum(
        CLASSES[int(np.argmax(probabilities(fitted, case.bags[0])))] == case.label for case in test
    )
    return right, len(test)


def measure(data: Path, name: str, model: str) -> list[str]:
    """One row of the table: mean accuracy over 50 folds beside the published one."""
    path = data / f"{name}.npz"
    started = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        jobs = [
            pool.submit(fold_accuracy, path, model, r, f) for r, f in product(range(5), range(10))
        ]
        counts = np.array([job.result() for job in jobs])
    accuracy = counts[:, 0] / counts[:, 1]
    per_repeat = accuracy.reshape(5, 10).mean(axis=1)
    right = counts[:, 0].sum() / 5
    interval = wilson(right, int(counts[:, 1].sum() / 5))
    known, error = PUBLISHED[name, model]
    inside = abs(accuracy.mean() - known) <= error
    return [
        name,
        model,
        f"{accuracy.mean():.3f}",
        f"{per_repeat.std(ddof=1):.3f}",
        f"{interval.low:.3f} to {interval.high:.3f}",
        f"{known:.3f} +- {error:.3f}",
        "inside" if inside else "OUTSIDE",
        f"{time.perf_counter() - started:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default="abmil,gated-abmil")
    parser.add_argument("--sets", default="musk1,elephant,tiger")
    asked = parser.parse_args()
    header = [
        "set",
        "head",
        "accuracy",
        "SD of repeats",
        "95 % over bags",
        "published",
        "is",
        "seconds",
    ]
    rows = [
        measure(asked.data, name, model)
        for name in asked.sets.split(",")
        for model in asked.models.split(",")
    ]
    print_table(header, rows)
    save("published", header, rows, vars(SETTINGS))


if __name__ == "__main__":
    main()
