"""How a bag is made: the settings of extraction. No torch here, so the command line starts at once."""

import math
from dataclasses import dataclass, field

from features.errors import FeaturesError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a user asks of extraction; defaults follow the report the project started from."""

    backbone: str = field(
        default="resnetv2_50",
        metadata={"help": "Backbone: an alias of `mil doctor`, or any timm name."},
    )
    weights: str = field(
        default="pretrained", metadata={"help": "`pretrained`, `random`, or a local weights file."}
    )
    mpp: float = field(
        default=0.25, metadata={"help": "Micrometres per pixel of a tile: 0.25 is 40x, 0.625 16x."}
    )
    tile: int = field(default=224, metadata={"help": "Side of a tile in pixels at --mpp."})
    min_coverage: float = field(
        default=0.6, metadata={"help": "Least fraction of a tile inside the region."}
    )
    classes: tuple[str, ...] = field(
        default=("Tumor",),
        metadata={"help": "Annotation class to use; repeatable.", "flag": "--class"},
    )
    exclude: tuple[str, ...] = field(
        default=("Ignore*",),
        metadata={"help": "Annotation class to take away; repeatable.", "flag": "--exclude-class"},
    )
    max_tiles: int = field(
        default=2000, metadata={"help": "At most this many tiles per slide, drawn with --seed."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the tile draw and of random weights."})
    precision: str = field(
        default="auto",
        metadata={"help": "`auto`, `fp32`, `bf16` or `fp16`; auto: bf16 where native."},
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpp) and 0.05 <= self.mpp <= 20):
            raise FeaturesError(
                f"mpp is micrometres per pixel, between 0.05 and 20; got {self.mpp:g}. 40x is 0.25."
            )
        if self.tile < 32:
            raise FeaturesError(f"tile is a side in pixels, at least 32; got {self.tile}. Use 224.")
        if not 0 < self.min_coverage <= 1:
            raise FeaturesError(
                f"min_coverage is a fraction in (0, 1]; got {self.min_coverage:g}. For 60 % write 0.6."
            )
        if self.max_tiles < 1:
            raise FeaturesError(f"max_tiles is at least 1; got {self.max_tiles}. Use 2000.")
        if self.seed < 0:
            raise FeaturesError(f"seed is 0 or more; got {self.seed}. Use 0.")
        if not self.classes:
            raise FeaturesError("classes names at least one annotation class; got none. Use Tumor.")
        if self.precision not in PRECISIONS:
            raise FeaturesError(
                f"precision is one of {', '.join(PRECISIONS)}; got {self.precision!r}. Use auto."
            )
