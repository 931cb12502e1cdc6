"""The recipe of a network: all that must be known to build it and to prepare images as its weights expect.

Nothing in this file imports torch or timm.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from features.stored import all_of_stored

Pooling = Literal["network", "cls", "cls+mean", "mean", "projection", "hidden"]
Interpolation = Literal["float", "bilinear", "bicubic"]
HIDDEN = "-hidden"  # ends the name of a network whose hidden layers are kept
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAME_SCALE = 0.1  # of the mpp: closer than this is the scale the weights were trained at
SAME_DETAIL = 0.3  # of the side of a tile


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe:
    """How a network is built, what it is shown and where its weights come from.

    Attributes:
        name: what bags record, and what finds the recipe again.
        architecture: timm's name of it.
        arguments: of the architecture, as plain values.
        pooling: how a feature vector is made of the last tokens or of the last map.
        input_px: side of the image the network is shown; tiles are resized to it.
        resize_px: side to which tiles are resized where only their centre is shown; 0 is ``input_px``.
        interpolation: ``bilinear`` and ``bicubic`` are Pillow's, in eight bits, as in published
            transforms; ``float`` is bilinear in floating point, where nothing else is published.
        mean, std: per channel, of RGB in [0, 1].
        dim: length of a feature vector; None before it is measured.
        mpp: micrometres per pixel of the tiles it was trained on or is recommended for, the best first;
            empty if not published.
        tile_px: their side before they were resized; 0 if not published.
        licence: of the published weights.
        gated: whether access to the weights must be requested.
        repository: on the Hugging Face hub; empty if the weights are elsewhere.
        files: names of the weights file in the repository, in order of preference.
        names: whose names of weights the published file has, as ``name_style`` finds them.
        table_side: patches along a side of the published table of positions, where the network's has others.
        paper: DOI or address of the publication.
        sources: public code or cards that these figures were compared with.
    """

    name: str
    architecture: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pooling: Pooling = "network"
    input_px: int = 224
    resize_px: int = 0
    interpolation: Interpolation = "float"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dim: int | None = None
    mpp: tuple[float, ...] = ()
    tile_px: int = 0
    licence: str = "not stated"
    gated: bool = False
    repository: str = ""
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    names: tuple[str, ...] = ("timm",)
    table_side: int = 0
    paper: str = ""
    sources: str = ""

    @property
    def width(self) -> int:
        """Length of a transformer's tokens; 0 where it is not that of the features or of a part of them."""
        if self.pooling not in ("cls", "cls+mean") or self.dim is None:
            return 0
        return self.dim // len(self.pooling.split("+"))

    @property
    def resized_px(self) -> int:
        """Side to which a tile is resized; of this the middle ``input_px`` are shown."""
        return self.resize_px or self.input_px

    def scale_mismatch(self, mpp: float, tile_px: int) -> str:
        """How tiles differ in scale from those the network was trained on; empty if they do not.

        Args:
            mpp: micrometres per pixel of the tiles.
            tile_px: their side.
        """
        if not self.mpp:
            return ""
        own_px = self.tile_px or self.resized_px
        if any(abs(mpp * tile_px - own * own_px) <= SAME_SCALE * own * own_px for own in self.mpp):
            return ""  # the network is shown as much tissue in as many pixels
        scales = " or ".join(f"{scale:g}" for scale in self.mpp)
        if all(abs(mpp - scale) > SAME_SCALE * scale for scale in self.mpp):
            return (
                f"{self.name} is for tiles at {scales} micrometres per pixel; these have {mpp:g}. "
                f"Use mpp={self.mpp[0]:g} and tile={own_px}, as in its training."
            )
        if abs(tile_px - own_px) > SAME_DETAIL * own_px:
            return (
                f"{self.name} is for tiles of {own_px} px, resized to {self.resized_px}; these have "
                f"{tile_px} px. Use tile={own_px}, as in its training."
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
