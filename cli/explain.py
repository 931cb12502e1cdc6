"""`mil explain` and `mil report`: what to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from features.bags import Bag
    from mil.explain.examine import Examined
    from mil.fitted import Fitted
    from mil.runs import Run


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Settings of `mil explain`."""

    run: Path = field(
        metadata={"argument": "RUN", "help": "A run of `mil crossval` or `mil train`."}
    )
    input: Path | None = field(
        default=None,
        metadata={
            "argument": "BAG-or-SLIDE",
            "help": "A bag (.h5) or a slide; not with --all.",
        },
    )
    out: Path = field(metadata={"help": "Folder for the CSV, the PNG, the GeoJSON and the JSON."})
    method: str = field(
        default="attention",
        metadata={
            "help": "attention: where the head looks. evidence: each tile's share of the answer, exact. "
            "single-tile: the answer to each tile alone. integrated-gradients, gradient: the slope of the "
            "answer. ablation, shapley: what regions are worth."
        },
    )
    all: bool = field(
        default=False,
        metadata={
            "help": "Every method on every slide of the run: which is the most faithful to the model?"
        },
    )
    class_name: str | None = field(
        default=None,
        metadata={"flag": "--class", "help": "The class to explain; the one called if not given."},
    )
    model: str | None = field(
        default=None, metadata={"help": "The model; the run's first attention model if not given."}
    )
    regions: Path | None = field(
        default=None,
        metadata={
            "help": "Folder of annotations of what a map should find, by slide: how well does it?"
        },
    )
    annotations: Path | None = field(
        default=None, metadata={"help": "Folder with the slide's annotation."}
    )
    weights: str | None = field(
        default=None, metadata={"help": "The backbone's weights file, if the run used one."}
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={"help": "Micrometres per level-0 pixel, where the slide does not say."},
    )


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Settings of `mil report`."""

    run: Path = field(metadata={"argument": "RUN", "help": "A finished run of `mil crossval`."})
    out: Path | None = field(
        default=None, metadata={"help": "The page to write; RUN/report.html if not given."}
    )


@verb(
    app,
    ExplainOptions,
    examples=[
        "mil explain run store/case-01-s1.h5 --out explained",
        "mil explain run store/case-01-s1.h5 --method evidence --out explained",
        "mil explain trained slides/case-03-s1.tiff --annotations annotations --out explained",
        "mil explain run --all --out explained",
    ],
)
def explain(options: ExplainOptions) -> None:
    """Show why a model says what it says, tile by tile, and how true that picture is.

    Each map comes as CSV, heatmap PNG, tiles for QuPath, and JSON of what was measured. It is judged by
    taking its tiles away and putting them back, beside random orders: a map that is no better than random
    says so on its face. In a cross-validation the model is used that has not seen the slide's case.
    """
    run_explain(options)


def run_explain(options: ExplainOptions) -> list[Path]:
    """Write the files of one map, or the summary of all, and print where they are."""
    from cli.console import say
    from cli.inputs import bags_for
    from mil.explain.examine import examine
    from mil.explain.faithfulness import random_curves
    from mil.explain.question import ask
    from mil.runs import open_run

    _check_asked(options)
    run = open_run(options.run)
    if options.input is None:
        return _explain_all(options, run)
    [bag] = bags_for(
        [options.input],
        run.info["recipe"],
        run.path / "bags",
        annotations=options.annotations,
        weights=options.weights,
        slide_mpp=options.slide_mpp,
    )
    fitted, caption = _model_for(run, bag, options)
    question = ask(fitted, bag, options.class_name)
    known = _known_tiles(options.regions, bag)
    examined = examine(question, options.method, random_curves(question), known)
    say(f"{bag.slide}: {caption}")
    paths = _write(options.out, examined, caption)
    for path in paths:
        say(f"  {path}")
    return paths


def _check_asked(options: ExplainOptions) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        UsageError: an unknown method, or no slide, or one beside --all.
    """
    from difflib import get_close_matches

    from mil.explain.methods import METHODS

    if options.method not in METHODS:
        near = get_close_matches(options.method, METHODS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"No method {options.method!r}.{hint} Known: {', '.join(METHODS)}.")
    if (options.input is None) != options.all:
        raise UsageError("Give one bag or slide to explain, or --all for every slide of the run.")


def _write(out: Path, examined: "Examined", caption: str) -> list[Path]:
    """The four files of a map; the verdict is said too."""
    from cli.console import say, warn
    from features.slides import file_name
    from mil.explain.examine import facts_of
    from mil.explain.figure import draw_explanation
    from mil.explain.scores import write_csv, write_geojson
    from mil.runs import write_json

    scores, class_name = examined.scores, examined.question.class_name
    facts = facts_of(examined)
    say(f"  {class_name}, probability {facts['probability']:.2f}. {examined.faithfulness.verdict}.")
    if found := examined.localisation:
        say(
            f"  known tiles: AUC {found.auc:.3f} (p = {found.p:.2g}), {100 * found.mass:.0f} % of the map on "
            f"{100 * found.share:.0f} % of the tiles, its top {'inside' if found.pointing else 'outside'}"
        )
    for warning in examined.warnings:
        warn(f"  {warning}")
    out.mkdir(parents=True, exist_ok=True)
    base = out / f"{file_name(scores.bag.slide)}-{scores.model}-{scores.method}"
    suffixes = (".png", ".csv", ".geojson", ".json")
    paths = [base.with_name(base.name + suffix) for suffix in suffixes]
    told = f"{caption}\n{class_name}, probability {facts['probability']:.2f}"
    paths[0].write_bytes(
        draw_explanation(
            scores, examined.faithfulness, caption=told, class_name=class_name,
            warnings=examined.warnings,
        )
    )  # fmt: skip
    write_csv(paths[1], scores)
    write_geojson(paths[2], scores)
    write_json(paths[3], facts)
    return paths


def _explain_all(options: ExplainOptions, run: "Run") -> list[Path]:
    """Every method on every slide: a table on paper, and one to keep."""
    from dataclasses import asdict

    import pandas as pd

    from cli.console import Bars, say, show_table
    from features.bags import read_bag
    from mil.errors import FitError
    from mil.explain.examine import conclusion, examine, measures, summarise_methods
    from mil.explain.faithfulness import random_curves
    from mil.explain.methods import METHODS
    from mil.explain.question import ask

    maps: list[Examined] = []
    rows, unsuited, model = [], {}, ""
    with Bars().task("slides", len(run.info["bags"]), "slides") as advance:
        for slide in run.info["bags"]:
            bag = read_bag(_store_of(run, slide) / f"{slide}.h5")
            fitted, _ = _model_for(run, bag, options)
            model = fitted.model
            question = ask(fitted, bag, options.class_name)
            random, known = random_curves(question), _known_tiles(options.regions, bag)
            for method in METHODS:
                try:
                    examined = examine(question, method, random, known)
                except FitError as error:
                    unsuited[method] = str(error)
                    continue
                maps.append(examined)
                found = {
                    "slide": slide,
                    "model": model,
                    "method": method,
                    "class": question.class_name,
                }
                located = examined.localisation
                rows.append(
                    found | measures(examined.faithfulness) | (asdict(located) if located else {})
                )
            advance(1)
    methods = summarise_methods(maps)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"faithfulness-{model}.csv"
    pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g")
    header = [
        "method",
        "deletion",
        "(random)",
        "insertion",
        "gain",
        "better than random",
        "known tiles",
    ]
    show_table(
        header,
        [
            [
                each.method, f"{each.deletion:.3f}", f"{each.deletion_random:.3f}", f"{each.insertion:.3f}",
                f"{each.gain:.3f}", f"{each.better}/{each.slides}",
                "-" if each.auc is None else f"{each.auc:.3f}",
            ]
            for each in methods
        ],
    )  # fmt: skip
    for reason in unsuited.values():
        say(reason)
    say(conclusion(methods, model))
    say(f"  {path}")
    return [path]


def _store_of(run: "Run", slide: str) -> Path:
    """Where the run's bag of a slide lies."""
    from mil.splits import read_folds

    if run.settings.get("finetune", "off") != "per-fold":
        return Path(run.settings["store"])
    case = run.case_of(slide)
    folds = read_folds(run.path / "folds.json")
    return next(run.fold_store(fold) for fold in folds if case in fold.test)


def _known_tiles(regions: Path | None, bag: "Bag") -> "NDArray[np.bool_] | None":
    """Tiles of which at least half lies in what was drawn for the slide; None without drawings."""
    if regions is None:
        return None
    import shapely

    from features.annotations import find_annotation, polygons_of, read_annotations
    from features.masks import coverage

    drawing = read_annotations(find_annotation(regions, bag.slide, bag.slide))
    area = polygons_of(shapely.union_all([each.polygon for each in drawing.annotations]))
    x, y = (bag.coords_l0 - (bag.bounds_l0 if bag.annotation_origin == "bounds" else (0, 0))).T
    return coverage(area, x.astype(float), y.astype(float), bag.side_l0) >= 0.5


@verb(app, ReportOptions, examples=["mil report run"])
def report(options: ReportOptions) -> None:
    """Write the run as one self-contained page: open it in any browser, send it to anyone."""
    run_report(options)


def run_report(options: ReportOptions) -> Path:
    """Write the page and print where it is."""
    from cli.console import Bars, say
    from mil.report.files import write_figures
    from mil.report.gather import gather
    from mil.report.page import write_page
    from mil.runs import open_run

    run = open_run(options.run)
    path = options.out or run.path / "report.html"
    report = gather(run, progress=Bars())
    write_page(path, report)
    write_figures(path.parent / "figures", report.evaluation, report.predictions)
    say(f"Report: {path.absolute()}")
    return path


def _model_for(run: "Run", bag: "Bag", options: ExplainOptions) -> "tuple[Fitted, str]":
    """The model to explain, and what it has to do with the case."""
    from mil.fitted import load_fitted
    from mil.runs import check_results
    from mil.splits import read_folds

    case = run.case_of(bag.slide, bag.case)
    if run.info["command"] == "train":
        fitted = load_fitted(run.model_path(_explainable(run, [run.settings["model"]], options)))
        return fitted, _relation(fitted, case)
    check_results(run)
    model = _explainable(run, run.settings["models"], options)
    folds = [fold for fold in read_folds(run.path / "folds.json") if fold.repeat == 0]
    fold = next((fold for fold in folds if case in fold.test), folds[0])
    fitted = load_fitted(run.model_path(model, fold))
    return fitted, f"model of fold {fold.index}, {_relation(fitted, case)}"


def _relation(fitted: "Fitted", case: str) -> str:
    """What the model itself says of having seen the case."""
    if not case:
        return "its case is not known: the model may have seen it"
    from mil.cohort import among

    seen = among([case], fitted.trained_on)
    return "trained on this case" if seen else "not trained on this case"


def _explainable(run: "Run", held: Sequence[str], options: ExplainOptions) -> str:
    """The model asked for, or the first of the run that learns attention.

    Raises:
        UsageError: the run does not hold it, or it has no attention to show.
    """
    from mil.heads.registry import HEADS

    asked = options.model
    attending = [name for name in held if HEADS[name].learns_attention]
    able = attending if options.method == "attention" and not options.all else list(held)
    if (asked or "") in able:
        return str(asked)
    if asked is None and able:
        return (attending or able)[0]
    what = (
        f"learns no attention in {asked}"
        if asked in held
        else f"holds no {asked or 'attention model'}"
    )
    raise UsageError(
        f"{run.path} {what}; it can explain {', '.join(able) or 'none'} of {', '.join(held)}. Every other "
        "model gives each tile the weight it is given. Pass --model, or run with abmil."
    )
