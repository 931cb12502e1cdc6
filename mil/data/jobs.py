"""Extract the slides of a cohort's table."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from features.errors import InputError
from features.extraction.jobs import (
    ALL_DEFAULTS,
    JobSettings,
    SlideJob,
    jobs_of_paths,
    jobs_of_rows,
)
from features.extraction.run import Extraction, ExtractionOptions, extract_jobs
from features.progress import Notify
from features.recipe import Recipe
from features.summary import listed
from features.tiles.stain import load_reference
from mil.data.case import Row
from mil.data.names import matching
from mil.data.reading import AS_WRITTEN, TableReading
from mil.data.table import TEST, read_table

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx")


def read_rows(
    inputs: Sequence[Path], reading: TableReading = AS_WRITTEN, notify: Notify | None = None
) -> tuple[Row, ...]:
    """The rows of the cohort's table, if the inputs are one; else none.

    Args:
        inputs: one table, or slides.
        reading: what the names and words of the table mean.
        notify: called with what was read otherwise than as plain CSV.

    Raises:
        InputError: a table is given together with other inputs.
        CohortError: the table cannot be read.
    """
    tables = [path for path in inputs if path.suffix.lower() in TABLE_SUFFIXES]
    if not tables:
        return ()
    if len(inputs) > 1:
        raise InputError("Give one table, or slides, not both.")
    return read_table(tables[0], reading, notify)


def read_jobs(
    inputs: Sequence[Path],
    slides: Path | None,
    settings: JobSettings = ALL_DEFAULTS,
    reading: TableReading = AS_WRITTEN,
    notify: Notify | None = None,
    recipes: Sequence[Recipe] = (),
) -> tuple[SlideJob, ...]:
    """The slides of a cohort's table, or slide files and folders.

    Args:
        inputs: one table with case and slide, or slide files and folders of slides or tile images.
        slides: the folder with the table's slides; None without a table.
        settings: of all slides.
        reading: what the names and words of the table mean.
        notify: called with what was read otherwise than as plain CSV, and with what bags of these recipes
            cannot be used for.
        recipes: by which the slides will be extracted.

    Raises:
        InputError: inputs of different kinds, or arguments that do not apply to them.
        SlideError: the folder has none of the table's slides, or two files for one of them.
        CohortError: the table cannot be read.
    """
    rows = read_rows(inputs, reading, notify)
    if notify:
        for note in note_reserved_stain(rows, recipes):
            notify(note)
    if rows and slides is None:
        raise InputError(
            "A table names slides, not files. Set slides to the folder with its slides."
        )
    if rows and slides is not None:
        return jobs_of_rows(rows, slides, settings)
    if slides is not None:
        raise InputError("slides goes with a table; slide files are given as they are.")
    return jobs_of_paths(inputs, settings)


def stain_sources(recipe: Recipe) -> tuple[str, ...]:
    """Names of the slides and cases that a recipe's target stain is fitted on; none without normalisation.

    Raises:
        FeaturesError: the file of a stain cannot be read.
    """
    names = recipe.stain_reference if recipe.stain != "off" else ()
    if len(names) == 1 and names[0].endswith(".json"):
        reference = load_reference(Path(names[0]))
        return (*reference.slides, *reference.cases)
    return names


def note_reserved_stain(rows: Sequence[Row], recipes: Sequence[Recipe]) -> list[str]:
    """A remark on a target stain that is fitted on cases kept for external validation, before the long run.

    Raises:
        FeaturesError: the file of a stain cannot be read.
    """
    names = {name for recipe in recipes for name in stain_sources(recipe)}
    reserved = [row for row in rows if row.split.casefold() in TEST]
    seen = {
        row.case for row in reserved if matching([row.case], names) or matching([row.slide], names)
    }
    if not seen:
        return []
    return [
        f"The target stain is fitted on {listed(sorted(seen))}, which the table keeps for external "
        "validation (split=test): nothing will be trained on these bags. Use a stain_reference of training "
        "cases."
    ]


def extract(  # noqa: PLR0913 - one argument per choice
    cohort: Path | str | Sequence[Path | str],
    *,
    out: Path | str,
    recipe: Recipe | Sequence[Recipe],
    slides: Path | str | None = None,
    annotations: Path | str | None = None,
    slide_mpp: float | None = None,
    slide_mpp_force: float | None = None,
    coordinates: Path | str | None = None,
    segmenter: Path | str | None = None,
    case_from: str = "",
    label_is: Sequence[str] = (),
    **options: Unpack[ExtractionOptions],
) -> Extraction:
    """Embed every tumour tile of a cohort's slides: one bag per slide.

    A second call goes on where the first stopped, several processes may fill one store, and a slide that
    fails does not stop the others. The result may be passed on as the path of the store.

    Args:
        cohort: the table with case and slide, or slide files and folders.
        out: the store, one ``<slide>.h5`` per slide.
        recipe: how to tile and embed; several that differ in mpp make one store each.
        slides: the folder with the table's slides.
        annotations: folder with the annotations; by default all tissue is used.
        slide_mpp: micrometres per level-0 pixel, where files give none; needed for tile images.
        slide_mpp_force: micrometres per level-0 pixel, whatever the files say; a table's mpp column
            takes precedence.
        coordinates: folder of bags whose tiles are read again, instead of laying a grid.
        segmenter: the file of a segmenter, whose tumour is used instead of annotations.
        case_from: a regular expression that finds the patient in the names of the column case.
        label_is: labels that read like a word for a missing value and are meant.
        **options: see ``features.extraction.run.ExtractionOptions``.

    Returns:
        One outcome per slide and store; a slide that fails raises nothing.

    Raises:
        InputError: the arguments exclude each other, or name files that do not exist.
        CohortError: the table cannot be read.
        SlideError: the folder has none of the table's slides.
        BackboneError: the backbone cannot be loaded.
        BagError: the store has bags of another recipe, or two slides have one name.

    Example:
        recipe = mil.Recipe(backbone="resnet18", weights="random", mpp=0.5, tile=64)
        store = mil.extract(
            "cohort.csv", slides="slides", annotations="annotations", out="store", recipe=recipe
        )
        print(len(store.outcomes), "slides,", len(store.failed), "failed")
    """
    inputs = [cohort] if isinstance(cohort, str | os.PathLike) else cohort
    settings = JobSettings(
        annotations=Path(annotations) if annotations is not None else None,
        slide_mpp=slide_mpp,
        slide_mpp_force=slide_mpp_force,
        coordinates=Path(coordinates) if coordinates is not None else None,
        segmenter=Path(segmenter) if segmenter is not None else None,
    )
    jobs = read_jobs(
        [Path(path) for path in inputs],
        Path(slides) if slides is not None else None,
        settings,
        TableReading(case_from=case_from, label_is=tuple(label_is)),
        options.get("notify"),
        (recipe,) if isinstance(recipe, Recipe) else recipe,
    )
    return extract_jobs(jobs, recipe, Path(out), **options)
