"""The audit of a finished cross-validation: what else could explain the result, and how sure it is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from features.progress import Progress, Silent
from features.recipe import VOLUME
from features.summary import Summary, listed
from mil.audit.association import Associations
from mil.audit.confounders import Confounder
from mil.audit.judged import JudgedRun, judge
from mil.audit.robustness import Robustness, robustness_index
from mil.audit.sample_size import Point, Width, learning_curve
from mil.audit.seen import add_seen
from mil.data.cohort import Cohort
from mil.data.columns import note_calendar, note_declared, note_times, odd_cells, telling_columns
from mil.data.duplicates import lookalikes
from mil.data.names import matching
from mil.data.patients import note_blocks
from mil.data.splits import Fold, split_cases
from mil.data.twins import note_twins
from mil.data.unusable import note_unusable
from mil.errors import MilError, RunError
from mil.evaluation.display import format_count, format_p, state_p
from mil.runs.run import Run
from mil.runs.run_log import describe_runs
from mil.runs.unchanged import check_outcomes
from mil.settings import SplitSettings


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The findings of an audit.

    Attributes:
        title: the run.
        judged: its models.
        confounders: one per fact of the cases.
        associations: the same, with what chance gives to the best of them.
        widths: intervals at several numbers of cases, at the best model's accuracy; may be empty.
        curve_model: the model of the learning curve; empty without one.
        curve: the learning curve.
        robustness: whether tiles resemble their class or their site.
        summary: facts, warnings and problems.
    """

    title: str
    judged: JudgedRun
    confounders: tuple[Confounder, ...]
    associations: Associations
    widths: tuple[Width, ...]
    curve_model: str
    curve: tuple[Point, ...]
    robustness: Robustness
    summary: Summary

    def __repr__(self) -> str:
        """The run, the result in a sentence, and how much there is to read."""
        problems = format_count(len(self.summary.problems), "problem")
        warnings = format_count(len(self.summary.warnings), "warning")
        return f"Audit({self.title}: {self.headline} {problems}, {warnings})"

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        names = [c.association.name for c in self.confounders if c.association.significant]
        if names:
            verb = "predicts" if len(names) == 1 else "predict"
            return f"{', '.join(names)} {verb} the outcome without the tissue."
        tested = sum(c.association.measure is not None for c in self.confounders)
        return (
            f"No fact beside the tissue was seen to predict the outcome: {tested} "
            f"{'fact was' if tested == 1 else 'facts were'} tested in "
            f"{self.judged.evaluation.n_cases} cases."
        )

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "title": self.title,
            "confounders": [
                c.association.to_json() | {"achieved": c.achieved, "verdict": c.verdict}
                for c in self.confounders
            ],
            "best_of_chance": {
                "numeric_predictors": self.associations.numeric,
                "auc_in_one_of_twenty": self.associations.largest,
            },
            "widths": [asdict(width) for width in self.widths],
            "learning_curve": {
                "model": self.curve_model,
                "points": [self.judged.point_json(point) for point in self.curve],
            },
            "robustness": self.robustness.to_json(),
            "facts": self.summary.facts,
            "warnings": self.summary.warnings,
            "problems": self.summary.problems,
            "models": self.judged.evaluation.to_json()["models"],
        }


def audit_run(run: Run, *, curve_model: str = "", progress: Progress | None = None) -> Audit:
    """Audit a finished cross-validation; nothing of it is changed.

    Args:
        run: the run.
        curve_model: also train this model on fewer cases.
        progress: of that training, and of the search for neighbours.

    Raises:
        RunError: the run is no finished cross-validation, its files or bags have changed, or a learning curve
            is asked of a run that fine-tuned its backbone in each fold.
        CohortError: its table or its bags are no longer there.
    """
    cohort, folds = run.cohort(), run.folds
    judged = judge(run)
    check_outcomes(judged.predictions, cohort)
    confounders, associations = judged.confounders(cohort, folds)
    label_of = {case.name: case.label for case in cohort.cases}
    curve = _curve(run, judged, cohort, folds, curve_model, progress or Silent())
    robustness = _robustness(run, cohort, progress)
    summary = Summary()
    _add_confounders(summary, judged, confounders, associations)
    _add_sites(summary, cohort, folds, judged)
    if cohort.task.has_classes:
        _add_robustness(summary, robustness)
    _add_duplicates(summary, cohort)
    _add_columns(summary, cohort)
    _add_folds(summary, judged, folds, label_of)
    add_seen(summary, cohort)
    if runs := describe_runs(run, cohort):
        summary.warnings.append(runs)
    _add_models(summary, run, folds, judged.predictions.models, judged.predictions.table)
    judged.add_certainty(summary)
    _add_curve(summary, judged, curve_model, curve)
    return Audit(
        title=run.title,
        judged=judged,
        confounders=confounders,
        associations=associations,
        widths=judged.widths(),
        curve_model=curve_model,
        curve=curve,
        robustness=robustness,
        summary=summary,
    )


def _curve(
    run: Run,
    judged: JudgedRun,
    cohort: Cohort,
    folds: Sequence[Fold],
    model: str,
    progress: Progress,
) -> tuple[Point, ...]:
    if not model:
        return ()
    if run.settings.own_bags:
        raise RunError(
            f"{run.path} made its own bags in each fold; a learning curve needs one bag store for all "
            "folds. Audit it without a learning curve."
        )
    label_of = {case.name: case.label for case in cohort.cases}
    return learning_curve(
        folds, label_of, lambda reduced: judged.refit(cohort, reduced, model, progress)
    )


def _robustness(run: Run, cohort: Cohort, progress: Progress | None) -> Robustness:
    """The index of the run's bags, where these are of one backbone and the outcome is a class."""
    if not cohort.task.has_classes:
        return Robustness(reason="the outcome is no class")
    if run.settings.finetunes:
        return Robustness(reason="every fold has a backbone of its own")
    return robustness_index(cohort, progress=progress)


def _add_robustness(summary: Summary, robustness: Robustness) -> None:
    summary.facts["robustness index"] = robustness.text
    if robustness.warning:
        summary.warnings.append(robustness.warning)


def _add_confounders(
    summary: Summary,
    judged: JudgedRun,
    confounders: Sequence[Confounder],
    associations: Associations,
) -> None:
    if associations.largest is not None and associations.numeric > 1:
        summary.facts["chance"] = (
            f"with shuffled outcomes, the best of {associations.numeric} meaningless numbers reaches "
            f"{judged.statistic} {associations.largest:.2f} or more in one of twenty shuffles"
        )
    best = max(result for _, _, result in judged.achieved())
    for confounder in confounders:
        association = confounder.association
        if not association.significant:
            continue
        level = (
            ", no less than the best model"
            if confounder.achieved is not None and confounder.achieved >= best
            else ""
        )
        summary.problems.append(
            f"{association.name} predicts the outcome: {judged.statistic} {association.measure:.2f} where "
            f"permuted outcomes give {association.chance:.2f} ({state_p(association.p)}, "
            f"{format_p(association.p_holm)} by Holm). Alone it reaches {confounder.performance} "
            f"({judged.alone}){level}. A model may have "
            "learned it instead of the tissue: balance it, or hold it out."
        )
    absent = [c.association.name for c in confounders if c.association.reason.startswith("no data")]
    if absent:
        summary.warnings.append(
            f"No data on {listed(absent)}: a fact that is neither in the table nor in the bags cannot be "
            "ruled out."
        )


def _add_sites(summary: Summary, cohort: Cohort, folds: Sequence[Fold], judged: JudgedRun) -> None:
    """Whether sites were held out, whether they could be, and how the best model does at each."""
    site_of = {case.name: case.site for case in cohort.cases}
    sites = sorted(set(site_of.values()))
    if sites == [""]:
        summary.facts["sites"] = "no data: the table has no column site"
        return
    if len(sites) < 2:
        summary.facts["sites"] = f"one only, {sites[0]}: nothing is known of any other"
        return
    summary.facts["sites"] = f"{judged.lead} by site: " + ", ".join(judged.by_site(site_of))
    shared = sum(
        bool({site_of[name] for name in fold.test} & {site_of[name] for name in fold.train})
        for fold in folds
    )
    if shared:
        summary.warnings.append(
            f"In {shared} of {len(folds)} folds cases of one site are both trained on and tested, so that "
            f"what a model learns about a site helps it. {_site_folds(cohort)}"
        )


def _site_folds(cohort: Cohort) -> str:
    try:
        folds = split_cases(
            [case.name for case in cohort.cases],
            [case.label for case in cohort.cases],
            [case.site for case in cohort.cases],
            SplitSettings(folds="site"),
            group=cohort.task.group,
        )
    except MilError as error:
        return f"A cross-validation that holds out whole sites is not possible: {error}"
    return f"A cross-validation with folds by site would hold out each of the {len(folds)} sites."


def _add_duplicates(summary: Summary, cohort: Cohort) -> None:
    alike = lookalikes(cohort)
    what = "series of different cases are one"
    if cohort.recipe.get("region") != VOLUME:
        what = "slides of different cases look like one tissue"
    summary.facts["duplicates"] = f"{len(alike.pairs)} pairs of {what}"
    if alike.unknown:
        summary.facts["duplicates"] += (
            f"; not known for {len(alike.unknown)} of {len(cohort.bags)} slides with other colours or "
            "another side up, as their bags have no picture that shows enough tissue"
        )
    summary.problems.extend(map(str, alike.pairs))


def _add_columns(summary: Summary, cohort: Cohort) -> None:
    """Names and columns of the table that say what only the outcome can say, or cannot be read."""
    if blocks := note_blocks(cohort.names):
        summary.warnings.append(blocks)
    for notes in (note_twins, odd_cells, note_times):
        summary.warnings.extend(notes(cohort.cases))
    cells = {name: [case.other[name] for case in cohort.cases] for name in cohort.cases[0].other}
    source = cohort.table.name if cohort.table else "the table"
    summary.warnings.extend(note_unusable(source, cells, cohort.names))
    telling = telling_columns(cohort.cases, cohort.cases[0].other)
    n_columns = len(cohort.cases[0].other)
    summary.facts["columns"] = (
        f"{len(telling)} of {n_columns} may not be read by a model: {'; '.join(map(str, telling))}"
        if telling
        else f"{n_columns}; none is made from the outcome, known only afterwards, or numbers the cases"
    )
    left = [
        name for name in cohort.cases[0].other if name not in {found.column for found in telling}
    ]
    summary.warnings.extend([*note_declared(cohort.cases), *note_calendar(cohort.cases, left)])
    if telling:
        summary.warnings.append(
            f"{'; '.join(f'Column {found}' for found in telling)}. No model may read it, and no table "
            "describes the cases by it."
        )


def _add_folds(
    summary: Summary, judged: JudgedRun, folds: Sequence[Fold], label_of: dict[str, str]
) -> None:
    """Cases of each label, in all and in the folds."""
    counts = Counter(label_of.values())
    train, test = (
        {
            label: min(sum(label_of[name] == label for name in part) for part in parts)
            for label in counts
        }
        for parts in ([fold.train for fold in folds], [fold.test for fold in folds])
    )
    summary.facts[f"cases per {judged.group}"] = ", ".join(
        f"{name}: {n}" for name, n in sorted(counts.items())
    )
    summary.facts["folds"] = (
        f"{len(folds)}; each has at least {min(train.values())} training and {min(test.values())} test "
        f"cases of every {judged.group}"
    )
    if warning := judged.describe_scarce(train):
        summary.warnings.append(warning)


def _add_models(
    summary: Summary, run: Run, folds: Sequence[Fold], models: Sequence[str], table: pd.DataFrame
) -> None:
    """No stored model has seen its test cases, and every case was tested in its own fold."""
    stored, leaking = 0, []
    for model in models:
        for fold in folds:
            cases = run.trained_on(model, fold)
            if cases is not None:
                stored += 1
                if matching(fold.test, cases):
                    leaking.append(run.model_path(model, fold).stem)
    summary.facts["stored models"] = (
        f"{stored}; {len(leaking) or 'none'} of them trained on a case that it was tested on"
    )
    if leaking:
        summary.problems.append(
            f"{listed(leaking)} has seen cases it was tested on. Make the run again."
        )
    fold_of = {(fold.repeat, name): fold.index for fold in folds for name in fold.test}
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
        summary.problems.append(
            f"{listed(moved)} was not tested in the fold that folds.json says. Make the run again."
        )


def _add_curve(summary: Summary, judged: JudgedRun, model: str, curve: Sequence[Point]) -> None:
    if not curve:
        summary.facts["learning curve"] = "not computed, as no model was named for it"
        return
    summary.facts["learning curve"] = f"{judged.score} of {model}: " + ", ".join(
        f"{point.score:.2f} with {point.train:.0f} training cases" for point in curve
    )
