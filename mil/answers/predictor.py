"""The fits of one model with all that is needed to answer for new slides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from features.bags.bag import Bag, recipe_differences
from features.bags.store import recipe_differences as describe_differences
from features.recipe import SEGMENTED, VOLUME
from mil.answers.reading import FitAnswer, Reader, reader_class
from mil.data.case import Row
from mil.data.names import patient_of
from mil.data.reading import AS_WRITTEN, TableReading
from mil.data.table import read_table
from mil.errors import FitError, RunError
from mil.evaluation.display import Table
from mil.learning.fitted import FittedModel, predict
from mil.likeness.hidden import Veil, hidden, hidden_case
from mil.likeness.reference import SlideReference
from mil.likeness.rescans import Rescan
from mil.runs.run import Run
from mil.runs.slide_reference import reference_of_run

# What decides which tiles a bag has, and not what their features are.
CHOOSES_TILES = {
    "annotation_origin", "classes", "exclude", "min_coverage", "min_tumour_of_tissue", "region",
    "segmenter_sha256",
}  # fmt: skip


# How tiles may be chosen otherwise than those of training slides; nothing is promised of such answers.
ALL_TISSUE = "The model learnt from tumour, and this is all tissue: nothing is promised."
BY_SEGMENTER = "The model learnt from drawn tumour; a segmenter drew this: nothing is promised."
OTHER_SEGMENTER = (
    "Another segmenter than that of the training slides chose the tiles: nothing is promised."
)
OUTLINE = "outline of a segmenter"  # a mask: of an annotation whose classes say that
OUTLINED = (
    "A segmenter drew this outline, and it does not say which cases that has seen: nothing is promised. Once "
    "you have corrected it, give it the class of a drawing in QuPath."
)
OTHER_REGION = (
    "Tiles were chosen in another way than those of training slides: nothing is promised."
)
NO_PICTURES = (
    "No pictures of the training slides are known: one that was scanned again, or saved again with loss, is "
    "not recognised."
)
LOST_SEGMENTERS = (
    "The segmenters of the run's folds are not there: an earlier version made it, or they were removed. "
    "Nothing is promised of raw slides, whose tiles are chosen in another way."
)
UNPROMISED = (ALL_TISSUE, BY_SEGMENTER, OTHER_SEGMENTER, OUTLINED, OTHER_REGION)
SAME_WEIGHTS = {"weights"}  # the name of their file; what they are, weights_sha256 tells


FitKey = tuple[int, int]  # the repeat and the fold
BagOfFit = Callable[["Fit"], Bag]


@dataclass(frozen=True)
class Fit:
    """The model of one fold.

    Attributes:
        repeat, fold: of a cross-validation; 0 and 0 for a model trained on all cases.
        model: the fit.
        hides: whether its cases are named by fingerprints, as in a package.
        segmenter: the file of the segmenter that selects its tiles, where every fit has one of its own.
    """

    repeat: int
    fold: int
    model: FittedModel
    hides: bool = False
    segmenter: Path | None = None

    @property
    def key(self) -> FitKey:
        """What names it among the fits of a run."""
        return self.repeat, self.fold

    @cached_property
    def seen(self) -> frozenset[str]:
        """Fingerprints of the cases that it was trained on; see ``hidden_case``."""
        names = self.model.trained_on
        return frozenset(names if self.hides else map(hidden_case, names))


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """One model, ready to answer.

    Attributes:
        source: the run or package that it comes from.
        title: of the study.
        task: name of the task.
        model: its name.
        fits: one per fold and repeat of a cross-validation, or the one trained on all cases.
        reader: reads their answers against predictions out of fold.
        reference: of the training slides; None where their bags are gone.
        reads_tiles: whether it answers from tiles; a model of clinical columns does not.
        cases: the case of each training slide, and of each patient in the barcode of one, by fingerprint.
        names: the case of each training slide in plain words; empty in a package.
        bags: the case, by fingerprint, of each training bag and of each slide that one was made of.
        performance: how the cross-validation judged it, in one line; empty without one.
        backbone, segmenter: files with the encoder's weights and with a segmenter, of a package.
        reading: how the study's tables are read.
        notes: what a reader should know of all answers.
        veil: how the fingerprints of a package are made; None where they are plain.
    """

    source: Path
    title: str
    task: str
    model: str
    fits: tuple[Fit, ...]
    reader: Reader
    reference: SlideReference | None
    reads_tiles: bool
    cases: Mapping[str, str]
    names: Mapping[str, str]
    bags: Mapping[str, str]
    performance: str = ""
    backbone: Path | None = None
    segmenter: Path | None = None
    reading: TableReading = AS_WRITTEN
    notes: tuple[str, ...] = ()
    veil: Veil | None = None

    def hide(self, case: str) -> str:
        """The fingerprint of a case, as this predictor's are named."""
        return self.over(hidden_case(case))

    def over(self, fingerprint: str) -> str:
        """The fingerprint that this predictor holds in place of a plain one."""
        return self.veil.over(fingerprint) if self.veil else fingerprint

    def veiled(self, veil: Veil) -> "Predictor":
        """The predictor of a run with fingerprints as a package has them."""
        over = veil.over
        fits = [
            replace(fit.model, trained_on=tuple(sorted(map(over, fit.seen)))) for fit in self.fits
        ]
        return replace(
            self,
            fits=tuple(
                replace(fit, model=model, hides=True)
                for fit, model in zip(self.fits, fits, strict=True)
            ),
            reader=self.reader.renamed(over),
            reference=self.reference.renamed(over) if self.reference else None,
            cases={over(slide): over(case) for slide, case in self.cases.items()},
            names={},
            bags={key: over(case) for key, case in self.bags.items()},
            veil=veil,
        )

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How the model's own bags were made."""
        return self.fits[0].model.recipe

    @property
    def segments(self) -> bool:
        """Whether every fit has a segmenter of its own, which selects the tiles of a new slide."""
        return all(fit.segmenter for fit in self.fits)

    @property
    def readout(self) -> Any:
        """How a fit's logits are read."""
        return self.fits[0].model.readout

    def read_table(self, path: Path | None) -> list[Row]:
        """The rows of a table with the study's names of columns; none without a table.

        Raises:
            CohortError: the table cannot be read.
        """
        return list(read_table(path, self.reading)) if path else []

    def known_cases(self, bag: Bag, case: str) -> frozenset[str]:
        """Fingerprints of the cases that a slide may belong to, by its name, its bag and its file.

        Args:
            bag: of the slide.
            case: as a table names it; empty where it does not.
        """
        by_content = {self.bags[key] for key in (bag.data_sha256, *bag.sources) if key in self.bags}
        return frozenset(
            by_content | {self.hide(case) if case else self._case_of(bag.slide)} - {""}
        )

    def _case_of(self, slide: str) -> str:
        """The case, by fingerprint, of a slide, by its name or the patient in it; empty if it tells none."""
        named = self.cases.get(self.over(hidden(slide)), "")
        if named or not (name := patient_of(slide)):
            return named
        patient = self.hide(name)
        return self.cases.get(patient, patient * any(patient in fit.seen for fit in self.fits))

    def rescans(self, bags: Mapping[str, Bag]) -> dict[str, tuple[Rescan, ...]]:
        """The training slides that new ones look like second scans of, by the name of the new one."""
        return self.reference.rescans(bags) if self.reference else {}

    def describe_slide(self, fingerprint: str) -> str:
        """A training slide and its case, as far as they may be named."""
        for slide, case in self.names.items():
            if hidden(slide) == fingerprint:
                return f"training slide {slide} (case {case})"
        return "a training slide"

    def unseeing(self, bag: Bag, known: frozenset[str]) -> tuple[Fit, ...]:
        """The fits that were trained neither on a slide nor on another of its cases.

        Args:
            bag: of the slide.
            known: its cases; see ``known_cases``.
        """
        return tuple(
            fit
            for fit in self.fits
            if not known & fit.seen and bag.sources.isdisjoint(fit.model.trained_on_slides)
        )

    def suit(self, bag: Bag) -> tuple[Bag, str]:
        """A bag that the fits can read, and how its tiles were chosen otherwise than theirs; empty if alike.

        Raises:
            FitError: its features were made in another way, or lie in regions of other classes.
        """
        differing = set(recipe_differences(self.recipe, bag.recipe)) - SAME_WEIGHTS
        region, other = self.recipe.get("region"), bag.recipe.get("region")
        allowed = {"annotation_origin", "segmenter_sha256"}
        if refused := differing - (allowed if region == other else CHOOSES_TILES):
            changes = describe_differences(self.recipe, bag.recipe) or ", ".join(sorted(refused))
            raise FitError(
                f"{bag.slide}: the bag does not suit model {self.model} ({changes}). Extract the slide with "
                "the settings the model's bags were made with."
            )
        how = ""
        if region != other:
            how = {"tissue": ALL_TISSUE, SEGMENTED: BY_SEGMENTER}.get(str(other), OTHER_REGION)
        elif "segmenter_sha256" in differing:
            how = OTHER_SEGMENTER
        return replace(bag, recipe=self.recipe), how

    def answers(
        self, fits: Sequence[Fit], bags: Sequence[BagOfFit], other: Mapping[str, str]
    ) -> list[FitAnswer]:
        """What each fit answers for a case, the mean over its slides.

        Args:
            fits: those to ask.
            bags: of the slides of the case: what a fit reads of each.
            other: further columns of the table.

        Raises:
            FitError, CohortError: as ``mil.learning.fitted.predict``.
        """
        names = self.reader.columns
        answers = []
        for fit in fits:
            recipe = fit.model.recipe  # of a segmenter in each fold, every fit has its own
            own = [replace(bag_of(fit), recipe=recipe) for bag_of in bags]
            of_slides = [predict(fit.model, bag, other, names) for bag in own]
            mean = {n: sum(values[n] for values in of_slides) / len(bags) for n in of_slides[0]}
            answers.append(FitAnswer(fit.repeat, fit.fold, mean))
        return answers


def predictor_of_run(run: Run, model: str = "") -> Predictor:
    """The predictor of a run: the ensemble of a cross-validation's fits, or the model trained on all cases.

    Args:
        run: finished.
        model: its name; of a cross-validation the best one if not given.

    Raises:
        RunError: the run is not finished, or has no such model.
        FitError: a fit is missing.
    """
    if run.cross_validated:
        return _of_cross_validation(run, model)
    if run.command != "train":
        raise RunError(
            f"{run.path} is no cross-validation and no trained model. Predict with one of these."
        )
    name = model or run.models[0]
    run.require_model(name)
    fit = Fit(0, 0, run.load(name))
    reader = reader_class(run.task).of_run(fit.model.readout, None, name)
    return _predictor(run, name, (fit,), reader, "", ())


def _of_cross_validation(run: Run, model: str) -> Predictor:
    from mil.evaluation.judge import evaluate

    run.require_finished()
    predictions = run.predictions()
    able = [name for name in run.models if name in predictions.models]
    notes: tuple[str, ...] = ()
    if not model:
        evaluation = evaluate(predictions.select(able))
        model = evaluation.best().model
        if len(able) > 1:
            notes = (
                f"Model {model}: the best of {len(able)} in {run.path}, so that its figures flatter it.",
            )
    notes += _segmenter_notes(run)
    members = run.ensemble(model)
    fits = tuple(
        Fit(fold.repeat, fold.index, member, segmenter=_existing(run.fold_segmenter(fold)))
        for fold, member in zip(run.folds, members, strict=True)
    )
    reader = reader_class(run.task).of_run(fits[0].model.readout, predictions, model)
    performance = _performance(evaluate(predictions.select([model])).tables()[0])
    return _predictor(run, model, fits, reader, performance, notes)


def _segmenter_notes(run: Run) -> tuple[str, ...]:
    """A remark where a run segmented in each fold and has no segmenter left.

    Raises:
        RunError: only some are left.
    """
    files = [run.fold_segmenter(fold) for fold in run.folds]
    missing = [file for file in files if not file.is_file()]
    if not run.settings.segments or not missing:
        return ()
    if len(missing) < len(files):
        raise RunError(f"{missing[0]}: no such file. Put it back, or make the run again.")
    return (LOST_SEGMENTERS,)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _predictor(
    run: Run,
    model: str,
    fits: tuple[Fit, ...],
    reader: Reader,
    performance: str,
    notes: tuple[str, ...],
) -> Predictor:
    from mil.heads.registry import reads_table

    reference, note = reference_of_run(run)
    of_slides = fits[0].model.recipe.get("region") != VOLUME  # voxels tell volumes apart
    if reference is not None and of_slides and not any(reference.structures):
        note = NO_PICTURES
    return Predictor(
        source=run.path,
        title=run.title,
        task=run.task.name,
        model=model,
        reading=run.settings.reading,
        fits=fits,
        reader=reader,
        reference=reference,
        reads_tiles=not reads_table([model]),
        cases=_slide_cases(run.cases),
        names=run.cases,
        bags=_bag_cases(run, reference),
        performance=performance,
        notes=(*notes, *([note] if note else [])),
    )


def _performance(table: Table) -> str:
    """The first row of a table of models, as one line."""
    cells = zip(table.header[1:], table.rows[0][1:], strict=True)
    return ", ".join(f"{name} {value}" for name, value in cells)


def _slide_cases(cases: Mapping[str, str]) -> dict[str, str]:
    """The case of each slide, and of each patient whose barcode a slide bears, by fingerprint."""
    patients = {
        hidden_case(slide): hidden_case(case) for slide, case in cases.items() if patient_of(slide)
    }
    return patients | {hidden(slide): hidden_case(case) for slide, case in cases.items()}


def _bag_cases(run: Run, reference: SlideReference | None) -> dict[str, str]:
    """The case, by fingerprint, of each training bag and of each slide that one was made of."""
    cases = {
        sha256: hidden_case(run.cases[slide])
        for slide, sha256 in run.bags.items()
        if slide in run.cases
    }
    if reference is not None:
        for case, sources in zip(reference.cases, reference.sources, strict=True):
            cases |= dict.fromkeys(sources, case)
    return cases
