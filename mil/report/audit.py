"""The audit of a run as pictures."""

import numpy as np
from matplotlib.figure import Figure

from mil.audit.run import Audit
from mil.report.saving import ACCENT, ALARM, INK, PALE, png_bytes

HALF = 0.5  # the AUC of a score that knows nothing: bars start there


def draw_confounders(audit: Audit) -> bytes:
    """A PNG: each fact's AUC against chance, and what it gets right beside what the models do."""
    known = [each for each in audit.confounders if each.association.auc is not None]
    models = audit.evaluation.models
    names = [*(each.association.name for each in known), *(result.model for result in models)]
    places = np.arange(len(names))[::-1]
    figure = Figure(figsize=(9.5, 1.5 + 0.36 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, each in zip(places, known, strict=False):
        told = each.association
        assert told.auc is not None
        assert told.noticed is not None
        colour = ALARM if told.significant else INK
        left.barh(place, told.noticed - HALF, left=HALF, color=PALE, height=0.8)
        left.plot([told.chance] * 2, [place - 0.4, place + 0.4], color=INK, linewidth=1)
        left.barh(place, told.auc - HALF, left=HALF, color=colour, height=0.34)
        right.barh(place, each.right, color=colour, height=0.5)
    for place, result in zip(places[len(known) :], models, strict=True):
        if result.metrics["auc"].value is not None:
            left.barh(
                place, result.metrics["auc"].value - HALF, left=HALF, color=ACCENT, height=0.34
            )
        right.barh(place, result.correct, color=ACCENT, height=0.5)
    left.set_xlim(0.3, 1.0)
    left.set_xlabel("macro AUC")
    left.set_title(
        "Wide bar: what chance reaches in 1 of 20, line: its median", loc="left", fontsize=8
    )
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set_xlim(0, audit.evaluation.n_cases)
    right.axvline(
        audit.evaluation.majority_share * audit.evaluation.n_cases, color=INK, linestyle=(0, (4, 3))
    )
    right.set_xlabel(f"right of {audit.evaluation.n_cases} cases, in the same folds")
    right.set_title("Dashed: always the most frequent class", loc="left", fontsize=8)
    left.set_yticks(places, names)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def draw_certainty(audit: Audit) -> bytes:
    """A PNG: the interval of the accuracy against the number of cases, and the learning curve."""
    panels = 2 if audit.curve else 1
    figure = Figure(figsize=(9.5, 3.0), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels))
    n = [width.n for width in audit.widths]
    low, high = [width.low for width in audit.widths], [width.high for width in audit.widths]
    lead = audit.evaluation.best()
    axes[0].fill_between(n, low, high, color=PALE)
    axes[0].axhline(lead.correct / lead.n, color=INK, linewidth=1)
    own = next(width for width in audit.widths if width.n == lead.n)
    axes[0].plot([own.n] * 2, [own.low, own.high], color=ACCENT, linewidth=3)
    axes[0].annotate(f" {own.n} cases", (own.n, own.high), color=ACCENT, fontsize=9, va="bottom")
    axes[0].axhline(
        audit.evaluation.majority_share, color=INK, linewidth=0.8, linestyle=(0, (4, 3))
    )
    axes[0].set_xscale("log")
    axes[0].set_xticks(n, [str(each) for each in n], fontsize=8)
    axes[0].minorticks_off()
    axes[0].set_xlabel("cases")
    axes[0].set_ylabel("accuracy")
    axes[0].set_title(
        f"95 % interval of an accuracy of {lead.correct / lead.n:.2f}", loc="left", fontsize=9
    )
    if audit.curve:
        x = [point.train for point in audit.curve]
        y = [point.accuracy for point in audit.curve]
        below = [point.accuracy - point.low for point in audit.curve]
        above = [point.high - point.accuracy for point in audit.curve]
        axes[1].errorbar(
            x, y, yerr=[below, above], color=ACCENT, marker="o", capsize=3, linewidth=1.5
        )
        axes[1].set_xlabel("training cases")
        axes[1].set_title(f"Learning curve of {audit.curve_model}", loc="left", fontsize=9)
    for each in axes:
        each.set_ylim(0, 1)
        each.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)
