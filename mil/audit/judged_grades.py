"""The judged models of a run of ordered grades as an audit sees them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from features.progress import Progress
from features.summary import Summary
from mil.audit.association import Associations
from mil.audit.confounders import Confounder, find_confounders
from mil.audit.judged import JudgedRun
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.evaluation.classification.metrics import macro_auc
from mil.evaluation.grade.metrics import median_grade
from mil.evaluation.intervals import Estimate


class JudgedGrades(JudgedRun):
    """A run of ordered grades; facts are tested against each grade and the rest."""

    statistic, alone = "macro AUC", "cases right"
    score, score_name = "quadratic kappa", "quadratic_kappa"

    @property
    def reference(self) -> float:
        """Cases that always naming the most frequent grade gets right."""
        return float(max(self.evaluation.grade_counts))

    @property
    def most(self) -> float:
        """All cases."""
        return float(self.evaluation.n_cases)

    def achieved(self) -> list[tuple[str, float | None, float]]:
        """Name, macro AUC and cases right of each model."""
        return [
            (result.model, self._macro_auc(result.model), float(np.trace(result.confusion)))
            for result in self.evaluation.models
        ]

    @staticmethod
    def confounders(
        cohort: Cohort, folds: Sequence[Fold]
    ) -> tuple[tuple[Confounder, ...], Associations]:
        """Every fact of the cases beside the tissue, tested against the grade."""
        return find_confounders(cohort, folds)

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
        if kappa.low is None or kappa.low <= 0:
            summary.warnings.append(
                f"{self.lead}, the best model, is not shown to grade better than chance."
            )

    def refit(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Estimate:
        """Quadratic kappa with its interval."""
        result = self._refitted(cohort, folds, model, progress)
        estimate: Estimate = result.metrics["quadratic_kappa"]
        return estimate

    def _macro_auc(self, model: str) -> float | None:
        """Each grade against the rest, mean over repeats; None where a grade has no case."""
        repeats = [
            self.predictions.case_scores(model, repeat) for repeat in self.predictions.repeats
        ]
        values = [macro_auc(scores.truth, scores.p) for scores in repeats]
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if defined else None
