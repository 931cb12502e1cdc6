"""`mil explain --all`: every method on every slide of a run, and which is the most faithful."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.maps import class_asked, known_tiles, model_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cli.explain import ExplainOptions
    from features.bags.bag import Bag
    from mil.learning.fitted import Fitted
    from mil.runs.run import Relation, Run


def explain_all(options: "ExplainOptions", run: "Run") -> list[Path]:
    """Every method on every slide: a table on paper, and one to keep.

    The table grows slide by slide in ``*.part.csv``, from which the same command goes on after a kill.
    """
    import pandas as pd

    from cli.console import Bars, counted, say, show_table, warn
    from features.files.atomic import write_atomic
    from mil.explain.assess import conclusion, summarise_methods
    from mil.explain.caveats import chance_caveat, external_caveat

    asked = _fingerprint(options, run)
    rows: list[dict[str, Any]] = []
    unsuited: dict[str, str] = {}
    undrawn: list[str] = []
    vain: list[str] = []
    seen, path = 0, options.out
    with Bars().task("slides", len(run.bags), "slides") as advance:
        for slide in run.bags:
            bag, fitted, relation = _held(options, run, slide)
            path = options.out / f"faithfulness-{fitted.model}.csv"
            part = path.with_suffix(".part.csv")
            rows = rows or _kept(part, asked)
            seen += relation.seen is not False
            known = _known_if_any(options, bag, undrawn, vain)
            if slide not in {row["slide"] for row in rows}:
                new = _rows(options, run, fitted, bag, known, unsuited)
                rows += [{"asked": asked, **row} for row in new]
                write_atomic(part, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
            advance(1)
    table = pd.DataFrame(rows).drop(columns="asked")
    write_atomic(path, table.to_csv(index=False, float_format="%.6g"))
    path.with_suffix(".part.csv").unlink()
    methods = summarise_methods(table)
    header = [
        "method", "deletion", "(random)", "insertion", "gain", "infidelity", "better than random",
        "known tiles",
    ]  # fmt: skip
    show_table(
        header,
        [
            [
                each.method, f"{each.deletion:.3f}", f"{each.deletion_random:.3f}", f"{each.insertion:.3f}",
                f"{each.gain:.3f}", "-" if isnan(each.infidelity) else f"{each.infidelity:.2f}",
                f"{each.better}/{each.slides}",
                "-" if each.auc is None else f"{each.auc:.3f}",
            ]
            for each in methods
        ],
    )  # fmt: skip
    for reason in unsuited.values():
        say(reason)
    for what, slides in (("No drawing", undrawn), ("No tile, or every one, in the drawing", vain)):
        if slides:
            say(f"{what} of {counted(len(slides), 'slide')}: {', '.join(slides)}.")
    if seen:
        warn(f"Of {counted(len(run.bags), 'slide')} {seen} may have taught the model.")
    model = str(rows[0]["model"])
    if told := external_caveat(run):
        warn(told)
    if told := chance_caveat(run, model):
        warn(told)
    else:
        say(conclusion(methods, model))
    say(f"  {path}")
    return [path]


def _fingerprint(options: "ExplainOptions", run: "Run") -> str:
    """What the rows of a table answer: another question's are not taken up."""
    from features.bags.bag import fingerprint

    regions = str(options.regions and options.regions.resolve())
    asked = {"class": options.class_name, "model": options.model, "regions": regions}
    return fingerprint({"run": run.info, **asked})


def _kept(part: Path, asked: str) -> list[dict[str, Any]]:
    """The rows that the same command, cut off, has left."""
    import pandas as pd

    if not part.is_file():
        return []
    rows: Any = pd.read_csv(part).to_dict("records")
    return list(rows) if all(row.get("asked") == asked for row in rows) else []


def _held(options: "ExplainOptions", run: "Run", slide: str) -> "tuple[Bag, Fitted, Relation]":
    """A slide's bag, its model, and what that has to do with its case."""
    bag = run.bag(slide)
    return bag, *model_for(run, bag, options)


def _known_if_any(
    options: "ExplainOptions", bag: "Bag", undrawn: list[str], vain: list[str]
) -> "NDArray[np.bool_] | None":
    """The known tiles, where some are and some are not; a slide that has none such is noted."""
    from features.errors import AnnotationMissing

    try:
        known = known_tiles(options.regions, bag)
    except AnnotationMissing:
        undrawn.append(bag.slide)
        return None
    if known is not None and known.all() == known.any():
        vain.append(bag.slide)
        return None
    return known


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
    from mil.explain.assess import assess_map, summary_row
    from mil.explain.faithfulness import random_curves
    from mil.explain.methods import METHODS
    from mil.explain.target import explanation_target

    question = explanation_target(fitted, bag, class_asked(options, run, bag, fitted))
    random, rows = random_curves(question), []
    for method in METHODS:
        try:
            rows.append(summary_row(assess_map(question, method, random, known)))
        except FitError as error:
            unsuited[method] = str(error)
    return rows
