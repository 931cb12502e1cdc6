"""`mil finetune`: train a backbone on labelled slides; its weights know their cases."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.extract import SlideOptions
from cli.options import UsageError, build, check_columns, plain, verb, writable, wrong_use
from features.errors import InputError
from mil.finetune.settings import FinetuneSettings
from mil.settings import FitSettings
from mil.tasks.names import DEFAULT_TASK, TaskColumns

if TYPE_CHECKING:
    from mil.finetune.config import FinetuneConfig
    from mil.finetune.run import TunedBackbone

READING = (
    "annotations", "slide_mpp", "slide_mpp_force", "coordinates", "case_from", "label_is",
    "known_at_diagnosis", "device", "workers",
)  # fmt: skip
TASK_METADATA = next(entry.metadata for entry in fields(FitSettings) if entry.name == "task")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(SlideOptions, FinetuneSettings, TaskColumns):
    """Settings of `mil finetune`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case, slide and the columns of the task; rows whose column split says test "
            "are not used.",
        }
    )
    mpp: tuple[float, ...] = field(
        default=(0.25,),
        metadata={
            "help": "Micrometres per pixel of a tile, one number: 0.25 is 40x, 0.625 is 16x.",
            "split": ",",
        },
    )
    out: Path = field(
        metadata={"help": "The run folder to write: weights.safetensors and its card."}
    )
    task: str = field(default=DEFAULT_TASK, metadata=TASK_METADATA)
    device: str = field(
        default="auto",
        metadata={"help": "`auto`, `cpu`, `cuda` or `cuda:1`.", "panel": "Computing"},
    )
    workers: int = field(
        default=0,
        metadata={"help": "Threads that read tiles; 0 is one per core.", "panel": "Computing"},
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished run.", "once": True}
    )

    def __post_init__(self) -> None:
        check_columns(self)
        SlideOptions.__post_init__(self)
        FinetuneSettings.__post_init__(self)


@verb(
    app,
    FinetuneOptions,
    examples=[
        "mil finetune cohort.csv --slides slides --annotations annotations --out tuned "
        "--backbone test_resnet --weights random --mpp 0.5 --epochs 2 --tiles-per-slide 8",
        "mil extract cohort.csv --slides slides --annotations annotations --out tuned-store "
        "--backbone test_resnet --weights tuned/weights.safetensors --mpp 0.5",
    ],
)
def finetune(options: FinetuneOptions) -> None:
    """Train a backbone on tiles labelled with their case's outcome; `mil extract --weights` takes it.

    The weights remember their cases: `mil crossval` refuses to test these cases on bags of the backbone, and
    `mil crossval --finetune per-fold` trains one backbone per fold instead. A killed run continues
    after its last epoch. `torchrun --nproc-per-node 2 -m sarcomil finetune ...` shares the work.
    """
    run_finetune(options)


def run_finetune(options: FinetuneOptions) -> None:
    """Write the run folder; every process computes, the first one writes and prints."""
    from cli.console import Bars, notify
    from features.backbones.registry import resolve_name
    from mil.api.preparing import finetune_backbone
    from mil.tasks.registry import task_from

    writable(options.out)
    with wrong_use():
        resolve_name(options.backbone)
        config, task = finetune_config(options), task_from(plain(options))
    with wrong_use(InputError):
        tuned = finetune_backbone(
            _table(options),
            slides=config.slides,
            out=options.out,
            recipe=config.recipe,
            settings=config.settings,
            task=task,
            overwrite=options.overwrite,
            progress=Bars(),
            notify=notify,
            **{name: getattr(options, name) for name in READING},
        )
    if tuned:
        _show_tuned(tuned, options.out)


def fold_config(path: Path, table: Path, out: Path, task: str) -> "FinetuneConfig":
    """The settings by which each fold of a cross-validation fine-tunes.

    Args:
        path: TOML file with options of `mil finetune`, or the run.json of such a run.
        table: of the cross-validation.
        out: its run folder.
        task: its task.

    Raises:
        UsageError: the file names another task.
    """
    options = build(FinetuneOptions, {"inputs": [str(table)], "out": str(out)}, path)
    if options.task not in (DEFAULT_TASK, task):
        raise UsageError(
            f"--finetune-config {path} has task {options.task}, but --task is {task}. Give both one task."
        )
    return finetune_config(options)


def finetune_config(options: FinetuneOptions) -> "FinetuneConfig":
    """Slides, recipe, training and device.

    Raises:
        UsageError: several scales.
    """
    from mil.finetune.config import FinetuneConfig

    with wrong_use():
        return FinetuneConfig.from_settings(plain(options))


def _table(options: FinetuneOptions) -> Path:
    from mil.finetune.config import NEEDS_TABLE

    if len(options.inputs) > 1:
        raise UsageError(f"{NEEDS_TABLE} There are {len(options.inputs)} inputs.")
    return options.inputs[0]


def _show_tuned(tuned: "TunedBackbone", out: Path) -> None:
    from cli.console import counted, say

    losses, epoch = tuned.losses, tuned.kept_epoch
    reason = "the best on the inner cases" if tuned.chosen_by_loss else "the last"
    say(
        f"{tuned.name} trained on {counted(len(tuned.trained_on), 'case')}: loss {losses[0]:.3f} "
        f"after the first epoch, {losses[epoch - 1]:.3f} after epoch {epoch}, which is kept "
        f"({reason})."
    )
    say(
        f"Weights: {tuned.weights}. Cases they have seen cannot be tested with them; judge "
        f"this training with `mil crossval --finetune per-fold --finetune-config {out / 'run.json'}`."
    )
