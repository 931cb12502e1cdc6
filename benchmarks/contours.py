"""How well a small U-Net of three slices contours soft-tissue sarcomas, beside what needs no network.

The images of the cohort are cropped round the tumour, so that its usual place in them, which no image is
needed for, is a strong baseline; the window of values and everything show what the task is without that.

    python -m benchmarks.contours NAME RUN...

NAME: of the result; RUN: folders of `mil volumes contour`.
"""

import argparse
import json
from pathlib import Path

from benchmarks.table import print_table, save
from mil.contouring.evaluation import COMPARED, DISTANCES, NAMES, SHARES
from mil.evaluation.display import format_estimate, format_p
from mil.evaluation.intervals import Estimate

HEADER = [
    "run", "contours", "Dice", "continuous Dice", "Hausdorff, mm", "95 % Hausdorff, mm", "undefined",
    "U-Net minus this, Dice", "p", "U-Net minus this, 95 % Hausdorff, mm", "p of it",
]  # fmt: skip


def estimate(figures, name):
    """A mean with its limits."""
    fields = ("value", "low", "high", "method", "note")
    return format_estimate(
        Estimate(**{key: figures[name][key] for key in fields}), 3 if name in SHARES else 1
    )


def rows_of(run):
    """One row per method of a run."""
    settings = json.loads((run / "run.json").read_text())["settings"]
    title = f"{settings['modality']}, {settings['pixel_mm']:g} mm, {settings['steps']} steps"
    evaluation = json.loads((run / "evaluation.json").read_text())
    rows = []
    for method, figures in evaluation["methods"].items():
        cells = [estimate(figures, name) for name in (*SHARES, *DISTANCES)]
        against = []
        for name in COMPARED:
            pairs = [p for p in evaluation["differences"][name] if p["second"] == method]
            digits = 3 if name in SHARES else 1
            shown = [f"{p['mean']:+.{digits}f} ({p['low']:+.{digits}f} to {p['high']:+.{digits}f})"
                     for p in pairs]  # fmt: skip
            against += [*shown, *(format_p(p["p"]) for p in pairs)] or ["", ""]
        undefined = str(len(figures["hausdorff95_mm"]["undefined"]))
        rows.append([title, NAMES[method], *cells, undefined, *against])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    rows = [row for run in options.runs for row in rows_of(run)]
    print_table(HEADER, rows)
    info = [json.loads((run / "run.json").read_text()) for run in options.runs]
    settings = {"runs": [one["settings"] for one in info], "volumes": len(info[0]["masks"])}
    for run in settings["runs"]:
        for name in ("table", "out", "cases"):
            run.pop(name, None)
    save(options.name, HEADER, rows, settings)


if __name__ == "__main__":
    main()
