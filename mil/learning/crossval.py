"""Every model, every fold, one table of predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from features.bags.bag import Bag
from features.errors import SarcomilError
from features.progress import Progress, Silent
from features.threads import one_thread
from mil.baselines.encoding import readable
from mil.data.cohort import Case, Cohort
from mil.data.names import matching
from mil.data.outcomes import EVENT
from mil.data.splits import Fold, inner_split
from mil.errors import FitError, LeakageError
from mil.evaluation.predictions import COLUMNS, PREFIX, Predictions
from mil.evaluation.survival.predictions import COLUMNS as SURVIVAL_COLUMNS
from mil.evaluation.survival.predictions import SurvivalPredictions, column_of, horizons_of
from mil.heads.registry import check_names, check_outcomes, head_class, reads_table
from mil.learning.fitted import Fitted
from mil.learning.parallel import run_tasks
from mil.learning.prediction import probabilities, risk
from mil.learning.survival import fit_survival, outcomes_of
from mil.learning.training import fit, seen_by
from mil.settings import FitSettings

Fitter = Callable[[str, Fold, Callable[[], Fitted]], Fitted]
Row = dict[str, object]


def cross_validate(  # noqa: PLR0913 - what, and how it is run
    cohort: Cohort,
    folds: Sequence[Fold],
    models: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
    keep: Fitter = lambda _model, _fold, fitter: fitter(),
    engine: str = "loky",
    workers: int = 1,
    progress: Progress | None = None,
) -> Predictions:
    """Predict every case by models that have not seen it.

    Args:
        cohort: cases with bags.
        folds: who trains and who is tested; the same for all models.
        models: names of heads or baselines, in the order of the table.
        settings: how each is trained.
        seed: every fit's own seed follows from it, the repeat and the fold.
        keep: called as keep(model, fold, fitter); may hand back a fit it has kept, else calls fitter.
            With several workers it is called in theirs.
        engine: ``loky``, processes of this machine, or ``ray``, those of a cluster.
        workers: fits at once; 0 takes one per core where that is worth their start. The predictions are
            the same for any number.
        progress: told of each fit.

    Raises:
        CohortError: a column that a model reads is not in the table, or not a fact of the case.
        LeakageError: a backbone, or a fit that was kept, has seen a case that would be tested with it.
        FitError: a fit that was kept is of another model, or one cannot be made.
    """
    work = _FoldWork(cohort, settings, seed, keep)
    rows = _tested(work, folds, models, engine, workers, progress)
    columns = [*COLUMNS, *(PREFIX + name for name in cohort.classes)]
    return Predictions(pd.DataFrame(rows, columns=columns), cohort.classes)


def cross_validate_survival(  # noqa: PLR0913 - as cross_validate
    cohort: Cohort,
    folds: Sequence[Fold],
    models: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
    keep: Fitter = lambda _model, _fold, fitter: fitter(),
    engine: str = "loky",
    workers: int = 1,
    progress: Progress | None = None,
) -> SurvivalPredictions:
    """Predict every case's risk and survival by models that have not seen it; all as ``cross_validate``."""
    check_outcomes(models)
    told = outcomes_of(cohort.cases)
    horizons = horizons_of(told.time, told.event)
    work = _FoldWork(cohort, settings, seed, keep, horizons)
    rows = _tested(work, folds, models, engine, workers, progress)
    columns = [*SURVIVAL_COLUMNS, *map(column_of, horizons)]
    return SurvivalPredictions(pd.DataFrame(rows, columns=columns))


def _tested(
    work: "_FoldWork",
    folds: Sequence[Fold],
    models: Sequence[str],
    engine: str,
    workers: int,
    progress: Progress | None,
) -> list[Row]:
    """The rows of every model and fold, in this order."""
    check_seen(work.cohort, folds)
    if reads_table(models):
        readable(work.cohort.cases, work.settings.clinical)
    tasks = [(model, fold) for model in models for fold in folds]
    done: dict[int, list[Row]] = {}
    with (progress or Silent()).task("cross-validation", len(tasks), "fits") as advance:
        for number, rows in run_tasks(work, tasks, engine=engine, workers=workers):
            done[number] = rows
            advance(1)
    return [row for number in sorted(done) for row in done[number]]


@dataclass(frozen=True)
class _FoldWork:
    """Fits a model on one fold and predicts its test cases; may be sent to another process."""

    cohort: Cohort
    settings: FitSettings
    seed: int
    keep: Fitter
    horizons: tuple[float, ...] = ()  # of survival

    def __call__(self, model: str, fold: Fold) -> list[Row]:
        fitter = partial(fit_fold, self.cohort, model, fold, self.settings, self.seed)
        at = f"{model}, repeat {fold.repeat}, fold {fold.index}"
        try:
            with one_thread():
                fitted = self.keep(model, fold, fitter)
                check_fit(self.cohort, model, fold, self.settings, self.seed, fitted)
                return _predict_fold(self.cohort, fitted, fold, self.horizons)
        except SarcomilError as error:
            raise type(error)(f"{at}: {error}") from error


def fit_fold(cohort: Cohort, model: str, fold: Fold, settings: FitSettings, seed: int) -> Fitted:
    """Fit one model on the training cases of one fold."""
    cases = cohort.named(fold.train)
    return fit_cases(model, cases, cohort.classes, settings, fold_seed(seed, fold))


def fit_cases(
    model: str, cases: Sequence[Case], classes: Sequence[str], settings: FitSettings, seed: int
) -> Fitted:
    """Fit one model on cases, of which it may set some aside to choose the epoch by."""
    train, valid = fit_parts(model, cases, settings, seed)
    if settings.task == "survival":
        return fit_survival(model, train, valid, settings, seed=seed)
    return fit(model, train, valid, classes, settings, seed=seed)


def fit_parts(
    model: str, cases: Sequence[Case], settings: FitSettings, seed: int
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """(train, valid): some cases set aside to choose the epoch by, if the settings say so.

    A model without epochs learns from all.
    """
    check_names([model])
    names, labels = [case.name for case in cases], [case.label for case in cases]
    if not (head_class(model).takes_steps() and settings.stops_early(labels)):
        return tuple(cases), ()
    train, valid = inner_split(names, labels, seed)
    return (
        tuple(case for case in cases if case.name in set(train)),
        tuple(case for case in cases if case.name in set(valid)),
    )


def fold_seed(seed: int, fold: Fold) -> int:
    """A seed of its own for each repeat and fold, the same for all models."""
    return int(np.random.SeedSequence([seed, fold.repeat, fold.index]).generate_state(1)[0])


def check_seen(cohort: Cohort, folds: Sequence[Fold]) -> None:
    """Refuse bags whose backbone or target stain was fitted on a case that is to be tested.

    Raises:
        LeakageError: naming the cases.
    """
    tested = {name for fold in folds for name in fold.test}
    trained = {name for case in cohort.cases for bag in case.bags for name in bag.trained_on}
    if leaked := matching(tested, trained):
        raise LeakageError(
            f"The backbone of these bags was trained on {len(leaked)} cases that would be tested, e.g. "
            f"{', '.join(leaked[:3])}. Use bags of a backbone that has not seen them, or "
            "--finetune per-fold."
        )
    if leaked := matching(tested, _stained_to(cohort)):
        raise LeakageError(
            f"The stains of these bags are normalised to slides of {', '.join(leaked[:3])}, which would be "
            "tested. Extract with the --stain-reference of a case that is not in the cohort."
        )


def _stained_to(cohort: Cohort) -> set[str]:
    """The cases whose slides all stains were normalised to."""
    told = cohort.recipe.get("stain_reference")
    if not isinstance(told, Mapping):
        return set()
    own = {
        case.name
        for case in cohort.cases
        if matching((bag.slide for bag in case.bags), told["slides"])
    }
    return own | set(told["cases"])


def check_fit(
    cohort: Cohort, model: str, fold: Fold, settings: FitSettings, seed: int, fitted: Fitted
) -> None:
    """Refuse a fit that is not the one ``fit_fold`` would make: it may have been kept from before.

    Raises:
        LeakageError: it has seen a case that would be tested with it.
        FitError: it is of another model or other settings, or has seen other cases.
    """
    if leaked := matching(fold.test, fitted.trained_on):
        raise LeakageError(f"{fitted.model}: {', '.join(leaked)} trained and would be tested.")
    seen = tuple(sorted(seen_by(cohort.named(fold.train))))
    asked = model, settings, fold_seed(seed, fold), cohort.recipe_sha256, seen
    held = fitted.model, fitted.settings, fitted.seed, fitted.recipe_sha256, fitted.trained_on
    if held != asked:
        raise FitError(
            f"kept was another fit (of {fitted.model}): its settings, its bags or the cases it learnt from "
            "differ. Remove its file and run again, or choose another --out."
        )


def _predict_fold(
    cohort: Cohort, fitted: Fitted, fold: Fold, horizons: tuple[float, ...]
) -> list[Row]:
    """One row per slide of the fold's test cases."""
    rows: list[Row] = []
    for case in cohort.named(fold.test):
        for bag in case.bags:
            given = {
                "model": fitted.model,
                "repeat": fold.repeat,
                "fold": fold.index,
                "case": case.name,
                "slide": bag.slide,
            }
            if fitted.timeline:
                told = {"time": case.time, "event": int(case.label == EVENT)}
                rows.append(given | told | _risk_of(fitted, bag, case, horizons))
                continue
            given["label"] = case.label
            p = dict(zip(fitted.classes, probabilities(fitted, bag, case.other), strict=True))
            rows.append(given | {PREFIX + name: value for name, value in p.items()})
    return rows


def _risk_of(fitted: Fitted, bag: Bag, case: Case, horizons: tuple[float, ...]) -> Row:
    """The risk of a slide, and its survival until each horizon."""
    found, survival = risk(fitted, bag, horizons, case.other)
    return {"risk": found, **dict(zip(map(column_of, horizons), survival, strict=True))}
