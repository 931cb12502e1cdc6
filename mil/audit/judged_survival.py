"""The judged models of a run of times and events as an audit sees them."""

from collections.abc import Mapping, Sequence

import numpy as np

from features.progress import Progress
from features.summary import Summary
from mil.audit.association import Associations
from mil.audit.confounders import Confounder, find_survival_confounders
from mil.audit.judged import FEW, JudgedRun
from mil.data.cohort import Cohort
from mil.data.outcomes import EVENT
from mil.data.splits import Fold
from mil.evaluation.display import format_count
from mil.evaluation.intervals import Estimate
from mil.evaluation.survival.metrics import harrell_c


class JudgedSurvival(JudgedRun):
    """A run of times and events."""

    statistic, alone = "Harrell's C", "Harrell's C in the same folds"
    score, score_name = "Harrell's C", "harrell"
    meaning = (
        "of pairs of cases in which it is known whose event came first, the share that is put in the right "
        "order"
    )

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

    @staticmethod
    def confounders(
        cohort: Cohort, folds: Sequence[Fold]
    ) -> tuple[tuple[Confounder, ...], Associations]:
        """Every fact of the cases beside the tissue, tested against time and event."""
        return find_survival_confounders(cohort, folds)

    def describe_scarce(self, fewest: Mapping[str, int]) -> str:
        """Events alone count: cases without one are compared with them."""
        number = fewest.get(EVENT, 0)
        if number >= FEW:
            return ""
        return (
            f"Some fold learns from {format_count(number, 'event')}. So few may be memorised: add cases, or "
            "follow them longer."
        )

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
        c, events = self.best.metrics["harrell"], self.evaluation.n_events
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
