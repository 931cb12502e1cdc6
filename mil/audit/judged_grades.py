"""The judged models of a run of ordered grades as an audit sees them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from features.progress import Progress
from features.summary import Summary
from mil.audit.association import Associations
from mil.audit.confounders import Confounder, find_grade_confounders
from mil.audit.judged import JudgedRun
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.evaluation.grade.metrics import median_grade
from mil.evaluation.intervals import Estimate


class JudgedGrades(JudgedRun):
    """A run of ordered grades; facts are tested by the order in which they put the cases."""

    statistic, alone = "concordance", "quadratic kappa in the same folds"
    meaning = "of pairs of cases of different grade, the share that is put in the right order"
    score, score_name = "quadratic kappa", "quadratic_kappa"

    @property
    def reference(self) -> float:
        """Quadratic kappa of a grade that is always the same."""
        return 0.0

    @property
    def most(self) -> float:
        """Quadratic kappa of a perfect model."""
        return 1.0

    def achieved(self) -> list[tuple[str, float | None, float]]:
        """Name, concordance and quadratic kappa of each model, 0 where kappa is undefined."""
        achieved = []
        for result in self.evaluation.models:
            d, kappa = (result.metrics[name].value for name in ("somers_d", "quadratic_kappa"))
            achieved.append((result.model, None if d is None else (1 + d) / 2, kappa or 0.0))
        return achieved

    @staticmethod
    def confounders(
        cohort: Cohort, folds: Sequence[Fold]
    ) -> tuple[tuple[Confounder, ...], Associations]:
        """Every fact of the cases beside the tissue, tested against the grade."""
        return find_grade_confounders(cohort, folds)

    def by_site(self, site_of: dict[str, str]) -> list[str]:
        """Cases right of all cases, and the mean absolute error, at each site."""
        right, error = Counter[str](), Counter[str]()
        repeats = self.predictions.repeats
        for repeat in repeats:
            scores = self.predictions.case_scores(self.lead, repeat)
            distance = np.abs(median_grade(scores.p) - scores.truth)
            for name, grades in zip(scores.case, distance.tolist(), strict=True):
                right[site_of[name]] += grades == 0
                error[site_of[name]] += grades
        return [
            f"{site or '(blank)'} {right[site] / len(repeats):g}/{number}, off by "
            f"{error[site] / len(repeats) / number:.2f} grades on average"
            for site, number in sorted(Counter(site_of.values()).items())
        ]

    def add_certainty(self, summary: Summary) -> None:
        """The interval of quadratic kappa."""
        kappa = self.best.metrics["quadratic_kappa"]
        if kappa.low is None:
            reason = kappa.note or "no interval from so few cases"
            summary.facts["interval"] = f"{self.lead}: {reason}"
        else:
            summary.facts["interval"] = (
                f"{self.lead} has a quadratic kappa of {kappa.value:.2f} ({kappa.low:.2f} to "
                f"{kappa.high:.2f}) from {self.evaluation.n_cases} cases"
            )
        order = self.best.metrics["somers_d"].low
        if order is None or order <= 0:
            summary.warnings.append(
                f"{self.lead}, the best model, is not shown to order the cases better than chance."
            )

    def refit(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Estimate:
        """Quadratic kappa with its interval."""
        result = self._refitted(cohort, folds, model, progress)
        estimate: Estimate = result.metrics["quadratic_kappa"]
        return estimate
