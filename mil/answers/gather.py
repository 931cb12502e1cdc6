"""Bags of new slides: read as they are, or extracted as the model's own were."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.bags.bag import Bag, read_bag
from features.errors import AnnotationError, AnnotationMissing, BagError, SarcomilError
from features.extraction.jobs import SlideJob
from features.progress import Progress
from features.recipe import SEGMENTED, VOLUME
from features.regions.annotations import read_annotations
from features.regions.drawing import is_predicted
from mil.answers.answer import NewSlide, new_slides
from mil.answers.fold_bags import ONE_FIT_ONLY, bags_of_folds, embed_by_folds
from mil.answers.masks import FOLDS, OUTLINE, SEGMENTER
from mil.answers.new_inputs import BAG, NewInputs, by_name, no_input
from mil.answers.predictor import FitKey, Predictor
from mil.data.case import Row
from mil.errors import FitError
from mil.runs.inputs import (
    ANNOTATIONS,
    TISSUE,
    as_learnt,
    bag_folder,
    check_region,
    extract_slides,
    misfit,
)
from mil.segmentation.application import AppliedSlide, apply_segmenter

if TYPE_CHECKING:
    from mil.answers.fold_masks import FoldMasks


@dataclass(frozen=True, kw_only=True)
class NewSlides:
    """Slides to be answered for.

    Attributes:
        names: of all, in the order they were given.
        bags: by name, of those that have one.
        unusable: by name, why the others have none.
        masks: by name, where tiles come from; of slides that were given as such.
        paths: by name, the files of slides that were given as such.
        own: by name, the bag that each fit reads, where each fold selects the tiles or has a backbone of its
            own; ``bags`` has the first.
        segmented: by name, what a segmenter made of those that it cut.
        outlines: folder with what a segmenter marks as tumour, as GeoJSON for QuPath and as pictures; None
            without a segmenter.
        notes: what a reader should know of all of them.
    """

    names: tuple[str, ...]
    bags: Mapping[str, Bag]
    unusable: Mapping[str, SarcomilError]
    masks: Mapping[str, str]
    paths: Mapping[str, Path]
    own: Mapping[str, Mapping[FitKey, Bag]] = field(default_factory=dict)
    segmented: Mapping[str, AppliedSlide] = field(default_factory=dict)
    outlines: Path | None = None
    notes: tuple[str, ...] = ()


def gather_slides(
    predictor: Predictor,
    new: NewInputs,
    store: Path,
    *,
    table: Sequence[Row] = (),
    progress: Progress | None = None,
) -> NewSlides:
    """Read or extract the bag of each slide; what cannot be used is listed with the reason.

    A model that learnt from annotated tumour reads all tissue where there are neither annotations nor a
    segmenter; that is noted.

    Args:
        predictor: the model.
        new: the files.
        store: folder in which bags of slides are written, in one folder for each kind of mask.
        table: rows of slides, whose mpp is used instead of the file's.
        progress: shows slides and tiles.

    Raises:
        RunError: two inputs have one name, or the model's bags were not extracted from slides.
        AnnotationError: there is no such folder of annotations.
        BackboneError: the weights file is not given, or the file is no segmenter.
    """
    files = by_name(new.inputs)
    unusable = _refused(predictor, files)
    paths = {n: path for n, path in files.items() if not no_input(path) and path.suffix != BAG}
    places = {name: path for name, path in files.items() if path.suffix == BAG}
    if new.annotations is not None and not new.annotations.is_dir():
        raise AnnotationError(f"annotations is {new.annotations}: no such folder.")
    if paths:
        check_region(predictor.recipe)
    new = replace(new, segmenter=new.segmenter or predictor.segmenter)
    mpp_of = {row.slide: row.mpp for row in table}
    jobs = {name: new.job(name, path, mpp_of.get(name)) for name, path in paths.items()}
    masks = {name: _choose_mask(predictor, new, job) for name, job in jobs.items()}
    outlines: Path | None = None
    segmented: dict[str, AppliedSlide] = {}
    own: dict[str, Mapping[FitKey, Bag]] = {}
    for mask in dict.fromkeys(masks.values()):
        chosen = [jobs[name] for name in jobs if masks[name] == mask and name not in unusable]
        recipe = _recipe_of(predictor, new, mask)
        folder = bag_folder(store, _name_of(mask, new.segmenter), recipe, predictor.recipe)
        first = folder / predictor.fits[0].name if predictor.embeds else folder
        made = {job.slide: first / f"{job.slide}{BAG}" for job in chosen}
        applied: Sequence[AppliedSlide] = ()
        if mask == SEGMENTER and new.segmenter:
            outlines = folder / "outlines"
            failed, applied = _extract_and_outline(
                predictor, chosen, folder, outlines, new, progress
            )
        else:
            failed = _extract(predictor, chosen, folder, mask, new, progress)
        if predictor.embeds:
            own |= bags_of_folds(predictor.fits, sorted(made.keys() - failed.keys()), folder)
        if mask == FOLDS:
            outlines = folder / "outlines"
            tissue = _read_bags({n: made[n] for n in made if n not in failed}, failed)
            selection = _select_by_folds(
                predictor, chosen, new_slides(predictor, tissue, table), outlines, progress
            )
            failed |= selection.unusable
            own, applied = selection.bags, selection.applied
        segmented |= {one.slide: one for one in applied}
        unusable |= failed
        places |= made
    read = _read_bags({n: places[n] for n in files if n not in unusable}, unusable)
    bags = {name: as_learnt(bag, predictor.recipe, new.classes) for name, bag in read.items()}
    notes = [note for mask in masks.values() if (note := _mask_note(predictor, new, mask))]
    notes += [_class_note(predictor, new)] if any(bags[n] is not read[n] for n in bags) else []
    own = {
        name: {k: as_learnt(bag, predictor.recipe, new.classes) for k, bag in of_fits.items()}
        for name, of_fits in own.items()
    }
    bags |= {name: next(iter(of_fits.values())) for name, of_fits in own.items()}
    return NewSlides(
        names=tuple(files),
        bags=bags,
        unusable=unusable,
        masks=masks,
        paths=paths,
        own=own,
        segmented=segmented,
        outlines=outlines,
        notes=tuple(dict.fromkeys(notes)),
    )


def _refused(predictor: Predictor, files: Mapping[str, Path]) -> dict[str, SarcomilError]:
    """Why some files are neither bags nor slides that the model can read, by name."""
    refused: dict[str, SarcomilError] = {}
    for name, path in files.items():
        of_one_fit = ONE_FIT_ONLY * (path.suffix == BAG and predictor.embeds)
        if reason := no_input(path) or of_one_fit or misfit(path, predictor.recipe):
            refused[name] = FitError(reason)
    return refused


def _select_by_folds(
    predictor: Predictor,
    jobs: Sequence[SlideJob],
    tissue: Sequence[NewSlide],
    outlines: Path,
    progress: Progress | None,
) -> "FoldMasks":
    """The tiles that the segmenter of each fold selects."""
    from mil.answers.fold_masks import select_by_folds  # imports every backbone

    by_name = {job.slide: job for job in jobs}
    return select_by_folds(predictor, by_name, tissue, outlines, progress)


def _extract_and_outline(
    predictor: Predictor,
    jobs: Sequence[SlideJob],
    folder: Path,
    outlines: Path,
    new: NewInputs,
    progress: Progress | None,
) -> tuple[dict[str, SarcomilError], list[AppliedSlide]]:
    """As ``_extract`` with a segmenter, whose maps of the slides become outlines too."""
    from features.lowpower.slide_maps import maps_kept

    assert new.segmenter
    with maps_kept():
        failed = _extract(predictor, jobs, folder, SEGMENTER, new, progress)
        applied = _write_outlines(jobs, new.segmenter, outlines, progress)
    return failed, applied


def _extract(
    predictor: Predictor,
    jobs: Sequence[SlideJob],
    folder: Path,
    mask: str,
    new: NewInputs,
    progress: Progress | None,
) -> dict[str, SarcomilError]:
    """Extract slides with one kind of mask; why some could not be."""
    packed = predictor.backbone
    annotations = new.annotations if mask in (ANNOTATIONS, OUTLINE) else None
    segmenter = new.segmenter if mask == SEGMENTER else None
    recipe = _recipe_of(predictor, new, mask)
    jobs = [replace(job, annotations=annotations, segmenter=segmenter) for job in jobs]
    if predictor.embeds:
        return embed_by_folds(predictor.fits, jobs, recipe, folder, progress)
    return extract_slides(
        jobs,
        recipe,
        folder,
        weights=str(packed) if packed else new.weights,
        progress=progress,
    )


def _recipe_of(predictor: Predictor, new: NewInputs, mask: str) -> dict[str, Any]:
    """How bags of slides with one kind of mask are made."""
    packed = predictor.backbone
    recipe = dict(predictor.recipe) | ({"weights": packed.name} if packed else {})
    if mask in (ANNOTATIONS, OUTLINE):
        recipe["classes"] = new.classes or predictor.tumour_classes(new.segmenter)
    return recipe


def _read_bags(places: Mapping[str, Path], unusable: dict[str, SarcomilError]) -> dict[str, Bag]:
    """The bags of files; one that cannot be read, or is of a slide that another is of, is unusable."""
    bags: dict[str, Bag] = {}
    slides: dict[str, Path] = {}
    for name, path in places.items():
        try:
            bag = read_bag(path)
            if (other := slides.setdefault(bag.slide, path)) is not path:
                raise BagError(
                    f"{path} holds slide {bag.slide}, as {other} does. Give one of them."
                )
            bags[name] = bag
        except BagError as error:
            unusable[name] = error
    return bags


def _class_note(predictor: Predictor, new: NewInputs) -> str:
    """That another class is read as the model's own."""
    own, learnt = " or ".join(new.classes), " or ".join(predictor.recipe["classes"])
    return f"Tissue of class {own} is read as {learnt}, from which the model learnt, because you say so."


def _name_of(mask: str, segmenter: Path | None) -> str:
    """What bags with a kind of mask are filed under; every segmenter has a name of its own."""
    if mask != SEGMENTER or segmenter is None:
        return mask
    from features.lowpower.segmenter import read_segmenter_card

    return f"{SEGMENTER}-{read_segmenter_card(segmenter)[1][:8]}"


def _write_outlines(
    jobs: Sequence[SlideJob],
    segmenter: Path,
    out: Path,
    progress: Progress | None,
) -> list[AppliedSlide]:
    """Write what a segmenter marks as tumour on each slide."""
    from features.lowpower.segmenter import load_segmenter
    from features.lowpower.slide_maps import tumour_map_of

    out.mkdir(parents=True, exist_ok=True)
    return apply_segmenter(
        load_segmenter(segmenter),
        jobs,
        out,
        progress,
        lambda slide: tumour_map_of(slide, segmenter),
    )


def _choose_mask(predictor: Predictor, new: NewInputs, job: SlideJob) -> str:
    """Where the tiles of a slide come from: its annotation, else a segmenter, else all tissue."""
    if predictor.recipe["region"] == "tissue":
        return TISSUE
    if predictor.recipe["region"] == VOLUME:  # chosen as the film was laid out
        return VOLUME
    if new.annotations is not None:
        with suppress(AnnotationMissing):
            file = replace(job, annotations=new.annotations).annotation()
            return OUTLINE if file and _drawn_by_segmenter(file) else ANNOTATIONS
        return _by_segmenter(predictor, new) or ANNOTATIONS  # which then fails by name
    return _by_segmenter(predictor, new) or TISSUE


def _by_segmenter(predictor: Predictor, new: NewInputs) -> str:
    """The mask without an annotation: by the segmenter that is given, else by those of the folds, or none."""
    return SEGMENTER if new.segmenter else FOLDS * predictor.segments


def _drawn_by_segmenter(file: Path) -> bool:
    """Whether a class of an annotation says so; one that cannot be read fails later, by name."""
    try:
        classes = read_annotations(file).histogram()
    except AnnotationError:
        return False
    return any(is_predicted(name) for name in classes)


def _mask_note(predictor: Predictor, new: NewInputs, mask: str) -> str:
    """What is to be said of a kind of mask; empty if nothing."""
    region = predictor.recipe["region"]
    if region == VOLUME:
        return ""
    inside = " or ".join(predictor.recipe["classes"]) or "what a segmenter marks as tumour"
    if region == "tissue":
        unread = new.annotations or new.segmenter
        return "The model learnt from all tissue: annotations and segmenters are not used." * bool(
            unread
        )
    if mask == TISSUE:
        return (
            f"The model learnt from tiles inside {inside}, and there are neither annotations nor a "
            "segmenter: all tissue is used, tumour or not, and nothing is promised of the answers."
        )
    if mask == FOLDS:
        return (
            f"The segmenters of {len(predictor.fits)} folds mark the tumour, each for its own fit, as they "
            "did for the cases of the run. The outlines show what they call tumour on average, of a known "
            "case only those that have not seen it: look at them."
        )
    if mask != SEGMENTER or new.segmenter is None:
        return ""
    from features.lowpower.segmenter import read_segmenter_card

    card, _ = read_segmenter_card(new.segmenter)
    notes = ["A segmenter says where the tumour is: look at its outline on every slide."]
    if region != SEGMENTED:
        notes.append(
            f"The model learnt from tiles inside drawn {inside}, so that nothing is promised."
        )
    if card.has_random_weights:
        notes.append("The segmenter's encoder has random weights.")
    return " ".join(notes)
