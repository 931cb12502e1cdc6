"""Cross-validation of segmentation and diagnosis together: each fold's masks know its training cases only.

The tissue of every slide is embedded once. Each fold trains a segmenter on the annotations of its training
cases and selects the tiles of its slides anew: seconds, where a backbone that is fine-tuned takes hours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from features.bags.bag import Bag, read_bag, write_bag
from features.bags.select import TISSUE, select_tiles
from features.errors import BagError
from features.files.checksum import fingerprint
from features.lowpower.segmenter import Segmenter, SegmenterCard, save_segmenter
from features.lowpower.tumour_map import TumourMap
from features.progress import Notify, Progress, Silent
from features.recipe import SEGMENTED
from features.regions.drawing import Region
from mil.data.cohort import Cohort
from mil.data.names import cases_among, matching, patient_of
from mil.data.splits import Fold
from mil.errors import CohortError, FitError
from mil.evaluation.predictions import Predictions, concat
from mil.learning.crossval import Fitter, cross_validate
from mil.segmentation.cross_validation import has_tumour, judged
from mil.segmentation.folds import case_folds
from mil.segmentation.learner import Learner, probabilities, tumour_ratio, with_reference
from mil.segmentation.slides import DrawnSlide, ReadSlide, check_negatives, note_drawings
from mil.settings import FitSettings

INNER_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Segmenting:
    """How each fold selects its tiles.

    Attributes:
        cohort: cases with bags of tissue.
        annotated: slides whose tumour is drawn; those of cases outside the cohort train in every fold.
        others: the cohort's slides without a drawing.
        learner: of the segmenter.
        store: the folder of each fold's bags.
        keep: the file that each fold's segmenter is written to, for new slides; None keeps none.
        train_masks: ``annotation`` takes the drawings of training slides; ``unseen`` takes masks by
            segmenters that have not seen them, as those of test slides are.
        notify: called with slides in which no tumour is found.
    """

    cohort: Cohort
    annotated: Sequence[DrawnSlide]
    others: Sequence[DrawnSlide]
    learner: Learner
    store: Callable[[Fold], Path]
    keep: Callable[[Fold], Path] | None = None
    train_masks: str = "annotation"
    notify: Notify = lambda _message: None

    @property
    def recipe(self) -> dict[str, str]:
        """What the recipe of the selected bags says of their region; the same in every fold."""
        facts = {**asdict(self.learner.settings), "train_masks": self.train_masks}
        return {
            "region": SEGMENTED,
            "segmenter_sha256": f"one in each fold, {fingerprint(facts)[:16]}",
        }


def cross_validate_segmented(  # noqa: PLR0913 - what, and how it is run
    work: Segmenting,
    folds: Sequence[Fold],
    models: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
    fitter: Fitter,
    engine: str = "loky",
    workers: int = 1,
    progress: Progress | None = None,
) -> Predictions:
    """Predict every case by a segmenter and by models that have not seen it.

    Args:
        work: how tiles are selected.
        folds: who trains and who is tested.
        models: names of heads or baselines.
        settings: how each is trained.
        seed: every fit's own seed follows from it.
        fitter: may return a stored fit instead of fitting.
        engine: as that of ``cross_validate``.
        workers: as those of ``cross_validate``.
        progress: is advanced by each slide and fit.

    Raises:
        CohortError: the bags are not of all tissue, or nothing drawn says what is no tumour.
        LeakageError: the backbone has seen a case that would be tested.
        FitError: the training cases of a fold lack tumour, or tissue without.
    """
    progress = progress or Silent()
    check_tissue(work.cohort)
    slides = work.learner.read([*work.annotated, *work.others], progress)
    annotated = slides[: len(work.annotated)]
    check_negatives(annotated)
    for note in note_drawings(annotated, work.learner.settings.exclude):
        work.notify(note)
    tables = []
    for fold in folds:
        cohort = fold_cohort(work, fold, slides, annotated)
        tables.append(
            cross_validate(
                cohort, [fold], models, settings, seed=seed, fitter=fitter, engine=engine,
                workers=workers, progress=progress,
            )
        )  # fmt: skip
    joined = concat(tables)
    order = {model: place for place, model in enumerate(models)}
    table = joined.table.sort_values("model", key=lambda names: names.map(order), kind="stable")
    return replace(joined, table=table.reset_index(drop=True))


def check_tissue(cohort: Cohort) -> None:
    """Refuse bags whose tiles were chosen by an annotation or a segmenter already.

    Raises:
        CohortError: naming the region they are of.
    """
    region = cohort.recipe.get("region")
    if region != TISSUE:
        raise CohortError(
            f"Each fold selects its tiles from all tissue; these bags are of {region}. Extract the slides "
            "without annotations and without a segmenter."
        )


def fold_cohort(
    work: Segmenting,
    fold: Fold,
    slides: Sequence[ReadSlide],
    annotated: Sequence[ReadSlide],
) -> Cohort:
    """The cohort with the tiles that one fold selects, which are written into its store."""
    train = train_slides(work.cohort, fold, annotated)
    segmenter = work.learner.fit(train)
    if work.keep:
        tested = [slide for slide in annotated if slide.case in fold.test]
        _write_segmenter(work.keep(fold), judged(with_reference(segmenter, train), tested))
    masks = _train_regions(work, train)
    by_name = {slide.name: slide for slide in slides}
    cases = []
    for case in work.cohort.cases:
        bags = [
            _select(work, bag, masks.get(bag.slide), segmenter, by_name[bag.slide])
            for bag in case.bags
        ]
        stored = []
        for bag in bags:
            path = work.store(fold) / f"{bag.slide}.h5"
            write_bag(path, bag)
            stored.append(replace(read_bag(path), case=case.name))
        cases.append(replace(case, bags=tuple(stored)))
    return replace(work.cohort, cases=tuple(cases), store=work.store(fold))


def _write_segmenter(file: Path, segmenter: Segmenter) -> None:
    """Write a segmenter, unless its encoder is of an installed package and cannot be stored."""
    if segmenter.card.network.architecture:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_segmenter(file, segmenter)


def train_slides(cohort: Cohort, fold: Fold, annotated: Sequence[ReadSlide]) -> list[ReadSlide]:
    """The annotated slides that a fold may learn from.

    A slide is left out if its case is tested in the fold or kept for external validation, by the name of the
    case, by the name of the slide or by its content.

    Raises:
        FitError: none is left.
    """
    trained = set(fold.train)
    tested = [case for case in cohort.cases if case.name not in trained]
    names = [bag.slide for case in tested for bag in case.bags]
    names += [row.slide for row in cohort.reserved]
    cases = [case.name for case in tested] + [row.case for row in cohort.reserved]
    sources = {source for case in tested for bag in case.bags for source in bag.sources}
    slides = [(slide.case, slide.name) for slide in annotated]
    barred = set(cases_among(slides, [*cases, *filter(None, map(patient_of, names))]))
    alike = set(matching([slide.name for slide in annotated], names))
    left = [
        slide
        for slide in annotated
        if slide.case not in barred
        and slide.name not in alike
        and sources.isdisjoint(slide.sources)
    ]
    if not left:
        raise FitError(
            f"Repeat {fold.repeat}, fold {fold.index}: no annotated slide is of a training case. Annotate "
            "slides of more cases."
        )
    return left


def _train_regions(work: Segmenting, train: Sequence[ReadSlide]) -> Mapping[str, Region]:
    """Where the tumour of training slides is, by slide; others get the mask of the fold's segmenter."""
    if work.train_masks == "annotation":
        return {slide.name: slide.target.region for slide in train}
    regions: dict[str, Region] = {}
    n_folds = min(INNER_FOLDS, sum(has_tumour(train).values()))
    for inner in case_folds(has_tumour(train), n_folds, work.learner.settings.seed):
        segmenter = work.learner.fit([slide for slide in train if slide.case in inner.train])
        bags = {bag.slide: bag for bag in work.cohort.bags}
        for slide in train:
            if slide.case in inner.test and slide.name in bags:
                regions[slide.name] = tumour_map(segmenter, slide, bags[slide.name]).region
    return regions


def _select(
    work: Segmenting, bag: Bag, region: Region | None, segmenter: Segmenter, slide: ReadSlide
) -> Bag:
    """The tiles of a slide that lie in its tumour; all of them, and a note, where there is none."""
    if region is None or region.is_empty:
        region = tumour_map(segmenter, slide, bag).region
    chosen, is_tumour = selected(bag, region, work.recipe, segmenter.card)
    if not is_tumour:
        work.notify(
            f"{bag.slide}: no tile lies in what the segmenter of a fold marks as tumour. All its "
            "tissue is used."
        )
    return chosen


def selected(
    bag: Bag, region: Region, recipe: Mapping[str, str], card: SegmenterCard
) -> tuple[Bag, bool]:
    """The tiles of a slide that lie in a region.

    Args:
        bag: of all tissue.
        region: the tumour.
        recipe: what changes in that of the bag; see ``Segmenting.recipe``.
        card: of the segmenter that the bag is to name the cases of.

    Returns:
        The bag, and whether a tile lies in the region; if none does, the bag has all of them.
    """
    seen = {"trained_on": card.trained_on, "trained_on_slides": card.trained_on_slides}
    try:
        return select_tiles(bag, region, recipe, **seen), True
    except BagError:
        merged: dict[str, Any] = {
            name: tuple(sorted({*getattr(bag, name), *new})) for name, new in seen.items()
        }
        merged["recipe"] = {**bag.recipe, **recipe}
        return replace(bag, request_sha256="", tumour_of_tissue=0.0, **merged), False


def tumour_map(segmenter: Segmenter, slide: ReadSlide, bag: Bag) -> TumourMap:
    """What a segmenter marks as tumour on a slide whose cells have been read.

    Args:
        segmenter: fitted.
        slide: with its cells.
        bag: of the slide, which says how large it is.
    """
    probability = probabilities(segmenter, slide)[segmenter.card.kind]
    return TumourMap(
        probability, slide.grid, segmenter.card.threshold, bag.size_l0, bag.bounds_l0,
        tumour_ratio(segmenter, slide),
    )  # fmt: skip
