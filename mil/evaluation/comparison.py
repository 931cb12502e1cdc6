"""Which model is right where another is wrong: paired tests on cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product

import numpy as np
from scipy.stats import binomtest, chi2, norm
from scipy.stats import t as student

from mil.errors import RunError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.classification.evaluate import ranks_nothing
from mil.evaluation.classification.metrics import accuracy, brier, macro_auc, predicted
from mil.evaluation.classification.power import Power, power
from mil.evaluation.intervals import auc_influence, stratified_variance
from mil.evaluation.predictions import CaseScores, Predictions

EXACT_UP_TO = 12  # cases; all 4,096 sign changes are tried up to here, 9,999 drawn ones beyond
DRAWS, SEED = 9999, 0

Scores = Mapping[str, Sequence[CaseScores]]  # of each model, by repeat


@dataclass(frozen=True)
class Difference:
    """First minus second, with its 95 % limits, p value, and p adjusted over all pairs."""

    value: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class PairTest:
    """Two models on the same cases.

    Attributes:
        first: a model; the reference where one was asked for.
        second: the model compared with it.
        n: cases.
        only_first: cases that only the first calls rightly.
        only_second: cases that only the second calls rightly.
        p: exact McNemar, two-sided; 1 where they never differ.
        p_holm: p adjusted for all pairs tested together.
        auc: macro AUC, paired DeLong; None where one has none or their difference no variance.
        brier: mean Brier score, first minus second; below 0 the first's probabilities are better.
        p_brier: of the Brier score, by swapping the models' answers case by case.
        p_brier_holm: likewise adjusted.
        p_folds: of accuracy over folds, Nadeau and Bengio's corrected t; None where folds differ.
        p_folds_holm: likewise adjusted.
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
class Cochran:
    """Cochran's Q: whether any of several models is right more often than another."""

    models: int
    q: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """All pairs, all models together, and what the number of cases can show."""

    pairs: tuple[PairTest, ...]
    cochran: Cochran | None
    power: Power

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; the power also as a sentence."""
        return {**asdict(self), "says": str(self.power)}


def compare(predictions: Predictions, reference: str | None = None) -> tuple[PairTest, ...]:
    """The pairs of ``compare_models``."""
    return compare_models(predictions, reference).pairs


def compare_models(predictions: Predictions, reference: str | None = None) -> Comparison:
    """Test the models of one table against one another.

    Args:
        predictions: of one or more models; one model has no pair.
        reference: compare only this model with each other; None compares all pairs.

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
    first: Predictions, second: Predictions, names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Test the models of one table against those of another, over the same cases.

    Models of the same name are tested against one another; where no name is in both, each of the
    first with each of the second. Folds and repeats may differ.

    Args:
        first: a table.
        second: another; its classes may stand in another order.
        names: what the tables are called in results and messages.

    Raises:
        RunError: the tables have other classes, cases or labels.
    """
    second = _in_the_order_of(first, second, names)
    shared = [name for name in first.models if name in second.models]
    pairs = [(a, a) for a in shared] or list(product(first.models, second.models))
    scores = {
        f"{name}: {model}": _repeats(table, model)
        for name, table in zip(names, (first, second), strict=True)
        for model in table.models
        if any(model in pair for pair in pairs)
    }
    a, b = names
    return compare_scores(scores, [(f"{a}: {one}", f"{b}: {other}") for one, other in pairs])


def compare_scores(scores: Scores, pairs: Sequence[tuple[str, str]]) -> Comparison:
    """Test pairs of models, each kind of p adjusted over the pairs by Holm's procedure.

    A case counts as right where the model calls it rightly in more than half of its repeats, and
    its scores are means over them: every repeat has its say, and a case remains one case.

    Args:
        scores: of each model, over the same cases in the same order.
        pairs: names of two models each.
    """
    right = {name: mostly_right(each) for name, each in scores.items()}
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
    p_folds_holm = _holm_of_known(p_folds)
    tests = tuple(
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
    together = cochran_q(np.stack(list(right.values()), axis=1)) if len(right) > 2 else None
    return Comparison(tests, together, power(n))


def mostly_right(repeats: Sequence[CaseScores]) -> Bools:
    """(n,) True where the model is right in more than half of the repeats."""
    found: Bools = np.mean([predicted(each.p) == each.truth for each in repeats], axis=0) > 0.5
    return found


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test from the two discordant counts."""
    differ = only_first + only_second
    return float(binomtest(only_first, differ).pvalue) if differ else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979, Scand J Stat 6:65), in the order given."""
    adjusted, running = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda each: p[each])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def delong_test(
    first: Sequence[CaseScores], second: Sequence[CaseScores], confidence: float = 0.95
) -> Difference | None:
    """Difference of two macro AUCs of the same cases (DeLong et al. 1988, Biometrics 44:837).

    AUCs and what each case adds to them are means over the repeats of each model.

    Returns:
        None where an AUC is undefined, or where the difference has no variance to judge it by:
        a class with one case, or the same difference whatever the case. p_holm is p.
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


def permutation_tests(differences: Floats) -> list[float]:
    """Two-sided p values of mean differences, each case's sign changed or not.

    Swapping two models' answers to a case changes the sign of its difference. All changes are
    tried for few cases; otherwise 9,999 are drawn, and the observed one counts among them
    (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).

    Args:
        differences: (pairs, n) of a score of each case.
    """
    n = differences.shape[1]
    if n <= EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
        extra = 0
    else:
        signs = np.random.default_rng(SEED).choice((1.0, -1.0), size=(DRAWS, n))
        extra = 1
    observed = np.abs(differences.sum(axis=1))
    drawn = np.abs(signs @ differences.T)
    # Equal sums in another order of adding differ in the last bits.
    reaching = (drawn >= observed - 1e-9 * np.abs(differences).sum(axis=1)).sum(axis=0)
    return [float(each) for each in (reaching + extra) / (len(signs) + extra)]


def folds_test(first: Sequence[CaseScores], second: Sequence[CaseScores]) -> float | None:
    """P value of the mean difference in accuracy over folds and repeats; None where folds differ.

    Nadeau & Bengio 2003 (doi:10.1023/A:1024068626366): folds share training cases, so that their
    variance is raised from 1 / J to 1 / J + n_test / n_train. A plain t test over 5 x 3 folds errs in
    a quarter of studies.
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


def corrected_t(differences: Floats, test_to_train: float) -> float | None:
    """Two-sided p value of Nadeau and Bengio's corrected resampled t test.

    Args:
        differences: (J,) one per fold.
        test_to_train: tested cases over training cases of a fold.

    Returns:
        None where all folds differ by the same amount, which no t test can judge.
    """
    mean, variance, folds = differences.mean(), differences.var(ddof=1), len(differences)
    if not variance > 1e-24:
        return 1.0 if abs(mean) < 1e-12 else None
    t = mean / math.sqrt(variance * (1 / folds + test_to_train))
    return float(2 * student.sf(abs(t), folds - 1))


def cochran_q(right: Bools) -> Cochran:
    """Cochran 1950 (doi:10.1093/biomet/37.3-4.256); for two models McNemar without correction.

    Args:
        right: (n, k) whether each of k models is right on each case.
    """
    k = right.shape[1]
    of_model, of_case = right.sum(axis=0), right.sum(axis=1)
    apart = float((of_case * (k - of_case)).sum())
    q = (k - 1) * k * float(((of_model - of_model.mean()) ** 2).sum()) / apart if apart else 0.0
    return Cochran(k, q, float(chi2.sf(q, k - 1)))


def _in_the_order_of(
    first: Predictions, second: Predictions, names: tuple[str, str]
) -> Predictions:
    """The second table with the first's order of classes, once it is seen to be of the same cases."""
    a, b = names
    if set(first.classes) != set(second.classes):
        raise RunError(
            f"{a} has the classes {', '.join(first.classes)}; {b} has {', '.join(second.classes)}. "
            "Models are compared on the same question; name the classes alike (--classes)."
        )
    labels = [
        dict(zip(each.table["case"], each.table["label"], strict=True)) for each in (first, second)
    ]
    for (one, mine), (other, theirs) in (
        ((a, labels[0]), (b, labels[1])),
        ((b, labels[1]), (a, labels[0])),
    ):
        if lacking := sorted(set(mine) - set(theirs)):
            raise RunError(
                f"{other} lacks {len(lacking)} of the {len(mine)} cases of {one}, e.g. {lacking[0]}. "
                "Paired tests need the same cases; predict them with both."
            )
    if moved := sorted(case for case in labels[0] if labels[0][case] != labels[1][case]):
        raise RunError(
            f"Case {moved[0]} is {labels[0][moved[0]]} in {a} and {labels[1][moved[0]]} in {b}"
            f"{f', and {len(moved) - 1} more differ' * (len(moved) > 1)}. Mend the labels."
        )
    return Predictions(second.table, first.classes)


def _repeats(predictions: Predictions, model: str) -> list[CaseScores]:
    return [predictions.case_scores(model, repeat) for repeat in predictions.repeats]


def _brier_cases(repeats: Sequence[CaseScores]) -> Floats:
    return np.asarray(np.mean([brier(each.truth, each.p) for each in repeats], axis=0))


def _auc(repeats: Sequence[CaseScores]) -> float | None:
    values = [macro_auc(each.truth, each.p) for each in repeats]
    known = [value for value in values if value is not None]
    if not known or all(ranks_nothing(each) for each in repeats):
        return None
    return float(np.mean(known))


def _influence(repeats: Sequence[CaseScores]) -> Floats:
    return np.asarray(np.mean([auc_influence(each.truth, each.p) for each in repeats], axis=0))


def _auc_differences(scores: Scores, pairs: Sequence[tuple[str, str]]) -> list[Difference | None]:
    found = [delong_test(scores[a], scores[b]) for a, b in pairs]
    adjusted = iter(holm([each.p for each in found if each]))
    return [each and replace(each, p_holm=next(adjusted)) for each in found]


def _holm_of_known(p: Sequence[float | None]) -> list[float | None]:
    known = iter(holm([each for each in p if each is not None]))
    return [None if each is None else next(known) for each in p]
