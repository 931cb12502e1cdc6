"""`mil explain --all`: every method on every slide of a run, and which is the most faithful."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.maps import UNSEEN, class_asked, known_tiles, model_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cli.explain import ExplainOptions
    from features.bags import Bag
    from mil.fitted import Fitted
    from mil.runs import Run


def explain_all(options: "ExplainOptions", run: "Run") -> list[Path]:
    """Every method on every slide: a table on paper, and one to keep, which grows slide by slide."""
    import pandas as pd

    from cli.console import Bars, counted, say, show_table, warn
    from features.whole import whole
    from mil.explain.examine import conclusion, summarise_methods
    from mil.explain.worth import guessing

    rows: list[dict[str, Any]] = []
    unsuited: dict[str, str] = {}
    seen, path = 0, options.out
    undrawn: list[str] = []
    with Bars().task("slides", len(run.info["bags"]), "slides") as advance:
        for slide in run.info["bags"]:
            bag, fitted, caption = _held(options, run, slide)
            seen += not caption.endswith(UNSEEN)
            known = _known_if_any(options, bag, undrawn)
            rows += _rows(options, run, fitted, bag, known, unsuited)
            path = options.out / f"faithfulness-{fitted.model}.csv"
            with whole(path) as temporary:
                pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")
            advance(1)
    methods = summarise_methods(pd.DataFrame(rows))
    header = [
        "method", "deletion", "(random)", "insertion", "gain", "infidelity", "better than random",
        "known tiles",
    ]  # fmt: skip
    show_table(
        header,
        [
            [
                each.method, f"{each.deletion:.3f}", f"{each.deletion_random:.3f}", f"{each.insertion:.3f}",
                f"{each.gain:.3f}", f"{each.infidelity:.2f}", f"{each.better}/{each.slides}",
                "-" if each.auc is None else f"{each.auc:.3f}",
            ]
            for each in methods
        ],
    )  # fmt: skip
    for reason in unsuited.values():
        say(reason)
    if undrawn:
        say(f"No drawing of {counted(len(undrawn), 'slide')}: {', '.join(undrawn[:5])}.")
    if seen:
        warn(f"Of {counted(len(run.info['bags']), 'slide')} {seen} may have taught the model.")
    model = str(rows[0]["model"])
    if told := guessing(run, model):
        warn(told)
    else:
        say(conclusion(methods, model))
    say(f"  {path}")
    return [path]


def _held(options: "ExplainOptions", run: "Run", slide: str) -> "tuple[Bag, Fitted, str]":
    """A slide's bag, its model, and what that has to do with its case."""
    from features.bags import read_bag

    bag = read_bag(_store_of(run, slide) / f"{slide}.h5")
    return bag, *model_for(run, bag, options)


def _known_if_any(
    options: "ExplainOptions", bag: "Bag", undrawn: list[str]
) -> "NDArray[np.bool_] | None":
    """The known tiles, where some are and some are not; a slide without a drawing is noted."""
    from features.errors import AnnotationError

    try:
        known = known_tiles(options.regions, bag)
    except AnnotationError:
        undrawn.append(bag.slide)
        return None
    return None if known is None or known.all() == known.any() else known


def _rows(
    options: "ExplainOptions",
    run: "Run",
    fitted: "Fitted",
    bag: "Bag",
    known: "NDArray[np.bool_] | None",
    unsuited: dict[str, str],
) -> list[dict[str, Any]]:
    """A row for each method that suits the model; of the others, why not."""
    from mil.errors import FitError
    from mil.explain.examine import examine, row_of
    from mil.explain.faithfulness import random_curves
    from mil.explain.methods import METHODS
    from mil.explain.question import ask

    question = ask(fitted, bag, class_asked(options, run, bag, fitted))
    random, rows = random_curves(question), []
    for method in METHODS:
        try:
            rows.append(row_of(examine(question, method, random, known)))
        except FitError as error:
            unsuited[method] = str(error)
    return rows


def _store_of(run: "Run", slide: str) -> Path:
    """Where the run's bag of a slide lies."""
    from mil.splits import read_folds

    if run.settings.get("finetune", "off") != "per-fold":
        return Path(run.settings["store"])
    case = run.case_of(slide)
    folds = read_folds(run.path / "folds.json")
    return next(run.fold_store(fold) for fold in folds if case in fold.test)
