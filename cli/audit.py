"""`mil audit`: what else could explain a result, and whether printed numbers can be true."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import UsageError, verb, writable
from cli.runs import MOVED_COHORT, MOVED_STORE


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
            "help": "Folder for index.html, audit.csv and audit.json; the results are only printed if not "
            "given."
        },
    )
    curve: str = field(
        default="",
        metadata={
            "help": "Also train this model on a quarter, a half and three quarters of the training cases.",
            "panel": "Runs",
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
    """Look for other explanations of a result, or for contradictions in a published table.

    RUN: whether site, scanner, date, slide size, number of tiles, stain or background tell the classes apart,
    each tested with the labels permuted between cases. It also reports duplicate slides, the balance of the
    folds, and the precision that this number of cases allows.

    TABLE.csv, with columns such as model, accuracy, sensitivity, specificity, precision, f1, n, n_pos:
    whether the numbers are mutually consistent. A cell may have limits, 0.83 (0.71-0.92), or a spread, 0.83 ±
    0.02. The rules are for two classes; state a larger number in a column named classes.

    Exits with status 1 if something tells the classes apart or a row is impossible.
    """
    if options.out:
        writable(options.out)
    if options.input.is_dir():
        problems = _audit_run(options)
    elif options.curve:
        raise UsageError(
            "--curve is for a run; a table of results has nothing to learn from. Leave it out."
        )
    else:
        problems = _audit_table(options)
    if problems:
        raise SystemExit(1)


def _audit_run(options: AuditOptions) -> int:
    from cli.console import Bars, complain, say, show_table, warn
    from cli.options import wrong_use
    from mil.api.run import open_run
    from mil.heads.registry import check_names
    from mil.report.audit import audit_header, audit_row

    run = open_run(options.input, store=options.store, cohort=options.cohort)
    with wrong_use():
        check_names([options.curve] if options.curve else [])
    audit = run.audit(curve=options.curve, out=options.out, progress=Bars())
    show_table(audit_header(audit), [audit_row(confounder) for confounder in audit.confounders])
    say("")
    for name, text in audit.summary.facts.items():
        say(f"{name}: {text}")
    for text in audit.summary.warnings:
        warn(text)
    for text in audit.summary.problems:
        complain(text)
    _show_page(options.out)
    return len(audit.summary.problems)


def _audit_table(options: AuditOptions) -> int:
    from cli.console import complain, say, warn
    from mil.api.judging import audit_table

    audit = audit_table(options.input, out=options.out)
    for finding in audit.findings:
        text = f"{finding.name} (line {finding.line}): {finding.rule}: {finding.text}"
        (complain if finding.impossible else say)(f"{'IMPOSSIBLE ' * finding.impossible}{text}")
    if audit.unread:
        warn(f"No rule reads column {', '.join(audit.unread)}.")
    say(audit.verdict)
    _show_page(options.out)
    return audit.impossible


def _show_page(out: Path | None) -> None:
    from cli.console import say

    if out:
        say(f"Page: {out / 'index.html'}")
