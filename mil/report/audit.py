"""The audit of a run or of a published table as figures, a page and files."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from features.files.atomic import write_atomic
from mil.audit.confounders import Confounder
from mil.audit.consistency import check_published
from mil.audit.published import read_published
from mil.audit.published_audit import TableAudit
from mil.audit.run import Audit
from mil.evaluation.display import format_p
from mil.figures.saving import ACCENT, ALARM, INK, PALE, png_bytes, write_rows
from mil.report.template import render_template
from mil.runs.files import write_json

HALF = 0.5  # the statistic of a score without information: bars start there


def draw_confounders(audit: Audit) -> bytes:
    """A PNG: each fact's statistic against chance, and its result in the folds beside those of the models."""
    judged = audit.judged
    tested = [c for c in audit.confounders if c.association.measure is not None]
    models = judged.achieved()
    names = [*(c.association.name for c in tested), *(name for name, _, _ in models)]
    places = np.arange(len(names))[::-1]
    figure = Figure(figsize=(9.5, 1.5 + 0.36 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, confounder in zip(places, tested, strict=False):
        association = confounder.association
        assert association.measure is not None
        assert association.noticed is not None
        colour = ALARM if association.significant else INK
        left.barh(place, association.noticed - HALF, left=HALF, color=PALE, height=0.8)
        left.plot([association.chance] * 2, [place - 0.4, place + 0.4], color=INK, linewidth=1)
        left.barh(place, association.measure - HALF, left=HALF, color=colour, height=0.34)
        right.barh(place, confounder.achieved or 0, color=colour, height=0.5)
    for place, (_, statistic, result) in zip(places[len(tested) :], models, strict=True):
        if statistic is not None:
            left.barh(place, statistic - HALF, left=HALF, color=ACCENT, height=0.34)
        right.barh(place, result, color=ACCENT, height=0.5)
    left.set_xlim(0.3, 1.0)
    left.set_xlabel(judged.statistic)
    left.set_title(
        "Wide bar: what chance reaches in 1 of 20, line: its median", loc="left", fontsize=8
    )
    if judged.most > 1:
        right.xaxis.get_major_locator().set_params(integer=True)
    right.set_xlim(0, judged.most)
    right.axvline(judged.reference, color=INK, linestyle=(0, (4, 3)))
    right.set_xlabel(f"{judged.alone}, {judged.evaluation.n_cases} cases, out of fold")
    right.set_title("Dashed: guessing", loc="left", fontsize=8)
    left.set_yticks(places, names)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def draw_certainty(audit: Audit) -> bytes | None:
    """A PNG: the interval of the accuracy against the number of cases, and the learning curve."""
    panels = bool(audit.widths) + bool(audit.curve)
    if not panels:
        return None
    figure = Figure(figsize=(9.5, 3.0), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels))
    if audit.widths:
        _draw_widths(axes[0], audit)
    if audit.curve:
        _draw_curve(axes[-1], audit)
    for panel in axes:
        panel.set_ylim(0, 1)
        panel.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def _draw_widths(axes: Axes, audit: Audit) -> None:
    judged = audit.judged
    [result] = [result for name, _, result in judged.achieved() if name == judged.lead]
    n = [width.n for width in audit.widths]
    axes.fill_between(n, [w.low for w in audit.widths], [w.high for w in audit.widths], color=PALE)
    axes.axhline(result / judged.most, color=INK, linewidth=1)
    cohort = next(width for width in audit.widths if width.n == judged.evaluation.n_cases)
    axes.plot([cohort.n] * 2, [cohort.low, cohort.high], color=ACCENT, linewidth=3)
    axes.annotate(
        f" {cohort.n} cases", (cohort.n, cohort.high), color=ACCENT, fontsize=9, va="bottom"
    )
    axes.axhline(judged.reference / judged.most, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_xticks(n, [str(number) for number in n], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("cases")
    axes.set_ylabel(judged.score)
    title = f"95 % interval of an accuracy of {result / judged.most:.2f}"
    axes.set_title(title, loc="left", fontsize=9)


def _draw_curve(axes: Axes, audit: Audit) -> None:
    score = [point.score for point in audit.curve]
    below = [point.score - point.low for point in audit.curve]
    above = [point.high - point.score for point in audit.curve]
    train = [point.train for point in audit.curve]
    axes.errorbar(
        train, score, yerr=[below, above], color=ACCENT, marker="o", capsize=3, linewidth=1.5
    )
    axes.set_xlabel("training cases")
    axes.set_ylabel(audit.judged.score)
    axes.set_title(f"Learning curve of {audit.curve_model}", loc="left", fontsize=9)


def audit_header(audit: Audit) -> tuple[str, ...]:
    """The header of the table of confounders."""
    return (
        "fact",
        audit.judged.statistic,
        "by chance",
        "1 in 20",
        "p",
        "p Holm",
        audit.judged.alone,
        "verdict",
    )


def audit_row(confounder: Confounder) -> list[str]:
    """A row of the table of confounders."""
    association = confounder.association
    if association.measure is None or association.chance is None or association.noticed is None:
        return [association.name, *[""] * 6, confounder.verdict]
    values = (association.measure, association.chance, association.noticed)
    return [
        association.name,
        *(f"{value:.2f}" for value in values),
        f"{format_p(association.p)}{' exact' * association.exact}",
        format_p(association.p_holm),
        confounder.performance,
        confounder.verdict,
    ]


def check_results(audit: Audit, folder: Path) -> None:
    """Write the run's own results as a table, and check them by the rules of published tables."""
    rows = audit.judged.results()
    if not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "results.csv", rows)
    published = read_published(folder / "results.csv").rows
    wrong = [finding for finding in check_published(published) if finding.impossible]
    audit.summary.facts["arithmetic"] = f"{len(published)} rows of results, {len(wrong)} impossible"
    audit.summary.problems.extend(f"{finding.name}: {finding.text}" for finding in wrong)


def write_audit(audit: Audit, folder: Path) -> Path:
    """Write audit.json, audit.csv, the figures and the page; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", audit.to_json())
    write_rows(
        folder / "audit.csv",
        [
            asdict(c.association) | {"achieved": c.achieved, "verdict": c.verdict}
            for c in audit.confounders
        ],
    )
    drawn = {"confounders.png": draw_confounders(audit), "certainty.png": draw_certainty(audit)}
    pictures = {name: png for name, png in drawn.items() if png}
    for name, png in pictures.items():
        write_atomic(folder / name, png)
    return _write_page(
        folder,
        title=f"Audit of {audit.title}",
        lead=audit.headline,
        summary=audit.summary,
        statistic=audit.judged.statistic,
        meaning=audit.judged.meaning,
        alone=audit.judged.alone,
        header=audit_header(audit),
        rows=[audit_row(confounder) for confounder in audit.confounders],
        flagged=[confounder.association.significant for confounder in audit.confounders],
        pictures=pictures,
    )


def write_table_audit(audit: TableAudit, folder: Path) -> Path:
    """Write audit.json, audit.csv and the page of a published table; returns the page."""
    findings = audit.findings
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(finding) for finding in findings]
    write_json(folder / "audit.json", {"title": audit.title, "findings": rows})
    write_rows(folder / "audit.csv", rows)
    kinds = ["impossible" if finding.impossible else "remark" for finding in findings]
    return _write_page(
        folder,
        title=f"Audit of {audit.title}",
        lead=audit.verdict,
        summary=None,
        statistic="",
        meaning="",
        alone="",
        header=("row", "line", "", "rule", "numbers"),
        rows=[
            [f.name, str(f.line), kind, f.rule, f.text]
            for f, kind in zip(findings, kinds, strict=True)
        ],
        flagged=[finding.impossible for finding in findings],
        pictures={},
    )


def _write_page(folder: Path, **values: object) -> Path:
    page = folder / "index.html"
    write_atomic(page, render_template("report/audit.html", **values))
    return page
