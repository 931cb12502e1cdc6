"""The settings of a segmenter. Nothing heavy is imported, for a fast command line."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from features.choices import check_choices
from features.recipe import ALWAYS_EXCLUDED, AnnotationOrigin
from mil.errors import FitError
from mil.settings import SEEDS

NEGATIVE_CLASSES = ("Normal", "Stroma", "Other")


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """How a segmenter is trained.

    Raises:
        FitError: a setting is out of range.
    """

    PANEL: ClassVar[str] = "Training"

    kind: Literal["map", "unet", "both"] = field(
        default="map",
        metadata={
            "help": "`map` is a linear head on the frozen backbone's feature map and takes seconds; `unet` "
            "trains the backbone with a decoder; `both` is the mean of their probabilities."
        },
    )
    backbone: str = field(
        default="efficientnet-lite0",
        metadata={
            "help": "Convolutional backbone that looks at the slide at 4x: a registered name, or any timm "
            "name.",
            "panel": "Backbone",
        },
    )
    weights: str = field(
        default="auto",
        metadata={
            "help": "Its weights: `pretrained`, `random`, a local file, or `auto`: those of an installed "
            "package where there are some, else random ones.",
            "panel": "Backbone",
        },
    )
    classes: tuple[str, ...] = field(
        default=("Tumor",),
        metadata={
            "help": "Annotation class that is tumour, in which `*` stands for any letters and `?` for one; "
            "repeatable.",
            "flag": "--class",
            "panel": "Annotations",
        },
    )
    negative_classes: tuple[str, ...] = field(
        default=NEGATIVE_CLASSES,
        metadata={
            "help": "Annotation class that is tissue without tumour, in which `*` stands for any letters and "
            "`?` for one; repeatable.",
            "flag": "--negative-class",
            "panel": "Annotations",
        },
    )
    exclude: tuple[str, ...] = field(
        default=ALWAYS_EXCLUDED,
        metadata={
            "help": "Annotation class to leave out of training and judging, in which `*` stands for any "
            "letters and `?` for one; "
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
    cells: int = field(
        default=1500,
        metadata={
            "help": "Largest number of cells of 20 µm that a slide gives to the linear head."
        },
    )
    ridge: float = field(
        default=0.01,
        metadata={"help": "Inverse strength of the linear head's penalty; smaller is smoother."},
    )
    threshold: float = field(
        default=0.5, metadata={"help": "Probability from which a cell is called tumour."}
    )
    steps: int = field(default=100, metadata={"help": "Steps that the U-Net is trained for."})
    crops: int = field(
        default=4, metadata={"help": "Crops of 192 px per training step of the U-Net."}
    )
    rate: float = field(
        default=2e-3,
        metadata={
            "help": "Largest learning rate of the U-Net's decoder; the encoder's is a third of it."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of the folds, of sampling and training."})

    def __post_init__(self) -> None:
        check_choices(self, FitError)
        if not self.classes:
            raise FitError("classes names at least one annotation class; got none. Use Tumor.")
        for name, least in (("cells", 20), ("steps", 1), ("crops", 1)):
            if getattr(self, name) < least:
                raise FitError(f"{name} must be at least {least}; got {getattr(self, name)}.")
        for name in ("ridge", "rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise FitError(f"{name} must be a number above 0; got {getattr(self, name):g}.")
        if not 0 < self.threshold < 1:
            raise FitError(
                f"threshold is a probability between 0 and 1; got {self.threshold:g}. Use 0.5."
            )
        if not 0 <= self.seed < SEEDS:
            raise FitError(f"seed is from 0 to {SEEDS - 1}; got {self.seed}. Use 0.")
