"""Learning from Python: cross-validate, train, fit, and learn from few cases."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mil.api.options import ModelLike, StrPath, model_names_of, settings_for, silence
from mil.api.run import Run, user_run

if TYPE_CHECKING:  # torch, pandas and matplotlib come only with what needs them
    from features.progress import Progress
    from mil.audit.shots import LearningCurve
    from mil.data.cohort import Cohort
    from mil.finetune.cross_validation import TunedCases
    from mil.learning.fitted import FittedModel
    from mil.segmentation.cases import SegmentedCases
    from mil.settings import FitSettings


def cross_validate(  # noqa: PLR0913 - what, and how it is run
    cohort: "Cohort | TunedCases | SegmentedCases",
    models: Sequence[ModelLike] | None = None,
    *,
    out: StrPath,
    folds: int | str = 5,
    repeats: int = 1,
    seed: int = 0,
    settings: "FitSettings | None" = None,
    combine: str = "",
    engine: Literal["loky", "ray"] = "loky",
    workers: int = 0,
    overwrite: bool = False,
    progress: "Progress | None" = None,
    notify: Callable[[str], None] | None = None,
) -> Run:
    """Cross-validate models on whole cases: every case is predicted by models that have not seen it.

    Fits, folds, predictions and numbers are written into one folder. The same call goes on with an
    interrupted run.

    Args:
        cohort: cases with bags, from ``mil.load_cohort``; or cases whose bags each fold makes itself, from
            ``mil.finetune_per_fold`` or ``mil.segment_per_fold``.
        models: names of ``mil.list_models()`` and heads of your own as classes; a comparison that suits the
            task if not given.
        out: the run folder.
        folds: number of folds, ``"loo"`` to leave one case out at a time, or ``"site"`` to leave out one
            value of the table's site column at a time.
        repeats: how often all folds are drawn again.
        seed: of the folds and of training.
        settings: how each model is trained; defaults that suit 20 to 50 cases if not given.
        combine: a model whose score is combined with the clinical columns inside each fold.
        engine: where fits run: processes of this machine, or a Ray cluster.
        workers: fits at once; 0 takes one per core where that is worth their start. The results are the same
            for any number.
        overwrite: replace a finished run.
        progress: is advanced by each fit.
        notify: called with what a reader should know before any number, as ``print``.

    Returns:
        The finished run.

    Raises:
        FitError: a model is unknown or cannot learn this outcome, or a fit fails.
        CohortError: the cohort cannot carry the folds, or was not loaded from files.
        LeakageError: a backbone has seen a case that would be tested.
        RunError: the folder holds another run.

    Example:
        cohort = mil.load_cohort("cohort.csv", "store")
        quick = mil.FitSettings(epochs=2, seeds=1)
        run = mil.cross_validate(
            cohort, ["majority", "abmil"], folds=5, out="run", settings=quick, overwrite=True
        )
        print(run.evaluate()["abmil"].metrics["auc"].value)
    """
    from features.progress import Silent
    from mil.data.cohort import Cohort
    from mil.runs.cross_validation import Computing, Plan, StoredCases, run_cross_validation
    from mil.runs.record import NewRun
    from mil.settings import SplitSettings

    plan = Plan(
        models=model_names_of(cohort.task.default_models if models is None else models),
        fit=settings_for(cohort.task, settings),
        split=SplitSettings(folds=str(folds), repeats=repeats, seed=seed),
        combine=combine,
    )
    folder = NewRun(path=Path(out), overwrite=overwrite)
    computing = Computing(engine, workers, progress or Silent(), notify or silence)
    cases = StoredCases(cohort) if isinstance(cohort, Cohort) else cohort
    return user_run(run_cross_validation(cases, plan, folder, computing).run)


def train(
    cohort: "Cohort",
    model: ModelLike = "abmil",
    *,
    out: StrPath,
    settings: "FitSettings | None" = None,
    seed: int = 0,
    overwrite: bool = False,
    notify: Callable[[str], None] | None = None,
) -> Run:
    """Fit one model on all cases, and write it into a run folder that answers for new slides.

    It is not judged, as no case is left for that; ``mil.fit`` writes nothing.

    Args:
        cohort: cases with bags, from ``mil.load_cohort``.
        model: a name of ``mil.list_models()``, or a head of your own as a class.
        out: the run folder.
        settings: how the model is trained; defaults that suit 20 to 50 cases if not given.
        seed: of weights, draws and order.
        overwrite: replace a finished run.
        notify: called with what a reader should know of the cohort, as ``print``.

    Raises:
        FitError: the model is unknown or cannot learn this outcome, or the fit fails.
        CohortError: the cohort was not loaded from files.
        LeakageError: bags were fitted on a case that the table keeps for external validation.
        RunError: the folder holds another run.

    Example:
        cohort = mil.load_cohort("cohort.csv", "store")
        trained = mil.train(cohort, "mean", out="trained", settings=mil.FitSettings(epochs=2, seeds=1))
        print(trained.models, len(trained.labels), "cases")
    """
    from mil.runs.cross_validation import train_on_all
    from mil.runs.record import NewRun

    [name] = model_names_of(model)
    fit = settings_for(cohort.task, settings)
    folder = NewRun(path=Path(out), overwrite=overwrite)
    run, _ = train_on_all(cohort, name, folder, fit=fit, seed=seed, notify=notify or silence)
    return user_run(run)


def learning_curve(  # noqa: PLR0913 - what, and how it is run
    cohort: "Cohort",
    models: Sequence[ModelLike] = ("simpleshot", "knn", "pooled-logistic", "abmil"),
    *,
    out: StrPath,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    draws: int = 10,
    folds: int | str = 5,
    seed: int = 0,
    settings: "FitSettings | None" = None,
    workers: int = 0,
    overwrite: bool = False,
    progress: "Progress | None" = None,
    notify: Callable[[str], None] | None = None,
) -> "LearningCurve":
    """Cross-validate models that learn from few cases per class.

    Every case is tested out of fold in every draw; of the training part of each fold, ``shots`` cases per
    class are drawn. In one draw the larger numbers contain the smaller ones. Numbers that a training part
    does not have are left out. The same call goes on with an interrupted one.

    Args:
        cohort: cases with bags, from ``mil.load_cohort``; their outcome is a class.
        models: names of ``mil.list_models()`` and heads of your own as classes.
        out: the folder for the predictions, tables and the figure.
        shots: numbers of training cases per class.
        draws: how often training cases are drawn.
        folds: as in ``mil.cross_validate``.
        seed: of the folds, of the draws and of training.
        settings: how each model is trained.
        workers: draws at once; 0 takes one per core where that is worth their start. The results are the
            same for any number.
        overwrite: replace a finished curve.
        progress: is advanced by each draw.
        notify: called with what a reader should know before any number, as ``print``.

    Returns:
        The curve: ``points()`` has the mean and the spread over the draws of each model and number.

    Raises:
        FitError: a model is unknown or cannot learn classes, or a fit fails.
        CohortError: the outcome is no class, or the cohort cannot carry the folds or any of the numbers.
        LeakageError: a backbone has seen a case that would be tested.
        RunError: the folder holds something else.

    Example:
        cohort = mil.load_cohort("cohort.csv", "store")
        curve = mil.learning_curve(cohort, ["simpleshot"], shots=[1, 2], draws=2, folds=2, out="few")
        for point in curve.points():
            print(point.model, point.shots, point.metric, point.mean, point.sd)
    """
    from mil.audit.shots_run import run_learning_curve
    from mil.settings import CurveSettings

    return run_learning_curve(
        cohort,
        model_names_of(models),
        Path(out),
        fit=settings_for(cohort.task, settings),
        curve=CurveSettings(shots=tuple(shots), draws=draws, folds=str(folds), seed=seed),
        workers=workers,
        overwrite=overwrite,
        progress=progress,
        notify=notify or silence,
    )


def fit(
    cohort: "Cohort",
    model: ModelLike = "abmil",
    *,
    settings: "FitSettings | None" = None,
    seed: int = 0,
) -> "FittedModel":
    """Fit one model on all cases of a cohort, to predict new slides with.

    It is not judged: no case is left to judge it by. ``mil.cross_validate`` says what to expect of it.

    Args:
        cohort: cases with bags.
        model: a name of ``mil.list_models()``, or a head of your own as a class.
        settings: how the model is trained; defaults that suit 20 to 50 cases if not given.
        seed: of weights, draws and order.

    Raises:
        FitError: the model is unknown or cannot learn this outcome, or the fit fails.

    Example:
        cohort = mil.load_cohort("cohort.csv", "store")
        model = mil.fit(cohort, "abmil", settings=mil.FitSettings(epochs=2, seeds=1))
        model.save("abmil.safetensors")
    """
    from mil.learning.crossval import fit_cases
    from mil.learning.head_weights import check_head_weights
    from mil.runs.cross_validation import check_models

    [name], chosen = model_names_of(model), settings_for(cohort.task, settings)
    check_models(cohort.task, [name], chosen.chunk_tiles)
    check_head_weights(chosen.head_weights, [name], cohort.recipe)
    return fit_cases(name, cohort.cases, cohort.classes, chosen, seed, task=cohort.task)
