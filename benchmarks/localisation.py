"""Do the maps of the demo cohort's models find the tiles that were planted in its slides?

    python -m benchmarks.localisation --folder FOLDER

Draws the demo cohort into FOLDER, embeds it with each frozen backbone, cross-validates an attention head,
and explains every slide by the model that has not seen its case. A tile is known to matter where at least
half of it lies in a key region; the AUC says how often a map puts such a tile above another of its slide.
What features do not hold no map can show, so the backbones differ.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

from benchmarks.table import print_table, save
from features.synthetic import CohortSpec, write_cohort

BACKBONES = {"efficientnet-lite0": "pretrained", "resnet18": "random"}
HEADER = (
    "backbone",
    "weights",
    "right",
    "method",
    "deletion",
    "random",
    "gain",
    "beats random",
    "key tiles",
)


def mil(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "cli", *map(str, arguments)], check=True)


def rows_of(backbone: str, folder: Path) -> list[tuple[str, ...]]:
    """The methods on one backbone's bags, the best locator first."""
    table, here = folder / "cohort.csv", folder / backbone
    slides = ("--slides", folder / "slides", "--annotations", folder / "annotations")
    mil(
        "extract",
        table,
        *slides,
        "--out",
        here / "store",
        "--backbone",
        backbone,
        "--weights",
        BACKBONES[backbone],
    )
    mil(
        "crossval", table, here / "store", "--models", "abmil", "--out", here / "run", "--overwrite"
    )
    mil(
        "explain",
        here / "run",
        "--all",
        "--regions",
        folder / "key_regions",
        "--out",
        here / "maps",
    )
    predicted = pd.read_csv(here / "run" / "predictions.csv")
    called = predicted[[name for name in predicted if name.startswith("p_")]].idxmax(axis=1)
    right = (called.str.removeprefix("p_") == predicted["label"]).sum()
    maps = pd.read_csv(here / "maps" / "faithfulness-abmil.csv").groupby("method")
    found = maps.agg("mean", numeric_only=True).sort_values("known_auc", ascending=False)
    return [
        (backbone, BACKBONES[backbone], f"{right}/{len(predicted)}", str(method), f"{row.deletion:.3f}",
         f"{row.deletion_random:.3f}", f"{row.gain:.3f}", f"{100 * row.better:.0f} %", f"{row.known_auc:.3f}")
        for method, row in found.iterrows()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    if not (folder / "cohort.csv").exists():
        write_cohort(folder, CohortSpec())
    rows = [row for backbone in BACKBONES for row in rows_of(backbone, folder)]
    print_table(HEADER, rows)
    save("localisation", HEADER, rows, {"mpp": 0.25, "model": "abmil", "slides": "demo"})


if __name__ == "__main__":
    main()
