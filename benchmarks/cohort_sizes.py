"""What judging costs over the size of a cohort: processor seconds and memory, drawn on two logarithmic axes.

    python -m benchmarks.cohort_sizes [--sizes 20,200,2000] [--models pooled-logistic,mean]

Bags are made without slides (``benchmarks.made_cohort``). Each command runs by itself, as users call it. The
slope is that of the line through all sizes: 1 is linear. Extraction over the number of tiles is measured by
``benchmarks.extraction --scaling``.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.made_cohort import write_made_cohort
from benchmarks.table import RESULTS, print_table, save

COMMANDS = {
    "crossval": "crossval cohort.csv store --models {models} --folds 3 --repeats 1 --seeds 1 --out run",
    "report": "report run",
    "audit": "audit run --out audited",
}
HEADER = ("command", "cases", "CPU s", "MiB", "CPU ms a further case", "slope")


class Cost(NamedTuple):
    """Of one command on so many cases."""

    cases: int
    cpu_s: float
    peak_mib: float


def main() -> None:
    """Measure, print, save and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="20,200,2000")
    parser.add_argument("--models", default="pooled-logistic,mean")
    parser.add_argument("--thumbnails", action="store_true", help="bags with pictures")
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    costs: dict[str, list[Cost]] = {name: [] for name in COMMANDS}
    for n_cases in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_made_cohort(Path(folder), n_cases, thumbnails=options.thumbnails)
            for name, command in COMMANDS.items():
                cost = measure(command.format(models=options.models), Path(folder), n_cases)
                costs[name].append(cost)
                print(name, *cost, flush=True)
    rows = [row for name, measured in costs.items() for row in describe(name, measured)]
    print_table(HEADER, rows)
    save("cohort-sizes", HEADER, rows, vars(options))
    draw(costs).savefig(RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-cohort-sizes.png", dpi=150)


def measure(command: str, folder: Path, n_cases: int) -> Cost:
    """Run one command to its end."""
    root = Path(__file__).parent.parent
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", *shlex.split(command)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mil {command}: {(folder / 'output.txt').read_text()}")
    return Cost(n_cases, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def slope(costs: Sequence[Cost]) -> float:
    """Of the logarithm of the seconds beyond those of the start, over that of the cases."""
    start = min(cost.cpu_s for cost in costs)
    further = [(cost.cases, cost.cpu_s - start) for cost in costs if cost.cpu_s > start]
    if len(further) < 2:
        return float("nan")
    cases, seconds = np.log(np.array(further)).T
    return float(np.polyfit(cases, seconds, 1)[0])


def describe(name: str, costs: Sequence[Cost]) -> list[list[str]]:
    """Rows of the table; what a case adds is counted from the next smaller size."""
    rows, steepness = [], f"{slope(costs):.2f}"
    for smaller, cost in zip([None, *costs[:-1]], costs, strict=True):
        added = (
            "-"
            if smaller is None
            else f"{1000 * (cost.cpu_s - smaller.cpu_s) / (cost.cases - smaller.cases):.1f}"
        )
        rows.append(
            [name, str(cost.cases), f"{cost.cpu_s:.1f}", f"{cost.peak_mib:.0f}", added, steepness]
        )
    return rows


def draw(costs: Mapping[str, Sequence[Cost]]) -> Figure:
    """Seconds and memory over cases."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, field, label in zip(
        figure.subplots(1, 2), ("cpu_s", "peak_mib"), ("CPU s", "peak MiB"), strict=True
    ):
        for name, measured in costs.items():
            line = f"{name}, slope {slope(measured):.2f}" if field == "cpu_s" else name
            cases = [cost.cases for cost in measured]
            axes.loglog(cases, [getattr(cost, field) for cost in measured], "o-", label=line)
        axes.set(xlabel="cases", ylabel=label)
        axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
