"""A learning curve as a folder: the predictions of each draw, tables and a figure.

run.json           settings, data, versions, as of every run
folds.json         who is tested in which fold
draws/draw-<d>-shots-<k>.csv   predictions of the cases with draw d of k training cases per class
draws.csv          what each model achieved in each draw
summary.csv        mean, SD and range over the draws
learning-curve.png, learning-curve.svg
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.progress import Progress, Silent
from mil.audit.shots import LearningCurve, draw_shots, most_shots, possible_shots, score_draw
from mil.audit.shots_figure import draw_curve
from mil.data.cohort import Cohort
from mil.data.splits import Fold, folds_sha256, write_folds
from mil.errors import CohortError, RunError
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.predictions import read_predictions, write_predictions
from mil.figures.saving import save_figure, write_rows
from mil.learning.crossval import check_inputs, cross_validate
from mil.learning.parallel import run_tasks
from mil.runs import files
from mil.runs.clinical import clinical_facts
from mil.runs.cross_validation import (
    check_models,
    cohort_facts,
    cohort_settings,
    draw_folds,
    notify_cohort,
)
from mil.runs.record import finish_run, start_run
from mil.settings import CurveSettings, FitSettings, SplitSettings
from mil.tasks.task import Task

COMMAND = "learning-curve"


def run_learning_curve(  # noqa: PLR0913 - what, and how it is run
    cohort: Cohort,
    models: Sequence[str],
    out: Path,
    *,
    fit: FitSettings,
    curve: CurveSettings,
    workers: int = 0,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    notify: Callable[[str], None] = lambda _text: None,
) -> LearningCurve:
    """Predict every case out of fold by models that learnt from few cases, and write the folder.

    An interrupted call goes on after the last draw that is complete.

    Args:
        cohort: cases with bags, loaded from a table and a store.
        models: names of heads and baselines.
        out: the folder.
        fit: how each model is trained.
        curve: numbers of cases, draws and folds.
        workers: draws at once; 0 takes one per core where that is worth their start.
        overwrite: replace a finished curve.
        settings: what run.json records; made from the arguments if not given.
        progress: is advanced by each draw of each number of cases.
        notify: called with what a reader should know before any number.

    Raises:
        FitError: a model is unknown or cannot learn classes, or a fit fails.
        CohortError: the outcome is no class, or the cohort cannot carry the folds or any number of cases.
        LeakageError: a backbone has seen a case that would be tested.
        RunError: the folder holds something else, or predictions that are not as they were written.
    """
    check_task(cohort.task)
    check_models(cohort.task, models, fit.chunk_tiles, notify)
    notify_cohort(cohort, notify)
    folds = draw_folds(
        cohort.task,
        cohort.names,
        cohort.labels,
        [case.site for case in cohort.cases],
        SplitSettings(folds=curve.folds, seed=curve.seed),
        notify,
    )
    check_inputs(cohort, folds, models, fit)
    label_of = dict(zip(cohort.names, cohort.labels, strict=True))
    shots, notice = possible_shots(curve.shots, folds, label_of)
    if notice:
        notify(notice)
    facts = cohort_facts(cohort) | clinical_facts(cohort, models, fit.clinical, notify)
    facts["folds_sha256"] = folds_sha256(folds)
    recorded = settings or {
        **cohort_settings(cohort, out),
        **asdict(fit),
        "models": list(models),
        **asdict(curve),
    }
    run = start_run(out, COMMAND, recorded, facts, overwrite=overwrite)
    write_folds(out / files.FOLDS, folds)
    work = _Draw(cohort, tuple(models), folds, fit, curve.seed, out / "draws")
    tasks = [(draw, k) for draw in range(1, curve.draws + 1) for k in shots]
    _predict(work, tasks, workers, progress or Silent())
    result = LearningCurve(
        path=out,
        models=tuple(models),
        shots=shots,
        draws=curve.draws,
        class_counts={name: cohort.labels.count(name) for name in cohort.classes},
        most=most_shots(folds, label_of)[0],
        scores=tuple(s for draw, k in tasks for s in score_draw(work.read(draw, k), draw, k)),
    )
    _write(result)
    finish_run(run)
    return result


def check_task(task: Task) -> None:
    """Refuse a task that has no learning curve.

    Raises:
        CohortError: naming the task.
    """
    if not task.has_learning_curve:
        raise CohortError(
            "A learning curve draws training cases of each class and follows the AUC of the classes; there "
            f"is none for the task {task.name}. Leave out task, so that the column label is learnt."
        )


@dataclass(frozen=True)
class _Draw:
    """Predicts every case with one draw of training cases; may be sent to another process."""

    cohort: Cohort
    models: tuple[str, ...]
    folds: tuple[Fold, ...]
    fit: FitSettings
    seed: int
    folder: Path

    def path(self, draw: int, shots: int) -> Path:
        """The file of the predictions."""
        return self.folder / f"draw-{draw}-shots-{shots}.csv"

    def __call__(self, draw: int, shots: int) -> None:
        """Predict and write the file."""
        label_of = dict(zip(self.cohort.names, self.cohort.labels, strict=True))
        reduced = draw_shots(self.folds, label_of, shots, draw=draw, seed=self.seed)
        predictions = cross_validate(self.cohort, reduced, self.models, self.fit, seed=self.seed)
        write_predictions(self.path(draw, shots), predictions)

    def read(self, draw: int, shots: int) -> ClassPredictions:
        """The predictions, checked.

        Raises:
            RunError: they are of other models or cases.
        """
        path = self.path(draw, shots)
        predictions = ClassPredictions.expect(read_predictions(path), str(path))
        same = (
            predictions.models == self.models
            and predictions.repeats == (draw,)
            and predictions.classes == self.cohort.classes
            and set(predictions.table["case"]) == set(self.cohort.names)
        )
        if not same:
            raise RunError(
                f"{path} is not as it was written. Remove it, and its draw is made again."
            )
        return predictions


def _predict(
    work: _Draw, tasks: Sequence[tuple[int, int]], workers: int, progress: Progress
) -> None:
    """Make the draws whose predictions are not there yet."""
    missing = [task for task in tasks if not work.path(*task).exists()]
    with progress.task("learning curve", len(missing), "draws") as advance:
        for _ in run_tasks(work, missing, workers=workers):
            advance(1)


def _write(curve: LearningCurve) -> None:
    """The tables and the figure."""
    write_rows(curve.path / "draws.csv", curve.draw_rows())
    write_rows(curve.path / "summary.csv", curve.rows())
    save_figure(draw_curve(curve), curve.path / "learning-curve")
