"""What a weights file says of itself: which network, at which scale, trained on whose tiles."""

import json
from dataclasses import dataclass
from pathlib import Path

from features.errors import BackboneError
from features.files.checksum import verify_checksum
from features.recipe import RecipeAtAnyScale

SAME_SCALE = 0.1  # of the mpp: closer than this is the scale the weights were trained at


@dataclass(frozen=True, kw_only=True)
class Card:
    """The card of a fine-tuned backbone.

    Attributes:
        backbone: its timm name, with the tag that says how images are prepared.
        mpp: micrometres per pixel of the tiles it was trained on.
        tile: their side in pixels.
        trained_on: the cases it has seen.
    """

    backbone: str
    mpp: float
    tile: int
    trained_on: tuple[str, ...]

    def unlike(self, mpp: float, recipe: RecipeAtAnyScale) -> str:
        """In what the tiles to embed differ from those it was trained on; empty where they do not."""
        if abs(mpp - self.mpp) <= SAME_SCALE * self.mpp and recipe.tile == self.tile:
            return ""
        return (
            f"The weights were trained on tiles of {self.tile} px at {self.mpp:g} micrometres per pixel; "
            f"these are {recipe.tile} px at {mpp:g}. What they learnt may not hold here."
        )


def read_card(path: Path) -> Card | None:
    """The card inside a safetensors file; None where it has none, as published weights, or is no such file.

    Raises:
        BackboneError: there is one, but not of this library's, or not the one these weights were saved with.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get("card")
            state = {name: file.get_tensor(name) for name in file.keys()} if told else {}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None  # whoever loads it says what is wrong
    if told is None:
        return None
    try:
        held = json.loads(told)
        verify_checksum(state, held)
        return Card(
            backbone=str(held["backbone"]),
            mpp=float(held["mpp"]),
            tile=int(held["tile"]),
            trained_on=tuple(map(str, held["trained_on"])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"{path}: its card cannot be read ({error!r}), so which cases it has seen is not known. Make "
            "it again with `mil finetune`."
        ) from error
