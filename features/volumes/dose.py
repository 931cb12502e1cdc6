"""Dose grids of radiotherapy (RTDOSE) in gray.

Stored values are whole numbers; the dose is their product with DoseGridScaling. Volume histograms of a
planning system (DVHSequence) are not read: their unit may be per cent of a prescription.

Source: DICOM PS3.3, C.8.8.3 (RT dose), C.8.8.3.2 (offsets of the planes).
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.allowances import Allowance
from features.volumes.headers import Plane, lenient, number, numbers, planes_of, read_header, text
from features.volumes.pixels import read_stored
from features.volumes.stacking import axes_of
from features.volumes.volume import Grid, Volume, check_spacing, turn_to_lps

PARTIAL = (
    "BEAM",
    "BEAM_SESSION",
    "BRACHY",
    "CONTROL_POINT",
    "FRACTION",
    "RECORD",
    "FRACTION_SESSION",
)
SAME_MM = 1e-2
UNEVEN = 0.02  # of a step
HIGHEST_GY = 200.0  # that a beam gives; beside a brachytherapy source it is higher


def read_dose(path: Path, *, allow: Collection[Allowance] = ()) -> Volume:
    """Read the dose of one RTDOSE file.

    Args:
        path: the file.
        allow: ``part`` takes a dose that is a part of the plan, as of one beam or one fraction.

    Returns:
        The dose in Gy; planes that are not evenly placed are interpolated at the distance of the nearest
        two, with a note.

    Raises:
        VolumeError: the file is no dose, is not in Gy, lacks its scaling or the places of its planes, or is
            a part of a plan and that is not allowed.
    """
    header = read_header(path, pixels=True)
    with lenient():
        _check_kind(header, path, allow_partial="part" in allow)
        scaling = numbers(header, "DoseGridScaling", 1, path)[0]
        if scaling <= 0:
            raise VolumeError(
                f"{path.name}: DoseGridScaling is {scaling:g}, so that no dose in Gy follows. Export the "
                "dose again."
            )
        plane = _first_plane(header, path)
        offsets = _offsets(header, plane, path)
        dose_gy = read_stored(header, path.name) * scaling
        notes = [f"the dose is {text(header, 'DoseType').lower()}"] if _is_effective(header) else []
    if (highest := float(dose_gy.max())) > HIGHEST_GY:
        notes.append(f"the highest dose is {highest:,.0f} Gy: check its unit, which may be cGy")
    order = np.argsort(offsets, kind="stable")
    dose_gy, step_mm, more = _even(dose_gy[order], offsets[order], header, path)
    check_spacing((*plane.spacing_mm, step_mm), path.name)
    values, grid, axis = turn_to_lps(
        dose_gy.astype(np.float32), _grid(plane, float(offsets.min()), step_mm, dose_gy.shape)
    )
    return Volume(
        values, grid, "RTDOSE", text(header, "FrameOfReferenceUID"), text(header, "SeriesInstanceUID"), axis,
        {"slice_spacing_mm": step_mm, "summation": text(header, "DoseSummationType")}, (*notes, *more),
    )  # fmt: skip


def _is_effective(header: Any) -> bool:
    return text(header, "DoseType") == "EFFECTIVE"


def _check_kind(header: Any, path: Path, *, allow_partial: bool) -> None:
    if text(header, "Modality") != "RTDOSE":
        raise VolumeError(
            f"{path.name} is no dose of radiotherapy, but {text(header, 'Modality') or 'of no modality'}. "
            "Pass an RTDOSE file."
        )
    units = text(header, "DoseUnits").upper()
    if units != "GY":
        raise VolumeError(
            f"{path.name}: its dose is {units or 'without a unit'}, not in GY: gray cannot be known from it. "
            "Export the dose in absolute units."
        )
    if text(header, "DoseType") == "ERROR":
        raise VolumeError(
            f"{path.name} holds the difference of two doses (DoseType ERROR), no dose."
        )
    summation = text(header, "DoseSummationType").upper()
    if summation in PARTIAL and not allow_partial:
        raise VolumeError(
            f"{path.name} holds the dose of a part of the plan (DoseSummationType {summation}). Pass the "
            "dose of the plan, or allow a part (allow=part)."
        )


def _first_plane(header: Any, path: Path) -> Plane:
    """The place of the first frame; a dose is a multi-frame image with one place and offsets."""
    frames = header.get("NumberOfFrames")
    header.NumberOfFrames = 1
    [plane] = planes_of(header, path)
    header.NumberOfFrames = frames or 1
    if plane.problem:
        raise VolumeError(plane.problem)
    return plane


def _offsets(header: Any, plane: Plane, path: Path) -> NDArray[np.float64]:
    """(frames,) mm of each plane along the normal, from the first."""
    count = int(number(header, "NumberOfFrames", 1, path))
    if count == 1:
        return np.zeros(1)
    offsets = np.array(numbers(header, "GridFrameOffsetVector", count, path))
    z_mm = plane.position_mm[2]
    normal = axes_of(plane)[2]
    if abs(offsets[0]) < SAME_MM:
        relative = offsets
    elif abs(offsets[0] - z_mm) < SAME_MM and abs(normal[2]) > 1 - 1e-6:
        relative = (offsets - z_mm) * np.sign(normal[2])
    else:
        raise VolumeError(
            f"{path.name}: GridFrameOffsetVector begins with {offsets[0]:g} mm, which is neither 0 nor the "
            f"place of the first plane ({z_mm:g} mm) of a transversal grid. Export the dose again."
        )
    if np.diff(np.sort(relative)).min() < SAME_MM:
        raise VolumeError(
            f"{path.name}: two planes lie at one place ({np.diff(np.sort(relative)).min():.3f} mm apart in "
            "GridFrameOffsetVector). Export the dose again."
        )
    return relative


def _even(
    dose_gy: NDArray[np.float64], offsets: NDArray[np.float64], header: Any, path: Path
) -> tuple[NDArray[np.float64], float, list[str]]:
    """The dose on evenly placed planes, their distance in mm, and notes."""
    if len(offsets) == 1:
        thickness = number(header, "SliceThickness", 0.0, path)
        if thickness <= 0:
            raise VolumeError(
                f"{path.name} holds one plane of dose and no SliceThickness: its extent in mm is unknown. "
                "Export the dose of the plan as one file."
            )
        return dose_gy, thickness, [f"one plane of dose, {thickness:g} mm thick"]
    step = float((offsets[-1] - offsets[0]) / (len(offsets) - 1))
    if np.abs((offsets - offsets[0]) / step - np.arange(len(offsets))).max() < UNEVEN:
        return dose_gy, step, []
    finest = float(np.diff(offsets).min())
    places = np.arange(offsets[0], offsets[-1] + finest * 1e-6, finest)
    above = np.clip(np.searchsorted(offsets, places), 1, len(offsets) - 1)
    share = ((places - offsets[above - 1]) / (offsets[above] - offsets[above - 1]))[:, None, None]
    note = f"planes {finest:.2f} to {np.diff(offsets).max():.2f} mm apart, interpolated every {finest:.2f} mm"
    return dose_gy[above - 1] * (1 - share) + dose_gy[above] * share, finest, [note]


def _grid(plane: Plane, first_mm: float, step_mm: float, shape: tuple[int, ...]) -> Grid:
    row, column, normal = axes_of(plane)
    origin = np.asarray(plane.position_mm) + first_mm * normal
    return Grid(
        (shape[0], shape[1], shape[2]),
        (plane.spacing_mm[0], plane.spacing_mm[1], step_mm),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        np.stack([row, column, normal], axis=1),
    )
