"""`mil explain` and `mil report`: what to look at."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.maps import (
    PIXEL_METHODS,
    answering,
    explain_all,
    known_tiles,
    model_for,
    worth,
    write_map,
    write_tiles,
)
from cli.options import UsageError, verb

if TYPE_CHECKING:
    from features.bags import Bag
    from mil.explain.scores import TileScores
    from mil.fitted import Fitted


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
            "answer. ablation, shapley: what regions are worth. grad-cam, guided-grad-cam: evidence, and "
            "where in its top tiles it lies; they need the slide."
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
    slides: Path | None = field(
        default=None,
        metadata={"help": "Folder with the bag's slide, to show the highest and lowest tiles."},
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
    ome_tiff: bool = field(
        default=False,
        metadata={
            "help": "Also paint the map on the slide itself, as a pyramidal OME-TIFF; needs the slide."
        },
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
        "mil explain run store/case-02-s1.h5 --ome-tiff --slides slides --out explained",
        "mil explain run --all --out explained",
        "mil explain run store/case-01-s1.h5 --slides slides --method grad-cam --out cam",
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
        return explain_all(options, run)
    [bag] = bags_for(
        [options.input],
        run.info["recipe"],
        run.path / "bags",
        annotations=options.annotations,
        weights=options.weights,
        slide_mpp=options.slide_mpp,
    )
    slide = _slide_of(options, bag)
    fitted, caption = model_for(run, bag, options)
    if run.settings.get("task") == "survival":
        return _explain_risk(options, fitted, bag, caption, slide)
    question = ask(fitted, bag, options.class_name)
    known = known_tiles(options.regions, bag)
    random = random_curves(question)
    method = answering(question) if options.method in PIXEL_METHODS else options.method
    examined = examine(question, method, random, known)
    say(f"{bag.slide}: {caption}")
    examined = replace(examined, warnings=(*examined.warnings, *worth(run, fitted.model)))
    paths = write_map(options.out, examined, caption)
    if slide is not None:
        paths += write_tiles(paths[0], examined, slide, options, run)
        if options.ome_tiff:
            paths.append(_paint(slide, examined.scores, paths[0].with_suffix(".ome.tiff")))
    for path in paths:
        say(f"  {path}")
    return paths


def _explain_risk(
    options: ExplainOptions, fitted: "Fitted", bag: "Bag", caption: str, slide: Path | None
) -> list[Path]:
    """Where a model of survival looks; what a tile does to a risk is not measured."""
    from cli.console import say
    from features.slides import file_name
    from mil.explain.attention import attention_scores
    from mil.explain.heatmap import draw_heatmap
    from mil.explain.scores import write_csv, write_geojson

    if options.method != "attention" or options.all:
        raise UsageError("Of survival only --method attention is explained.")
    scores = attention_scores(fitted, bag)
    options.out.mkdir(parents=True, exist_ok=True)
    base = options.out / f"{file_name(bag.slide)}-{fitted.model}-attention"
    paths = [base.with_name(base.name + suffix) for suffix in (".png", ".csv", ".geojson")]
    paths[0].write_bytes(draw_heatmap(scores, caption=caption))
    write_csv(paths[1], scores)
    write_geojson(paths[2], scores)
    if options.ome_tiff and slide is not None:
        paths.append(_paint(slide, scores, base.with_name(base.name + ".ome.tiff")))
    say(f"{bag.slide}: {caption}")
    for path in paths:
        say(f"  {path}")
    return paths


def _paint(file: Path, scores: "TileScores", path: Path) -> Path:
    """Write the slide with the map on it."""
    from features.slides import open_slide
    from mil.explain.pyramid import write_ome_tiff

    bag = scores.bag
    with open_slide(file, mpp=bag.mpp_l0[0] if bag.mpp_source != "file" else None) as slide:
        write_ome_tiff(path, slide, scores)
    return path


def _slide_of(options: ExplainOptions, bag: "Bag") -> Path | None:
    """The file of the bag's slide, if it was given.

    Raises:
        UsageError: the folder does not hold it, or what was asked for needs it.
    """
    from cli.inputs import slide_files

    if options.input and options.input.suffix != ".h5":
        return options.input
    if options.slides is None:
        if options.ome_tiff or options.method in PIXEL_METHODS:
            what = "--ome-tiff" if options.ome_tiff else f"--method {options.method}"
            raise UsageError(
                f"{what} needs the slide itself: pass --slides, a folder that holds {bag.slide}."
            )
        return None
    found = slide_files(options.slides).get(bag.slide)
    if found is None:
        raise UsageError(f"--slides {options.slides}: holds no slide {bag.slide}.")
    return found


def _check_asked(options: ExplainOptions) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        UsageError: an unknown method, or no slide, or one beside --all.
    """
    from difflib import get_close_matches

    from mil.explain.methods import METHODS

    known = [*METHODS, *PIXEL_METHODS]
    if options.method not in known:
        near = get_close_matches(options.method, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"No method {options.method!r}.{hint} Known: {', '.join(known)}.")
    if (options.input is None) != options.all:
        raise UsageError("Give one bag or slide to explain, or --all for every slide of the run.")


@verb(app, ReportOptions, examples=["mil report run"])
def report(options: ReportOptions) -> None:
    """Write the run as one self-contained page: open it in any browser, send it to anyone."""
    run_report(options)


def run_report(options: ReportOptions) -> Path:
    """Write the page and print where it is."""
    from cli.console import Bars, say
    from mil.report import page, survival_page
    from mil.report.files import write_figures
    from mil.report.frame import write_page
    from mil.report.gather import gather, gather_survival
    from mil.report.survival import write_survival_figures
    from mil.runs import open_run

    run = open_run(options.run)
    path = options.out or run.path / "report.html"
    if run.settings.get("task") == "survival":
        risks = gather_survival(run, progress=Bars())
        write_page(path, survival_page.render(risks))
        write_survival_figures(path.parent / "survival", risks.predictions, risks.evaluation.unit)
    else:
        report = gather(run, progress=Bars())
        write_page(path, page.render(report))
        write_figures(path.parent / "figures", report.evaluation, report.predictions)
    say(f"Report: {path.absolute()}")
    return path
