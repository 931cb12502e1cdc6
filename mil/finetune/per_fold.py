"""Cross-validation of the whole pipeline: each fold fine-tunes, extracts and fits on its training cases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from features.backbones.registry import load_backbone
from features.extraction.extract import extract
from features.extraction.identity import slide_fingerprints
from features.extraction.normalisation import resolve_stain_reference
from features.progress import NamedProgress, Progress
from features.recipe import Recipe
from mil.data.case import Row
from mil.data.cohort import Cohort, assemble
from mil.data.names import cases_among
from mil.data.splits import Fold
from mil.errors import FitError, LeakageError
from mil.evaluation.predictions import Predictions, concat
from mil.finetune.distributed import Ranks, ranks
from mil.finetune.files import WEIGHTS
from mil.finetune.frozen import remove_frozen
from mil.finetune.settings import FinetuneSettings
from mil.finetune.tiles import LabelledSlide
from mil.finetune.training import FROZEN, finetune
from mil.learning.crossval import Fitter, cross_validate
from mil.settings import FitSettings
from mil.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How each fold makes its bags.

    Attributes:
        rows: of the table, one per slide.
        task: which outcome is learnt.
        slides: the same slides, labelled.
        recipe: of tiles, and the backbone to start from.
        settings: of fine-tuning.
        store: the folder of each fold's bags; weights go to ``tuned`` beside it.
        ranks: the device and the threads to compute with.
    """

    rows: Sequence[Row]
    task: Task
    slides: Sequence[LabelledSlide]
    recipe: Recipe
    settings: FinetuneSettings
    store: Callable[[Fold], Path]
    ranks: Ranks


@contextmanager
def open_tuning(
    rows: Sequence[Row],
    slides: Sequence[LabelledSlide],
    recipe: Recipe,
    settings: FinetuneSettings,
    store: Callable[[Fold], Path],
    *,
    task: Task,
    device: str = "auto",
    workers: int = 0,
) -> Iterator[Tuning]:
    """Prepare how each fold makes its bags, on a device of this process.

    Args:
        rows: of the table, one per slide.
        slides: the same slides, labelled.
        recipe: of tiles, and the backbone to start from.
        settings: of fine-tuning.
        store: the folder of each fold's bags.
        task: which outcome is learnt.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads that read tiles; 0 takes one per core.

    Raises:
        FitError: several processes were started.
    """
    with ranks(device, workers) as process:
        if process.size > 1:
            raise FitError("A cross-validation is one process: start it without torchrun.")
        yield Tuning(
            rows=rows,
            task=task,
            slides=slides,
            recipe=recipe,
            settings=settings,
            store=store,
            ranks=process,
        )


def cross_validate_per_fold(
    tuning: Tuning,
    folds: Sequence[Fold],
    models: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
    fitter: Fitter,
    progress: Progress,
) -> Predictions:
    """Predict every case by models whose backbone has not seen it either.

    Weights, bags and fits of an interrupted run are used again.

    Args:
        tuning: how bags are made.
        folds: who trains and who is tested.
        models: names of heads or baselines.
        settings: how each is trained.
        seed: every fit's own seed follows from it.
        fitter: may return a stored fit instead of fitting.
        progress: is advanced by each slide, step and fit.

    Raises:
        LeakageError: the first weights or the target stain have seen a case that would be tested.
        FitError: a slide cannot be used.
    """
    check_start(tuning, folds)
    frozen = tuning.store(folds[0]).parent.parent / FROZEN
    tables = []
    for number, fold in enumerate(folds):
        named = NamedProgress(progress, f"fold {number + 1}/{len(folds)}: ")
        cohort = fold_cohort(tuning, fold, named, frozen)
        tables.append(
            cross_validate(
                cohort, [fold], models, settings, seed=seed, fitter=fitter, progress=progress
            )
        )
    remove_frozen(frozen)
    joined = concat(tables)
    order = {model: place for place, model in enumerate(models)}
    table = joined.table.sort_values("model", key=lambda names: names.map(order), kind="stable")
    return replace(joined, table=table.reset_index(drop=True))


def fold_cohort(tuning: Tuning, fold: Fold, progress: Progress, frozen: Path) -> Cohort:
    """The cohort with bags by a backbone that was fine-tuned on one fold's training cases.

    Args:
        tuning: how bags are made.
        fold: who trains.
        progress: is advanced by each slide and step.
        frozen: folder that folds share for what frozen layers give for each tile.
    """
    store = tuning.store(fold)
    tuned = tuned_folder(store)
    finetune(
        [slide for slide in tuning.slides if slide.job.case in set(fold.train)],
        tuning.recipe,
        tuning.settings,
        tuned,
        task=tuning.task,
        ranks=tuning.ranks,
        progress=progress,
        frozen=frozen,
    )
    outcomes = extract(
        [slide.job for slide in tuning.slides],
        replace(tuning.recipe, weights=str(tuned / WEIGHTS)),
        store,
        device=str(tuning.ranks.device),
        workers=tuning.ranks.workers,
        overwrite=True,  # bags of weights that an interrupted run with other data has left
        progress=progress,
    )
    for outcome in outcomes:
        if outcome.status in ("failed", "excluded"):
            raise FitError(outcome.reason)
    return assemble(tuning.rows, store, task=tuning.task, allow_missing=None, allow_duplicates=None)


def tuned_folder(store: Path) -> Path:
    """Where a fold keeps its weights, beside its bags."""
    return store.with_name("tuned")


def check_start(tuning: Tuning, folds: Sequence[Fold]) -> None:
    """Refuse, before any work, first weights or a stain that have seen a case that would be tested.

    Raises:
        LeakageError: naming the cases.
    """
    recipe = tuning.recipe
    backbone = load_backbone(
        recipe.backbone, recipe.weights, seed=recipe.seed, stated=recipe.stated
    )
    seen, sources = set(backbone.trained_on), set(backbone.trained_on_slides)
    if recipe.stain != "off":
        reference = resolve_stain_reference(recipe, [slide.job for slide in tuning.slides])
        seen |= set(reference.cases)
        sources |= set(reference.sources)
    if sources:
        seen |= {s.job.case for s in tuning.slides if slide_fingerprints(s.job) & sources}
    tested = {name for fold in folds for name in fold.test}
    slides = ((s.job.case, s.job.slide) for s in tuning.slides if s.job.case in tested)
    if leaked := cases_among(slides, seen):
        raise LeakageError(
            f"The first weights or the target stain have seen {', '.join(leaked[:3])}, which would be "
            "tested. Start from weights and a stain of other cases."
        )
