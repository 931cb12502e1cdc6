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
    each tested with the labels permuted between cases; duplicates; folds; what this number of cases can show.

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
    from mil.audit.run import audit_run
    from mil.heads.registry import check_names
    from mil.report.audit import audit_header, audit_row, check_results, write_audit
    from mil.runs.run import open_run

    run = open_run(options.input, store=options.store, cohort=options.cohort)
    with wrong_use():
        check_names([options.curve] if options.curve else [])
    audit = audit_run(run, curve_model=options.curve, progress=Bars())
    if options.out:
        check_results(audit, options.out)
    show_table(audit_header(audit), [audit_row(confounder) for confounder in audit.confounders])
    say("")
    for name, text in audit.summary.facts.items():
        say(f"{name}: {text}")
    for text in audit.summary.warnings:
        warn(text)
    for text in audit.summary.problems:
        complain(text)
    if options.out:
        say(f"Page: {write_audit(audit, options.out)}")
    return len(audit.summary.problems)


def _audit_table(options: AuditOptions) -> int:
    from cli.console import complain, say, warn
    from mil.audit.consistency import check_published
    from mil.audit.published import read_published
    from mil.report.audit import table_verdict, write_table_audit

    table = read_published(options.input)
    findings = check_published(table.rows)
    for finding in findings:
        text = f"{finding.name} (line {finding.line}): {finding.rule}: {finding.text}"
        (complain if finding.impossible else say)(f"{'IMPOSSIBLE ' * finding.impossible}{text}")
    if table.unread:
        warn(f"No rule reads column {', '.join(table.unread)}.")
    impossible = len({finding.line for finding in findings if finding.impossible})
    lead = table_verdict(len(table.rows), impossible)
    say(lead)
    if options.out:
        say(f"Page: {write_table_audit(options.input.name, lead, findings, options.out)}")
    return impossible
