"""PET as standardised uptake by body weight (SUV): a voxel's activity over that of the body on average.

SUV = activity in Bq/ml * weight in g / dose in Bq, with activity and dose at one time. Activity was corrected
to that of the injection (DecayCorrection is ADMIN), to that of the start of the scan (START), or not at all
(NONE), so that every slice has its own.

Source: the vendor-neutral pseudo-code of the QIBA profile FDG-PET/CT 1.05 (2013); DICOM PS3.3, C.8.9.1 and
C.8.9.4.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.headers import Plane, number, read_header, text

HALF_LIVES_S = {  # by mass number, of nuclides used for PET
    "11": 1223.0, "13": 597.9, "15": 122.2, "18": 6586.2, "64": 45722.0, "68": 4062.6, "82": 76.4,
    "89": 282276.0, "124": 360806.0,
}  # fmt: skip
SAME_HALF_LIFE = 0.05
MOST_HALF_LIVES = 7  # between injection and scan; more leaves less than a hundredth of the dose
DATED_S = (
    6 * 3600.0
)  # nuclides that live longer are scanned on another day: a time alone says too little
HEAVIEST_KG, SMALLEST_BQ, LARGEST_BQ = 400.0, 1e5, 1e11
PHILIPS_SUV, PHILIPS_ACTIVITY, GE_START = (0x7053, 0x1000), (0x7053, 0x1009), (0x0009, 0x100D)
OTHERWISE = "Correct the files, or leave out suv, which takes their values as they are."
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Injection:
    """What was injected into whom.

    Attributes:
        weight_g: of the patient.
        dose_bq: at the time of injection.
        half_life_s: of the nuclide; NaN if unknown.
        full: date and time of injection; None if not stated.
        clock: time of injection alone, on an arbitrary day; None if not stated.
    """

    weight_g: float
    dose_bq: float
    half_life_s: float
    full: datetime | None
    clock: datetime | None

    def suv_per_bq_ml(self, seconds: float = 0.0) -> float:
        """SUV of one Bq/ml, so many seconds after injection."""
        left = 2.0 ** (-seconds / self.half_life_s) if seconds else 1.0
        return self.weight_g / (self.dose_bq * left)

    def seconds_before(self, when: datetime, name: str) -> tuple[float, str]:
        """How long before a scan it was, and a remark; over midnight too.

        Raises:
            VolumeError: the times do not go together.
        """
        if not self.half_life_s > 0:
            raise _refusal(name, "states no half-life (RadionuclideHalfLife)")
        longest = MOST_HALF_LIVES * self.half_life_s
        if self.full and 0 <= (seconds := (when - self.full).total_seconds()) <= longest:
            return seconds, ""
        if self.clock and self.half_life_s <= DATED_S:
            injected = datetime.combine(when.date(), self.clock.time())
            injected -= DAY * (injected > when)
            seconds = (when - injected).total_seconds()
            if seconds <= longest:
                note = "the date of injection does not fit that of the scan; its time is used"
                return seconds, note if self.full else ""
        if not self.full and not self.clock:
            raise _refusal(name, "states no time of injection (RadiopharmaceuticalStartTime)")
        if not self.full and self.half_life_s > DATED_S:
            raise _refusal(
                name,
                "states a time of injection without its date (RadiopharmaceuticalStartDateTime), and its "
                f"nuclide lives for days (half-life {self.half_life_s / 3600:.0f} hours)",
            )
        raise _refusal(
            name,
            f"was scanned at {when:%H:%M} and injected at {self.full or self.clock:%H:%M}, which is after it "
            f"or more than {MOST_HALF_LIVES} half-lives before it",
        )


def scale_to_suv(
    values: NDArray[np.float32], planes: Sequence[Plane], name: str
) -> tuple[str, ...]:
    """Turn (n, rows, columns) values of PET into SUV, in place; remarks on what was assumed.

    Args:
        values: of the slices.
        planes: the slices.
        name: the series, for messages.

    Raises:
        VolumeError: the files do not say enough, or contradict themselves.
    """
    factors, notes = _factors(planes, name)
    values *= factors.astype(np.float32)[:, None, None]
    return notes


def _factors(planes: Sequence[Plane], name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """(n,) what the values of each slice are to be multiplied by, and remarks."""
    if any(plane.frame is not None for plane in planes):
        raise _refusal(name, "is one file of many frames, of which SUV is not computed")
    headers = {plane.path: read_header(plane.path) for plane in planes}
    first = next(iter(headers.values()))
    units = {text(header, "Units").upper() for header in headers.values()}
    if len(units) > 1:
        raise _refusal(name, f"has values in {' and '.join(sorted(units))}")
    [unit] = units
    factors = _stated_suv(headers, unit, name)
    notes: tuple[str, ...] = ()
    if not factors:
        activity = _activity(headers, unit, name)
        injection = _injection(first, name)
        elapsed, notes = _elapsed(headers, _correction(first, name), injection, name)
        factors = {
            path: activity[path] * injection.suv_per_bq_ml(elapsed[path]) for path in headers
        }
    return np.array([factors[plane.path] for plane in planes]), notes


def _stated_suv(headers: Mapping[Path, Any], unit: str, name: str) -> dict[Path, float]:
    """By file, the factor to SUV where the scanner has computed it; empty where it has not.

    Raises:
        VolumeError: it is SUV of another kind.
    """
    if unit == "GML":
        kind = text(next(iter(headers.values())), "SUVType") or "BW"
        if kind != "BW":
            raise _refusal(name, f"holds SUV by {kind} and not by body weight (SUVType)")
        return dict.fromkeys(headers, 1.0)
    factors = {path: _private(header, PHILIPS_SUV) for path, header in headers.items()}
    return factors if unit == "CNTS" and min(factors.values()) > 0 else {}


def _activity(headers: Mapping[Path, Any], unit: str, name: str) -> dict[Path, float]:
    """By file, the factor to Bq/ml.

    Raises:
        VolumeError: the units are no activity.
    """
    if unit == "BQML":
        return dict.fromkeys(headers, 1.0)
    if unit != "CNTS":
        raise _refusal(name, f"has values in {unit or 'units that it does not state'}, not in BQML")
    factors = {path: _private(header, PHILIPS_ACTIVITY) for path, header in headers.items()}
    if not min(factors.values()) > 0:
        raise _refusal(name, "holds counts (CNTS), without the scanner's factor for activity")
    return factors


def _refusal(name: str, problem: str) -> VolumeError:
    return VolumeError(f"{name} {problem}, so that no SUV can be computed. {OTHERWISE}")


def _private(header: Any, tag: tuple[int, int]) -> float:
    """A number of a private element; NaN if there is none."""
    try:
        return float(header[tag].value)
    except (KeyError, TypeError, ValueError):
        return math.nan


def _correction(header: Any, name: str) -> str:
    """To which time the decay was corrected.

    Raises:
        VolumeError: that is not stated or contradicts the list of corrections, or nothing was corrected for
            what the body absorbs.
    """
    correction = text(header, "DecayCorrection").upper()
    if correction not in ("START", "ADMIN", "NONE"):
        raise _refusal(name, "does not say to which time decay was corrected (DecayCorrection)")
    applied = text(header, "CorrectedImage").upper().split("\\")
    if applied != [""]:
        if "ATTN" not in applied:
            raise _refusal(name, "was not corrected for attenuation (CorrectedImage)")
        if ("DECY" in applied) != (correction != "NONE"):
            raise _refusal(
                name,
                f"contradicts itself on decay: DecayCorrection {correction}, CorrectedImage {applied}",
            )
    return correction


def _injection(header: Any, name: str) -> Injection:
    """What was injected.

    Raises:
        VolumeError: weight or dose are missing, or cannot be.
    """
    path = Path(name)
    weight = number(header, "PatientWeight", 0.0, path)
    if not 0 < weight <= HEAVIEST_KG:
        raise _refusal(name, f"states a weight (PatientWeight) of {weight:g} kg" if weight else
                       "states no weight of the patient (PatientWeight)")  # fmt: skip
    items = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(items) != 1:
        count = f"{len(items)} injections" if items else "no injection"
        raise _refusal(name, f"states {count} (RadiopharmaceuticalInformationSequence)")
    dose = number(items[0], "RadionuclideTotalDose", 0.0, path)
    if not dose:
        raise _refusal(name, "states no injected dose (RadionuclideTotalDose)")
    if not SMALLEST_BQ <= dose <= LARGEST_BQ:
        raise _refusal(name, f"states a dose of {dose:g} Bq: it may be in other units")
    return Injection(
        weight_g=1000 * weight,
        dose_bq=dose,
        half_life_s=_half_life(items[0], name),
        full=_moment(text(items[0], "RadiopharmaceuticalStartDateTime")),
        clock=_moment("20000101" + text(items[0], "RadiopharmaceuticalStartTime")),
    )


def _half_life(item: Any, name: str) -> float:
    """In seconds; NaN if it is not stated.

    Raises:
        VolumeError: it is not that of the nuclide.
    """
    stated = number(item, "RadionuclideHalfLife", math.nan, Path(name))
    codes = item.get("RadionuclideCodeSequence") or []
    mass = re.search(r"\d+", text(codes[0], "CodeMeaning")) if codes else None
    known = HALF_LIVES_S.get(mass[0] if mass else "", stated)
    if stated == stated and abs(stated / known - 1) > SAME_HALF_LIFE:
        raise _refusal(
            name, f"states a half-life of {stated:g} s, where that of its nuclide is {known:g} s"
        )
    return known


def _elapsed(
    headers: Mapping[Path, Any], correction: str, injection: Injection, name: str
) -> tuple[dict[Path, float], tuple[str, ...]]:
    """Seconds from injection to the time that the values of each file are of, and remarks."""
    if correction == "ADMIN":
        return dict.fromkeys(headers, 0.0), ()
    if correction == "START":
        seconds, note = injection.seconds_before(_start(list(headers.values()), name), name)
        return dict.fromkeys(headers, seconds), (note,) if note else ()
    decayed = {
        path: injection.seconds_before(
            _acquired(header, name) + timedelta(seconds=_mean_time(header, injection, name)), name
        )
        for path, header in headers.items()
    }
    notes = dict.fromkeys(note for _, note in decayed.values() if note)
    return {path: seconds for path, (seconds, _) in decayed.items()}, tuple(notes)


def _start(headers: Sequence[Any], name: str) -> datetime:
    """When the scan began: the time of the series, unless that is of a later computation.

    Raises:
        VolumeError: it is not stated.
    """
    first = headers[0]
    acquired = min(_acquired(header, name) for header in headers)
    series = _moment(text(first, "SeriesDate") + text(first, "SeriesTime"))
    if series and series <= acquired:
        return series
    try:
        own = _moment(str(first[GE_START].value))
    except KeyError:
        own = None
    if own and own <= acquired:
        return own
    frames = [
        (_acquired(h, name), number(h, "FrameReferenceTime", math.nan, Path(name))) for h in headers
    ]
    if any(math.isnan(ms) for _, ms in frames):
        raise _refusal(
            name,
            "does not say when the scan began: its series is dated after the first slice, as those that "
            "were computed later, and FrameReferenceTime is missing",
        )
    return min(when - timedelta(milliseconds=ms) for when, ms in frames)


def _acquired(header: Any, name: str) -> datetime:
    """When a slice was acquired."""
    date = text(header, "AcquisitionDate") or text(header, "SeriesDate")
    when = _moment(date + text(header, "AcquisitionTime"))
    if when is None:
        raise _refusal(name, "states no time of acquisition (AcquisitionDate, AcquisitionTime)")
    return when


def _mean_time(header: Any, injection: Injection, name: str) -> float:
    """Seconds from the start of a slice until its activity is the mean over its duration."""
    seconds = number(header, "ActualFrameDuration", math.nan, Path(name)) / 1000
    if not seconds > 0 or not injection.half_life_s > 0:
        raise _refusal(
            name,
            "was not corrected for decay, and does not say how long a slice took (ActualFrameDuration) or "
            "how fast its nuclide decays (RadionuclideHalfLife)",
        )
    decayed = math.log(2) * seconds / injection.half_life_s
    return math.log(decayed / -math.expm1(-decayed)) * seconds / decayed


def _moment(written: str) -> datetime | None:
    """A date and time of DICOM; None where it is none. Offsets from UTC are left out."""
    digits = re.sub(r"[+-]\d{4}$", "", written.strip()).replace(":", "")
    match = re.fullmatch(r"(\d{14})(\.\d*)?", digits.replace(" ", ""))
    short = re.fullmatch(r"\d{12}", digits)
    try:
        if match:
            moment = datetime.strptime(match[1], "%Y%m%d%H%M%S")
            return moment + timedelta(seconds=float(match[2] or 0) if match[2] != "." else 0.0)
        return datetime.strptime(digits, "%Y%m%d%H%M") if short else None
    except ValueError:
        return None
