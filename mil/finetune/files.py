"""The files of fine-tuning: a checkpoint while it runs, then weights that know their cases.

<out>/weights.safetensors     the backbone, by timm's names, with the card inside
<out>/classifier.safetensors  the head on it, with the same card
<out>/card.json               the card, to be read
<out>/history.csv             losses by epoch
<out>/checkpoint.safetensors  the state after the last epoch; gone when it is finished
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from features.backbones.registry import load_backbone
from features.files.atomic import write_atomic
from features.files.checksum import card_checksum, verify_checksum
from features.files.parse import parse_json
from features.files.tables import write_table
from mil.errors import FitError
from mil.finetune.network import TileClassifier
from mil.finetune.settings import FinetuneSettings

WEIGHTS, CLASSIFIER, CHECKPOINT = (
    f"{name}.safetensors" for name in ("weights", "classifier", "checkpoint")
)
State = dict[str, Tensor]


@dataclass
class TrainingProgress:
    """How far training has come.

    Attributes:
        losses: training loss per finished epoch.
        valid_losses: loss on the inner validation cases; empty without them.
        best: the classifier's weights after the best epoch; empty where the last one is kept.
    """

    losses: list[float] = field(default_factory=list)
    valid_losses: list[float] = field(default_factory=list)
    best: State = field(default_factory=dict)


def write_checkpoint(
    folder: Path,
    request: str,
    classifier: TileClassifier,
    optimizer: torch.optim.Optimizer,
    progressed: TrainingProgress,
) -> None:
    """Write all that the next epoch starts from; every epoch has a random seed of its own."""
    tensors = {f"now.{name}": value for name, value in classifier.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in progressed.best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    card = {
        "request": request,
        "losses": progressed.losses,
        "valid_losses": progressed.valid_losses,
    }
    _save(folder / CHECKPOINT, tensors, card)


def read_checkpoint(
    folder: Path, request: str, classifier: TileClassifier, optimizer: torch.optim.Optimizer
) -> TrainingProgress:
    """The progress of an interrupted run of the same request; else the beginning.

    Raises:
        FitError: a checkpoint of the request cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return TrainingProgress()
    card, tensors = _load(path)
    if card.get("request") != request:
        return TrainingProgress()
    classifier.load_state_dict(_under("now.", tensors))
    states: dict[int, State] = {}
    for key, value in _under("optimizer.", tensors).items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    return TrainingProgress(card["losses"], card["valid_losses"], _under("best.", tensors))


def finished_card(folder: Path, request: str) -> Mapping[str, Any] | None:
    """The card of finished weights, if they answer the request."""
    path = folder / WEIGHTS
    if not path.is_file():
        return None
    card, _ = _load(path)
    return card if card.get("request_sha256") == request else None


def read_tuned_card(folder: Path) -> Mapping[str, Any]:
    """The card of finished weights.

    Raises:
        FitError: there are none.
    """
    return _load(folder / WEIGHTS)[0]


def write_tuned(folder: Path, classifier: TileClassifier, card: Mapping[str, Any]) -> None:
    """Write the results; the weights, which say that all is done, come last."""
    valid = card["valid_losses"] or [""] * len(card["losses"])
    losses = enumerate(zip(card["losses"], valid, strict=True), start=1)
    rows = ([epoch, *pair] for epoch, pair in losses)
    write_table(folder / "history.csv", ["epoch", "train_loss", "valid_loss"], rows)
    write_atomic(folder / "card.json", json.dumps(card, indent=1) + "\n")
    _save(folder / CLASSIFIER, classifier.head.state_dict(), card)
    _save(folder / WEIGHTS, _under("network.", classifier.backbone.state_dict()), card)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def load_classifier(folder: Path) -> tuple[TileClassifier, Mapping[str, Any]]:
    """The tile classifier that fine-tuning has written, in evaluation mode, and its card.

    Raises:
        FitError: there is none.
        BackboneError: its backbone cannot be loaded.
    """
    card, head = _load(folder / CLASSIFIER)
    settings = FinetuneSettings(hidden=tuple(card["settings"]["hidden"]))
    backbone = load_backbone(card["backbone"], str(folder / WEIGHTS))
    classifier = TileClassifier(backbone, len(card["classes"]), settings)
    classifier.head.load_state_dict(head)
    return classifier.eval(), card


def _save(path: Path, tensors: State, card: Mapping[str, Any]) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sealed = {**card, "sha256": card_checksum(plain, card)}
    write_atomic(path, save(plain, metadata={"card": json.dumps(sealed)}))


def _load(path: Path) -> tuple[dict[str, Any], State]:
    try:
        with safe_open(path, framework="pt") as file:
            card = parse_json((file.metadata() or {})["card"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        verify_checksum(state, card)
        return card, state
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FitError(
            f"{path}: not a file of fine-tuning ({error!r}). Remove it and fine-tune again."
        ) from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
