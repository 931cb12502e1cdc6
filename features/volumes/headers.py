"""What a DICOM file says of its slices: where they lie, how values are scaled, and what tells them apart.

Source: DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (functional groups of multi-frame images), C.11.1
(rescale).
"""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.errors import VolumeError
from features.volumes.libraries import pydicom

UNITS = ("_t", "_mm", "_ms", "_degrees", "kvp")
PREAMBLE = 128
BARE_STARTS = (b"\x02\x00", b"\x08\x00")  # the first groups of a file without a preamble
BARE_SUFFIXES = ("", ".dcm", ".ima", ".img", ".dicom")
OWN_SUFFIXES = (".dcm", ".ima", ".dicom")  # of DICOM alone
PLACELESS = (
    "without which a slice has no place in the patient. "
    "Export the original series, not a picture of it."
)
LACKING = {
    "DoseGridScaling": "without which its values are no dose in Gy. Export the dose again.",
    "GridFrameOffsetVector": "without which its planes have no place. Export the dose again.",
}
DIGITS = re.compile(r"\d+")
DIRECTORY = "1.2.840.10008.1.3.10"  # a list of files, as on a disc
# What tells apart images of one series that lie at one place: keyword, words, unit.
PARTS = (
    ("AcquisitionNumber", "acquisition", ""),
    ("TemporalPositionIdentifier", "time point", ""),
    ("TemporalPositionIndex", "time point", ""),
    ("EchoTime", "echo time", " ms"),
    ("EffectiveEchoTime", "echo time", " ms"),
    ("EchoNumbers", "echo", ""),
    ("DiffusionBValue", "b value", " s/mm2"),
    ("SequenceName", "sequence", ""),
    ("InversionTime", "inversion time", " ms"),
    ("TriggerTime", "trigger time", " ms"),
    ("NominalPercentageOfCardiacPhase", "phase of the heart", " %"),
    ("FrameReferenceTime", "time", " ms"),
    ("ContentTime", "time", ""),
    ("ImageType", "image type", ""),
)
FACTS = {
    "manufacturer": "Manufacturer", "model": "ManufacturerModelName",
    "field_strength_t": "MagneticFieldStrength", "slice_thickness_mm": "SliceThickness",
    "repetition_time_ms": "RepetitionTime", "echo_time_ms": "EchoTime",
    "flip_angle_degrees": "FlipAngle", "sequence": "ScanningSequence", "kvp": "KVP",
    "kernel": "ConvolutionKernel",
    "units": "Units", "patient_position": "PatientPosition",
}  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """One slice: a file, or a frame of one.

    Attributes:
        path: its file.
        frame: its number in a multi-frame file, from 0; None for a file of one slice.
        position_mm: centre of its first pixel, LPS.
        row_direction, column_direction: unit vectors along a row (x grows) and down a column (y grows).
        spacing_mm: distance of pixel centres along (x, y).
        shape: rows and columns.
        slope, intercept: from stored values to those of the modality.
        parts: what may tell slices at one place apart, by keyword.
        problem: why the slice has no place, in words; empty where it has one.
    """

    path: Path
    frame: int | None = None
    position_mm: tuple[float, ...] = ()
    row_direction: tuple[float, ...] = ()
    column_direction: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    shape: tuple[int, int] = (0, 0)
    slope: float = 1.0
    intercept: float = 0.0
    parts: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def name(self) -> str:
        """The file, and the frame of a file of many."""
        return self.path.name if self.frame is None else f"{self.path.name}, frame {self.frame + 1}"


@contextmanager
def lenient() -> Iterator[None]:
    """Read values that break a rule of their type, as scanners write them, without a warning."""
    with warnings.catch_warnings(), pydicom().config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, with its preamble or, in old files, without."""
    try:
        with path.open("rb") as file:
            start = file.read(PREAMBLE + 4)
    except OSError as error:
        raise VolumeError(
            f"{path} cannot be opened ({error.strerror}). Check its permissions."
        ) from error
    if start[PREAMBLE:] == b"DICM":
        return True
    return path.suffix.lower() in BARE_SUFFIXES and start[:2] in BARE_STARTS and start[3:4] == b"\0"


def damage_of(path: Path, header: Any | None) -> str:
    """Why a file that should be DICOM is none, in words; empty where it is, or was never to be.

    A slice that was cut off while it was copied would else be passed over in silence.

    Args:
        path: a file.
        header: its elements; None where it does not begin as DICOM does.
    """
    if header is None:
        if path.suffix.lower() not in OWN_SUFFIXES:
            return ""
        return _no_dicom(path)
    kind = str(getattr(header.file_meta, "MediaStorageSOPClassUID", ""))
    if "SOPClassUID" in header or "Modality" in header or kind == DIRECTORY:
        return ""
    return (
        f"{path.name} is damaged: it begins as DICOM and names no kind of object. Copy it again, or take it "
        "out of the folder."
    )


def _no_dicom(path: Path) -> str:
    """That a file by its name should be DICOM, in words."""
    return (
        f"{path.name} is named like a DICOM file but is not one ({path.stat().st_size} bytes): it may be "
        "a slice that was not copied whole. Copy it again, or take it out of the folder."
    )


def files_in(path: Path) -> list[Path]:
    """All files of a folder and its folders but hidden ones, in order."""
    return [
        file for file in sorted(path.rglob("*")) if not file.name.startswith(".") and file.is_file()
    ]


def damaged_slices(files: list[Path], slices: list[Path]) -> list[tuple[Path, str]]:
    """Files that are no DICOM though slices beside them are named alike, but for the number."""
    alike = {(file.parent, DIGITS.sub("0", file.name)) for file in slices}
    return [
        (file, _no_dicom(file))
        for file in files
        if (file.parent, DIGITS.sub("0", file.name)) in alike
    ]


def read_header(path: Path, *, pixels: bool = False) -> Any:
    """The elements of a DICOM file, by default without its pixels.

    Raises:
        VolumeError: the file cannot be read.
    """
    with lenient():
        try:
            return pydicom().dcmread(path, stop_before_pixels=not pixels, force=True)
        except Exception as error:
            raise VolumeError(
                f"{path.name} cannot be read as DICOM ({error}). Copy it from its source again."
            ) from error


def text(header: Any, keyword: str) -> str:
    """An element as text; empty where it is missing; several values are joined by a backslash."""
    try:
        value = header.get(keyword)
    except (ValueError, TypeError):  # no number where one should be: as it is written
        value = header.get_item(keyword).value
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return value.strip().strip("\0")
    try:
        return "\\".join(str(part) for part in value)
    except TypeError:
        return str(value).strip()


def numbers(header: Any, keyword: str, count: int, path: Path) -> tuple[float, ...]:
    """The numbers of an element that a slice cannot do without.

    Raises:
        VolumeError: it is missing, has another count, or is no number.
    """
    try:
        value = header.get(keyword)
        if value is None or value == "":
            raise VolumeError(f"{path.name} has no {keyword}, {LACKING.get(keyword, PLACELESS)}")
        parts = tuple(float(part) for part in (value if count > 1 else [value]))
    except (TypeError, ValueError) as error:
        raise VolumeError(f"{path.name}: {keyword} is not {count} numbers ({error}).") from error
    if len(parts) != count or not all(map(math.isfinite, parts)):
        raise VolumeError(f"{path.name}: {keyword} is not {count} numbers, but {parts}.")
    return parts


def number(header: Any, keyword: str, default: float, path: Path) -> float:
    """A number that may be missing."""
    return default if text(header, keyword) == "" else numbers(header, keyword, 1, path)[0]


def planes_of(header: Any, path: Path) -> list[Plane]:
    """The slices of an image file, in its order; what is wrong with one stands in its ``problem``."""
    with lenient():
        try:
            _refuse_kind(header, path)
            if "PerFrameFunctionalGroupsSequence" in header:
                return _enhanced(header, path)
            return [_classic(header, path)]
        except VolumeError as error:
            return [Plane(path, problem=str(error))]


def facts_of(header: Any) -> dict[str, str | float]:
    """The facts of a scan that an audit asks for; nothing that names the patient or a date but the year."""
    facts: dict[str, str | float] = {}
    with lenient():
        sources = [header, *_shared_groups(header)]
        for name, keyword in FACTS.items():
            value = next((found for source in sources if (found := text(source, keyword))), "")
            if value:
                facts[name] = _number_or_text(value) if name.endswith(UNITS) else value
        if any(text(source, "ContrastBolusAgent") for source in sources):
            facts["contrast_agent"] = "yes"  # what it says is free text
        if year := text(header, "StudyDate")[:4]:
            facts["study_year"] = year
        if text(header, "LossyImageCompression") == "01":
            facts["lossy_compression"] = "yes"
    return facts


def _number_or_text(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:
        return value


def _refuse_kind(header: Any, path: Path) -> None:
    """Raise for images that are no slices of a volume."""
    kind = text(header, "ImageType").upper().split("\\")
    if "LOCALIZER" in kind or "SCOUT" in kind:
        raise VolumeError(
            f"{path.name} is a localiser: a scout view for planning, no slice of a volume. Take it out "
            "of the folder, or name the series that is meant."
        )
    if "MOSAIC" in kind:
        raise VolumeError(
            f"{path.name} is a mosaic: all slices side by side in one picture. Convert the series to "
            "NIfTI or to enhanced DICOM first."
        )
    if int(number(header, "SamplesPerPixel", 1, path)) != 1 or "PALETTE" in text(
        header, "PhotometricInterpretation"
    ):
        raise VolumeError(
            f"{path.name} is a colour image ({text(header, 'PhotometricInterpretation')}) without "
            "intensity values. Export the original series."
        )
    frames = int(number(header, "NumberOfFrames", 1, path))
    if frames > 1 and "PerFrameFunctionalGroupsSequence" not in header:
        raise VolumeError(
            f"{path.name} holds {frames} frames without a place of each (no functional groups). "
            "Export the series as enhanced DICOM or as one file per slice."
        )


def _classic(header: Any, path: Path) -> Plane:
    return _plane(path, None, [header], _rows_columns(header, path))


def _enhanced(header: Any, path: Path) -> list[Plane]:
    """The frames of a multi-frame image: the groups of the frame, then those that all share."""
    shape = _rows_columns(header, path)
    shared = _shared_groups(header)
    planes = []
    n_groups = len(header.PerFrameFunctionalGroupsSequence)
    frames = int(number(header, "NumberOfFrames", n_groups, path))
    if frames != n_groups:
        raise VolumeError(
            f"{path.name} states {frames} frames (NumberOfFrames) and the places of {n_groups} (functional "
            "groups): slices would be lost. Export the series again."
        )
    for frame, groups in enumerate(header.PerFrameFunctionalGroupsSequence):
        sources = [*_items(groups), *shared, header]
        planes.append(_plane(path, frame, sources, shape))
    return planes


def _shared_groups(header: Any) -> list[Any]:
    shared = header.get("SharedFunctionalGroupsSequence")
    return _items(shared[0]) if shared else []


def _items(groups: Any) -> list[Any]:
    """The first items of the sequences of a functional group, and of those inside them."""
    items = []
    for element in groups:
        if element.VR == "SQ" and element.value:
            items += [element.value[0], *_items(element.value[0])]
    return items


def _rows_columns(header: Any, path: Path) -> tuple[int, int]:
    rows, columns = (int(numbers(header, keyword, 1, path)[0]) for keyword in ("Rows", "Columns"))
    return rows, columns


def _holder(sources: list[Any], keyword: str) -> Any:
    """The first item that has an element, else the last."""
    return next((source for source in sources if text(source, keyword)), sources[-1])


def _plane(path: Path, frame: int | None, sources: list[Any], shape: tuple[int, int]) -> Plane:
    def read(keyword: str, count: int) -> tuple[float, ...]:
        return numbers(_holder(sources, keyword), keyword, count, path)

    orientation = read("ImageOrientationPatient", 6)
    row, column = _unit(orientation[:3], path), _unit(orientation[3:], path)
    if abs(sum(a * b for a, b in zip(row, column, strict=True))) > 1e-3:
        raise VolumeError(
            f"{path.name}: rows and columns are not at right angles (ImageOrientationPatient "
            f"{orientation}). Export the series again."
        )
    height_mm, width_mm = read("PixelSpacing", 2)
    if min(height_mm, width_mm) <= 0:
        raise VolumeError(
            f"{path.name}: PixelSpacing is {height_mm:g} by {width_mm:g} mm, but must be above 0."
        )
    if any("ModalityLUTSequence" in source for source in sources):
        raise VolumeError(
            f"{path.name} scales its values by a table (Modality LUT Sequence), which is not read. "
            "Convert the series to NIfTI."
        )
    slope = number(_holder(sources, "RescaleSlope"), "RescaleSlope", 1.0, path)
    if slope == 0:
        raise VolumeError(f"{path.name}: RescaleSlope is 0, which makes all pixels equal.")
    return Plane(
        path=path,
        frame=frame,
        position_mm=read("ImagePositionPatient", 3),
        row_direction=row,
        column_direction=column,
        spacing_mm=(width_mm, height_mm),
        shape=shape,
        slope=slope,
        intercept=number(_holder(sources, "RescaleIntercept"), "RescaleIntercept", 0.0, path),
        parts=_parts(sources),
    )


def _unit(vector: tuple[float, ...], path: Path) -> tuple[float, ...]:
    length = math.hypot(*vector)
    if abs(length - 1) > 1e-3:
        raise VolumeError(
            f"{path.name}: ImageOrientationPatient holds {vector}, which is no unit vector (length "
            f"{length:.4f}). Export the series again."
        )
    return tuple(part / length for part in vector)


def _parts(sources: list[Any]) -> dict[str, str]:
    """What may tell slices at one place apart, by keyword."""
    values = {keyword: text(_holder(sources, keyword), keyword) for keyword, _, _ in PARTS}
    return {keyword: value for keyword, value in values.items() if value}
