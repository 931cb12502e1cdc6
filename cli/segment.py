"""`mil segment`: find the tumour on slides where nobody has drawn it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.app import Group, app
from cli.options import UsageError, build, part_of, verb, writable, wrong_use
from features.errors import InputError
from mil.data.reading import TableReading
from mil.segmentation.settings import SegmentSettings

if TYPE_CHECKING:
    from mil.segmentation.application import AppliedSlide
    from mil.segmentation.cases import SegmentConfig
    from mil.segmentation.run import SegmentInput

segment = typer.Typer(
    name="segment",
    cls=Group,
    help="Find the tumour: train a segmenter on annotated slides, judge it by case, apply it to others.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(segment)


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """The scale of slides whose files do not say."""

    slide_mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel of slides whose files do not say.",
            "panel": "Slides",
        },
    )
    slide_mpp_force: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel of all slides, whatever their files say.",
            "panel": "Slides",
        },
    )


@dataclass(frozen=True, kw_only=True)
class DrawnSlideOptions(ScaleOptions, TableReading):
    """Slides of a table whose tumour is drawn."""

    cohort: Path = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case and slide, and a column annotated: full where all tumour of the slide "
            "is drawn, partial (or empty) where some may not be.",
        }
    )
    slides: Path = field(metadata={"help": "Folder with the table's slides."})
    annotations: Path = field(
        metadata={
            "help": "Folder with <slide>.geojson from QuPath, or other formats that `mil extract` reads.",
            "panel": "Annotations",
        }
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(DrawnSlideOptions, SegmentSettings):
    """Settings of `mil segment train`."""

    out: Path = field(
        metadata={"help": "The run folder to write: segmenter.safetensors and its scores."}
    )
    folds: str = field(
        default="5",
        metadata={
            "help": "Number of folds of whole cases, or `none` to train without judging.",
            "panel": "Folds",
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished run.", "once": True}
    )

    def __post_init__(self) -> None:
        SegmentSettings.__post_init__(self)
        if self.folds != "none" and not (self.folds.isdecimal() and int(self.folds) >= 2):
            raise UsageError(f"--folds must be at least 2, or none; got {self.folds!r}. Use 5.")


@dataclass(frozen=True, kw_only=True)
class ApplyOptions(ScaleOptions):
    """Settings of `mil segment apply`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "SEGMENTER SLIDE...",
            "help": "A segmenter.safetensors, then slide files or folders of slides.",
        }
    )
    out: Path = field(metadata={"help": "The folder to write."})


@dataclass(frozen=True, kw_only=True)
class SegmenterArgument:
    """The segmenter, which stands first."""

    segmenter: Path = field(metadata={"argument": "SEGMENTER", "help": "A segmenter.safetensors."})


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(DrawnSlideOptions, SegmenterArgument):
    """Settings of `mil segment evaluate`."""

    out: Path = field(metadata={"help": "The folder to write: scores.csv."})


@verb(
    segment,
    TrainOptions,
    examples=[
        "mil segment train segmentation.csv --slides slides --annotations annotations --out segmenter",
        "mil segment train segmentation.csv --slides slides --annotations annotations --out both "
        "--kind both --folds 2 --steps 4",
    ],
)
def train(options: TrainOptions) -> None:
    """Train a segmenter of tumour on annotated slides, and judge it on cases it has not seen.

    It is compared with colour alone and with all tissue: a segmenter that does not beat
    colour has learnt the stain. `mil extract --segmenter` takes tiles from what it finds, and
    `mil crossval` refuses to test cases that it has seen.
    """
    from cli.console import Bars, notify, say, show_tables
    from mil.segmentation.evaluation import evaluation_tables
    from mil.segmentation.study import train_segmenter

    writable(options.out)
    with wrong_use(InputError):
        trained = train_segmenter(
            options.cohort,
            out=options.out,
            settings=part_of(options, SegmentSettings),
            folds=0 if options.folds == "none" else int(options.folds),
            overwrite=options.overwrite,
            progress=Bars(),
            notify=notify,
            **_places(options),
        )
    if trained.evaluation:
        show_tables(evaluation_tables(trained.evaluation))
    say(f"Segmenter, fitted to all {len(trained.segmenter.card.trained_on)} cases: {trained.path}")


@verb(
    segment,
    ApplyOptions,
    examples=[
        "mil segment apply segmenter/segmenter.safetensors slides/case-01-s1.tiff --out segmented"
    ],
)
def apply(options: ApplyOptions) -> None:
    """Write where a segmenter finds tumour: GeoJSON for QuPath, an overlay to look at, probabilities.

    Correct the regions in QuPath and export them again: their class is derived from that of the annotations,
    so that `mil extract --annotations` reads them. A slide that fails does not stop the others.
    """
    from cli.console import Bars
    from mil.segmentation.study import apply_segmenter

    file, *slides = options.inputs
    if not slides:
        raise UsageError("Name a segmenter, then the slides to apply it to.")
    writable(options.out)
    with wrong_use(InputError):
        applied = apply_segmenter(
            file,
            slides,
            out=options.out,
            slide_mpp=options.slide_mpp,
            slide_mpp_force=options.slide_mpp_force,
            progress=Bars(),
        )
    if _show_applied(applied, options.out):
        raise SystemExit(1)


@verb(
    segment,
    EvaluateOptions,
    examples=[
        "mil segment evaluate segmenter/segmenter.safetensors segmentation.csv --slides slides "
        "--annotations annotations --out judged"
    ],
)
def evaluate(options: EvaluateOptions) -> None:
    """Judge a segmenter on annotated cases that it has not seen, next to colour alone and all tissue.

    These are the rows whose column split says test; without such a row, all.
    """
    from cli.console import Bars, notify, say, show_tables
    from mil.segmentation.evaluation import evaluation_tables
    from mil.segmentation.run import SCORES
    from mil.segmentation.study import evaluate_segmenter

    writable(options.out)
    with wrong_use(InputError):
        evaluation = evaluate_segmenter(
            options.segmenter,
            options.cohort,
            out=options.out,
            progress=Bars(),
            notify=notify,
            **_places(options),
        )
    show_tables(evaluation_tables(evaluation))
    say(f"Scores of each case: {options.out / SCORES}")


def fold_config(path: Path, out: Path, train_masks: str) -> "SegmentConfig":
    """The settings by which each fold of a cross-validation segments.

    Args:
        path: TOML file with options of `mil segment train`, or the run.json of such a run.
        out: the run folder of the cross-validation.
        train_masks: what training slides are cut by.

    Raises:
        UsageError: a setting is missing or wrong.
    """
    from mil.segmentation.cases import SegmentConfig

    options = build(TrainOptions, {"out": str(out)}, path)
    return SegmentConfig(
        source=_drawn(options),
        settings=part_of(options, SegmentSettings),
        train_masks=train_masks,
    )


def _places(options: DrawnSlideOptions) -> dict[str, Any]:
    """Where the annotated slides are, and how they and their table are read."""
    names = (
        "slides",
        "annotations",
        "slide_mpp",
        "slide_mpp_force",
        "case_from",
        "label_is",
        "known_at_diagnosis",
    )
    return {name: getattr(options, name) for name in names}


def _drawn(options: DrawnSlideOptions) -> "SegmentInput":
    """Where the annotated slides are."""
    from features.extraction.jobs import JobSettings
    from mil.segmentation.run import SegmentInput

    return SegmentInput(
        table=options.cohort,
        slides=options.slides,
        jobs=JobSettings(
            annotations=options.annotations,
            slide_mpp=options.slide_mpp,
            slide_mpp_force=options.slide_mpp_force,
        ),
        reading=part_of(options, TableReading),
    )


def _show_applied(applied: "tuple[AppliedSlide, ...]", out: Path) -> int:
    """Print a line per slide; the number of those that failed."""
    from cli.console import complain, counted, say, show_table

    done = [slide for slide in applied if slide.status == "done"]
    if done:
        rows = [
            [
                slide.slide,
                f"{slide.tumour_mm2:.2f} mm²",
                f"{slide.tumour_of_tissue:.0%}",
                "learnt from it" if slide.trained_on_it else "",
            ]
            for slide in done
        ]
        show_table(["slide", "tumour", "of the tissue", ""], rows)
    for slide in done:
        if slide.note:
            complain(f"{slide.slide}: {slide.note}")
    failed = [slide for slide in applied if slide.status == "failed"]
    for slide in failed:
        complain(slide.reason)
    say(f"{counted(len(done), 'slide')} segmented, {len(failed)} failed: {out}")
    return len(failed)
