"""A learning curve by cases per class as a figure."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mil.audit.shots import MEASURES, CurvePoint, LearningCurve, Measure
from mil.figures.saving import DASHES, INK, PALETTE, plain_text


def draw_curve(curve: LearningCurve) -> Figure:
    """A panel for each measure: the mean over the draws, a band of one SD, and what guessing achieves."""
    figure = Figure(figsize=(3.6 * len(MEASURES), 3.9), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    points = curve.points()
    for axes, measure in zip(panels, MEASURES, strict=True):
        _draw_panel(axes, curve, measure, points)
    panels[0].set_ylabel("score over cases")
    spread = f"mean and 1 SD of {curve.draws} draws of training cases; "
    figure.suptitle(
        f"{curve.n_cases} test cases, the same in every draw; {spread * (curve.draws > 1)}dashed: guessing",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        lines, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False
    )
    return figure


def _draw_panel(
    axes: Axes, curve: LearningCurve, measure: Measure, points: tuple[CurvePoint, ...]
) -> None:
    for place, model in enumerate(curve.models):
        own = [p for p in points if (p.model, p.metric) == (model, measure.name)]
        means = [(p.shots, p.mean, p.sd or 0.0) for p in own if p.mean is not None]
        shots, mean, spread = zip(*means, strict=True) if means else ((), (), ())
        colour, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
        axes.plot(shots, mean, dash, color=colour, marker="o", ms=4, label=plain_text(model))
        axes.fill_between(
            shots,
            [max(m - s, 0.0) for m, s in zip(mean, spread, strict=True)],
            [min(m + s, 1.0) for m, s in zip(mean, spread, strict=True)],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.axhline(curve.chance(measure), color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.shots, [str(k) for k in curve.shots])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("training cases per class")
    axes.set_title(measure.label, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
