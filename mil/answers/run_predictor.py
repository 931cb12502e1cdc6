"""The predictor of a run: of a cross-validation, the ensemble of its fits."""

from collections.abc import Mapping
from pathlib import Path

from features.recipe import VOLUME
from mil.answers.predictor import Fit, Predictor
from mil.answers.reading import Reader, reader_class
from mil.data.names import patient_of
from mil.data.splits import Fold
from mil.errors import RunError
from mil.evaluation.display import Table
from mil.likeness.hidden import hidden, hidden_case
from mil.likeness.reference import SlideReference
from mil.runs.inputs import FOREIGN_REGIONS
from mil.runs.run import Run, require_model
from mil.runs.slide_reference import fold_reference_of_run, reference_of_run

NO_PICTURES = (
    "No pictures of the training slides are known: one that was scanned again, or saved again with loss, is "
    "not recognised."
)
LOST_SEGMENTERS = (
    "The segmenters of the run's folds are not there: an earlier version made it, or they were removed. "
    "Nothing is promised of raw slides, whose tiles are chosen in another way."
)


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
    require_model(run, name)
    fit = Fit(0, 0, run.load(name))
    reader = reader_class(run.task).of_run(fit.model.readout, None, name)
    return _predictor(run, name, (fit,), reader, "", ())


def _of_cross_validation(run: Run, model: str) -> Predictor:
    from mil.evaluation.judge import evaluate

    run.require_finished()
    _check_slides(run)
    predictions = run.predictions()
    able = [name for name in run.models if name in predictions.models]
    notes: tuple[str, ...] = ()
    if not model:
        evaluation = evaluate(predictions.select(able))
        model = evaluation.best().model
        if len(able) > 1:
            notes = (
                f"Model {model}: the best of {len(able)} in {run.path}, so its figures are optimistic.",
            )
    notes += _segmenter_notes(run)
    fits = tuple(
        Fit(
            fold.repeat,
            fold.index,
            member,
            segmenter=_existing(run.fold_segmenter(fold)),
            weights=_weights(run, fold) if run.settings.finetunes else None,
        )
        for fold, member in zip(run.folds, run.fits(model), strict=True)
    )
    reader = reader_class(run.task).of_run(fits[0].model.readout, predictions, model)
    performance = _performance(evaluate(predictions.select([model])).tables()[0])
    return _predictor(run, model, fits, reader, performance, notes)


def _check_slides(run: Run) -> None:
    """Refuse a run whose folds have embedded what is no slide, and that no new bag can suit.

    Raises:
        RunError: with what can be done.
    """
    region = str(run.recipe.get("region"))
    if run.settings.finetunes and region in FOREIGN_REGIONS:
        raise RunError(
            f"{run.path} fine-tuned a backbone in each fold on {FOREIGN_REGIONS[region]}, and only slides "
            "are embedded by every backbone here. With labels, new ones can be judged (external_validation)."
        )


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


def _weights(run: Run, fold: Fold) -> Path:
    """The backbone of a fold.

    Raises:
        RunError: it is gone.
    """
    path = run.fold_weights(fold)
    if not path.is_file():
        raise RunError(f"{path} is not there, so no slide can be embedded. Make the run again.")
    return path


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
    from mil.heads.registry import head_class, reads_table

    if head_class(model).learns_from == "counts":
        notes += (f"Model {model} looks at no slide: it answers the same for every case.",)
    by_fold, reference = None, None
    if run.settings.finetunes:
        by_fold, note = fold_reference_of_run(run)
        reference = by_fold.facts.hidden() if by_fold else None
    else:
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
        by_fold=by_fold,
    )


def _performance(table: Table) -> str:
    """The measures of the first row of a table of models, as one line.

    Measures are known for guessing, the last row, too; what follows the last of them, as a test of groups, is
    none.
    """
    end = max(place for place, cell in enumerate(table.rows[-1]) if cell) + 1
    cells = zip(table.header[1:end], table.rows[0][1:end], strict=True)
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
