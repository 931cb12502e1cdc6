"""The judged models of a run as an audit sees them: one class for each task."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from features.progress import Progress
from features.summary import Summary
from mil.audit.association import Associations
from mil.audit.confounders import Confounder, find_confounders, find_survival_confounders
from mil.audit.results import results_table
from mil.audit.sample_size import (
    Point,
    Width,
    cases_for_width,
    fewest_correct,
    interval_widths,
)
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.errors import RunError
from mil.evaluation.classification.metrics import predicted
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.intervals import Estimate, wilson
from mil.evaluation.judge import evaluate
from mil.evaluation.predictions import Predictions
from mil.evaluation.survival.metrics import harrell_c
from mil.evaluation.survival.predictions import RiskPredictions
from mil.learning.crossval import cross_validate
from mil.runs.run import Run

HALF_WIDTH = 0.1


class JudgedRun(ABC):
    """The predictions and the evaluation of a run.

    Attributes:
        statistic: the measure of a fact or a model over all cases, as ``macro AUC``.
        alone: what a fact or a model achieves in the folds, as ``cases right``.
        score: the measure of the learning curve, as ``accuracy``.
    """

    statistic: ClassVar[str]
    alone: ClassVar[str]
    score: ClassVar[str]

    kind: ClassVar[type[Predictions]]

    def __init__(self, run: Run, predictions: Any) -> None:
        self.run = run
        self.predictions = predictions
        self.evaluation: Any = evaluate(predictions)

    @property
    @abstractmethod
    def lead(self) -> str:
        """The name of the best model."""

    @property
    @abstractmethod
    def reference(self) -> float:
        """What guessing achieves, on the scale of ``achieved``."""

    @property
    @abstractmethod
    def most(self) -> float:
        """What a perfect model achieves, on the scale of ``achieved``."""

    @abstractmethod
    def achieved(self) -> list[tuple[str, float | None, float]]:
        """Name, statistic, and result in the folds of each model."""

    @abstractmethod
    def confounders(
        self, cohort: Cohort, folds: Sequence[Fold]
    ) -> tuple[tuple[Confounder, ...], Associations]:
        """Every fact of the cases beside the tissue, tested against the outcome."""

    @abstractmethod
    def by_site(self, site_of: dict[str, str]) -> list[str]:
        """How the best model does at each site."""

    @abstractmethod
    def add_certainty(self, summary: Summary) -> None:
        """How sure the result of the best model is."""

    @abstractmethod
    def refit(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Estimate:
        """The score of one model that is cross-validated with the settings of the run in other folds."""

    def _refitted(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Any:
        settings = self.run.settings
        predictions = cross_validate(
            cohort, folds, [model], settings.fit, seed=settings.seed, workers=0, progress=progress
        )
        [result] = evaluate(predictions).models
        return result

    @abstractmethod
    def point_json(self, point: Point) -> dict[str, object]:
        """A point of the learning curve as plain values."""

    def widths(self) -> tuple[Width, ...]:
        """Intervals at several numbers of cases; none where they are not known."""
        return ()

    def results(self) -> list[dict[str, str]]:
        """The numbers as a study would print them; none where no rule checks them."""
        return []


class JudgedClasses(JudgedRun):
    """A run of classes."""

    statistic, alone, score = "macro AUC", "cases right", "accuracy"

    kind = ClassPredictions

    @property
    def _lead(self) -> Any:
        return self.evaluation.best()

    @property
    def lead(self) -> str:
        """The model that is right on most cases."""
        return str(self._lead.model)

    @property
    def reference(self) -> float:
        """Cases that always naming the most frequent class gets right."""
        return float(self.evaluation.majority_share * self.evaluation.n_cases)

    @property
    def most(self) -> float:
        """All cases."""
        return float(self.evaluation.n_cases)

    def achieved(self) -> list[tuple[str, float | None, float]]:
        """Name, macro AUC and cases right of each model."""
        return [(r.model, r.metrics["auc"].value, r.correct) for r in self.evaluation.models]

    def confounders(
        self, cohort: Cohort, folds: Sequence[Fold]
    ) -> tuple[tuple[Confounder, ...], Associations]:
        """Every fact of the cases beside the tissue, tested against the class."""
        return find_confounders(cohort, folds)

    def by_site(self, site_of: dict[str, str]) -> list[str]:
        """Cases right of all cases at each site."""
        right = Counter[str]()
        repeats = self.predictions.repeats
        for repeat in repeats:
            scores = self.predictions.case_scores(self.lead, repeat)
            hits = predicted(scores.p) == scores.truth
            right.update(site_of[n] for n, hit in zip(scores.case, hits, strict=True) if hit)
        return [
            f"{site or '(blank)'} {right[site] / len(repeats):g}/{number}"
            for site, number in sorted(Counter(site_of.values()).items())
        ]

    def add_certainty(self, summary: Summary) -> None:
        """Cases that beat guessing, and the interval of the accuracy."""
        lead, majority = self._lead, self.evaluation.majority_share
        share = max(majority, self.evaluation.chance_accuracy)
        fewest = fewest_correct(lead.n, share)
        summary.facts["to beat guessing"] = (
            f"of {lead.n} cases, {fewest} must be right (one-sided 5 %) where always naming the most "
            f"frequent class gets {share:.0%}; {lead.model} has {lead.correct:g}"
            if fewest is not None
            else f"{lead.n} cases are too few for any model to show that it beats guessing"
        )
        accuracy = lead.metrics["accuracy"]
        summary.facts["interval"] = (
            f"{lead.model} {accuracy.value:.2f} ({accuracy.low:.2f} to {accuracy.high:.2f}); for ± "
            f"{HALF_WIDTH:.2f} at this accuracy {cases_for_width(lead.correct / lead.n, HALF_WIDTH)} cases "
            f"are needed, for ± {HALF_WIDTH / 2:.2f} {cases_for_width(lead.correct / lead.n, HALF_WIDTH / 2)}"
        )
        if fewest is None or lead.correct < fewest:
            summary.warnings.append(
                f"{lead.model}, the best model, is not shown to beat always naming the most frequent class."
            )

    def refit(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Estimate:
        """The accuracy with its Wilson interval."""
        result = self._refitted(cohort, folds, model, progress)
        limits = wilson(result.correct, result.n)
        return Estimate(result.correct / result.n, limits.low, limits.high, limits.method)

    def point_json(self, point: Point) -> dict[str, object]:
        """Training cases, accuracy and its limits."""
        return _point_json(point, "accuracy")

    def widths(self) -> tuple[Width, ...]:
        """Wilson intervals at the accuracy of the best model."""
        return interval_widths(self._lead.correct / self._lead.n, self._lead.n)

    def results(self) -> list[dict[str, str]]:
        """Each model's numbers for each class against the rest, in each repeat."""
        return results_table(self.predictions)


class JudgedSurvival(JudgedRun):
    """A run of times and events."""

    statistic, alone, score = "Harrell's C", "Harrell's C in the same folds", "Harrell's C"

    kind = RiskPredictions

    @property
    def _lead(self) -> Any:
        return self.evaluation.best()

    @property
    def lead(self) -> str:
        """The model of the highest C."""
        return str(self._lead.model)

    @property
    def reference(self) -> float:
        """C of a coin."""
        return 0.5

    @property
    def most(self) -> float:
        """C of a perfect model."""
        return 1.0

    def achieved(self) -> list[tuple[str, float | None, float]]:
        """Name and Harrell's C of each model, 0.5 where it is undefined."""
        c = {result.model: result.metrics["harrell"].value for result in self.evaluation.models}
        return [(model, value, 0.5 if value is None else value) for model, value in c.items()]

    def confounders(
        self, cohort: Cohort, folds: Sequence[Fold]
    ) -> tuple[tuple[Confounder, ...], Associations]:
        """Every fact of the cases beside the tissue, tested against time and event."""
        return find_survival_confounders(cohort, folds)

    def by_site(self, site_of: dict[str, str]) -> list[str]:
        """Harrell's C at each site, of mean risks."""
        risks = self.predictions.mean_risks(self.lead)
        sites = np.array([site_of[name] for name in risks.case])
        texts = []
        for site in sorted(set(sites.tolist())):
            inside = sites == site
            time, event = risks.time[inside], risks.event[inside]
            c = harrell_c(time, event, risks.risk[inside])
            result = "undefined" if c is None else f"{c:.2f}"
            name = site or "(blank)"
            texts.append(f"{name} {result} ({event.sum()} events in {inside.sum()} cases)")
        return texts

    def add_certainty(self, summary: Summary) -> None:
        """The interval of C."""
        c, events = self._lead.metrics["harrell"], self.evaluation.n_events
        if c.low is None:
            summary.facts["interval"] = f"{self.lead}: no interval from {events} events"
        else:
            summary.facts["interval"] = (
                f"{self.lead} {c.value:.2f} ({c.low:.2f} to {c.high:.2f}) from {events} events in "
                f"{self.evaluation.n_cases} cases"
            )
        if c.low is None or c.low <= self.reference:
            summary.warnings.append(
                f"{self.lead}, the best model, is not shown to order cases better than a coin."
            )

    def refit(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Estimate:
        """Harrell's C with its interval."""
        estimate: Estimate = self._refitted(cohort, folds, model, progress).metrics["harrell"]
        return estimate

    def point_json(self, point: Point) -> dict[str, object]:
        """Training cases, Harrell's C and its limits."""
        return _point_json(point, "harrell")


def _point_json(point: Point, name: str) -> dict[str, object]:
    return {"train": point.train, name: point.score, "low": point.low, "high": point.high}


def judge(run: Run) -> JudgedRun:
    """The judged models of a run.

    Raises:
        RunError: an audit does not know its kind of predictions.
    """
    predictions = run.predictions()
    for kind in (JudgedClasses, JudgedSurvival):
        if isinstance(predictions, kind.kind):
            return kind(run, predictions)
    raise RunError(f"{run.path}: an audit reads predictions of classes or of survival.")
