"""`mil explain`: what a model's answer rests on, tile by tile."""

from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.app import app
from cli.options import UsageError, verb, writable, wrong_use
from cli.runs import MOVED_COHORT, MOVED_STORE
from features.errors import InputError
from mil.explanation.methods import list_methods

if TYPE_CHECKING:
    from mil.explanation.compare_methods import MethodComparison
    from mil.explanation.request import MapInput
    from mil.explanation.write import Explanation

READING = ("slides", "annotations", "classes", "slide_mpp", "weights")  # of a slide
METHODS_HELP = ". ".join(
    f"{method.name}: {method.description}" + (" (needs the slide)" if method.needs_slide else "")
    for method in list_methods()
)


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
            "help": "A bag (.h5), a slide, or the name of a slide of the run; not with --all.",
        },
    )
    out: Path = field(metadata={"help": "Folder for the CSV, the PNG, the GeoJSON and the JSON."})
    all: bool = field(
        default=False,
        metadata={
            "help": "Apply every method to every slide of the run, to find the most faithful one."
        },
    )
    method: str | None = field(
        default=None,
        metadata={
            "help": f"{METHODS_HELP}. If not given: evidence where the model's answer is a sum over tiles, "
            "else attention, or single-tile for models without.",
            "choices": tuple(method.name for method in list_methods()),
            "panel": "Map",
        },
    )
    class_name: str | None = field(
        default=None,
        metadata={
            "flag": "--class",
            "help": "The class to explain; the predicted class if not given. It does not apply to models of "
            "survival or grades, whose maps show what raises the risk or the grade.",
            "panel": "Map",
        },
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "The model; if not given, the first of the run that suits the method, attention models "
            "first.",
            "panel": "Map",
        },
    )
    mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per pixel of the slide image under the map and of the finest level of the "
            "OME-TIFF; needs the slide. If not given: the bag's thumbnail, and 1.",
            "panel": "Slides",
        },
    )
    slides: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with the bag's slide, to show the highest and lowest tiles.",
            "panel": "Slides",
        },
    )
    regions: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with annotations, by slide, of what a map should find; measures how well it "
            "does. "
            "The table's class is then explained instead of the predicted one, unless --class is given.",
            "panel": "Annotations",
        },
    )
    annotations: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with the slide's annotation, where a slide is given instead of a bag.",
            "panel": "Annotations",
        },
    )
    classes: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Annotation class to read as that the model learnt from, where slide or bag names the "
            "same tissue otherwise; repeatable.",
            "flag": "--annotation-class",
            "panel": "Annotations",
        },
    )
    weights: str | None = field(
        default=None,
        metadata={
            "help": "The backbone's weights file, if the run used one.",
            "panel": "Slides",
        },
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel, if the slide does not say.",
            "panel": "Slides",
        },
    )
    ome_tiff: bool = field(
        default=False,
        metadata={
            "help": "Also paint the map on the slide itself, as a pyramidal OME-TIFF; needs the slide.",
            "panel": "Slides",
        },
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)


@verb(
    app,
    ExplainOptions,
    examples=[
        "mil explain run store/case-01-s1.h5 --out explained",
        "mil explain run store/case-01-s1.h5 --method attention --out explained",
        "mil explain trained slides/case-03-s1.tiff --annotations annotations --out explained",
        "mil explain run store/case-02-s1.h5 --ome-tiff --slides slides --out explained",
        "mil explain run --all --out explained",
        "mil explain run store/case-01-s1.h5 --slides slides --method grad-cam --out cam",
    ],
)
def explain(options: ExplainOptions) -> None:
    """Show which tiles a model's answer rests on, and how faithful that map is to the model.

    Each map is written as CSV, heatmap PNG, tiles for QuPath, and JSON of its measures. It is tested by
    removing its tiles and inserting them again, compared with random orders: a map that is no better than
    random is labelled as such. In a cross-validation, the model that has not seen the slide's case is
    explained.
    """
    from cli.console import Bars, warn
    from mil.api.run import open_run

    source = _map_input(options)
    writable(options.out)
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    what: dict[str, Any] = {
        "model": options.model,
        "target": options.class_name,
        "regions": options.regions,
    }
    if source is None:
        show_comparison(run.compare_methods(options.out, progress=Bars(), **what))
        return
    with wrong_use():
        source.at(run).check(run)
    reading = {name: getattr(options, name) for name in (*READING, "method", "mpp", "ome_tiff")}
    with wrong_use(InputError):
        explanation = run.write_map(
            source.path, options.out, notify=warn, progress=Bars(), **what, **reading
        )
    show_explanation(explanation)


def _map_input(options: ExplainOptions) -> "MapInput | None":
    """What is explained, refused before any work if it cannot be; None is every slide."""
    from mil.explanation.request import MapInput, MapRequest

    if (options.input is None) != options.all:
        raise UsageError("Give one bag or slide to explain, or --all for every slide of the run.")
    with wrong_use():
        request = MapRequest(
            method=options.method,
            model=options.model,
            target=options.class_name,
            regions=options.regions,
            mpp=options.mpp,
            ome_tiff=options.ome_tiff,
        )
        if options.input is None:
            return None
        source = MapInput(path=options.input, **{name: getattr(options, name) for name in READING})
        request.check_slide(available=source.has_slide)
    return source


def show_explanation(explanation: "Explanation") -> None:
    """Print the answer, how faithful the map is, warnings, and where the files are."""
    from cli.console import say, warn
    from mil.evaluation.display import state_p

    part = explanation.assessed.scores.part
    assessed, card = explanation.assessed, explanation.card["faithfulness"]
    say(f"{assessed.scores.bag.slide}: {explanation.relation}")
    if explanation.guessing:
        warn(f"  {explanation.guessing}")
    say(f"  {explanation.answer}. {explanation.verdict}")
    infidelity = "undefined" if card["infidelity"] is None else f"{card['infidelity']:.2f}"
    similarity = card["likeness_to_untrained"]
    say(
        f"  infidelity {infidelity} (0: the scores predict the effect of every {part}; 1: no better "
        f"than scores of zero), "
        f"sensitivity {card['sensitivity']:.2f}"
        + (
            ""
            if similarity is None
            else f", similarity to an untrained head's map {similarity:.2f}"
        )
    )
    if known := assessed.localisation:
        say(
            f"  known {part}s: AUC {known.auc:.3f} ({state_p(known.p)}), {100 * known.mass:.0f} % of the map "
            f"on {100 * known.share:.0f} % of the {part}s, "
            f"its top {'inside' if known.pointing else 'outside'}"
        )
    for warning in explanation.warnings:
        warn(f"  {warning}")
    for path in explanation.paths:
        say(f"  {path}")


def show_comparison(comparison: "MethodComparison") -> None:
    """Print the methods, the most faithful first, with the conclusion."""
    from cli.console import counted, say, show_table, warn

    header = [
        "method", "deletion", "(random)", "insertion", "gain", "infidelity", "better than random",
        "known tiles",
    ]  # fmt: skip
    rows = [
        [
            method.method, f"{method.deletion:.3f}", f"{method.deletion_random:.3f}",
            f"{method.insertion:.3f}", f"{method.gain:.3f}",
            "-" if isnan(method.infidelity) else f"{method.infidelity:.2f}",
            f"{method.better}/{method.slides}",
            "-" if method.auc is None else f"{method.auc:.3f}",
        ]
        for method in comparison.methods
    ]  # fmt: skip
    show_table(header, rows)
    for reason in comparison.unsuited.values():
        say(reason)
    for problem, slides in (
        ("No annotation", comparison.undrawn),
        ("No tile, or every tile, in the regions", comparison.uninformative),
    ):
        if slides:
            say(f"{problem} of {counted(len(slides), 'slide')}: {', '.join(slides)}.")
    if comparison.n_seen:
        warn(
            f"The model may have been trained on {comparison.n_seen} of "
            f"{counted(comparison.n_slides, 'slide')}."
        )
    for warning in comparison.warnings:
        warn(warning)
    if comparison.conclusion:
        say(comparison.conclusion)
    say(f"  {comparison.path}")
