"""Series of CT, MRI and PET in folders: which there are, and reading one as a volume.

volume = read_volume(Path("patient-01/T1"))
volume.values  # (z, y, x) float32, axes to the patient's left, back and head
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.errors import VolumeError
from features.volumes.allowances import Allowance
from features.volumes.headers import (
    Plane,
    damage_of,
    damaged_slices,
    facts_of,
    files_in,
    is_dicom,
    lenient,
    planes_of,
    read_header,
    text,
)
from features.volumes.image_files import is_image_file, read_image_file
from features.volumes.members import NO_SUV, notes_of, problem_of
from features.volumes.naming import sequence_name
from features.volumes.pixels import read_planes
from features.volumes.stacking import (
    SliceStack,
    fill_stack,
    gaps_mm,
    split_by_part,
    stack_planes,
)
from features.volumes.uptake import scale_to_suv
from features.volumes.volume import AIR_HU, Volume, check_spacing, notes_on_spacing, turn_to_lps

RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"  # measurements that no image was made of yet
NO_SLICES = ("SEG", "RTIMAGE")  # images that are no slices
SHOWN = 12  # series in an error
TIMES = (("repetition_time_ms", "repetition time"), ("echo_time_ms", "echo time"))


@dataclass(frozen=True)
class Series:
    """One series of images, its pixels not read yet.

    Attributes:
        paths: its files.
        planes: its slices; empty for a NIfTI, NRRD or MetaImage file.
        uid, number, description, modality, frame_of_reference: as the files say; empty where they do not.
        study, study_date: UID and date of the examination; neither is written anywhere.
        part: what tells it apart from others of the same UID, as ``echo time 80 ms``.
        thickness_mm: of a slice, as the files say.
        facts: what the audit asks of a scan.
        notes: what a user should know, as text burned into the pixels.
    """

    paths: tuple[Path, ...]
    planes: tuple[Plane, ...] = ()
    uid: str = ""
    number: str = ""
    description: str = ""
    modality: str = ""
    frame_of_reference: str = ""
    study: str = ""
    study_date: str = ""
    part: str = ""
    thickness_mm: float | None = None
    facts: tuple[tuple[str, str | float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The series in a message: its folder, number and UID; never its description, which is free text."""
        if not self.planes:
            return self.paths[0].name
        words = [f"Series {self.number}".strip(), f"of {self.paths[0].parent.name}"]
        words += [f"[{self.part}]" if self.part else "", f"({self.uid})" if self.uid else ""]
        return " ".join(filter(None, words))

    @property
    def kind(self) -> str:
        """What it shows, as T1CE."""
        return sequence_name(self.modality, self.description)

    @property
    def key(self) -> str:
        """What ``choose_series`` knows it by, beside others of its folder."""
        return f"{self.uid} {self.part}".strip()

    @property
    def details(self) -> str:
        """What tells series of one modality apart, in numbers: TR and TE of MR, the part of its UID."""
        facts, words = dict(self.facts), []
        for name, word in TIMES:
            value = facts.get(name)
            if self.modality == "MR" and isinstance(value, float) and word not in self.part:
                words.append(f"{word} {value:g} ms")
        return ", ".join([*words, *([self.part] if self.part else [])])

    def describe(self) -> str:
        """One line: number, kind, slices and their distance, UID; nothing of its description."""
        if not self.planes:
            return f"{self.paths[0].name}: one file"
        words = [self.kind if self.modality else "no modality"]
        count = len(self.planes)
        words += ["1 slice" if count == 1 else f"{count} slices"]
        words += [self.details] if self.details else []
        if not any(plane.problem for plane in self.planes) and len(self.planes) > 1:
            steps = sorted(gaps_mm(self.planes))
            words.append(f"{steps[len(steps) // 2]:.2f} mm apart")
        return f"{self.number or '-'}: {', '.join(words)}; UID {self.uid or 'missing'}"

    def problem(self, allow: Collection[Allowance] = ()) -> str:
        """Why it cannot be read as a volume, without reading pixels; empty where nothing is known."""
        if not self.planes:
            return ""
        try:
            self.stack(allow)
        except VolumeError as error:
            return str(error)
        return ""

    def stack(self, allow: Collection[Allowance] = ()) -> SliceStack:
        """Its slices in their order.

        Raises:
            VolumeError: they are not one volume, or of no plausible size.
        """
        stack = stack_planes(
            self.planes,
            self.name,
            allow=allow,
            thickness_mm=self.thickness_mm,
        )
        check_spacing((*stack.planes[0].spacing_mm, stack.step_mm), self.name)
        return stack


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Attributes:
        series: images.
        structure_sets, doses: files of radiotherapy.
        damaged: files that should be DICOM and cannot be read as such, with the reason.
        others: further DICOM files with their modality, as plans, registrations and segmentations.
    """

    series: tuple[Series, ...]
    structure_sets: tuple[Path, ...]
    doses: tuple[Path, ...]
    damaged: tuple[tuple[Path, str], ...]
    others: tuple[tuple[Path, str], ...]


def find_series(path: Path) -> tuple[Series, ...]:
    """All series of images of a folder and its folders, or the one that a file belongs to.

    Args:
        path: a folder, or a file: of DICOM (which stands for its series), NIfTI, NRRD or MetaImage.

    Raises:
        VolumeError: the path does not exist, is a file of another kind, or holds a damaged file.
    """
    if path.is_file() and is_image_file(path):
        return (Series((path,), description=path.name),)
    if path.is_file():
        if not is_dicom(path):
            raise VolumeError(
                f"{path.name} is no DICOM, NIfTI, NRRD or MetaImage file. Pass a folder of DICOM files or "
                "a file of these kinds."
            )
        own = [series for series in _sound_series(path.parent) if path in series.paths]
        if not own:
            raise VolumeError(
                f"{path.name} holds no image ({text(read_header(path), 'Modality') or 'no modality'}). "
                "Pass a folder or a file of the series."
            )
        return tuple(own)
    return _sound_series(path)


def scan_folder(path: Path) -> Folder:
    """What a folder and its folders hold; files that are neither DICOM nor volumes are passed over.

    Raises:
        VolumeError: the folder does not exist.
    """
    if not path.is_dir():
        raise VolumeError(
            f"The folder {path} does not exist. Pass a folder of DICOM or NIfTI files."
        )
    groups: dict[str, list[tuple[Path, Any]]] = {}
    by_kind: dict[str, list[Path]] = {"RTSTRUCT": [], "RTDOSE": []}
    others, files, damaged, passed_over = [], [], [], []
    for file in files_in(path):
        if is_image_file(file):
            files.append(Series((file,), description=file.name))
            continue
        header, damage = _header_or_damage(file)
        modality = text(header, "Modality") if header else ""
        if damage:
            damaged.append((file, damage))
        elif modality in by_kind:
            by_kind[modality].append(file)
        elif header and _is_slice(header, modality):
            uid = text(header, "SeriesInstanceUID") or f"in {file.parent}"
            groups.setdefault(uid, []).append((file, header))
        elif modality:
            others.append((file, modality))
        elif not header:
            passed_over.append(file)
    slices = [file for members in groups.values() for file, _ in members]
    damaged += damaged_slices(passed_over, slices)
    series = [part for members in groups.values() for part in _series_of(members)]
    ordered = sorted(series, key=lambda one: (one.number.zfill(8), one.uid, one.paths[0]))
    return Folder(
        (*ordered, *files),
        tuple(by_kind["RTSTRUCT"]),
        tuple(by_kind["RTDOSE"]),
        tuple(damaged),
        tuple(others),
    )


def _is_slice(header: Any, modality: str) -> bool:
    """Whether a file is an image; CT, MRI and PET without pixels are slices that lost them."""
    if text(header, "SOPClassUID") == RAW_DATA or modality in NO_SLICES:
        return False
    return "Rows" in header or modality in ("CT", "MR", "PT")


def _header_or_damage(file: Path) -> tuple[Any | None, str]:
    """The elements of a file of DICOM, and what is wrong with it."""
    try:
        header = read_header(file) if is_dicom(file) else None
        return header, damage_of(file, header)
    except VolumeError as error:
        return None, str(error)


def _sound_series(path: Path) -> tuple[Series, ...]:
    """The series of a folder without a damaged file."""
    folder = scan_folder(path)
    if folder.damaged:
        more = f" {len(folder.damaged)} files are damaged." if len(folder.damaged) > 1 else ""
        raise VolumeError(folder.damaged[0][1] + more)
    return folder.series


def _series_of(members: list[tuple[Path, Any]]) -> list[Series]:
    """The series of files with one UID, or several, by what tells slices at one place apart."""
    first = members[0][1]
    planes = [plane for file, header in members for plane in planes_of(header, file)]
    with lenient():
        facts = facts_of(first)
        thickness = facts.get("slice_thickness_mm")
        series = Series(
            paths=(),
            uid=text(first, "SeriesInstanceUID"),
            number=text(first, "SeriesNumber"),
            description=text(first, "SeriesDescription"),
            modality=text(first, "Modality"),
            study=text(first, "StudyInstanceUID"),
            study_date=text(first, "StudyDate"),
            frame_of_reference=min(text(header, "FrameOfReferenceUID") for _, header in members),
            thickness_mm=thickness if isinstance(thickness, float) else None,
            facts=tuple(facts.items()),
            notes=notes_of(members),
        )
    if not any(plane.problem for plane in planes) and (problem := problem_of(members)):
        planes = [replace(plane, problem=problem) for plane in planes]
    return [
        replace(
            series,
            part=part,
            planes=tuple(group),
            paths=tuple(dict.fromkeys(plane.path for plane in group)),
        )
        for part, group in split_by_part(planes)
    ]


def choose_series(path: Path, series: str = "") -> Series:
    """The one series of a folder, or that of a UID, number, description or part.

    Args:
        path: a folder or a file.
        series: UID, number, description or part of the one that is meant; upper and lower case are one.

    Raises:
        VolumeError: there is none, or there are several; all are listed.
    """
    listed = find_series(path)
    if not listed:
        raise VolumeError(
            f"{path} holds no series of images. Pass the folder of a CT, MRI or PET series."
        )
    word = series.strip().casefold()
    if word:
        names = [
            {one.uid, one.number, one.description, one.part, one.key, one.paths[0].name}
            for one in listed
        ]
        chosen = [
            one
            for one, own in zip(listed, names, strict=True)
            if word in {name.strip().casefold() for name in own if name}
        ]
    else:
        chosen = list(listed)
    if len(chosen) == 1:
        return chosen[0]
    lines = "\n".join(f"  {one.describe()}" for one in (chosen or listed)[:SHOWN])
    more = len(chosen or listed) - SHOWN
    raise VolumeError(
        (f"{path} has no series {series!r}; it has\n" if not chosen else "")
        + (
            f"{path} holds {len(chosen)} series{f' {series!r}' if word else ''}:\n"
            if chosen
            else ""
        )
        + lines
        + (f"\n  and {more} more" if more > 0 else "")
        + "\nName one by its UID, number, description or part (series), or pass a folder of its own."
    )


def read_series(series: Series, *, allow: Collection[Allowance] = (), suv: bool = False) -> Volume:
    """Read a series as a volume.

    Args:
        series: one of ``find_series``.
        allow: instead of an error, interpolate missing slices (``gaps``) or straighten those of a tilted
            gantry (``tilt``); a note says how many and by how much.
        suv: values of PET as standardised uptake by body weight.

    Returns:
        The volume; its axes run to the patient's left, back and head as nearly as they can without a new
        value.

    Raises:
        VolumeError: the series is not one volume, a file cannot be read, or SUV cannot be computed.
    """
    if not series.planes:
        return read_image_file(series.paths[0])
    stack = series.stack(allow)
    outside = AIR_HU if series.modality == "CT" else 0.0
    values, pixel_notes = read_planes(list(stack.planes), series.modality, outside)
    units, suv_notes = {}, tuple[str, ...]()
    if suv and series.modality == "PT":
        units, suv_notes = {"units": "GML"}, scale_to_suv(values, stack.planes, series.name)
    values, grid, notes = fill_stack(stack, values, outside)
    values, grid, slice_axis = turn_to_lps(values, grid)
    return Volume(
        values=values,
        grid=grid,
        modality=series.modality,
        frame_of_reference=series.frame_of_reference,
        series=series.uid,
        slice_axis=slice_axis,
        facts={
            **dict(series.facts),
            **units,
            "slices": len(stack.planes),
            "slice_spacing_mm": stack.step_mm,
        },
        notes=(
            *(note for note in series.notes if not (units and note.startswith(NO_SUV))),
            *notes,
            *pixel_notes,
            *suv_notes,
            *notes_on_spacing(grid, stack.step_mm, series.thickness_mm),
        ),
    )


def read_volume(
    path: Path, series: str = "", *, allow: Collection[Allowance] = (), suv: bool = False
) -> Volume:
    """Read the one series of a folder, or the one that is named.

    Args:
        path: a folder or a file.
        series: UID, number, description or part, where there are several.
        allow: see ``read_series``.
        suv: see ``read_series``.

    Raises:
        VolumeError: there is no series, there are several, or it cannot be read.
    """
    return read_series(choose_series(path, series), allow=allow, suv=suv)
