"""Models that learn from 1 to 16 cases per class, on bags of real tiles.

    python -m benchmarks.few_cases --data kather2016-tile-features.mat --out FOLDER [--raw]
    python -m benchmarks.few_cases --demo FOLDER [--store FOLDER] --out FOLDER

The tiles are 5,000 of eight tissues in colorectal slides, 43 texture features each (Kather et al. 2016,
doi:10.5281/zenodo.53169). A case is 20 tiles, each used once: 4 of the tissue that is its class, and 16 of
tissues that all classes share. The features have units of their own, so each is divided by its spread over
all tiles of the file, whatever their tissue, unless they are to stay --raw. With --demo the cases are those
of `mil demo` instead, embedded in a store. FOLDER keeps the bags and every draw, so an interrupted run goes
on.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mil
from benchmarks.table import print_table, save
from features.bags.bag import Bag, write_bag

KEY = {"tumour": 0, "lymphocytes": 3, "debris": 4, "mucosa": 5}  # number of the tissue in the file
SHARED = (1, 2, 6, 7)  # stroma, complex stroma, fat, background
CASES = 24  # per class
KEY_TILES, SHARED_TILES = 4, 16  # of a case
MODELS = ("simpleshot", "knn", "pooled-logistic", "abmil")


def make_cases(data: Path, *, raw: bool = False) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Name, class and tiles (20, 43) of each case; ``raw`` keeps the units of the features."""
    from scipy.io import loadmat

    content = loadmat(data)
    features = content["source_array"].T  # (5000, 43)
    if not raw:
        features = (features - features.mean(axis=0)) / features.std(axis=0)
    tissue = content["target_array"].argmax(axis=0)
    rng = np.random.default_rng(0)
    shared = iter(rng.permutation(np.flatnonzero(np.isin(tissue, SHARED))))
    for label, number in KEY.items():
        own = iter(rng.permutation(np.flatnonzero(tissue == number)))
        for i in range(CASES):
            chosen = [next(own) for _ in range(KEY_TILES)]
            chosen += [next(shared) for _ in range(SHARED_TILES)]
            yield f"{label}-{i:02d}", label, features[rng.permutation(chosen)].astype(np.float32)


def write_cases(data: Path, folder: Path, *, raw: bool = False) -> None:
    """A bag of each case, and the table."""
    rows = [("case", "slide", "label")]
    for name, label, features in make_cases(data, raw=raw):
        write_bag(folder / "store" / f"{name}.h5", _bag(name, features))
        rows.append((name, name, label))
    with (folder / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _bag(name: str, features: np.ndarray) -> Bag:
    n = len(features)
    return Bag(
        slide=name, features=features, coords_l0=np.stack([150 * np.arange(n), np.zeros(n, int)], axis=1),
        coverage=np.ones(n, np.float32), side_l0=(150.0, 150.0), size_l0=(150 * n, 150),
        mpp_l0=(0.495, 0.495), mpp_source="given", tile_px=150, target_mpp=0.495,
        recipe={"backbone": "texture", "weights": "random", "mpp": 0.495, "tile": 150},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    if not options.demo and not (options.out / "cohort.csv").exists():
        write_cases(options.data, options.out, raw=options.raw)
    folder = options.demo or options.out
    cohort = mil.load_cohort(folder / "cohort.csv", options.store or folder / "store")
    settings = mil.FitSettings(seeds=options.seeds)
    curve = mil.learning_curve(
        cohort, MODELS, out=options.out / "curve", draws=options.draws, settings=settings,
        workers=options.workers, notify=print,
    )  # fmt: skip
    table = curve.table()
    print(table.title)
    print_table(table.header, table.rows)
    print(*table.notes, sep="\n")
    name = "few-cases" + ("-demo" if options.demo else "-raw" if options.raw else "")
    save(name, table.header, table.rows, asdict(settings) | {"draws": options.draws})


if __name__ == "__main__":
    main()
