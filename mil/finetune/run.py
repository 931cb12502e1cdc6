"""A run folder of fine-tuning: labelled slides in, weights that know their cases out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.backbones.card import weights_notes
from features.backbones.table import eclipsed_backbones
from features.progress import Progress, Silent
from mil.data.table import reserved_rows, training_rows
from mil.finetune.config import FinetuneConfig, label_slides
from mil.finetune.distributed import ranks
from mil.finetune.tiles import LabelledSlide
from mil.finetune.training import finetune
from mil.learning.reserved import check_reserved_inputs
from mil.runs.record import NewRun, finish_run
from mil.tasks.registry import task_class
from mil.tasks.task import Task


@dataclass(frozen=True)
class TunedBackbone:
    """A backbone that was fine-tuned.

    Attributes:
        weights: the file.
        card: what lies beside it: how it was trained, and on whom.
    """

    weights: Path
    card: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The backbone."""
        return str(self.card["backbone"])

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The cases that it has seen, and cannot be tested on."""
        return tuple(self.card["trained_on"])

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss after every epoch."""
        return tuple(self.card["losses"])

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights these are, from 1."""
        return int(self.card["kept_epoch"])

    @property
    def chosen_by_loss(self) -> bool:
        """Whether the epoch is the best on inner cases; else it is the last."""
        return bool(self.card["valid_losses"])


def finetune_run(
    new_run: NewRun,
    table: Path,
    config: FinetuneConfig,
    *,
    task: Task | None = None,
    progress: Progress | None = None,
    notify: Callable[[str], None] = lambda _message: None,
) -> Mapping[str, Any] | None:
    """Train a backbone and write its run folder; every process computes, the first one writes.

    Args:
        new_run: the folder to write.
        table: CSV with case, slide and the columns of the task; rows kept for testing are left out.
        config: slides, recipe, training and device.
        task: which outcome is learnt; a diagnosis if not given.
        progress: is advanced by each slide and step, in the first process.
        notify: called with what a reader should know before training, in the first process.

    Returns:
        The card of the weights in the folder, in the first process; None in the others.

    Raises:
        InputError: the table is none, or there is no folder with its slides.
        RunError: the folder holds another run, or another process writes it.
        LeakageError: the first weights or the stain know a case that is kept for external validation.
        FitError, CohortError: as ``label_slides`` and ``mil.finetune.training.finetune``.
    """
    task = task or task_class()()
    with ranks(config.device, config.workers) as process:
        jobs = config.read_jobs(table)
        rows = training_rows(table, notify if process.first else None, config.reading)
        check_reserved_inputs(config.recipe, reserved_rows(table, config.reading))
        slides = label_slides(jobs, rows, task, source=table.name)
        config.settings.sets_aside(list({s.job.case: s.label for s in slides}.values()))
        if process.first:
            eclipsed = eclipsed_backbones([config.recipe.backbone])
            for note in (*weights_notes([config.recipe]), *eclipsed):
                notify(note)
            if process.device.type == "cpu":
                notify(f"No GPU: {config.recipe.backbone} is trained on the CPU, which is slow.")
            run = new_run.start("finetune", slide_facts(slides, task, source=table.name))
        process.wait()
        card = finetune(
            slides,
            config.recipe,
            config.settings,
            new_run.path,
            task=task,
            ranks=process,
            progress=progress if process.first else Silent(),
        )
        if not process.first:
            return None
        finish_run(run, trained_on=card["trained_on"], **stop_facts(card))
        return card


def stop_facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """When training ended, which epoch was kept, and the inner cases that it was chosen by, for run.json."""
    return {
        "epochs_run": len(card["losses"]),
        "kept_epoch": card["kept_epoch"],
        "chosen_by": card["chosen_by"],
    }


def slide_facts(
    slides: Sequence[LabelledSlide], task: Task, *, source: str = "the table"
) -> dict[str, Any]:
    """Facts about labelled slides for run.json.

    Raises:
        CohortError: nothing can be learnt from these outcomes.
    """
    times = {slide.job.case: slide.time for slide in slides if slide.time is not None}
    return ({"times": times} if times else {}) | {
        "classes": task.order_classes([slide.label for slide in slides], source),
        "labels": {slide.job.case: slide.label for slide in slides},
        "cases": {slide.job.slide: slide.job.case for slide in slides},
        "excluded": [],
    }
