"""`mil explain`: why a model says what it says, tile by tile."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.explain_all import explain_all
from cli.maps import (
    PIXEL_METHODS,
    answering,
    class_asked,
    known_tiles,
    model_for,
    opened,
    picture_of,
    write_map,
    write_risk_map,
    write_tiles,
)
from cli.options import UsageError, verb, writable
from cli.runs import MOVED_COHORT, MOVED_STORE

if TYPE_CHECKING:
    from features.bags.bag import Bag


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
    mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per pixel of the slide under the map, and of the finest OME-TIFF level; the "
            "bag's small picture, and 1, if not given. Needs the slide."
        },
    )
    slides: Path | None = field(
        default=None,
        metadata={"help": "Folder with the bag's slide, to show the highest and lowest tiles."},
    )
    regions: Path | None = field(
        default=None,
        metadata={
            "help": "Folder of annotations of what a map should find, by slide: how well does it? Then the "
            "class of the table is explained, whatever the model calls, unless --class names one."
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
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)


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
    from cli.console import Bars, say
    from cli.inputs import bags_for
    from mil.explain.assess import assess_map
    from mil.explain.faithfulness import random_curves
    from mil.explain.pyramid import FINEST_MPP, write_ome_tiff
    from mil.explain.target import explanation_target
    from mil.runs.run import open_run

    _check_asked(options)
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    survival = run.task == "survival"
    if survival:
        _check_survival(options)
    writable(options.out)
    if options.input is None:
        return explain_all(options, run)
    [bag] = bags_for(
        [options.input],
        run.recipe,
        run.path / "bags",
        annotations=options.annotations,
        weights=options.weights,
        slide_mpp=options.slide_mpp,
    )
    run.check_bag(bag)
    file = _slide_of(options, bag)
    fitted, relation = model_for(run, bag, options)
    caption = str(relation)
    with opened(file, bag, options.slide_mpp) if file else nullcontext() as slide:
        picture = picture_of(slide, options.mpp) if slide and options.mpp else None
        say(f"{bag.slide}: {caption}")
        if survival:
            scores, paths = write_risk_map(options.out, fitted, bag, caption, picture)
        else:
            question = explanation_target(fitted, bag, class_asked(options, run, bag, fitted))
            method = answering(question) if options.method in PIXEL_METHODS else options.method
            random = random_curves(question, progress=Bars())
            examined = assess_map(question, method, random, known_tiles(options.regions, bag))
            scores = examined.scores
            paths = write_map(options.out, examined, caption, run, picture)
            if slide:
                paths += write_tiles(paths[0], examined, slide, options, run)
        if slide and options.ome_tiff:
            paths.append(paths[0].with_suffix(".ome.tiff"))
            write_ome_tiff(paths[-1], slide, scores, mpp=options.mpp or FINEST_MPP)
    for path in paths:
        say(f"  {path}")
    return paths


def _slide_of(options: ExplainOptions, bag: "Bag") -> Path | None:
    """The file of the bag's slide, if it was given.

    Raises:
        UsageError: the folder does not hold it, or what was asked for needs it.
    """
    from cli.inputs import slide_files

    if options.input and options.input.suffix != ".h5":
        return options.input
    if options.slides is None:
        needs = {
            "--ome-tiff": options.ome_tiff,
            "--mpp": options.mpp is not None,
            f"--method {options.method}": options.method in PIXEL_METHODS,
        }
        for what, asked in needs.items():
            if asked:
                raise UsageError(
                    f"{what} needs the slide itself: pass --slides, a folder that holds {bag.slide}."
                )
        return None
    found = slide_files(options.slides).get(bag.slide)
    if found is None:
        raise UsageError(f"--slides {options.slides}: holds no slide {bag.slide}.")
    return found


def _check_survival(options: ExplainOptions) -> None:
    """Refuse what is not known of a risk.

    Raises:
        UsageError: another method, or what asks about classes.
    """
    if options.method != "attention" or options.all:
        raise UsageError("Of survival only --method attention is explained, slide by slide.")
    if options.class_name or options.regions:
        raise UsageError(
            "--class and --regions ask about a class; a run of survival has none. Leave them out."
        )


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
    if options.mpp is not None and not 0 < options.mpp < float("inf"):
        raise UsageError(f"--mpp is a number above 0; got {options.mpp:g}.")
    if (options.input is None) != options.all:
        raise UsageError("Give one bag or slide to explain, or --all for every slide of the run.")
