"""The recipe of a bag: the settings of extraction. Imports no torch, for a fast start of the command line."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from features.backbones.network_recipe import Pooling
from features.backbones.pathology import find_encoder
from features.choices import check_choices
from features.errors import FeaturesError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
AnnotationOrigin = Literal["auto", "level0", "bounds"]
Stain = Literal["off", "macenko", "reinhard"]
QualityFlag = Literal["background", "blur", "pen"]
ORIGINS: tuple[AnnotationOrigin, ...] = get_args(AnnotationOrigin)
PARTS = "parts"  # the key under which the recipe of joined bags has those of its parts
VECTOR = "vector"  # the region of bags that are one row, the vector of a slide or case
VOLUME = (
    "volume"  # the region of tiles that are slices of a volume, chosen as its film was laid out
)
OF_SLIDES = (  # settings of a recipe that do not apply to volumes
    "annotation_origin", "classes", "drop", "exclude", "held_out", "icc", "max_tiles", "min_coverage",
    "min_tumour_of_tissue", "mpp", "sample_per", "stain", "stain_reference",
)  # fmt: skip
NO_PLACES = "no places"  # the region of rows whose coordinates only number them
SEGMENTED = "segmented"  # the region of tiles that lie in what a segmenter marks as tumour
PLAIN_TILE = 224  # px, of backbones that were not trained on tiles
ALWAYS_EXCLUDED = ("Ignore*",)  # QuPath's own class for areas to be ignored


def _list_backbones() -> Sequence[str]:
    """The names of backbones, for completion in a shell."""
    from features.backbones.table import list_backbones

    return list_backbones()


@dataclass(frozen=True, kw_only=True)
class Stated:
    """How images are prepared for a weights file that does not say so itself.

    Attributes:
        mean, std: per channel, of RGB in [0, 1]; empty if not stated.
        input_px: side of the image that the network is shown; 0 if not stated.
        pooling: how a feature vector is made; None if not stated.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_px: int = 0
    pooling: Pooling | None = None

    def given(self) -> dict[str, Any]:
        """What is stated, by name."""
        return {key: value for key, value in vars(self).items() if value}

    def is_whole(self) -> bool:
        """Whether all four are stated."""
        return len(self.given()) == 4


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Which network embeds tiles, and with which weights."""

    backbone: str = field(
        default="resnetv2_50",
        metadata={
            "help": "Backbone that embeds tiles: a registered name, or any timm name.",
            "panel": "Backbone",
            "complete": _list_backbones,
        },
    )
    weights: str = field(
        default="pretrained",
        metadata={
            "help": "Weights of the backbone: `pretrained`, `random`, or a local file.",
            "panel": "Backbone",
        },
    )
    mean: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "Mean of red, green and blue, in [0, 1], that a weights file was trained with. Needed, "
            "with std=..., input_px and pooling=..., only where neither the backbone's name nor the file "
            "says it.",
            "panel": "Backbone",
            "split": ",",
        },
    )
    std: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "Standard deviation of red, green and blue, in [0, 1], that a weights file was trained "
            "with.",
            "panel": "Backbone",
            "split": ",",
        },
    )
    input_px: int = field(
        default=0,
        metadata={
            "help": "Side of the images that a weights file was trained with; 0 is the backbone's own.",
            "panel": "Backbone",
        },
    )
    pooling: Pooling | None = field(
        default=None,
        metadata={
            "help": "How a weights file's features are pooled: what the `network` does, the class token "
            "`cls`, `cls+mean` of the patch tokens, their `mean`, the `projection` after it, or the last "
            "`hidden` layer of VGG.",
            "panel": "Backbone",
        },
    )
    precision: Precision = field(
        default="auto",
        metadata={
            "help": "Precision of the backbone; `auto` is bf16 where the device supports it.",
            "panel": "Backbone",
        },
    )

    def __post_init__(self) -> None:
        check_choices(self, FeaturesError)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values and not (len(values) == 3 and all(0 < value < 1 for value in values)):
                raise FeaturesError(
                    f"{name} has three numbers between 0 and 1, for red, green and blue; got "
                    f"{', '.join(map(str, values))}. ImageNet's mean is 0.485,0.456,0.406."
                )
        if self.input_px and self.input_px < 32:
            raise FeaturesError(
                f"input_px is a side in pixels, at least 32; got {self.input_px}. Use 224."
            )

    @property
    def stated(self) -> Stated:
        """How images are prepared for the weights, as far as it is stated."""
        return Stated(
            mean=tuple(self.mean), std=tuple(self.std), input_px=self.input_px, pooling=self.pooling
        )


@dataclass(frozen=True, kw_only=True)
class BaseRecipe(Encoding):
    """A recipe without its scale."""

    tile: int = field(
        default=0,
        metadata={
            "help": "Side of a tile in pixels, at the tile's mpp; 0 is what an encoder of pathology was "
            "trained on, and 224 for other backbones.",
            "panel": "Tiles",
        },
    )
    min_coverage: float = field(
        default=0.6,
        metadata={"help": "Smallest fraction of a tile inside the region.", "panel": "Tiles"},
    )
    classes: tuple[str, ...] = field(
        default=("Tumor",),
        metadata={
            "help": "Annotation class to take tiles from, in which `*` stands for any letters and `?` "
            "for one; repeatable.",
            "flag": "--class",
            "panel": "Annotations",
        },
    )
    exclude: tuple[str, ...] = field(
        default=ALWAYS_EXCLUDED,
        metadata={
            "help": "Annotation class to leave out, in which `*` stands for any letters and `?` for one; "
            "repeatable.",
            "flag": "--exclude-class",
            "panel": "Annotations",
        },
    )
    annotation_origin: AnnotationOrigin = field(
        default="auto",
        metadata={
            "help": "Frame of the annotations' coordinates: `level0` (the slide's corner), `bounds` (the "
            "corner of the scanned part, as in QuPath for MIRAX and SCN), or `auto`: the one that fits.",
            "panel": "Annotations",
        },
    )
    min_tumour_of_tissue: float = field(
        default=0.0,
        metadata={
            "help": "Slides with less than this fraction of their tissue annotated are left out.",
            "panel": "Annotations",
        },
    )
    max_tiles: int = field(
        default=2000,
        metadata={
            "help": "Maximum number of tiles; where there are more, this many are drawn at random.",
            "panel": "Tiles",
        },
    )
    sample_per: Literal["slide", "case"] = field(
        default="slide",
        metadata={
            "help": "Whether max_tiles is the maximum per slide or per case; each slide gives at least one "
            "tile.",
            "panel": "Tiles",
        },
    )
    seed: int = field(
        default=0,
        metadata={"help": "Seed for drawing tiles and for random weights.", "panel": "Tiles"},
    )

    drop: tuple[QualityFlag, ...] = field(
        default=(),
        metadata={
            "help": "Tiles with this flag are left out; repeatable. All flags are stored in the bag.",
            "panel": "Tiles",
        },
    )
    icc: Literal["off", "srgb"] = field(
        default="off",
        metadata={
            "help": "`srgb` applies the scanner's colour profile; `off` uses the pixels as stored.",
            "panel": "Stain and colour",
        },
    )
    stain: Stain = field(
        default="off",
        metadata={
            "help": "Method that normalises the stain to the stain reference.",
            "panel": "Stain and colour",
        },
    )
    stain_reference: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Slides of the table that give the target stain, or the stain-reference.json of "
            "another store; repeatable. Cross-validation refuses to test on the cases of these slides, so "
            "better take slides of a case outside the cohort.",
            "panel": "Stain and colour",
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_stain()
        if self.tile == 0:
            encoder = find_encoder(self.backbone)
            object.__setattr__(self, "tile", encoder.tile_px if encoder else PLAIN_TILE)
        if self.tile < 32:
            raise FeaturesError(f"tile is a side in pixels, at least 32; got {self.tile}. Use 224.")
        if not 0 < self.min_coverage <= 1:
            raise FeaturesError(
                f"min_coverage must be a fraction in (0, 1]; got {self.min_coverage:g}. For 60 % write 0.6."
            )
        if not 0 <= self.min_tumour_of_tissue < 1:
            raise FeaturesError(
                "min_tumour_of_tissue must be a fraction in [0, 1); got "
                f"{self.min_tumour_of_tissue:g}. For 60 % write 0.6."
            )
        if self.max_tiles < 1:
            raise FeaturesError(f"max_tiles must be at least 1; got {self.max_tiles}. Use 2000.")
        if self.seed < 0:
            raise FeaturesError(f"seed must be 0 or more; got {self.seed}. Use 0.")
        if not self.classes:
            raise FeaturesError("classes names at least one annotation class; got none. Use Tumor.")

    def _check_stain(self) -> None:
        if (self.stain != "off") != bool(self.stain_reference):
            raise FeaturesError(
                f"stain and stain_reference go together; got stain={self.stain} and "
                f"{len(self.stain_reference)} reference slides. Set stain_reference to the slides that give "
                "the target stain, or leave both unset."
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


def recipe_parts(recipe: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The recipes that a recipe, as bags hold it, is joined of; itself, if it is not joined."""
    if PARTS not in recipe:
        yield recipe
    for part in recipe.get(PARTS, ()):
        yield from recipe_parts(part)


def has_random_weights(recipe: Mapping[str, Any]) -> bool:
    """Whether the backbone, or that of any joined part, had random weights."""
    return any(str(part.get("weights", "")).startswith("random") for part in recipe_parts(recipe))


def learnt_part(recipe: Mapping[str, Any]) -> str:
    """What of bags has learnt from cases, in words: the backbone, and what may have drawn their regions."""
    if any(part.get("region") == SEGMENTED for part in recipe_parts(recipe)):
        return "backbone or the segmenter"
    if any(part.get("region") == VOLUME for part in recipe_parts(recipe)):
        return "backbone or the network that drew the masks"
    return "backbone"


def is_vector(recipe: Mapping[str, Any]) -> bool:
    """Whether bags of this recipe are one row each, the vector of a whole slide or case."""
    return recipe.get("region") == VECTOR
