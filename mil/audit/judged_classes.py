"""The judged models of a run of classes as an audit sees them."""

from collections import Counter
from collections.abc import Sequence

from features.progress import Progress
from features.summary import Summary
from mil.audit.association import Associations
from mil.audit.confounders import Confounder, find_confounders
from mil.audit.judged import JudgedRun
from mil.audit.results import results_table
from mil.audit.sample_size import Width, cases_for_width, fewest_correct, interval_widths
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.evaluation.classification.metrics import predicted
from mil.evaluation.intervals import Estimate, wilson

HALF_WIDTH = 0.1  # of an interval, for the number of cases that it takes


class JudgedClasses(JudgedRun):
    """A run of classes."""

    statistic, alone = "macro AUC", "cases right"
    meaning = "the AUC of each class against the rest, averaged"
    score = score_name = "accuracy"

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

    @staticmethod
    def confounders(
        cohort: Cohort, folds: Sequence[Fold]
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
        lead, majority = self.best, self.evaluation.majority_share
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

    def widths(self) -> tuple[Width, ...]:
        """Wilson intervals at the accuracy of the best model."""
        return interval_widths(self.best.correct / self.best.n, self.best.n)

    def results(self) -> list[dict[str, str]]:
        """Each model's numbers for each class against the rest, in each repeat."""
        return results_table(self.predictions)
