"""`mil learning-curve`: how good models are that learn from very few cases."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.learn import CohortOptions, check_model_names, study_of
from cli.options import UsageError, part_of, plain, verb, writable, wrong_use
from mil.heads.registry import model_names
from mil.settings import CurveSettings, FitSettings

if TYPE_CHECKING:
    from mil.audit.shots import LearningCurve
    from mil.study import Study


@dataclass(frozen=True, kw_only=True)
class LearningCurveOptions(CohortOptions, FitSettings, CurveSettings):
    """Settings of `mil learning-curve`."""

    store: Path = field(metadata={"argument": "STORE", "help": "The bag store of `mil extract`."})
    models: tuple[str, ...] = field(
        default=("simpleshot", "knn", "pooled-logistic", "abmil"),
        metadata={
            "help": "Heads and baselines, separated by commas; `mil crossval --help` lists them.",
            "complete": model_names,
            "panel": "Models",
            "split": ",",
        },
    )
    workers: int = field(
        default=0,
        metadata={
            "help": "Number of draws at a time, one thread each; 0 is one per core where that saves time. "
            "The results do not depend on it.",
            "panel": "Computing",
            "once": True,
        },
    )

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UsageError(f"--workers must be 0 or more; got {self.workers}. Use 0.")
        FitSettings.__post_init__(self)
        CurveSettings.__post_init__(self)


@verb(
    app,
    LearningCurveOptions,
    examples=[
        "mil learning-curve cohort.csv store --models simpleshot,knn,pooled-logistic --shots 1,2,4 --draws 3 "
        "--out few"
    ],
)
def learning_curve(options: LearningCurveOptions) -> None:
    """Cross-validate models that learn from 1, 2, 4, ... cases per class.

    The test cases are the same for every number of training cases and in every draw of these. Draws that an
    interrupted call has finished are not repeated.
    """
    from mil.audit.shots_run import check_task
    from mil.tasks.registry import task_class

    writable(options.out)
    task = task_class(options.task)()
    with wrong_use():
        check_task(task)
    check_model_names(options.models, task)
    _show(_learn(study_of(options, options.store, task), options))


def _learn(study: "Study", options: LearningCurveOptions) -> "LearningCurve":
    from cli.console import Bars, notify
    from mil.audit.shots_run import run_learning_curve

    return run_learning_curve(
        study.cohort(notify),
        options.models,
        options.out,
        fit=part_of(options, FitSettings),
        curve=part_of(options, CurveSettings),
        workers=options.workers,
        overwrite=options.overwrite,
        settings=plain(options),
        progress=Bars(),
        notify=notify,
    )


def _show(curve: "LearningCurve") -> None:
    """The table, and where the files are."""
    from cli.console import say, show_tables

    show_tables([curve.table()])
    say(f"Figure: {curve.path / 'learning-curve.png'}. Each draw: {curve.path / 'draws.csv'}")
