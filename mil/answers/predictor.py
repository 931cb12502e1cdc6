"""The fits of one model with all that is needed to answer for new slides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from features.bags.bag import Bag
from mil.answers.masks import chosen_otherwise, misfit, tiles_marked
from mil.answers.reading import FitAnswer, Reader
from mil.data.case import Row
from mil.data.names import patient_of
from mil.data.reading import AS_WRITTEN, TableReading
from mil.data.table import read_table
from mil.errors import FitError
from mil.learning.fitted import FittedModel, predict
from mil.likeness.fold_reference import FoldReference
from mil.likeness.hidden import Veil, hidden, hidden_case
from mil.likeness.reference import SlideReference
from mil.likeness.rescans import Rescan

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
        weights: the file of the backbone that embeds its tiles, likewise.
    """

    repeat: int
    fold: int
    model: FittedModel
    hides: bool = False
    segmenter: Path | None = None
    weights: Path | None = None

    @property
    def name(self) -> str:
        """As a fold is named in the folders of a run."""
        return f"r{self.repeat}-f{self.fold}"

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
        by_fold: how far slides lie from each other by the backbone of each fit; None where all share one.
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
    by_fold: FoldReference | None = None

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

    def tumour_classes(self, segmenter: Path | None = None) -> tuple[str, ...]:
        """The annotation classes that are tumour to it; to its segmenters, where it learnt from their masks.

        Args:
            segmenter: the file of one, where the fits have none of their own.
        """
        if not self.recipe.get("classes") and (file := self.fits[0].segmenter or segmenter):
            from features.lowpower.segmenter import read_segmenter_card  # imports every backbone

            return read_segmenter_card(file)[0].classes
        return tuple(self.recipe.get("classes", ()))

    @property
    def segments(self) -> bool:
        """Whether every fit has a segmenter of its own, which selects the tiles of a new slide."""
        return all(fit.segmenter for fit in self.fits)

    @property
    def embeds(self) -> bool:
        """Whether every fit has a backbone of its own, which embeds a new slide for it."""
        return all(fit.weights for fit in self.fits)

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

    def suit(self, bag: Bag, fit: FitKey | None = None) -> tuple[Bag, str]:
        """A bag that the fits can read, and how its tiles were chosen otherwise than theirs; empty if alike.

        Args:
            bag: of a new slide.
            fit: the one that reads it; all of them if not given.

        Raises:
            FitError: its features were made in another way, or lie in regions of other classes.
        """
        learnt = next((f.model.recipe for f in self.fits if f.key == fit), self.recipe)
        if problem := misfit(learnt, bag.recipe):
            raise FitError(f"{bag.slide}: the bag does not suit model {self.model} {problem}")
        return replace(bag, recipe=learnt), chosen_otherwise(learnt, bag.recipe)

    def distance(self, bag: Bag, own: Mapping[FitKey, Bag], fits: Sequence[Fit]) -> float | None:
        """How far a slide lies from training slides by backbones of folds; None where all fits share one.

        Args:
            bag: of the slide.
            own: by fit, the bag of its backbone.
            fits: those that are asked.
        """
        if self.by_fold is None:
            return None
        keys = {fit.key for fit in fits}
        return self.by_fold.ratio(
            [own.get(fit.key, bag) if fit.key in keys else None for fit in self.fits]
        )

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


def typical_fit(fits: Sequence[Fit], own: Mapping[FitKey, Bag]) -> Fit:
    """The fit whose bag stands for those of all: of the median number of tiles in the tumour.

    Args:
        fits: those to ask.
        own: by fit, the bag that it reads, where each has one of its own.
    """
    if any(fit.key not in own for fit in fits):
        return fits[0]
    order = sorted(fits, key=lambda fit: tiles_marked(own[fit.key]))
    return order[(len(order) - 1) // 2]
