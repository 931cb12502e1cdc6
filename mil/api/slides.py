"""Answers for new slides, and what a model's answer of one slide rests on."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from mil.api.options import StrPath, as_path
from mil.api.run import Run
from mil.runs import run as stored

if TYPE_CHECKING:
    from features.bags.bag import Bag
    from features.progress import Progress
    from mil.answers.predict import Answers
    from mil.explanation.scores import TileScores
    from mil.learning.fitted import FittedModel


class NewFiles(TypedDict, total=False):
    """How new slides become bags.

    Attributes:
        annotations: folder with the slides' annotations.
        classes: annotation classes to read as those the model learnt from, where slides or bags name the same
            tissue otherwise.
        segmenter: the file of a segmenter, for slides without annotations.
        weights: the backbone's weights file, if the model's bags were made with one.
        slide_mpp: micrometres per level-0 pixel, where the slides do not say.
        slide_mpp_force: micrometres per level-0 pixel, whatever the slides say; an mpp column of ``cohort``
            takes precedence.
    """

    annotations: StrPath
    classes: Sequence[str]
    segmenter: StrPath
    weights: str
    slide_mpp: float
    slide_mpp_force: float


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
        cohort: table that says which case each slide belongs to, and may have its mpp.
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
    from mil.answers.new_inputs import NewInputs
    from mil.answers.package import open_predictor, places
    from mil.answers.predict import predict_inputs
    from mil.report.answers import write_answers

    folder = source.path if isinstance(source, stored.Run) else Path(source)
    predictor = open_predictor(folder, model)
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    new = NewInputs(
        inputs=tuple(Path(path) for path in paths),
        weights=files.get("weights"),
        slide_mpp=files.get("slide_mpp"),
        slide_mpp_force=files.get("slide_mpp_force"),
        annotations=as_path(files.get("annotations")),
        classes=tuple(files.get("classes", ())),
        segmenter=as_path(files.get("segmenter")),
    )
    table = predictor.read_table(as_path(cohort))
    bags = places(folder, as_path(out))[1] if store is None else Path(store)
    answers = predict_inputs(predictor, new, bags, table=table, progress=progress)
    if out is not None:
        write_answers(answers, Path(out), progress=progress)
    return answers


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


def read_card(source: StrPath, model: str = "") -> str:
    """What a model is for, what it learnt from, how well it does out of fold, and its limits.

    Args:
        source: a finished run, or a package.
        model: of the run; its best if not given.

    Returns:
        The card as Markdown.

    Raises:
        RunError: the folder is neither, is not finished, or was changed.

    Example:
        print(mil.read_card("sarcoma-model"))
    """
    from mil.answers import package
    from mil.answers.card import card_of_run
    from mil.answers.run_predictor import predictor_of_run

    folder = Path(source)
    if package.is_package(folder):
        return package.read_card(folder)
    run = stored.open_run(folder)
    return card_of_run(run, predictor_of_run(run, model)).to_markdown()
