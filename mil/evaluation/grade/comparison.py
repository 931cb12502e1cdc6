"""Paired tests between models that predict ordered grades of the same cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product

import numpy as np

from mil.distributions import student
from mil.errors import PredictionsError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.classification.power import Power, power
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.display import Table, format_count, format_p
from mil.evaluation.grade.metrics import distances, median_grade, quadratic_kappa
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.paired_tests import (
    DRAWS,
    EXACT_UP_TO,
    SEED,
    Difference,
    flatten,
    format_difference,
    holm,
    mcnemar_exact,
    permutation_tests,
)

LEVEL, POWER = 0.05, 0.8

Scores = Mapping[str, Sequence[CaseScores]]  # model name to one CaseScores per repeat


@dataclass(frozen=True)
class GradePairTest:
    """Two models on the same cases; differences are first minus second.

    Attributes:
        first: a model; the reference if there is one.
        second: the model compared with it.
        n: cases.
        only_first: cases whose grade only the first predicts exactly, in more than half of its repeats.
        only_second: likewise of the second.
        p: exact McNemar on these, two-sided; 1 where they never differ.
        p_holm: p adjusted for all pairs tested together.
        mae: difference in mean absolute error, below 0 where the first is nearer. Limits from a paired t
            over cases, p from swapping the two models' predictions case by case.
        kappa: difference in quadratic kappa, above 0 where the first agrees better. Limits from leaving out
            one case at a time, p from the same swaps. None where all cases have one grade.
        detectable: true difference in mean absolute error found in about four of five such studies, given
            how far these two models agree; None where they never differ.
    """

    first: str
    second: str
    n: int
    only_first: int
    only_second: int
    p: float
    p_holm: float
    mae: Difference
    kappa: Difference | None
    detectable: float | None

    def to_json(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class GradeComparison:
    """All pairs of models, and what so many cases can show.

    Attributes:
        pairs: one test per pair; each kind of p is adjusted over them for itself.
        power: what exact McNemar finds with so many cases.
    """

    pairs: tuple[GradePairTest, ...]
    power: Power

    def __str__(self) -> str:
        differences = [pair.detectable for pair in self.pairs if pair.detectable is not None]
        if not differences:
            return str(self.power)
        low, high = min(differences), max(differences)
        span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
        return (
            f"{self.power} A true difference in mean absolute error of {span} grades is found in 80 % of "
            "studies, given how far these models agree."
        )

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; what can be shown also as a sentence."""
        return {"task": "grade", **asdict(self), "power": self.power.to_json(), "says": str(self)}

    def rows(self) -> list[dict[str, object]]:
        """One flat row per pair: ``mae.value`` is called ``mae_value``, and so on."""
        return [flatten(pair.to_json()) for pair in self.pairs]

    def tables(self) -> list[Table]:
        """The tests as text."""
        if not self.pairs:
            return []
        pairs = format_count(len(self.pairs), "pair")
        notes = [f"{self.pairs[0].n} cases; p adjusted over {pairs} (Holm).", str(self)]
        header = [
            "first", "second", "only first", "only second", "p", "absolute error", "p error", "kappa",
            "p kappa",
        ]  # fmt: skip
        rows = [
            [
                pair.first,
                pair.second,
                f"{pair.only_first}",
                f"{pair.only_second}",
                format_p(pair.p_holm),
                *format_difference(pair.mae),
                *format_difference(pair.kappa),
            ]
            for pair in self.pairs
        ]
        return [Table("", header, rows, notes)]


def compare_grade_models(
    predictions: GradePredictions, reference: str | None = None
) -> GradeComparison:
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
    return compare_grades({name: _repeats(predictions, name) for name in models}, pairs)


def compare_grade_tables(
    first: GradePredictions, second: GradePredictions, names: tuple[str, str] = ("A", "B")
) -> GradeComparison:
    """Test the models of one table against those of another over the same cases.

    Models of the same name are paired; where no name is in both tables, every model of the first is paired
    with every model of the second. Folds and repeats may differ.

    Args:
        first: a table.
        second: another.
        names: names of the tables in results and messages.

    Raises:
        PredictionsError: the tables have other grades, cases or true grades.
    """
    _check_same_outcomes(first, second, names)
    shared = [name for name in first.models if name in second.models]
    pairs = [(name, name) for name in shared] or list(product(first.models, second.models))
    a, b = names
    scores = {
        f"{name}: {model}": _repeats(table, model)
        for name, table in ((a, first), (b, second))
        for model in table.models
        if any(model in pair for pair in pairs)
    }
    return compare_grades(scores, [(f"{a}: {model}", f"{b}: {other}") for model, other in pairs])


def compare_grades(scores: Scores, pairs: Sequence[tuple[str, str]]) -> GradeComparison:
    """Test pairs of models; each kind of p is adjusted over the pairs by Holm's procedure.

    Every number is a mean over a model's repeats, and a case remains one case: it is swapped in all repeats
    at once. The predicted grade is the median of the predicted distribution.

    Args:
        scores: per model, over the same cases in the same order.
        pairs: names of two models each.
    """
    exact = {name: _mostly_exact(repeats) for name, repeats in scores.items()}
    n = len(next(iter(exact.values())))
    only = [
        (int(np.sum(exact[a] & ~exact[b])), int(np.sum(exact[b] & ~exact[a]))) for a, b in pairs
    ]
    p = [mcnemar_exact(*counts) for counts in only]
    p_holm = holm(p)
    mae = [mae_difference(scores[a], scores[b]) for a, b in pairs]
    mae_holm = holm([one.p for one in mae])
    kappa = [kappa_difference(scores[a], scores[b]) for a, b in pairs]
    kappa_holm = iter(holm([one.p for one in kappa if one]))
    tests = tuple(
        GradePairTest(
            first=a,
            second=b,
            n=n,
            only_first=only[i][0],
            only_second=only[i][1],
            p=p[i],
            p_holm=p_holm[i],
            mae=replace(mae[i], p_holm=mae_holm[i]),
            kappa=(one := kappa[i]) and replace(one, p_holm=next(kappa_holm)),
            detectable=detectable_difference(scores[a], scores[b]),
        )
        for i, (a, b) in enumerate(pairs)
    )
    return GradeComparison(tests, power(n))


def mae_difference(first: Sequence[CaseScores], second: Sequence[CaseScores]) -> Difference:
    """Difference in mean absolute error, by swapping predictions case by case; p_holm is p."""
    terms = _absolute_errors(first) - _absolute_errors(second)
    value, error = float(terms.mean()), _standard_error(terms)
    half = float(student.isf(LEVEL / 2, max(len(terms) - 1, 1))) * error
    farthest = float(first[0].p.shape[1] - 1)
    p = permutation_tests(terms[None])[0]
    return Difference(value, max(-farthest, value - half), min(farthest, value + half), p, p)


def kappa_difference(
    first: Sequence[CaseScores], second: Sequence[CaseScores]
) -> Difference | None:
    """Difference in quadratic kappa, by swapping predictions case by case; p_holm is p.

    Of 250 cohorts each of 20 to 50 cases the limits hold the true difference in .90 to .99, least where the
    two models differ most at 20 cases; without a difference p is below .05 in .07 or less.

    Returns:
        None where all cases have one grade.
    """
    truth, n_grades = first[0].truth, first[0].p.shape[1]
    n = len(truth)
    if len(np.unique(truth)) < 2:
        return None
    cells = [[_cells(one, n_grades) for one in repeats] for repeats in (first, second)]
    value = _mean_kappa(np.ones((1, n)), cells[0]) - _mean_kappa(np.ones((1, n)), cells[1])
    without = 1 - np.eye(n)
    left_out = _mean_kappa(without, cells[0]) - _mean_kappa(without, cells[1])
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(student.isf(LEVEL / 2, n - 1)) * error
    p = _kappa_swap_p(cells[0], cells[1], abs(float(value[0])))
    center = float(value[0])
    return Difference(center, max(-2.0, center - half), min(2.0, center + half), p, p)


def detectable_difference(
    first: Sequence[CaseScores], second: Sequence[CaseScores]
) -> float | None:
    """True difference in mean absolute error that a test at .05 finds in about 80 % of such studies.

    It depends on the standard error of the difference alone, not on the difference found. None where the
    two models never differ.
    """
    terms = _absolute_errors(first) - _absolute_errors(second)
    error, df = _standard_error(terms), max(len(terms) - 1, 1)
    both = float(student.isf(LEVEL / 2, df) + student.isf(1 - POWER, df))
    return both * error if error > 0 else None


def _repeats(predictions: GradePredictions, model: str) -> list[CaseScores]:
    return [predictions.case_scores(model, repeat) for repeat in predictions.repeats]


def _mostly_exact(repeats: Sequence[CaseScores]) -> Bools:
    """(n,) True where the model predicts the true grade in more than half of its repeats."""
    exact: Bools = np.mean([median_grade(one.p) == one.truth for one in repeats], axis=0) > 0.5
    return exact


def _absolute_errors(repeats: Sequence[CaseScores]) -> Floats:
    apart = distances(repeats[0].p.shape[1])
    return np.asarray(np.mean([apart[one.truth, median_grade(one.p)] for one in repeats], axis=0))


def _standard_error(terms: Floats) -> float:
    n = len(terms)
    return float(terms.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0


def _cells(scores: CaseScores, n_grades: int) -> Floats:
    """(n, K * K) 1 in the cell of the confusion matrix to which each case belongs."""
    cells: Floats = np.eye(n_grades**2)[scores.truth * n_grades + median_grade(scores.p)]
    return cells


def _kappa_of(tables: Floats) -> Floats:
    size = math.isqrt(tables.shape[-1])
    return quadratic_kappa(tables.reshape(*tables.shape[:-1], size, size))


def _mean_kappa(weights: Floats, repeats: Sequence[Floats]) -> Floats:
    """(B,) quadratic kappa of cases weighted by (B, n), mean over repeats."""
    return np.asarray(np.mean([_kappa_of(weights @ cells) for cells in repeats], axis=0))


def _kappa_swap_p(first: Sequence[Floats], second: Sequence[Floats], observed: float) -> float:
    """Two-sided p of a difference in kappa, each case's predictions swapped or not.

    Kappa is no sum over cases, so that the tables are counted anew for every swap. Repeats are swapped
    repeat by repeat where both models have equally many, else over all pairs of repeats.
    """
    n = len(first[0])
    if n <= EXACT_UP_TO:
        swapped, extra = np.array(list(product((0.0, 1.0), repeat=n))), 0
    else:
        swapped, extra = np.random.default_rng(SEED).choice((0.0, 1.0), size=(DRAWS, n)), 1
    pairs = list(
        zip(first, second, strict=True) if len(first) == len(second) else product(first, second)
    )
    drawn = np.zeros(len(swapped))
    for a, b in pairs:
        moved = swapped @ (b - a)
        drawn += _kappa_of(a.sum(axis=0) + moved) - _kappa_of(b.sum(axis=0) - moved)
    # Equal differences, reached by other sums, differ in the last bits.
    reaching = int((np.abs(drawn / len(pairs)) >= observed - 1e-9).sum())
    return (reaching + extra) / (len(swapped) + extra)


def _check_same_outcomes(
    first: GradePredictions, second: GradePredictions, names: tuple[str, str]
) -> None:
    a, b = names
    if first.grades != second.grades:
        raise PredictionsError(
            f"{a} has the grades {', '.join(first.grades)}; {b} has {', '.join(second.grades)}. Models are "
            "compared on the same grades in the same order."
        )
    outcomes = [
        dict(zip(table.table["case"], table.table["grade"], strict=True))
        for table in (first, second)
    ]
    for (name, cases), (other, others) in (
        ((a, outcomes[0]), (b, outcomes[1])),
        ((b, outcomes[1]), (a, outcomes[0])),
    ):
        if lacking := sorted(set(cases) - set(others)):
            raise PredictionsError(
                f"{other} lacks {len(lacking)} of the {len(cases)} cases of {name}, e.g. {lacking[0]}. "
                "Paired tests need the same cases; predict them with both."
            )
    if differing := sorted(case for case in outcomes[0] if outcomes[0][case] != outcomes[1][case]):
        case = differing[0]
        more = f", and {len(differing) - 1} more differ" * (len(differing) > 1)
        raise PredictionsError(
            f"Case {case} has grade {outcomes[0][case]} in {a} and {outcomes[1][case]} in {b}{more}. "
            "Correct the grades."
        )
