"""The recipe of a network: all that must be known to build it and to prepare images as its weights expect.

Nothing in this file imports torch or timm.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from features.stored import all_of_stored

Pooling = Literal["network", "cls", "cls+mean", "mean", "projection", "hidden"]
HIDDEN = "-hidden"  # ends the name of a network whose hidden layers are kept
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAME_SCALE = 0.1  # of the mpp: closer than this is the scale the weights were trained at
SAME_DETAIL = 0.3  # of micrometres per pixel of what the network is shown


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe:
    """How a network is built, what it is shown and where its weights come from.

    Attributes:
        name: what bags record, and what finds the recipe again.
        architecture: timm's name of it.
        arguments: of the architecture, as plain values.
        pooling: how a feature vector is made of the last tokens or of the last map.
        input_px: side of the image the network is shown; tiles are resized to it.
        mean, std: per channel, of RGB in [0, 1].
        dim: length of a feature vector; None before it is measured.
        mpp: micrometres per pixel of the tiles it was trained on; empty if not published.
        tile_px: their side before they were resized; 0 if not published.
        licence: of the published weights.
        gated: whether access to the weights must be requested.
        repository: on the Hugging Face hub; empty if the weights are elsewhere.
        files: names of the weights file in the repository, in order of preference.
        paper: DOI or address of the publication.
        sources: public code or cards that these figures were compared with.
    """

    name: str
    architecture: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pooling: Pooling = "network"
    input_px: int = 224
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dim: int | None = None
    mpp: tuple[float, ...] = ()
    tile_px: int = 0
    licence: str = "not stated"
    gated: bool = False
    repository: str = ""
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    paper: str = ""
    sources: str = ""

    @property
    def width(self) -> int:
        """Length of a transformer's tokens; 0 where it is not that of the features or of a part of them."""
        if self.pooling not in ("cls", "cls+mean") or self.dim is None:
            return 0
        return self.dim // len(self.pooling.split("+"))

    def scale_mismatch(self, mpp: float, tile_px: int) -> str:
        """How tiles differ in scale from those the network was trained on; empty if they do not.

        Args:
            mpp: micrometres per pixel of the tiles.
            tile_px: their side.
        """
        if not self.mpp:
            return ""
        scales = " or ".join(f"{scale:g}" for scale in self.mpp)
        if all(abs(mpp - scale) > SAME_SCALE * scale for scale in self.mpp):
            return (
                f"{self.name} was trained at {scales} micrometres per pixel; these tiles have {mpp:g}. "
                f"Its features are best at mpp={self.mpp[0]:g}."
            )
        shown = tile_px / self.input_px
        trained = (self.tile_px or self.input_px) / self.input_px
        if abs(shown - trained) > SAME_DETAIL * trained:
            return (
                f"{self.name} was trained on tiles of {self.tile_px or self.input_px} px, resized to "
                f"{self.input_px}; these have {tile_px} px. Its features are best at tile="
                f"{self.tile_px or self.input_px}."
            )
        return ""

    def to_json(self) -> str:
        """The recipe as text, for a weights file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "NetworkRecipe":
        """The recipe of a weights file.

        Raises:
            ValueError: the text is no recipe.
        """
        return all_of_stored(cls, json.loads(text))
