"""Extract slides by plain arguments: which slides, which recipe, which store, and on which machines."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from features.backbones.card import BackboneCard, read_card, weights_notes
from features.backbones.table import eclipsed_backbones
from features.bags.bag import PIXELS, read_bag
from features.bags.store import Outcome, Store
from features.errors import InputError, SlideError
from features.extraction.identity import source_sha256
from features.extraction.jobs import JobSettings, SlideJob, jobs_of_paths
from features.progress import Progress
from features.recipe import Recipe
from features.regions.drawing import is_predicted, note_excluded
from features.regions.placement import note_reach
from features.summary import listed

ENGINES = ("local", "ray")
STAGES = ("open", "read", "prepare", "forward", "write")


@dataclass(frozen=True)
class Extraction(os.PathLike[str]):
    """The result of an extraction; it may be passed wherever the path of its store is taken.

    Attributes:
        store: the folder of bags; with several scales, the folder of their stores.
        outcomes: one per slide and store.
        seconds: from start to end.
    """

    store: Path
    outcomes: tuple[Outcome, ...]
    seconds: float

    def __fspath__(self) -> str:
        return str(self.store)

    def with_status(self, status: str) -> tuple[Outcome, ...]:
        """The outcomes of a status: ``done``, ``skipped``, ``excluded`` or ``failed``."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == status)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes of slides that failed."""
        return self.with_status("failed")

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds by stage of the slides that were done, summed over threads."""
        done = self.with_status("done")
        return {stage: sum(o.stages.get(stage, 0.0) for o in done) for stage in STAGES}


class ExtractionOptions(TypedDict, total=False):
    """How slides are extracted, apart from which slides and which recipe.

    Attributes:
        engine: ``local``, or ``ray`` for a cluster.
        device: torch device, or ``auto``.
        workers: threads that read tiles and run the network; 0 takes one per core.
        overwrite: replace bags of another recipe instead of refusing the store.
        hold_out_tiles: so many of every slide's other tiles go into a store of their own.
        part: (i, n) extracts the i-th of n parts.
        progress: shows slides and tiles.
        notify: called with remarks on the weights and the region when the backbone is loaded.
    """

    engine: str
    device: str
    workers: int
    overwrite: bool
    hold_out_tiles: int
    part: tuple[int, int]
    progress: Progress | None
    notify: Callable[[str], None]


def extract_slides(
    slides: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    recipe: Recipe | Sequence[Recipe],
    annotations: Path | str | None = None,
    slide_mpp: float | None = None,
    slide_mpp_force: float | None = None,
    coordinates: Path | str | None = None,
    segmenter: Path | str | None = None,
    **options: Unpack[ExtractionOptions],
) -> Extraction:
    """Extract slide files, or folders of slides or of tile images, into a store of bags.

    Args:
        slides: files or folders.
        out: the store, one ``<slide>.h5`` per slide.
        recipe: how to tile and embed; several that differ in mpp make one store each.
        annotations: folder with the annotations; by default all tissue is used.
        slide_mpp: micrometres per level-0 pixel, where files give none; needed for tile images.
        slide_mpp_force: micrometres per level-0 pixel, whatever the files say.
        coordinates: folder of bags whose tiles are read again, instead of laying a grid.
        segmenter: the file of a segmenter, whose tumour is used instead of annotations.
        **options: see ``ExtractionOptions``.

    Returns:
        One outcome per slide and store; a slide that fails raises nothing.

    Raises:
        InputError: there are no slides, or the arguments exclude each other.
        BackboneError: the backbone cannot be loaded.
        BagError: the store has bags of another recipe, or two slides have one name.
    """
    paths = [slides] if isinstance(slides, str | os.PathLike) else slides
    settings = JobSettings(
        annotations=Path(annotations) if annotations is not None else None,
        slide_mpp=slide_mpp,
        slide_mpp_force=slide_mpp_force,
        coordinates=Path(coordinates) if coordinates is not None else None,
        segmenter=Path(segmenter) if segmenter is not None else None,
    )
    jobs = jobs_of_paths([Path(path) for path in paths], settings)
    return extract_jobs(jobs, recipe, Path(out), **options)


def extract_jobs(
    jobs: Sequence[SlideJob],
    recipe: Recipe | Sequence[Recipe],
    out: Path,
    **options: Unpack[ExtractionOptions],
) -> Extraction:
    """Extract slides on this machine or on a Ray cluster; see ``features.extraction.extract.extract``.

    Args:
        jobs: the slides.
        recipe: how to tile and embed; several that differ in mpp make one store each.
        out: the store.
        **options: see ``ExtractionOptions``.

    Raises:
        InputError: the engine is unknown, or tile images are to be read at several scales.
        BackboneError: the backbone cannot be loaded.
        BagError: the store has bags of another recipe, or two slides have one name.
    """
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    check_recipes(jobs, recipes)
    engine = options.pop("engine", "local")
    notify = options.pop("notify", None) or (lambda _note: None)
    if engine not in ENGINES:
        raise InputError(f"engine is {' or '.join(ENGINES)}; got {engine!r}.")
    notes = [*weights_notes(recipes), *eclipsed_backbones([recipes[0].backbone])]
    notes += seen_notes(recipes[0].weights, jobs)
    if jobs[0].region == "tissue":
        notes.append("Without annotations, every tile of tissue is used, tumour or not.")
    if engine == "ray":
        from features.extraction.cluster import extract_on_ray as extract
    else:
        from features.extraction.extract import extract
    started = time.perf_counter()

    def notify_all() -> None:
        for note in notes:
            notify(note)

    outcomes = extract(jobs, recipes, out, **options, on_loaded=notify_all)  # type: ignore[misc]
    for note in (
        *_note_exclusions(recipes[0], outcomes),
        *_note_predicted(outcomes),
        *_seen_pixels(recipes[0], jobs, outcomes),
        *note_reach({o.slide: o.drawn_reach for o in outcomes}),
    ):
        notify(note)
    return Extraction(out, outcomes, time.perf_counter() - started)


def _note_predicted(outcomes: Sequence[Outcome]) -> list[str]:
    """A remark on regions that a segmenter drew: a drawing does not say which cases that has seen."""
    slides = {outcome.slide for outcome in outcomes if any(map(is_predicted, outcome.classes))}
    if not slides:
        return []
    return [
        f"A segmenter drew regions of {listed(sorted(slides))}. If it was trained on cases of this "
        "table, they cannot be tested with these bags, and nothing will refuse that: the drawing "
        "does not say so. With segmenter instead of annotations, bags do."
    ]


def _note_exclusions(recipe: Recipe, outcomes: Sequence[Outcome]) -> list[str]:
    """Remarks on classes to exclude that no slide has; none if the classes of a slide are not known."""
    by_slide = {o.slide: Counter(o.classes) for o in outcomes if o.status != "failed"}
    if not all(by_slide.values()):
        return []
    return note_excluded(recipe.exclude, sum(by_slide.values(), Counter[str]()))


def seen_notes(weights: str, jobs: Sequence[SlideJob]) -> list[str]:
    """A remark on slides whose case or file the weights were trained on; empty without a card.

    Raises:
        BackboneError: the card is not of this library.
    """
    card = read_card(Path(weights))
    seen = _seen_by_name(card, jobs) if card else []
    return _note_seen(seen, jobs, "")


def _seen_by_name(card: BackboneCard, jobs: Sequence[SlideJob]) -> list[str]:
    """The slides whose case, or whose file under whatever name, the weights were trained on."""
    sources, cases = set(card.trained_on_slides), set(card.trained_on)
    seen = []
    for job in jobs:
        with contextlib.suppress(SlideError):  # reported when the slide is read
            if job.case in cases or (sources and source_sha256(job) in sources):
                seen.append(job.slide)
    return seen


def _seen_pixels(
    recipe: Recipe, jobs: Sequence[SlideJob], outcomes: Sequence[Outcome]
) -> list[str]:
    """A remark on the bags of other files with the pixels of slides that the weights were trained on."""
    card = read_card(Path(recipe.weights))
    if card is None or not any(source.startswith(PIXELS) for source in card.trained_on_slides):
        return []
    known = set(_seen_by_name(card, jobs))
    seen = {
        outcome.slide
        for outcome in outcomes
        if outcome.status in ("done", "skipped") and outcome.slide not in known
        if not _sources_of(outcome).isdisjoint(card.trained_on_slides)
    }
    return _note_seen(sorted(seen), jobs, ", saved in other files")


def _sources_of(outcome: Outcome) -> frozenset[str]:
    return read_bag(Store(Path(outcome.store)).bag(outcome.slide)).sources


def _note_seen(seen: Sequence[str], jobs: Sequence[SlideJob], how: str) -> list[str]:
    if not seen:
        return []
    return [
        f"The weights were trained on {len(seen)} of the {len(jobs)} slides{how}: {listed(seen)}. With these "
        "bags their cases may be trained on, but not tested."
    ]


def check_recipes(jobs: Sequence[SlideJob], recipes: Sequence[Recipe]) -> None:
    """Refuse recipes that do not go together, or not with the slides.

    Raises:
        InputError: there is no slide or no recipe, a scale is repeated, or tile images have several.
    """
    if not jobs or not recipes:
        raise InputError("There is no slide, or no recipe, to extract. Give at least one of each.")
    scales = [recipe.mpp for recipe in recipes]
    if len(set(scales)) < len(scales):
        raise InputError(f"mpp is {','.join(map(str, scales))}: a scale is repeated. Name it once.")
    if len(scales) > 1 and jobs[0].from_tiles:
        raise InputError("A folder of tile images has the scale of its files: give one mpp.")
    for recipe in recipes if any(job.is_film for job in jobs) else ():
        slides_only = {
            "stain": recipe.stain != "off",
            "icc": recipe.icc != "off",
            "drop": recipe.drop,
        }
        if named := [name for name, value in slides_only.items() if value]:
            raise InputError(
                f"{' and '.join(named)} are for stained slides; slices of CT and MRI have neither stain nor "
                "pen. Leave them unset."
            )
