"""The figures of contours over patients: means with intervals, paired differences, what is undefined."""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from features.files.atomic import atomic_path
from mil.contouring.scores import METHODS, PLACE, UNET, ContourScores
from mil.evaluation.display import Table, format_count, format_estimate, format_number, format_p
from mil.evaluation.intervals import Estimate
from mil.segmentation.evaluation import Paired, mean_interval, paired_difference

SHARES = ("dice", "continuous_dice")
DISTANCES = ("hausdorff_mm", "hausdorff95_mm")
COMPARED = ("dice", "hausdorff95_mm")
NAMES = {
    "unet": "U-Net of three slices",
    "window": "best window of values",
    "place": "usual place alone",
    "everything": "everything",
}
TITLES = {"dice": "Dice", "hausdorff95_mm": "95 % Hausdorff distance, mm"}


@dataclass(frozen=True)
class ContourEvaluation:
    """The scores of all volumes by all methods.

    Attributes:
        scores: one per volume and method.
    """

    scores: Sequence[ContourScores]

    @property
    def cases(self) -> list[str]:
        """The patients, each once."""
        return sorted({one.case for one in self.scores})

    @property
    def methods(self) -> list[str]:
        """In the order of the table."""
        present = {one.method for one in self.scores}
        return [method for method in METHODS if method in present]

    def by_case(self, method: str, name: str) -> dict[str, float]:
        """A number of every patient, the mean over volumes; a patient without one is left out."""
        values: dict[str, list[float]] = {}
        for one in self.scores:
            if one.method == method and not math.isnan(value := getattr(one, name)):
                values.setdefault(one.case, []).append(value)
        return {case: float(np.mean(numbers)) for case, numbers in values.items()}

    def undefined(self, method: str, name: str) -> list[str]:
        """The volumes without this number."""
        return [
            one.volume
            for one in self.scores
            if one.method == method and math.isnan(getattr(one, name))
        ]

    def estimate(self, method: str, name: str) -> Estimate:
        """The mean over patients, with 95 % limits."""
        values = np.array(list(self.by_case(method, name).values()))
        if len(values) < 2:
            value = float(values[0]) if len(values) else None
            return Estimate(value, None, None, "none", "fewer than two cases")
        return mean_interval(values) if name in SHARES else mean_distance(values)

    def comparisons(self, name: str) -> list[Paired]:
        """The network against all others, patient by patient."""
        pairs = (
            paired_difference(
                UNET,
                other,
                self.by_case(UNET, name),
                self.by_case(other, name),
                lower_is_better=name in DISTANCES,
            )
            for other in METHODS[1:]
        )
        return [pair for pair in pairs if pair]

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "methods": {
                method: {
                    name: {
                        **asdict(self.estimate(method, name)),
                        "cases": len(self.by_case(method, name)),
                        "undefined": self.undefined(method, name),
                    }
                    for name in (*SHARES, *DISTANCES)
                }
                for method in self.methods
            },
            "differences": {
                name: [asdict(pair) for pair in self.comparisons(name)] for name in COMPARED
            },
        }


def mean_distance(values: NDArray[np.float64]) -> Estimate:
    """The mean of distances with 95 % limits: Student's t on the log scale, by the delta method.

    Args:
        values: (n,) at least 0, n >= 2; where all are 0 there are no limits.
    """
    mean = float(values.mean())
    if mean == 0:
        return Estimate(mean, None, None, "none", "all are equal")
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    factor = math.exp(float(student.isf(0.025, len(values) - 1)) * error / mean)
    return Estimate(mean, mean / factor, mean * factor, "t, log scale")


def write_scores(path: Path, scores: Sequence[ContourScores]) -> None:
    """Write one row per volume and method as CSV; what is undefined is left empty."""
    names = [one.name for one in fields(ContourScores)]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for one in scores:
            row = asdict(one)
            writer.writerow(
                ["" if isinstance(v := row[name], float) and math.isnan(v) else v for name in names]
            )


def evaluation_tables(evaluation: ContourEvaluation) -> list[Table]:
    """The figures for the terminal: one row per method, then the paired differences."""
    header = ["contours", "Dice (95 %)", "continuous Dice", "Hausdorff, mm", "95 % Hausdorff, mm (95 %)",
              "undefined"]  # fmt: skip
    rows = [_row(evaluation, method) for method in evaluation.methods]
    tables = [Table("", header, rows, _notes(evaluation))]
    for name in COMPARED:
        pairs = evaluation.comparisons(name)
        digits = 3 if name in SHARES else 1
        lines = [
            [
                f"{NAMES[pair.first]} minus {NAMES[pair.second]}",
                f"{pair.mean:+.{digits}f} ({pair.low:+.{digits}f} to {pair.high:+.{digits}f})",
                f"{pair.better} of {pair.cases}",
                format_p(pair.p),
            ]
            for pair in pairs
        ]
        title = f"difference in {TITLES[name]}, patient by patient"
        if lines:
            notes = verdict(evaluation) if name == "dice" else []
            tables.append(Table("", [title, "mean (95 %)", "better in", "p"], lines, notes))
    return tables


def verdict(evaluation: ContourEvaluation) -> list[str]:
    """What the network is not better than, in a sentence; none where it beats all."""
    unbeaten = [pair.second for pair in evaluation.comparisons("dice") if pair.low <= 0]
    if not unbeaten:
        return []
    names = " and ".join(NAMES[method] for method in unbeaten)
    cropped = ": images cropped round the region show where it lies" if PLACE in unbeaten else ""
    return [
        f"The network is no better than {names} on these patients, as far as they can show{cropped}."
    ]


def _row(evaluation: ContourEvaluation, method: str) -> list[str]:
    """One line of the table."""
    return [
        NAMES[method],
        format_estimate(evaluation.estimate(method, "dice"), 3),
        format_number(evaluation.estimate(method, "continuous_dice").value, 3),
        format_number(evaluation.estimate(method, "hausdorff_mm").value, 1),
        format_estimate(evaluation.estimate(method, "hausdorff95_mm"), 1),
        str(len(evaluation.undefined(method, "hausdorff95_mm"))),
    ]


def _notes(evaluation: ContourEvaluation) -> list[str]:
    """What a reader should know of the numbers."""
    missing = {
        method: evaluation.undefined(method, "hausdorff95_mm") for method in evaluation.methods
    }
    return [
        f"Means over {format_count(len(evaluation.cases), 'patient')}, by methods that have not seen the "
        "patient, on the grid of the image.",
        "A distance is undefined, not 0 mm, where a contour or the drawing is empty. Means of distances "
        "leave such volumes out: read them beside the Dice, which is 0 where nothing is called.",
        *(
            f"No distance for {NAMES[method]}: {', '.join(names)}."
            for method, names in missing.items()
            if names
        ),
    ]
