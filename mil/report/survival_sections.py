"""The sections of survival: concordance, risk groups, Cox regressions, and what the follow-up leaves open."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mil.data.cohort import Cohort
from mil.data.outcomes import CENSORED, EVENT, Outcomes
from mil.evaluation.decision_curves import Decision, decide
from mil.evaluation.metric import page_columns
from mil.evaluation.survival.comparison import SurvivalComparison, SurvivalPairTest
from mil.evaluation.survival.evaluate import (
    CAVEAT,
    HARRELL_OF_NOISE,
    SurvivalEvaluation,
    SurvivalResult,
)
from mil.evaluation.survival.hazards import Hazard, read_hazards
from mil.evaluation.survival.metrics import (
    expected_events,
    kaplan_meier,
    median_follow_up,
    misordered,
    number_at_risk,
)
from mil.evaluation.survival.predictions import CaseRisks, RiskPredictions
from mil.figures.risk_groups import (
    RISKS,
    GroupCurve,
    groups_of,
    risk_groups,
    write_survival_figures,
)
from mil.report.formats import count, in_units, percent
from mil.report.kaplan_meier import group_key, survival_plot
from mil.report.plots import survival_calibration_plot
from mil.report.risk_cards import risk_cards
from mil.report.sections import (
    FEWEST_SHOWN,
    THRESHOLDS,
    Report,
    Sections,
    design_limits,
    order_models,
    picked_sentence,
    selection_limit,
    split_tests,
    typical_case,
)
from mil.report.survival_calibration import write_calibration_figure
from mil.report.table_one import Variable, table_one
from mil.report.template import svg

DOZEN = 12  # cases named in a sentence
FEW_EVENTS = 20  # the number of events, not that of cases, limits what can be learnt
WIDE = 0.2  # an interval
PER_COLUMN = 10  # events; P. Peduzzi et al., J Clin Epidemiol 1995, 48:1503

SurvivalReport = Report[RiskPredictions, SurvivalEvaluation, SurvivalComparison]


class SurvivalSections(Sections[SurvivalReport]):
    """A run that predicts the risk of an event."""

    template = "report/survival.html"
    folder = "survival"

    @staticmethod
    def warnings(cohort: Cohort, evaluation: SurvivalEvaluation) -> list[str]:  # noqa: ARG004
        """Few events."""
        events = sum(case.label == EVENT for case in cohort.cases)
        if events >= FEW_EVENTS:
            return []
        return [
            f"Few events: {events}. They carry all the information about risk, and each takes part in many "
            "of the pairs that C counts. Read the intervals rather than the estimates."
        ]

    @classmethod
    def read_hazards(cls, run: Path) -> dict[str, tuple[Hazard, ...]]:
        """Those of each model's risk beside clinical columns; empty where the run read none."""
        path = run / cls.folder / "cox.csv"
        return dict(read_hazards(path)) if path.is_file() else {}

    @property
    def lead(self) -> SurvivalResult:
        """The model of the highest C; among equals the first."""
        return self.report.evaluation.best()

    @property
    def beats_guessing(self) -> bool:
        """The interval of C lies above one half."""
        low = self.lead.metrics["harrell"].low
        return low is not None and low > 0.5

    @property
    def outcomes(self) -> Outcomes:
        """Time and event of each case."""
        predictions = self.report.predictions
        first = predictions.case_risks(predictions.models[0], predictions.repeats[0])
        return Outcomes(first.time, first.event)

    @property
    def groups(self) -> tuple[str, ...]:
        """Cases with and without the event."""
        return (EVENT, CENSORED)

    def headline(self) -> tuple[str, ...]:
        """Harrell's C of the best model with its interval, and what flatters it."""
        evaluation, lead, outcomes = self.report.evaluation, self.lead, self.outcomes
        c, unit, repeats = lead.metrics["harrell"], evaluation.unit, len(evaluation.repeats)
        if c.value is None:
            return ("No two cases can be compared: no event came before another case's time.",)
        limits = (
            "" if c.low is None else f", 95\N{NO-BREAK SPACE}% interval {c.low:.2f} to {c.high:.2f}"
        )
        sentences = [
            f"Of {count(evaluation.n_cases)} cases {count(evaluation.n_events)} had the event. Among pairs "
            f"that can be compared, {lead.model} put the case whose event came first at the higher risk in "
            f"{percent(c.value)} of pairs{f' on average over {repeats} repeats' * (repeats > 1)} "
            f"(Harrell's C {c.value:.2f}{limits}); guessing gives 50\N{NO-BREAK SPACE}%."
        ]
        if len(evaluation.models) > 1:
            equals = [
                result.model
                for result in evaluation.models
                if result.metrics["harrell"].value == c.value
                and result is not lead
                and not result.constant
            ]
            sentences.append(picked_sentence(len(evaluation.models), equals))
        if not self.beats_guessing:
            sentences.append(
                "Its interval reaches down to guessing: these cases alone do not show that it has learned "
                "who is at risk."
            )
        ibs = lead.metrics["ibs"].value
        if ibs is not None and ibs >= evaluation.guessing_ibs:
            sentences.append(
                "Its probabilities are no closer to the outcomes than one Kaplan-Meier curve of all these "
                "cases. Use the order of its risks, not its probabilities."
            )
        follow_up = median_follow_up(outcomes.time, outcomes.event)
        sentences.append(
            f"{count(evaluation.n_slides)} slides; median follow-up {in_units(follow_up, unit)}, the longest "
            f"{in_units(float(outcomes.time.max()), unit)}."
        )
        return tuple(sentences)

    def limitations(self) -> tuple[str, ...]:
        """What so many cases and events cannot show."""
        evaluation = self.report.evaluation
        limits = _interval_limits(evaluation, self.lead)
        if any(result.groups.p is not None for result in evaluation.models):
            limits.append(
                f"The log-rank p, with or without Holm's adjustment, is {CAVEAT}: the cases of one "
                "cross-validation are not assigned to their groups independently."
            )
        limits += _follow_up_limits(evaluation, self.outcomes)
        if columns := _columns_beside(self.report.hazards):
            limits.append(
                f"As a rule of thumb a Cox regression needs {PER_COLUMN} events for each column; those "
                f"of this page have {columns + 1} columns and {evaluation.n_events} events."
            )
        else:
            limits.append(
                "No clinical column was put beside the risk. Whether the risk adds anything to age, stage "
                "and grade is therefore not known."
            )
        if len(evaluation.models) > 1:
            limits += [str(self.report.comparison), selection_limit(len(evaluation.models))]
        return (*limits, *design_limits(len(evaluation.repeats), self.report.facts.n_sites))

    def values(self) -> dict[str, object]:
        """Results, curves, errors and cards."""
        report, lead, outcomes = self.report, self.lead, self.outcomes
        evaluation, predictions = report.evaluation, report.predictions
        place = evaluation.models.index(lead)
        cards = risk_cards(predictions, evaluation.unit)
        # Hardest first; the sort is stable, by case name.
        cards.sort(
            key=lambda card: -card.verdicts[place].misordered if card.verdicts[0].pairs else 1.0
        )
        judged = [card for card in cards if card.verdicts[0].pairs]
        models = predictions.models
        everyone = np.zeros(len(outcomes.time), np.int64)
        return {
            "metrics": sum(page_columns(evaluation.metric_table), ()),
            "lead": lead,
            "place": place,
            "typical": typical_case(cards, report.facts.heatmaps),
            "follow_up": median_follow_up(outcomes.time, outcomes.event),
            "median": kaplan_meier(outcomes.time, outcomes.event).median(),
            "longest": float(outcomes.time.max()),
            "described": table_one(report.facts.explaining, self.groups),
            "by_risk": self._table_by_risk(),
            "everyone": groups_of(outcomes.time, outcomes.event, everyone, ("all",)),
            "events_by_model": [_events(predictions.mean_risks(model)) for model in models],
            "groups_by_model": [risk_groups(predictions, model) for model in models],
            "hard": [card.case for card in judged if card.verdicts[place].misordered > 0.5],
            "hard_by_all": [card.case for card in judged if card.missed],
            "distinguishing": sum(verdict.rank is not None for verdict in cards[0].verdicts),
            "cards": cards,
            "middle": float(predictions.horizons[(len(predictions.horizons) - 1) // 2]),
            "decisions": [self._decision()],
            **split_tests([(describe_pair(t), t) for t in report.comparison.pairs], lead.model),
            **order_models(evaluation),
            "shown": FEWEST_SHOWN,
            "hazards": sorted(report.hazards.items(), key=lambda item: item[0] != lead.model),
            "dozen": DOZEN,
            "risks": RISKS,
            "caveat": CAVEAT,
            "methods": sorted(
                {r.metrics["harrell"].method for r in evaluation.models if r.metrics["harrell"].low}
            ),
            "survival_plot": svg(survival_plot),
            "group_key": svg(group_key),
            "calibration_plot": svg(survival_calibration_plot),
            "describe_groups": describe_groups,
        }

    def write_figures(self, folder: Path) -> list[Path]:
        """Kaplan-Meier curves of the risk groups of each model, and the calibration of the best."""
        evaluation = self.report.evaluation
        models = {r.model: r.calibration for r in evaluation.models if r.calibration}
        return [
            *write_survival_figures(folder, self.report.predictions, evaluation.unit),
            *write_calibration_figure(folder, models, self.lead.model, evaluation.unit),
        ]

    def _decision(self) -> Decision:
        """The curve of the best model for the event until the middle horizon."""
        return decide(self.report.predictions.select([self.lead.model]), THRESHOLDS[::5])

    def _table_by_risk(self) -> tuple[Variable, ...]:
        """The columns of the cohort, cases of low risk against those of high."""
        risks = self.report.predictions.mean_risks(self.lead.model)
        cohort = self.report.facts.explaining
        cases = cohort.set_index(cohort["case"].astype(str)).loc[list(risks.case)]
        cases = cases.reset_index(drop=True)
        cases["label"] = np.where(risks.risk > 0, RISKS[1], RISKS[0])
        return table_one(cases, RISKS) if cases["label"].nunique() > 1 else ()


def describe_pair(test: SurvivalPairTest) -> str:
    """A paired test of two models as a sentence."""
    pair = f"{test.first} and {test.second}"
    if test.harrell is None:
        return f"{pair}: too few events to compare their C."
    better = test.first if test.harrell.value > 0 else test.second
    if test.harrell.value == 0:
        return f"{pair} order the cases equally well."
    verdict = (
        "This is more than chance explains."
        if test.harrell.p_holm < 0.05
        else "Chance could explain this."
    )
    return f"Of {pair}, {better} orders the cases better. {verdict}"


def describe_groups(title: str, groups: tuple[GroupCurve, ...]) -> str:
    """A Kaplan-Meier figure in words, for those who do not see it."""
    events = "; ".join(f"{g.name}: {int(g.event.sum())} events in {len(g.time)}" for g in groups)
    return f"Kaplan-Meier curves, {title}. {events}"


def _interval_limits(evaluation: SurvivalEvaluation, lead: SurvivalResult) -> list[str]:
    """What the width of the interval of C leaves open."""
    n, events, c = evaluation.n_cases, evaluation.n_events, lead.metrics["harrell"]
    if c.low is None or c.high is None:
        return []
    width = c.high - c.low
    limits = [
        f"With {n} cases and {events} events the C of {lead.model} is known to within {width:.2f}: "
        f"anything between {c.low:.2f} and {c.high:.2f} is compatible with these results."
    ]
    if width > WIDE:
        needed = math.ceil(n * (width / WIDE) ** 2)
        limits.append(
            f"An interval of {WIDE:.2f} would take about {needed} cases with this share of events."
        )
    limits.append(
        "That interval covers less than its 95 %: it assumes that the risks of different cases are "
        f"independent, and out-of-fold risks are not. {HARRELL_OF_NOISE}"
    )
    return limits


def _follow_up_limits(evaluation: SurvivalEvaluation, outcomes: Outcomes) -> list[str]:
    """What the observed times leave open."""
    n, last = evaluation.n_cases, evaluation.horizons[1]
    _, pairs = misordered(outcomes.time, outcomes.event, np.zeros(n))
    [at_risk] = number_at_risk(outcomes.time, np.array([last]))
    return [
        f"Of {n * (n - 1) // 2} pairs of cases {pairs.sum() // 2} can be compared: in the others it is not "
        "known whose event comes first.",
        f"Nothing is judged beyond {last:.4g} {evaluation.unit}, when {at_risk} of {n} cases are still "
        "observed.",
        "An event is what the table calls one. Deaths from another cause, and cases lost because they were "
        "doing badly, are not accounted for.",
    ]


def _events(risks: CaseRisks) -> list[tuple[int, int, float]]:
    """Events, cases, and expected events, of high and of low risk."""
    return [
        (
            int(risks.event[inside].sum()),
            int(inside.sum()),
            expected_events(risks.time, risks.event, inside),
        )
        for inside in (risks.risk > 0, risks.risk <= 0)
    ]


def _columns_beside(hazards: Mapping[str, tuple[Hazard, ...]]) -> int:
    """The number of terms beside the risk."""
    together = [
        sum(term.analysis == "multivariable" for term in table) for table in hazards.values()
    ]
    return max([n - 1 for n in together if n], default=0)
