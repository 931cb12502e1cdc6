"""The label permutation test as a picture."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mil.audit.permutation import PermutationTest
from mil.figures.saving import ACCENT, ALARM, INK, png_bytes


def draw_permutations(tests: Sequence[PermutationTest]) -> bytes:
    """A PNG: per model a dot for each shuffle, their mean, and the metric with the true outcomes."""
    shown = [(test, test.observed) for test in tests if test.observed is not None and test.values]
    figure = Figure(figsize=(7.5, 1.4 + 0.42 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, (test, observed) in enumerate(reversed(shown)):
        n = len(test.values)
        # Spread over the row's height in the order of the shuffles, so that equal values stay apart.
        heights = [place - 0.22 + 0.44 * i / max(n - 1, 1) for i in range(n)]
        axes.scatter(test.values, heights, s=10, color=INK, alpha=0.6, linewidths=0)
        mean = sum(test.values) / n
        colour = ALARM if test.leaks else INK
        axes.plot([mean, mean], [place - 0.33, place + 0.33], color=colour, linewidth=2)
        axes.plot([observed], [place], "D", markersize=6, color=ACCENT, zorder=3)
    for chance in {test.chance for test in tests}:
        axes.axvline(chance, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(shown)), [test.model for test, _ in reversed(shown)])
    axes.set_xlim(min([0.0, *(value for test in tests for value in test.values)]), 1.02)
    axes.set_xlabel(f"{', '.join(sorted({test.metric for test in tests}))} over cases")
    axes.set_title(
        "Dots: shuffled outcomes, bar: their mean. Diamond: the true outcomes.",
        loc="left",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)
