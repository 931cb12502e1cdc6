"""A trained model: what it is, what it has seen, what it answers for a bag, and its file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from features.bags.bag import Bag, recipe_differences
from features.files.atomic import write_atomic
from features.files.checksum import card_checksum, verify_checksum
from features.files.parse import parse_json
from features.stored import all_of_stored
from mil.data.encoding import ColumnEncoding
from mil.errors import FitError
from mil.heads.batches import Features, collate, in_brief, run_in_chunks
from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.registry import build_head, check_names
from mil.learning.readout import Readout
from mil.settings import FitSettings
from mil.tasks.registry import task_class
from mil.version import __version__

EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class FittedModel:
    """A trained model with what is needed to use it correctly; made by ``mil.fit`` and by runs.

    Attributes:
        model: the head's name.
        head: in evaluation mode.
        readout: how its logits are read.
        recipe: how the bags it learnt from were made; others are refused.
        recipe_sha256: fingerprint of the recipe.
        trained_on: names of all cases it has seen: to train, to choose an epoch, through its backbone, or
            through the weights that it started from.
        settings: how it was trained.
        seed: of weights, draws and order.
        losses: mean training loss per epoch.
        valid_losses: loss on the inner validation cases per epoch; empty without them.
        encoding: how the table's columns become a row, where it learnt from those and not from tiles.
        trained_on_slides: fingerprints of their slides, as ``Bag.sources``; empty in older files.
    """

    model: str
    head: Head
    readout: Readout
    recipe: Mapping[str, Any]
    recipe_sha256: str
    trained_on: tuple[str, ...]
    settings: FitSettings
    seed: int
    losses: tuple[float, ...] = ()
    valid_losses: tuple[float, ...] = ()
    encoding: ColumnEncoding | None = None
    trained_on_slides: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what can be explained: the classes; of a single score its name."""
        return self.readout.classes

    def predict(self, bag: Bag, other: Mapping[str, str] = EMPTY) -> dict[str, float]:
        """What the model answers for one bag; see ``predict``."""
        return predict(self, bag, other)

    def save(self, path: str | Path) -> None:
        """Write the model; see ``save_model``."""
        save_model(Path(path), self)


def run_head(fitted: FittedModel, bag: Bag, other: Mapping[str, str] = EMPTY) -> HeadOutput:
    """The head on all tiles of one bag, as a batch of one.

    Args:
        fitted: the model.
        bag: made with the model's own recipe.
        other: further columns of the table for the bag's case; read by a model that learnt from those.

    Raises:
        FitError: the bag was made with another recipe than the model's.
        CohortError: the model reads a column that is not in ``other``.
    """
    return _run(fitted, bag, bag.features, other)


@torch.inference_mode()
def _run(fitted: FittedModel, bag: Bag, features: Features, other: Mapping[str, str]) -> HeadOutput:
    """The head on these features of a bag, or on the table's row of its case."""
    _check_recipe(fitted, bag)
    encoding, chunk_tiles = fitted.encoding, fitted.settings.chunk_tiles
    if encoding is None and 0 < chunk_tiles < len(features) and fitted.head.takes_chunks():
        return run_in_chunks(fitted.head, features, chunk_tiles)
    batch = collate([encoding.row(bag.slide, other) if encoding else features])
    output: HeadOutput = fitted.head(*batch)
    return output


def _check_recipe(fitted: FittedModel, bag: Bag) -> None:
    """Refuse a bag that was made in another way than those the model learnt from."""
    if bag.recipe_sha256 != fitted.recipe_sha256:
        differing = recipe_differences(fitted.recipe, bag.recipe)
        changes = ", ".join(
            f"{key} {bag.recipe.get(key)} where it learnt from {fitted.recipe.get(key)}"
            for key in differing[:4]
        )
        raise FitError(
            f"{bag.slide}: the bag does not suit model {fitted.model} ({changes or 'recipe'}). Extract "
            "the slide with the settings the model's bags were made with."
        )


def predict(
    fitted: FittedModel,
    bag: Bag,
    other: Mapping[str, str] = EMPTY,
    columns: Sequence[str] = (),
) -> dict[str, float]:
    """What a model answers for one bag: ``p_<class>`` of each class, or a ``risk``.

    Args:
        fitted: the model.
        bag: made with the model's own recipe.
        other: further columns of the table for the bag's case.
        columns: of a table of predictions, where more is asked than every model of the kind can answer, as
            survival until a time.

    Raises:
        FitError: the model answers something else than these columns, or as ``run_head``.
        CohortError: as ``run_head``.

    Example:
        model = mil.load_model("abmil.safetensors")
        print(mil.predict(model, mil.read_bag("store/case-01-s1.h5")))
    """
    features = in_brief(fitted.head, bag.features)
    logits = _run(fitted, bag, features, other).logits[0].double()
    answer = fitted.readout.answer(logits, columns)
    if unanswered := [name for name in columns if name not in answer]:
        raise FitError(
            f"{fitted.model} answers {', '.join(answer)}, not {unanswered[0]}. Use a model that was trained "
            "for this task."
        )
    return answer


def save_model(path: Path, fitted: FittedModel) -> None:
    """Write the weights as safetensors, with a card inside and, for readers, beside them."""
    state = {name: value.contiguous() for name, value in fitted.head.state_dict().items()}
    card = {
        "model": fitted.model,
        "classes": fitted.readout.outputs,
        "dim": fitted.head.settings.dim,
        "recipe": dict(fitted.recipe),
        "recipe_sha256": fitted.recipe_sha256,
        "trained_on": fitted.trained_on,
        "trained_on_slides": fitted.trained_on_slides,
        "settings": asdict(fitted.settings),
        "seed": fitted.seed,
        "losses": fitted.losses,
        "valid_losses": fitted.valid_losses,
        "encoding": fitted.encoding and fitted.encoding.to_json(),
        "timeline": fitted.readout.to_json(),
        "sarcomil": __version__,
    }
    card["sha256"] = card_checksum(state, card)
    write_atomic(path.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    write_atomic(path, save(state, metadata={"card": json.dumps(card)}))


def load_model(path: str | Path) -> FittedModel:
    """Read a model as ``save_model`` wrote it.

    Raises:
        FitError: the file is missing, is not such a model, or names a head that is not known.

    Example:
        model = mil.load_model("abmil.safetensors")
        print(model.predict(mil.read_bag("store/case-01-s1.h5")))
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = parse_json((file.metadata() or {})["card"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        verify_checksum(state, card)
        _check_head(path, card["model"])
        return _from_card(card, state)
    except UnknownHeadError:
        raise
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
            f"{path}: not a model of this library ({error}). Fit the model again."
        ) from error


class UnknownHeadError(FitError):
    """A model's head is neither ours, nor installed, nor registered."""


def _check_head(path: str | Path, name: str) -> None:
    try:
        check_names([name])
    except FitError as error:
        raise UnknownHeadError(
            f"{path}: its head {name!r} is not known here. Install the package that offers it; a program of "
            "one's own registers its class first (register_head)."
        ) from error


def _from_card(card: Mapping[str, Any], state: Mapping[str, Tensor]) -> FittedModel:
    settings = all_of_stored(FitSettings, card["settings"])
    task = task_class(settings.task)
    shape = HeadSettings(
        dim=card["dim"],
        n_outputs=len(card["classes"]),
        width=settings.width,
        dropout=settings.dropout,
        outcome=task.head_outcome,
    )
    head = build_head(card["model"], shape, settings.seeds)
    head.load_state_dict(state)
    return FittedModel(
        model=card["model"],
        head=head.eval(),
        readout=task.readout_from_json(card["classes"], card.get("timeline")),
        recipe=card["recipe"],
        recipe_sha256=card["recipe_sha256"],
        trained_on=tuple(card["trained_on"]),
        settings=settings,
        seed=card["seed"],
        losses=tuple(card["losses"]),
        valid_losses=tuple(card["valid_losses"]),
        encoding=ColumnEncoding.from_json(card["encoding"]) if card.get("encoding") else None,
        trained_on_slides=tuple(card.get("trained_on_slides", ())),
    )
