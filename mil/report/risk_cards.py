"""Cards of survival: the time and event of a case, and the risk that each model gave it."""

from dataclasses import dataclass

import numpy as np

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.survival.metrics import misordered
from mil.evaluation.survival.predictions import CaseRisks, RiskPredictions
from mil.report.cards import CaseAnswers, CaseCard, make_cards


@dataclass(frozen=True)
class RiskVerdict:
    """The answer of one model for one case.

    Attributes:
        high: whether the risk is above the median training risk.
        rank: of its risk among all cases, 1 the highest, ties at their mean; None where all risks are equal.
        survival: probability of no event until the middle horizon.
        pairs: of this case with another that can be compared.
        misordered: share of these pairs that are ordered wrongly, mean over repeats.
    """

    high: bool
    rank: float | None
    survival: float
    pairs: int
    misordered: float

    @property
    def wrong(self) -> bool | None:
        """More than half of the pairs are ordered wrongly."""
        return None if self.rank is None else self.misordered > 0.5


def risk_cards(predictions: RiskPredictions, unit: str) -> list[CaseCard[RiskVerdict]]:
    """One card per case, by name; ``unit`` is that of time."""
    first = [
        predictions.case_risks(predictions.models[0], repeat) for repeat in predictions.repeats
    ]
    time, event = first[0].time, first[0].event
    _, pairs = misordered(time, event, first[0].risk)
    return make_cards(
        first[0].case,
        [
            ("event after" if event[i] else "last seen without event after", f"{time[i]:g} {unit}")
            for i in range(len(time))
        ],
        [repeat.fold.tolist() for repeat in first],
        predictions.table,
        [_verdicts(predictions, model, pairs) for model in predictions.models],
    )


def case_answers(predictions: RiskPredictions) -> CaseAnswers:
    """The risk of each case by each model, mean over repeats."""
    by_case: CaseAnswers = {}
    for model in predictions.models:
        risks = predictions.mean_risks(model)
        for case, risk in zip(risks.case, risks.risk, strict=True):
            by_case.setdefault(case, {})[model] = {"risk": round(float(risk), 4)}
    return by_case


def _verdicts(predictions: RiskPredictions, model: str, pairs: Ints) -> list[RiskVerdict]:
    """The answers of one model."""
    mean = predictions.mean_risks(model)
    repeats = [predictions.case_risks(model, repeat) for repeat in predictions.repeats]
    share = np.mean([_misordered(risks) for risks in repeats], axis=0) / np.maximum(pairs, 1)
    middle = mean.survival[:, (mean.survival.shape[1] - 1) // 2]
    above = (mean.risk > mean.risk[:, None]).sum(axis=1)
    equal = (mean.risk == mean.risk[:, None]).sum(axis=1)
    ranks = above + (equal + 1) / 2
    varies = np.ptp(mean.risk) > 0
    return [
        RiskVerdict(
            high=bool(mean.risk[row] > 0),
            rank=float(ranks[row]) if varies else None,
            survival=float(middle[row]),
            pairs=int(pairs[row]),
            misordered=float(share[row]),
        )
        for row in range(len(share))
    ]


def _misordered(risks: CaseRisks) -> Floats:
    return misordered(risks.time, risks.event, risks.risk)[0]
