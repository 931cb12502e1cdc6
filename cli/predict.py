"""`mil predict`: answers for new slides, with what they are worth."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, part_of, verb, writable, writable_run
from cli.runs import MOVED_STORE

if TYPE_CHECKING:
    from mil.answers.predict import Answers


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Settings of `mil predict`."""

    run: Path = field(
        metadata={
            "argument": "RUN",
            "help": "A run of `mil crossval`, whose fits answer together, or of `mil train`, or a folder "
            "that `mil package` wrote.",
        }
    )
    inputs: tuple[Path, ...] = field(
        metadata={"argument": "BAG-or-SLIDE...", "help": "Bags (.h5) or slides."}
    )
    model: str | None = field(
        default=None, metadata={"help": "The model of the run; its best if not given."}
    )
    out: Path | None = field(
        default=None,
        metadata={
            "help": "The CSV to write, with a JSON and a page of the same name beside it; RUN/predict.csv if "
            "not given."
        },
    )
    annotations: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with the slides' annotations. Without it and without a segmenter, all tissue is "
            "used, and of a model that learnt from drawn tumour nothing is promised.",
            "panel": "Slides",
        },
    )
    classes: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Annotation class to read as that the model learnt from, where slides or bags name the "
            "same tissue otherwise; repeatable.",
            "flag": "--class",
            "panel": "Slides",
        },
    )
    segmenter: Path | None = field(
        default=None,
        metadata={
            "help": "A segmenter.safetensors of `mil segment`: tiles are taken from what it marks as tumour.",
            "panel": "Slides",
        },
    )
    weights: str | None = field(
        default=None,
        metadata={"help": "The backbone's weights file, if the run used one.", "panel": "Slides"},
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel, if the slides do not say.",
            "panel": "Slides",
        },
    )
    slide_mpp_force: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel, whatever the slides say; an mpp column of --cohort takes "
            "precedence.",
            "panel": "Slides",
        },
    )
    cohort: Path | None = field(
        default=None,
        metadata={
            "help": "Table that says which case each slide belongs to, and its mpp if it has the column; "
            "model clinical reads its other columns."
        },
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)

    def __post_init__(self) -> None:
        if self.out is not None and (self.out.suffix != ".csv" or self.out.is_dir()):
            raise UsageError(f"--out {self.out}: name a .csv file; a JSON and a page go beside it.")
        if self.classes and not self.annotations and all(p.suffix != ".h5" for p in self.inputs):
            raise UsageError("--class names a class of --annotations. Give their folder.")
        for name in ("slide_mpp", "slide_mpp_force"):
            if (mpp := getattr(self, name)) is not None and not mpp > 0:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0; got {mpp:g}.")


@verb(
    app,
    PredictOptions,
    examples=[
        "mil predict run slides/case-03-s1.tiff slides/normal-1.tiff --out new.csv",
        "mil predict run slides/case-03-s1.tiff --annotations annotations",
        "mil predict trained store/case-01-s1.h5 store/case-02-s1.h5 --out predicted.csv",
    ],
)
def predict(options: PredictOptions) -> None:
    """Answer for new slides and their cases, and say when the model does not know; no label is needed.

    Each slide and each case has one row. Its outcome is answered; undecided between the classes of a set
    that holds the true one at a stated rate; abstained, where the slide is unlike those the model learnt
    from, or has too little tissue; or failed, where it cannot be read. A slide that fails does not stop the
    others; the command then ends with 1.
    """
    from cli.console import Bars, say
    from cli.flags import with_flags
    from mil.answers.new_inputs import NewInputs
    from mil.answers.package import open_predictor, places
    from mil.answers.predict import predict_inputs
    from mil.report.answers import write_answers

    path, store = places(options.run, options.out)
    if options.out is None:
        writable_run(options.run)
    writable(path.parent)
    predictor = open_predictor(options.run, options.model or "", store=options.store)
    inputs = part_of(options, NewInputs)
    table = predictor.read_table(options.cohort)
    answers = predict_inputs(predictor, inputs, store, table=table, progress=Bars())
    answers = answers.worded(with_flags)
    _show_answers(answers)
    if answers.new.outlines:
        say(f"Outlines for QuPath, and pictures: {answers.new.outlines}")
    say(f"Answers: {', '.join(map(str, write_answers(answers, path, progress=Bars())))}")
    if answers.failed:
        raise SystemExit(1)


def _show_answers(answers: "Answers") -> None:
    """Print one line per slide, and what the answers are worth."""
    from cli.console import complain, counted, say, show_table
    from mil.answers.masks import UNPROMISED

    predictor = answers.predictor
    fits = counted(len(predictor.fits), "fit")
    worth = f" Out of fold: {predictor.performance}." if predictor.performance else ""
    say(f"Model {predictor.model} of {predictor.title}, {fits}.{worth}")
    for note in (*predictor.notes, *answers.new.notes):
        complain(note)
    names = predictor.reader.brief_names
    show_table(
        ["case", "slide", "outcome", "predicted", *names],
        [
            [row.case, row.slide, row.outcome, row.predicted]
            + [f"{row.values[name]:.2f}" if row.values else "" for name in names]
            for row in answers.slides
        ],
    )
    for row in answers.slides:
        for text in (row.reason, *row.notes):
            if text and text not in UNPROMISED:  # that is said once, of all
                complain(f"{row.slide}: {text.removeprefix(f'{row.slide}: ')}")
    for text in answers.warnings():
        complain(text)
    say(f"{answers.promise} {predictor.reader.record}".strip())
