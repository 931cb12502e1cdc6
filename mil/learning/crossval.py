"""Every model on every fold: one table of predictions."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from features.errors import SarcomilError
from features.progress import Progress, Silent
from features.recipe import learnt_part, recipe_parts
from features.threads import one_thread
from mil.data.case import Case
from mil.data.cohort import Cohort
from mil.data.encoding import readable
from mil.data.names import cases_among, matching
from mil.data.splits import Fold, inner_split
from mil.errors import FitError, LeakageError
from mil.evaluation.predictions import Predictions
from mil.heads.batches import READY_VALUES
from mil.heads.registry import check_names, check_rows, head_class, reads_table
from mil.learning.fitted import FittedModel, predict
from mil.learning.head_weights import check_head_weights, read_head_weights
from mil.learning.parallel import run_tasks
from mil.learning.reserved import check_reserved
from mil.learning.stacked import fits_together
from mil.learning.training import FitPart, fit_model, fit_models, seen_by
from mil.settings import FitSettings
from mil.tasks.task import Fields, Task

Fitter = Callable[[str, Fold, Callable[[], FittedModel]], FittedModel]


def fit_anew(model: str, fold: Fold, fit: Callable[[], FittedModel]) -> FittedModel:
    """The default of ``cross_validate``: no fit is stored or taken up."""
    del model, fold
    return fit()


def cross_validate(  # noqa: PLR0913 - what, and how it is run
    cohort: Cohort,
    folds: Sequence[Fold],
    models: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
    fitter: Fitter = fit_anew,
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
        seed: the seed of every fit follows from it, the repeat and the fold.
        fitter: called as fitter(model, fold, fit); may return a fit that was stored, else calls fit.
            With several workers it is called in theirs.
        engine: ``loky``, processes of this machine, or ``ray``, those of a cluster.
        workers: fits at once; 0 takes one per core where that is worth their start. The predictions are
            the same for any number.
        progress: is advanced by each fit.

    Raises:
        CohortError: a column that a model reads is not in the table, or differs between slides of a case.
        LeakageError: a backbone, or a stored fit, has seen a case that would be tested with it.
        FitError: a stored fit is of another model, or one cannot be made.
    """
    check_inputs(cohort, folds, models, settings)
    columns = cohort.task.answer_columns(cohort.cases, cohort.classes)
    work = _FoldWork(cohort, settings, seed, fitter, columns)
    tasks = [
        (model, group) for model in models for group in _group_folds(cohort, model, folds, settings)
    ]
    done: dict[int, list[Fields]] = {}
    n_fits = len(models) * len(folds)
    with (progress or Silent()).task("cross-validation", n_fits, "fits") as advance:
        for number, rows in run_tasks(work, tasks, engine=engine, workers=workers):
            done[number] = rows
            for _fold in tasks[number][1]:
                advance(1)
    ordered = [row for number in sorted(done) for row in done[number]]
    return cohort.task.make_predictions(ordered, cohort.cases, cohort.classes)


def check_inputs(
    cohort: Cohort, folds: Sequence[Fold], models: Sequence[str], settings: FitSettings
) -> None:
    """Refuse what ``cross_validate`` refuses, before any work is done.

    Raises:
        CohortError, LeakageError, FitError: as ``cross_validate``.
    """
    cohort.task.check_models(models)
    check_rows(models, cohort.recipe)
    check_reserved(cohort, settings.head_weights)
    check_seen(cohort, folds)
    check_start(cohort, folds, models, settings.head_weights)
    if reads_table(models):
        readable(cohort.cases, settings.clinical)


def _group_folds(
    cohort: Cohort, model: str, folds: Sequence[Fold], settings: FitSettings
) -> list[tuple[Fold, ...]]:
    """Folds whose fits are trained as one; each by itself where fits are large."""
    head, labels = head_class(model), {case.name: case.label for case in cohort.cases}
    alone = (
        not vars(head).get("stacks")
        or cohort.task.head_outcome == "times"
        or any(settings.stops_early([labels.get(name, "") for name in f.train]) for f in folds)
    )
    size = 1
    if not alone:
        lengths = [len(bag) for bag in cohort.bags]
        together = fits_together(head, lengths, settings) // settings.seeds
        in_memory = READY_VALUES // (sum(lengths) * cohort.bags[0].features.shape[1])
        size = max(1, min(together, in_memory))
    return [tuple(folds[start : start + size]) for start in range(0, len(folds), size)]


@dataclass(frozen=True)
class _FoldWork:
    """Fits a model on some folds and predicts their test cases; may be sent to another process."""

    cohort: Cohort
    settings: FitSettings
    seed: int
    fitter: Fitter
    columns: tuple[str, ...]

    def __call__(self, model: str, folds: Sequence[Fold]) -> list[Fields]:
        fits = _FitsTogether(
            partial(fit_folds, self.cohort, model, settings=self.settings, seed=self.seed), folds
        )
        return [row for fold in folds for row in self._answer(model, fold, partial(fits, fold))]

    def _answer(self, model: str, fold: Fold, fit: Callable[[], FittedModel]) -> list[Fields]:
        """The predictions of one fold."""
        try:
            with one_thread():
                fitted = self.fitter(model, fold, fit)
                check_fit(self.cohort, model, fold, self.settings, self.seed, fitted)
                return self._predict_fold(fitted, fold)
        except SarcomilError as error:
            raise type(error)(
                f"{model}, repeat {fold.repeat}, fold {fold.index}: {error}"
            ) from error

    def _predict_fold(self, fitted: FittedModel, fold: Fold) -> list[Fields]:
        """One row per slide of the fold's test cases."""
        return [
            prediction_keys(fitted.model, fold, case, bag.slide)
            | self.cohort.task.outcome_fields(case)
            | predict(fitted, bag, case.other, self.columns)
            for case in self.cohort.named(fold.test)
            for bag in case.bags
        ]


class _FitsTogether:
    """Fits of a model on some folds, all made when the first is wanted.

    Where others of them are stored already, they are made again: to the last bits, weights depend on which
    fits were trained as one, and an interrupted run is to end as if it had not been.

    Args:
        fit: makes the fits of folds.
        folds: whose fits are wanted, each once.
    """

    def __init__(
        self, fit: Callable[[Sequence[Fold]], list[FittedModel]], folds: Sequence[Fold]
    ) -> None:
        self._fit, self._folds = fit, folds
        self._made: dict[Fold, FittedModel] = {}

    def __call__(self, fold: Fold) -> FittedModel:
        """The fit of a fold, once."""
        if fold not in self._made:
            try:
                self._made |= zip(self._folds, self._fit(self._folds), strict=True)
            except SarcomilError:  # of one among them; by itself, each says so for its own fold
                self._made[fold] = self._fit([fold])[0]
        return self._made.pop(fold)


def prediction_keys(model: str, fold: Fold, case: Case, slide: str) -> Fields:
    """The columns that say which model predicted what, in which fold."""
    return {
        "model": model,
        "repeat": fold.repeat,
        "fold": fold.index,
        "case": case.name,
        "slide": slide,
    }


def fit_fold(
    cohort: Cohort, model: str, fold: Fold, settings: FitSettings, seed: int
) -> FittedModel:
    """Fit one model on the training cases of one fold."""
    return fit_folds(cohort, model, [fold], settings, seed)[0]


def fit_folds(
    cohort: Cohort, model: str, folds: Sequence[Fold], settings: FitSettings, seed: int
) -> list[FittedModel]:
    """Fit one model on the training cases of each fold; small fits are trained as one."""
    parts = []
    for fold in folds:
        own = fold_seed(seed, fold)
        parts.append(FitPart(*set_aside(model, cohort.named(fold.train), settings, own), own))
    return fit_models(model, parts, cohort.classes, settings, task=cohort.task)


def fit_cases(
    model: str,
    cases: Sequence[Case],
    classes: Sequence[str],
    settings: FitSettings,
    seed: int,
    *,
    task: Task | None = None,
) -> FittedModel:
    """Fit one model on cases, of which it may set some aside to choose the epoch by."""
    train, valid = set_aside(model, cases, settings, seed)
    return fit_model(model, train, valid, classes, settings, seed=seed, task=task)


def set_aside(
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
    """A seed for each repeat and fold, the same for all models."""
    return int(np.random.SeedSequence([seed, fold.repeat, fold.index]).generate_state(1)[0])


def check_seen(cohort: Cohort, folds: Sequence[Fold]) -> None:
    """Refuse bags whose backbone or target stain was fitted on a case that is to be tested.

    Raises:
        LeakageError: naming the cases.
    """
    tested = {name for fold in folds for name in fold.test}
    trained = {name for bag in cohort.bags for name in bag.trained_on}
    leaked = cases_known(cohort, tested, trained) or cases_with(
        cohort, tested, {source for bag in cohort.bags for source in bag.trained_on_slides}
    )
    if leaked:
        learnt = learnt_part(cohort.recipe)
        raise LeakageError(
            f"The {learnt} of these bags was trained on {len(leaked)} cases that would be tested, e.g. "
            f"{', '.join(leaked[:3])}. {_seen_remedy(learnt)}"
        )
    if leaked := cases_known(cohort, tested, _stain_cases(cohort)):
        raise LeakageError(
            f"The stains of these bags are normalised to slides of {', '.join(leaked[:3])}, which would be "
            "tested. Extract with a stain_reference whose case is not in the cohort."
        )


def _seen_remedy(learnt: str) -> str:
    """What to use instead of bags whose backbone, or whose regions, know a tested case."""
    if "masks" in learnt:
        return (
            "Use a backbone that has not seen them, and masks that people have drawn, or contours by a "
            "network of other cases."
        )
    other = learnt.replace(" the ", " a ")
    way = "train both" if "segmenter" in learnt else "fine-tune the backbone"
    return f"Use bags of a {other} that has not seen them, or {way} within each fold."


def check_start(
    cohort: Cohort, folds: Sequence[Fold], models: Sequence[str], head_weights: str
) -> None:
    """Refuse weights to start from that do not suit the models or their bags, or that know a tested case.

    Raises:
        FitError: they do not suit.
        LeakageError: they were trained on cases that would be tested.
    """
    if not head_weights:
        return
    check_head_weights(head_weights, models, cohort.recipe)
    start = read_head_weights(head_weights)
    tested = {name for fold in folds for name in fold.test}
    leaked = cases_known(cohort, tested, start.trained_on) or cases_with(
        cohort, tested, set(start.trained_on_slides)
    )
    if leaked:
        raise LeakageError(
            f"head_weights, {head_weights}, has seen {len(leaked)} cases that would be tested, e.g. "
            f"{', '.join(leaked[:3])}. Start from weights of other cases."
        )


def _stain_cases(cohort: Cohort) -> set[str]:
    """The cases whose slides all stains were normalised to."""
    cases: set[str] = set()
    for part in recipe_parts(cohort.recipe):
        reference = part.get("stain_reference")
        if isinstance(reference, Mapping):
            cases |= {
                case.name
                for case in cohort.cases
                if matching((bag.slide for bag in case.bags), reference["slides"])
            }
            cases |= set(reference["cases"])
            cases |= set(cases_with(cohort, cohort.names, set(reference.get("sources", ()))))
    return cases


def cases_with(cohort: Cohort, names: Iterable[str], sources: Collection[str]) -> list[str]:
    """Those of the cases, sorted, that have a slide with one of these fingerprints, whatever its name."""
    names = set(names)
    return sorted(
        case.name
        for case in cohort.cases
        if case.name in names and any(not bag.sources.isdisjoint(sources) for bag in case.bags)
    )


def cases_known(cohort: Cohort, names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of the cases, sorted, of a patient among the others, as their names or barcodes of slides say."""
    names = set(names)
    slides = ((c.name, bag.slide) for c in cohort.cases if c.name in names for bag in c.bags)
    return cases_among(slides, others)


def check_fit(
    cohort: Cohort,
    model: str,
    fold: Fold,
    settings: FitSettings,
    seed: int,
    fitted: FittedModel,
) -> None:
    """Refuse a fit that is not the one ``fit_fold`` would make: it may have been stored earlier.

    Raises:
        LeakageError: it has seen a case that would be tested with it.
        FitError: it is of another model or other settings, or has seen other cases.
    """
    if leaked := matching(fold.test, fitted.trained_on):
        raise LeakageError(
            f"{fitted.model} was trained on {', '.join(leaked)}, which would be tested."
        )
    start = read_head_weights(settings.head_weights) if settings.head_weights else None
    start = start if start and start.model == model else None
    cases = tuple(sorted(seen_by(cohort.named(fold.train), start)))
    expected = model, settings, fold_seed(seed, fold), cohort.recipe_sha256, cases
    stored = fitted.model, fitted.settings, fitted.seed, fitted.recipe_sha256, fitted.trained_on
    if stored != expected:
        raise FitError(
            f"the stored fit (of {fitted.model}) is another one: its settings, its bags or its training "
            "cases differ. Remove its file and run again, or write to another folder."
        )
