"""One-time external validation: one model of a run on cases that none of its fits has seen.

The cases are those a table marks with ``split`` = ``test``, or all cases of a table without such marks. They
are predicted by the ensemble of all fits of the model in the cross-validation. Where each fold has fine-tuned
a backbone, each fit reads the slides as its own fold's backbone embeds them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from features.errors import FeaturesError
from mil.baselines.tile_vote import TileVoteLogits
from mil.data.case import Case, Row
from mil.data.cohort import Cohort, assemble
from mil.data.duplicates import lookalikes_across
from mil.data.new_columns import unlike_values, unread_values
from mil.data.splits import Fold
from mil.data.table import read_table, rows_to_judge
from mil.errors import LeakageError, MilError, RunError
from mil.evaluation.judge import Evaluation, evaluate
from mil.evaluation.predictions import Predictions, write_predictions
from mil.heads.ensemble import members_of
from mil.heads.registry import head_class
from mil.learning.crossval import cases_known, cases_with, check_seen
from mil.learning.fitted import FittedModel, run_head
from mil.likeness.reference import Likeness
from mil.runs.files import write_json
from mil.runs.fold_bags import (
    ExternalSlides,
    check_unseen_files,
    embed_by_folds,
    fold_cohorts,
    names_seen,
)
from mil.runs.run import Run, to_run
from mil.runs.slide_reference import fold_reference_of_run, reference_of_run
from mil.runs.validation_log import (
    ValidationRecord,
    check_same_model,
    earlier_records,
    log_paths,
    new_record,
    planned_record,
    record_validation,
)

LOGIT = "logit_"


@dataclass(frozen=True, kw_only=True)
class ExternalValidation:
    """One model on cases that none of its fits has seen.

    Attributes:
        record: what the logs say of it.
        earlier: records of the same model on any of these cases.
        n_members: fits in the ensemble.
        predictions: of the ensemble, one row per slide.
        evaluation: of the predictions.
        unlike: by slide, how it compares with the slides that the run was trained on; see
            ``mil.answers.reference.Likeness``. Empty where those are gone.
        path: the folder with predictions.csv and metrics.json.
        logs: the files that record the validation.
    """

    record: ValidationRecord
    earlier: tuple[ValidationRecord, ...]
    n_members: int
    predictions: Predictions
    evaluation: Evaluation
    unlike: Mapping[str, Likeness]
    path: Path
    logs: tuple[Path, ...]


def external_validation(
    run: Run | Path | str,
    model: str,
    table: Path | str,
    store: Path | str,
    *,
    name: str | None = None,
    allow_missing: bool = False,
    slides: ExternalSlides | None = None,
    notify: Callable[[str], None] | None = None,
) -> ExternalValidation:
    """Test one model of a finished cross-validation on unseen cases, and record it.

    Args:
        run: the cross-validation: its folder, or the open run.
        model: the model, chosen by the cross-validation.
        table: cases, slides and outcomes; where some rows say ``split`` = ``test``, only those are used.
        store: the bag store of these slides. Of a run that fine-tuned a backbone in each fold, the folder of
            one store for each, which are filled from ``slides``.
        name: of the folder in ``external`` of the run; that of the table if not given.
        allow_missing: go on without slides that lack a bag or an outcome.
        slides: where the slides are, for a run that fine-tuned a backbone in each fold.
        notify: called with each row that is left out, and each slide that looks like one of the run.

    Raises:
        LeakageError: a case has been seen, or another model has been tested on one of the cases.
        RunError: the run has no such model or is not finished, or a log cannot be read or written.
        CohortError: the table and the store do not go together.
        FitError: a fit is missing, or a bag was made by another recipe.
    """
    run, table, store = to_run(run), Path(table), Path(store)
    notify = notify or (lambda _text: None)
    members = run.fits(model)
    rows = rows_to_judge(read_table(table, run.settings.reading, notify))
    logs = log_paths(table, store, run.path)
    if slides:  # refused before hours of embedding rather than after
        planned = planned_record(run, model, table, rows)
        check_same_model(earlier_records(logs, planned), planned)
    cohorts = _cohorts(
        run, members, rows, store, slides, allow_missing=allow_missing, source=table.name
    )
    for row, reason in cohorts[0].excluded:
        notify(f"Left out: {row}: {reason}")
    check_unseen(run, members, *cohorts)
    check_second_scans(run, cohorts[0], notify)
    _note_columns(members, cohorts[0], notify)
    unlike = compare_slides(run, cohorts[0], notify, cohorts)
    record = new_record(run, model, table, cohorts[0])
    check_same_model(earlier_records(logs, record), record)
    predictions = predict_ensemble(members, *cohorts)  # uses no label: the cases are still unseen
    path = run.path / "external" / (name or table.stem)
    path.parent.mkdir(exist_ok=True)
    earlier = record_validation(logs, record)
    path.mkdir(exist_ok=True)
    write_predictions(path / "predictions.csv", predictions)
    evaluation = evaluate(predictions)
    facts = {
        "members": len(members),
        "table_sha256": record.table_sha256,
        "read": record.date,
        "unlike": {
            slide: None if math.isnan(found.ratio) else round(found.ratio, 4)
            for slide, found in unlike.items()
        },
    }
    write_json(path / "metrics.json", evaluation.to_json() | facts)
    return ExternalValidation(
        record=record,
        earlier=earlier,
        n_members=len(members),
        predictions=predictions,
        evaluation=evaluation,
        unlike=unlike,
        path=path,
        logs=logs,
    )


def _note_columns(
    members: Sequence[FittedModel], cohort: Cohort, notify: Callable[[str], None]
) -> None:
    """Notify of columns that are unlike all that a model of the table has learnt from."""
    encodings = [member.encoding for member in members if member.encoding]
    cases = {case.name: case.other for case in cohort.cases}
    for note in unread_values(encodings, cases):
        notify(note)
    for reason in unlike_values(encodings, cases):
        notify(
            f"{reason[0].upper()}{reason[1:]}. The answers count here; for a new case none would be given."
        )


def _cohorts(
    run: Run,
    members: Sequence[FittedModel],
    rows: Sequence[Row],
    store: Path,
    slides: ExternalSlides | None,
    *,
    allow_missing: bool,
    source: str,
) -> tuple[Cohort, ...]:
    """The cases: with the bags of each fold's backbone where folds have fine-tuned, else once for all."""
    if run.settings.finetunes:
        if slides:
            jobs = slides.jobs(rows)
            check_unseen_files(run, members, jobs)
            embed_by_folds(run, members, jobs, slides, store, allow_missing=allow_missing)
        return fold_cohorts(run, rows, store, allow_missing=allow_missing, source=source)
    if slides:
        raise RunError(
            f"{run.path} reads bags of one backbone: extract the slides into {store} as its own were, and "
            "leave out slides."
        )
    cohort = assemble(
        rows,
        store,
        task=run.task,
        allow_missing=allow_missing,
        allow_duplicates=run.settings.allow_duplicates or None,
        source=source,
    )
    return (cohort,)


def compare_slides(
    run: Run, cohort: Cohort, notify: Callable[[str], None], by_fold: Sequence[Cohort] = ()
) -> dict[str, Likeness]:
    """How the slides of a cohort compare with those of a run; they are judged whatever that says.

    Args:
        run: the cross-validation.
        cohort: of unseen cases, with bags of the run's recipe.
        notify: called with each slide for which a new case would get no answer, and their number.
        by_fold: the cohort with the bags of each fold's backbone, where folds have fine-tuned.
    """
    if run.settings.finetunes:
        folds, missing = fold_reference_of_run(run)
        bags_of = zip(*(own.bags for own in by_fold), strict=True)
        unlike = {bags[0].slide: folds.compare(bags) for bags in bags_of} if folds else {}
    else:
        reference, missing = reference_of_run(run)
        unlike = {bag.slide: reference.compare(bag) for bag in cohort.bags} if reference else {}
    if missing:
        notify(missing)
        return {}
    unanswered = {slide: found for slide, found in unlike.items() if found.unfit or found.abstains}
    for slide, found in unanswered.items():
        notify(f"{slide}: {found.unfit or found.abstains}")
    if unanswered:
        notify(
            f"{len(unanswered)} of {len(unlike)} slides are unlike those the model learnt from. Their "
            "answers count here; for a new case none would be given."
        )
    return unlike


def check_unseen(run: Run, members: Sequence[FittedModel], cohort: Cohort, *others: Cohort) -> None:
    """Refuse cases that any of the models, their backbone or their stain has seen, under any name.

    Args:
        run: the cross-validation.
        members: its fits of a model.
        cohort: the cases.
        others: the same cases with the bags of other backbones.

    Raises:
        LeakageError: naming them.
    """
    names = [case.name for case in cohort.cases]
    seen = cases_known(cohort, names, names_seen(run, members))
    checksums = set(run.bags.values())
    seen += [
        case.name
        for case in cohort.cases
        if case.name not in seen and any(bag.data_sha256 in checksums for bag in case.bags)
    ]
    slides = {source for member in members for source in member.trained_on_slides}
    seen += [name for name in cases_with(cohort, names, slides) if name not in seen]
    if seen:
        raise LeakageError(
            f"{len(seen)} of {len(names)} cases were used to train this run, e.g. {', '.join(seen[:3])}. "
            "External cases are ones it has not seen: take these out of the table, or mark cases with "
            "split=test before the cross-validation, which then leaves them alone."
        )
    for own in (cohort, *others):
        check_seen(own, [Fold(repeat=0, index=0, train=(), test=tuple(names))])


def check_second_scans(run: Run, cohort: Cohort, notify: Callable[[str], None]) -> None:
    """Refuse slides that show specimens that the run was trained on, scanned again or saved otherwise.

    Raises:
        LeakageError: naming them.
    """
    try:
        trained = run.cohort()
    except (MilError, FeaturesError) as error:
        notify(f"Not known whether these slides show specimens of the run's own slides: {error}")
        return
    pairs = lookalikes_across(trained, cohort)
    if pairs:
        more = f" {len(pairs) - 1} more pairs look alike." if len(pairs) > 1 else ""
        raise LeakageError(
            f"{pairs[0]}{more} The run was trained on these specimens, so that their cases are not external: "
            "take them out of the table."
        )


def predict_ensemble(
    members: Sequence[FittedModel], cohort: Cohort, *others: Cohort
) -> Predictions:
    """Average the logits of all models and of all slides of a case, then read the answer from the mean.

    As in Navarro et al. 2021 (doi:10.3390/cancers13122866): 15 models of 3 x 5 folds, one score per
    patient. A fit of several seeds counts as so many models. A model whose logits are themselves means over
    tiles weighs slides by their tiles, so that its score is the mean over all models and all tiles of the
    case. Where logits of different fits are not on one scale, as those of a risk, the answers of the fits are
    averaged instead.

    Args:
        members: the fits.
        cohort: the cases, with the bags that all fits read, or the first of them.
        others: the same cases with the bags that each further fit reads.

    Returns:
        One row per slide: the answer for its case, and the slide's own mean logits in columns
        ``logit_<name>`` where logits are on one scale.

    Raises:
        FitError: a bag was made by another recipe than the models'.
        CohortError: a model reads a column that the table does not have.
        PredictionsError: a case has a label that the models do not know.
    """
    first, task = members[0], cohort.task
    readout = first.readout
    columns = task.answer_columns(cohort.cases, readout.labels)
    per_tile = issubclass(head_class(first.model), TileVoteLogits)
    rows: list[dict[str, object]] = []
    own_logits: list[dict[str, float]] = []
    by_member = (cohort, *others) if others else (cohort,) * len(members)
    for case, *own in zip(cohort.cases, *(one.cases for one in by_member), strict=True):
        weights = [float(len(bag)) if per_tile else 1.0 for bag in case.bags]
        if readout.same_scale:
            slides = _mean_logits(members, own)
            answer = readout.answer(_weighted_mean(slides, weights), columns)
            own_logits += [
                dict(zip([LOGIT + name for name in readout.outputs], row, strict=True))
                for row in slides.tolist()
            ]
        else:
            answer = _mean_answer(members, own, weights, columns)
        for bag in case.bags:
            keys = {
                "model": first.model, "repeat": 0, "fold": 0, "case": case.name, "slide": bag.slide,
            }  # fmt: skip
            rows.append({**keys, **task.outcome_fields(case), **answer})
    predictions = task.make_predictions(rows, cohort.cases, readout.labels)
    if not own_logits:
        return predictions
    return replace(predictions, table=predictions.table.join(pd.DataFrame(own_logits)))


def _mean_logits(members: Sequence[FittedModel], cases: Sequence[Case]) -> Tensor:
    """(slides, C) mean over all networks; each member reads a case with its own bags."""
    networks = [
        (network, case)
        for member, case in zip(members, cases, strict=True)
        for network in _networks(member)
    ]
    by_slide = [
        torch.stack(
            [
                run_head(network, case.bags[n], case.other).logits[0].double()
                for network, case in networks
            ]
        ).mean(0)
        for n in range(len(cases[0].bags))
    ]
    return torch.stack(by_slide)


def _mean_answer(
    members: Sequence[FittedModel],
    cases: Sequence[Case],
    weights: Sequence[float],
    columns: Sequence[str],
) -> dict[str, float]:
    """The mean of what each fit answers from its own mean over the slides."""
    answers = [
        member.readout.answer(_weighted_mean(_mean_logits([member], [case]), weights), columns)
        for member, case in zip(members, cases, strict=True)
    ]
    return {name: sum(answer[name] for answer in answers) / len(answers) for name in answers[0]}


def _weighted_mean(slides: Tensor, weights: Sequence[float]) -> Tensor:
    """(C,) from (slides, C)."""
    weight = torch.tensor(weights).double()
    return (weight / weight.sum()) @ slides


def _networks(fitted: FittedModel) -> tuple[FittedModel, ...]:
    return tuple(replace(fitted, head=head) for head in members_of(fitted.head))
