"""The series of a folder of patients, as rows of the table that `VolumeJob`s are made of."""

import csv
import os
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features.errors import FeaturesError, VolumeError
from features.files.atomic import atomic_path
from features.volumes.image_files import is_image_file
from features.volumes.series import Series, scan_folder
from features.volumes.stacking import gaps_mm
from features.volumes.structures import Region, read_regions

# Words of a file's name, between other letters than these.
MASK_WORDS = {
    "mask",
    "masks",
    "seg",
    "segmentation",
    "label",
    "labels",
    "labelmap",
    "roi",
    "gtv",
    "tumor",
    "tumour",
}
DAMAGED_SHOWN = 3  # files
COLUMNS = ("case", "modality", "path", "series", "mask", "roi", "slices", "spacing_mm", "problems")
IMAGE_WORDS = {"image", "img", "volume", "vol"}
WORD = re.compile(r"[A-Za-z0-9+]+")
CONTRAST = re.compile(r"\b(gd|gad\w*|ce|cm|km|contrast|post|mprage\+?c|\+c)\b", re.IGNORECASE)
WEIGHTING = re.compile(r"t\s?([12])(?![0-9])", re.IGNORECASE)
FAT = re.compile(r"\b(fs|fatsat|fat ?sat|stir|spir|tirm|dixon)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ListedSeries:
    """One row of the table.

    Attributes:
        case: the folder of the patient; never what the files say of the patient.
        modality: as the files or their names say: CT, PET, T1, T2, T1CE, Dose.
        path: the folder of the series, or its file.
        series: UID, where its folder has several.
        mask: a structure set or label map that belongs to it.
        roi: the region, if the structure set has one alone.
        slices, spacing_mm: of the series.
        problems: why it cannot be read, or what has to be chosen.
    """

    case: str
    modality: str
    path: Path
    series: str = ""
    mask: Path | None = None
    roi: str = ""
    slices: int | None = None
    spacing_mm: float | None = None
    problems: tuple[str, ...] = ()


def list_series(folder: Path) -> tuple[ListedSeries, ...]:
    """All series of a folder with one folder per patient, or of one patient's folder.

    Raises:
        VolumeError: there is no such folder, or no series in it.
    """
    patients = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    one = not patients or any(
        path.is_file() and not path.name.startswith(".") for path in folder.iterdir()
    )
    rows = []
    for patient in [folder] if one else patients:
        rows += _patient_rows(patient)
    if not rows:
        raise VolumeError(
            f"{folder}: holds no series of CT or MRI. Pass a folder with one folder per patient, of DICOM, "
            "NIfTI, NRRD or MetaImage files."
        )
    return tuple(rows)


def write_list(path: Path, rows: Sequence[ListedSeries]) -> None:
    """Write the rows as CSV, their paths relative to the table."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            places = [
                os.path.relpath(one, path.parent) if one else "" for one in (row.path, row.mask)
            ]
            numbers = [
                "" if value is None else f"{value:.4g}" for value in (row.slices, row.spacing_mm)
            ]
            writer.writerow(
                [row.case, row.modality, places[0], row.series, places[1], row.roi, *numbers,
                 "; ".join(row.problems)]
            )  # fmt: skip


def _patient_rows(patient: Path) -> list[ListedSeries]:
    found = scan_folder(patient)
    images = [one for one in found.series if one.planes or not _is_mask(one.paths[0])]
    masks = [one.paths[0] for one in found.series if not one.planes and _is_mask(one.paths[0])]
    regions = [(path, *_regions(path)) for path in found.structure_sets]
    shared = Counter(_place(one) for one in images)
    rows = [
        _row(patient.name, one, masks, regions, alone=shared[_place(one)] == 1) for one in images
    ]
    rows += [_dose_row(patient.name, path) for path in found.doses]
    if found.damaged:
        reasons = tuple(reason for _, reason in found.damaged[:DAMAGED_SHOWN])
        rows = [replace(row, problems=(*row.problems, *reasons)) for row in rows]
    return _with_twins_named(rows)


def _row(
    case: str,
    series: Series,
    masks: Sequence[Path],
    regions: Sequence[tuple[Path, tuple[Region, ...], str]],
    *,
    alone: bool,
) -> ListedSeries:
    row = ListedSeries(case=case, modality=_modality(series), path=_place(series))
    problems = [series.problem()] if series.planes else []
    if series.planes:
        row = replace(row, series="" if alone else series.uid, slices=len(series.planes))
        if not problems[0] and len(series.planes) > 1:
            row = replace(row, spacing_mm=statistics.median(gaps_mm(series.planes)))
        row, more = _with_structures(row, series, regions)
        problems += more
    if row.mask is None and masks:
        row = replace(row, mask=_mask_for(series, masks))
    return replace(row, problems=tuple(filter(None, problems)))


def _with_structures(
    row: ListedSeries, series: Series, regions: Sequence[tuple[Path, tuple[Region, ...], str]]
) -> tuple[ListedSeries, list[str]]:
    """The row with the structure set that was drawn on the series, or shares its frame of reference."""
    on_series = [r for r in regions if any(series.uid in one.series for one in r[1])]
    in_frame = [
        r
        for r in regions
        if any(one.frame_of_reference == series.frame_of_reference for one in r[1])
    ]
    matching = on_series or in_frame
    if not matching:
        return row, [problem for _, _, problem in regions if problem]
    path, drawn, _ = matching[0]
    names = [one.name for one in drawn if one.contours]
    problems = []
    if len(matching) > 1:
        problems.append(f"{len(matching)} structure sets fit: name one in mask")
    if len(names) != 1:
        problems.append(
            f"the structure set has {', '.join(names) or 'no contour'}: name one in roi"
        )
    return replace(row, mask=path, roi=names[0] if len(names) == 1 else ""), problems


def _regions(path: Path) -> tuple[tuple[Region, ...], str]:
    """The regions of a structure set, and why it cannot be read."""
    try:
        return read_regions(path), ""
    except FeaturesError as error:
        return (), str(error)


def _dose_row(case: str, path: Path) -> ListedSeries:
    return ListedSeries(case=case, modality="Dose", path=path)


def _place(series: Series) -> Path:
    """The folder of a series of files, or the file of a volume."""
    return series.paths[0].parent if series.planes else series.paths[0]


def _modality(series: Series) -> str:
    """The name by which a study knows it, as far as the files say."""
    if not series.planes:
        words = [word for word in _words(series.paths[0]) if word.lower() not in IMAGE_WORDS]
        if len(words) > 1 and words[0].upper() in (
            "MR",
            "MRI",
        ):  # MR_T1, as the series of DICOM is T1
            words = words[1:]
        return "_".join(words) or "image"
    if series.modality != "MR":
        return {"PT": "PET"}.get(series.modality, series.modality or "image")
    weighting = WEIGHTING.search(series.description)
    if not weighting:
        return "MR"
    contrast = "CE" if CONTRAST.search(series.description) else ""
    fat = "FS" if FAT.search(series.description) else ""
    return f"T{weighting[1]}{contrast}{fat}"


def _words(path: Path) -> list[str]:
    name = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"):
        name = name.removesuffix(suffix)
    return [word for part in WORD.findall(name) for word in part.split("_") if word]


def _is_mask(path: Path) -> bool:
    return is_image_file(path) and any(word.lower() in MASK_WORDS for word in _words(path))


def _mask_for(series: Series, masks: Sequence[Path]) -> Path | None:
    """The label map whose name is the image's but for the word that says mask; the only one otherwise."""
    own = {w.lower() for w in _words(series.paths[0])} - IMAGE_WORDS if not series.planes else set()
    same = [m for m in masks if {w.lower() for w in _words(m)} - MASK_WORDS - IMAGE_WORDS == own]
    if len(same) == 1:
        return same[0]
    return masks[0] if len(masks) == 1 else None


def _with_twins_named(rows: Sequence[ListedSeries]) -> list[ListedSeries]:
    """Two series of one modality are marked: one has to be chosen, or given another name."""
    times = Counter(row.modality for row in rows)
    return [
        replace(
            row,
            problems=(
                *row.problems,
                f"{times[row.modality]} series are {row.modality}: rename or remove",
            ),
        )
        if times[row.modality] > 1
        else row
        for row in rows
    ]
