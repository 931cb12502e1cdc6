"""The settings of contouring. Nothing heavy is imported, for a fast command line."""

from dataclasses import dataclass, field
from typing import ClassVar

from mil.errors import FitError
from mil.settings import SEEDS


@dataclass(frozen=True, kw_only=True)
class ContourSettings:
    """How a network of neighbouring slices is trained to draw a region.

    Raises:
        FitError: a setting is out of range.
    """

    PANEL: ClassVar[str] = "Training"

    modality: str = field(
        metadata={
            "help": "The modality of the table that is contoured, e.g. CT.",
            "panel": "Volumes",
        }
    )
    window: str = field(
        default="",
        metadata={
            "help": "Lowest and highest value of the image; what lies beyond is clipped. In HU for CT, e.g. "
            "-160:240; without it, 4 standard deviations of the volume's own tissue on either side of "
            "its mean.",
            "panel": "Volumes",
        },
    )
    pixel_mm: float = field(
        default=2.0,
        metadata={"help": "Millimetres per pixel of a slice.", "panel": "Volumes"},
    )
    slice_mm: float = field(
        default=0.0,
        metadata={
            "help": "Millimetres from slice to slice; 0 leaves the slices as they were acquired.",
            "panel": "Volumes",
        },
    )
    field_mm: float = field(
        default=200.0,
        metadata={
            "help": "Side of the square that is searched, round the middle of the image; what is drawn "
            "beyond it counts as missed.",
            "panel": "Volumes",
        },
    )
    width: int = field(
        default=16,
        metadata={
            "help": "Channels of the first of four levels of the U-Net; 16 are 0.5 million weights."
        },
    )
    steps: int = field(default=400, metadata={"help": "Steps of training."})
    batch: int = field(
        default=8, metadata={"help": "Slices per step, half of them with the region."}
    )
    rate: float = field(default=3e-3, metadata={"help": "Highest learning rate."})
    seed: int = field(
        default=0,
        metadata={"help": "Seed of folds, initial weights and batches."},
    )

    def __post_init__(self) -> None:
        if not self.modality:
            raise FitError("modality is empty. Name one of the table, such as CT.")
        for name in ("pixel_mm", "field_mm", "rate"):
            if not getattr(self, name) > 0:
                raise FitError(f"{name} is {getattr(self, name):g}. It must be above 0.")
        if self.slice_mm < 0:
            raise FitError(f"slice_mm is {self.slice_mm:g}. It is 0 or above.")
        for name in ("width", "steps", "batch"):
            if getattr(self, name) < 1:
                raise FitError(f"{name} is {getattr(self, name)}. It must be 1 or more.")
        if not 0 <= self.seed < SEEDS:
            raise FitError(f"seed is {self.seed}. It must be from 0 to {SEEDS - 1}.")
        _ = self.limits

    @property
    def limits(self) -> tuple[float, float] | None:
        """Of the window; None where the volume's own tissue sets the scale."""
        if not self.window:
            return None
        low, _, high = self.window.partition(":")
        try:
            limits = float(low), float(high)
        except ValueError as error:
            raise FitError(f"window is {self.window!r}. Write it as -160:240.") from error
        if not limits[0] < limits[1]:
            raise FitError(f"window is {self.window!r}. The first number must be below the second.")
        return limits
