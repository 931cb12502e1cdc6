"""How a bag is made: the settings of extraction. No torch here, so the command line starts at once."""

import math
from dataclasses import dataclass, field

from features.errors import FeaturesError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ORIGINS = ("auto", "level0", "bounds")
SAMPLED_PER = ("slide", "case")
ICC = ("off", "srgb")
STAINS = ("off", "macenko", "reinhard")
ALWAYS_EXCLUDED = ("Ignore*",)  # QuPath's own class for what is not to be looked at
REMARKS = ("background", "blur", "pen")


@dataclass(frozen=True, kw_only=True)
class RecipeAtAnyScale:
    """A recipe without its scale; defaults follow the report the project started from."""

    backbone: str = field(
        default="resnetv2_50",
        metadata={"help": "Backbone: an alias of `mil doctor`, or any timm name."},
    )
    weights: str = field(
        default="pretrained", metadata={"help": "`pretrained`, `random`, or a local weights file."}
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
        default=ALWAYS_EXCLUDED,
        metadata={"help": "Annotation class to take away; repeatable.", "flag": "--exclude-class"},
    )
    annotation_origin: str = field(
        default="auto",
        metadata={
            "help": "Where annotations count from: `level0`, `bounds` (the scanned part, as QuPath does "
            "for MIRAX and SCN), or `auto`: where they fit the tissue."
        },
    )
    min_tumour_of_tissue: float = field(
        default=0.0,
        metadata={
            "help": "Leave out slides with less of their tissue annotated than this fraction."
        },
    )
    max_tiles: int = field(
        default=2000, metadata={"help": "At most this many tiles, drawn with --seed."}
    )
    sample_per: str = field(
        default="slide",
        metadata={
            "help": "--max-tiles counts per `slide` or per `case`; each slide gives at least one tile."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of the tile draw and of random weights."})
    precision: str = field(
        default="auto",
        metadata={"help": "`auto`, `fp32`, `bf16` or `fp16`; auto: bf16 where native."},
    )

    drop: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Leave out tiles flagged `background`, `blur` or `pen`; repeatable. Flags are always "
            "kept in the bag."
        },
    )
    icc: str = field(
        default="off",
        metadata={
            "help": "`srgb` applies the scanner's colour profile; `off` takes pixels as stored."
        },
    )
    stain: str = field(
        default="off",
        metadata={"help": "`macenko` or `reinhard` normalises stains to --stain-reference."},
    )
    stain_reference: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Slides of the table to take the target stain from, or the stain-reference.json of "
            "another store; repeatable. Cross-validation refuses to test the cases of these slides: take "
            "those of a case outside the cohort, --stain-reference other/stain-reference.json."
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
        for name, known in (
            ("precision", PRECISIONS),
            ("annotation_origin", ORIGINS),
            ("sample_per", SAMPLED_PER),
            ("icc", ICC),
            ("stain", STAINS),
        ):
            if getattr(self, name) not in known:
                raise FeaturesError(
                    f"{name} is one of {', '.join(known)}; got {getattr(self, name)!r}. Use {known[0]}."
                )
        if (self.stain != "off") != bool(self.stain_reference):
            raise FeaturesError(
                "stain and stain_reference go together. Name the slides to take the stain from with "
                "--stain-reference, or leave both out."
            )
        unknown = [remark for remark in self.drop if remark not in REMARKS]
        if unknown:
            raise FeaturesError(
                f"drop takes {', '.join(REMARKS)}; got {unknown[0]!r}. Use one of these, or none."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe(RecipeAtAnyScale):
    """What a user asks of extraction, at one scale."""

    mpp: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.mpp) and 0.05 <= self.mpp <= 20):
            raise FeaturesError(
                f"mpp is micrometres per pixel, between 0.05 and 20; got {self.mpp:g}. 40x is 0.25."
            )
