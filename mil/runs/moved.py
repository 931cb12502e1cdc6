"""A bag store or a cohort table that has moved since a run: checked once, and remembered in its folder.

Where they lie as seen from the run's folder is recorded beside where they lay, so that a folder that holds
all three can be moved or copied as a whole.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from features.bags.bag import read_bag
from features.bags.store import missing_store
from features.errors import BagError, SarcomilError
from features.files.parse import parse_json
from mil.data.case import Row
from mil.errors import RunError
from mil.runs.facts import RunFacts, last_place, nearby, tissue_bags
from mil.runs.files import MOVED, write_json

R = TypeVar("R", bound=RunFacts)

PLACES = ("cohort", "store")


def relative_places(settings: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Where a run's table and store lie, as seen from its folder; not those of another drive."""
    places = {}
    for name in PLACES:
        if settings.get(name):
            with contextlib.suppress(ValueError):
                place = os.path.relpath(settings[name], path.absolute())
                places[name] = Path(place).as_posix()
    return places


def read_moved(path: Path) -> dict[str, Path]:
    """The new places that a run folder remembers, under ``store`` and ``cohort``.

    Raises:
        RunError: the file cannot be read.
    """
    if not (path / MOVED).exists():
        return {}
    try:
        places: dict[str, str] = parse_json((path / MOVED).read_text(encoding="utf-8"))
        return {name: Path(place) for name, place in places.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path / MOVED}: cannot be read ({error}). Remove it, and name the new places again."
        ) from error


def write_moved(path: Path, places: Mapping[str, Path]) -> None:
    """Remember new places in a run folder; one that cannot be written to is read all the same."""
    with contextlib.suppress(OSError):
        write_json(path / MOVED, {name: str(place) for name, place in places.items()})


def check_store(path: Path, bags: Mapping[str, str], store: Path, *, own_bags: bool) -> None:
    """Refuse a store that does not hold the very bags of a run.

    Args:
        path: the run.
        bags: fingerprint of each slide's bag.
        store: the folder that should hold them.
        own_bags: whether each fold has made its own bags, which are in the run folder.

    Raises:
        RunError: a bag is missing, or another.
    """
    if own_bags:
        raise RunError(f"{path} keeps the bags of each fold in its own folder. Leave store out.")
    if problem := missing_store(store):
        if store.is_dir():
            problem = (
                f"{store} is not the bag store of {path}: it holds no bag (.h5). Name the store with its "
                "bags."
            )
        raise RunError(problem)
    for slide, checksum in bags.items():
        try:
            actual = read_bag(store / f"{slide}.h5").data_sha256
        except BagError as error:
            raise RunError(
                f"{store} is not the bag store of {path}: {error} Name the store with its bags."
            ) from error
        if actual != checksum:
            raise RunError(
                f"{store} is not the bag store of {path}: its bag of {slide} has other content. Name the "
                "store with the run's own bags."
            )


def check_table(
    path: Path, cases: Mapping[str, str], labels: Mapping[str, str], rows: Sequence[Row]
) -> None:
    """Refuse a table that does not give the slides of a run the same cases and outcomes.

    Args:
        path: the run.
        cases: the case of each slide.
        labels: the label of each case.
        rows: of the table, with the outcome as label.

    Raises:
        RunError: a slide is missing, or has another case or label.
    """
    by_slide = {row.slide: row for row in rows}
    for slide, case in cases.items():
        row = by_slide.get(slide)
        if row is None:
            raise RunError(
                f"The table is not that of {path}: it has no slide {slide}. Name the run's own."
            )
        label = labels.get(case, row.label)
        if (row.case, row.label) != (case, label):
            raise RunError(
                f"The table is not that of {path}: it gives slide {slide} case {row.case!r} with "
                f"{row.label!r}, the run {case!r} with {label!r}. Name the run's own."
            )


def at_places(run: R, places: Mapping[str, Path], rows: Callable[[R], Sequence[Row]]) -> R:
    """The run with its table or store at new places, which are remembered.

    Args:
        run: that lies elsewhere, or whose table or store does.
        places: under ``cohort`` and ``store``.
        rows: reads the table of a run.

    Raises:
        RunError, CohortError: they are not the run's.
    """
    run = replace(run, moved={**run.moved, **places})
    if store := places.get("store"):
        own_bags = run.settings.own_bags and not tissue_bags(run)
        check_store(run.path, tissue_bags(run) or run.bags, store, own_bags=own_bags)
    if cohort := places.get("cohort"):
        check_table(run.path, run.cases, run.labels, run.task.label_rows(rows(run), str(cohort)))
    write_moved(run.path, run.moved)
    return run


def at_nearby_places(run: R, rows: Callable[[R], Sequence[Row]]) -> R:
    """The run whose folder was moved together with its table or store: these are known by their content."""
    if not (run.cases and run.bags):
        return run
    for name, place in nearby(run).items():
        known = last_place(run, name)
        if known and place.exists() and not known.exists():
            try:
                run = at_places(run, {name: place}, rows)
            except (
                SarcomilError
            ):  # something else lies there: whoever reads the run will name its place
                continue
    return run
