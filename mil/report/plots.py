"""Results drawn as inline SVG: colours come from the page's style sheet, text is escaped.

Positions are percentages or a fixed viewBox, so that a figure is sharp at every width, follows
the page into dark mode and needs nothing from outside the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import escape
from matplotlib.ticker import MaxNLocator

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.classification.calibration import Bin
from mil.evaluation.classification.metrics import placements, roc_points
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.classification.results import ModelResult
from mil.evaluation.decision_curves import DecisionCurve
from mil.evaluation.intervals import Estimate
from mil.evaluation.survival.calibration import RiskGroup
from mil.report.formats import between, percent

N_COLOURS = 8
DASHES = ("none", "7 3", "2 3", "9 3 2 3")  # curves differ without colour, too
SIDE = 240.0  # of the ROC square, in units of its viewBox


@dataclass(frozen=True, eq=False)
class RocCurve:
    """One class against the rest.

    Attributes:
        name: the class.
        colour: its place among the classes.
        auc: area under the curve.
        fpr: (m,) false positive rates, ascending.
        tpr: (m,) true positive rates.
    """

    name: str
    colour: int
    auc: float
    fpr: Floats
    tpr: Floats


def roc_curves(classes: Sequence[str], truth: Ints, p: Floats) -> tuple[RocCurve, ...]:
    """Curves one against the rest; of two classes that of class 1 (the other is its mirror).

    Args:
        classes: C names.
        truth: (n,) class indices.
        p: (n, C) probabilities.

    Returns:
        One curve per class that has a case and is not the only one.
    """
    curves = []
    for index in [1] if len(classes) == 2 else range(len(classes)):
        fpr, tpr = roc_points(truth, p, index)
        if len(fpr):
            auc = float(placements(truth == index, p[:, index])[0].mean())
            curves.append(RocCurve(classes[index], index, auc, fpr, tpr))
    return tuple(curves)


def curves_of(predictions: ClassPredictions, result: ModelResult) -> tuple[RocCurve, ...]:
    """ROC curves of a model over all cases of the first repeat; none of a class whose AUC is undefined."""
    scores = predictions.case_scores(result.model, predictions.repeats[0])
    curves = roc_curves(predictions.classes, scores.truth, scores.p)
    return tuple(curve for curve in curves if result.per_class[curve.colour].auc.value is not None)


def roc_plot(model: str, curves: Sequence[RocCurve]) -> str:
    """ROC curves of one model in a square with its diagonal and axes."""
    text = "; ".join(f"{curve.name}: AUC {curve.auc:.2f}" for curve in curves)
    # Later curves are drawn first: where two coincide, the dashes let the one below show.
    lines = "".join(_roc_line(curve) for curve in reversed(curves))
    axes = ("false positive rate", "true positive rate")
    return _square(f"ROC curves of {model}. {text}", *axes, lines)


def reliability_plot(model: str, bins: Sequence[Bin]) -> str:
    """How often the named class is right, by the probability it was given, with exact intervals."""
    text = "; ".join(f"predicted {percent(b.predicted)}, right {b.k} of {b.n}" for b in bins)
    marks = "".join(_calibration_mark(b.predicted, b.k / b.n, (b.low, b.high)) for b in bins)
    axes = ("probability of the class named", "share that is right")
    return _square(f"Reliability of {model}. {text}", *axes, marks)


def survival_calibration_plot(description: str, groups: Sequence[RiskGroup]) -> str:
    """Observed against predicted survival of each group, with its limits and its number of cases.

    Args:
        description: model and horizon.
        groups: with what was observed of them; one that was not followed for so long has no mark.
    """
    known = [
        (group, (group.low, group.observed, group.high))
        for group in groups
        if group.observed is not None and group.low is not None and group.high is not None
    ]
    text = "; ".join(
        f"{group.n} cases: predicted {percent(group.predicted)}, observed {percent(observed)}, "
        f"95 % interval {between([low, high])}"
        for group, (low, observed, high) in known
    )
    marks = "".join(
        _calibration_mark(group.predicted, observed, (low, high)) + _count_beside(group, observed)
        for group, (low, observed, high) in known
    )
    axes = ("predicted survival", "observed survival")
    return _square(f"Calibration of {description}. {text}", *axes, marks)


def decision_plot(model: str, positive: str, curve: DecisionCurve, treat_all: DecisionCurve) -> str:
    """Net benefit of acting on a model over the threshold, with its band, beside treating all and none."""
    top = max(float(treat_all.benefit.max()), float(curve.benefit.max())) * 1.25 or 1.0
    bottom = -top / 4

    def line(values: Floats) -> list[str]:
        x = SIDE * (curve.threshold - curve.threshold[0]) / np.ptp(curve.threshold)
        y = SIDE * (top - np.clip(values, bottom, top)) / (top - bottom)
        return [f"{a:.4g},{b:.4g}" for a, b in zip(x, y, strict=True)]

    zero = SIDE * top / (top - bottom)
    band = " ".join([*line(curve.low), *reversed(line(curve.high))])
    first, last = float(curve.threshold[0]), float(curve.threshold[-1])
    marks = "".join(
        _axis_tick(SIDE * (t - first) / (last - first), t) for t in _ticks(first, last, 5)
    ) + "".join(
        _axis_tick(SIDE * (top - t) / (top - bottom), t, upwards=True)
        for t in _ticks(bottom, top, 5)
    )
    text = f"Decision curve of {model}, acting on {positive}: net benefit and its 95 % band"
    return (
        f'<svg class="roc" viewBox="-54 -8 304 294" role="img"><title>{escape(text)}</title>'
        f'<rect class="frame" width="{SIDE:g}" height="{SIDE:g}"/>'
        f'<line class="none" x1="0" y1="{zero:.4g}" x2="{SIDE:g}" y2="{zero:.4g}"/>{marks}'
        f'<polygon class="band" points="{band}"/>'
        f'<polyline class="all" points="{" ".join(line(treat_all.benefit))}"/>'
        f'<polyline class="benefit" points="{" ".join(line(curve.benefit))}"/>'
        f'<text x="{SIDE / 2:g}" y="{SIDE + 38:g}" text-anchor="middle">probability to act from</text>'
        f'<text transform="translate(-44 {SIDE / 2:g}) rotate(-90)" text-anchor="middle">'
        f"net benefit</text></svg>"
    )


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high."""
    ticks = MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(t) for t in ticks if low <= t <= high]


def _axis_tick(place: float, number: float, *, upwards: bool = False) -> str:
    """A number at an axis with a short stroke."""
    if upwards:
        return (
            f'<line class="tick" x1="-4" x2="0" y1="{place:.4g}" y2="{place:.4g}"/>'
            f'<text x="-8" y="{place + 4:.4g}" text-anchor="end">{number:.2g}</text>'
        )
    return (
        f'<line class="tick" x1="{place:.4g}" x2="{place:.4g}" y1="{SIDE:g}" y2="{SIDE + 4:g}"/>'
        f'<text x="{place:.4g}" y="{SIDE + 18:g}" text-anchor="middle">{number:.2g}</text>'
    )


def _square(text: str, across: str, upwards: str, inside: str) -> str:
    """A square of shares with its diagonal, its axes and the marks in it; ``text`` describes it."""
    ticks = "".join(_tick(share) for share in (0.0, 0.5, 1.0))
    return (
        f'<svg class="roc" viewBox="-46 -8 296 294" role="img"><title>{escape(text)}</title>'
        f'<rect class="frame" width="{SIDE:g}" height="{SIDE:g}"/>'
        f'<line class="reference" x1="0" y1="{SIDE:g}" x2="{SIDE:g}" y2="0"/>{ticks}{inside}'
        f'<text x="{SIDE / 2:g}" y="{SIDE + 38:g}" text-anchor="middle">{across}</text>'
        f'<text transform="translate(-34 {SIDE / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{upwards}</text></svg>"
    )


def curve_key(curve: RocCurve) -> str:
    """A short stroke in the colour and dashes of a curve, for the legend."""
    return (
        f'<svg class="key" width="28" height="10" aria-hidden="true">'
        f'<line class="curve k{curve.colour % N_COLOURS}" x1="0" y1="5" x2="28" y2="5" '
        f'stroke-dasharray="{_dashes(curve)}"/></svg>'
    )


def interval_axis(full: float = 100) -> str:
    """The scale from 0 to ``full`` above the column of intervals."""
    labels = "".join(
        f'<text x="{at}%" y="11" text-anchor="middle">{at * full / 100:g}</text>'
        for at in (0, 25, 50, 75, 100)
    )
    return f'<svg class="axis" aria-hidden="true">{labels}</svg>'


def interval_mark(name: str, estimate: Estimate, chance: float, *, as_share: bool = True) -> str:
    """One row of the forest plot: a point, its interval, and the line of chance through all rows.

    Args:
        name: of the row.
        estimate: a share; without limits only the point is drawn.
        chance: where the dashed line stands.
        as_share: read out in per cent, not as a number.
    """
    text, marks = f"{name}: undefined", ""
    if estimate.value is not None:
        text = f"{name}: {percent(estimate.value) if as_share else f'{estimate.value:.2f}'}"
        marks = f'<circle cx="{_at(estimate.value)}" cy="50%" r="4.5"/>'
        if estimate.low is not None and estimate.high is not None:
            limits = f"{estimate.low:.2f} to {estimate.high:.2f}"
            text += (
                f", 95 % interval {between([estimate.low, estimate.high]) if as_share else limits}"
            )
            marks = _whisker(estimate.low, estimate.high) + marks
        else:
            marks = marks.replace("<circle", '<circle class="open"')
    line = _at(chance)
    return (
        f'<svg class="mark" role="img"><title>{escape(text)}</title>'
        f'<line class="reference" x1="{line}" x2="{line}" y1="0" y2="100%"/>{marks}</svg>'
    )


def _whisker(low: float, high: float) -> str:
    return f'<line class="whisker" x1="{_at(low)}" x2="{_at(high)}" y1="50%" y2="50%"/>'


def _at(share: float) -> str:
    return f"{100 * share:.2f}%"


def _dashes(curve: RocCurve) -> str:
    return DASHES[curve.colour % len(DASHES)]


def _roc_line(curve: RocCurve) -> str:
    points = np.stack([curve.fpr, 1 - curve.tpr], axis=1) * SIDE
    path = " ".join(f"{x:.4g},{y:.4g}" for x, y in points)
    return (
        f'<polyline class="curve k{curve.colour % N_COLOURS}" '
        f'stroke-dasharray="{_dashes(curve)}" points="{path}"/>'
    )


def _tick(share: float) -> str:
    x, y = SIDE * share, SIDE * (1 - share)
    return (
        f'<text x="{x:g}" y="{SIDE + 18:g}" text-anchor="middle">{share:g}</text>'
        f'<text x="-8" y="{y + 4:g}" text-anchor="end">{share:g}</text>'
    )


def _count_beside(group: RiskGroup, observed: float) -> str:
    """The number of cases, on the side of the mark where there is room."""
    left = group.predicted > 0.8
    x, y = SIDE * group.predicted + (-9 if left else 9), SIDE * (1 - observed) + 4
    anchor = "end" if left else "start"
    return f'<text x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}">{group.n}</text>'


def _calibration_mark(predicted: float, observed: float, limits: tuple[float, float]) -> str:
    x = SIDE * predicted
    low, middle, high = (SIDE * (1 - share) for share in (limits[0], observed, limits[1]))
    return (
        f'<line class="whisker" x1="{x:.4g}" x2="{x:.4g}" y1="{low:.4g}" y2="{high:.4g}"/>'
        f'<circle class="bin" cx="{x:.4g}" cy="{middle:.4g}" r="4.5"/>'
    )
