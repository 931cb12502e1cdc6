"""The recipe of a bag: the settings of extraction. Imports no torch, for a fast start of the command line."""

import math
from dataclasses import dataclass, field

from features.errors import FeaturesError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ORIGINS = ("auto", "level0", "bounds")
SAMPLING_UNITS = ("slide", "case")
ICC = ("off", "srgb")
STAINS = ("off", "macenko", "reinhard")
ALWAYS_EXCLUDED = ("Ignore*",)  # QuPath's own class for areas to be ignored
QUALITY_FLAGS = ("background", "blur", "pen")


@dataclass(frozen=True, kw_only=True)
class BaseRecipe:
    """A recipe without its scale."""

    backbone: str = field(
        default="resnetv2_50",
        metadata={"help": "Backbone that embeds tiles: a registered name, or any timm name."},
    )
    weights: str = field(
        default="pretrained",
        metadata={"help": "Weights of the backbone: `pretrained`, `random`, or a local file."},
    )
    tile: int = field(
        default=224, metadata={"help": "Side of a tile in pixels, at the tile's mpp."}
    )
    min_coverage: float = field(
        default=0.6, metadata={"help": "Smallest fraction of a tile inside the region."}
    )
    classes: tuple[str, ...] = field(
        default=("Tumor",),
        metadata={"help": "Annotation class to take tiles from; repeatable.", "flag": "--class"},
    )
    exclude: tuple[str, ...] = field(
        default=ALWAYS_EXCLUDED,
        metadata={"help": "Annotation class to leave out; repeatable.", "flag": "--exclude-class"},
    )
    annotation_origin: str = field(
        default="auto",
        metadata={
            "help": "Frame of the annotations' coordinates: `level0` (the slide's corner), `bounds` (the "
            "corner of the scanned part, as in QuPath for MIRAX and SCN), or `auto`: the one that fits."
        },
    )
    min_tumour_of_tissue: float = field(
        default=0.0,
        metadata={
            "help": "Leave out slides with less than this fraction of their tissue annotated."
        },
    )
    max_tiles: int = field(
        default=2000, metadata={"help": "Largest number of tiles, drawn at random."}
    )
    sample_per: str = field(
        default="slide",
        metadata={
            "help": "Apply the largest number of tiles per `slide` or per `case`; each slide gives at least "
            "one tile."
        },
    )
    seed: int = field(
        default=0, metadata={"help": "Seed for drawing tiles and for random weights."}
    )
    precision: str = field(
        default="auto",
        metadata={
            "help": "`auto`, `fp32`, `bf16` or `fp16`; `auto` is bf16 where the device supports it."
        },
    )

    drop: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Leave out tiles flagged `background`, `blur` or `pen`; repeatable. All flags are "
            "stored in the bag."
        },
    )
    icc: str = field(
        default="off",
        metadata={
            "help": "`srgb` applies the scanner's colour profile; `off` uses the pixels as stored."
        },
    )
    stain: str = field(
        default="off",
        metadata={"help": "`macenko` or `reinhard` normalises the stain to the stain reference."},
    )
    stain_reference: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Slides of the table that give the target stain, or the stain-reference.json of "
            "another store; repeatable. Cross-validation refuses to test on the cases of these slides, so "
            "better take slides of a case outside the cohort."
        },
    )

    def __post_init__(self) -> None:
        self._check_choices()
        if self.tile < 32:
            raise FeaturesError(f"tile is a side in pixels, at least 32; got {self.tile}. Use 224.")
        if not 0 < self.min_coverage <= 1:
            raise FeaturesError(
                f"min_coverage is a fraction in (0, 1]; got {self.min_coverage:g}. For 60 % write 0.6."
            )
        if not 0 <= self.min_tumour_of_tissue < 1:
            raise FeaturesError(
                "min_tumour_of_tissue is a fraction in [0, 1); got "
                f"{self.min_tumour_of_tissue:g}. For 60 % write 0.6."
            )
        if self.max_tiles < 1:
            raise FeaturesError(f"max_tiles is at least 1; got {self.max_tiles}. Use 2000.")
        if self.seed < 0:
            raise FeaturesError(f"seed is 0 or more; got {self.seed}. Use 0.")
        if not self.classes:
            raise FeaturesError("classes names at least one annotation class; got none. Use Tumor.")

    def _check_choices(self) -> None:
        for name, choices in (
            ("precision", PRECISIONS),
            ("annotation_origin", ORIGINS),
            ("sample_per", SAMPLING_UNITS),
            ("icc", ICC),
            ("stain", STAINS),
        ):
            if getattr(self, name) not in choices:
                raise FeaturesError(
                    f"{name} is one of {', '.join(choices)}; got {getattr(self, name)!r}. Use {choices[0]}."
                )
        if (self.stain != "off") != bool(self.stain_reference):
            raise FeaturesError(
                f"stain and stain_reference go together; got stain {self.stain} and "
                f"{len(self.stain_reference)} reference slides. Set stain_reference to the slides that give "
                "the target stain, or leave both unset."
            )
        unknown = [flag for flag in self.drop if flag not in QUALITY_FLAGS]
        if unknown:
            raise FeaturesError(
                f"drop takes {', '.join(QUALITY_FLAGS)}; got {unknown[0]!r}. Use one of these, or none."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe(BaseRecipe):
    """The settings of extraction at one scale.

    Attributes:
        mpp: micrometres per pixel of a tile; 0.25 is 40x, 1.0 is 10x.

    Raises:
        FeaturesError: a setting is out of range.

    Example:
        >>> from features.recipe import Recipe
        >>> Recipe(backbone="resnet18", tile=224, mpp=1.0).max_tiles
        2000
    """

    mpp: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.mpp) and 0.05 <= self.mpp <= 20):
            raise FeaturesError(
                f"mpp is micrometres per pixel, between 0.05 and 20; got {self.mpp:g}. 40x is 0.25."
            )
