"""The page of a survival run: who is at risk, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mil.data.outcomes import CENSORED, EVENT, Outcomes
from mil.evaluation.arrays import Floats
from mil.evaluation.survival.evaluate import (
    CAVEAT,
    SurvivalEvaluation,
    SurvivalResult,
)
from mil.evaluation.survival.hazards import Hazard
from mil.evaluation.survival.metrics import (
    expected_events,
    kaplan_meier,
    median_follow_up,
    misordered,
)
from mil.evaluation.survival.predictions import CaseRisks, SurvivalPredictions
from mil.report.curves import group_key, survival_plot
from mil.report.frame import (
    Facts,
    count,
    drawn,
    fill,
    in_units,
    listed,
    sites_of,
    slides_by_case,
)
from mil.report.limits import survival_limitations
from mil.report.survival import RISKS, Group, groups_of, risk_groups
from mil.report.table_one import Variable, table_one

DOZEN = 12  # cases named in a sentence


@dataclass(frozen=True, kw_only=True)
class SurvivalReport(Facts):
    """Everything the page of a survival run tells.

    Attributes:
        predictions: out of fold.
        evaluation: of these predictions.
        hazards: by model, of its risk beside columns of the table; empty where none were asked for.
    """

    predictions: SurvivalPredictions
    evaluation: SurvivalEvaluation
    hazards: Mapping[str, tuple[Hazard, ...]]


@dataclass(frozen=True)
class RiskVerdict:
    """What one model said of one case.

    Attributes:
        high: whether it is above the median training risk.
        rank: of its risk among all cases, 1 the highest, ties at their mean; None where all are alike.
        survival: probability of no event until the middle horizon.
        wrong: share of the case's comparable pairs that are ranked wrongly, mean over repeats.
    """

    high: bool
    rank: float | None
    survival: float
    wrong: float


@dataclass(frozen=True)
class RiskCard:
    """One case: what became of it, and what each model said of it.

    Attributes:
        told: what became of it, and when.
        pairs: in which it can be compared with another case.
    """

    case: str
    told: tuple[str, str]
    pairs: int
    folds: tuple[int, ...]
    slides: tuple[str, ...]
    verdicts: tuple[RiskVerdict, ...]

    @property
    def missed(self) -> bool:
        """Every model that tells cases apart ranks more than half of its pairs wrongly."""
        told = [each.wrong for each in self.verdicts if each.rank is not None]
        return bool(told) and min(told) > 0.5


def render(report: SurvivalReport) -> str:
    """The page as one HTML document."""
    evaluation, predictions = report.evaluation, report.predictions
    lead = best(evaluation)
    place = evaluation.models.index(lead)
    first = predictions.case_risks(lead.model, predictions.repeats[0])
    outcomes = Outcomes(first.time, first.event)
    described = report.cohort.drop(columns="time", errors="ignore")
    cards = risk_cards(predictions, evaluation.unit)
    # Hardest first; the sort is stable, by case name.
    cards.sort(key=lambda card: -card.verdicts[place].wrong if card.pairs else 1.0)
    return fill(
        "survival.html",
        report,
        (EVENT, CENSORED),
        evaluation=evaluation,
        repeats=len(evaluation.repeats),
        lead=lead,
        place=place,
        headline=headline(evaluation, outcomes),
        follow_up=median_follow_up(outcomes.time, outcomes.event),
        median=kaplan_meier(outcomes.time, outcomes.event).median(),
        longest=float(outcomes.time.max()),
        described=table_one(described, (EVENT, CENSORED)),
        by_risk=_by_risk(report, lead.model),
        limits=survival_limitations(
            evaluation, lead, outcomes, _beside(report.hazards), sites_of(report.cohort)
        ),
        everyone=groups_of(first.time, first.event, np.zeros(len(first.case), np.int64), ("all",)),
        events_by_model=[_events(predictions.mean_risks(each)) for each in predictions.models],
        groups_by_model=[risk_groups(predictions, each) for each in predictions.models],
        hard=[c.case for c in cards if c.pairs and c.verdicts[place].wrong > 0.5],
        hard_by_all=[c.case for c in cards if c.pairs and c.missed],
        telling=sum(verdict.rank is not None for verdict in cards[0].verdicts),
        cards=cards,
        middle=float(predictions.horizons[len(predictions.horizons) // 2]),
        dozen=DOZEN,
        risks=RISKS,
        caveat=CAVEAT,
        methods=sorted({each.harrell.method for each in evaluation.models if each.harrell.low}),
        survival_plot=drawn(survival_plot),
        group_key=drawn(group_key),
        told_of=_told_of,
    )


def best(evaluation: SurvivalEvaluation) -> SurvivalResult:
    """The model of the highest C; among equals the first."""
    return max(evaluation.models, key=lambda result: result.harrell.value or 0.0)


def headline(evaluation: SurvivalEvaluation, outcomes: Outcomes) -> tuple[str, ...]:
    """The result in plain sentences, with what flatters it."""
    lead, unit = best(evaluation), evaluation.unit
    c = lead.harrell
    if c.value is None:
        return ("No two cases can be compared: no event came before another case's time.",)
    limits = (
        "" if c.low is None else f", 95\N{NO-BREAK SPACE}% interval {c.low:.2f} to {c.high:.2f}"
    )
    repeats = len(evaluation.repeats)
    said = [
        f"Of {count(evaluation.n_cases)} cases {count(evaluation.n_events)} had the event. Where two can be "
        f"compared, {lead.model} put the one whose event came first at the higher risk in a share of "
        f"{c.value:.2f}{f', mean over {repeats} repeats' * (repeats > 1)} (Harrell's C{limits}); "
        "guessing gives 0.50."
    ]
    if len(evaluation.models) > 1:
        level = [each.model for each in evaluation.models if each.harrell.value == c.value][1:]
        said.append(
            f"It is the best of {len(evaluation.models)} models compared on the same cases"
            f"{f', level with {listed(level)}' if level else ''}. "
            "Picking the best after seeing the results makes its number optimistic."
        )
    if c.low is None or c.low <= 0.5:
        said.append(
            "Its interval reaches down to guessing: these cases alone do not show that it has learned who is "
            "at risk."
        )
    if lead.ibs >= evaluation.guessing_ibs:
        said.append(
            "The probabilities it gives are no closer to what happened than one curve for all cases, which "
            "has seen them: the order of its risks may be read, not the probabilities."
        )
    follow_up = median_follow_up(outcomes.time, outcomes.event)
    said.append(
        f"{count(evaluation.n_slides)} slides; median follow-up {in_units(follow_up, unit)}, the longest "
        f"{in_units(float(outcomes.time.max()), unit)}."
    )
    return tuple(said)


def risk_cards(predictions: SurvivalPredictions, unit: str) -> list[RiskCard]:
    """One card per case, by name."""
    first = [
        predictions.case_risks(predictions.models[0], repeat) for repeat in predictions.repeats
    ]
    time, event = first[0].time, first[0].event
    _, pairs = misordered(time, event, first[0].risk)
    slides = slides_by_case(predictions.table)
    verdicts = [_verdicts(predictions, model, pairs) for model in predictions.models]
    return [
        RiskCard(
            case=case,
            told=(
                "event after" if event[row] else "last seen without event after",
                f"{time[row]:g} {unit}",
            ),
            pairs=int(pairs[row]),
            folds=tuple(int(each.fold[row]) for each in first),
            slides=slides[case],
            verdicts=tuple(of_model[row] for of_model in verdicts),
        )
        for row, case in enumerate(first[0].case)
    ]


def _verdicts(predictions: SurvivalPredictions, model: str, pairs: np.ndarray) -> list[RiskVerdict]:
    """What one model said of each case."""
    mean = predictions.mean_risks(model)
    wrong = np.mean([_wrong(predictions.case_risks(model, r)) for r in predictions.repeats], axis=0)
    share = wrong / np.maximum(pairs, 1)
    middle = mean.survival[:, mean.survival.shape[1] // 2]
    above = (mean.risk > mean.risk[:, None]).sum(axis=1)
    alike = (mean.risk == mean.risk[:, None]).sum(axis=1)
    ranks = above + (alike + 1) / 2
    varies = np.ptp(mean.risk) > 0
    return [
        RiskVerdict(
            bool(mean.risk[row] > 0),
            float(ranks[row]) if varies else None,
            float(middle[row]),
            float(share[row]),
        )
        for row in range(len(share))
    ]


def _wrong(risks: CaseRisks) -> Floats:
    return misordered(risks.time, risks.event, risks.risk)[0]


def _events(risks: CaseRisks) -> list[tuple[int, int, float]]:
    """Events, cases, and events expected, of high and of low risk."""
    return [
        (
            int(risks.event[inside].sum()),
            int(inside.sum()),
            expected_events(risks.time, risks.event, inside),
        )
        for inside in (risks.risk > 0, risks.risk <= 0)
    ]


def _by_risk(report: SurvivalReport, model: str) -> tuple[Variable, ...]:
    """The columns of the cohort, cases of low risk against those of high."""
    held = report.predictions.mean_risks(model)
    by_case = report.cohort.set_index(report.cohort["case"].astype(str))
    judged = by_case.loc[list(held.case)].reset_index(drop=True)
    judged["label"] = np.where(held.risk > 0, RISKS[1], RISKS[0])
    if judged["label"].nunique() < 2:
        return ()
    return table_one(judged.drop(columns="time", errors="ignore"), RISKS)


def _beside(hazards: Mapping[str, tuple[Hazard, ...]]) -> int:
    """How many terms stand beside the risk."""
    together = [
        sum(each.analysis == "multivariable" for each in table) for table in hazards.values()
    ]
    return max([n - 1 for n in together if n], default=0)


def _told_of(model: str, groups: tuple[Group, ...]) -> str:
    """A Kaplan-Meier figure in words."""
    said = "; ".join(f"{g.name}: {int(g.event.sum())} events in {len(g.time)}" for g in groups)
    return f"Kaplan-Meier curves, {model}. {said}"
