"""Structure sets of radiotherapy (RTSTRUCT): which regions there are, and one as a mask.

Source: DICOM PS3.3, C.8.8.5 (structure set) and C.8.8.6 (ROI contours).
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import AnnotationError, EmptyRegion
from features.volumes.allowances import Allowance
from features.volumes.contours import Mask, mask_of_contours
from features.volumes.headers import lenient, read_header, text
from features.volumes.volume import Volume

AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "")
SHOWN = 20  # names in an error


@dataclass(frozen=True)
class Region:
    """One region of a structure set.

    Attributes:
        name, number: as the file says.
        contours: (n, 3) points in mm, LPS, of outlines of areas.
        others: contours that are no areas, by kind (POINT, OPEN_PLANAR, ...).
        frame_of_reference: UID of the frame its points are in; empty if the file names none.
        series: UIDs of the series that the structure set refers to.
    """

    name: str
    number: int
    contours: tuple[NDArray[np.float64], ...]
    others: tuple[tuple[str, int], ...]
    frame_of_reference: str
    series: tuple[str, ...]

    def describe(self) -> str:
        """Its name with the number of its contours."""
        return f"{self.name!r} ({len(self.contours)} contours)"


def read_regions(path: Path) -> tuple[Region, ...]:
    """All regions of a structure set, in its order; some may be empty.

    Raises:
        AnnotationError: the file is no structure set, or a contour is damaged.
    """
    header = read_header(path, pixels=True)
    with lenient():
        if text(header, "Modality") != "RTSTRUCT" or "StructureSetROISequence" not in header:
            raise AnnotationError(
                f"{path.name} is no structure set of radiotherapy, but "
                f"{text(header, 'Modality') or 'a file without a modality'}. Pass an RTSTRUCT file."
            )
        frames, series = _referenced(header)
        drawn: dict[int, list[Any]] = {}
        for item in header.get("ROIContourSequence") or []:
            contours = drawn.setdefault(int(item.ReferencedROINumber), [])
            contours.extend(item.get("ContourSequence") or [])
        regions = []
        for roi in header.StructureSetROISequence:
            areas, others = _contours(drawn.get(int(roi.ROINumber), []), text(roi, "ROIName"), path)
            own = text(roi, "ReferencedFrameOfReferenceUID")
            frame = own or (frames[0] if len(frames) == 1 else "")
            regions.append(
                Region(text(roi, "ROIName"), int(roi.ROINumber), areas, others, frame, series)
            )
    return tuple(regions)


def _referenced(header: Any) -> tuple[list[str], tuple[str, ...]]:
    """The frames of reference, and the series, that a structure set names."""
    frames: list[str] = []
    series: list[str] = []
    for item in header.get("ReferencedFrameOfReferenceSequence") or []:
        frames.append(text(item, "FrameOfReferenceUID"))
        for study in item.get("RTReferencedStudySequence") or []:
            items = study.get("RTReferencedSeriesSequence") or []
            series += [text(one, "SeriesInstanceUID") for one in items]
    own = text(header, "FrameOfReferenceUID")
    return list(dict.fromkeys(filter(None, frames or [own]))), tuple(series)


def _contours(
    items: list[Any], name: str, path: Path
) -> tuple[tuple[NDArray[np.float64], ...], tuple[tuple[str, int], ...]]:
    """Outlines of areas, and the count of other contours by kind."""
    areas, others = [], Counter[str]()
    for item in items:
        kind = text(item, "ContourGeometricType").upper()
        if kind not in AREAS:
            others[kind] += 1
            continue
        try:
            points = _coordinates(item)
        except (TypeError, ValueError) as error:
            raise AnnotationError(
                f"{path.name}: a contour of {name!r} holds what is no number ({error}). Export it again."
            ) from error
        if len(points) % 3 or not np.isfinite(points).all():
            raise AnnotationError(
                f"{path.name}: a contour of {name!r} is damaged: {len(points)} coordinates, which are no "
                "triples of numbers. Export it again."
            )
        offset = text(item, "ContourOffsetVector")
        if any(float(part) for part in offset.split("\\") if part):
            raise AnnotationError(
                f"{path.name}: a contour of {name!r} lies {offset} mm beside its points "
                "(ContourOffsetVector), which is not read. Export the structure set again."
            )
        areas.append(points.reshape(-1, 3))
    return tuple(areas), tuple(sorted(others.items()))


def _coordinates(item: Any) -> NDArray[np.float64]:
    """The numbers of a contour; taken from the stored text, which is ten times as fast as by element."""
    if "ContourData" not in item:
        return np.zeros(0)
    value = item.get_item("ContourData").value
    parts = value.decode("ascii").split("\\") if isinstance(value, bytes) else value or []
    return np.array([part for part in parts if part != ""], dtype=np.float64)


def choose_region(regions: tuple[Region, ...], name: str, source: str) -> Region:
    """The region of a name, or the only one that matches it.

    A name is taken as it is; else without regard to case, spaces and underscores; else as a pattern with
    ``*`` and ``?``; else as the first words of a name. It must fit one region alone.

    Raises:
        AnnotationError: none or several fit, or the one that fits has no contour.
    """
    listed = ", ".join(region.describe() for region in regions[:SHOWN])
    listed += f" and {len(regions) - SHOWN} more" if len(regions) > SHOWN else ""
    word = _plain(name)
    rules = (
        lambda region: region.name == name,
        lambda region: _plain(region.name) == word,
        lambda region: fnmatchcase(region.name.casefold(), name.casefold()),
        lambda region: bool(re.match(rf"{re.escape(name)}[\s_-]", region.name, re.IGNORECASE)),
    )
    fitting = next((fit for rule in rules if (fit := [r for r in regions if rule(r)])), [])
    drawn = [region for region in fitting if region.contours]
    if len(drawn) == 1:
        return drawn[0]
    if not fitting:
        raise AnnotationError(
            f"{source} has no region {name!r}. It has {listed}. Name one of these."
        )
    if not drawn:
        others = "; ".join(f"{count} of kind {kind}" for kind, count in fitting[0].others)
        raise EmptyRegion(
            f"{source}: the region {fitting[0].name!r} is empty: no closed contour"
            f"{f', but {others}' if others else ''}. It has {listed}. Name another."
        )
    shown = ", ".join(f"{region.describe()[:-1]}, number {region.number})" for region in drawn)
    raise AnnotationError(
        f"{source}: {len(drawn)} regions fit {name!r}: {shown}. Write the name of one in full; two of one "
        "name must be renamed."
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def read_structure(
    path: Path,
    name: str,
    volume: Volume,
    *,
    allow: Collection[Allowance] = (),
) -> Mask:
    """A region of a structure set as a mask on the grid of a volume.

    Args:
        path: an RTSTRUCT file.
        name: of the region, or enough of it.
        volume: the series that it was drawn on, or another in the same frame of reference.
        allow: ``frame`` takes the millimetres of both as one frame though the files do not say so, as where
            the volume was converted to NIfTI; ``sparse`` gives slices between contoured ones a shape.

    Raises:
        AnnotationError: there is no such region, its frame of reference is another's or unknown, or no mask
            can be made of it.
    """
    region = choose_region(read_regions(path), name, path.name)
    doubt = _doubt_of_frame(region, volume)
    if doubt and "frame" not in allow:
        raise AnnotationError(f"{path.name}: {doubt}")
    mask = mask_of_contours(
        region.contours,
        volume.grid,
        f"{path.name}, region {region.name!r}",
        slice_axis=volume.slice_axis,
        fill_between="sparse" in allow,
    )
    notes = [f"{count} contours of kind {kind} left out" for kind, count in region.others]
    if doubt:
        notes.insert(0, "its millimetres are taken as the image's, though the files do not say so")
    if name != "*" and _plain(region.name) != _plain(name):
        notes.insert(0, f"the region {region.name!r} is taken for {name!r}")
    return replace(mask, name=region.name, notes=(*notes, *mask.notes))


def _doubt_of_frame(region: Region, volume: Volume) -> str:
    """Why a region may lie in another frame of reference; where one is unnamed, the series decides."""
    if region.frame_of_reference and volume.frame_of_reference:
        if region.frame_of_reference == volume.frame_of_reference:
            return ""
        return (
            f"the region {region.name!r} lies in another frame of reference "
            f"({region.frame_of_reference}) than the series ({volume.frame_of_reference}): its millimetres "
            "are other places. Use the series that it was drawn on, or register the two."
        )
    if volume.series and volume.series in region.series:
        return ""
    missing = "the structure set" if volume.frame_of_reference else "the image"
    return (
        f"whether the region {region.name!r} and the image share a frame of reference is unknown, as "
        f"{missing} names none. Use the DICOM series that it was drawn on, or say that they share one "
        "(allow=frame)."
    )
