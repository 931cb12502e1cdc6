"""`mil external`: one-time external validation of one model of a run."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import UsageError, verb, writable_run


@dataclass(frozen=True, kw_only=True)
class ExternalOptions:
    """Settings of `mil external`."""

    run: Path = field(metadata={"argument": "RUN", "help": "A finished `mil crossval`."})
    cohort: Path = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case, slide and label. If it has a column split, only rows that say test "
            "are used.",
        }
    )
    store: Path = field(
        metadata={"argument": "STORE", "help": "The bag store of the table's slides."}
    )
    model: str = field(
        metadata={"help": "The model of the run to test, chosen by its cross-validation."}
    )
    name: str | None = field(
        default=None,
        metadata={"help": "Name of the folder in RUN/external; the table's name if not given."},
    )
    allow_missing: bool = field(
        default=False, metadata={"help": "Continue without slides that have no bag or no outcome."}
    )
    slides: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with the table's slides, for a run of --finetune per-fold: the backbone of each "
            "fold embeds them into a folder of its own in STORE.",
            "panel": "Slides",
        },
    )
    annotations: Path | None = field(
        default=None,
        metadata={
            "help": "With --slides: folder with the slides' annotations, where the run learnt from such.",
            "panel": "Annotations",
        },
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={
            "help": "With --slides: micrometres per level-0 pixel, where the files give none.",
            "panel": "Scale",
        },
    )
    device: str = field(
        default="auto",
        metadata={
            "help": "With --slides: `auto`, `cpu`, `cuda` or `cuda:1`.",
            "panel": "Computing",
        },
    )
    workers: int = field(
        default=0,
        metadata={
            "help": "With --slides: threads that read tiles; 0 is one per core.",
            "panel": "Computing",
        },
    )

    def __post_init__(self) -> None:
        if "," in self.model:
            raise UsageError(
                f"--model {self.model}: external cases test one model. The best of several models on them "
                "would be chosen by these cases, and its score is no longer what unseen cases will give. "
                "Choose a model by its cross-validation, then name that one."
            )
        if self.name is not None and Path(self.name).name != self.name:
            raise UsageError(f"--name {self.name}: a name, not a path. Use letters and digits.")
        if self.slides is None and (self.annotations or self.slide_mpp):
            raise UsageError(
                "--annotations and --slide-mpp say how the slides of --slides are read. Give --slides, or "
                "leave them out."
            )


@verb(
    app,
    ExternalOptions,
    examples=[
        "mil crossval split.csv store --models majority,mean --epochs 5 --seeds 1 --folds 4 --out developed",
        "mil external developed split.csv store --model mean",
    ],
)
def external(options: ExternalOptions) -> None:
    """Test one model once on cases it has not seen, with the ensemble of all its fits.

    The logits of the fits are averaged before the softmax; for survival, their risks and curves. The cases
    are rows with split=test, which `mil crossval` leaves alone, or those of a table of their own. Each
    validation is recorded beside the table, in STORE and in RUN; a second model for the same outcome is
    refused on these cases. Of a run of `mil crossval --finetune per-fold`, each fit reads the slides as the
    backbone of its own fold embeds them: give --slides.
    """
    from cli.console import Bars, complain, counted, say, show_tables
    from mil.api.judging import external_validation

    writable_run(options.run, f"external/{options.name or options.cohort.stem}")
    names = ("name", "allow_missing", "slides", "annotations", "slide_mpp", "device", "workers")
    validation = external_validation(
        options.run,
        options.model,
        options.cohort,
        options.store,
        **{name: getattr(options, name) for name in names},
        progress=Bars(),
        notify=complain,
    )
    members, earlier = counted(validation.n_members, "fit"), validation.earlier
    say(f"{options.model}, the mean of {members}, on cases none of them has seen.")
    if earlier:
        times = counted(len(earlier), "time")
        say(f"Tested before with the same model, {times}, first on {earlier[0].date}.")
    show_tables(validation.evaluation.tables()[:1])
    logs = ", ".join(map(str, validation.logs))
    say(f"Predictions: {validation.path / 'predictions.csv'}. Logged: {logs}")
