"""From a run folder to everything its page shows; heatmaps are drawn by models that never saw the case."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from features.progress import Progress, Silent
from mil.audit.confounders import find_confounders
from mil.data.cohort import Cohort, read_table, split_train_test
from mil.data.outcomes import EVENT
from mil.data.splits import Fold
from mil.errors import RunError
from mil.evaluation.classification.evaluate import Evaluation, evaluate
from mil.evaluation.comparison import compare_models
from mil.evaluation.predictions import Predictions
from mil.evaluation.survival.evaluate import evaluate_survival
from mil.evaluation.survival.hazards import read_hazards
from mil.evaluation.survival.predictions import SurvivalPredictions, read_survival
from mil.explain.attention import attention_scores
from mil.explain.heatmap import draw_small, scale_stops
from mil.heads.registry import head_class
from mil.report.frame import Heatmap
from mil.report.page import Report
from mil.report.survival_page import SurvivalReport
from mil.runs.run import Run

SCARCE = 10  # cases per class below which one case moves sensitivity by more than ten points
SCARCE_EVENTS = 20  # their number, not that of cases, says how much is known


def gather(run: Run, *, progress: Progress | None = None) -> Report:
    """Collect what the page of a finished cross-validation shows.

    Raises:
        RunError: the run is not a finished cross-validation.
        CohortError: its table or its bags are no longer there.
    """
    cohort, folds = run.cohort(), run.folds
    predictions = run.predictions()
    check_labels(predictions, cohort)
    evaluation = evaluate(predictions)
    return Report(
        **_facts(run, cohort, folds, progress or Silent()),
        warnings=tuple(_warnings(cohort, evaluation)),
        predictions=predictions,
        evaluation=evaluation,
        comparison=compare_models(predictions),
        confounders=find_confounders(cohort, folds)[0],
    )


def gather_survival(run: Run, *, progress: Progress | None = None) -> SurvivalReport:
    """The same of survival; raises likewise."""
    cohort, folds = run.cohort(), run.folds
    predictions = read_survival(run.predictions_path)
    _check_outcomes(predictions, cohort)
    hazards = run.path / "survival" / "cox.csv"
    return SurvivalReport(
        **_facts(run, cohort, folds, progress or Silent()),
        warnings=tuple(_survival_warnings(cohort)),
        predictions=predictions,
        evaluation=evaluate_survival(predictions, run.settings.time_unit),
        hazards=read_hazards(hazards) if hazards.is_file() else {},
    )


def _facts(run: Run, cohort: Cohort, folds: Sequence[Fold], progress: Progress) -> dict[str, Any]:
    """The fields of ``Facts`` but its warnings."""
    rows = read_table(run.table)
    return {
        "title": run.title,
        "created": run.finished,
        "asked": (len({row.case for row in rows}), len(rows)),
        "aside": len({row.case for row in split_train_test(rows)[1]}),
        "cohort": _cohort_table(cohort),
        "excluded": cohort.excluded,
        "folds": _folds_table(cohort, folds),
        "heatmaps": _heatmaps(run, cohort, folds, progress),
        "heatmap_scale": scale_stops(),
        "recipe": cohort.recipe,
        "settings": run.settings.stored,
        "versions": run.versions,
    }


def check_labels(predictions: Predictions, cohort: Cohort) -> None:
    """Cases still have the label they were judged by."""
    judged = dict(zip(predictions.table["case"], predictions.table["label"], strict=True))
    changed = [case.name for case in cohort.cases if judged.get(case.name) != case.label]
    if changed:
        raise RunError(
            f"{len(changed)} cases have another label than in the run, e.g. {changed[0]}. "
            "Run `mil crossval` again."
        )


def _check_outcomes(predictions: SurvivalPredictions, cohort: Cohort) -> None:
    """Cases still have the outcome they were judged by."""
    columns = (predictions.table[name] for name in ("case", "time", "event"))
    judged = {case: (time, event == 1) for case, time, event in zip(*columns, strict=True)}
    changed = [c.name for c in cohort.cases if judged.get(c.name) != (c.time, c.label == EVENT)]
    if changed:
        raise RunError(
            f"{len(changed)} cases have another outcome than in the run, e.g. {changed[0]}. "
            "Run `mil crossval` again."
        )


def _warnings(cohort: Cohort, evaluation: Evaluation) -> list[str]:
    """What a reader must know before any number."""
    found = _of_backbone(cohort)
    counts = Counter(case.label for case in cohort.cases)
    fewest = min(counts.values())
    scarce = ", ".join(sorted(label for label, count in counts.items() if count == fewest))
    if fewest < SCARCE:
        found.append(
            f"Few cases: {scarce} {'have' if ', ' in scarce else 'has'} {fewest}. One case more or less "
            f"right moves such a class's sensitivity by {100 / fewest:.0f} points; read the intervals, "
            "not the middle."
        )
    found += _of_sites(cohort)
    constant = [
        r for r in evaluation.models if r.model == "majority" and r.accuracy.value is not None
    ]
    if any((r.accuracy.value or 0) < evaluation.majority_share - 1e-9 for r in constant):
        found.append(
            "Folds leave out unequal shares of the classes, so each model trains on fewer cases of the class "
            "it is asked about. That pulls the majority rule, and every weak model, below guessing: a model "
            "must beat the line 'always the most frequent class', not the majority row."
        )
    return found


def _survival_warnings(cohort: Cohort) -> list[str]:
    """The same of survival."""
    found = _of_backbone(cohort)
    events = sum(case.label == EVENT for case in cohort.cases)
    if events < SCARCE_EVENTS:
        found.append(
            f"Few events: {events}. What is known of who is at risk comes from them, and each is in many of "
            "the pairs that C counts; read the intervals, not the middle."
        )
    return found + _of_sites(cohort)


def _of_backbone(cohort: Cohort) -> list[str]:
    found = []
    if str(cohort.recipe.get("weights", "")).startswith("random"):
        found.append(
            "The backbone's weights are random: nothing in it was learnt from images. The numbers show "
            "that the path works, not what a trained backbone would reach."
        )
    if cohort.unknown_weights:
        found.append(
            f"The backbone's weights, {cohort.unknown_weights}, do not say which cases they have seen. If "
            "they were trained on cases of this cohort, none of the numbers can be believed."
        )
    return found


def _of_sites(cohort: Cohort) -> list[str]:
    if len({case.site for case in cohort.cases}) < 2:
        return []
    return [
        "The cases come from several sites. Unless folds follow the site (--folds site), a model may "
        "have learnt to tell sites apart."
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
        further = {f"{k} in the table" if k in row else k: v for k, v in case.other.items()}
        rows.append(row | further)
    return pd.DataFrame(rows)


def _folds_table(cohort: Cohort, folds: Sequence[Fold]) -> pd.DataFrame:
    label_of = {case.name: case.label for case in cohort.cases}
    rows = [(fold.repeat, fold.index, case, label_of[case]) for fold in folds for case in fold.test]
    return pd.DataFrame(rows, columns=["repeat", "fold", "case", "label"])


def _heatmaps(
    run: Run, cohort: Cohort, folds: Sequence[Fold], progress: Progress
) -> dict[str, Heatmap]:
    """Attention of the first attention model on each slide of the first repeat's test cases."""
    attending = [name for name in run.models if head_class(name).learns_attention]
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
                    caption = f"attention of {model}, fold {fold.index}: case not seen"
                    drawn[bag.slide] = Heatmap(
                        png=draw_small(attention_scores(fitted, bag)), caption=caption
                    )
                    advance(1)
    return drawn
