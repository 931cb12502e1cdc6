"""Kaplan-Meier curves drawn as inline SVG, in the colours of the page."""

from collections.abc import Sequence

import numpy as np
from markupsafe import escape
from matplotlib.ticker import MaxNLocator

from mil.evaluation.arrays import Floats
from mil.evaluation.survival.metrics import number_at_risk
from mil.figures.risk_groups import GroupCurve
from mil.report.plots import DASHES

WIDTH, HEIGHT = 320.0, 190.0  # of the frame, in units of the viewBox
LINE = 17.0  # height of a line of text
LEFT, RIGHT = 74.0, 12.0  # room for the names of groups, and for the last tick


def survival_plot(description: str, groups: Sequence[GroupCurve], unit: str) -> str:
    """Curves with their limits and a tick for each censored case; below, the numbers at risk.

    Args:
        description: the figure in words, for those who do not see it.
        groups: in the order of their colours.
        unit: of time.
    """
    end = max(float(group.time.max()) for group in groups) or 1.0
    ticks = np.array([t for t in MaxNLocator(5).tick_values(0, end) if 0 <= t <= end])
    curves = "".join(_curve(group, place, end) for place, group in enumerate(groups))
    times = "".join(_text(_across(t, end), HEIGHT + LINE, f"{t:g}") for t in ticks)
    shares = "".join(
        f'<text x="-8" y="{HEIGHT * (1 - share) + 4:g}" text-anchor="end">{share:g}</text>'
        for share in (0.0, 0.5, 1.0)
    )
    rows = "".join(_at_risk(group, ticks, end, row) for row, group in enumerate(groups))
    height = HEIGHT + (3.4 + len(groups)) * LINE + 14
    return (
        f'<svg class="km" viewBox="{-LEFT:g} -8 {LEFT + WIDTH + RIGHT:g} {height:g}" role="img">'
        f"<title>{escape(description)}</title>"
        f'<rect class="frame" width="{WIDTH:g}" height="{HEIGHT:g}"/>{curves}{times}{shares}'
        f"{_text(WIDTH / 2, HEIGHT + 2.1 * LINE, f'time in {unit}')}"
        f'<text transform="translate(-42 {HEIGHT / 2:g}) rotate(-90)" text-anchor="middle">'
        f"without event</text>"
        f'<text x="{-LEFT:g}" y="{HEIGHT + 3.3 * LINE:g}">still observed</text>{rows}</svg>'
    )


def group_key(place: int) -> str:
    """A short stroke in the colour and dashes of a group, for the legend."""
    return (
        f'<svg class="key" width="28" height="10" aria-hidden="true"><line class="curve k{place}" x1="0" '
        f'y1="5" x2="28" y2="5" stroke-dasharray="{DASHES[place]}"/></svg>'
    )


def _curve(group: GroupCurve, place: int, end: float) -> str:
    curve = group.curve
    time = np.concatenate([[0.0], curve.time, [group.time.max()]])
    middle, low, high = (
        _steps(time, np.concatenate([[1.0], share, share[-1:]]), end)
        for share in (curve.survival, curve.low, curve.high)
    )
    ends = "".join(
        f'<line class="curve k{place}" x1="{_across(t, end):.4g}" x2="{_across(t, end):.4g}" '
        f'y1="{HEIGHT * (1 - s) - 4:.4g}" y2="{HEIGHT * (1 - s) + 4:.4g}"/>'
        for t, s, n in zip(curve.time, curve.survival, curve.censored, strict=True)
        if n
    )
    return (
        f'<polygon class="limits k{place}" points="{" ".join([*low, *reversed(high)])}"/>'
        f'<polyline class="curve k{place}" stroke-dasharray="{DASHES[place]}" '
        f'points="{" ".join(middle)}"/>{ends}'
    )


def _steps(time: Floats, share: Floats, end: float) -> list[str]:
    """Corners of the steps; where a limit is undefined there is none."""
    x, y = np.repeat(time, 2)[1:], np.repeat(share, 2)[:-1]
    known = np.isfinite(y)
    return [
        f"{_across(a, end):.4g},{HEIGHT * (1 - b):.4g}"
        for a, b in zip(x[known], y[known], strict=True)
    ]


def _at_risk(group: GroupCurve, ticks: Floats, end: float, row: int) -> str:
    y = HEIGHT + (4.4 + row) * LINE
    counts = zip(ticks, number_at_risk(group.time, ticks), strict=True)
    cells = "".join(_text(_across(t, end), y, str(n)) for t, n in counts)
    return f'<text x="{-LEFT:g}" y="{y:g}">{escape(group.name)}</text>{cells}'


def _across(time: float, end: float) -> float:
    return WIDTH * time / end


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.4g}" y="{y:g}" text-anchor="middle">{escape(text)}</text>'
