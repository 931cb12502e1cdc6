"""Processor time and wall time of each command on a busy machine, over those with one thread and quiet.

    python -m benchmarks.busy --demo FOLDER [--rounds 2] [--old CHECKOUT]

FOLDER is a finished `mil demo`. Each command runs as users call it, OMP_NUM_THREADS unset: quiet, and beside
one endless loop per core; and with OMP_NUM_THREADS=1 beside those loops. The three take turns. With --old,
the same commands of another checkout of this project stand beside.
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.table import print_table, save

COMMANDS = {
    "evaluate": "evaluate run --out {out}",
    "compare": "compare run",
    "report": "report run",
    "explain, one slide": "explain run store/case-01-s1.h5 --out {out}",
    "explain --all": "explain run --all --out {out}",
    "audit": "audit run --out {out}",
    "concepts": "concepts run --out {out}",
    "predict, one bag": "predict run store/case-01-s1.h5 --out {out}.csv",
    "train": "train cohort.csv store --model abmil --seeds 1 --out {out}",
}


class Cost(NamedTuple):
    """Seconds of a command."""

    cpu_s: float
    wall_s: float


def spin() -> None:
    """Take a core."""
    while True:
        pass


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Every core taken by an endless loop."""
    loops = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()


def measure(command: str, checkout: Path, demo: Path, threads: str = "") -> Cost:
    """One call in a copy of the demo."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    env |= {"PYTHONPATH": str(checkout)} | ({"OMP_NUM_THREADS": threads} if threads else {})
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "demo"
        shutil.copytree(demo, study, symlinks=True)
        words = shlex.split(command.format(out="written"))
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=study,
            env=env,
            check=True,
            capture_output=True,
        )
        after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu_s, wall_s)


def compare(command: str, demo: Path, rounds: int, checkout: Path) -> list[str]:
    """A row: processor seconds of one thread, and the ratios of the other two."""
    quiet, busy, single = [], [], []
    for _ in range(rounds):
        quiet.append(measure(command, checkout, demo))
        with busy_cores():
            busy.append(measure(command, checkout, demo))
            single.append(measure(command, checkout, demo, "1"))
    one_cpu_s = median(cost.cpu_s for cost in single)
    quiet_wall_s = median(cost.wall_s for cost in quiet)
    return [
        f"{one_cpu_s:.1f}",
        f"{median(cost.cpu_s for cost in busy) / one_cpu_s:.2f}",
        f"{quiet_wall_s:.1f}",
        f"{median(cost.wall_s for cost in busy) / quiet_wall_s:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--old", type=Path)
    options = parser.parse_args()
    header = [
        "command",
        "one thread, CPU s",
        "busy / one thread, CPU",
        "quiet, s",
        "busy / quiet, s",
    ]
    checkouts = [Path(__file__).parent.parent, *([options.old] if options.old else [])]
    rows = []
    for name, command in COMMANDS.items():
        for checkout in checkouts:
            row = compare(command, options.demo.absolute(), options.rounds, checkout.absolute())
            rows.append([name if checkout == checkouts[0] else f"{name} (old)", *row])
            print(*rows[-1], flush=True)
    print_table(header, rows)
    save(
        "busy",
        header,
        rows,
        {"rounds": options.rounds, "old": str(options.old and options.old.name)},
    )


if __name__ == "__main__":
    main()
