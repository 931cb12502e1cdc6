"""Decision curves as a picture."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mil.evaluation.decision_curves import TREAT_ALL, TREAT_NONE, DecisionCurve
from mil.report.risk_groups import COLOURS


def draw_decisions(curves: Sequence[DecisionCurve], title: str) -> Figure:
    """Net benefit over the threshold, with the band of each model; below treat-none a model does harm."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    models = [curve for curve in curves if curve.name not in (TREAT_ALL, TREAT_NONE)]
    for place, curve in enumerate(models):
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(curve.threshold, curve.benefit, color=colour, label=curve.name)
        axes.fill_between(
            curve.threshold, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0
        )
    for name, dashes in ((TREAT_ALL, (4, 3)), (TREAT_NONE, (1, 2))):
        curve = next(curve for curve in curves if curve.name == name)
        axes.plot(curve.threshold, curve.benefit, color="black", linestyle=(0, dashes), label=name)
    highest = max(float(curve.high.max()) for curve in curves)
    axes.set_ylim(-0.25 * highest - 0.01, highest * 1.05 + 0.01)
    axes.set_xlim(float(curves[0].threshold[0]), float(curves[0].threshold[-1]))
    axes.set_xlabel("threshold: the probability from which one would act")
    axes.set_ylabel("net benefit")
    axes.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
