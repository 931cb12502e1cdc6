"""Paired tests between survival models over the same cases."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product

import numpy as np

from mil.errors import PredictionsError
from mil.evaluation.arrays import Floats
from mil.evaluation.display import Table, format_count
from mil.evaluation.paired_tests import (
    Difference,
    flatten,
    format_difference,
    holm,
)
from mil.evaluation.survival.differences import (
    detectable_difference,
    harrell_difference,
    ibs_difference,
)
from mil.evaluation.survival.predictions import CaseRisks, RiskPredictions

COIN_TO_PERFECT = 0.5  # C of a perfect model minus C of a coin

Risks = Mapping[str, Sequence[CaseRisks]]  # model name to one CaseRisks per repeat


@dataclass(frozen=True)
class SurvivalPairTest:
    """Two survival models on the same cases; differences are first minus second.

    Attributes:
        first: a model; the reference if there is one.
        second: the model compared with it.
        n: cases.
        events: cases whose event was observed.
        harrell: difference in Harrell's C, above 0 where the first ranks better. Limits from each case's
            influence, p from swapping the two models' ranks case by case, so that the two may disagree
            near .05. None where no two cases are comparable, or where there is one event.
        ibs: difference in integrated Brier score, below 0 where the first predicts better. Limits from a
            paired t over cases, p from swapping the predicted curves. None where the two models predict
            survival at different times.
        detectable: true difference in C found in about four of five such studies, given how far these two
            models agree; None where harrell is None or has no variance.
    """

    first: str
    second: str
    n: int
    events: int
    harrell: Difference | None
    ibs: Difference | None
    detectable: float | None

    @property
    def p(self) -> float | None:
        """That of the difference in Harrell's C."""
        return None if self.harrell is None else self.harrell.p

    @property
    def p_holm(self) -> float | None:
        """That of the difference in Harrell's C, adjusted over all pairs."""
        return None if self.harrell is None else self.harrell.p_holm

    def to_json(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class SurvivalComparison:
    """All pairs of models, and what so few events can show.

    Attributes:
        pairs: one test per pair; p_holm is adjusted over them, C and Brier score each for itself.
        n: cases.
        events: cases whose event was observed.
    """

    pairs: tuple[SurvivalPairTest, ...]
    n: int
    events: int

    def __str__(self) -> str:
        return _detectable_sentence(self.pairs, self.n, self.events)

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; what can be shown also as a sentence."""
        return {"task": "survival", **asdict(self), "says": str(self)}

    def rows(self) -> list[dict[str, object]]:
        """One flat row per pair: ``harrell.value`` is called ``harrell_value``, and so on."""
        return [flatten(pair.to_json()) for pair in self.pairs]

    def tables(self) -> list[Table]:
        """The tests as text."""
        if not self.pairs:
            return []
        pairs, events = format_count(len(self.pairs), "pair"), format_count(self.events, "event")
        notes = [f"{self.n} cases, {events}; p adjusted over {pairs} (Holm).", str(self)]
        header = ["first", "second", "Harrell C", "p C", "IBS", "p IBS"]
        rows = [
            [
                pair.first,
                pair.second,
                *format_difference(pair.harrell),
                *format_difference(pair.ibs, digits=3),
            ]
            for pair in self.pairs
        ]
        return [Table("", header, rows, notes)]


def compare_survival_models(
    predictions: RiskPredictions, reference: str | None = None
) -> SurvivalComparison:
    """Test the models of one table against one another.

    Args:
        predictions: one or more models; one model has no pair.
        reference: compare only this model with every other; None compares all pairs.

    Raises:
        PredictionsError: the reference is none of the models.
    """
    models = predictions.models
    if reference is not None and reference not in models:
        raise PredictionsError(
            f"No model '{reference}' to compare with. Known: {', '.join(models)}."
        )
    pairs = (
        list(combinations(models, 2))
        if reference is None
        else [(reference, name) for name in models if name != reference]
    )
    risks = {name: _repeats(predictions, name) for name in models}
    return compare_risks(risks, pairs, predictions.horizons if predictions.has_curves else None)


def compare_survival_tables(
    first: RiskPredictions,
    second: RiskPredictions,
    names: tuple[str, str] = ("A", "B"),
) -> SurvivalComparison:
    """Test the models of one table against those of another over the same cases.

    Models of the same name are paired; where no name is in both tables, every model of the first is paired
    with every model of the second. Folds and repeats may differ. Integrated Brier scores are compared only
    where both tables predict survival at the same times.

    Args:
        first: a table.
        second: another.
        names: names of the tables in results and messages.

    Raises:
        PredictionsError: the tables have other cases, times or events.
    """
    _check_same_outcomes(first, second, names)
    shared = [name for name in first.models if name in second.models]
    pairs = [(name, name) for name in shared] or list(product(first.models, second.models))
    risks = {
        f"{name}: {model}": _repeats(table, model)
        for name, table in zip(names, (first, second), strict=True)
        for model in table.models
        if any(model in pair for pair in pairs)
    }
    both = first.has_curves and second.has_curves
    same_times = both and np.array_equal(first.horizons, second.horizons)
    a, b = names
    return compare_risks(
        risks,
        [(f"{a}: {model}", f"{b}: {other}") for model, other in pairs],
        first.horizons if same_times else None,
    )


def compare_risks(
    risks: Risks, pairs: Sequence[tuple[str, str]], horizons: Floats | None
) -> SurvivalComparison:
    """Test pairs of models; p values are adjusted over the pairs by Holm's procedure.

    Every number is a mean over a model's repeats, and a case remains one case: it is swapped in all repeats
    at once.

    Args:
        risks: per model, over the same cases in the same order.
        pairs: names of two models each.
        horizons: (T,) times of the predicted survival; None leaves out the Brier score.
    """
    any_model = next(iter(risks.values()))[0]
    n, events = len(any_model.time), int(any_model.event.sum())
    harrell = _adjust([harrell_difference(risks[a], risks[b]) for a, b in pairs])
    ibs = _adjust(
        [
            None if horizons is None else ibs_difference(risks[a], risks[b], horizons)
            for a, b in pairs
        ]
    )
    tests = tuple(
        SurvivalPairTest(
            first=a,
            second=b,
            n=n,
            events=events,
            harrell=harrell[i],
            ibs=ibs[i],
            detectable=detectable_difference(risks[a], risks[b]),
        )
        for i, (a, b) in enumerate(pairs)
    )
    return SurvivalComparison(tests, n, events)


def _detectable_sentence(pairs: Sequence[SurvivalPairTest], n: int, events: int) -> str:
    cohort = f"With {events} event{'s' * (events != 1)} among {n} cases"
    differences = [pair.detectable for pair in pairs if pair.detectable is not None]
    if not differences:
        return f"{cohort} no difference in C between these models can be tested."
    low, high = min(differences), max(differences)
    if low >= COIN_TO_PERFECT:
        return (
            f"{cohort} not even the difference between a perfect model and a coin (0.50 in C) would be "
            "found in 80 % of studies."
        )
    span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    depends = ", depending on the pair," if len(span) > len("0.00") else ""
    return (
        f"{cohort} a true difference in C of {span}{depends} is found in 80 % of studies. Smaller ones are "
        "missed more often, so that a p above .05 does not show that two models are equally good."
    )


def _repeats(predictions: RiskPredictions, model: str) -> list[CaseRisks]:
    return [predictions.case_risks(model, repeat) for repeat in predictions.repeats]


def _adjust(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """The same with p adjusted by Holm over those that are defined."""
    adjusted = iter(holm([one.p for one in differences if one]))
    return [one and replace(one, p_holm=next(adjusted)) for one in differences]


def _check_same_outcomes(
    first: RiskPredictions, second: RiskPredictions, names: tuple[str, str]
) -> None:
    outcomes = [
        {
            str(case): (float(time), bool(event))
            for case, time, event in zip(
                table.table["case"], table.table["time"], table.table["event"], strict=True
            )
        }
        for table in (first, second)
    ]
    for (name, cases), (other, others) in (
        ((names[0], outcomes[0]), (names[1], outcomes[1])),
        ((names[1], outcomes[1]), (names[0], outcomes[0])),
    ):
        if lacking := sorted(set(cases) - set(others)):
            raise PredictionsError(
                f"{other} lacks {len(lacking)} of the {len(cases)} cases of {name}, e.g. {lacking[0]}. "
                "Paired tests need the same cases; predict them with both."
            )
    if differing := sorted(case for case in outcomes[0] if outcomes[0][case] != outcomes[1][case]):
        case = differing[0]
        (time, event), (other_time, other_event) = outcomes[0][case], outcomes[1][case]
        more = f", and {len(differing) - 1} more differ" * (len(differing) > 1)
        raise PredictionsError(
            f"Case {case} has time {time:g} and event {event:d} in {names[0]}, but time {other_time:g} and "
            f"event {other_event:d} in {names[1]}{more}. Correct the outcomes."
        )
