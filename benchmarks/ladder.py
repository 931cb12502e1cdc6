"""Which scale is fine enough for the demo? One model at 40x, 20x, 16x, 10x and 4x, in the same folds.

    python -m benchmarks.ladder --folder FOLDER

Draws the demo's cohort into FOLDER, unless it is there, and embeds it five times. Seconds are those of this
machine; a scale that was embedded by an earlier call keeps its own.
"""

import argparse
from pathlib import Path

import mil
from benchmarks.raw_slides import drawn
from benchmarks.table import print_table, save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="abmil")
    options = parser.parse_args()
    home = drawn(options.folder, 0)
    ladder = mil.compare_scales(
        home / "cohort.csv",
        options.model,
        slides=home / "slides",
        annotations=home / "annotations",
        out=home / "ladder",
        recipe=mil.Recipe(backbone="efficientnet-lite0", weights="pretrained"),
        split=mil.SplitSettings(folds="5"),
    )
    table = ladder.table()
    print_table(table.header, table.rows)
    print(*table.notes, sep="\n")
    settings = {"model": ladder.model, "cases": ladder.n_cases, "notes": list(table.notes)}
    save("ladder", table.header, table.rows, settings)


if __name__ == "__main__":
    main()
