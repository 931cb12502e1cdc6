"""Processor seconds of cross-validations, beside those of another checkout of this project.

    python -m benchmarks.fits --old CHECKOUT [--demo FOLDER] [--rounds 2] [--only solved,demo]

FOLDER is a finished `mil demo`. Solved models are cross-validated on made bags that lie in files, in one
process each, without its imports; trained models by the command, as users call it. The two checkouts take
turns.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.table import print_table, save

CASES, TILES, DIM = 300, 2000, 1024
SOLVED = ("pooled-logistic", "pooled-svm", "quantile-logistic")
TRAINED = ("majority", "tile-vote", "mean", "max", "abmil", "gated-abmil")
HERE = Path(__file__).parent.parent


def make_bags(folder: Path) -> None:
    """Tiles at random; those of the second class are moved in one direction."""
    rng = np.random.default_rng(0)
    direction = 0.02 * rng.standard_normal(DIM, dtype=np.float32)
    for number in range(CASES):
        tiles = rng.standard_normal((TILES, DIM), dtype=np.float32) + number % 2 * direction
        np.save(folder / f"{number:03d}.npy", tiles.astype(np.float16))


def cross_validate_here(model: str, folder: Path) -> dict[str, Any]:
    """Processor seconds of five folds, and the predictions; of this checkout or of an earlier one."""
    try:
        from mil.data.case import Case
        from mil.learning.crossval import cross_validate
    except ImportError:  # an earlier one
        from mil.cohort import Case
        from mil.crossval import cross_validate
    from mil.settings import FitSettings
    from tests.mil.made import cohort_of, folds_of, made_bag

    cases = []
    for number, path in enumerate(sorted(folder.glob("*.npy"))):
        bag = made_bag(path.stem, np.load(path, mmap_mode="r"))
        cases.append(Case(name=path.stem, label="ab"[number % 2], bags=(bag,)))
    cohort = cohort_of(cases)
    folds, settings = folds_of(cohort), FitSettings()
    cross_validate(cohort, folds[:1], ["majority"], settings, seed=0)  # imports
    started = time.process_time()
    predictions = cross_validate(cohort, folds, [model], settings, seed=0)
    cpu_s = time.process_time() - started
    return {"cpu_s": cpu_s, "p": [float(p) for p in predictions.table["p_a"]]}


def solved(model: str, checkout: Path, folder: Path) -> dict[str, Any]:
    """``cross_validate_here`` with the modules of a checkout."""
    words = [sys.executable, "-P", __file__, "--one", model, "--bags", str(folder)]
    env = os.environ | {"PYTHONPATH": f"{checkout}", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(words, env=env, cwd=checkout, check=True, stdout=subprocess.PIPE)
    return json.loads(finished.stdout)


def trained(model: str, checkout: Path, demo: Path) -> dict[str, Any]:
    """`mil crossval` of the demo's bags."""
    env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as out:
        words = [
            "crossval",
            "cohort.csv",
            "store",
            "--models",
            model,
            "--folds",
            "5",
            "--repeats",
            "3",
        ]
        words += ["--workers", "1", "--out", out]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=demo,
            env=env,
            check=True,
            capture_output=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def compare(name: str, results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A row: seconds of both, their ratio in each round, and how far apart predictions lie."""
    old, new = results["old"], results["new"]
    ratios = [a["cpu_s"] / b["cpu_s"] for a, b in zip(old, new, strict=True)]
    apart = np.abs(np.subtract(old[0].get("p", 0), new[0].get("p", 0))).max()
    return [
        name,
        f"{median(each['cpu_s'] for each in old):.1f}",
        f"{median(each['cpu_s'] for each in new):.1f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        f"{apart:.1e}" if "p" in new[0] else "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--old", type=Path)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="solved,trained")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--bags", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(cross_validate_here(options.one, options.bags)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = []
        if "solved" in options.only:
            make_bags(folder)
            work += [(f"{model}, {CASES} made bags", solved, model, folder) for model in SOLVED]
        if "trained" in options.only:
            work += [(f"{model}, demo", trained, model, options.demo) for model in TRAINED]
        for label, run, model, data in work:
            results: dict[str, list[dict[str, Any]]] = {"old": [], "new": []}
            for _ in range(options.rounds):
                results["old"].append(run(model, options.old, data))
                results["new"].append(run(model, HERE, data))
            rows.append(compare(label, results))
            print(rows[-1], flush=True)
    header = [
        "cross-validation",
        "before, CPU s",
        "now, CPU s",
        "times faster",
        "predictions apart",
    ]
    print_table(header, rows)
    save(f"fits-{options.only.replace(',', '-')}", header, rows, {"load": os.getloadavg()})


if __name__ == "__main__":
    main()
