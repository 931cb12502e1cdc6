"""How volumes are laid out as films. Imports no array library, for a fast start of the command line."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from features.choices import check_choices
from features.errors import InputError
from features.volumes.allowances import Allowance

Show = Literal["box", "whole", "masked"]
Slices = Literal["region", "margin", "largest", "all"]
Scaling = Literal["min-max", "z-score"]


@dataclass(frozen=True, kw_only=True)
class VolumeRecipe:
    """The settings that shape the slices of volumes, the same for all of a store.

    Every scale of grey is fitted on one volume alone, so that no patient shapes another's.

    Raises:
        InputError: a setting is out of range.

    Example:
        >>> from features.volumes.recipe import VolumeRecipe
        >>> VolumeRecipe(channels=("CT", "Dose", "T1"), windows=("CT=-160:240",)).limits
        {'CT': (-160.0, 240.0)}
    """

    PANEL: ClassVar[str] = "Volumes"

    channels: tuple[str, ...] = field(
        metadata={
            "help": "What red, green and blue of a slice show: three modalities of the table, or one.",
            "split": ",",
        }
    )
    neighbours: bool = field(
        default=False,
        metadata={
            "help": "Of one modality, show each slice between the one below and the one above it."
        },
    )
    slices: Slices = field(
        default="region",
        metadata={
            "help": "Slices to take: those that meet the `region`, with the `margin` above and below it, "
            "the one with its `largest` section, or `all`."
        },
    )
    show: Show = field(
        default="box",
        metadata={
            "help": "What a slice shows: the `box` round the region and its margin, the `whole` slice, or "
            "the region alone, all else `masked`."
        },
    )
    margin_mm: float = field(
        default=10.0,
        metadata={"help": "Millimetres round the region, in the box and among slices."},
    )
    pixel_mm: float = field(
        default=0.0,
        metadata={
            "help": "Millimetres per pixel of a slice; 0 fits the box of every volume to the tile, so that "
            "tumours of all sizes are seen alike."
        },
    )
    slice_mm: float = field(
        default=0.0,
        metadata={"help": "Millimetres between slices; 0 takes them as they were acquired."},
    )
    scaling: Scaling = field(
        default="min-max",
        metadata={
            "help": "Scale of grey, of every volume for itself: from its lowest to its highest value "
            "within the field (`min-max`), or in standard deviations from the mean of its tissue "
            "(`z-score`)."
        },
    )
    windows: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Fixed limits of a modality, instead of that scale: CT=-160:240 (HU), Dose=0:50 (Gy); "
            "repeatable.",
            "flag": "--window",
        },
    )
    n4: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Modality whose bias field is corrected first (N4, for MRI); repeatable."
        },
    )
    suv: bool = field(
        default=False,
        metadata={
            "help": "Values of PET as standardised uptake by body weight (SUV), by dose, weight and times in "
            "its DICOM files, for windows as PET=0:10; files that do not say enough are refused."
        },
    )
    allow: tuple[Allowance, ...] = field(
        default=(),
        metadata={
            "help": "Accept uncertain input: series with `gaps`, whose missing slices are "
            "interpolated, or with the `tilt` of a gantry, which is straightened; `sparse` outlines, which "
            "are filled in between; outlines in an unstated or other `frame` of reference, taken as the "
            "image's; the dose of a `part` of a plan; repeatable."
        },
    )
    register: bool = field(
        default=False,
        metadata={
            "help": "Register modalities of another frame of reference by turns and shifts; otherwise they "
            "are refused. Those whose files name no frame stay where they lie unless that is clearly better. "
            "How far they were moved, and how well both directions agree, is noted; the error may be several "
            "times as large."
        },
    )
    tile: int = field(default=224, metadata={"help": "Side of a slice in pixels."})

    def __post_init__(self) -> None:
        check_choices(self, InputError)
        if len(self.channels) not in (1, 3) or not all(self.channels):
            raise InputError(
                f"channels names one modality or three; got {', '.join(self.channels) or 'none'}. Write "
                "CT, or CT,T1,PET."
            )
        if self.neighbours and len(self.channels) > 1:
            raise InputError(
                "neighbours shows one modality, the slice between its neighbours; got "
                f"channels={','.join(self.channels)}. Leave neighbours unset, or set channels to one of them."
            )
        for name, low in (("margin_mm", 0.0), ("pixel_mm", 0.0), ("slice_mm", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise InputError(f"{name} is in millimetres, {low:g} or more; got {value:g}.")
        if self.pixel_mm == 0 and self.show == "whole":
            raise InputError(
                "pixel_mm is 0, which fits a box to the tile, and show is whole. Set pixel_mm."
            )
        if self.tile < 32:
            raise InputError(f"tile is a side in pixels, at least 32; got {self.tile}. Use 224.")
        unknown = {*self.limits, *self.n4} - {*self.channels}
        if unknown:
            raise InputError(
                f"A window or n4 names {' and '.join(sorted(unknown))}, which is not among the modalities of "
                f"channels={','.join(self.channels)}. Correct the name, or add it there."
            )

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """The fixed (low, high) of modalities.

        Raises:
            InputError: one is not written as MODALITY=LOW:HIGH.
        """
        parsed = {}
        for text in self.windows:
            modality, _, span = text.partition("=")
            try:
                low, high = (float(part) for part in span.split(":"))
            except ValueError as error:
                raise InputError(
                    f"windows must be written MODALITY=LOW:HIGH; got {text!r}. Write CT=-160:240."
                ) from error
            if not low < high or not (math.isfinite(low) and math.isfinite(high)):
                raise InputError(
                    f"windows must run from low to high; got {text!r}. Write CT=-160:240."
                )
            parsed[modality] = (low, high)
        return parsed

    def to_json(self) -> dict[str, Any]:
        """As bags record it; what is not asked for and was not known earlier is left out."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in vars(self).items()
            if key != "suv" or value
        }
