"""The scale of a slide: micrometres per pixel from its file, or from the user, and what contradicts it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openslide

from features.errors import ScaleError
from features.slides.names import is_film_name

PLAUSIBLE_MPP = (0.05, 20.0)  # finer than any objective, coarser than any slide scan
PLAUSIBLE_FILM_MPP = (
    10.0,
    20_000.0,
)  # of CT and MRI: a hundredth of a millimetre to two centimetres
UM_AT_1X = 10.0  # micrometres per pixel times magnification: 0.25 at 40x, 0.5 at 20x
SQUARE = 1.1  # ratio of the sides of a pixel up to which it is one
SAME_POWER = 1.5  # ratio up to which a magnification agrees with a scale: 0.165 to 0.375 at 40x
SAME_MPP = 1.02  # ratio up to which two scales of one slide agree
# https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/: PhysicalSizeX is in micrometres unless named.
OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
OME_UNITS = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "pm": 1e-6,
}  # fmt: skip


@dataclass(frozen=True)
class UserScale:
    """What a user says of a slide's scale.

    Attributes:
        mpp: micrometres per level-0 pixel, whatever the file says; None leaves it to the file.
        source: where ``mpp`` comes from: ``table``, ``option`` or ``given``.
        fallback_mpp: used where the file gives no plausible scale.
    """

    mpp: float | None = None
    source: str = "given"
    fallback_mpp: float | None = None


@dataclass(frozen=True)
class Scale:
    """The scale of a slide.

    Attributes:
        mpp: micrometres per level-0 pixel, (x, y).
        source: ``file``, ``option``, or the source that the user names.
        notes: what contradicts it.
    """

    mpp: tuple[float, float]
    source: str
    notes: tuple[str, ...] = ()


def read_scale(name: str, properties: Mapping[str, str], user: UserScale) -> Scale:
    """The scale of a slide: the user's, else the file's, else the user's fallback.

    Args:
        name: of the file, for messages.
        properties: of OpenSlide.
        user: what the user says.

    Raises:
        ScaleError: the scale is unknown or implausible.
    """
    stored, notes = _stored_scale(properties)
    if stored and is_film_name(name):
        return _film_scale(name, stored)
    if user.mpp is not None:
        _check_plausible(name, (user.mpp, user.mpp), user.source)
        return Scale((user.mpp, user.mpp), user.source, _override_notes(user, stored))
    if stored and _plausible(stored):
        remarks = (*notes, *_shape_notes(stored), *_power_notes(properties, stored))
        return Scale(stored, "file", remarks)
    if user.fallback_mpp is not None:
        fallback = (user.fallback_mpp, user.fallback_mpp)
        _check_plausible(name, fallback, "option")
        note = () if stored is None else (_unused_scale(stored, user.fallback_mpp),)
        return Scale(fallback, "option", (*note, *_power_notes(properties, fallback)))
    if stored is None:
        raise ScaleError(
            f"{name}: the file gives no micrometres per pixel. Set slide_mpp to 0.25 (a 40x scan) or 0.5 "
            "(20x), or add an mpp column to the table."
        )
    _check_plausible(name, stored, "file")
    raise AssertionError("an implausible scale was accepted")


def _film_scale(name: str, stored: tuple[float, float]) -> Scale:
    """The scale of a film of a volume, which was written with it; what a user says is of slides."""
    low, high = PLAUSIBLE_FILM_MPP
    if not all(low <= value <= high for value in stored):
        raise ScaleError(
            f"{name}: {stored[0]:g} micrometres per pixel of a film are not between {low:g} and {high:g}. "
            "Lay the volume out again."
        )
    return Scale(stored, "file")


def _plausible(scale: tuple[float, float]) -> bool:
    low, high = PLAUSIBLE_MPP
    return all(low <= value <= high for value in scale)


def _check_plausible(name: str, scale: tuple[float, float], source: str) -> None:
    if _plausible(scale):
        return
    low, high = PLAUSIBLE_MPP
    remedy = (
        "Correct the mpp in the table" if source == "table" else "Set slide_mpp to the true value"
    )
    raise ScaleError(
        f"{name}: {scale[0]:g} x {scale[1]:g} micrometres per pixel ({source}) is not between "
        f"{low:g} and {high:g}. {remedy}, e.g. 0.25 for a 40x scan."
    )


def _stored_scale(
    properties: Mapping[str, str],
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The (x, y) scale in the file, from OpenSlide or from OME-XML, and a note where the two differ."""
    tags = _number_pair(
        properties.get(openslide.PROPERTY_NAME_MPP_X), properties.get(openslide.PROPERTY_NAME_MPP_Y)
    )
    ome = _ome_scale(properties.get("tiff.ImageDescription", ""))
    if ome is None or not _plausible(ome):
        return tags or ome, ()
    if tags is None or not _plausible(tags) or _same(tags[0], ome[0], SAME_MPP):
        return ome, ()
    return ome, (
        f"The file gives two scales: {ome[0]:.4g} µm per pixel as OME-XML, {tags[0]:.4g} as TIFF "
        "resolution. The first is used.",
    )


def _number_pair(x: Any, y: Any) -> tuple[float, float] | None:
    try:
        return float(x), float(y)
    except (TypeError, ValueError):
        return None


def _ome_scale(description: str) -> tuple[float, float] | None:
    """The PhysicalSize of the first image of OME-XML."""
    pixels = OME_PIXELS.search(description)
    if not pixels:
        return None
    attributes = dict(re.findall(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']", pixels.group()))
    scale = _number_pair(attributes.get("PhysicalSizeX"), attributes.get("PhysicalSizeY"))
    units = [OME_UNITS.get(attributes.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
    if scale is None or None in units:
        return None
    return scale[0] * (units[0] or 0), scale[1] * (units[1] or 0)


def _same(first: float, second: float, ratio: float) -> bool:
    return max(first, second) <= ratio * min(first, second)


def _power_notes(properties: Mapping[str, str], scale: tuple[float, float]) -> tuple[str, ...]:
    """A note where the magnification in the file and the scale do not agree, or why they may not."""
    if "RESAMPLED" in (properties.get(f"dicom.ImageType[{n}]") for n in range(2, 5)):
        return (
            f"The largest picture of this DICOM series, at {scale[0]:.4g} µm per pixel, was made from a "
            "larger one that is not there. Put all files of the series into one folder.",
        )
    try:
        power = float(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER, ""))
    except ValueError:
        return ()
    if not power > 0 or _same(scale[0], UM_AT_1X / power, SAME_POWER):
        return ()
    return (
        f"The file says {power:g}x and {scale[0]:.4g} µm per pixel, which do not agree: {power:g}x is about "
        f"{UM_AT_1X / power:.3g} µm. The micrometres are used; if they are wrong, extract the "
        "slide with slide_mpp_force.",
    )


def _shape_notes(scale: tuple[float, float]) -> tuple[str, ...]:
    """A note where pixels are no squares."""
    if _same(*scale, SQUARE):
        return ()
    return (
        f"The file says {scale[0]:.4g} µm per pixel across and {scale[1]:.4g} down; pixels of scanners are "
        "squares. Both are used; if one is wrong, extract the slide with slide_mpp_force.",
    )


def _override_notes(user: UserScale, stored: tuple[float, float] | None) -> tuple[str, ...]:
    """A note where the user's scale is another than the file's."""
    assert user.mpp is not None
    if stored is None or not _plausible(stored) or _same(user.mpp, stored[0], SAME_MPP):
        return ()
    return (
        f"The file says {stored[0]:.4g} µm per pixel; {user.mpp:.4g} is used instead ({user.source}).",
    )


def _unused_scale(stored: tuple[float, float], used: float) -> str:
    return f"The file says {stored[0]:g} µm per pixel, which no slide has; {used:.4g} is used (slide_mpp)."
