"""The audit of a finished cross-validation: what else could have told the classes apart, and how sure."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from features.summary import Summary, listed
from mil.audit.association import Associations
from mil.audit.confounders import Confounder, find_confounders
from mil.audit.sample_size import (
    Point,
    Width,
    cases_for_width,
    fewest_correct,
    interval_widths,
    learning_curve,
)
from mil.data.cohort import Cohort
from mil.data.duplicates import lookalikes
from mil.data.names import matching
from mil.data.splits import Fold, split_cases
from mil.errors import MilError, RunError
from mil.evaluation.classification.evaluate import Evaluation, evaluate
from mil.evaluation.classification.metrics import confusion, predicted
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.predictions import Predictions
from mil.report.gather import check_outcomes
from mil.runs.run import Run
from mil.settings import SplitSettings

FEW = 5  # training cases of a class below which no model can be said to have learnt it
HALF_WIDTH = 0.1
TABLE = ("model", "accuracy", "sensitivity", "specificity", "precision", "f1", "n", "n_pos")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit of a run found.

    Attributes:
        title: the run.
        evaluation: its models.
        confounders: one per fact.
        associations: the same, with what chance gives to the best of them.
        widths: intervals at several numbers of cases, at the best model's accuracy.
        curve_model: the model of the learning curve; empty where none was asked for.
        curve: the learning curve.
        summary: facts, warnings and problems.
    """

    title: str
    evaluation: Evaluation
    confounders: tuple[Confounder, ...]
    associations: Associations
    widths: tuple[Width, ...]
    curve_model: str
    curve: tuple[Point, ...]
    summary: Summary

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "title": self.title,
            "confounders": [
                each.association.to_json() | {"right": each.right, "verdict": each.verdict}
                for each in self.confounders
            ],
            "best_of_chance": {
                "numeric_predictors": self.associations.numeric,
                "auc_in_one_of_twenty": self.associations.largest,
            },
            "widths": [asdict(each) for each in self.widths],
            "learning_curve": {
                "model": self.curve_model,
                "points": [asdict(each) for each in self.curve],
            },
            "facts": self.summary.facts,
            "warnings": self.summary.warnings,
            "problems": self.summary.problems,
            "models": self.evaluation.to_json()["models"],
        }


def audit_run(
    run: Run,
    *,
    curve_model: str = "",
    crossval: Callable[[Cohort, Sequence[Fold], str], Predictions] | None = None,
) -> Audit:
    """Audit a finished cross-validation; nothing of it is changed.

    Args:
        run: the run.
        curve_model: also learn this model from fewer cases.
        crossval: how, as crossval(cohort, folds, model).

    Raises:
        RunError: the run is of survival or no finished cross-validation, or its files or bags have changed.
        CohortError: its table or its bags are no longer there.
    """
    if run.task.name == "survival":
        raise RunError(
            f"{run.path} is a survival run; the audit asks what tells classes apart. Run `mil crossval` with "
            "the event as label, or read the hazard ratios of `mil crossval --task survival --clinical`."
        )
    cohort, folds = run.cohort(), run.folds
    predictions = ClassPredictions.expect(run.predictions())
    check_outcomes(predictions, cohort)
    evaluation = evaluate(predictions)
    confounders, associations = find_confounders(cohort, folds)
    lead = evaluation.best()
    label_of = {case.name: case.label for case in cohort.cases}
    curve: tuple[Point, ...] = ()
    if curve_model and crossval:
        learn = crossval
        curve = learning_curve(folds, label_of, lambda reduced: learn(cohort, reduced, curve_model))
    said = Summary()
    _of_confounders(said, confounders, associations, lead.correct)
    _of_sites(said, cohort, folds, predictions, lead.model)
    _of_duplicates(said, cohort)
    _of_folds(said, folds, label_of)
    _of_models(said, run, folds, predictions)
    _of_certainty(said, evaluation)
    _of_curve(said, curve_model, curve)
    return Audit(
        title=run.title,
        evaluation=evaluation,
        confounders=confounders,
        associations=associations,
        widths=interval_widths(lead.correct / lead.n, lead.n),
        curve_model=curve_model,
        curve=curve,
        summary=said,
    )


def results_table(predictions: ClassPredictions) -> list[dict[str, str]]:
    """Each model's numbers as a study would print them: one class against the rest, each repeat."""
    rows = []
    for model in predictions.models:
        for repeat in predictions.repeats:
            scores = predictions.case_scores(model, repeat)
            table = confusion(scores.truth, scores.p)
            for k, name in enumerate(predictions.classes):
                tp, n_pos, called, n = table[k, k], table[k].sum(), table[:, k].sum(), table.sum()
                tn = n - n_pos - called + tp
                shares = (
                    (tp + tn, n),
                    (tp, n_pos),
                    (tn, n - n_pos),
                    (tp, called),
                    (2 * tp, n_pos + called),
                )
                told = [f"{part / whole:.3f}" if whole else "" for part, whole in shares]
                label = f"{model}: {name}, repeat {repeat}"
                rows.append(dict(zip(TABLE, [label, *told, str(n), str(n_pos)], strict=True)))
    return rows


def _of_confounders(
    said: Summary, confounders: Sequence[Confounder], associations: Associations, best: float
) -> None:
    if associations.largest is not None and associations.numeric > 1:
        said.facts["chance"] = (
            f"with labels dealt out anew, the best of {associations.numeric} numbers that mean nothing "
            f"reaches an AUC of {associations.largest:.2f} or more in one cohort of twenty"
        )
    for each in confounders:
        told = each.association
        if told.significant:
            level = (
                f", and no fewer than the best model ({best:g})"
                if each.right is not None and each.right >= best
                else ""
            )
            said.problems.append(
                f"{told.name} tells the classes apart: AUC {told.auc:.2f} where shuffled labels give "
                f"{told.chance:.2f} (p {told.p:.4f}, {told.p_holm:.4f} by Holm). Alone it calls "
                f"{each.right:g} cases rightly{level}. A model may have learnt it instead of the tissue: "
                "balance it, or hold it out."
            )
    absent = [
        each.association.name
        for each in confounders
        if each.association.reason.startswith("no data")
    ]
    if absent:
        said.warnings.append(
            f"No data on {listed(absent)}: what is not in the table or the bags cannot be ruled out."
        )


def _of_sites(
    said: Summary, cohort: Cohort, folds: Sequence[Fold], predictions: ClassPredictions, model: str
) -> None:
    """Whether sites were held out, whether they could be, and how the best model does at each."""
    site = {case.name: case.site for case in cohort.cases}
    kinds = sorted(set(site.values()))
    if kinds == [""]:
        said.facts["sites"] = "no data: the table has no column site"
        return
    if len(kinds) < 2:
        said.facts["sites"] = f"one only, {kinds[0]}: nothing is known of any other"
        return
    right = Counter[str]()
    for repeat in predictions.repeats:
        scores = predictions.case_scores(model, repeat)
        good = predicted(scores.p) == scores.truth
        right.update(
            site[name] for name, is_right in zip(scores.case, good, strict=True) if is_right
        )
    counts = Counter(site.values())
    said.facts["sites"] = f"{model} by site: " + ", ".join(
        f"{kind or '(blank)'} {right[kind] / len(predictions.repeats):g}/{counts[kind]}"
        for kind in kinds
    )
    shared = sum(
        bool({site[name] for name in fold.test} & {site[name] for name in fold.train})
        for fold in folds
    )
    if shared:
        said.warnings.append(
            f"In {shared} of {len(folds)} folds a site stands on both sides, so that what a model learns "
            f"of a site helps it. {_site_folds(cohort)}"
        )


def _site_folds(cohort: Cohort) -> str:
    try:
        folds = split_cases(
            [case.name for case in cohort.cases],
            [case.label for case in cohort.cases],
            [case.site for case in cohort.cases],
            SplitSettings(folds="site"),
        )
    except MilError as error:
        return f"A site-held-out run is not possible: {error}"
    return f"`mil crossval --folds site` holds each of the {len(folds)} sites out."


def _of_duplicates(said: Summary, cohort: Cohort) -> None:
    found = lookalikes(cohort)
    said.facts["duplicates"] = (
        f"{len(found)} pairs of slides of different cases look like one tissue"
    )
    said.problems.extend(map(str, found))


def _of_folds(said: Summary, folds: Sequence[Fold], label_of: dict[str, str]) -> None:
    """Cases per class against folds."""
    counts = Counter(label_of.values())
    fewest = {
        part: min(
            Counter(label_of[name] for name in getattr(fold, part))[label]
            for fold in folds
            for label in counts
        )
        for part in ("train", "test")
    }
    said.facts["cases per class"] = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
    said.facts["folds"] = (
        f"{len(folds)}; of every class at least {fewest['train']} cases train and {fewest['test']} are "
        "tested in each"
    )
    if fewest["train"] < FEW:
        said.warnings.append(
            f"Some fold learns a class from {fewest['train']} cases. A class of so few is learnt by heart: "
            "add cases or merge classes."
        )


def _of_models(
    said: Summary, run: Run, folds: Sequence[Fold], predictions: ClassPredictions
) -> None:
    """That no kept fit has seen what it was tested on, and every case was tested by the fold that says so."""
    kept, leaking = 0, []
    for model in predictions.models:
        for fold in folds:
            card = run.model_path(model, fold).with_suffix(".json")
            if card.exists():
                kept += 1
                if matching(fold.test, json.loads(card.read_text())["trained_on"]):
                    leaking.append(card.stem)
    said.facts["kept fits"] = (
        f"{kept}, {len(leaking)} of which have seen a case they were tested on"
    )
    if leaking:
        said.problems.append(
            f"{listed(leaking)} has seen cases it was tested on. Run `mil crossval` again."
        )
    fold_of = {(fold.repeat, name): fold.index for fold in folds for name in fold.test}
    table = predictions.table
    moved = sorted(
        {
            str(case)
            for repeat, fold, case in zip(
                table["repeat"], table["fold"], table["case"], strict=True
            )
            if fold_of.get((repeat, case)) != fold
        }
    )
    if moved:
        said.problems.append(
            f"{listed(moved)} was not tested in the fold that folds.json says. Run `mil crossval` again."
        )


def _of_certainty(said: Summary, evaluation: Evaluation) -> None:
    lead = evaluation.best()
    share = max(evaluation.majority_share, evaluation.chance_accuracy)
    least = fewest_correct(lead.n, share)
    said.facts["to beat guessing"] = (
        f"of {lead.n} cases, {least} right are needed (one-sided 5 %) where always naming the most frequent "
        f"class gets {share:.0%}; {lead.model} has {lead.correct:g}"
        if least is not None
        else f"{lead.n} cases are too few for any model to show that it beats guessing"
    )
    value, low, high = (
        lead.metrics["accuracy"].value,
        lead.metrics["accuracy"].low,
        lead.metrics["accuracy"].high,
    )
    said.facts["interval"] = (
        f"{lead.model} {value:.2f} ({low:.2f} to {high:.2f}); for ± {HALF_WIDTH:.2f} at this accuracy "
        f"{cases_for_width(lead.correct / lead.n, HALF_WIDTH)} cases are needed, for ± {HALF_WIDTH / 2:.2f} "
        f"{cases_for_width(lead.correct / lead.n, HALF_WIDTH / 2)}"
    )
    if least is None or lead.correct < least:
        said.warnings.append(
            f"{lead.model}, the best model, is not shown to beat always naming the most frequent class."
        )


def _of_curve(said: Summary, model: str, curve: Sequence[Point]) -> None:
    if not curve:
        said.facts["learning curve"] = "not asked for; --curve MODEL learns it from fewer cases"
        return
    said.facts["learning curve"] = f"{model} right on " + ", ".join(
        f"{point.accuracy:.0%} with {point.train:.0f} training cases" for point in curve
    )
