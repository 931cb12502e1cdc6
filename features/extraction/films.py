"""Lay the volumes of a cohort out as films; a bad one stops nothing, and a second run does what is left."""

import contextlib
import csv
import hashlib
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from shapely.geometry import mapping

from features.bags.store import recipe_differences
from features.errors import FeaturesError, SlideError, VolumeError
from features.extraction.jobs import SlideJob, jobs_of_paths
from features.files.atomic import atomic_path, write_atomic
from features.files.checksum import fingerprint
from features.progress import Progress, Silent
from features.regions.masks import polygons_from_mask
from features.slides.names import FILM, file_name
from features.volumes.cells import Cells, make_cells
from features.volumes.facts import VolumeFacts, format_ml
from features.volumes.film import is_whole, lay_out, read_facts, read_notes, write_film
from features.volumes.jobs import VolumeJob
from features.volumes.libraries import require
from features.volumes.predicted import card_path
from features.volumes.recipe import VolumeRecipe
from features.volumes.text_headers import data_files

OUTLINE = {"name": "Tumor", "color": [200, 0, 0]}
COLUMNS = ("volume", "case", "status", "n_slices", "tumour_ml", "notes", "reason")


@dataclass(frozen=True, kw_only=True)
class FilmOutcome:
    """What became of one volume.

    Attributes:
        name: of the volume.
        case: the patient.
        status: ``done``, ``skipped`` (laid out before) or ``failed``.
        path: of the film.
        facts: of its cells; None where it failed.
        notes: what was assumed or left out.
        reason: why it failed.
        details: the traceback of an unforeseen error.
        outdated: whether there was a film of other files or settings, which has been removed.
    """

    name: str
    case: str
    status: Literal["done", "skipped", "failed"]
    path: Path
    facts: VolumeFacts | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""
    details: str = ""
    outdated: bool = False


def lay_out_films(
    jobs: Sequence[VolumeJob],
    recipe: VolumeRecipe,
    folder: Path,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
) -> tuple[FilmOutcome, ...]:
    """Lay volumes out as films, ``<name>.film.tiff``, each with the outline of its region as GeoJSON.

    Args:
        jobs: the volumes, each with a name of its own.
        recipe: how.
        folder: is made; ``films.csv`` in it lists the outcomes.
        progress: shows the volumes.
        overwrite: lay out again what was laid out before, and in other ways.

    Returns:
        One outcome per volume; a volume that fails raises nothing.

    Raises:
        VolumeError: two volumes have one name, the folder has films that were laid out in other ways, or a
            package is missing.
        OSError: the disk is full or not writable.
    """
    require()
    _check_names(jobs)
    if not overwrite:
        _check_films(folder, recipe)
    outcomes = []
    with (progress or Silent()).task("volumes", len(jobs), "volumes") as advance:
        for job in jobs:
            path = folder / f"{file_name(job.name)}{FILM}.tiff"
            outcomes.append(_lay_out(job, recipe, path, overwrite=overwrite))
            advance(1)
    _write_table(folder / "films.csv", outcomes)
    return tuple(outcomes)


def film_jobs(films: Sequence[FilmOutcome]) -> tuple[SlideJob, ...]:
    """The films that are there, as slides of their cases."""
    case_of = {film.path: film.case for film in films if film.status != "failed"}
    return tuple(replace(job, case=case_of[job.files[0]]) for job in jobs_of_paths(list(case_of)))


def _check_names(jobs: Sequence[VolumeJob]) -> None:
    first: dict[str, VolumeJob] = {}
    for job in jobs:
        if first.setdefault(job.name.casefold(), job) is not job:
            raise VolumeError(
                f"Two volumes are named {job.name!r}. Give each examination a time point of its own."
            )


def _check_films(folder: Path, recipe: VolumeRecipe) -> None:
    """Refuse to mix films, before any is written: bags and maps would show another's slices."""
    for path in sorted(folder.glob(f"*{FILM}.tiff")):
        try:
            laid_out = read_facts(path).recipe
        except SlideError:
            continue  # a broken film is laid out again
        if changes := recipe_differences(laid_out, recipe.to_json()):
            raise VolumeError(
                f"{folder} has films that were laid out in another way ({path.name}: {changes}). Set out to "
                "another folder, or set overwrite to make all of them again."
            )


def _lay_out(job: VolumeJob, recipe: VolumeRecipe, path: Path, *, overwrite: bool) -> FilmOutcome:
    outcome = FilmOutcome(name=job.name, case=job.case, status="failed", path=path)
    outline = path.with_name(f"{file_name(job.name)}.geojson")
    try:
        request = _request(job, recipe)
        existing = None if overwrite else _existing(path, outline, request)
        if existing:
            return replace(outcome, status="skipped", facts=existing, notes=read_notes(path))
        outcome = replace(outcome, outdated=_remove_outdated(path, outline, request))
        cells = make_cells(*job.read(recipe), recipe)
        cells = replace(cells, facts=replace(cells.facts, request_sha256=request))
        _write_outline(outline, cells)  # first, as a film that is there is taken as done
        write_film(path, cells.pixels, cells.facts, cells.notes)
    except FeaturesError as error:
        removed = " What was laid out of its earlier files is removed." if outcome.outdated else ""
        return replace(outcome, reason=f"{job.name}: {error}{removed}")
    except OSError:
        raise  # the disk is full, or the folder is not writable
    except Exception as error:  # noqa: BLE001 - the one guard of the other volumes
        reason = f"{job.name}: {type(error).__name__}: {error}"
        return replace(outcome, reason=reason, details=traceback.format_exc())
    return replace(outcome, status="done", facts=cells.facts, notes=cells.notes)


def _request(job: VolumeJob, recipe: VolumeRecipe) -> str:
    """Fingerprint of all that shapes a film: the recipe, and the files as they are now."""
    needed = job.files_of(recipe)
    files = {name: [one.series, *_identify(one.path)] for name, one in needed.items()}
    drawn = next(iter(needed.values()))
    masks = [drawn.mask, card_path(drawn.mask)] if drawn.mask else []
    mask = [
        word for path in masks if path == drawn.mask or path.is_file() for word in _identify(path)
    ]
    return fingerprint({"recipe": recipe.to_json(), "files": files, "mask": mask, "roi": drawn.roi})


def _identify(path: Path) -> list[str]:
    """Fingerprints of a file, or of all files of a folder."""
    if not path.exists():
        raise VolumeError(f"no such file or folder {path}. Check the table.")
    files = [path, *data_files(path)]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
    return [_file_sha256(file) for file in files]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(path: Path, outline: Path, request: str) -> VolumeFacts | None:
    """The facts of a film that was laid out of the same files in the same way, whole and with its outline."""
    with contextlib.suppress(SlideError):
        facts = read_facts(path)
        same = facts.request_sha256 == request
        return facts if same and is_whole(path) and _outline_of(outline) == request else None
    return None


def _remove_outdated(path: Path, outline: Path, request: str) -> bool:
    """Remove a film of other files, before the new one can fail: who looks at films would see the old one."""
    with contextlib.suppress(SlideError):
        if read_facts(path).request_sha256 == request:
            return False
    outdated = path.is_file()
    path.unlink(missing_ok=True)
    outline.unlink(missing_ok=True)
    return outdated


def _outline_of(path: Path) -> str:
    """The request of the film that an outline belongs to; empty where the file is cut off, or changed."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        features, request = stored["features"], stored["request_sha256"]
        return str(request) if stored["sha256"] == fingerprint({"features": features}) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_outline(path: Path, cells: Cells) -> None:
    """Write the outline of the region on the film, for QuPath and for maps."""
    sheet = np.asarray(lay_out(cells.inside, cells.facts.columns), dtype=bool)
    region = polygons_from_mask(sheet, (sheet.shape[1], sheet.shape[0]))
    features: list[Mapping[str, Any]] = [
        {
            "type": "Feature",
            "geometry": mapping(part),
            "properties": {"objectType": "annotation", "classification": OUTLINE},
        }
        for part in shapely.get_parts(region)
    ]
    stored = json.loads(json.dumps(features))  # tuples as the lists that they become
    sums = {
        "request_sha256": cells.facts.request_sha256,
        "sha256": fingerprint({"features": stored}),
    }
    write_atomic(path, json.dumps({"type": "FeatureCollection", "features": stored, **sums}) + "\n")


def _write_table(path: Path, outcomes: Sequence[FilmOutcome]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for one in outcomes:
            size = [len(one.facts), format_ml(one.facts.tumour_ml, 3)] if one.facts else ["", ""]
            writer.writerow(
                [one.name, one.case, one.status, *size, "; ".join(one.notes), one.reason]
            )
