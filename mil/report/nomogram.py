"""A nomogram as a picture: one scale per column, the total, and the probability."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.evaluation.regression.nomogram import MOST, Nomogram, round_marks
from mil.figures.saving import ACCENT

INK = "#1f2a30"


def draw_nomogram(nomogram: Nomogram, title: str) -> Figure:
    """Read the points of each value off the first line, add them up, and read the probability below."""
    n_lines = len(nomogram.scales) + 3
    figure = Figure(figsize=(8.5, 0.9 + 0.72 * n_lines), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlim(-0.3, 1.04)
    axes.set_ylim(-n_lines + 0.3, 0.7)
    _line(axes, 0, "points", [(f"{10 * k}", k / 10) for k in range(11)], INK)
    for place, scale in enumerate(nomogram.scales, start=1):
        _line(axes, -place, scale.column, [(v, p / MOST) for v, p in scale.marks], INK)
    most = nomogram.most
    totals = [total for total in round_marks(0.0, most) if total <= most]
    _line(axes, 2 - n_lines, "total points", [(f"{t:g}", t / most) for t in totals], INK)
    readings = [(f"{share:g}", total / most) for total, share in nomogram.readings()]
    _line(axes, 1 - n_lines, "probability", readings, ACCENT)
    return figure


def _line(axes: Axes, y: float, name: str, marks: list[tuple[str, float]], colour: str) -> None:
    """A scale; marks that would stand on each other take turns above and below."""
    axes.text(-0.03, y, name, ha="right", va="center", fontsize=9, color=colour)
    if not marks:
        return
    marks = sorted(marks, key=lambda mark: mark[1])
    axes.plot([marks[0][1], marks[-1][1]], [y, y], color=colour, linewidth=1)
    last, below = -1.0, False
    for text, x in marks:
        below = not below if x - last < 0.035 + 0.006 * len(text) else False
        last = x
        axes.plot([x, x], [y - 0.08, y + 0.08], color=colour, linewidth=1)
        side = -0.16 if below else 0.16
        axes.text(
            x,
            y + side,
            text,
            ha="center",
            va="top" if below else "bottom",
            fontsize=8,
            color=colour,
        )
