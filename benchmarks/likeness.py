"""Slides that are unlike those a model learnt from: false alarms, and what is recognised.

A pool of made slides is embedded once. Two hundred cohorts of 16 cases and of 20 are drawn from it; the cases
left out are new slides like those. Noise has the shape of a bag; ``matched`` also the mean and the spread of
every feature. Further bags, as of real slides of other tissue by the same recipe, are given as files.

    python -m benchmarks.likeness POOL_STORE [--foreign STORE] [--cohorts 200]

POOL_STORE: bags of ``mil extract`` on the slides of ``mil demo --cases-per-class 25``, or of several demos.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.table import print_table, save
from features.bags.bag import read_bag
from mil.evaluation.intervals import wilson
from mil.likeness.reference import SlideReference

LEFT_OUT = 5


def noise_like(bags, rng, *, matched):
    """A bag of noise."""
    rows = np.concatenate([np.asarray(bag.features, np.float64) for bag in bags])
    shape = bags[0].features.shape
    mean, spread = (rows.mean(axis=0), rows.std(axis=0)) if matched else (0.0, rows.std())
    noise = rng.normal(mean, spread, shape).astype(np.float32)
    return replace(bags[0], slide="noise", features=noise, thumbnail=b"")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--foreign", type=Path, nargs="*", default=[])
    parser.add_argument("--cohorts", type=int, default=200)
    options = parser.parse_args()
    pool = [read_bag(path) for path in sorted(options.store.glob("*.h5"))]
    pool = [bag for bag in pool if not bag.slide.startswith("normal")]
    foreign = [read_bag(p) for folder in options.foreign for p in sorted(folder.glob("*.h5"))]
    header = (
        "cases",
        "new slide",
        "readings",
        "above 1x",
        "above 1.5x",
        "no answer",
        "largest or least",
    )
    rows = []
    for n in (16, 20):
        rng = np.random.default_rng(n)
        fresh, others = [], {}
        for _ in range(options.cohorts):
            order = rng.permutation(len(pool))
            known = [pool[i] for i in order[:n]]
            reference = SlideReference.of_bags(known, [bag.slide for bag in known])
            fresh += [reference.compare(pool[i]) for i in order[n : n + LEFT_OUT]]
            strangers = [noise_like(known, rng, matched=False)]
            named = {"noise": strangers[0], "matched noise": noise_like(known, rng, matched=True)}
            for name, bag in (named | {bag.slide: bag for bag in foreign}).items():
                others.setdefault(name, []).append(reference.compare(bag))
        for name, found in [("like the cohort", fresh), *others.items()]:
            ratios = np.array([one.ratio for one in found])
            silent = np.mean([bool(one.abstains or one.unfit) for one in found])
            known_ratios = ratios[np.isfinite(ratios)]
            odd = int((known_ratios > 1).sum())
            limits = wilson(odd, len(found))
            extreme = (
                known_ratios.max()
                if name == "like the cohort"
                else np.min(known_ratios, initial=99)
            )
            rows.append(
                (
                    str(n),
                    name,
                    str(len(found)),
                    f"{odd / len(found):.3f} ({limits.low:.3f} to {limits.high:.3f})",
                    f"{(known_ratios > 1.5).mean():.3f}" if len(known_ratios) else "unfit",
                    f"{silent:.3f}",
                    f"{extreme:.2f}" if len(known_ratios) else "unfit",
                )
            )
    print_table(header, rows)
    save("likeness", header, rows, {"pool": len(pool), "cohorts": options.cohorts})


if __name__ == "__main__":
    main()
