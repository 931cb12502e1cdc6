"""Variables of a case beside its tissue, from its bags and the table."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.bags.bag import Bag
from features.tiles.quality import flag_bits
from features.tiles.stain import DENSITY, MIN_DENSITY
from mil.audit.association import CaseVariable
from mil.data.case import Case
from mil.data.cohort import Cohort
from mil.data.values import without_missing
from mil.evaluation.arrays import Floats

SCANNER = ("scanner", "scanner model", "device")
DATE = ("date", "scan date", "scanned", "year")
DATE_FORMATS = ("%Y", "%Y-%m-%d", "%Y-%m", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y")
GLASS_DENSITY = 0.06  # of the darkest channel; pixels that absorb less are glass
MOST_KINDS = 50
LEAST_PIXELS = 200  # of a thumbnail, for a mean colour
MM2 = 1e6  # square micrometres per square millimetre


def cohort_predictors(cohort: Cohort) -> tuple[CaseVariable, ...]:
    """All variables that could separate the classes without the tissue, also those without data."""
    volumes = all(bag.volume for case in cohort.cases for bag in case.bags)
    predictors = _scan_predictors(cohort) if volumes else _slide_predictors(cohort)
    predictors.append(_category("site", [case.site for case in cohort.cases], "site"))
    predictors.append(_category("scanner", _column(cohort, SCANNER), SCANNER[0]))
    if not volumes:
        readers = ["+".join(sorted({bag.reader for bag in case.bags})) for case in cohort.cases]
        predictors.append(_category("how slides were read", readers, ""))
    predictors.append(_dates(_column(cohort, DATE)))
    return tuple(predictors)


def _slide_predictors(cohort: Cohort) -> list[CaseVariable]:
    """Of slides: how much of them there is, how they were stained and how they were read."""
    colours = {case.name: _colours(case) for case in cohort.cases}
    numbers: tuple[tuple[str, Callable[[Case], Sequence[float]], str], ...] = (
        ("tiles (bag size)", lambda case: [sum(len(bag) for bag in case.bags)], ""),
        ("slides of the case", lambda case: [len(case.bags)], ""),
        ("slide area", lambda case: [_mean(_area_mm2(bag) for bag in case.bags)], "square millimetres"),
        ("micrometres per pixel", lambda case: [_mean(bag.mpp_l0[0] for bag in case.bags)], ""),
        ("mean stain", lambda case: colours[case.name][0], "optical density, R, G or B"),
        ("background only", lambda case: colours[case.name][1], "optical density of the glass"),
        ("background tiles", lambda case: [_flagged(case, "background")], "share of the bag"),
        ("blurred tiles", lambda case: [_flagged(case, "blur")], "share of the bag"),
        ("pen on tiles", lambda case: [_flagged(case, "pen")], "share of the bag"),
    )  # fmt: skip
    return [
        _numeric(name, np.array([read(case) for case in cohort.cases], dtype=np.float64), note)
        for name, read, note in numbers
    ]


def _scan_predictors(cohort: Cohort) -> list[CaseVariable]:
    """Of series of CT or MRI: the tumour's volume, and what is known of the scan of every modality."""
    volumes = [[bag.volume for bag in case.bags if bag.volume] for case in cohort.cases]
    counts = [[float(sum(len(bag) for bag in case.bags))] for case in cohort.cases]
    series = [[float(len(case.bags))] for case in cohort.cases]
    sizes = [[_mean(volume.tumour_ml for volume in of_case)] for of_case in volumes]
    predictors = [
        _numeric("slices (bag size)", np.array(counts)),
        _numeric("series of the case", np.array(series)),
        _numeric("tumour volume", np.array(sizes), "millilitres"),
    ]
    known = {
        (modality, fact): None
        for of_case in volumes
        for volume in of_case
        for modality, facts in volume.scan.items()
        for fact in facts
    }
    for modality, fact in known:
        values = [[volume.scan.get(modality, {}).get(fact) for volume in v] for v in volumes]
        name = f"{modality}: {fact.replace('_', ' ')}"
        if all(isinstance(value, int | float | None) for v in values for value in v):
            numbers = [[_mean(math.nan if x is None else float(x) for x in v)] for v in values]
            predictors.append(_numeric(name, np.array(numbers)))
        else:
            words = ["+".join(sorted({str(x) for x in v if x is not None})) for v in values]
            predictors.append(_category(name, words, ""))
    return predictors


def _numeric(name: str, values: Floats, note: str = "") -> CaseVariable:
    known = ~np.isnan(values).any(axis=1)
    if 2 * known.sum() <= len(values):
        return CaseVariable(name, reason=f"no data: known for {known.sum()} of {len(values)} cases")
    if np.ptp(values[known], axis=0).max() == 0:
        return CaseVariable(name, reason=f"the same for all cases ({values[known][0, 0]:.4g})")
    if not known.all():
        note += f"{'; ' * bool(note)}known for {known.sum()} of {len(values)} cases"
    return CaseVariable(name, values, note=note)


def _category(name: str, values: Sequence[str], columns: str) -> CaseVariable:
    """Categories; if some values are blank, blank is a category."""
    if not any(values):
        remedy = f": the table has no column {columns}" if columns else ""
        return CaseVariable(name, reason=f"no data{remedy}")
    kinds = sorted(set(values))
    if len(kinds) == 1:
        return CaseVariable(name, reason=f"the same for all cases ({kinds[0]})")
    if len(kinds) > min(len(values) // 2, MOST_KINDS):
        return CaseVariable(
            name, reason=f"{len(kinds)} kinds in {len(values)} cases: too many to compare"
        )
    codes = np.array([[kinds.index(value)] for value in values], dtype=np.float64)
    blank = f", {values.count('')} cases blank" if "" in kinds else ""
    return CaseVariable(name, codes, categorical=True, note=f"{len(kinds)} kinds{blank}")


def _dates(values: Sequence[str]) -> CaseVariable:
    if not any(values):
        return CaseVariable("date", reason=f"no data: the table has no column {DATE[0]}")
    for form in DATE_FORMATS:
        days = [_day(value, form) for value in values]
        if all(math.isfinite(day) == bool(value) for day, value in zip(days, values, strict=True)):
            return _numeric("date", np.array(days, dtype=np.float64)[:, None])
    return CaseVariable("date", reason="no data: dates are not all written alike; write 2026-11-21")


def _day(text: str, form: str) -> float:
    try:
        return float(datetime.strptime(text, form).toordinal())
    except ValueError:
        return math.nan


def _column(cohort: Cohort, names: Sequence[str]) -> list[str]:
    """The column of the table with one of these names; blank where there is none."""
    written = {name.casefold().replace("_", " "): name for name in cohort.cases[0].other}
    column = next((written[name] for name in names if name in written), "")
    return without_missing([case.other.get(column, "") for case in cohort.cases])


def _area_mm2(bag: Bag) -> float:
    return bag.size_l0[0] * bag.mpp_l0[0] * bag.size_l0[1] * bag.mpp_l0[1] / MM2


def _flagged(case: Case, name: str) -> float:
    flags = [
        np.zeros(len(b), np.uint8) if b.tile_flags is None else b.tile_flags for b in case.bags
    ]
    return float(np.mean((np.concatenate(flags) & flag_bits([name])) > 0))


def _colours(case: Case) -> tuple[Sequence[float], Sequence[float]]:
    """Mean optical density (R, G, B) of the tissue and of the glass on the thumbnails; nan without them."""
    stained: list[Floats] = []
    glass: list[Floats] = []
    for bag in case.bags:
        if bag.thumbnail:
            with Image.open(io.BytesIO(bag.thumbnail)) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            stained += _mean_density(pixels, DENSITY >= MIN_DENSITY)
            glass += _mean_density(pixels, DENSITY <= GLASS_DENSITY)
    return _mean_colour(stained), _mean_colour(glass)


def _mean_density(pixels: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> Iterator[Floats]:
    """The mean density (3,) of the pixels whose darkest channel has a chosen value; none for too few."""
    channels = np.moveaxis(pixels, -1, 0)
    mask = chosen[np.minimum(np.minimum(*channels[:2]), channels[2])]
    if (n := int(mask.sum())) >= LEAST_PIXELS:
        counts = [np.bincount(channel[mask], minlength=len(DENSITY)) for channel in channels]
        yield np.array(counts) @ DENSITY / n


def _mean_colour(means: Sequence[Floats]) -> Sequence[float]:
    return list(np.mean(means, axis=0)) if means else [math.nan] * 3


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))
