"""Which explanation is the most faithful, on bags of digits whose key tiles are known?

    python -m benchmarks.explanations [--seeds 8] [--bags 90]

The subtype bags of ``benchmarks.digits`` (forty digits, a tenth of them 3, 5 or 8, which is the class), an
attention head from 30 and from 60 training bags. For each method: the area under the deletion curve of
the called class's probability (low is faithful), the gain (insertion less deletion), how often a map beats
random orders, and the AUC of its scores for the key tiles. EXPECTED are areas and AUCs measured with a
plain loop on the same protocol.

The last rows are of a model whose training labels were shuffled: its maps are faithful to what it has made
up; whether they find the key tiles is another target.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch

from benchmarks.digits import SETTINGS, Bags, made
from benchmarks.table import print_table, save
from mil.explanation.faithfulness import judge, localise, random_curves
from mil.explanation.methods import METHODS
from mil.explanation.target import explanation_target
from mil.learning.fitted import FittedModel
from mil.learning.training import fit_model

EXPECTED = {  # deletion area and tile AUC at 30 and 60 training bags
    "single-tile": ((0.329, 0.843), (0.363, 0.841)),
    "evidence": ((0.345, 0.837), (0.393, 0.830)),
    "attention": ((0.395, 0.809), (0.396, 0.798)),
    "integrated-gradients": ((0.458, 0.757), (0.484, 0.755)),
    "gradient": ((0.501, 0.741), (0.582, 0.719)),
    "ablation": ((0.674, 0.577), (0.814, 0.494)),
}
RANDOM = (0.780, 0.808)
HEADER = ["model", "method", "deletion (SD)", "expected", "random", "gain", "beats random",
          "tile AUC (SD)", "expected of tiles"]  # fmt: skip


def fitted_on(size: int, seed: int, *, shuffled: bool) -> tuple[FittedModel, Bags]:
    """An attention model, and bags it has not seen; shuffled is a model of nothing."""
    train, test = made("subtype", size, seed)
    cases = train.cases
    if shuffled:
        labels = np.random.default_rng(seed).permutation([case.label for case in cases])
        cases = [replace(c, label=str(label)) for c, label in zip(cases, labels, strict=True)]
    classes = tuple(sorted({case.label for case in cases}))
    return fit_model("abmil", cases, (), classes, SETTINGS, seed=seed), test


def measure(size: int, seed: int, bags: int, *, shuffled: bool) -> dict[str, list[float]]:
    """For each method the mean over bags of deletion, random deletion, gain, beaten and AUC."""
    fitted, test = fitted_on(size, seed, shuffled=shuffled)
    found: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    for case, keys in list(zip(test.cases, test.keys, strict=True))[:bags]:
        target = explanation_target(fitted, case.bags[0])
        random = random_curves(target)
        for name, method in METHODS.items():
            scores = method(target)
            judged, located = judge(target, scores, random), localise(scores, keys)
            found[name].append(
                [
                    judged.curves.deletion_area[0], judged.random.deletion_area.mean(),
                    judged.curves.gain[0], judged.better_than_random, located.auc,
                ]
            )  # fmt: skip
    return {name: np.mean(rows, axis=0).tolist() for name, rows in found.items()}


def rows_of(size: int, seeds: int, bags: int, *, shuffled: bool) -> list[list[str]]:
    """The methods of one size, the most faithful by deletion first."""
    found = [measure(size, seed, bags, shuffled=shuffled) for seed in range(seeds)]
    over = {name: np.array([each[name] for each in found]) for name in METHODS}
    model = f"abmil, {size} bags" + (", labels shuffled" if shuffled else "")
    rows = []
    for name, values in sorted(over.items(), key=lambda item: item[1][:, 0].mean()):
        mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
        known = None if shuffled or name not in EXPECTED else EXPECTED[name][(30, 60).index(size)]
        rows.append(
            [
                model, name, f"{mean[0]:.3f} ({sd[0]:.3f})", f"{known[0]:.3f}" if known else "-",
                f"{mean[1]:.3f}", f"{mean[2]:.3f}", f"{100 * mean[3]:.0f} %",
                f"{mean[4]:.3f} ({sd[4]:.3f})", f"{known[1]:.3f}" if known else "-",
            ]
        )  # fmt: skip
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--bags", type=int, default=90, help="test bags of each")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size, shuffled in ((30, False), (60, False), (30, True)):
        rows += rows_of(size, asked.seeds, asked.bags, shuffled=shuffled)
    print_table(HEADER, rows)
    save("explanations", HEADER, rows, {**vars(SETTINGS), **vars(asked), "random": RANDOM})


if __name__ == "__main__":
    main()
