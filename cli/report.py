"""`mil report`: a run as one page."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import verb, writable, writable_run
from cli.runs import MOVED_COHORT, MOVED_STORE


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Settings of `mil report`."""

    run: Path = field(metadata={"argument": "RUN", "help": "A finished run of `mil crossval`."})
    out: Path | None = field(
        default=None, metadata={"help": "The page to write; RUN/report.html if not given."}
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)


@verb(app, ReportOptions, examples=["mil report run"])
def report(options: ReportOptions) -> None:
    """Write the run as one self-contained page, to open in any browser or send by mail."""
    run_report(options)


def run_report(options: ReportOptions) -> Path:
    """Write the page and print where it is."""
    from cli.console import Bars, say
    from mil.api.run import open_run

    if options.out is None:
        writable_run(options.run)
    else:
        writable(options.out.parent)
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    path = run.write_report(options.out, progress=Bars())
    say(f"Report: {path.absolute()}")
    return path
