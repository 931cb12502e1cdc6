"""How the defaults of training are chosen: one setting at a time, on small cohorts of several kinds.

    python -m benchmarks.defaults --data FOLDER --demo FOLDER [--rounds 3]

FOLDER of --data holds the published sets (see ``benchmarks.published``), that of --demo a run of `mil demo`.
Everything learns from 10 to 40 bags. A round is one draw of every data set; each change of a setting is
fitted to the same bags with the same seed as the defaults, with plain and with gated attention, whose mean
counts. What is compared is the AUC on bags that did not train; the log loss stands beside it.

The rule, stated before any figure was seen: a default changes only where the alternative's AUC is higher on
the mean over data sets by more than two standard errors, or where it takes less than 0.8 of the CPU time and
two standard errors below its mean difference are still above -0.01.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import digits, published
from benchmarks.table import print_table, save
from mil.data.case import Case
from mil.data.cohort import assemble
from mil.data.table import read_table
from mil.evaluation.classification.metrics import macro_auc
from mil.heads.head import Head
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.made import folds_of, planted_cohort, probabilities

BASE = FitSettings(precision="fp32", seeds=1, train_tiles=512)  # the defaults of the time
HEADS = ("abmil", "gated-abmil")
PER_FEATURE = "one spread per feature"
CHANGES: dict[str, dict[str, Any]] = {
    PER_FEATURE: {},
    "width 64": {"width": 64},
    "width 256": {"width": 256},
    "dropout 0": {"dropout": 0.0},
    "dropout 0.5": {"dropout": 0.5},
    "learning_rate 3e-4": {"learning_rate": 3e-4},
    "learning_rate 3e-3": {"learning_rate": 3e-3},
    "weight_decay 1e-4": {"weight_decay": 1e-4},
    "weight_decay 1e-1": {"weight_decay": 1e-1},
    "epochs 30": {"epochs": 30},
    "epochs 120": {"epochs": 120},
    "seeds 3": {"seeds": 3},
    "seeds 5": {"seeds": 5},
    "label_smoothing 0.1": {"label_smoothing": 0.1},
    "precision bf16": {"precision": "bf16"},
}
# Only of bags longer than that; all others are the same fit again.
OF_LONG_BAGS: dict[str, dict[str, Any]] = {
    "train_tiles 64": {"train_tiles": 64},
    "train_tiles 256": {"train_tiles": 256},
    "train_tiles 0": {"train_tiles": 0},
}
PLANTED_SHIFT = 2.5  # at which the AUC is about 0.8

Part = tuple[Sequence[Case], Sequence[Case]]  # to train with, to test with
Maker = Callable[[int], list[Part]]  # the parts of a round, whose tested cases are judged together


class Found(NamedTuple):
    """Of one data set in one round, as a mean over the heads."""

    auc: float
    log_loss: float
    cpu: float


def subtype_digits(number: int) -> list[Part]:
    train, test = digits.made("subtype", 30, 100 + number)
    return [(train.cases, test.cases)]


def long_digits(number: int) -> list[Part]:
    """Thirty bags of a thousand digits, about ten of them key tiles."""
    rng = np.random.default_rng([number, 2])
    train, test = (
        digits.subtype_bags(source, count, rng, n_tiles=1000, share=0.01)
        for source, count in zip(digits.images(), (30, 90), strict=True)
    )
    return [(train.cases, test.cases)]


def planted(number: int) -> list[Part]:
    """Ten cases of each class to train with, twenty to test with."""
    cohort, _ = planted_cohort(3, 30, dim=128, shift=PLANTED_SHIFT, seed=number)
    by_class = [[case for case in cohort.cases if case.label == name] for name in cohort.classes]
    train = [case for cases in by_class for case in cases[:10]]
    return [(train, [case for cases in by_class for case in cases[10:]])]


def published_set(path: Path) -> Maker:
    """Two published test parts to train with, 18 or 40 bags, and all other bags to test with."""
    cases, masks = published.load(path)

    def parts(number: int) -> list[Part]:
        repeat, first = divmod(2 * number, 10)
        trained = ~masks[repeat, first] | ~masks[repeat, first + 1]
        split = [[case for case, t in zip(cases, trained, strict=True) if t == w] for w in (1, 0)]
        return [(split[0], split[1])]

    return parts


def demo(folder: Path) -> Maker:
    """Two folds of the made slides of `mil demo`."""
    cohort = assemble(read_table(folder / "cohort.csv"), folder / "store")

    def parts(number: int) -> list[Part]:
        folds = folds_of(cohort, folds="2", seed=number)
        return [(cohort.named(fold.train), cohort.named(fold.test)) for fold in folds]

    return parts


@contextmanager
def spread_per_feature() -> Iterator[None]:
    """Scale every feature by its own spread, or by a hundredth of that of all where it hardly varies."""
    as_it_is = Head.prepare

    def prepare(self: Head, tiles: Tensor, class_counts: Tensor) -> None:
        as_it_is(self, tiles, class_counts)
        self.scale.copy_(tiles.std(dim=0, correction=0).maximum(0.01 * self.scale))

    Head.prepare = prepare  # type: ignore[method-assign]
    try:
        yield
    finally:
        Head.prepare = as_it_is  # type: ignore[method-assign]


def measure(parts: Sequence[Part], settings: FitSettings, seed: int) -> Found:
    """Fit both heads to each part, and judge all tested cases together."""
    found = []
    for model in HEADS:
        truth, p, cpu = [], [], 0.0
        for train, test in parts:
            classes = tuple(sorted({case.label for case in train}))
            started = time.process_time()
            fitted = fit_model(model, train, (), classes, settings, seed=seed)
            cpu += time.process_time() - started
            truth += [classes.index(case.label) for case in test]
            p += [probabilities(fitted, case.bags[0]) for case in test]
        found.append(Found(*judge(np.array(truth), np.array(p)), cpu))
    return Found(*(float(np.mean(values)) for values in zip(*found, strict=True)))


def judge(truth: NDArray[np.int64], p: NDArray[np.float64]) -> tuple[float, float]:
    """(macro AUC, mean log loss)."""
    auc = macro_auc(truth, p)
    assert auc is not None
    return auc, float(-np.log(p[np.arange(len(truth)), truth].clip(1e-7)).mean())


def measured(makers: dict[str, Maker], number: int) -> dict[tuple[str, str], Found]:
    """One round: of every data set, the defaults ("") and each change."""
    found = {}
    for name, maker in makers.items():
        parts = maker(number)
        longest = max(len(bag) for train, _ in parts for case in train for bag in case.bags)
        asked = {"": {}} | (OF_LONG_BAGS if longest > BASE.train_tiles else CHANGES)
        for change, values in asked.items():
            with spread_per_feature() if change == PER_FEATURE else nullcontext():
                found[name, change] = measure(parts, replace(BASE, **values), number)
            # A round takes minutes: what is known is told at once, should the run be ended.
            print(number, name, change or "as it is", *found[name, change], flush=True)
    return found


def table(
    makers: dict[str, Maker], rounds: Sequence[dict[tuple[str, str], Found]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: AUC of the defaults, then each change's difference with its standard error."""
    header = ["setting", *makers, "mean", "log loss", "CPU", "by the rule"]
    base = [f"{np.mean([r[name, ''].auc for r in rounds]):.3f}" for name in makers]
    rows = [["as it is", *base, "", "", "1.00", ""]]
    for change in [*CHANGES, *OF_LONG_BAGS]:
        sets = [name for name in makers if (name, change) in rounds[0]]
        own = np.array([[r[name, change] for name in sets] for r in rounds])  # (rounds, sets, 3)
        least = np.array([[r[name, ""] for name in sets] for r in rounds])
        difference = (own - least)[:, :, :2].mean(axis=0)  # (sets, 2)
        error = (own - least)[:, :, :2].std(axis=0, ddof=1) / len(rounds) ** 0.5
        mean = difference.mean(axis=0)
        of_mean = np.sqrt(np.square(error).sum(axis=0)) / len(sets)
        cpu = own[:, :, 2].sum() / least[:, :, 2].sum()
        told = dict(zip(sets, map(_told, difference[:, 0], error[:, 0]), strict=True))
        rows.append(
            [
                change,
                *(told.get(name, "the same") for name in makers),
                _told(mean[0], of_mean[0]),
                _told(mean[1], of_mean[1]),
                f"{cpu:.2f}",
                verdict(mean[0], of_mean[0], cpu),
            ]
        )
    return header, rows


def _told(difference: float, error: float) -> str:
    return f"{difference:+.3f} ({error:.3f})"


def verdict(mean: float, error: float, cpu: float) -> str:
    """What the rule says of a change."""
    if mean > 2 * error:
        return "better"
    return "cheaper" if cpu < 0.8 and mean - 2 * error > -0.01 else "keep"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    makers = {
        "subtype-digits": subtype_digits,
        "planted": planted,
        **{
            name: published_set(asked.data / f"{name}.npz")
            for name in ("musk1", "elephant", "tiger")
        },
        "demo": demo(asked.demo),
        "long-digits": long_digits,
    }
    measure(subtype_digits(0), replace(BASE, epochs=1), 0)  # the first fit starts up torch
    rounds = []
    for number in range(asked.rounds):
        rounds.append(measured(makers, number))
        if len(rounds) > 1:  # kept after each round, since one takes minutes
            header, rows = table(makers, rounds)
            print_table(header, rows)
            save("defaults", header, rows, {**vars(BASE), "rounds": len(rounds)})


if __name__ == "__main__":
    main()
