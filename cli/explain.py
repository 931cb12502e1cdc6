"""`mil explain` and `mil report`: what to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb

if TYPE_CHECKING:
    from features.bags import Bag
    from mil.explain.scores import TileScores
    from mil.fitted import Fitted
    from mil.runs import Run


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Settings of `mil explain`."""

    run: Path = field(
        metadata={"argument": "RUN", "help": "A run of `mil crossval` or `mil train`."}
    )
    input: Path = field(metadata={"argument": "BAG-or-SLIDE", "help": "A bag (.h5) or a slide."})
    out: Path = field(metadata={"help": "Folder for the CSV, the PNG and the GeoJSON."})
    model: str | None = field(
        default=None, metadata={"help": "The model; the run's first attention model if not given."}
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
    ome_tiff: bool = field(
        default=False,
        metadata={"help": "Also paint the map on the slide itself, as a pyramidal OME-TIFF."},
    )
    slides: Path | None = field(
        default=None, metadata={"help": "With --ome-tiff on a bag: the folder with its slide."}
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
        "mil explain trained slides/case-03-s1.tiff --annotations annotations --out explained",
        "mil explain run store/case-02-s1.h5 --ome-tiff --slides slides --out explained",
    ],
)
def explain(options: ExplainOptions) -> None:
    """Show where a model looks: attention per tile as CSV, heatmap PNG, and tiles for QuPath.

    In a cross-validation the model is used that has not seen the slide's case.
    """
    run_explain(options)


def run_explain(options: ExplainOptions) -> list[Path]:
    """Write the three files and print where they are."""
    from cli.console import say
    from cli.inputs import bags_for
    from features.slides import file_name
    from mil.explain.attention import attention_scores
    from mil.explain.heatmap import draw_heatmap
    from mil.explain.scores import write_csv, write_geojson
    from mil.runs import open_run

    run = open_run(options.run)
    [bag] = bags_for(
        [options.input],
        run.info["recipe"],
        run.path / "bags",
        annotations=options.annotations,
        weights=options.weights,
        slide_mpp=options.slide_mpp,
    )
    fitted, caption = _model_for(run, bag, options.model)
    scores = attention_scores(fitted, bag)
    options.out.mkdir(parents=True, exist_ok=True)
    base = options.out / f"{file_name(bag.slide)}-{fitted.model}-attention"
    paths = [base.with_name(base.name + suffix) for suffix in (".png", ".csv", ".geojson")]
    paths[0].write_bytes(draw_heatmap(scores, caption=caption))
    write_csv(paths[1], scores)
    write_geojson(paths[2], scores)
    if options.ome_tiff:
        paths.append(_paint(options, scores, base.with_name(base.name + ".ome.tiff")))
    say(f"{bag.slide}: {caption}")
    for path in paths:
        say(f"  {path}")
    return paths


def _paint(options: ExplainOptions, scores: "TileScores", path: Path) -> Path:
    """Write the slide with the map on it.

    Raises:
        UsageError: the slide's file was not given.
    """
    from cli.inputs import slide_files
    from features.slides import open_slide
    from mil.explain.pyramid import write_ome_tiff

    bag = scores.bag
    file: Path | None = options.input
    if options.input.suffix == ".h5":
        file = slide_files(options.slides).get(bag.slide) if options.slides else None
    if file is None:
        raise UsageError(
            f"--ome-tiff paints on the slide: give --slides, a folder that holds {bag.slide}."
        )
    with open_slide(file, mpp=bag.mpp_l0[0] if bag.mpp_source != "file" else None) as slide:
        write_ome_tiff(path, slide, scores)
    return path


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
    if run.settings.get("task") == "survival":
        raise UsageError(
            f"{run.path} is a run of survival, of which there is no page yet: see its metrics.json, and "
            "the curves in survival/."
        )
    path = options.out or run.path / "report.html"
    report = gather(run, progress=Bars())
    write_page(path, report)
    write_figures(path.parent / "figures", report.evaluation, report.predictions)
    say(f"Report: {path.absolute()}")
    return path


def _model_for(run: "Run", bag: "Bag", asked: str | None) -> "tuple[Fitted, str]":
    """The model to explain, and what it has to do with the case."""
    from mil.fitted import load_fitted
    from mil.runs import check_results, written
    from mil.splits import read_folds

    case = run.case_of(bag.slide, bag.case)
    if run.info["command"] == "train":
        name = _attending(run, [run.settings["model"]], asked)
        fitted = load_fitted(written(run, run.model_path(name)))
        return fitted, _relation(fitted, case)
    check_results(run)
    model = _attending(run, run.settings["models"], asked)
    folds = [fold for fold in read_folds(run.path / "folds.json") if fold.repeat == 0]
    fold = next((fold for fold in folds if case in fold.test), folds[0])
    fitted = load_fitted(written(run, run.model_path(model, fold)))
    return fitted, f"model of fold {fold.index}, {_relation(fitted, case)}"


def _relation(fitted: "Fitted", case: str) -> str:
    """What the model itself says of having seen the case."""
    if not case:
        return "its case is not known: the model may have seen it"
    from mil.spelling import among

    seen = among([case], fitted.trained_on)
    return "trained on this case" if seen else "not trained on this case"


def _attending(run: "Run", held: Sequence[str], asked: str | None) -> str:
    """The model asked for, or the first of the run that learns attention.

    Raises:
        UsageError: the run does not hold it, or it has no attention to show.
    """
    from mil.heads.registry import HEADS

    able = [name for name in held if HEADS[name].learns_attention]
    if (asked or "") in able:
        return str(asked)
    if asked is None and able:
        return able[0]
    what = (
        f"learns no attention in {asked}"
        if asked in held
        else f"holds no {asked or 'attention model'}"
    )
    raise UsageError(
        f"{run.path} {what}; it can explain {', '.join(able) or 'none'} of {', '.join(held)}. Every other "
        "model gives each tile the weight it is given. Pass --model, or run with abmil."
    )
