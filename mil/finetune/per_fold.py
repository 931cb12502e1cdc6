"""Cross-validation of the whole path: each fold fine-tunes, extracts and fits on its own training cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from features.backbones.registry import load_backbone
from features.extraction.extract import extract
from features.progress import Progress
from features.recipe import Recipe
from features.tiles.normalisation import resolve_stain_reference
from mil.data.cohort import Cohort, Row, assemble
from mil.data.names import matching
from mil.data.splits import Fold
from mil.errors import FitError, LeakageError
from mil.evaluation.predictions import Predictions
from mil.finetune.distributed import Ranks
from mil.finetune.files import WEIGHTS
from mil.finetune.settings import FinetuneSettings
from mil.finetune.tiles import LabelledSlide
from mil.finetune.training import finetune
from mil.learning.crossval import Fitter, cross_validate
from mil.settings import FitSettings


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How each fold makes its bags.

    Attributes:
        rows: of the table, one per slide.
        slides: the same slides, labelled.
        recipe: of tiles, and the backbone to start from.
        settings: of fine-tuning.
        store: the folder of each fold's bags; weights go to ``tuned`` beside it.
        ranks, workers: what to compute on.
    """

    rows: Sequence[Row]
    slides: Sequence[LabelledSlide]
    recipe: Recipe
    settings: FinetuneSettings
    store: Callable[[Fold], Path]
    ranks: Ranks
    workers: int = 0


def cross_validate_per_fold(
    tuning: Tuning,
    folds: Sequence[Fold],
    models: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
    keep: Fitter,
    progress: Progress,
) -> Predictions:
    """Predict every case by models whose backbone has not seen it either.

    What an interrupted run has left is taken up: weights, bags and fits.

    Args:
        tuning: how bags are made.
        folds: who trains and who is tested.
        models: as of ``cross_validate``, like all that follow.
        settings: how each is trained.
        seed: every fit's own seed follows from it.
        keep: may hand back a fit it has kept.
        progress: told of slides, steps and fits.

    Raises:
        LeakageError: the first weights or the target stain have seen a case that would be tested.
        FitError: a slide cannot be used.
    """
    check_start(tuning, folds)
    tables = []
    for number, fold in enumerate(folds):
        cohort = fold_cohort(tuning, fold, _Named(progress, f"fold {number + 1}/{len(folds)}: "))
        tables.append(
            cross_validate(
                cohort, [fold], models, settings, seed=seed, keep=keep, progress=progress
            )
        )
    table = pd.concat([each.table for each in tables], ignore_index=True)
    order = {model: place for place, model in enumerate(models)}
    table = table.sort_values("model", key=lambda names: names.map(order), kind="stable")
    return Predictions(table.reset_index(drop=True), tables[0].classes)


def fold_cohort(tuning: Tuning, fold: Fold, progress: Progress) -> Cohort:
    """The cohort as a backbone sees it that was fine-tuned on one fold's training cases."""
    store = tuning.store(fold)
    tuned = store.with_name("tuned")
    finetune(
        [slide for slide in tuning.slides if slide.job.case in set(fold.train)],
        tuning.recipe,
        tuning.settings,
        tuned,
        ranks=tuning.ranks,
        workers=tuning.workers,
        progress=progress,
    )
    outcomes = extract(
        [slide.job for slide in tuning.slides],
        replace(tuning.recipe, weights=str(tuned / WEIGHTS)),
        store,
        device=str(tuning.ranks.device),
        workers=tuning.workers,
        overwrite=True,  # bags of weights that an interrupted run with other data has left
        progress=progress,
    )
    for outcome in outcomes:
        if outcome.status in ("failed", "excluded"):
            raise FitError(outcome.reason)
    return assemble(tuning.rows, store)


def check_start(tuning: Tuning, folds: Sequence[Fold]) -> None:
    """Refuse, before any work, a start that has seen a case that would be tested.

    Raises:
        LeakageError: naming the cases.
    """
    recipe = tuning.recipe
    seen = set(load_backbone(recipe.backbone, recipe.weights, seed=recipe.seed).trained_on)
    if recipe.stain != "off":
        seen |= set(resolve_stain_reference(recipe, [slide.job for slide in tuning.slides]).cases)
    if leaked := matching((name for fold in folds for name in fold.test), seen):
        raise LeakageError(
            f"The first weights or the target stain have seen {', '.join(leaked[:3])}, which would be "
            "tested. Start from weights and a stain of other cases."
        )


@dataclass(frozen=True)
class _Named:
    """Progress whose tasks say which fold they are of."""

    progress: Progress
    prefix: str

    def task(self, name: str, total: int, unit: str):  # type: ignore[no-untyped-def]
        """Show the task under its longer name."""
        return self.progress.task(self.prefix + name, total, unit)
