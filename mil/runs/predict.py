"""New slides and their cases, predicted by a model that was trained on all cases."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from features.bags.bag import Bag
from features.files.atomic import atomic_path
from mil.data.case import Row
from mil.data.names import matching
from mil.errors import FitError
from mil.learning.fitted import FittedModel, predict
from mil.runs.run import Run

COLUMNS = ("level", "case", "slide", "tiles", "predicted", "trained_on_it")


@dataclass(frozen=True, kw_only=True)
class PredictedRow:
    """What a model predicts of one slide or one case.

    Attributes:
        level: ``slide`` or ``case``.
        case: its name; that of the slide where the case is not known.
        slide: its name; empty for a case.
        n_tiles: tiles that were read.
        predicted: the class, or whether the risk is high or low.
        trained_on: whether the model was trained on the case: ``yes``, ``no`` or ``unknown``.
        values: a probability per class, or the risk alone; of a case the mean over its slides.
        error: why the slide could not be predicted; empty if it was.
    """

    level: str
    case: str
    slide: str
    n_tiles: int
    predicted: str
    trained_on: str
    values: tuple[float, ...]
    error: str = ""


def predict_slides(
    run: Run,
    fitted: FittedModel,
    bags: Sequence[Bag],
    table: Sequence[Row] = (),
    unusable: Mapping[str, Exception] = MappingProxyType({}),
) -> list[PredictedRow]:
    """Predict each slide, then each case as the mean over its slides.

    A slide whose case is not known counts as a case by itself.

    Args:
        run: a run that has trained one model on all cases; it knows the cases of its own slides.
        fitted: its model.
        bags: one per slide, made by the model's recipe.
        table: rows that say which case each slide belongs to, with the clinical columns a model may read.
        unusable: slides without a bag, and why; each has a row with its error, as have those whose bag was
            made by another recipe.

    Raises:
        CohortError: the model reads a column that the table does not have.
    """
    rows = {row.slide: row for row in table}
    by_case: dict[str, list[PredictedRow]] = {}
    slides, known = [], set()
    trained_with = set(run.bags.values())
    failed = [_error_row(slide, error) for slide, error in unusable.items()]
    for bag in bags:
        row = rows.get(bag.slide)
        case = (row.case if row else "") or run.case_of(bag.slide, bag.case)
        try:
            values = tuple(predict(fitted, bag, row.other if row else {}).values())
        except FitError as error:
            failed.append(_error_row(bag.slide, error))
            continue
        used = bag.data_sha256 in trained_with
        slide = _row("slide", fitted, case, bag.slide, len(bag), values, used=used)
        slides.append(slide)
        by_case.setdefault(slide.case, []).append(slide)
        known.add(case)
    cases = []
    for name, members in by_case.items():
        columns = zip(*(member.values for member in members), strict=True)
        mean = tuple(sum(column) / len(members) for column in columns)
        n_tiles = sum(member.n_tiles for member in members)
        used = any(member.trained_on == "yes" for member in members)
        case = name if name in known else ""
        cases.append(_row("case", fitted, case, name, n_tiles, mean, used=used))
    return slides + failed + cases


def value_names(fitted: FittedModel) -> list[str]:
    """What the values of a row are: the classes, or the risk."""
    return [name.split("_", 1)[-1] for name in fitted.readout.answer_names]


def write_predicted(path: Path, rows: Sequence[PredictedRow], fitted: FittedModel) -> None:
    """Write rows as CSV; probabilities stand in columns ``p_<class>``, in full precision."""
    names = fitted.readout.answer_names
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *names, "error"])
        for row in rows:
            facts = (
                row.level,
                row.case,
                row.slide,
                str(row.n_tiles),
                row.predicted,
                row.trained_on,
            )
            values = [repr(value) for value in row.values] or [""] * len(names)
            writer.writerow([*facts, *values, row.error])


def _error_row(slide: str, error: Exception) -> PredictedRow:
    return PredictedRow(
        level="slide",
        case=slide,
        slide=slide,
        n_tiles=0,
        predicted="",
        trained_on="unknown",
        values=(),
        error=str(error),
    )


def _row(
    level: str,
    fitted: FittedModel,
    case: str,
    slide: str,
    n_tiles: int,
    values: tuple[float, ...],
    *,
    used: bool,
) -> PredictedRow:
    """One answer; ``used`` where a bag of the case was trained with, under whatever name."""
    predicted = fitted.readout.verdict(dict(zip(fitted.readout.answer_names, values, strict=True)))
    trained_on = "unknown"
    if case or used:
        trained_on = "yes" if used or matching([case], fitted.trained_on) else "no"
    return PredictedRow(
        level=level,
        case=case or slide,
        slide=slide if level == "slide" else "",
        n_tiles=n_tiles,
        predicted=predicted,
        trained_on=trained_on,
        values=values,
    )
