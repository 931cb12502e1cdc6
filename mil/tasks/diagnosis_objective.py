"""Training for classes: every class weighs the same, and every case within its class."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mil.data.case import Case
from mil.data.encoding import ColumnEncoding
from mil.errors import FitError
from mil.heads.batches import (
    TILES_AT_ONCE,
    TILES_PER_STEP,
    UNREADY,
    Batch,
    Features,
    ReadyBags,
    ReadyBatch,
    alike,
    collate,
    draw,
    pad_ready,
)
from mil.heads.head import Head, Training
from mil.learning.adamw import AdamW
from mil.learning.epochs import autocast, run_bags
from mil.learning.losses import cross_entropy, focal
from mil.learning.objective import StackedFits, StackObjective
from mil.learning.readout import ClassReadout
from mil.settings import FitSettings
from mil.tasks.tile_objective import TileObjective


@dataclass(frozen=True)
class WeightedBag:
    """One bag with its case's class and its weight in the loss."""

    features: Features
    label: int
    weight: float


class StepPart(NamedTuple):
    """The part of a step that is computed at once.

    Attributes:
        bags: the tiles drawn from each, (N, D); or a batch of single tiles.
        labels: (B,)
        weights: (B,)
    """

    bags: list[Features] | Batch | ReadyBatch
    labels: Tensor
    weights: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N) of the bags, padded."""
        if isinstance(self.bags, list):
            return len(self.bags), max(map(len, self.bags))
        return self.bags.features.shape[0], self.bags.features.shape[1]

    def collate(self, settings: FitSettings, ready: ReadyBags) -> Batch | ReadyBatch | Features:
        """The bags padded, or one bag (N, D) that is too long to be taken at once."""
        if not isinstance(self.bags, list):
            return self.bags
        return (
            self.bags[0]
            if 0 < settings.chunk_tiles < len(self.bags[0])
            else ready.collate(self.bags)
        )


class ClassObjective(StackObjective):
    """Cross-entropy or focal loss over slides, or over tiles that carry their slide's label.

    Args:
        train: cases to learn from; every class is among them.
        valid: further training cases to choose the epoch by.
        classes: names in the order of the logits.
        encoding: how clinical columns become a row, in place of tiles.

    Raises:
        FitError: a class without a training case, or a label that is no class.
    """

    def __init__(
        self,
        train: Sequence[Case],
        valid: Sequence[Case],
        classes: Sequence[str],
        encoding: ColumnEncoding | None = None,
    ) -> None:
        absent = set(classes) - {case.label for case in train}
        if absent:
            raise FitError(
                f"No case of {', '.join(sorted(absent))} to train on. Add one, or drop the class."
            )
        self.outputs = tuple(classes)
        self.cases = train
        self.examples, self.counts = make_examples(train, classes, encoding)
        self.validation = make_examples(valid, classes, encoding)[0] if valid else []
        self.slides = [example.features for example in self.examples]
        self.inner_slides = [example.features for example in self.validation]
        self.validates = bool(valid)

    def training(self, seed: int) -> Training:
        """Labels and weights of the slides."""
        n_slides = [len(case.bags) for case in self.cases]
        return Training(
            features=self.slides,
            labels=np.array([example.label for example in self.examples], dtype=np.int64),
            weights=np.array([example.weight for example in self.examples]),
            cases=np.repeat(np.arange(len(self.cases)), n_slides),
            seed=seed,
        )

    def epoch(
        self,
        head: Head,
        settings: FitSettings,
        rng: np.random.Generator,
        optimizer: AdamW,
    ) -> list[float]:
        """All bags once, or all tiles once for a head that learns from tiles."""
        return [
            self._train_step(head, optimizer, step, settings)
            for step in self._steps(head, settings, rng, self.ready)
        ]

    def n_steps(self, head: Head, settings: FitSettings) -> int:
        """Steps of an epoch."""
        if head.learns_from != "tiles":
            return math.ceil(len(self.slides) / settings.batch_bags)
        most = settings.train_tiles or math.inf
        return math.ceil(sum(min(len(bag), most) for bag in self.slides) / TILES_PER_STEP)

    def epoch_together(
        self, members: StackedFits, settings: FitSettings, optimizer: AdamW
    ) -> list[list[float]]:
        """``epoch`` of all members at once; for each step all their losses."""
        of_members = [
            cast("ClassObjective", fit.objective)._steps(fit.head, settings, fit.rng, ready)
            for fit, ready in zip(members.fits, members.ready, strict=True)
        ]
        return [
            self._train_together(members, optimizer, steps, settings)
            for steps in zip(*of_members, strict=True)
        ]

    def _steps(
        self, head: Head, settings: FitSettings, rng: np.random.Generator, ready: ReadyBags
    ) -> Iterator[list[StepPart]]:
        steps = _tile_steps if head.learns_from == "tiles" else _bag_steps
        return steps(self.examples, settings, rng, ready)

    def _train_together(
        self,
        members: StackedFits,
        optimizer: AdamW,
        steps: Sequence[Sequence[StepPart]],
        settings: FitSettings,
    ) -> list[float]:
        """``_train_step`` of each member; their losses do not meet, so neither do their gradients."""
        optimizer.zero_grad()
        shapes = [[group.shape for group in step] for step in steps]
        labels = _pad([torch.cat([group.labels for group in step]) for step in steps])  # (S, B)
        weights = [torch.cat([group.weights for group in step]) for step in steps]
        shares = _pad([own / len(own) for own in weights])  # (S, B), 0 where there is no bag
        batch = _collate_together(steps, members.ready, labels.shape[1])
        with autocast(settings):
            logits = members.stack.run(batch, shapes)
            losses = self.losses(logits.float(), labels.flatten(), settings) * shares.flatten()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        of_members: list[float] = losses.detach().view_as(shares).sum(dim=1).tolist()
        return of_members

    @torch.inference_mode()
    def validate(self, head: Head, settings: FitSettings) -> float:
        """Weighted loss over all tiles of the inner validation cases."""
        head.eval()
        losses = []
        for group in _group_bags(self.validation, self.inner_slides, settings):
            bags = group.collate(settings, self.ready)
            with autocast(settings):
                output, _ = run_bags(head, bags, settings)
            loss = self._loss(output.logits, group, settings)
            losses.append(float(loss) * len(group.labels))
        return sum(losses) / sum(example.weight for example in self.validation)

    def readout(self, head: Head, settings: FitSettings) -> ClassReadout:
        """Probabilities of the classes."""
        del head, settings
        return ClassReadout(self.outputs)

    def losses(self, logits: Tensor, labels: Tensor, settings: FitSettings) -> Tensor:
        """(B,) the chosen loss of each bag's logits (B, C)."""
        if settings.loss_name == "focal":
            return focal(logits, labels, gamma=settings.focal_gamma)
        return cross_entropy(logits, labels, smoothing=settings.label_smoothing)

    def _loss(self, logits: Tensor, group: StepPart, settings: FitSettings) -> Tensor:
        """The loss of each bag times its weight, averaged over the batch."""
        return (self.losses(logits.float(), group.labels, settings) * group.weights).mean()

    def _train_step(
        self,
        head: Head,
        optimizer: AdamW,
        step: Sequence[StepPart],
        settings: FitSettings,
    ) -> float:
        """One step on the mean loss over all bags of its groups; returns that loss."""
        optimizer.zero_grad()
        n_bags = sum(len(group.labels) for group in step)
        total = 0.0
        for group in step:
            bags = group.collate(settings, self.ready)
            with autocast(settings):
                output, mask = run_bags(head, bags, settings)
                loss = self._loss(output.logits, group, settings)
                auxiliary = head.auxiliary_loss(output, group.labels, mask)  # (B,)
                loss = loss + (auxiliary * group.weights).mean()
            share = loss * (len(group.labels) / n_bags)
            share.backward()  # type: ignore[no-untyped-call]
            total += float(share.detach())
        optimizer.step()
        return total


class ClassTileObjective(TileObjective):
    """Cross-entropy of the case's class.

    Args:
        train: cases to learn from, of two or more classes.

    Raises:
        FitError: there is only one class.
    """

    weighs_labels_equally: ClassVar[bool] = True

    def __init__(self, train: Sequence[Case]) -> None:
        self.outputs = tuple(sorted({case.label for case in train}))
        if len(self.outputs) < 2:
            raise FitError(
                f"Two or more classes are needed to train on; got {', '.join(self.outputs)}. Check the "
                "label column."
            )

    def targets(self, cases: Sequence[Case]) -> Tensor:
        """(n,) index of the class."""
        if unknown := sorted({case.label for case in cases} - set(self.outputs)):
            raise FitError(f"No training case of {', '.join(unknown)}. Add one, or drop the class.")
        return torch.tensor([self.outputs.index(case.label) for case in cases])

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) cross-entropy of the class."""
        return functional.cross_entropy(logits, targets, reduction="none")


def make_examples(
    cases: Sequence[Case], classes: Sequence[str], encoding: ColumnEncoding | None = None
) -> tuple[list[WeightedBag], Tensor]:
    """The bags of cases with balanced weights of mean 1, and (C,) the number of cases per class.

    With an encoding, a bag is the row of clinical columns of its case.

    Raises:
        FitError: a label is none of the classes.
    """
    unknown = sorted({case.label for case in cases} - set(classes))
    if unknown:
        raise FitError(f"Label {unknown[0]!r} is none of the classes {', '.join(classes)}. Add it.")
    labels = [list(classes).index(case.label) for case in cases]
    counts = np.bincount(labels, minlength=len(classes))
    examples = []
    present = int((counts > 0).sum())
    for case, label in zip(cases, labels, strict=True):
        case_weight = len(cases) / present / counts[label]
        for bag in case.bags:
            features = encoding.row(case.name, case.other) if encoding else bag.features
            examples.append(WeightedBag(features, label, case_weight / len(case.bags)))
    mean = sum(example.weight for example in examples) / len(examples)
    scaled = [WeightedBag(e.features, e.label, e.weight / mean) for e in examples]
    return scaled, torch.tensor(counts, dtype=torch.float32)


def _bag_steps(
    examples: Sequence[WeightedBag],
    settings: FitSettings,
    rng: np.random.Generator,
    _ready: ReadyBags = UNREADY,
) -> Iterator[list[StepPart]]:
    """All bags once, shuffled, a few per step."""
    order = rng.permutation(len(examples))
    for start in range(0, len(order), settings.batch_bags):
        chosen = [examples[i] for i in order[start : start + settings.batch_bags]]
        drawn = [draw(e.features, settings.train_tiles, rng) for e in chosen]
        yield list(_group_bags(chosen, drawn, settings))


def _group_bags(
    examples: Sequence[WeightedBag],
    drawn: Sequence[Features],
    settings: FitSettings,
) -> Iterator[StepPart]:
    """The examples with the tiles drawn from each, bags of similar length together."""
    for members in alike([len(bag) for bag in drawn], settings.chunk_tiles or TILES_AT_ONCE):
        labels = torch.tensor([examples[i].label for i in members])
        weights = torch.tensor([examples[i].weight for i in members], dtype=torch.float32)
        yield StepPart([drawn[i] for i in members], labels, weights)


def _collate_together(
    steps: Sequence[Sequence[StepPart]], ready: Sequence[ReadyBags], n_rows: int
) -> ReadyBatch:
    """As many bags of each member, one after the other; one with fewer gets bags of a zero tile."""
    if not isinstance(steps[0][0].bags, list):  # single tiles, (B, 1, D) of each
        tiles = _pad([step[0].bags.features for step in steps]).flatten(0, 1)  # type: ignore[union-attr]
        return ReadyBatch(tiles, torch.ones(len(tiles), 1, dtype=torch.bool))
    bags: list[Tensor] = []
    for step, own in zip(steps, ready, strict=True):
        mine = [bag for group in step for bag in own.of(group.bags)]  # type: ignore[arg-type]
        blank = mine[0].new_zeros(1, mine[0].shape[1])
        bags += [*mine, *[blank] * (n_rows - len(mine))]
    return pad_ready(bags)


def _pad(rows: Sequence[Tensor]) -> Tensor:
    """Rows (B_s, ...) padded with zeros to the longest, (S, B, ...)."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _tile_steps(
    examples: Sequence[WeightedBag],
    settings: FitSettings,
    rng: np.random.Generator,
    ready: ReadyBags = UNREADY,
) -> Iterator[list[StepPart]]:
    """Tiles of all bags, shuffled, each a bag of its own that carries its slide's label."""
    drawn = [draw(e.features, settings.train_tiles, rng) for e in examples]
    joined = ready.joined(drawn)
    kind = Batch if joined is None else ReadyBatch
    tiles = joined  # (M, D)
    if tiles is None:
        tiles = torch.cat([collate([bag]).features[0] for bag in drawn])
    labels = torch.cat(
        [torch.full((len(d),), e.label) for d, e in zip(drawn, examples, strict=True)]
    )
    # A slide with many tiles weighs no more than one with few; the mean weight stays 1.
    weights = torch.cat(
        [
            torch.full((len(d),), e.weight * len(tiles) / len(examples) / len(d))
            for d, e in zip(drawn, examples, strict=True)
        ]
    )
    order = torch.from_numpy(rng.permutation(len(tiles)))
    for chosen in torch.split(order, TILES_PER_STEP):
        mask = torch.ones(len(chosen), 1, dtype=torch.bool)
        batch = kind(tiles[chosen].unsqueeze(1), mask)  # (B, 1, D)
        yield [StepPart(batch, labels[chosen], weights[chosen])]
