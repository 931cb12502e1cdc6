"""`mil audit`: what else could explain a result, and whether printed numbers can be true."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb, writable
from cli.runs import MOVED_COHORT, MOVED_STORE
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from mil.audit.confounders import Confounder
    from mil.audit.consistency import Finding
    from mil.audit.published import PublishedTable
    from mil.audit.run import Audit
    from mil.data.cohort import Cohort
    from mil.data.splits import Fold
    from mil.evaluation.predictions import Predictions

HEADER = (
    "could have been told by",
    "AUC",
    "by chance",
    "1 in 20",
    "p",
    "Holm",
    "right alone",
    "says",
)


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Settings of `mil audit`."""

    input: Path = field(
        metadata={
            "argument": "RUN-or-TABLE.csv",
            "help": "A finished `mil crossval`, or a published table of results.",
        }
    )
    out: Path | None = field(
        default=None,
        metadata={
            "help": "Folder for index.html, audit.csv and audit.json; else they are only printed."
        },
    )
    curve: str = field(
        default="",
        metadata={
            "help": "Of a run: also learn this model from a quarter, a half and three quarters of the "
            "training cases."
        },
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)


@verb(
    app,
    AuditOptions,
    examples=["mil audit run --out audited", "mil audit audited/results.csv"],
)
def audit(options: AuditOptions) -> None:
    """Ask what else could explain a result.

    Of a RUN: whether site, scanner, date, slide size, number of tiles, stain or background tell the classes
    apart, each against labels dealt out anew to whole cases; duplicates; folds; what so many cases can show.

    Of a TABLE.csv with columns such as model, accuracy, sensitivity, specificity, precision, f1, n, n_pos:
    whether the numbers can be true of the same cases. Limits may be in the cell, 0.83 (0.71-0.92), and so may
    a spread, 0.83 ± 0.02. The rules are of two classes; put more in a column classes.

    Ends with 1 if something tells the classes apart, or a row is impossible.
    """
    if options.out:
        writable(options.out)
    if options.input.is_dir():
        problems = _audit_run(options)
    elif options.curve:
        raise UsageError("--curve is of a run; a table of results has nothing to learn from.")
    else:
        problems = _audit_table(options)
    if problems:
        raise SystemExit(1)


def _audit_run(options: AuditOptions) -> int:
    from cli.console import complain, say, show_table, warn
    from mil.audit.consistency import check_published
    from mil.audit.published import read_published
    from mil.audit.run import audit_run
    from mil.runs.run import open_run

    run = open_run(options.input, store=options.store, cohort=options.cohort)
    found = audit_run(run, curve_model=options.curve, crossval=_Again(options.input))
    if options.out:
        from mil.audit.run import results_table

        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / "results.csv"
        _write_csv(path, results_table(ClassPredictions.expect(run.predictions())))
        rows = read_published(path).rows
        wrong = [each for each in check_published(rows) if each.impossible]
        found.summary.facts["arithmetic"] = f"{len(rows)} rows of results, {len(wrong)} impossible"
        found.summary.problems.extend(f"{each.name}: {each.text}" for each in wrong)
    show_table(HEADER, [_shown(each, found.evaluation.n_cases) for each in found.confounders])
    say("")
    for name, text in found.summary.facts.items():
        say(f"{name}: {text}")
    for text in found.summary.warnings:
        warn(text)
    for text in found.summary.problems:
        complain(text)
    if options.out:
        _write_run(options.out, found)
        say(f"Page: {options.out / 'index.html'}")
    return len(found.summary.problems)


@dataclass(frozen=True)
class _Again:
    """The run's own cross-validation of one model over other folds."""

    run: Path

    def __call__(self, cohort: "Cohort", folds: "Sequence[Fold]", model: str) -> "Predictions":
        from cli.console import Bars
        from cli.learn import CrossvalOptions
        from cli.options import build, part_of, wrong_use
        from mil.heads.registry import check_names
        from mil.learning.crossval import cross_validate
        from mil.settings import FitSettings

        with wrong_use():
            check_names([model])
        options = build(CrossvalOptions, {}, self.run / "run.json")
        if options.store is None:
            raise UsageError(
                f"{self.run} fine-tuned a backbone in each fold; --curve learns from one bag store only."
            )
        settings = part_of(options, FitSettings)
        return cross_validate(
            cohort, folds, [model], settings, seed=options.seed, workers=0, progress=Bars()
        )


def _shown(each: "Confounder", n: int) -> list[str]:
    told = each.association
    if told.auc is None or told.chance is None or told.noticed is None:
        return [told.name, *[""] * 6, each.verdict]
    assert told.p is not None
    assert told.p_holm is not None
    numbers = [f"{told.auc:.2f}", f"{told.chance:.2f}", f"{told.noticed:.2f}"]
    return [
        told.name,
        *numbers,
        f"{told.p:.4f}{' exact' * told.exact}",
        f"{told.p_holm:.4f}",
        f"{each.right:g}/{n}",
        each.verdict,
    ]


def _write_run(out: Path, found: "Audit") -> None:
    from features.files.atomic import write_atomic
    from mil.report.audit import draw_certainty, draw_confounders
    from mil.report.template import render_template
    from mil.runs.files import write_json

    write_json(out / "audit.json", found.to_json())
    _write_csv(
        out / "audit.csv",
        [
            asdict(each.association) | {"right": each.right, "verdict": each.verdict}
            for each in found.confounders
        ],
    )
    pictures = {"confounders.png": draw_confounders(found), "certainty.png": draw_certainty(found)}
    for name, png in pictures.items():
        write_atomic(out / name, png)
    page = render_template(
        "report/audit.html",
        title=f"Audit of {found.title}",
        lead=_lead(found),
        summary=found.summary,
        header=HEADER,
        rows=[_shown(each, found.evaluation.n_cases) for each in found.confounders],
        flagged=[each.association.significant for each in found.confounders],
        pictures=pictures,
    )
    write_atomic(out / "index.html", page)


def _lead(found: "Audit") -> str:
    flagged = [each.association.name for each in found.confounders if each.association.significant]
    asked = sum(each.association.auc is not None for each in found.confounders)
    if flagged:
        return f"{', '.join(flagged)} tells the classes apart without the tissue."
    return (
        f"Nothing beside the tissue was seen to tell the classes apart: {asked} facts of "
        f"{found.evaluation.n_cases} cases were asked."
    )


def _audit_table(options: AuditOptions) -> int:
    from cli.console import complain, say, warn
    from features.files.atomic import write_atomic
    from mil.audit.consistency import check_published
    from mil.audit.published import read_published
    from mil.report.template import render_template
    from mil.runs.files import write_json

    table = read_published(options.input)
    found = check_published(table.rows)
    impossible = [each for each in found if each.impossible]
    for each in found:
        told = f"{each.name} (line {each.line}): {each.rule}: {each.text}"
        (complain if each.impossible else say)(f"{'IMPOSSIBLE ' * each.impossible}{told}")
    if table.unread:
        warn(f"No rule reads column {', '.join(table.unread)}.")
    lead = _table_lead(table, impossible)
    say(lead)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        rows = [asdict(each) for each in found]
        write_json(options.out / "audit.json", {"title": options.input.name, "findings": rows})
        _write_csv(options.out / "audit.csv", rows)
        page = render_template(
            "report/audit.html",
            title=f"Audit of {options.input.name}",
            lead=lead,
            summary=None,
            header=("row", "line", "", "rule", "numbers"),
            rows=[
                [
                    each.name,
                    str(each.line),
                    "impossible" if each.impossible else "remark",
                    each.rule,
                    each.text,
                ]
                for each in found
            ],
            flagged=[each.impossible for each in found],
            pictures={},
        )
        write_atomic(options.out / "index.html", page)
        say(f"Page: {options.out / 'index.html'}")
    return len(impossible)


def _table_lead(table: "PublishedTable", impossible: "Sequence[Finding]") -> str:
    from cli.console import counted

    wrong = len({each.line for each in impossible})
    if wrong:
        return f"{wrong} of {len(table.rows)} rows cannot be true of any cases."
    return f"{counted(len(table.rows), 'row')}, none impossible: the numbers can be true of the same cases."


def _write_csv(path: Path, rows: "Sequence[Mapping[str, object]]") -> None:
    """Replace a table; one without a row has no header either."""
    from features.files.atomic import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
