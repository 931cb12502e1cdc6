"""Start the training of a head from weights that were trained on other cases."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from features.bags.bag import recipe_differences
from features.recipe import recipe_parts
from features.summary import listed
from mil.data.names import normalised
from mil.errors import FitError
from mil.heads.ensemble import members_of
from mil.heads.head import RANKS, Head, HeadSettings
from mil.heads.registry import build_head
from mil.learning.fitted import FittedModel, load_model

# Of a recipe: what changes how features look to a head, though one backbone made them.
SEEN_DIFFERENTLY = (
    "input_px", "interpolation", "joined", "layout", "mean", "mpp", "normalise", "pooling",
    "precision", "region", "resize_px", "stain", "std", "tile",
)  # fmt: skip


def read_head_weights(path: str | Path) -> FittedModel:
    """The model whose weights a head starts from, with the card that says what it has seen.

    Raises:
        FitError: there is no such file, or it has no card of a model of this library.
    """
    if not Path(path).is_file():
        raise FitError(f"head_weights is {path}: no such file.")
    try:
        return load_model(path)
    except FitError as error:
        raise FitError(
            f"head_weights is {path}, which has no card that says what it is and which cases it has seen. "
            "Give the .safetensors file of a model that this library has trained on all its cases. "
            f"({error})"
        ) from error


def check_start_model(path: str, models: Sequence[str]) -> FittedModel:
    """The model whose weights one of the models starts from.

    Args:
        path: of the weights.
        models: names of all that will be trained.

    Raises:
        FitError: none of them is this model, or as ``read_head_weights``.
    """
    start = read_head_weights(path)
    if start.model not in models:
        raise FitError(
            f"head_weights is {path}, of {start.model}, and {', '.join(models)} is trained. Add "
            f"{start.model} to the models, or leave head_weights out."
        )
    return start


def check_head_weights(path: str, models: Sequence[str], recipe: Mapping[str, Any]) -> None:
    """Refuse weights that none of the models starts from, or that learnt from other features.

    Args:
        path: of the weights; empty for none.
        models: names of all that will be trained.
        recipe: of their bags.

    Raises:
        FitError: as said, or as ``read_head_weights``.
    """
    if not path:
        return
    start = check_start_model(path, models)
    made = [_network(of) for of in (start.recipe, recipe)]
    if made[0] != made[1]:
        raise FitError(
            f"head_weights is {path}, which learnt from features of {made[0]}; the bags are of {made[1]}. "
            "Extract with that backbone, or leave head_weights out."
        )


def note_start(path: str, classes: Sequence[str], recipe: Mapping[str, Any]) -> list[str]:
    """What a reader should know of weights to start from: answers that begin anew, and bags made otherwise.

    Args:
        path: of the weights; empty for none.
        classes: of the table.
        recipe: of the bags to train on.
    """
    if not path:
        return []
    start = read_head_weights(path)
    theirs = start.readout.labels
    taken = [name for name in classes if normalised(name) in map(normalised, theirs)]
    new = [name for name in classes if name not in taken]
    notes = []
    if new and taken:
        notes.append(
            f"head_weights: its model answers {listed(theirs)}. What it learnt of {listed(taken)} is taken "
            f"over by name; the rest ({listed(new)}) begins anew."
        )
    elif new or (theirs and not classes):
        notes.append(
            f"head_weights: its model answers {listed(theirs) or start.readout.classes[0]}, none of which is "
            "an outcome of this table. Its last layer begins anew; name classes alike to take it over."
        )
    differing = [
        f"{key} {start.recipe.get(key, 'unknown')}, here {recipe.get(key, 'unknown')}"
        for key in recipe_differences(start.recipe, recipe)
        if key in SEEN_DIFFERENTLY
    ]
    if differing:
        notes.append(
            f"head_weights: its model learnt from bags that were made otherwise ({'; '.join(differing)}), so "
            "that its scale of features and what it looks for may not suit these."
        )
    return notes


def start_from(head: Head, start: FittedModel, number: int, outputs: Sequence[str]) -> None:
    """Give a fresh head the weights and the scale of features of a trained one.

    What a layer holds for each output is taken over by the name of the output; others begin anew.

    Args:
        head: fresh, and prepared.
        start: the trained model.
        number: of the fit among those of several seeds; each starts from another one of the model's own.
        outputs: names of the logits of the head.

    Raises:
        FitError: the shapes differ.
    """
    members = members_of(start.head)
    state, own = members[number % len(members)].state_dict(), head.state_dict()
    axes = _output_axes(start.model, head.settings)
    axes |= {name: axis for name, axis in _output_axes(start.model, start.head.settings).items()
             if name not in axes}  # fmt: skip
    wrong = sorted(
        name
        for name in {*state, *own}
        if name not in RANKS
        and (
            name not in own
            or name not in state
            or not _alike(state[name], own[name], axes.get(name))
        )
    )
    if wrong:
        width = start.head.settings.width
        raise FitError(
            f"head_weights has a {start.model} of width {width} for {start.head.settings.dim} features; the "
            f"head to train has width {head.settings.width} for {head.settings.dim} ({', '.join(wrong[:3])} "
            f"differ). Set width to {width}."
        )
    places = {normalised(name): place for place, name in enumerate(start.readout.outputs)}
    rows = [places.get(normalised(name)) for name in outputs]
    head.load_state_dict(
        {
            name: _by_output(state[name], own[name], axes[name], rows)
            if name in axes
            else state[name]
            for name in own
        }
    )


def _output_axes(model: str, settings: HeadSettings) -> dict[str, int | None]:
    """The weights of a head whose shape follows the number of outputs, and the axis with one place for each.

    None stands for weights that have no such axis.
    """
    n_outputs = settings.n_outputs
    with torch.random.fork_rng(devices=[]):
        one, more = (
            build_head(model, replace(settings, n_outputs=n)).state_dict()
            for n in (n_outputs, n_outputs + 1)
        )
    axes: dict[str, int | None] = {}
    for name in {*one, *more}:
        shapes = [tuple(state[name].shape) if name in state else () for state in (one, more)]
        if shapes[0] != shapes[1]:
            growing = [
                axis
                for axis, (few, many) in enumerate(zip(*shapes, strict=False))
                if (few, many) == (n_outputs, n_outputs + 1)
            ]
            axes[name] = (
                growing[0] if len(growing) == 1 and len(shapes[0]) == len(shapes[1]) else None
            )
    return axes


def _alike(theirs: Tensor, ours: Tensor, axis: int | None) -> bool:
    """Whether two weights have one shape, but for the axis of the outputs."""
    shapes = [list(theirs.shape), list(ours.shape)]
    if axis is not None:
        for shape in shapes:
            shape[axis] = 0
    return shapes[0] == shapes[1]


def _by_output(
    theirs: Tensor, ours: Tensor, axis: int | None, rows: Sequence[int | None]
) -> Tensor:
    """Fresh weights with what the other holds for outputs of the same names.

    Args:
        theirs: weights to take from.
        ours: fresh ones.
        axis: with one place for each output.
        rows: the place of each of our outputs among theirs.
    """
    if axis is None:
        return (
            theirs if list(rows) == list(range(len(rows))) and theirs.shape == ours.shape else ours
        )
    taken = ours.clone()
    for place, row in enumerate(rows):
        if row is not None:
            taken.select(axis, place).copy_(theirs.select(axis, row))
    return taken


def _network(recipe: Mapping[str, Any]) -> str:
    """What made the features, in words."""
    return " + ".join(
        f"{part.get('backbone')} with weights {str(part.get('weights_sha256') or part.get('weights'))[:12]}"
        for part in recipe_parts(recipe)
    )
