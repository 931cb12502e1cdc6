"""The series of a folder of patients, as rows of the table that `VolumeJob`s are made of."""

import csv
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from features.errors import FeaturesError, VolumeError
from features.files.atomic import atomic_path
from features.volumes.headers import is_dicom
from features.volumes.image_files import is_image_file, read_layout
from features.volumes.libraries import require
from features.volumes.naming import (
    image_name,
    is_mask,
    named_modalities,
    plain_words,
    session_of,
    subject_of,
    words_of,
)
from features.volumes.series import Folder, Series, scan_folder
from features.volumes.stacking import gaps_mm
from features.volumes.structures import Region, read_regions

DAMAGED_SHOWN = 3  # files
NNUNET = {"imagestr", "imagests", "labelstr", "labelsts"}
COLUMNS = (
    "case", "modality", "path", "series", "mask", "roi", "timepoint", "number", "details", "slices",
    "spacing_mm", "problems",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ListedSeries:
    """One row of the table.

    Attributes:
        case: the folder of the patient; never what the files say of the patient.
        modality: as the files or their names say: CT, PET, T1, T2, T1CE, Dose.
        path: the folder of the series, or its file.
        series: UID, where its folder has several, and the part of it, as ``echo time 80 ms``.
        mask: a structure set or label map that belongs to it.
        roi: the region, if the structure set has one alone.
        timepoint: 1, 2, ... where a patient was examined several times; a session that a file's name states.
        number: of the series.
        details: what tells series of one modality apart, as TR, TE and b value.
        slices, spacing_mm: of the series.
        problems: why it cannot be read, or what has to be chosen.
    """

    case: str
    modality: str
    path: Path
    series: str = ""
    mask: Path | None = None
    roi: str = ""
    timepoint: str = ""
    number: str = ""
    details: str = ""
    slices: int | None = None
    spacing_mm: float | None = None
    problems: tuple[str, ...] = ()


def list_series(folder: Path) -> tuple[ListedSeries, ...]:
    """All series of a folder with one folder per patient, or of one patient's folder.

    Raises:
        VolumeError: there is no such folder, or no series in it, or a package is missing.
    """
    require()
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    patients = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    loose = [path for path in inside if _is_image(path)]
    rows = []
    for patient in [folder] if loose or not patients else patients:
        rows += _patient_rows(patient)
    doubt = _doubt_of_layout([folder, *patients])
    if loose and not doubt:
        doubt = _doubt_of_one_patient(loose, patients)
    if doubt:
        rows = [replace(row, problems=(*row.problems, doubt)) for row in rows]
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
                [row.case, row.modality, places[0], row.series, places[1], row.roi, row.timepoint,
                 row.number, row.details, *numbers, "; ".join(row.problems)]
            )  # fmt: skip


def _is_image(path: Path) -> bool:
    """Whether a file beside the folders of patients is an image; a table or a note is none."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    return is_image_file(path) or is_dicom(path)


def _doubt_of_layout(folders: Sequence[Path]) -> str:
    """That folders are those of nnU-Net, in words; empty where they are not."""
    names = [path.name for path in folders if path.name.lower() in NNUNET]
    if not names:
        return ""
    return (
        f"{' and '.join(names)}: folders as of nnU-Net, with images of all patients in one and their label "
        "maps in another. Put each patient into a folder, as p1/T1.nii.gz and p1/mask.nii.gz"
    )


def _doubt_of_one_patient(loose: Sequence[Path], patients: Sequence[Path]) -> str:
    """Why images outside of folders may be of several patients, in words."""
    remedy = "they are read as one patient: put each patient into a folder"
    if patients:
        return f"{loose[0].name} lies beside {len(patients)} folders, and {remedy}"
    images = [path for path in loose if is_image_file(path) and not is_mask(path)]
    words = [plain_words(words_of(path)) for path in images]
    subjects = {subject_of(path) for path in images}
    times = Counter(word for own in words for word in own)
    # Names of patients differ while a word as T1 comes again: P1_T1, P2_T1.
    alike = [own for own in words if any(times[word] > 1 for word in own)]
    differing = len(alike) > 1 and len({frozenset(own) for own in alike}) == len(alike)
    first = {tuple(words_of(path)[:1]) for path in images}
    if len(subjects) > 1 or (differing and len(first) > 1):
        return f"{len(images)} images lie in one folder, and {remedy}"
    return ""


def _patient_rows(patient: Path) -> list[ListedSeries]:
    folder, case = scan_folder(patient), patient.name
    masks = [
        one.paths[0] for one in folder.series if not one.planes and is_mask(one.paths[0], case)
    ]
    images = [one for one in folder.series if one.planes or one.paths[0] not in masks]
    regions = [(path, *_regions(path)) for path in folder.structure_sets]
    visits = _visits(images)
    rows = [
        _with_map(_row(case, one, images, regions, visits), one, images, masks) for one in images
    ]
    rows += [_dose_row(case, path) for path in folder.doses]
    reasons = _problems_of(folder, rows, masks)
    rows = [replace(row, problems=(*row.problems, *reasons)) for row in rows]
    return _with_twins_named(rows)


def _problems_of(found: Folder, rows: Sequence[ListedSeries], masks: Sequence[Path]) -> list[str]:
    """What is wrong with the folder of a patient, rather than with one series."""
    reasons = [reason for _, reason in found.damaged[:DAMAGED_SHOWN]]
    reasons += [
        f"{path.name} is a segmentation of DICOM (SEG), which is not read: convert it to NIfTI"
        for path, kind in found.others
        if kind == "SEG"
    ][:DAMAGED_SHOWN]
    if any(row.mask for row in rows):
        return reasons
    if masks:
        names = ", ".join(sorted(path.name for path in masks))
        one = "name the one that is meant" if len(masks) > 1 else "name it"
        reasons.append(
            f"no region is chosen among {names}, as no name fits an image: {one} in mask"
        )
    else:
        reasons.append("no region: there is no structure set and no label map for any image")
    return reasons


def _row(
    case: str,
    series: Series,
    images: Sequence[Series],
    regions: Sequence[tuple[Path, tuple[Region, ...], str]],
    visits: dict[str, str],
) -> ListedSeries:
    place = _place(series)
    row = ListedSeries(case=case, modality=_modality(series, case), path=place)
    if not series.planes:
        slices, spacing_mm, problem = read_layout(place)
        named = named_modalities(row.modality)
        doubt = f"{row.modality} may be several modalities: write the one that it is, as CT or T1CE"
        problems = tuple(filter(None, [problem, doubt if len(named) > 1 else ""]))
        return replace(
            row,
            slices=slices,
            spacing_mm=spacing_mm,
            problems=problems,
            timepoint=session_of(place),
        )
    unreadable = series.problem()
    alone = sum(any(place in path.parents for path in one.paths) for one in images) == 1
    row = replace(
        row,
        series="" if alone else series.key,
        timepoint=visits.get(series.study, ""),
        number=series.number,
        details=series.details,
        slices=len(series.planes),
    )
    if not unreadable and len(series.planes) > 1:
        row = replace(row, spacing_mm=statistics.median(gaps_mm(series.planes)))
    row, more = _with_structures(row, series, regions)
    return replace(row, problems=tuple(filter(None, [unreadable, *more])))


def _visits(images: Sequence[Series]) -> dict[str, str]:
    """The time point of every study, by its UID; empty where no modality was examined twice.

    The modality of most studies counts the visits; another study belongs to the nearest by date.
    """
    dates = {one.study: one.study_date for one in images if one.planes}
    studies: dict[str, set[str]] = {}
    for one in images:
        if one.planes:
            studies.setdefault(_modality(one), set()).add(one.study)
    most = max(studies.values(), key=len) if studies else set[str]()
    if len(most) < 2:
        return {}
    ordered = sorted(most, key=lambda study: (dates[study], study))
    return {
        study: str(
            1 + min(range(len(ordered)), key=lambda place: _apart(study, ordered[place], dates))
        )
        for study in dates
    }


def _apart(one: str, other: str, dates: dict[str, str]) -> tuple[bool, int]:
    """How far two studies are apart: not at all, else by the days between them, where both have a date."""
    if one == other:
        return False, 0
    try:
        days = [datetime.strptime(dates[study], "%Y%m%d").date() for study in (one, other)]
    except ValueError:
        return True, 0
    return True, abs((days[0] - days[1]).days)


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
    """The folder that holds all files of a series, or the file of a volume."""
    if not series.planes:
        return series.paths[0]
    return Path(os.path.commonpath([path.parent for path in series.paths]))


def _modality(series: Series, case: str = "") -> str:
    """The name by which a study knows it, as far as the files say."""
    return series.kind if series.planes else image_name(series.paths[0], case)


def _own_words(series: Series, case: str) -> set[str]:
    return plain_words(words_of(series.paths[0], case) if not series.planes else [series.kind])


def _with_map(
    row: ListedSeries, series: Series, images: Sequence[Series], masks: Sequence[Path]
) -> ListedSeries:
    """The row with the label map of the image's name; else with the only one that is named after no other."""
    if row.mask is not None:
        return row
    case = row.case
    own = _own_words(series, case)
    session = "" if series.planes else session_of(series.paths[0])
    masks = [path for path in masks if session_of(path) in ("", session)]
    same = [path for path in masks if plain_words(words_of(path, case)) == own]
    others = {word for one in images for word in _own_words(one, case)} - own
    free = [path for path in masks if not plain_words(words_of(path, case)) & others]
    fitting = same if len(same) == 1 else free
    if len(fitting) != 1:
        return row
    problem = read_layout(fitting[0])[2]
    return replace(row, mask=fitting[0], problems=(*row.problems, *filter(None, [problem])))


def _with_twins_named(rows: Sequence[ListedSeries]) -> list[ListedSeries]:
    """Two series of one modality are marked: one has to be chosen, or given another name."""
    times = Counter((row.modality, row.timepoint) for row in rows)
    return [
        replace(
            row,
            problems=(*row.problems, f"{count} series are {row.modality}: rename or remove"),
        )
        if (count := times[row.modality, row.timepoint]) > 1
        else row
        for row in rows
    ]
