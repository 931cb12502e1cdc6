"""Real tiles through the folder source: does a block hold viable tumour? One patient left out at a time.

    python -m benchmarks.osteosarcoma --tiles FOLDER [--weights FILE]

FOLDER holds tiles named <class>___<block>-<x>-<y>_<n>.jpg (TCIA Osteosarcoma-Tumor-Assessment, CC BY 3.0,
doi 10.7937/tcia.2019.bvhjhdas). A block is a bag; its patient is its site, so that folds leave patients out.
Blocks of one patient are not independent: the intervals, which count blocks, are too narrow here.
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from features.tiles.folders import group_tiles


def write_table(tiles: Path, path: Path) -> None:
    """One row per block: viable if one of its tiles is, and the patient as site."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "slide", "label", "site"])
        for block, files in group_tiles(tiles).items():
            viable = any(tile.name.startswith("Viable___") for tile in files)
            patient = re.sub(r"-?[A-Z]\d+$", "", block)
            writer.writerow([block, block, "viable" if viable else "not viable", patient])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--weights", default="random")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(asked.tiles, folder / "cohort.csv")
        for arguments in (
            ["extract", folder / "cohort.csv", "--slides", asked.tiles, "--slide-mpp", "0.5", "--out",
             folder / "store", "--backbone", asked.backbone, "--weights", asked.weights],
            ["crossval", folder / "cohort.csv", folder / "store", "--folds", "site", "--out",
             folder / "run", "--models", "majority,tile-vote,mean,abmil"],
        ):  # fmt: skip
            subprocess.run([sys.executable, "-m", "cli", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
