"""Whether the files of one series go together: one patient, one frame, one unit; and what to know of them.

A series may have been merged, or a part of it written by another tool: its slices would lie beside each
other, or be values of two scales, without a word.

Source: DICOM PS3.3, C.7.3.1 (general series), C.8.9.1 (PET series), C.11.1 (modality LUT).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features.volumes.headers import lenient, text

SCALED = ("RescaleIntercept", "RescaleSlope")
STUDY = "StudyInstanceUID"
MEASURED = ("CT", "MR", "PT", "NM")
SUV = ("GML", "CM2ML")  # by weight, and by surface
NO_SUV = "values of PET are in"
ALIKE: tuple[tuple[str, str, str], ...] = (  # that all files of a series have in common
    ("PatientID", "patients", "Keep only the files of one of them."),
    (STUDY, "examinations", "Keep only the files of one of them."),
    ("Modality", "modalities", "Keep only the files of one of them."),
    ("FrameOfReferenceUID", "frames of reference", "Keep only the files of one of them."),
    ("PatientPosition", "positions of the patient", "They were scanned twice: keep one of them."),
    ("Units", "units", "Export the series again."),
    ("PhotometricInterpretation", "ways of showing values", "Export the series again."),
)

Members = Sequence[tuple[Path, Any]]  # files and their headers


def problem_of(members: Members) -> str:
    """Why the files of a series are no one volume, as a sentence; empty if nothing tells them apart."""
    with lenient():
        for keyword, words, remedy in ALIKE:
            if (number := _count_values(members, keyword)) > 1:
                return f"its files name {number} {words}. {remedy}"
        for path, header in members:
            if problem := _problem_of_frames(path, header):
                return problem
        if text(members[0][1], "Modality") in MEASURED:
            for keyword in SCALED:
                without = [path for path, header in members if not _states(header, keyword)]
                if 0 < len(without) < len(members):
                    return (
                        f"{len(without)} of its {len(members)} files state no {keyword}, as "
                        f"{without[0].name}: their values are on another scale. Export the series again."
                    )
    return ""


def notes_of(members: Members) -> tuple[str, ...]:
    """What to know of the values of a series."""
    first = members[0][1]
    with lenient():
        modality, units = text(first, "Modality"), text(first, "Units").upper()
        notes = [
            f"{file.name} may show text in its pixels (BurnedInAnnotation is YES)"
            for file, header in members
            if text(header, "BurnedInAnnotation") == "YES"
        ][:1]
        if _studies_of_a_writer(members):
            notes.append(
                "each file names an examination of its own (StudyInstanceUID): taken as one series"
            )
        if modality == "CT" and any(
            not _states(header, "RescaleIntercept") for _, header in members
        ):
            notes.append("stored values are taken as HU, as files of CT state no RescaleIntercept")
        intercepts = {text(header, "RescaleIntercept") for _, header in members}
        if modality == "CT" and len(set(map(_value, intercepts - {""}))) > 1:
            notes.append(
                f"its slices have {len(intercepts)} zeros (RescaleIntercept): look whether some are brighter"
            )
        if modality == "PT" and units and units not in SUV:
            notes.append(
                f"{NO_SUV} {units}, no SUV: between patients they differ by dose and weight too"
            )
    return tuple(notes)


def _count_values(members: Members, keyword: str) -> int:
    """How many values of an element tell the files apart."""
    values = {text(header, keyword) for _, header in members}
    if keyword != "FrameOfReferenceUID":  # a file that leaves it out is of no other
        values -= {""}
    return 1 if keyword == STUDY and _studies_of_a_writer(members) else len(values)


def _studies_of_a_writer(members: Members) -> bool:
    """Whether each file has a UID of an examination of its own, on one day, as some tools write them."""
    studies = {text(header, STUDY) for _, header in members}
    days = {text(header, "StudyDate") for _, header in members}
    return 1 < len(members) == len(studies - {""}) and len(days) == 1


def _value(written: str) -> float | str:
    try:
        return float(written)
    except ValueError:
        return written


def _problem_of_frames(path: Path, header: Any) -> str:
    """Why the frames of a file of many are of several scales; empty if they are not."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    scaled = sum("PixelValueTransformationSequence" in frame for frame in frames)
    if scaled in (0, len(frames)):
        return ""
    return (
        f"{len(frames) - scaled} of the {len(frames)} frames of {path.name} state no RescaleSlope: their "
        "values are on another scale. Export the series again."
    )


def _states(header: Any, keyword: str) -> bool:
    """Whether a file states an element; one of many frames states it for each."""
    return "PerFrameFunctionalGroupsSequence" in header or text(header, keyword) != ""
