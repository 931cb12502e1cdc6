"""The figures of a segmenter over cases: means with intervals, worst cases, paired differences."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t as student

from features.files.atomic import atomic_path
from mil.evaluation.display import Table, format_count, format_estimate, format_p
from mil.evaluation.intervals import Estimate
from mil.evaluation.paired_tests import permutation_tests
from mil.segmentation.learner import BOTH, COLOUR, MAP, TISSUE, UNET
from mil.segmentation.scores import MaskScores

SHARES = ("dice", "iou", "sensitivity", "specificity")
ORDER = (BOTH, MAP, UNET, COLOUR, TISSUE)
NAMES = {MAP: "linear head on the map", UNET: "U-Net", BOTH: "map and U-Net"}


@dataclass(frozen=True)
class Paired:
    """The difference of two methods on the same cases, in Dice or another number.

    Attributes:
        first, second: the methods.
        mean: of first minus second.
        low, high: 95 % limits, Student's t.
        better: cases in which the first is better.
        cases: with both.
        p: of a paired permutation test, two-sided.
    """

    first: str
    second: str
    mean: float
    low: float
    high: float
    better: int
    cases: int
    p: float


@dataclass(frozen=True)
class SegmentEvaluation:
    """The scores of all cases by all methods.

    Attributes:
        scores: one per case and method.
        kind: the segmenter that is judged.
    """

    scores: Sequence[MaskScores]
    kind: str

    @property
    def methods(self) -> list[str]:
        """In the order of the table."""
        present = {scores.method for scores in self.scores}
        return [method for method in ORDER if method in present]

    def judged(self, method: str) -> list[MaskScores]:
        """The cases that have a Dice: with tumour and drawn in full; in part only where no other is."""
        scores = [s for s in self.scores if s.method == method and not math.isnan(s.dice)]
        return [s for s in scores if s.full] or scores

    def values(self, method: str, name: str) -> list[float]:
        """A number of every judged case, and of cases without tumour where it is defined for them."""
        judged = {s.case for s in self.judged(method)}
        chosen = [
            s
            for s in self.scores
            if s.method == method and (s.case in judged or (s.full and math.isnan(s.dice)))
        ]
        return [value for s in chosen if not math.isnan(value := getattr(s, name))]

    def estimate(self, method: str, name: str) -> Estimate:
        """The mean of a share over cases, with 95 % limits."""
        values = np.array(self.values(method, name))
        if not len(values):
            return Estimate(None, None, None, "none", "fewer than two cases")
        return _mean_of(values)

    def worst(self, method: str) -> MaskScores:
        """The case with the lowest Dice."""
        return min(self.judged(method), key=lambda s: s.dice)

    def paired(self, first: str, second: str) -> Paired | None:
        """How much better one method is than another on the same cases; None with fewer than two."""
        left, right = ({s.case: s.dice for s in self.judged(m)} for m in (first, second))
        return paired_difference(first, second, left, right)

    def comparisons(self) -> list[Paired]:
        """The segmenter against all others."""
        pairs = (self.paired(self.kind, other) for other in self.methods if other != self.kind)
        return [pair for pair in pairs if pair]

    @property
    def beats_colour(self) -> bool:
        """Whether its Dice is higher than that of colour alone, beyond chance."""
        pair = self.paired(self.kind, COLOUR)
        return pair is not None and pair.low > 0

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "methods": {
                method: {
                    **{name: asdict(self.estimate(method, name)) for name in SHARES},
                    "cases": len(self.judged(method)),
                    **(
                        {"worst": {"case": worst.case, "dice": worst.dice}}
                        if self.judged(method) and (worst := self.worst(method))
                        else {}
                    ),
                }
                for method in self.methods
            },
            "differences": [asdict(pair) for pair in self.comparisons()],
        }


def fold_evaluation(scores: Sequence[MaskScores], kind: str) -> dict[str, Any]:
    """What the card of a fold's segmenter says of the cases that its fold tests; empty without a Dice."""
    own = [s for s in scores if s.method == kind and not math.isnan(s.dice)]
    dice = {s.case: {"dice": s.dice, "full": s.full} for s in own}
    return {**SegmentEvaluation(scores, kind).to_json(), "by_case": dice} if dice else {}


def pool_evaluations(evaluations: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """The Dice over the cases of all folds, as ``SegmentEvaluation.to_json`` has it; empty without any.

    Args:
        evaluations: of the folds, as of ``fold_evaluation``; a case of several repeats counts once.
        kind: of their segmenters.
    """
    scores = [one for evaluation in evaluations for one in evaluation.get("by_case", {}).items()]
    if not scores:
        return {}
    drawn_in_full = [one for one in scores if one[1]["full"]]
    by_case: dict[str, list[float]] = {}
    for case, score in drawn_in_full or scores:  # as those that are judged on all cases
        by_case.setdefault(case, []).append(score["dice"])
    dice = np.array([np.mean(values) for values in by_case.values()])
    return {"methods": {kind: {"dice": asdict(_mean_of(dice)), "cases": len(dice)}}}


def _mean_of(values: NDArray[np.float64]) -> Estimate:
    """The mean of shares with 95 % limits; without limits of one case."""
    if len(values) < 2:
        return Estimate(float(values[0]), None, None, "none", "fewer than two cases")
    return mean_interval(values)


def paired_difference(
    first: str,
    second: str,
    left: Mapping[str, float],
    right: Mapping[str, float],
    *,
    lower_is_better: bool = False,
) -> Paired | None:
    """How two methods differ on the cases that both have a number of; None with fewer than two.

    Args:
        first: the method of ``left``.
        second: the method of ``right``.
        left: a number by case.
        right: a number by case.
        lower_is_better: as of distances.
    """
    both = sorted(left.keys() & right.keys())
    if len(both) < 2:
        return None
    gains = np.array([left[case] - right[case] for case in both])
    half = float(student.isf(0.025, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5)
    mean = float(gains.mean())
    better = int((gains < 0).sum() if lower_is_better else (gains > 0).sum())
    p = permutation_tests(gains[None])[0]
    return Paired(first, second, mean, mean - half, mean + half, better, len(gains), p)


def mean_interval(values: NDArray[np.float64]) -> Estimate:
    """The mean of shares with 95 % limits: Student's t on the logit scale, by the delta method.

    Args:
        values: (n,) in [0, 1], n >= 2; where all are 0 or all are 1 there are no limits.
    """
    mean = float(values.mean())
    if not 0 < mean < 1:
        return Estimate(mean, None, None, "none", "all are equal")
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    half = float(student.isf(0.025, len(values) - 1)) * error / (mean * (1 - mean))
    low, high = (float(expit(logit(mean) + step)) for step in (-half, half))
    return Estimate(mean, low, high, "t, logit scale")


def write_scores(path: Path, scores: Sequence[MaskScores]) -> None:
    """Write one row per case and method as CSV."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        names = [field.name for field in fields(MaskScores)]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for score in scores:
            row = asdict(score)
            writer.writerow(
                ["" if isinstance(row[n], float) and math.isnan(row[n]) else row[n] for n in names]
            )


def evaluation_tables(evaluation: SegmentEvaluation) -> list[Table]:
    """The figures for the terminal: one row per method, then the paired differences."""
    header = ["masks", "Dice (95 %)", "worst case", "IoU", "sensitivity", "specificity", "outline",
              "false mm²"]  # fmt: skip
    rows = [_row(evaluation, method) for method in evaluation.methods]
    tables = [Table("", header, rows, _notes(evaluation))]
    pairs = evaluation.comparisons()
    if pairs:
        tables.append(
            Table(
                "",
                ["difference in Dice, case by case", "mean (95 %)", "better in", "p"],
                [
                    [
                        f"{shown(pair.first)} minus {shown(pair.second)}",
                        f"{pair.mean:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})",
                        f"{pair.better} of {pair.cases}",
                        format_p(pair.p),
                    ]
                    for pair in pairs
                ],
                [verdict(evaluation)],
            )
        )
    return tables


def shown(method: str) -> str:
    """A method's name for people."""
    return NAMES.get(method, method)


def verdict(evaluation: SegmentEvaluation) -> str:
    """Whether the segmenter is worth its network, in a sentence."""
    if evaluation.beats_colour:
        return "The segmenter finds more than colour alone."
    return (
        "The segmenter is no better than colour alone on these cases, as far as they can show: what it has "
        "learnt is the stain."
    )


def _row(evaluation: SegmentEvaluation, method: str) -> list[str]:
    """One line of the table."""
    boundary = evaluation.values(method, "boundary_um")
    false = evaluation.values(method, "false_mm2")
    judged = evaluation.judged(method)
    worst = evaluation.worst(method) if judged else None
    return [
        shown(method),
        format_estimate(evaluation.estimate(method, "dice"), 3),
        f"{worst.dice:.3f} {worst.case}" if worst else "none",
        *(
            _mean(evaluation.values(method, name), 3)
            for name in ("iou", "sensitivity", "specificity")
        ),
        f"{np.median(boundary):.0f} µm" if boundary else "none",
        _mean(false, 2),
    ]


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f}" if values else "none"


def _notes(evaluation: SegmentEvaluation) -> list[str]:
    """What a reader should know of the numbers."""
    scores = [s for s in evaluation.scores if s.method == TISSUE]
    judged = evaluation.judged(TISSUE)
    notes = [
        f"Dice is the mean over {format_count(len(judged), 'case')} with tumour"
        f"{' annotated in full' if all(s.full for s in judged) else ', over what is annotated'}; cells of "
        "20 µm; the outline is the median of the 95th percentile of distances."
    ]
    without = [s for s in scores if math.isnan(s.dice) and not math.isnan(s.specificity)]
    if without:
        notes.append(
            f"Without tumour: {format_count(len(without), 'case')}; such a case has a specificity and a "
            "false area, and no Dice."
        )
    partial = [s for s in scores if not s.full and s.case not in {j.case for j in judged}]
    if partial:
        notes.append(
            f"Annotated in part: {format_count(len(partial), 'case')}, learnt from and not judged."
        )
    return notes
