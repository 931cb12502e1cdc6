"""One fit: from training cases to a fitted model. The test part cannot be given."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from features.threads import one_torch_thread
from mil.batches import collate
from mil.cohort import Case
from mil.errors import FitError, LeakageError
from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.registry import build_head
from mil.settings import FitSettings
from mil.version import __version__

SCALE_TILES = 512  # per bag, to estimate mean and spread of features
TILES_PER_STEP = 256  # where single tiles are the bags


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model with what is needed to use it rightly.

    Attributes:
        model: the head's name.
        head: in evaluation mode.
        classes: names in the order of the logits.
        recipe: how the bags it learnt from were made; others are refused.
        recipe_sha256: its fingerprint.
        trained_on: names of all cases it has seen: to train, to choose an epoch, or through its backbone.
        settings: how it was trained.
        seed: of weights, draws and order.
        losses: mean training loss per epoch.
        valid_losses: loss on the inner validation cases per epoch; empty without them.
    """

    model: str
    head: Head
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    recipe_sha256: str
    trained_on: tuple[str, ...]
    settings: FitSettings
    seed: int
    losses: tuple[float, ...] = ()
    valid_losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Example:
    """One bag with its case's class and its weight in the loss."""

    features: NDArray[np.float16] | NDArray[np.float32]
    label: int
    weight: float


def fit(
    model: str,
    train: Sequence[Case],
    valid: Sequence[Case],
    classes: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
) -> Fitted:
    """Train a model on cases.

    Every case weighs the same within its class, and every class the same, however many slides and
    tiles they have. With validation cases the epoch of their lowest loss is kept; without, the last.

    Args:
        model: a name of ``HEADS``.
        train: cases to learn from; every class is among them.
        valid: further training cases to choose the epoch by; empty trains a fixed number of epochs.
        classes: names in the order of the logits.
        settings: how to train.
        seed: makes the fit repeatable.

    Raises:
        FitError: an unknown model, no training case of a class, or a loss that is not finite.
        LeakageError: a case is in both parts.
    """
    shared = {case.name for case in train} & {case.name for case in valid}
    if shared:
        raise LeakageError(f"{', '.join(sorted(shared)[:5])} would train and choose the epoch.")
    absent = set(classes) - {case.label for case in train}
    if absent:
        raise FitError(
            f"No case of {', '.join(sorted(absent))} to train on. Add one, or drop the class."
        )
    examples, counts = _examples(train, classes)
    held_out, _ = _examples(valid, classes) if valid else ([], None)
    bag = train[0].bags[0]
    shape = HeadSettings(
        dim=bag.dim, n_classes=len(classes), width=settings.width, dropout=settings.dropout
    )
    with torch.random.fork_rng(devices=[]), one_torch_thread():
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        head = build_head(model, shape)
        scale_tiles = [collate([e.features], max_tiles=SCALE_TILES, rng=rng) for e in examples]
        head.prepare(torch.cat([batch.features[0] for batch in scale_tiles]), counts)
        history = _train(head, examples, held_out, settings, rng)
    return Fitted(
        model=model,
        head=head.eval(),
        classes=tuple(classes),
        recipe=bag.recipe,
        recipe_sha256=bag.recipe_sha256,
        trained_on=tuple(sorted(_seen_by((*train, *valid)))),
        settings=settings,
        seed=seed,
        losses=tuple(history.train),
        valid_losses=tuple(history.valid),
    )


def _seen_by(cases: Sequence[Case]) -> set[str]:
    """The cases a fit has seen, by itself or through the backbone of its bags."""
    through_backbone = {name for case in cases for bag in case.bags for name in bag.trained_on}
    return {case.name for case in cases} | through_backbone


@dataclass
class _History:
    train: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)


def _train(
    head: Head,
    examples: Sequence[_Example],
    held_out: Sequence[_Example],
    settings: FitSettings,
    rng: np.random.Generator,
) -> _History:
    """Run the epochs; leaves the head as it was after the best or the last of them."""
    history = _History()
    if head.learns_from == "counts":
        return history
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    best: dict[str, Tensor] = {}
    for _epoch in range(settings.epochs):
        head.train()
        steps = _tile_steps if head.learns_from == "tiles" else _bag_steps
        losses = [_train_step(head, optimizer, step) for step in steps(examples, settings, rng)]
        history.train.append(_finite(float(np.mean(losses)), len(history.train)))
        schedule.step()
        if held_out:
            history.valid.append(_finite(_validate(head, held_out), len(history.valid)))
            since_best = len(history.valid) - 1 - int(np.argmin(history.valid))
            if since_best == 0:
                best = copy.deepcopy(head.state_dict())
            if since_best >= settings.patience:
                break
    if best:
        head.load_state_dict(best)
    if not all(bool(torch.isfinite(weight).all()) for weight in head.parameters()):
        raise FitError(
            "The last step left weights that are not finite. Use a smaller --learning-rate."
        )
    return history


def _finite(loss: float, epochs: int) -> float:
    """The loss after so many epochs, unless it has diverged."""
    if not np.isfinite(loss):
        raise FitError(f"The loss is {loss} in epoch {epochs + 1}. Use a smaller --learning-rate.")
    return loss


class _Step(tuple[Tensor, Tensor, Tensor, Tensor]):
    """features (B, N, D), mask (B, N), labels (B,), weights (B,)."""

    __slots__ = ()


def _train_step(head: Head, optimizer: torch.optim.Optimizer, step: _Step) -> float:
    features, mask, labels, weights = step
    output = head(features, mask)
    loss = weighted_loss(output, labels, weights) + head.auxiliary_loss(output, labels, mask)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


@torch.inference_mode()
def _validate(head: Head, held_out: Sequence[_Example]) -> float:
    """Weighted loss over all tiles of the inner validation cases."""
    head.eval()
    total = sum(example.weight for example in held_out)
    losses = []
    for example in held_out:
        batch = collate([example.features])
        output = head(batch.features, batch.mask)
        weights = torch.tensor([example.weight])
        losses.append(weighted_loss(output, torch.tensor([example.label]), weights))
    return float(torch.stack(losses).sum()) / total


def weighted_loss(output: HeadOutput, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each bag times its weight, averaged over the batch."""
    return (nn.functional.cross_entropy(output.logits, labels, reduction="none") * weights).mean()


def _bag_steps(
    examples: Sequence[_Example], settings: FitSettings, rng: np.random.Generator
) -> Iterator[_Step]:
    """All bags once, shuffled, a few per step."""
    order = rng.permutation(len(examples))
    for start in range(0, len(order), settings.batch_bags):
        chosen = [examples[i] for i in order[start : start + settings.batch_bags]]
        batch = collate([e.features for e in chosen], max_tiles=settings.train_tiles, rng=rng)
        labels = torch.tensor([e.label for e in chosen])
        weights = torch.tensor([e.weight for e in chosen], dtype=torch.float32)
        yield _Step((batch.features, batch.mask, labels, weights))


def _tile_steps(
    examples: Sequence[_Example], settings: FitSettings, rng: np.random.Generator
) -> Iterator[_Step]:
    """Tiles of all bags, shuffled, each a bag of its own that carries its slide's label."""
    drawn = [collate([e.features], max_tiles=settings.train_tiles, rng=rng)[0][0] for e in examples]
    tiles = torch.cat(drawn)  # (M, D)
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
        features = tiles[chosen].unsqueeze(1)  # (B, 1, D)
        mask = torch.ones(len(chosen), 1, dtype=torch.bool)
        yield _Step((features, mask, labels[chosen], weights[chosen]))


def _examples(cases: Sequence[Case], classes: Sequence[str]) -> tuple[list[_Example], Tensor]:
    """The bags of cases with balanced weights of mean 1, and the number of cases per class."""
    unknown = sorted({case.label for case in cases} - set(classes))
    if unknown:
        raise FitError(f"Label {unknown[0]!r} is none of the classes {', '.join(classes)}. Add it.")
    labels = [list(classes).index(case.label) for case in cases]
    counts = np.bincount(labels, minlength=len(classes))
    examples = []
    present = int((counts > 0).sum())
    for case, label in zip(cases, labels, strict=True):
        of_case = len(cases) / present / counts[label]
        examples += [_Example(bag.features, label, of_case / len(case.bags)) for bag in case.bags]
    mean = sum(example.weight for example in examples) / len(examples)
    scaled = [_Example(e.features, e.label, e.weight / mean) for e in examples]
    return scaled, torch.tensor(counts, dtype=torch.float32)


def save_fitted(path: Path, fitted: Fitted) -> None:
    """Write the weights as safetensors, with a card inside and, to be read, beside them."""
    state = {name: value.contiguous() for name, value in fitted.head.state_dict().items()}
    card = {
        "model": fitted.model,
        "classes": fitted.classes,
        "dim": fitted.head.settings.dim,
        "recipe": dict(fitted.recipe),
        "recipe_sha256": fitted.recipe_sha256,
        "trained_on": fitted.trained_on,
        "settings": asdict(fitted.settings),
        "seed": fitted.seed,
        "losses": fitted.losses,
        "valid_losses": fitted.valid_losses,
        "sarcomil": __version__,
    }
    card["sha256"] = _fingerprint(state, card)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(state, temporary, metadata={"card": json.dumps(card)})
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    temporary.replace(path)


def _fingerprint(state: Mapping[str, Tensor], card: Mapping[str, Any]) -> str:
    """Of the weights and of all the card says, but for this fingerprint."""
    told = {name: fact for name, fact in card.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()


def load_fitted(path: Path) -> Fitted:
    """Read a model as ``save_fitted`` wrote it.

    Raises:
        FitError: the file is missing, is not such a model, or names a head that is not known.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {})["card"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if card["sha256"] != _fingerprint(state, card):
            raise ValueError("its weights or its card are not those it was saved with")
        settings = FitSettings(**card["settings"])
        shape = HeadSettings(
            dim=card["dim"],
            n_classes=len(card["classes"]),
            width=settings.width,
            dropout=settings.dropout,
        )
        head = build_head(card["model"], shape)
        head.load_state_dict(state)
        return Fitted(
            model=card["model"],
            head=head.eval(),
            classes=tuple(card["classes"]),
            recipe=card["recipe"],
            recipe_sha256=card["recipe_sha256"],
            trained_on=tuple(card["trained_on"]),
            settings=settings,
            seed=card["seed"],
            losses=tuple(card["losses"]),
            valid_losses=tuple(card["valid_losses"]),
        )
    except (
        OSError,
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        FitError,
    ) as error:
        raise FitError(
            f"{path}: not a model of this library ({error}). Fit it again with `mil train`."
        ) from error
