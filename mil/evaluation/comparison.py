"""Paired comparison of models on the same cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product

import numpy as np

from mil.distributions import norm
from mil.errors import RunError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.auc_intervals import auc_influence, stratified_variance
from mil.evaluation.classification.metrics import accuracy, brier, macro_auc, predicted
from mil.evaluation.classification.model_scores import depends_on_fold_alone
from mil.evaluation.classification.power import Power, power
from mil.evaluation.classification.predictions import CaseScores, ClassPredictions
from mil.evaluation.display import Table, format_count, format_p, state_p
from mil.evaluation.paired_tests import (
    Cochran,
    Difference,
    cochran_q,
    corrected_t,
    flatten,
    format_difference,
    holm,
    mcnemar_exact,
    permutation_tests,
)

Scores = Mapping[str, Sequence[CaseScores]]  # the repeats of each model


@dataclass(frozen=True)
class PairTest:
    """Two models on the same cases.

    Attributes:
        first: a model; the reference if there is one.
        second: the model compared with it.
        n: cases.
        only_first: cases that only the first classifies correctly.
        only_second: cases that only the second classifies correctly.
        p: two-sided exact McNemar test; 1 where the models never differ.
        p_holm: p adjusted over all pairs tested together.
        auc: difference in macro AUC by paired DeLong; None where it or its variance is undefined.
        brier: difference in mean Brier score; below 0 the first model's probabilities are better.
        p_brier: permutation test of the Brier score, swapping the two models' predictions of a case.
        p_brier_holm: p_brier adjusted likewise.
        p_folds: Nadeau and Bengio's corrected t test of accuracy over folds; None where folds differ.
        p_folds_holm: p_folds adjusted likewise.
    """

    first: str
    second: str
    n: int
    only_first: int
    only_second: int
    p: float
    p_holm: float
    auc: Difference | None = None
    brier: float = 0.0
    p_brier: float = 1.0
    p_brier_holm: float = 1.0
    p_folds: float | None = None
    p_folds_holm: float | None = None

    def to_json(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ClassComparison:
    """Tests of all pairs, of all models together, and the power with this number of cases."""

    pairs: tuple[PairTest, ...]
    cochran: Cochran | None
    power: Power

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; the power also as a sentence."""
        return {**asdict(self), "power": self.power.to_json(), "says": str(self.power)}

    def rows(self) -> list[dict[str, object]]:
        """One flat row per pair: ``auc.value`` is called ``auc_value``, and so on."""
        return [flatten(pair.to_json()) for pair in self.pairs]

    def tables(self) -> list[Table]:
        """The tests as text."""
        if not self.pairs:
            return []
        pairs = format_count(len(self.pairs), "pair")
        notes = [f"{self.pairs[0].n} cases; p adjusted over {pairs} (Holm)."]
        if self.cochran:
            p = state_p(self.cochran.p)
            notes.append(f"All {self.cochran.models} models alike (Cochran's Q): " + p)
        header = [
            "first", "second", "only first", "only second", "p", "AUC", "p AUC", "Brier", "p Brier",
            "p folds",
        ]  # fmt: skip
        return [
            Table("", header, [_pair_row(pair) for pair in self.pairs], [*notes, str(self.power)])
        ]


def compare(predictions: ClassPredictions, reference: str | None = None) -> tuple[PairTest, ...]:
    """Test the models of one table pair by pair; see ``compare_models``."""
    return compare_models(predictions, reference).pairs


def compare_models(predictions: ClassPredictions, reference: str | None = None) -> ClassComparison:
    """Test the models of one table against each other.

    Args:
        predictions: predictions of one or more models.
        reference: model that the others are compared with; None compares all pairs.

    Raises:
        RunError: the reference is none of the models.
    """
    models = predictions.models
    if reference is not None and reference not in models:
        raise RunError(f"No model '{reference}' to compare with. Known: {', '.join(models)}.")
    pairs = (
        list(combinations(models, 2))
        if reference is None
        else [(reference, name) for name in models if name != reference]
    )
    return compare_scores({name: _repeats(predictions, name) for name in models}, pairs)


def compare_tables(
    first: ClassPredictions, second: ClassPredictions, names: tuple[str, str] = ("A", "B")
) -> ClassComparison:
    """Test the models of one table against those of another, over the same cases.

    Models of the same name are paired; where no name is in both tables, every model of the first is
    paired with every model of the second. Folds and repeats may differ.

    Args:
        first: predictions of some models.
        second: predictions of others; the order of classes may differ.
        names: names of the tables in results and messages.

    Raises:
        RunError: the tables differ in classes, cases or labels.
    """
    second = _matched(first, second, names)
    shared = [name for name in first.models if name in second.models]
    pairs = [(a, a) for a in shared] or list(product(first.models, second.models))
    scores = {
        f"{name}: {model}": _repeats(table, model)
        for name, table in zip(names, (first, second), strict=True)
        for model in table.models
        if any(model in pair for pair in pairs)
    }
    a, b = names
    return compare_scores(scores, [(f"{a}: {model}", f"{b}: {rival}") for model, rival in pairs])


def compare_scores(scores: Scores, pairs: Sequence[tuple[str, str]]) -> ClassComparison:
    """Test pairs of models; each kind of p is adjusted over the pairs by Holm's procedure.

    A case is right where the model classifies it correctly in more than half of the repeats; scores are
    means over repeats. Repeats do not count as more cases.

    Args:
        scores: predictions of each model for the same cases in the same order.
        pairs: pairs of names.
    """
    right = {name: mostly_right(repeats) for name, repeats in scores.items()}
    together = cochran_q(np.stack(list(right.values()), axis=1)) if len(right) > 2 else None
    n = len(next(iter(right.values())))
    return ClassComparison(_test_pairs(scores, right, pairs), together, power(n))


def _test_pairs(
    scores: Scores, right: Mapping[str, Bools], pairs: Sequence[tuple[str, str]]
) -> tuple[PairTest, ...]:
    n = len(next(iter(right.values())))
    counts = [
        (int(np.sum(right[a] & ~right[b])), int(np.sum(right[b] & ~right[a]))) for a, b in pairs
    ]
    p = [mcnemar_exact(*count) for count in counts]
    p_holm = holm(p)
    auc = _auc_differences(scores, pairs)
    briers = np.array([_brier_cases(scores[a]) - _brier_cases(scores[b]) for a, b in pairs])
    p_brier = permutation_tests(briers.reshape(len(pairs), n))
    p_brier_holm = holm(p_brier)
    p_folds = [folds_test(scores[a], scores[b]) for a, b in pairs]
    p_folds_holm = _holm_of_defined(p_folds)
    return tuple(
        PairTest(
            first=a,
            second=b,
            n=n,
            only_first=counts[i][0],
            only_second=counts[i][1],
            p=p[i],
            p_holm=p_holm[i],
            auc=auc[i],
            brier=float(briers[i].mean()),
            p_brier=p_brier[i],
            p_brier_holm=p_brier_holm[i],
            p_folds=p_folds[i],
            p_folds_holm=p_folds_holm[i],
        )
        for i, (a, b) in enumerate(pairs)
    )


def mostly_right(repeats: Sequence[CaseScores]) -> Bools:
    """Whether each case is classified correctly in more than half of the repeats, (n,)."""
    right = [predicted(scores.p) == scores.truth for scores in repeats]
    majority: Bools = np.mean(right, axis=0) > 0.5
    return majority


def delong_test(
    first: Sequence[CaseScores], second: Sequence[CaseScores], confidence: float = 0.95
) -> Difference | None:
    """Difference of two macro AUCs on the same cases (DeLong et al. 1988, Biometrics 44:837).

    AUCs and the influence of each case on them are means over the repeats of each model.

    Returns:
        The difference, with p_holm equal to p. None where an AUC is undefined, or where the variance of
        the difference is 0 or cannot be estimated (a class with one case).
    """
    values = [_auc(repeats) for repeats in (first, second)]
    if values[0] is None or values[1] is None:
        return None
    truth, value = first[0].truth, values[0] - values[1]
    influence = _influence(first) - _influence(second)
    variance = stratified_variance(influence, truth)
    if not variance > 0:  # also nan
        return Difference(0.0, 0.0, 0.0, 1.0, 1.0) if not influence.any() and not value else None
    error = math.sqrt(variance)
    half = float(norm.ppf((1 + confidence) / 2)) * error
    p = float(2 * norm.sf(abs(value) / error))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), p, p)


def folds_test(first: Sequence[CaseScores], second: Sequence[CaseScores]) -> float | None:
    """P value of the mean difference in accuracy over folds and repeats; None where folds differ.

    Nadeau & Bengio 2003 (doi:10.1023/A:1024068626366): folds share training cases, so the factor of the
    variance is raised from 1 / J to 1 / J + n_test / n_train. A plain t test over 5 x 3 folds rejects
    falsely in a quarter of studies.
    """
    if len(first) != len(second) or any(
        (a.fold != b.fold).any() for a, b in zip(first, second, strict=True)
    ):
        return None
    differences, shares = [], []
    for a, b in zip(first, second, strict=True):
        for fold in np.unique(a.fold):
            tested = a.fold == fold
            differences.append(
                accuracy(a.truth[tested], a.p[tested]) - accuracy(b.truth[tested], b.p[tested])
            )
            shares.append(tested.sum() / max((~tested).sum(), 1))
    if len(differences) < 2:
        return None
    return corrected_t(np.array(differences), float(np.mean(shares)))


def _matched(
    first: ClassPredictions, second: ClassPredictions, names: tuple[str, str]
) -> ClassPredictions:
    """The second table with the classes in the order of the first; checks that the cases are the same."""
    a, b = names
    if set(first.classes) != set(second.classes):
        raise RunError(
            f"{a} has the classes {', '.join(first.classes)}; {b} has {', '.join(second.classes)}. "
            "Models are compared on the same classes; give both tables the same names of classes (classes)."
        )
    labels = [
        dict(zip(part.table["case"], part.table["label"], strict=True)) for part in (first, second)
    ]
    for full, partial, cases in ((a, b, labels), (b, a, labels[::-1])):
        if lacking := sorted(set(cases[0]) - set(cases[1])):
            raise RunError(
                f"{partial} lacks {len(lacking)} of the {len(cases[0])} cases of {full}, e.g. {lacking[0]}. "
                "Paired tests need the same cases; predict them with both."
            )
    if moved := sorted(case for case in labels[0] if labels[0][case] != labels[1][case]):
        raise RunError(
            f"Case {moved[0]} is {labels[0][moved[0]]} in {a} and {labels[1][moved[0]]} in {b}"
            f"{f', and {len(moved) - 1} more differ' * (len(moved) > 1)}. Correct the labels."
        )
    return ClassPredictions(second.table, first.classes)


def _pair_row(test: PairTest) -> list[str]:
    return [
        test.first,
        test.second,
        f"{test.only_first}",
        f"{test.only_second}",
        format_p(test.p_holm),
        *format_difference(test.auc),
        f"{test.brier:+.3f}",
        format_p(test.p_brier_holm),
        "" if test.p_folds_holm is None else format_p(test.p_folds_holm),
    ]


def _repeats(predictions: ClassPredictions, model: str) -> list[CaseScores]:
    return [predictions.case_scores(model, repeat) for repeat in predictions.repeats]


def _brier_cases(repeats: Sequence[CaseScores]) -> Floats:
    return np.asarray(np.mean([brier(scores.truth, scores.p) for scores in repeats], axis=0))


def _auc(repeats: Sequence[CaseScores]) -> float | None:
    values = [macro_auc(scores.truth, scores.p) for scores in repeats]
    defined = [value for value in values if value is not None]
    if not defined or all(depends_on_fold_alone(scores) for scores in repeats):
        return None
    return float(np.mean(defined))


def _influence(repeats: Sequence[CaseScores]) -> Floats:
    return np.asarray(
        np.mean([auc_influence(scores.truth, scores.p) for scores in repeats], axis=0)
    )


def _auc_differences(scores: Scores, pairs: Sequence[tuple[str, str]]) -> list[Difference | None]:
    tests = [delong_test(scores[a], scores[b]) for a, b in pairs]
    adjusted = iter(holm([test.p for test in tests if test]))
    return [test and replace(test, p_holm=next(adjusted)) for test in tests]


def _holm_of_defined(p: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(holm([value for value in p if value is not None]))
    return [None if value is None else next(adjusted) for value in p]
