"""A run folder as it is read: its cases and bags, its folds, its predictions and its models."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from features.bags.bag import Bag, read_bag
from features.choices import unknown_problem
from features.files.parse import parse_json
from features.stored import check_version
from mil.data.case import Row
from mil.data.cohort import Cohort, assemble, load_cohort
from mil.data.names import matching
from mil.data.splits import Fold, read_folds
from mil.data.table import read_table, reserved_rows, split_train_test
from mil.errors import CohortError, FitError, LeakageError, NotInRun, RunError
from mil.runs import files
from mil.runs.cases import cohort_as_tested
from mil.runs.facts import RunFacts, slide_hint, tissue_bags, verified
from mil.runs.moved import at_nearby_places, at_places, read_moved

if TYPE_CHECKING:  # torch comes only with what needs it
    from mil.evaluation.predictions import Predictions
    from mil.learning.fitted import FittedModel


@dataclass(frozen=True)
class Relation:
    """What a model has to do with a case.

    Attributes:
        fold: whose model it is; None for a model trained on all cases.
        seen: whether it was trained on the case; None where the case is not known.
    """

    fold: Fold | None
    seen: bool | None

    def __str__(self) -> str:
        words = {
            None: "its case is not known: the model may have seen it",
            True: "trained on this case",
            False: "not trained on this case",
        }[self.seen]
        return words if self.fold is None else f"model of fold {self.fold.index}, {words}"


@dataclass(frozen=True)
class Run(RunFacts):
    """An existing run folder."""

    # Cases, slides and bags.

    @property
    def table(self) -> Path:
        """Where the cohort table is."""
        return self.moved.get("cohort", self.settings.cohort)

    def rows(self) -> tuple[Row, ...]:
        """The rows of the table that are trained on.

        Raises:
            CohortError: the table is gone, or cannot be read.
        """
        if not self.table.exists():
            self._require_places()
        rows, _ = split_train_test(read_table(self.table, self.settings.reading))
        return tuple(rows)

    def _require_places(self) -> None:
        """Refuse a run whose table or bag store is no longer where it was, both at once.

        Raises:
            CohortError: naming what is missing.
        """
        store = None if self.settings.own_bags else self.moved.get("store", self.settings.store)
        missing = {}
        if "cohort" in self.settings.stored and not self.table.exists():
            missing["cohort=..."] = f"the table {self.table}"
        if store is not None and not store.is_dir():
            missing["store=..."] = f"the bag store {store}"
        if not missing:
            return
        are, moved, places = ("is", "it has", "its new place")
        if len(missing) > 1:
            are, moved, places = ("are", "they have", "their new places")
        raise CohortError(
            f"{self.path}: {' and '.join(missing.values())} {are} not there. If {moved} moved, give "
            f"{places} ({', '.join(missing)})."
        )

    def cohort(self) -> Cohort:
        """The cases of a finished cross-validation with the bags they were tested on.

        Raises:
            RunError: the run is not a finished cross-validation, or its bags have changed since.
            CohortError: its table or its bags are no longer where they were.
        """
        self.require_finished()
        self._require_places()
        rows, settings = self.rows(), self.settings
        reserved = reserved_rows(self.table, settings.reading)
        if settings.own_bags:
            cohort = cohort_as_tested(rows, self.folds, self.fold_store, self.task)
        else:
            cohort = assemble(
                rows,
                self._store(),
                allow_missing=settings.allow_missing or None,
                allow_duplicates=settings.allow_duplicates or None,
                task=self.task,
                source=str(self.table),
            )
        self._check_bags(cohort)
        return replace(cohort, reserved=reserved)

    def tissue(self) -> Cohort:
        """The cases of a run that segmented in each fold, with the bags of tissue it selected tiles from.

        Raises:
            CohortError: its table or its store are no longer where they were.
            RunError: a bag has changed since the run.
        """
        store = self._store()
        cohort = load_cohort(
            self.table,
            store,
            task=self.task,
            **self.settings.reading.words(),
        )
        for bag in cohort.bags:
            if tissue_bags(self).get(bag.slide) != bag.data_sha256:
                raise RunError(
                    f"{store}: the bag of {bag.slide} has changed since the run. Make the run again."
                )
        return cohort

    def bag(self, slide: str) -> Bag:
        """The bag of a slide: where each fold has its own, the one by which the slide was tested.

        Raises:
            BagError: it is missing or damaged.
            RunError: it has changed since the run, or the run has no such slide.
        """
        bag = read_bag(self.bag_path(slide))
        check_bag(self, bag)
        return bag

    def bag_path(self, slide: str) -> Path:
        """The file of a slide's bag, as in ``bag``."""
        if self.bags and slide not in self.bags:
            raise NotInRun(f"{self.path} has no slide {slide!r}.{slide_hint(self, slide)}")
        if self.settings.own_bags:
            fold = self.fold_of(self.case_of(slide))
            if fold is None:
                raise RunError(f"{self.path} has tested no slide {slide}. Name one of its slides.")
            store = self.fold_store(fold)
        else:
            store = self._store()
        return store / f"{slide}.h5"

    def _store(self) -> Path:
        store = self.moved.get("store", self.settings.store)
        if store is None:
            raise RunError(f"{self.path} names no bag store. Make the run again.")
        if not store.is_dir():
            self._require_places()
        return store

    def _check_bags(self, cohort: Cohort) -> None:
        """Refuse bags that are not those the run has learnt from, all of them and no other."""
        now = {bag.slide: bag.data_sha256 for case in cohort.cases for bag in case.bags}
        changed = sorted(s for s in {*now, *self.bags} if now.get(s) != self.bags.get(s))
        if changed:
            raise RunError(
                f"{len(changed)} bags have changed since the run, e.g. {changed[0]}. Put the old ones back, "
                "or make the run again."
            )

    # Results.

    @property
    def predictions_path(self) -> Path:
        """The table of predictions, as the run wrote it."""
        return verified(self, self.path / files.PREDICTIONS)

    def predictions(self) -> "Predictions":
        """The predictions out of fold.

        Raises:
            RunError: they are not those the run has written, or cannot be read.
        """
        from mil.evaluation.predictions import read_predictions

        return self.task.adopt(read_predictions(self.predictions_path))

    @property
    def folds(self) -> tuple[Fold, ...]:
        """Who was trained on and who was tested.

        Raises:
            RunError: there are none, or they are not those the run has written.
        """
        return read_folds(verified(self, self.path / files.FOLDS))

    def fold_of(self, case: str) -> Fold | None:
        """The fold of the first repeat that tests a case; None where none does."""
        return next((fold for fold in self.folds if fold.repeat == 0 and case in fold.test), None)

    # Models.

    def load(self, model: str, fold: Fold | None = None) -> "FittedModel":
        """A model as the run wrote it.

        Raises:
            LeakageError: the model of a fold was trained on a case that the fold tests.
            RunError: the file is not the one the run has written.
            FitError: it is missing.
        """
        from mil.learning.fitted import load_model

        path = self.model_path(model, fold)
        fitted = load_model(verified(self, path))
        if fold and (seen := matching(fold.test, fitted.trained_on)):
            raise LeakageError(
                f"{path} was trained on {seen[0]}, which fold {fold.index} tests. Make the run again."
            )
        return fitted

    def model_for(
        self, slide: str, model: str, *, case: str = ""
    ) -> "tuple[FittedModel, Relation]":
        """The model to score a slide with: in a cross-validation, one that has not seen its case.

        Args:
            slide: name of the slide.
            model: name of the model.
            case: the slide's case, where its bag names one.

        Returns:
            the model, and what it has to do with the case.

        Raises:
            LeakageError: the model of the fold that tests the case was trained on it.
            NotInRun: the run has no such model.
            RunError: a file is not as the run wrote it.
            FitError: the model's file is missing.
        """
        require_model(self, model)
        case = self.case_of(slide, case)
        if not self.cross_validated:
            fitted = self.load(model)
            return fitted, Relation(None, _has_seen(fitted, case))
        self.check_results()
        folds = [fold for fold in self.folds if fold.repeat == 0]
        fold = next((fold for fold in folds if case in fold.test), None)
        if fold is None:  # of another cohort, or kept aside
            return self._first_unseeing(model, folds, case)
        return self.load(model, fold), Relation(fold, seen=False)

    def _first_unseeing(
        self, model: str, folds: list[Fold], case: str
    ) -> "tuple[FittedModel, Relation]":
        """The first fold's model that was not trained on a case; the first of all where every one was."""
        choices = ((fold, self.load(model, fold)) for fold in folds)
        first_fold, first = next(choices)
        seen = _has_seen(first, case)
        if seen:
            for fold, fitted in choices:
                if not _has_seen(fitted, case):
                    return fitted, Relation(fold, seen=False)
        return first, Relation(first_fold, seen)

    def ensemble(self, model: str) -> "tuple[FittedModel, ...]":
        """The fits of one model in every fold and repeat, which read the same bags.

        Raises:
            RunError: as ``fits``, or the run fine-tuned a backbone in each fold, so that its models read
                different features.
            FitError: a fit was not kept.
        """
        self.require_finished()
        require_model(self, model)
        if self.settings.finetunes:
            raise RunError(
                f"{self.path} fine-tuned a backbone in each fold: its models read different features and are "
                "no ensemble over one bag store. New slides are embedded by every backbone, to be answered "
                "(predict_slides), or judged with their labels (external_validation)."
            )
        return self.fits(model)

    def fits(self, model: str) -> "tuple[FittedModel, ...]":
        """The fits of one model in every fold and repeat of a finished cross-validation, in their order.

        Raises:
            RunError: the run is not a finished cross-validation, or has no such model.
            FitError: a fit was not kept.
        """
        self.require_finished()
        require_model(self, model)
        folds = self.folds
        missing = [p.name for fold in folds if not (p := self.model_path(model, fold)).exists()]
        if missing:
            raise FitError(
                f"{len(missing)} of {len(folds)} fits of {model} are not in {self.path / 'models'}, e.g. "
                f"{missing[0]}. Make the run again."
            )
        return tuple(self.load(model, fold) for fold in folds)


def check_bag(run: Run, bag: Bag) -> None:
    """Refuse a bag that is not the one the run has read under this name.

    Raises:
        RunError: it has changed.
    """
    if run.bags.get(bag.slide, bag.data_sha256) != bag.data_sha256:
        raise RunError(
            f"The bag of {bag.slide} has changed since {run.path} was made. Put the old one back, or "
            "make the run again."
        )


def require_model(run: Run, model: str) -> None:
    """Refuse a model whose fits the run does not have.

    Raises:
        NotInRun: the run has no model of this name.
        RunError: the model is a combination, whose fits are not kept.
    """
    if "+" in model or model.startswith("clinical-selected"):
        raise RunError(
            f"{model} is a regression fitted anew in each fold from a model's score and clinical "
            f"columns, and its fits are not kept. Name one of {', '.join(run.models)}."
        )
    if problem := unknown_problem("model", [model], run.models):
        raise NotInRun(f"{run.path}: {problem}")


def to_run(source: "Run | os.PathLike[str] | str") -> Run:
    """An open run, or the one in a folder.

    Raises:
        RunError: as ``open_run``.
    """
    return source if isinstance(source, Run) else open_run(Path(source))


def open_run(path: Path, *, store: Path | None = None, cohort: Path | None = None) -> Run:
    """Open a run folder for reading.

    A bag store or a cohort table that has moved is named once and remembered in the folder.

    Args:
        path: the folder.
        store: where the run's bag store is now.
        cohort: where the run's cohort table is now.

    Raises:
        RunError: there is no run, it was written by a newer version, or ``store`` or ``cohort`` is another.
        CohortError: ``cohort`` cannot be read.
    """
    try:
        info = parse_json((path / files.RUN).read_text(encoding="utf-8"))
        version = int(info["format_version"]) if info["format"] == files.FORMAT else None
    except FileNotFoundError as error:
        problem = (
            "not a run folder: it has no run.json" if path.is_dir() else "there is no such folder"
        )
        raise RunError(f"{path}: {problem}. Name the folder of a run.") from error
    except NotADirectoryError as error:
        raise RunError(f"{path}: a file, not a run folder. Name the folder of a run.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: not a run folder, as its run.json cannot be read ({error}). Name the folder of a run."
        ) from error
    if version is None:
        raise RunError(f"{path}: run.json is of another format. Name the folder of a run.")
    check_version(path, version, files.FORMAT_VERSION, RunError)
    run = Run(path, info, read_moved(path))
    places = {"store": store, "cohort": cohort}
    new = {name: place.absolute() for name, place in places.items() if place is not None}
    return at_places(run, new, Run.rows) if new else at_nearby_places(run, Run.rows)


def _has_seen(fitted: "FittedModel", case: str) -> bool | None:
    """Whether a model was trained on a case; None where the case is not known."""
    return bool(matching([case], fitted.trained_on)) if case else None
