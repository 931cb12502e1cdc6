"""Start the training of a head from weights that were trained on other cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.recipe import recipe_parts
from mil.errors import FitError
from mil.heads.ensemble import members_of
from mil.heads.head import RANKS, Head
from mil.learning.fitted import FittedModel, load_model

ANSWERS = "classify."  # the layer that has a row for each class; it may begin anew


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
    start = read_head_weights(path)
    if start.model not in models:
        raise FitError(
            f"head_weights is {path}, of {start.model}, and {', '.join(models)} is trained. Add "
            f"{start.model} to the models, or leave head_weights out."
        )
    made = [_network(of) for of in (start.recipe, recipe)]
    if made[0] != made[1]:
        raise FitError(
            f"head_weights is {path}, which learnt from features of {made[0]}; the bags are of {made[1]}. "
            "Extract with that backbone, or leave head_weights out."
        )


def start_from(head: Head, start: FittedModel, number: int) -> None:
    """Give a fresh head the weights and the scale of features of a trained one.

    The layer of the answers is taken over where there are as many; else it begins anew.

    Args:
        head: fresh, and prepared.
        start: the trained model.
        number: of the fit among those of several seeds; each starts from another one of the model's own.

    Raises:
        FitError: the shapes differ.
    """
    members = members_of(start.head)
    state, own = members[number % len(members)].state_dict(), head.state_dict()
    differing = [
        name
        for name in {*state, *own}
        if name not in own or name not in state or state[name].shape != own[name].shape
    ]
    differing = [name for name in differing if name not in RANKS]  # taken over with the weights
    if wrong := sorted(name for name in differing if not name.startswith(ANSWERS)):
        width = start.head.settings.width
        raise FitError(
            f"head_weights has a {start.model} of width {width} for {start.head.settings.dim} features; the "
            f"head to train has width {head.settings.width} for {head.settings.dim} ({', '.join(wrong[:3])} "
            f"differ). Set width to {width}."
        )
    head.load_state_dict({name: own[name] if name in differing else state[name] for name in own})


def _network(recipe: Mapping[str, Any]) -> str:
    """What made the features, in words."""
    return " + ".join(
        f"{part.get('backbone')} with weights {str(part.get('weights_sha256') or part.get('weights'))[:12]}"
        for part in recipe_parts(recipe)
    )
