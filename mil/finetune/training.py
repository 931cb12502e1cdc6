"""Training of a backbone on labelled slides; its weights know their cases."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.backbones.registry import Backbone, load_backbone
from features.device import move_array
from features.extraction.embed import preprocess
from features.extraction.jobs import identify_files
from features.extraction.normalisation import resolve_stain_reference
from features.files.checksum import fingerprint
from features.precision import resolve_precision
from features.progress import Advance, Progress, Silent
from features.recipe import Recipe
from features.regions.annotations import annotation_sha256
from features.tiles.stain import StainReference
from mil.data.splits import inner_split
from mil.errors import FitError
from mil.finetune.augmentation import Variations, draw_variations, vary_tiles
from mil.finetune.distributed import Ranks
from mil.finetune.files import (
    TrainingProgress,
    finished_card,
    read_checkpoint,
    write_checkpoint,
    write_tuned,
)
from mil.finetune.frozen import FrozenLayers, remove_frozen
from mil.finetune.network import TileClassifier, parameter_groups
from mil.finetune.settings import FinetuneSettings
from mil.finetune.tiles import LabelledSlide, TileBatch, TilePool, check_usable, tile_weights
from mil.tasks.registry import task_class
from mil.tasks.task import Task
from mil.version import __version__

FROZEN = "frozen"  # folder of what frozen layers give
INITIAL, VALIDATION = 1, 2  # random seeds beside those of the epochs


def finetune(
    slides: Sequence[LabelledSlide],
    recipe: Recipe,
    settings: FinetuneSettings,
    out: Path,
    *,
    task: Task | None = None,
    ranks: Ranks,
    progress: Progress | None = None,
    frozen: Path | None = None,
) -> Mapping[str, Any]:
    """Train a backbone on the tiles of labelled slides.

    Every tile learns the outcome of its case by the task's ``tile_objective``. Cases have equal weight,
    for a diagnosis within classes of equal weight, and so do the slides of a case. Where the settings set
    an inner part of the cases aside, the weights of the epoch with the lowest loss on it are kept, else
    those of the last epoch. An interrupted run of the same request is continued; on one CPU thread the
    result is the same to the last bit.

    Args:
        slides: all of which may be trained on.
        recipe: the backbone, its first weights, and which tiles; also the seed.
        settings: how to train.
        out: where the files go.
        task: which outcome is learnt; a diagnosis if not given.
        ranks: this process among those that train together.
        progress: is advanced by each slide and step.
        frozen: folder for what frozen layers give for each tile, to be shared with other trainings; one in
            ``out``, which is removed at the end, if not given.

    Returns:
        The card of the weights in ``out``.

    Raises:
        FitError: slides cannot be used, the cases lack an outcome, or the loss is not finite.
        CohortError: too few cases of a class to set some aside.
    """
    if recipe.precision == "fp16":
        raise FitError("Training in fp16 loses small gradients. Set precision to bf16 or fp32.")
    progress, task = progress or Silent(), task or task_class()()
    backbone = load_backbone(
        recipe.backbone, recipe.weights, seed=recipe.seed, stated=recipe.stated
    )
    jobs = [slide.job for slide in slides]
    reference = resolve_stain_reference(recipe, jobs) if recipe.stain != "off" else None
    request = _request(slides, recipe, settings, task, backbone, reference)
    card = finished_card(out, request)
    if card is None:
        with TilePool(slides, recipe, reference, progress) as pool, _seeded(recipe.seed, INITIAL):
            check_usable(pool)
            pool.keep(settings.tile_cache / ranks.size, out)
            training = _Training(pool, backbone, recipe, settings, task, ranks)
            with training.open_frozen(frozen or out / FROZEN, reference):
                progressed = training.run(out, request, progress)
            card = _card(training, progressed, reference, request)
            if ranks.first:
                write_tuned(out, training.classifier, card)
                remove_frozen(out / FROZEN)
    ranks.wait()
    return card


class _Training:
    """One training from its first to its last epoch."""

    def __init__(
        self,
        pool: TilePool,
        backbone: Backbone,
        recipe: Recipe,
        settings: FinetuneSettings,
        task: Task,
        ranks: Ranks,
    ) -> None:
        self.pool, self.backbone, self.settings, self.ranks = pool, backbone, settings, ranks
        self.recipe = recipe
        self.train, self.valid = _parts(pool, settings, recipe.seed)
        cases = {pool.slides[m].job.case: pool.slides[m].case for m in self.train}
        self.objective = task.tile_objective([cases[name] for name in sorted(cases)])
        targets = self.objective.targets([slide.case for slide in pool.slides])
        self.targets = targets.to(ranks.device)
        self.classifier = TileClassifier(backbone, len(self.objective.outputs), settings)
        self.classifier.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = parameter_groups(self.classifier, settings)
        self.optimizer = _optimizer(groups, settings, fused=ranks.device.type == "cuda")
        self.dtype = resolve_precision(recipe.precision, ranks.device)
        self.frozen: FrozenLayers | None = None
        per_epoch = sum(min(pool.counts[m], settings.tiles_per_slide) for m in self.train)
        self.steps_per_epoch = math.ceil(per_epoch / settings.batch_tiles)
        if per_epoch < self.steps_per_epoch * ranks.size:
            raise FitError(
                f"{ranks.size} processes share steps of {settings.batch_tiles} tiles. Set batch_tiles higher."
            )

    def open_frozen(
        self, folder: Path, reference: StainReference | None
    ) -> contextlib.AbstractContextManager[object]:
        """Cache what the layers before the first that learns give, where no tile varies."""
        if self.settings.augments:
            return contextlib.nullcontext()
        stage = self.classifier.frozen_stage(self.backbone.input_px)
        if stage is None:
            return contextlib.nullcontext()
        key = fingerprint(
            {
                "network": [self.backbone.recipe.to_json(), self.backbone.weights_sha256],
                "recipe": asdict(self.recipe) | {"weights": "", "seed": 0},
                "precision": str(self.dtype),
                "stain": reference.target.to_json() if reference else None,
            }
        )
        self.frozen = FrozenLayers(
            self.classifier, stage, self.backbone, self.settings.batch_tiles, self._autocast
        )
        return self.frozen.open_store(folder, self.pool, key, self.settings.frozen_cache)

    def run(self, out: Path, request: str, progress: Progress) -> TrainingProgress:
        """Run all epochs that are not done yet; the classifier ends with the weights to keep."""
        progressed = read_checkpoint(out, request, self.classifier, self.optimizer)
        module = self.ranks.distribute(self.classifier)
        done, epochs = len(progressed.losses), self.settings.epochs
        total = (epochs - done) * self.steps_per_epoch
        with progress.task("fine-tuning", total, "steps") as advance:
            for epoch in range(done, epochs):
                if _lost_patience(progressed.valid_losses, self.settings.patience):
                    break
                with _seeded(self.recipe.seed, 0, epoch, self.ranks.number):
                    progressed.losses.append(_finite(self._epoch(module, epoch, advance), epoch))
                if self.valid:
                    progressed.valid_losses.append(_finite(self._validate(), epoch))
                    if int(np.argmin(progressed.valid_losses)) == epoch:
                        state = self.classifier.state_dict()
                        progressed.best = {name: value.clone() for name, value in state.items()}
                self.ranks.check_equal(self.classifier.parameters())
                if self.ranks.first:
                    write_checkpoint(out, request, self.classifier, self.optimizer, progressed)
                self.ranks.wait()
        if progressed.best:
            self.classifier.load_state_dict(progressed.best)
        self.classifier.eval()
        if not all(bool(weight.isfinite().all()) for weight in self.classifier.parameters()):
            raise FitError(
                "The last step left weights that are not finite. Use a smaller learning_rate."
            )
        return progressed

    def _epoch(self, module: nn.Module, epoch: int, advance: Advance) -> float:
        """One pass over a new draw of tiles; the mean loss."""
        rng = np.random.default_rng([self.recipe.seed, 0, epoch])
        chosen = self.pool.draw(self.train, self.settings.tiles_per_slide, rng)
        weights = self._weights(chosen, self.train)
        variations = draw_variations(len(chosen), self.settings, rng)
        parts = np.array_split(np.arange(len(chosen)), self.steps_per_epoch)
        shares = [part[self.ranks.number :: self.ranks.size] for part in parts]
        steps = [(chosen[rows], variations.of(rows)) for rows in shares]
        total = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        module.train()
        for number, batch in enumerate(self.pool.batches(steps, self.ranks.workers)):
            self._set_rates(epoch * self.steps_per_epoch + number)
            loss = self._loss(module, batch, weights) / len(parts[number])
            self.optimizer.zero_grad(set_to_none=True)
            (loss * self.ranks.size).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach() * len(
                parts[number]
            )  # where it is: to read it would end the queue of work
            advance(1)
        return float(self.ranks.total(total)) / len(chosen)

    @torch.inference_mode()
    def _validate(self) -> float:
        """The mean loss over tiles of the inner validation cases, the same in every epoch."""
        rng = np.random.default_rng([self.recipe.seed, VALIDATION])
        chosen = self.pool.draw(self.valid, self.settings.tiles_per_slide, rng)
        weights = self._weights(chosen, self.valid)
        parts = np.array_split(chosen, math.ceil(len(chosen) / self.settings.batch_tiles))
        shares = parts[self.ranks.number :: self.ranks.size]
        plain = [(part, Variations.none(len(part))) for part in shares]
        self.classifier.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        for batch in self.pool.batches(plain, self.ranks.workers):
            total += self._loss(self.classifier, batch, weights)
        return float(self.ranks.total(total)) / len(chosen)

    def _weights(self, chosen: NDArray[np.int64], members: Sequence[int]) -> Tensor:
        """(S,) the weight of each slide's tiles."""
        equally = self.objective.weighs_labels_equally
        weights = tile_weights(self.pool, chosen, members, labels_equally=equally)
        return torch.from_numpy(weights).float().to(self.ranks.device)

    def _loss(self, module: nn.Module, batch: TileBatch, weights: Tensor) -> Tensor:
        """The summed loss of a batch, each tile times its weight."""
        device = self.ranks.device
        if self.frozen:
            values = self.frozen(batch, device)
            with self._autocast():
                logits = module(values, self.frozen.stage)
        else:
            tiles = vary_tiles(move_array(batch.tiles, device), batch.variations)
            images = preprocess(tiles, self.backbone).contiguous(memory_format=torch.channels_last)
            with self._autocast():
                logits = module(images)
        slides = move_array(batch.slides, device)
        weight = weights[slides] * move_array(batch.usable, device)
        losses = self.objective.losses(logits.float(), self.targets[slides])
        return (losses * weight).sum()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        """The precision of a forward pass."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.ranks.device.type, self.dtype)

    def _set_rates(self, step: int) -> None:
        fraction = learning_fraction(step / self.steps_per_epoch, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * group["scale"] * fraction


def learning_fraction(at: float, settings: FinetuneSettings) -> float:
    """The fraction of the learning rate after so many epochs: a straight rise, then the schedule."""
    epochs, warmup = settings.epochs, settings.warmup
    if at < warmup:
        return (at + 1e-3) / (warmup + 1e-3)  # the first step learns a little too
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / max(epochs - warmup, 1e-9)))


def _optimizer(
    groups: list[dict[str, Any]], settings: FinetuneSettings, *, fused: bool
) -> torch.optim.Optimizer:
    """The optimizer of what learns; each group has its weight decay.

    Args:
        groups: of parameters.
        settings: which optimizer, and its rate.
        fused: whether a step is one call for all parameters; its last digits differ.
    """
    rate = settings.learning_rate
    if settings.optimizer == "sgdm":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=fused)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, fused=fused)


def _lost_patience(valid_losses: Sequence[float], patience: int) -> bool:
    """Whether the loss on inner cases has not fallen for so many epochs; never where patience is 0."""
    if not patience or not valid_losses:
        return False
    return len(valid_losses) - 1 - int(np.argmin(valid_losses)) >= patience


@contextlib.contextmanager
def _seeded(*seeds: int) -> Iterator[None]:
    """Seed dropout and first weights separately, so that no generator state has to be stored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        yield


def _parts(pool: TilePool, settings: FinetuneSettings, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the slides to train on and of those to choose the epoch by; no case is in both."""
    label_of = {slide.job.case: slide.label for slide in pool.slides}
    names = sorted(label_of)
    everyone = list(range(len(pool.slides)))
    if not settings.sets_aside([label_of[name] for name in names]):
        return everyone, []
    _, valid = inner_split(names, [label_of[name] for name in names], seed)
    aside = [m for m in everyone if pool.slides[m].job.case in set(valid)]
    return [m for m in everyone if m not in set(aside)], aside


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise FitError(f"The loss is {loss} in epoch {epoch + 1}. Use a smaller learning_rate.")
    return loss


def _request(
    slides: Sequence[LabelledSlide],
    recipe: Recipe,
    settings: FinetuneSettings,
    task: Task,
    backbone: Backbone,
    reference: StainReference | None,
) -> str:
    """Fingerprint of all that shapes the weights; a finished file or a checkpoint of another is not used."""
    drawings = [slide.job.annotation() for slide in slides]
    return fingerprint(
        {
            "recipe": asdict(recipe) | {"weights": backbone.weights_sha256},
            "settings": asdict(settings) | {"tile_cache": None, "frozen_cache": None},
            "stain": reference.target.to_json() if reference else None,
            "slides": [
                [
                    slide.job.slide,
                    slide.job.case,
                    slide.label,
                    slide.job.mpp,
                    identify_files(slide.job),
                    *([] if slide.time is None else [slide.time]),
                ]
                for slide in slides
            ],
            "annotations": [annotation_sha256(path) if path else "" for path in drawings],
            **task.to_settings(),
        }
    )


def _card(
    training: _Training,
    progressed: TrainingProgress,
    reference: StainReference | None,
    request: str,
) -> dict[str, Any]:
    """What the weights are and which cases they have seen, also through first weights and the stain."""
    pool, backbone = training.pool, training.backbone
    cases = {slide.job.case for slide in pool.slides}
    seen = cases | set(backbone.trained_on) | set(reference.cases if reference else ())
    sources = {*pool.fingerprints, *backbone.trained_on_slides}
    sources |= set(reference.sources if reference else ())
    valid = progressed.valid_losses
    return {
        "backbone": backbone.name,
        "network": backbone.recipe.to_json(),
        "trained_on": sorted(seen),
        "trained_on_slides": sorted(sources),
        "chosen_by": sorted({pool.slides[m].job.case for m in training.valid}),
        "classes": list(training.objective.outputs),
        "mpp": pool.recipe.mpp,
        "tile": pool.recipe.tile,
        "recipe": asdict(pool.recipe) | {"weights": backbone.weights},
        "settings": asdict(training.settings) | {"weight_decay": training.settings.decay},
        "started_from_sha256": backbone.weights_sha256,
        "licence": backbone.licence,
        "losses": progressed.losses,
        "valid_losses": valid,
        "kept_epoch": 1 + int(np.argmin(valid)) if valid else len(progressed.losses),
        "request_sha256": request,
        "sarcomil": __version__,
    }
