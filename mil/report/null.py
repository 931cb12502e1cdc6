"""The shuffles of `mil check --null` as a picture."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mil.audit.permutation import CHANCE, Verdict
from mil.report.saving import ACCENT, ALARM, INK, png_bytes


def draw_null(verdicts: Sequence[Verdict]) -> bytes:
    """A PNG: per model a dot for each shuffle, their mean, and the AUC with the true labels."""
    shown = [
        (verdict, verdict.observed)
        for verdict in verdicts
        if verdict.observed is not None and verdict.aucs
    ]
    figure = Figure(figsize=(7.5, 1.4 + 0.42 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, (verdict, observed) in enumerate(reversed(shown)):
        n = len(verdict.aucs)
        # Spread over the row's height in the order of the shuffles, so that equal values stay apart.
        heights = [place - 0.22 + 0.44 * i / max(n - 1, 1) for i in range(n)]
        axes.scatter(verdict.aucs, heights, s=10, color=INK, alpha=0.6, linewidths=0)
        mean = sum(verdict.aucs) / n
        colour = ALARM if verdict.invents else INK
        axes.plot([mean, mean], [place - 0.33, place + 0.33], color=colour, linewidth=2)
        axes.plot([observed], [place], "D", markersize=6, color=ACCENT, zorder=3)
    axes.axvline(CHANCE, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(shown)), [verdict.model for verdict, _ in reversed(shown)])
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("macro AUC over cases")
    axes.set_title(
        "Dots: shuffled labels, bar: their mean. Diamond: the true labels.", loc="left", fontsize=9
    )
    axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)
