"""From a run folder to everything its page shows. Heatmaps come from models that have not seen the case."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from features.progress import Progress, Silent
from features.recipe import has_random_weights
from mil.audit.judged import load_judged
from mil.data.cohort import Cohort
from mil.data.columns import note_declared, telling_columns
from mil.data.splits import Fold
from mil.data.table import read_table, split_train_test
from mil.evaluation.judge import compare, evaluate
from mil.explanation.default import default_scores
from mil.explanation.heatmap import draw_layers, scale_stops
from mil.explanation.target import explanation_target
from mil.heads.registry import head_class, loadable_models, loading_problem
from mil.report.facts import IN_TABLE, Facts, Heatmap
from mil.report.sections import Report, load_sections
from mil.runs.facts import start_notes
from mil.runs.run import Run
from mil.runs.run_log import describe_runs
from mil.runs.unchanged import check_outcomes
from mil.tasks.names import TaskColumns


def gather(run: Run, *, progress: Progress | None = None) -> Report[Any, Any, Any]:
    """Collect what the page of a finished cross-validation shows.

    Raises:
        RunError: the run is not a finished cross-validation.
        CohortError: its table or its bags are no longer there.
    """
    cohort, folds = run.cohort(), run.folds
    page = run.task.page
    predictions, evaluation, comparison = _judge(run, cohort)
    warnings = [
        *_backbone_warnings(cohort),
        *load_sections(page).warnings(cohort, evaluation),
        *_site_warnings(cohort),
        *filter(None, [describe_runs(run, cohort)]),
        *note_declared(cohort.cases),
        *_head_warnings(run),
        *start_notes(run),
    ]
    return Report(
        page=page,
        facts=_facts(run, cohort, folds, warnings, progress or Silent()),
        predictions=predictions,
        evaluation=evaluation,
        comparison=comparison,
        confounders=load_judged(run.task.audit).confounders(cohort, folds)[0],
        hazards=load_sections(page).read_hazards(run.path),
    )


def _judge(run: Run, cohort: Cohort) -> tuple[Any, Any, Any]:
    """The predictions, their evaluation and the comparison of models."""
    predictions = run.predictions()
    check_outcomes(predictions, cohort)
    return predictions, evaluate(predictions), compare(predictions)


def _facts(
    run: Run,
    cohort: Cohort,
    folds: Sequence[Fold],
    warnings: Sequence[str],
    progress: Progress,
) -> Facts:
    rows = read_table(run.table, run.settings.reading)
    heatmaps = _heatmaps(run, cohort, folds, progress)
    return Facts(
        title=run.title,
        created=run.finished,
        warnings=tuple(warnings),
        in_table=(len({row.case for row in rows}), len(rows)),
        external=len({row.case for row in split_train_test(rows)[1]}),
        cohort=_cohort_table(cohort),
        telling=tuple(
            found.column for found in telling_columns(cohort.cases, cohort.cases[0].other)
        ),
        known_at_diagnosis=cohort.cases[0].known_at_diagnosis,
        excluded=cohort.excluded,
        folds=_folds_table(cohort, folds),
        heatmaps=heatmaps,
        heatmap_scale=next((drawn.scale for drawn in heatmaps.values()), ()),
        recipe=cohort.recipe,
        settings=run.settings.stored,
        versions=run.versions,
        outcome_columns=_outcome_columns(run),
    )


def _outcome_columns(run: Run) -> tuple[str, ...]:
    """The columns that hold an outcome of any task."""
    names = {field.name for field in fields(TaskColumns)} - {"time_unit", "grade_order"}
    stored = run.settings.stored
    return tuple(sorted(str(stored[name]) for name in names if stored.get(name)))


def _backbone_warnings(cohort: Cohort) -> list[str]:
    warnings = []
    if has_random_weights(cohort.recipe):
        warnings.append(
            "The backbone's weights are random: it has learned nothing from images. The numbers show that "
            "the pipeline works, not what a trained backbone would reach."
        )
    if cohort.unknown_weights:
        warnings.append(
            f"The backbone's weights, {cohort.unknown_weights}, do not say which cases they were trained on. "
            "If those include cases of this cohort, none of the numbers can be believed."
        )
    return warnings


def _site_warnings(cohort: Cohort) -> list[str]:
    if len({case.site for case in cohort.cases}) < 2:
        return []
    return [
        "The cases come from several sites. Unless the folds hold out whole sites, a model may have learned "
        "to recognise the site instead of the disease."
    ]


def _cohort_table(cohort: Cohort) -> pd.DataFrame:
    rows = []
    for case in cohort.cases:
        row: dict[str, object] = {"case": case.name, "label": case.label}
        if case.time is not None:
            row["time"] = case.time
        row |= {"slides": len(case.bags), "tiles": sum(len(bag) for bag in case.bags)}
        if case.site:
            row["site"] = case.site
        further = {k + IN_TABLE if k in row else k: v for k, v in case.other.items()}
        rows.append(row | further)
    return pd.DataFrame(rows)


def _folds_table(cohort: Cohort, folds: Sequence[Fold]) -> pd.DataFrame:
    label_of = {case.name: case.label for case in cohort.cases}
    rows = [(fold.repeat, fold.index, case, label_of[case]) for fold in folds for case in fold.test]
    return pd.DataFrame(rows, columns=["repeat", "fold", "case", "label"])


def _head_warnings(run: Run) -> list[str]:
    return [
        f"{model} cannot be loaded here, so the page shows none of its maps. {problem}"
        for model in run.models
        if (problem := loading_problem(model))
    ]


def _heatmaps(
    run: Run, cohort: Cohort, folds: Sequence[Fold], progress: Progress
) -> dict[str, Heatmap]:
    """The default map of the first attention model on each slide of the first repeat's test cases."""
    attending = [name for name in loadable_models(run.models) if head_class(name).learns_attention]
    drawn: dict[str, Heatmap] = {}
    if not attending:
        return drawn
    model = attending[0]
    n_slides = sum(len(case.bags) for case in cohort.cases)
    with progress.task("heatmaps", n_slides, "slides") as advance:
        for fold in (fold for fold in folds if fold.repeat == 0):
            if not run.model_path(model, fold).exists():
                continue  # removed to save space; the page says that maps are missing
            fitted = run.load(model, fold)
            for case in cohort.named(fold.test):
                for bag in case.bags:
                    scores = default_scores(explanation_target(fitted, bag))
                    target = f" for {scores.target}" if scores.target else ""
                    caption = (
                        f"{scores.method}{target} of {model}, fold {fold.index}: case not seen"
                    )
                    slide, tiles = draw_layers(scores)
                    drawn[bag.slide] = Heatmap(
                        slide_picture=slide,
                        map_png=tiles,
                        caption=caption,
                        scale=scale_stops(scores),
                    )
                    advance(1)
    return drawn
