"""The card of a weights file: which network, at which scale, trained on the tiles of which cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.backbones.network_recipe import SAME_SCALE, NetworkRecipe
from features.backbones.pathology import find_encoder
from features.backbones.table import find_backbone
from features.errors import BackboneError
from features.files.checksum import verify_checksum
from features.files.parse import parse_json
from features.recipe import BaseRecipe, Recipe


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """The card of a fine-tuned backbone.

    Attributes:
        backbone: its timm name, with the tag that says how images are prepared.
        mpp: micrometres per pixel of the tiles it was trained on.
        tile: their side in pixels.
        trained_on: the cases it has seen.
        trained_on_slides: fingerprints of their slides, as ``Bag.sources``; empty in older files.
        network: how images are prepared for it; None in older files.
    """

    backbone: str
    mpp: float
    tile: int
    trained_on: tuple[str, ...]
    trained_on_slides: tuple[str, ...] = ()
    network: NetworkRecipe | None = None

    def scale_mismatch(self, mpp: float, recipe: BaseRecipe) -> str:
        """How the tiles to embed differ from those of the training; empty if they do not."""
        if abs(mpp - self.mpp) <= SAME_SCALE * self.mpp and recipe.tile == self.tile:
            return ""
        return (
            f"The weights were trained on tiles of {self.tile} px at {self.mpp:g} micrometres per pixel; "
            f"these are {recipe.tile} px at {mpp:g}. They may do worse at this scale."
        )


def read_card(path: Path) -> BackboneCard | None:
    """Read the card inside a safetensors file; None for another file, or one without a card.

    Published weights have no card.

    Raises:
        BackboneError: the card is not of this library, or these weights were not saved with it.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("card")
            state = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None  # loading the weights reports what is wrong
    if text is None:
        return None
    try:
        card = parse_json(text)
        verify_checksum(state, card)
        return BackboneCard(
            backbone=str(card["backbone"]),
            mpp=float(card["mpp"]),
            tile=int(card["tile"]),
            trained_on=tuple(map(str, card["trained_on"])),
            trained_on_slides=tuple(map(str, card.get("trained_on_slides", ()))),
            network=NetworkRecipe.from_json(card["network"]) if "network" in card else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"{path}: its card cannot be read ({error!r}), so which cases it has seen is not known. "
            "Fine-tune the backbone again."
        ) from error


def weights_notes(recipes: Sequence[Recipe]) -> list[str]:
    """Remarks on a weights file: tiles unlike those of its training, or unknown training cases.

    Args:
        recipes: that differ in mpp only.

    Raises:
        BackboneError: the file's card is not of this library, or its weights were not saved with it.
    """
    weights, assumed = recipes[0].weights, _assumed_notes(recipes[0])
    if card := read_card(Path(weights)):
        mismatches = (card.scale_mismatch(recipe.mpp, recipe) for recipe in recipes)
        return [*assumed, *(note for note in mismatches if note)]
    notes = [*assumed, *(scale_notes(recipes) if weights != "random" else [])]
    if weights in ("pretrained", "random") or not Path(weights).is_file():
        return notes
    return [
        *notes,
        f"{weights} does not say which cases it has seen. If it was trained on any of yours, no "
        "test on them can be believed; weights that this library fine-tuned carry a card that says so.",
    ]


def _assumed_notes(recipe: Recipe) -> list[str]:
    """A remark on the backbone of a package that does not state how images are prepared for it."""
    entry = None if find_encoder(recipe.backbone) else find_backbone(recipe.backbone)
    if entry is None or not entry.assumed or (recipe.mean and recipe.std and recipe.input_px):
        return []
    return [
        f"The package of {recipe.backbone} does not state how images are prepared: what is not stated is "
        f"taken as {entry.input_px} px and ImageNet's mean and deviation. Set mean, std and input_px if "
        "others are right."
    ]


def scale_notes(recipes: Sequence[Recipe]) -> list[str]:
    """Remarks on tiles of another scale than an encoder's; none where its scale is not published.

    Args:
        recipes: that differ in mpp only.
    """
    encoder = find_encoder(recipes[0].backbone)
    notes = (encoder.scale_mismatch(r.mpp, r.tile) if encoder else "" for r in recipes)
    return [note for note in notes if note]
