"""`mil finetune`: train a backbone on labelled slides; its weights know their cases."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.app import app
from cli.extract import SlideOptions, recipes_of, slide_jobs
from cli.options import UsageError, build, part_of, plain, verb, writable, wrong_use
from mil.finetune.settings import FinetuneSettings
from mil.settings import FitSettings, SplitSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from cli.learn import CrossvalOptions
    from features.recipe import Recipe
    from mil.data.case import Row
    from mil.data.splits import Fold
    from mil.finetune.per_fold import Tuning
    from mil.finetune.tiles import LabelledSlide
    from mil.runs.cross_validation import CrossValidation
    from mil.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(SlideOptions, FinetuneSettings):
    """Settings of `mil finetune`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case, slide and label; rows whose column split says test are left alone.",
        }
    )
    out: Path = field(
        metadata={"help": "The run folder to write: weights.safetensors and its card."}
    )
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
    """Train a backbone on tiles that carry their slide's label; `mil extract --weights` takes it.

    The weights remember their cases: `mil crossval` refuses to test a case on them, and
    `mil crossval --finetune per-fold` trains one backbone per fold instead. A run that was killed goes on
    after its last epoch. `torchrun --nproc-per-node 2 -m cli finetune ...` shares the work.
    """
    run_finetune(options)


def run_finetune(options: FinetuneOptions) -> None:
    """Write the run folder; every process computes, the first one writes and prints."""
    from cli.console import Bars, say, warn
    from features.backbones.card import weights_notes
    from features.backbones.registry import resolve_name
    from mil.finetune.distributed import ranks
    from mil.finetune.run import finetune_run
    from mil.runs.record import NewRun

    with wrong_use():
        resolve_name(options.backbone)
    writable(options.out)
    slides, recipe = labelled_slides(options), recipe_of(options)
    with ranks(options.device) as process:
        if process.first:
            for note in weights_notes([recipe]):
                warn(note)
            if process.device.type == "cpu":
                say(f"No GPU: {recipe.backbone} is trained on the CPU, which is slow.")
        card = finetune_run(
            NewRun(path=options.out, settings=plain(options), overwrite=options.overwrite),
            slides,
            recipe,
            part_of(options, FinetuneSettings),
            ranks=process,
            workers=options.workers,
            progress=Bars(),
        )
        if process.first:
            _show_card(card, options.out)


def cross_validate_per_fold(options: "CrossvalOptions") -> "CrossValidation":
    """Cross-validate with a backbone fine-tuned in each fold, as the settings of `mil finetune` say."""
    from cli.console import Bars, notify
    from mil.data.splits import folds_sha256, split_cases, write_folds
    from mil.data.table import training_rows
    from mil.finetune import per_fold
    from mil.finetune.run import slide_facts
    from mil.runs.cases import cohort_as_tested
    from mil.runs.cross_validation import (
        StoredFits,
        clinical_facts,
        cohort_facts,
        judge_and_finish,
        notify_cohort,
    )
    from mil.runs.record import start_run, update_run
    from mil.tasks.registry import task_from

    if options.allow_missing:
        raise UsageError(
            "Fine-tuning per fold needs every row of the table: leave out --allow-missing, and take the rows "
            "that cannot be used out of the table."
        )
    tuned, task = tuned_by(options), task_from(plain(options))
    models = options.models or task.default_models
    slides, rows = labelled_slides(tuned), training_rows(options.cohort, notify)
    labelled = task.label_rows(rows, options.cohort.name)
    cases = {row.case: row for row in sorted(labelled, key=lambda row: row.case)}
    split = part_of(options, SplitSettings)
    folds = split_cases(
        list(cases),
        task.strata([row.label for row in cases.values()], split.folds),
        [row.site for row in cases.values()],
        split,
    )
    data = slide_facts(slides) | {"tuning": plain(tuned), "folds_sha256": folds_sha256(folds)}
    settings = plain(options) | {"models": list(models)}
    run = start_run(options.out, "crossval", settings, data, overwrite=options.overwrite)
    write_folds(options.out / "folds.json", folds)
    with tuning_of(tuned, rows, slides, run.fold_store, task) as tuning:
        predictions = per_fold.cross_validate_per_fold(
            tuning,
            folds,
            models,
            part_of(options, FitSettings),
            seed=options.seed,
            fitter=StoredFits(run),
            progress=Bars(),
        )
    tested = cohort_as_tested(rows, folds, run.fold_store, task)
    notify_cohort(tested, notify)
    facts = cohort_facts(tested) | clinical_facts(tested, models, options.clinical, notify)
    return judge_and_finish(update_run(run, **facts), tested, predictions)


def tuned_by(options: "CrossvalOptions") -> FinetuneOptions:
    """The settings by which each fold of a cross-validation fine-tunes."""
    values = {"inputs": [str(options.cohort)], "out": str(options.out)}
    return build(FinetuneOptions, values, options.finetune_config)


def tuning_of(
    tuned: FinetuneOptions,
    rows: "Sequence[Row]",
    slides: "Sequence[LabelledSlide]",
    store: "Callable[[Fold], Path]",
    task: "Task",
) -> "AbstractContextManager[Tuning]":
    """How each fold makes its bags, with the device to compute on."""
    from mil.finetune.per_fold import open_tuning

    return open_tuning(
        rows,
        slides,
        recipe_of(tuned),
        part_of(tuned, FinetuneSettings),
        store,
        task=task,
        device=tuned.device,
        workers=tuned.workers,
    )


def labelled_slides(options: SlideOptions) -> "list[LabelledSlide]":
    """The slides of the table with their labels.

    Raises:
        UsageError: no table was given.
        CohortError: a row has no label.
    """
    from mil.data.table import read_table
    from mil.finetune.run import label_slides

    jobs = slide_jobs(options)
    if not all(job.case for job in jobs):
        raise UsageError("Fine-tuning needs labels: give a table with case, slide and label.")
    return label_slides(jobs, read_table(options.inputs[0]))


def recipe_of(options: SlideOptions) -> "Recipe":
    """The one recipe.

    Raises:
        UsageError: several scales.
    """
    if len(options.mpp) > 1:
        raise UsageError("A backbone is fine-tuned at one scale: give one --mpp.")
    return recipes_of(options)[0]


def _show_card(card: "Mapping[str, Any]", out: Path) -> None:
    from cli.console import counted, say

    losses, kept_epoch = card["losses"], card["kept_epoch"]
    reason = "the best on the inner cases" if card["valid_losses"] else "the last"
    say(
        f"{card['backbone']} trained on {counted(len(card['trained_on']), 'case')}: loss {losses[0]:.3f} "
        f"after the first epoch, {losses[kept_epoch - 1]:.3f} after epoch {kept_epoch}, which is kept "
        f"({reason})."
    )
    say(
        f"Weights: {out / 'weights.safetensors'}. Cases they have seen cannot be tested with them; judge "
        f"this training with `mil crossval --finetune per-fold --finetune-config {out / 'run.json'}`."
    )
