"""A study from Python: cross-validate models on a cohort, then judge, explain and report the run."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

from features.arguments import checked
from mil.runs import run as stored

if TYPE_CHECKING:  # torch, pandas and matplotlib come only with what needs them
    from features.bags.bag import Bag
    from features.progress import Progress
    from mil.answers.predict import Answers
    from mil.audit.shots import LearningCurve
    from mil.data.cohort import Cohort
    from mil.evaluation.judge import Comparison, Evaluation
    from mil.explanation.scores import TileScores
    from mil.explanation.write import Explanation
    from mil.heads.head import Head
    from mil.learning.fitted import FittedModel
    from mil.settings import FitSettings, JudgeSettings

StrPath: TypeAlias = str | os.PathLike[str]
ModelLike: TypeAlias = "str | type[Head]"


class Run(stored.Run):
    """The folder of a cross-validation or of a trained model, and what can be done with it.

    Besides the methods below, ``run.models`` are the names of its models, ``run.cohort()`` is the cohort with
    the bags it was tested on, ``run.folds`` says who was trained on and who was tested, ``run.bag(slide)``
    is the bag of a slide, ``run.predictions()`` are the predictions out of fold, and
    ``run.model_for(slide, model)`` is the fitted model that has not seen the slide's case, with its relation
    to that case.

    Example:
        run = mil.open_run("run")
        print(run.models, len(run.folds), "folds")
        fitted, relation = run.model_for("case-01-s1", "abmil")
        print(relation)  # model of fold 3, not trained on this case
    """

    def evaluate(self, settings: "JudgeSettings | None" = None) -> "Evaluation":
        """Judge every model over the cases, with 95 % intervals; see ``mil.evaluate``.

        Raises:
            RunError: the predictions are not those the run has written.
            PredictionsError: a setting does not suit what was predicted.

        Example:
            auc = mil.open_run("run").evaluate()["abmil"].metrics["auc"]
            print(auc.value, auc.low, auc.high, auc.method)
        """
        from mil.evaluation.judge import evaluate

        return evaluate(self.predictions(), settings)

    def compare(self) -> "Comparison":
        """Test the models against each other over the same cases; see ``mil.compare``.

        Raises:
            RunError: the predictions are not those the run has written.

        Example:
            for pair in mil.open_run("run").compare().pairs:
                print(pair.first, pair.second, pair.to_json())
        """
        from mil.evaluation.judge import compare

        return compare(self.predictions())

    def explain(
        self,
        slide: str,
        *,
        method: str | None = None,
        model: str | None = None,
        target: str | None = None,
        regions: StrPath | None = None,
        progress: "Progress | None" = None,
    ) -> "Explanation":
        """Explain a slide by the model that has not seen its case, and measure how faithful the map is.

        Args:
            slide: its name, without folder and suffix.
            method: a name of ``mil.list_methods()``; if not given ``evidence`` where the model's answer is a
                sum over tiles, else ``attention`` or ``single-tile``.
            model: name of the model; if not given the first of the run that suits the method.
            target: the class to explain, or ``risk``; if not given the predicted class, or the risk.
            regions: folder of annotations, by slide, of what the map should find.
            progress: shows how the work advances.

        Returns:
            The map with its measures; ``save(folder)`` writes PNG, CSV, GeoJSON for QuPath, and JSON.

        Raises:
            FitError: method, model and bag do not suit each other, or the method needs the slide's pixels.
            RunError: the bag or the model has changed since the run.
            BagError: the slide's bag is missing or damaged.

        Example:
            explanation = mil.open_run("run").explain("case-01-s1", method="evidence", model="abmil")
            print(explanation.answer, explanation.verdict)
            print(explanation.scores.values)  # (N,) one score per tile
            explanation.save("explained")
        """
        from mil.errors import FitError
        from mil.explanation.request import MapRequest
        from mil.explanation.write import explain_bag

        request = MapRequest(
            method=method,
            model=model,
            target=target,
            regions=None if regions is None else Path(regions),
        )
        if request.row is not None and request.row.needs_slide:
            raise FitError(
                f"method {method} looks into the slide's pixels. Call mil.explanation.write.explain_slide "
                "with the slide's file, or choose another method."
            )
        return explain_bag(self, self.bag(slide), request, progress=progress)

    def write_report(
        self, path: StrPath | None = None, *, progress: "Progress | None" = None
    ) -> Path:
        """Write the run as one self-contained page, with its figures as files beside it.

        Args:
            path: the page to write; ``report.html`` in the folder of the run if not given.
            progress: shows how many heatmaps are drawn.

        Returns:
            Where the page is.

        Raises:
            RunError: the run is not a finished cross-validation.
            CohortError: its table or its bags are no longer where they were.

        Example:
            mil.open_run("run").write_report("report.html")
        """
        from mil.report.gather import gather
        from mil.report.page import write_report

        page = self.path / "report.html" if path is None else Path(path)
        write_report(gather(self, progress=progress), page)
        return page


for _method in ("evaluate", "compare", "explain", "write_report"):
    setattr(Run, _method, checked(getattr(Run, _method), f"Run.{_method}"))


class NewFiles(TypedDict, total=False):
    """How new slides become bags.

    Attributes:
        annotations: folder with the slides' annotations.
        segmenter: the file of a segmenter, for slides without annotations.
        weights: the backbone's weights file, if the model's bags were made with one.
        slide_mpp: micrometres per level-0 pixel, where the slides do not say.
    """

    annotations: StrPath
    segmenter: StrPath
    weights: str
    slide_mpp: float


def predict_slides(
    source: "StrPath | Run",
    inputs: "StrPath | Sequence[StrPath]",
    *,
    model: str = "",
    cohort: StrPath | None = None,
    store: StrPath | None = None,
    out: StrPath | None = None,
    progress: "Progress | None" = None,
    **files: Unpack[NewFiles],
) -> "Answers":
    """Answer for new slides and their cases, and say where the model does not know.

    Args:
        source: a finished run of a cross-validation, whose fits answer together, or of a training, or a
            package; its folder, or the open run.
        inputs: bags (.h5) or slides.
        model: its name; of a cross-validation the best one if not given.
        cohort: table that says which case each slide belongs to.
        store: folder for the bags of slides; ``bags`` in the run's folder, or beside ``out``, if not given.
        out: a CSV to write, with a JSON and a page of the same name beside it.
        progress: shows slides, tiles and maps.
        **files: how slides become bags; see ``NewFiles``.

    Returns:
        One row per slide and per case; a slide that fails raises nothing.

    Raises:
        RunError: the source is neither a finished run nor a package, or has no such model.
        BackboneError: the weights file is not given.
        CohortError: the model reads a column that is not in the table.

    Example:
        answers = mil.predict_slides("run", ["store/case-01-s1.h5"], model="abmil")
        for row in answers.slides:
            print(row.slide, row.outcome, row.candidates, row.reason)
    """
    from mil.answers.gather import NewInputs
    from mil.answers.package import open_predictor, places
    from mil.answers.predict import predict_inputs
    from mil.report.answers import write_answers

    folder = source.path if isinstance(source, stored.Run) else Path(source)
    predictor = open_predictor(folder, model)
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    annotations, segmenter = files.get("annotations"), files.get("segmenter")
    new = NewInputs(
        inputs=tuple(Path(path) for path in paths),
        weights=files.get("weights"),
        slide_mpp=files.get("slide_mpp"),
        annotations=None if annotations is None else Path(annotations),
        segmenter=None if segmenter is None else Path(segmenter),
    )
    table = predictor.read_table(Path(cohort) if cohort is not None else None)
    bags = places(folder, None if out is None else Path(out))[1] if store is None else Path(store)
    answers = predict_inputs(predictor, new, bags, table=table, progress=progress)
    if out is not None:
        write_answers(answers, Path(out), progress=progress)
    return answers


def open_run(path: StrPath, *, store: StrPath | None = None, cohort: StrPath | None = None) -> Run:
    """Open the folder of a run.

    A bag store or a cohort table that has moved is named once and remembered in the folder.

    Args:
        path: the folder.
        store: where the run's bag store is now.
        cohort: where the run's cohort table is now.

    Raises:
        RunError: there is no run, it was written by a newer version, or ``store`` or ``cohort`` is another.
        CohortError: ``cohort`` cannot be read.

    Example:
        run = mil.open_run("run")
        moved = mil.open_run("run", store="store", cohort="cohort.csv")
    """
    return _user_run(
        stored.open_run(
            Path(path),
            store=None if store is None else Path(store),
            cohort=None if cohort is None else Path(cohort),
        )
    )


def cross_validate(  # noqa: PLR0913 - what, and how it is run
    cohort: "Cohort",
    models: Sequence[ModelLike] | None = None,
    *,
    out: StrPath,
    folds: int | str = 5,
    repeats: int = 1,
    seed: int = 0,
    settings: "FitSettings | None" = None,
    combine: str = "",
    workers: int = 0,
    overwrite: bool = False,
    progress: "Progress | None" = None,
    notify: Callable[[str], None] | None = None,
) -> Run:
    """Cross-validate models on whole cases: every case is predicted by models that have not seen it.

    Fits, folds, predictions and numbers are written into one folder. The same call goes on with an
    interrupted run.

    Args:
        cohort: cases with bags, from ``mil.load_cohort``.
        models: names of ``mil.list_models()`` and heads of your own as classes; a comparison that suits the
            task if not given.
        out: the run folder.
        folds: number of folds, ``"loo"`` to leave one case out at a time, or ``"site"`` to leave out one
            value of the table's site column at a time.
        repeats: how often all folds are drawn again.
        seed: of the folds and of training.
        settings: how each model is trained; defaults that suit 20 to 50 cases if not given.
        combine: a model whose score is combined with the clinical columns inside each fold.
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
    from mil.heads.registry import model_name
    from mil.runs.cross_validation import Computing, Plan, StoredCases, run_cross_validation
    from mil.runs.record import NewRun
    from mil.settings import SplitSettings

    if models is None:
        models = cohort.task.default_models
    chosen = [models] if isinstance(models, str) else models
    plan = Plan(
        models=tuple(model_name(model) for model in chosen),
        fit=_settings_for(cohort, settings),
        split=SplitSettings(folds=str(folds), repeats=repeats, seed=seed),
        combine=combine,
    )
    folder = NewRun(path=Path(out), overwrite=overwrite)
    computing = Computing(workers=workers, progress=progress or Silent(), notify=notify or _ignore)
    result = run_cross_validation(StoredCases(cohort), plan, folder, computing)
    return _user_run(result.run)


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
    from mil.heads.registry import model_name
    from mil.settings import CurveSettings

    return run_learning_curve(
        cohort,
        [model_name(model) for model in ([models] if isinstance(models, str) else models)],
        Path(out),
        fit=_settings_for(cohort, settings),
        curve=CurveSettings(shots=tuple(shots), draws=draws, folds=str(folds), seed=seed),
        workers=workers,
        overwrite=overwrite,
        progress=progress,
        notify=notify or _ignore,
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
    from mil.heads.registry import model_name
    from mil.learning.crossval import fit_cases
    from mil.learning.head_weights import check_head_weights
    from mil.runs.cross_validation import check_models

    name, chosen = model_name(model), _settings_for(cohort, settings)
    check_models(cohort.task, [name], chosen.chunk_tiles)
    check_head_weights(chosen.head_weights, [name], cohort.recipe)
    return fit_cases(name, cohort.cases, cohort.classes, chosen, seed, task=cohort.task)


def explain(
    fitted: "FittedModel", bag: "Bag", *, method: str | None = None, target: str | None = None
) -> "TileScores":
    """Score the tiles of a bag by their part in what a model answers.

    ``Run.explain`` also chooses the model that has not seen the case, measures how faithful the map is and
    draws it.

    Args:
        fitted: the model.
        bag: made by the model's own recipe.
        method: a name of ``mil.list_methods()``; if not given as in ``Run.explain``.
        target: the class to explain, or ``risk``; if not given the predicted class, or the risk.

    Returns:
        One score per tile, (N,).

    Raises:
        FitError: there is no such method or class, or method, model and bag do not suit each other.

    Example:
        model = mil.load_model("abmil.safetensors")
        scores = mil.explain(model, mil.read_bag("store/case-01-s1.h5"), method="evidence")
        print(scores.values.shape, scores.quantity)
    """
    from mil.explanation.default import default_scores
    from mil.explanation.methods import find_method
    from mil.explanation.target import explanation_target

    explained = explanation_target(fitted, bag, target)
    return default_scores(explained) if method is None else find_method(method)(explained)


def _settings_for(cohort: "Cohort", settings: "FitSettings | None") -> "FitSettings":
    """The settings of the cohort's own task."""
    from mil.settings import FitSettings

    return replace(settings or FitSettings(), task=cohort.task.name)


def _user_run(run: stored.Run) -> Run:
    return Run(run.path, run.info, run.moved)


def _ignore(_notice: str) -> None:
    """The default of ``notify``."""
