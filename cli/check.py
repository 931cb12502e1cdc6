"""`mil check`: what an extraction would do, reported before it is started."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.extract import SlideOptions, recipes_of
from cli.options import UsageError, plain, verb, writable, wrong_use
from features.errors import FeaturesError, InputError
from mil.settings import SplitSettings
from mil.tasks.names import DEFAULT_TASK, TASKS, TaskColumns

if TYPE_CHECKING:
    from mil.audit.cohort_check import CohortCheck

HEADER = (
    "slide", "tiles at", "status", "qualify", "drawn", "tissue", "tumour", "scanned at", "read",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CheckOptions(SlideOptions, TaskColumns):
    """Settings of `mil check`."""

    out: Path = field(
        metadata={"help": "Folder for check.csv, index.html and a picture of each slide."}
    )
    task: str = field(
        default=DEFAULT_TASK,
        metadata={
            "help": f"What will be predicted: {', '.join(f'`{name}`' for name in TASKS)}.",
            "panel": "Task",
            "choices": tuple(TASKS),
        },
    )
    folds: str = field(
        default=SplitSettings.folds,
        metadata={"help": "The intended folds of the cross-validation: a number, `loo` or `site`."},
    )
    null: int | None = field(
        default=None,
        metadata={"help": "Former name of `mil permute RUN --times N`; only in this version."},
    )
    tiles_per_second: float = field(
        default=13.0,
        metadata={
            "help": "The rate that `mil extract` printed on your machine, to estimate the time. 13 was "
            "measured with resnetv2_50 on 2 CPU cores; a GPU is many times faster."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        SplitSettings(folds=self.folds)
        if self.null is not None and self.null < 2:
            raise FeaturesError(
                f"null must be a number of shuffles from 2; got {self.null}. Use 20."
            )
        if not self.tiles_per_second > 0:
            raise FeaturesError(
                f"tiles_per_second must be above 0; got {self.tiles_per_second:g}. Use 13."
            )


@verb(
    app,
    CheckOptions,
    examples=[
        "mil check cohort.csv --slides slides --annotations annotations --out checked",
        "mil check cohort.csv --slides slides --annotations annotations --out checked-twice "
        "--mpp 0.25,0.5 --tiles-per-second 300",
        "mil check slides/case-01-s1.tiff --out checked-tissue --mpp 0.5",
    ],
)
def check(options: CheckOptions) -> None:
    """Open every slide and annotation and report what `mil extract` would do, before any model is loaded.

    Takes the options of `mil extract`. Writes check.csv and a page, index.html, with a picture of each
    slide and the tiles it would yield. Exits with status 1 if a slide would fail.
    """
    if options.null:
        from cli.console import warn
        from cli.permute import permute_and_show
        from mil.runs.run import open_run

        writable(options.out)
        if len(options.inputs) != 1:
            raise UsageError("--null takes one run of `mil crossval` as its input.")
        warn("`mil check RUN --null N` is now `mil permute RUN --times N`. Use that from now on.")
        problems = permute_and_show(open_run(options.inputs[0]), options.out, options.null)
    else:
        problems = run_check(options)
    if problems:
        raise SystemExit(1)


def run_check(options: CheckOptions) -> int:
    """Check, print and write the page; the number of problems."""
    from cli.console import Bars
    from mil.api.preparing import check_cohort
    from mil.tasks.registry import task_from

    recipes = recipes_of(options)
    with wrong_use():
        task = task_from(plain(options))
    writable(options.out)
    names = (
        "annotations",
        "slide_mpp",
        "slide_mpp_force",
        "coordinates",
        "case_from",
        "label_is",
        "known_at_diagnosis",
    )
    with wrong_use(InputError):
        result = check_cohort(
            options.inputs,
            out=options.out,
            recipe=recipes,
            slides=options.slides,
            folds=options.folds,
            task=task,
            tiles_per_second=options.tiles_per_second,
            progress=Bars(),
            **{name: getattr(options, name) for name in names},
        )
    show_check(result, options.out / "index.html")
    return len(result.summary.problems)


def show_check(result: "CohortCheck", page: Path) -> None:
    """Print the slides, facts, warnings and problems."""
    from cli.console import complain, say, show_table, warn
    from features.extraction.check import display_row

    rows = [display_row(check, scale) for check in result.checks for scale in check.scales]
    show_table(HEADER, rows)
    say("")
    for name, text in result.summary.facts.items():
        say(f"{name}: {text}")
    for text in result.summary.warnings:
        warn(text)
    for text in result.summary.problems:
        complain(text)
    say(f"Page: {page}")
