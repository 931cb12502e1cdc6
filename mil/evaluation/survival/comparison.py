"""Paired tests between survival models over the same cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from mil.errors import PredictionsError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.display import Table, format_count
from mil.evaluation.paired_tests import (
    Difference,
    flatten,
    format_difference,
    holm,
    permutation_tests,
)
from mil.evaluation.survival.metrics import brier_errors
from mil.evaluation.survival.predictions import CaseRisks, RiskPredictions

LEVEL, POWER = 0.05, 0.8
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


def harrell_difference(
    first: Sequence[CaseRisks], second: Sequence[CaseRisks]
) -> Difference | None:
    """Difference in Harrell's C of two models over the same cases.

    The limits come from the influence of each case on the difference (infinitesimal jackknife, as L. Kang et
    al., Stat Med 2015, 34:685) and Student's t on events - 1 degrees of freedom. p comes from swapping the
    two models' ranks case by case. Risks are replaced by their ranks within model and repeat, because two
    models' risks need not have the same scale, and C reads only their order.

    Of 20 to 40 cases, 1,000 cohorts each, models of equal and of different quality, 1 and 3 repeats, 4 to 20
    events (benchmarks.survival_comparison): the limits hold the true difference in .934 to .991; without a
    difference p is at most .05 in .028 to .064.

    Returns:
        None where no two cases are comparable or there are fewer than two events; p_holm is p.
    """
    comparable = _comparable(first[0])
    if not comparable.any() or first[0].event.sum() < 2:
        return None
    values = [_mean_c(comparable, repeats) for repeats in (first, second)]
    value = values[0] - values[1]
    half = _standard_error(comparable, first, second) * _quantile(first[0], LEVEL / 2)
    p = permutation_tests(_swap_terms(comparable, first, second)[None])[0]
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), p, p)


def ibs_difference(
    first: Sequence[CaseRisks], second: Sequence[CaseRisks], horizons: Floats
) -> Difference | None:
    """Difference in integrated Brier score of two models over the same cases; p_holm is p.

    Predicted survival is a probability in both models, so that the curves themselves are swapped. The
    weights for censoring are taken as known. None for a single case.
    """
    terms = _ibs_cases(first, horizons) - _ibs_cases(second, horizons)
    n, value = len(terms), float(terms.mean())
    if n < 2:
        return None
    half = float(student.isf(LEVEL / 2, n - 1) * terms.std(ddof=1) / math.sqrt(n))
    p = permutation_tests(terms[None])[0]
    return Difference(value, value - half, value + half, p, p)


def detectable_difference(first: Sequence[CaseRisks], second: Sequence[CaseRisks]) -> float | None:
    """True difference in C that a test at .05 finds in about 80 % of studies like this one.

    It depends on the standard error of the difference alone, not on the difference found. None where that
    error is 0 or cannot be estimated.
    """
    comparable = _comparable(first[0])
    if not comparable.any() or first[0].event.sum() < 2:
        return None
    error = _standard_error(comparable, first, second)
    both = _quantile(first[0], LEVEL / 2) + _quantile(first[0], 1 - POWER)
    return both * error if error > 0 else None


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


def _comparable(risks: CaseRisks) -> Bools:
    """(n, n) whether i's event came before j left; among equal times events come first."""
    time, event = risks.time, risks.event
    earlier = (time[:, None] < time) | ((time[:, None] == time) & ~event)
    comparable: Bools = event[:, None] & earlier
    return comparable


def _wins(first: Floats, second: Floats) -> Floats:
    """(n, n) 1 where i of the first is higher than j of the second, a half where they tie."""
    higher: Floats = (first[:, None] > second) + 0.5 * (first[:, None] == second)
    return higher


def _mean_c(comparable: Bools, repeats: Sequence[CaseRisks]) -> float:
    values = [_wins(one.risk, one.risk)[comparable].mean() for one in repeats]
    return float(np.mean(values))


def _influence(comparable: Bools, repeats: Sequence[CaseRisks]) -> Floats:
    """(n,) what each case adds to C beyond its mean, averaged over repeats."""
    terms = []
    for one in repeats:
        wins = _wins(one.risk, one.risk)
        away = comparable * (wins - wins[comparable].mean())
        terms.append((away.sum(axis=0) + away.sum(axis=1)) / comparable.sum())
    return np.asarray(np.mean(terms, axis=0))


def _standard_error(
    comparable: Bools, first: Sequence[CaseRisks], second: Sequence[CaseRisks]
) -> float:
    influence = _influence(comparable, first) - _influence(comparable, second)
    influence = np.where(np.abs(influence) < 1e-12, 0.0, influence)  # equal ranks, other rounding
    n = len(influence)
    return float(np.sqrt((influence**2).sum() * n / (n - 1)))


def _quantile(risks: CaseRisks, tail: float) -> float:
    return float(student.isf(tail, int(risks.event.sum()) - 1))


def _swap_terms(
    comparable: Bools, first: Sequence[CaseRisks], second: Sequence[CaseRisks]
) -> Floats:
    """(n,) terms whose sum is the difference in C; swapping the ranks of a case changes its term's sign.

    With s_i = 1 where case i keeps its models and -1 where they are swapped, the difference in wins of a
    pair is D (s_i + s_j) / 2 + E (s_i - s_j) / 2. D is first against first minus second against second, E
    first against second minus second against first. This is linear in s, so that no swap needs a new C.
    With several repeats the terms are means over them: repeat by repeat where both models have equally
    many, which share their folds, else over all pairs of repeats.
    """
    ranks = [[rankdata(one.risk) for one in repeats] for repeats in (first, second)]
    alike = len(first) == len(second)
    terms = []
    for a, b in zip(*ranks, strict=True) if alike else product(*ranks):
        within = comparable * (_wins(a, a) - _wins(b, b))
        across = comparable * (_wins(a, b) - _wins(b, a))
        both = within.sum(axis=0) + within.sum(axis=1)
        terms.append((both + across.sum(axis=1) - across.sum(axis=0)) / 2)
    return np.asarray(np.mean(terms, axis=0) / comparable.sum())


def _ibs_cases(repeats: Sequence[CaseRisks], horizons: Floats) -> Floats:
    """(n,) what each case contributes to the integrated Brier score, averaged over repeats."""
    span = horizons[-1] - horizons[0]
    errors = [
        np.trapezoid(brier_errors(one.time, one.event, one.survival, horizons), horizons, axis=1)
        for one in repeats
    ]
    return np.asarray(np.mean(errors, axis=0) / span)


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
            f"event {other_event:d} in {names[1]}{more}. Mend the outcomes."
        )
