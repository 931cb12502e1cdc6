"""`mil crossval --task survival`: from bags to risks, and curves of who is at risk."""

from dataclasses import replace
from typing import TYPE_CHECKING

from cli.cohort import KeptIn, begun, combination, reading
from cli.learn import CrossvalOptions
from cli.options import UsageError, part_of, writable, wrong_use
from mil.settings import DEFAULT_MODELS, FitSettings, SplitSettings

if TYPE_CHECKING:
    from mil.data.cohort import Cohort
    from mil.evaluation.survival.evaluate import SurvivalEvaluation
    from mil.evaluation.survival.hazards import Hazard
    from mil.evaluation.survival.predictions import SurvivalPredictions
    from mil.runs.run import Run

SURVIVAL_MODELS = ("majority", "pooled-logistic", "mean", "abmil")


def run_survival(options: CrossvalOptions) -> "SurvivalEvaluation":
    """Write the run folder, print the comparison, draw the curves."""
    from cli.console import say, show_tables, warn
    from mil.errors import FitError
    from mil.evaluation.survival.evaluate import evaluate_survival
    from mil.evaluation.survival.hazards import hazard_tables, write_hazards
    from mil.evaluation.survival.predictions import write_survival
    from mil.heads.registry import check_chunks, check_names, check_outcomes
    from mil.report.risk_groups import write_survival_figures
    from mil.runs.files import write_json
    from mil.runs.record import finish_run

    if options.models == DEFAULT_MODELS:
        options = replace(options, models=SURVIVAL_MODELS)
    if options.finetune == "per-fold":
        raise UsageError(
            "A backbone is fine-tuned on classes, not on survival. Leave --finetune out."
        )
    with wrong_use():
        check_names(options.models)
        check_names([options.combine] if options.combine else [])
        asked = [*options.models, *filter(None, [options.combine])]
        check_outcomes(asked)
        check_chunks(asked, options.chunk_tiles)
    writable(options.out)
    run, predictions, columns = _predicted(options)
    write_survival(options.out / "predictions.csv", predictions)
    evaluation = evaluate_survival(predictions, options.time_unit)
    write_json(options.out / "metrics.json", evaluation.to_json())
    write_survival_figures(options.out / "survival", predictions, options.time_unit)
    finish_run(run)
    show_tables(evaluation.tables())
    if columns:
        try:
            tables = hazards_beside(predictions, columns)
        except FitError as error:  # of too few events, say: the run itself is whole
            warn(f"No Cox regression beside the clinical columns: {error}")
        else:
            write_hazards(options.out / "survival" / "cox.csv", tables)
            show_tables(hazard_tables(tables))
    say(f"Kaplan-Meier curves: {options.out / 'survival'}")
    say(f"Run folder: {options.out}. Next: mil report {options.out}")
    return evaluation


def _predicted(
    options: CrossvalOptions,
) -> "tuple[Run, SurvivalPredictions, dict[str, dict[str, str]]]":
    """Cross-validate on the bags of a store; with what the table says of each case, if it is asked."""
    from cli.console import Bars
    from mil.baselines.encoding import clinical_columns
    from mil.evaluation.survival.predictions import joined
    from mil.heads.registry import reads_table
    from mil.learning.combined import combine_survival
    from mil.learning.crossval import cross_validate_survival

    split = part_of(options, SplitSettings)
    cohort, folds, run = begun(options, lambda cohort: strata(cohort, split))
    predictions = cross_validate_survival(
        cohort,
        folds,
        options.models,
        part_of(options, FitSettings),
        seed=options.seed,
        keep=KeptIn(run),
        engine=options.engine,
        workers=options.workers,
        progress=Bars(),
    )
    if options.combine:
        combined = combine_survival(
            combination(options, cohort, run),
            folds,
            engine=options.engine,
            workers=options.workers,
            progress=Bars(),
        )
        predictions = joined(predictions, combined)
    columns = {}
    if options.clinical or reads_table(reading(options)):
        names = clinical_columns(cohort.cases, options.clinical)
        columns = {case.name: {name: case.other[name] for name in names} for case in cohort.cases}
    return run, predictions, columns


def strata(cohort: "Cohort", split: SplitSettings) -> list[str]:
    """By what folds are stratified: the event; where too few are censored for it, nothing."""
    from mil.data.outcomes import CENSORED, EVENT

    labels = [case.label for case in cohort.cases]
    needed = int(split.folds) if split.folds.isdecimal() else 2
    return labels if labels.count(CENSORED) >= needed else [EVENT] * len(labels)


def hazards_beside(
    predictions: "SurvivalPredictions", columns: dict[str, dict[str, str]]
) -> "dict[str, tuple[Hazard, ...]]":
    """Per model that tells cases apart, its risk out of fold, in standard deviations, beside the columns."""
    from mil.evaluation.regression.design import fit_design
    from mil.evaluation.survival.hazards import hazard_table

    tables = {}
    for model in predictions.models:
        held = predictions.mean_risks(model)
        if "clinical" in model or held.risk.std() == 0:  # they have read the columns themselves
            continue
        values = [columns[case] for case in held.case]
        table = {name: [value[name] for value in values] for name in values[0]}
        design = fit_design(table)
        rows = dict(zip([term.name for term in design.terms], design.rows(table).T, strict=True))
        risk = {f"{model} risk (per SD)": held.risk / held.risk.std()}
        tables[model] = hazard_table(risk | rows, held.time, held.event)
    return tables
