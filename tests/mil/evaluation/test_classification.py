"""Numbers of each class against printed figures, definitions and foreign code."""

import math

import numpy as np
import pytest
from scipy.stats import binom, bootstrap
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.inter_rater import cohens_kappa

from benchmarks.bootstrap import bca, case_weights, leave_one_out, percentile
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.classification.per_class import (
    average_precisions,
    class_results,
    metrics,
    p_no_better,
    proportion,
    spread,
)
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.intervals import (
    bounded_mean_interval,
    confusion_interval,
    predictive_value,
    wilson_continuity,
)
from mil.settings import JudgeSettings
from tests import twins

# Yang et al. 2022 (doi:10.1186/s13023-022-02304-x), well-differentiated liposarcoma against lipoma:
# TP, FN, FP, TN, then accuracy, sensitivity, specificity, PPV and NPV as printed, in percent.
LIPOMA = {
    "RN-DL, validation": ((19, 1, 2, 16), (92.11, 95.00, 88.89, 90.48, 94.12)),
    "RN-DL, training": ((35, 3, 1, 50), (95.51, 92.11, 98.04, 97.22, 94.34)),
    "nomogram, validation": ((19, 1, 4, 14), (86.84, 95.00, 77.78, 82.61, 93.33)),
    "nomogram, training": ((37, 1, 3, 48), (95.51, 97.37, 94.12, 92.50, 97.96)),
    "radiomics, validation": ((10, 10, 6, 12), (57.89, 50.00, 66.67, 62.50, 54.55)),
}
LIPOMA_LIMITS = {
    "RN-DL, validation": ((73.06, 99.74), (63.93, 98.05), (68.17, 98.33), (69.24, 99.69)),
    "RN-DL, training": ((77.52, 97.94), (88.21, 99.90), (83.80, 99.85), (83.37, 98.53)),
    "radiomics, validation": ((27.85, 72.15), (41.15, 85.64), (35.87, 83.72), (32.67, 74.93)),
}
# Navarro et al. 2021 (doi:10.3390/cancers13122866), high against low grade: precision, sensitivity,
# specificity, F1, accuracy.
GRADING = {
    "clinical": ((92, 41, 14, 11), (0.87, 0.69, 0.44, 0.77, 0.65)),
    "volume": ((98, 35, 12, 13), (0.89, 0.74, 0.52, 0.81, 0.70)),
    "combined": ((72, 61, 9, 16), (0.89, 0.54, 0.64, 0.67, 0.56)),
    "T1FSGd": ((121, 12, 15, 10), (0.89, 0.91, 0.40, 0.90, 0.83)),
    "T2FS": ((83, 50, 7, 18), (0.92, 0.62, 0.72, 0.74, 0.64)),
}


def scores_of(tp, fn, fp, tn):
    """Cases of which class 1 is looked for."""
    truth = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
    called = np.repeat([1, 0, 1, 0], [tp, fn, fp, tn])
    names = tuple(f"{i:03d}" for i in range(len(truth)))
    return CaseScores(names, truth, np.eye(2)[called], np.zeros(len(truth), np.int64))


def judged(scores, **options):
    n_classes = scores.p.shape[1]
    precisions = average_precisions(scores.truth, [scores.p])[:n_classes]
    return class_results([scores], [f"c{k}" for k in range(n_classes)], precisions, **options)


def drawn(seed, counts=(6, 5, 9), ties=False):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(counts)), counts)
    score = rng.normal(size=(len(truth), len(counts)))
    score[np.arange(len(truth)), truth] += 1
    score = np.round(score) if ties else score
    p = np.exp(score)
    return truth, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("model", LIPOMA)
def test_the_lipoma_study_as_printed(model):
    cells, printed = LIPOMA[model]
    scores = scores_of(*cells)
    result = judged(scores)[1]
    values = [metrics.accuracy(scores.truth, scores.p)]
    values += [
        share.value for share in (result.sensitivity, result.specificity, result.ppv, result.npv)
    ]
    assert [round(100 * value, 2) for value in values] == list(printed)


@pytest.mark.parametrize("model", LIPOMA_LIMITS)
def test_the_lipoma_studys_intervals_are_wilsons_with_continuity_correction(model):
    result = judged(scores_of(*LIPOMA[model][0]), interval="wilson-cc")[1]
    shown = [result.sensitivity, result.specificity, result.ppv, result.npv]
    limits = [(round(100 * share.low, 2), round(100 * share.high, 2)) for share in shown]
    assert limits == list(LIPOMA_LIMITS[model])
    assert (shown[0].k, shown[0].n) == (LIPOMA[model][0][0], sum(LIPOMA[model][0][:2]))


@pytest.mark.parametrize("model", GRADING)
def test_the_grading_study_as_printed(model):
    cells, (precision, sensitivity, specificity, f1, accuracy) = GRADING[model]
    scores = scores_of(*cells)
    result = judged(scores)[1]
    assert round(result.ppv.value, 2) == precision
    assert round(result.sensitivity.value, 2) == sensitivity
    assert round(result.specificity.value, 2) == specificity
    assert round(metrics.accuracy(scores.truth, scores.p), 2) == accuracy
    assert round(2 * cells[0] / (2 * cells[0] + cells[1] + cells[2]), 2) == f1
    # The class looked for occurs often, and its F1 is high; the mean over both classes is not.
    assert metrics.macro_f1(metrics.confusion(scores.truth, scores.p)) < f1


def test_the_other_class_is_the_mirror():
    first, second = judged(scores_of(19, 1, 2, 16))
    assert first.sensitivity == second.specificity
    assert first.ppv == second.npv


@pytest.mark.parametrize("ties", [False, True])
def test_numbers_of_the_confusion_matrix_equal_scikit_learn_and_statsmodels(ties):
    for seed in range(30):
        truth, p = drawn(seed, ties=ties)
        counts, called = metrics.confusion(truth, p), metrics.predicted(p)
        f1 = sklearn_metrics.f1_score(truth, called, average="macro", zero_division=0)
        assert metrics.macro_f1(counts) == pytest.approx(f1)
        assert metrics.mcc(counts) == pytest.approx(
            sklearn_metrics.matthews_corrcoef(truth, called)
        )
        assert metrics.kappa(counts) == pytest.approx(
            sklearn_metrics.cohen_kappa_score(truth, called)
        )
        assert metrics.kappa(counts) == pytest.approx(cohens_kappa(counts).kappa)
        assert metrics.macro_f1(counts) == pytest.approx(twins.macro_f1(counts))
        assert metrics.mcc(counts) == pytest.approx(twins.mcc(truth, called))
        assert metrics.kappa(counts) == pytest.approx(twins.kappa(counts))


def test_one_class_called_has_no_correlation():
    counts = np.array([[5, 0], [7, 0]])
    assert metrics.mcc(counts) == 0
    assert metrics.kappa(counts) == 0
    stacked = np.stack([counts, [[5, 0], [0, 7]]])
    assert metrics.mcc(stacked).tolist() == [0, 1]
    assert (
        metrics.macro_f1(np.array([[4, 0, 0], [0, 0, 0], [0, 0, 3]])) == 1
    )  # no case of the second


def test_average_precision_equals_scikit_learn_and_its_definition():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        positive = rng.permutation(np.arange(12) < rng.integers(1, 12))
        score = rng.normal(size=12) if seed % 2 else rng.integers(0, 4, 12).astype(float)
        precision = metrics.average_precision(positive, score)
        assert precision == pytest.approx(sklearn_metrics.average_precision_score(positive, score))
        assert precision == pytest.approx(twins.average_precision(positive, score))
        weights = rng.integers(0, 3, (4, 12)).astype(float)
        weights[:, np.flatnonzero(positive)[0]] = 1
        for row, row_weights in zip(
            metrics.average_precision(positive, score, weights), weights, strict=True
        ):
            counted = row_weights > 0
            again = sklearn_metrics.average_precision_score(
                positive[counted], score[counted], sample_weight=row_weights[counted]
            )
            assert row == pytest.approx(again)


def test_average_precision_of_classes_and_their_mean():
    truth, p = drawn(3)
    *of_class, macro = average_precisions(truth, [p])
    assert macro.value == pytest.approx(
        sklearn_metrics.average_precision_score(np.eye(3)[truth], p)
    )
    assert np.mean([estimate.value for estimate in of_class]) == pytest.approx(macro.value)
    assert macro.low < macro.value < macro.high
    truth, p = drawn(3, (6, 7))
    *of_class, macro = average_precisions(truth, [p])
    assert macro == of_class[1]
    assert average_precisions(truth, [p, p])[-1].value == pytest.approx(macro.value)


def test_a_perfect_ranking_leaves_room_for_errors_that_did_not_occur():
    truth = np.repeat([0, 1], 6)
    (*_, macro) = average_precisions(truth, [np.eye(2)[truth]])
    assert (macro.value, macro.high) == (1, 1)
    assert macro.low == pytest.approx(6 / (6 + 1.959964**2))  # Wilson at 6 of 6
    absent = average_precisions(np.zeros(4, np.int64), [np.full((4, 2), 0.5)])
    assert [estimate.value for estimate in absent] == [None, None, None]
    absent = average_precisions(np.array([0, 0, 1, 1]), [np.full((4, 3), 1 / 3)])
    assert [estimate.value is None for estimate in absent] == [False, False, True, True]


@pytest.mark.parametrize("most", [1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_interval_of_a_bounded_mean_keeps_within_the_bounds_and_treats_both_alike(most, seed):
    rng = np.random.default_rng(seed)
    values = most * rng.beta(0.5, 1.5, size=3 + 7 * seed) * (seed > 0)
    interval = bounded_mean_interval(values, most)
    assert 0 <= interval.low <= values.mean() < interval.high < most
    turned = bounded_mean_interval(most - values, most)
    assert (turned.low, turned.high) == pytest.approx((most - interval.high, most - interval.low))
    narrow = bounded_mean_interval(values, most, confidence=0.5)
    assert interval.high > narrow.high


@pytest.mark.parametrize(
    ("counts", "shift"), [((10, 10), 1.8), ((12, 6, 6), 2.5), ((5, 5, 5, 5), 0.0)]
)
def test_intervals_of_probabilities_cover_at_twenty_cases(counts, shift):
    """In 400 cohorts; benchmarks.statistics has more, and of more kinds."""
    truth, rng = np.repeat(np.arange(len(counts)), counts), np.random.default_rng(5)
    z = rng.normal(size=(400, len(truth), len(counts))) + shift * np.eye(len(counts))[truth]
    cohorts = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    precisions = [average_precisions(truth, [p])[-1] for p in cohorts]
    losses = [metrics.brier(truth, p) for p in cohorts]
    briers = [bounded_mean_interval(values, 2.0) for values in losses]
    for intervals, true in (
        (precisions, np.mean([estimate.value for estimate in precisions])),
        (briers, np.mean(losses)),
    ):
        assert np.mean([one.low <= true <= one.high for one in intervals]) >= 0.93


def test_draws_keep_cases_per_class_and_leave_none_out_for_long():
    truth = np.repeat([0, 1, 2], [3, 5, 1])
    weights = case_weights(truth, 500, 0)
    for k, n in enumerate((3, 5, 1)):
        assert (weights[:, truth == k].sum(axis=1) == n).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(9), abs=0.12)
    np.testing.assert_array_equal(weights, case_weights(truth, 500, 0))
    assert (leave_one_out(3) == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]).all()


@pytest.mark.parametrize("seed", range(5))
def test_percentile_and_bca_equal_scipy_on_the_same_draws(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.exponential(size=9), rng.exponential(size=12)

    def difference(x, y, axis=-1):
        return np.mean(x, axis=axis) ** 2 - np.median(y, axis=axis)

    truth = np.repeat([0, 1], [9, 12])
    left_out = [difference(np.delete(x, i), y) for i in range(9)]
    left_out += [difference(x, np.delete(y, i)) for i in range(12)]
    for method in ("percentile", "BCa"):
        reference = bootstrap((x, y), difference, n_resamples=400, method=method, rng=seed)
        drawn = reference.bootstrap_distribution
        interval = (
            percentile(drawn)
            if method == "percentile"
            else bca(float(difference(x, y)), drawn, np.array(left_out), truth)
        )
        assert (interval.low, interval.high) == pytest.approx(tuple(reference.confidence_interval))
        assert interval.method.endswith(method)


def test_bca_falls_back_and_gives_up_where_it_must():
    truth = np.array([0, 0, 1])
    assert bca(1.0, np.ones(50), np.ones(3), truth) is None
    assert percentile(np.append(np.arange(5.0), np.nan)) is None
    outside = bca(9.0, np.arange(50.0) / 10, np.ones(3), truth)
    assert outside.method.endswith("percentile")


def test_a_share_of_nothing_is_undefined_with_its_reason():
    scores = scores_of(0, 4, 0, 6)  # nothing is called positive
    result = judged(scores)[1]
    assert result.ppv.value is None
    assert result.ppv.note == "undefined: no case was called c1"
    assert (result.npv.k, result.npv.n) == (6, 10)
    assert judged(scores_of(0, 0, 2, 3))[1].sensitivity.note == "undefined: no case of c1"
    assert judged(scores_of(0, 0, 2, 3))[1].auc.value is None
    assert proportion(3, 3, "", "exact").high == 1


def test_shares_of_repeats_are_means_over_the_same_cases():
    parts = [scores_of(19, 1, 2, 16), scores_of(17, 3, 0, 18)]
    precisions = average_precisions(parts[0].truth, [part.p for part in parts])
    result = class_results(parts, ["c0", "c1"], precisions)[1]
    assert (result.sensitivity.k, result.sensitivity.n) == (18, 20)
    assert (result.ppv.k, result.ppv.n) == (18, 19)
    assert result.n == 20


def test_guessing_as_well():
    """Of 4 classes guessed evenly, 9 of 20 is the first count with p <= .05."""
    assert p_no_better(10, 20, 0.25) == pytest.approx(0.014, abs=5e-4)
    assert p_no_better(8, 20, 0.25) == pytest.approx(0.10, abs=5e-3)
    for n, fewest in ((20, 9), (30, 13), (50, 19), (250, 75)):
        assert p_no_better(fewest, n, 0.25) <= 0.05 < p_no_better(fewest - 1, n, 0.25)
    assert p_no_better(9.9, 20, 0.25) == p_no_better(9, 20, 0.25)
    assert p_no_better(10 - 1e-12, 20, 0.25) == p_no_better(10, 20, 0.25)
    by_hand = sum(math.comb(20, k) * 0.25**k * 0.75 ** (20 - k) for k in range(10, 21))
    assert p_no_better(10, 20, 0.25) == pytest.approx(by_hand)


def test_predictive_values_follow_bayes_and_the_cohorts_own_prevalence_gives_its_own():
    value, interval = predictive_value((19, 20), (16, 18), 20 / 38)
    assert value == pytest.approx(19 / 21)
    assert interval.low < value < interval.high
    rare, limits = predictive_value((19, 20), (16, 18), 0.01)
    assert rare == pytest.approx(0.95 * 0.01 / (0.95 * 0.01 + (1 - 16 / 18) * 0.99))
    assert limits.high < 0.5
    npv, _ = predictive_value((16, 18), (19, 20), 0.99)
    assert npv == pytest.approx(16 / 18 * 0.99 / (16 / 18 * 0.99 + 0.05 * 0.01))
    perfect, limits = predictive_value((5, 5), (7, 7), 0.2)
    assert (perfect, limits.high) == (1, 1)
    assert 0 < limits.low < 1
    never, limits = predictive_value((0, 5), (7, 7), 0.2)
    assert np.isnan(never)
    assert (limits.low, limits.high) == (0, 1)


def test_predictive_values_cover_at_twenty_cases():
    """Exactly, over all outcomes of 10 + 10 cases."""
    covers = []
    for sens in (0.6, 0.8, 0.95):
        for spec in (0.6, 0.8, 0.95):
            true = sens * 0.3 / (sens * 0.3 + (1 - spec) * 0.7)
            covered = 0.0
            for a in range(11):
                for b in range(11):
                    _, limits = predictive_value((a, 10), (b, 10), 0.3)
                    weight = binom.pmf(a, 10, sens) * binom.pmf(b, 10, spec)
                    covered += weight * (limits.low <= true <= limits.high)
            covers.append(covered)
    assert min(covers) >= 0.91
    assert np.mean(covers) >= 0.94


def test_continuity_corrected_limits_equal_scipy_and_are_wider():
    from scipy.stats import binomtest

    from mil.evaluation.intervals import wilson

    for n in (1, 2, 5, 20, 137):
        for k in range(n + 1):
            interval = wilson_continuity(k, n)
            scipys = binomtest(k, n).proportion_ci(0.95, "wilsoncc")
            assert (interval.low, interval.high) == pytest.approx(tuple(scipys), abs=1e-12)
            assert interval.low <= wilson(k, n).low <= wilson(k, n).high <= interval.high


def test_a_perfect_confusion_matrix_leaves_room_for_errors_that_did_not_occur():
    for counts in (np.diag([10.0, 10.0]), np.diag([5.0] * 4)):
        for metric in (metrics.macro_f1, metrics.mcc, metrics.kappa):
            interval = confusion_interval(metric, counts)
            assert interval.high == 1
            assert 0.6 < interval.low < 0.93
    few = confusion_interval(metrics.kappa, np.diag([5.0, 5.0]))
    many = confusion_interval(metrics.kappa, np.diag([50.0, 50.0]))
    assert few.low < many.low
    absent = confusion_interval(metrics.macro_f1, np.array([[4.0, 1, 0], [0, 0, 0], [1, 0, 4]]))
    assert 0 < absent.low < absent.high <= 1


def test_the_confusion_interval_covers_where_the_bootstrap_does_not():
    """4 x 5 cases at sensitivity .95: the bootstrap there covers .6."""
    rng = np.random.default_rng(1)
    p = np.full((4, 4), 0.05 / 3) + np.eye(4) * (0.95 - 0.05 / 3)
    true = float(metrics.macro_f1(p * 5))
    tables = [np.stack([rng.multinomial(5, row) for row in p]).astype(float) for _ in range(300)]
    limits = [confusion_interval(metrics.macro_f1, table, draws=400) for table in tables]
    assert np.mean([interval.low <= true <= interval.high for interval in limits]) > 0.89


def test_spread_over_repeats_is_of_repeats_alone():
    of_three = spread([0.5, 0.7, 0.6])
    assert (of_three.mean, of_three.least, of_three.most) == (pytest.approx(0.6), 0.5, 0.7)
    assert of_three.sd == pytest.approx(0.1)
    assert spread([0.5]).sd is None
    assert spread([0.5, None]) is None


def test_settings_reach_the_evaluation(make):
    predictions = make(repeats=1)
    settings = JudgeSettings(interval="wilson", prevalence=("c0=0.1", "c2=0.5"))
    plain, stated = (
        evaluate(predictions, option).models[0].per_class for option in (None, settings)
    )
    assert plain[0].sensitivity.method == "Clopper-Pearson"
    assert stated[0].sensitivity.method == "Wilson"
    assert plain[0].at_prevalence is None
    assert stated[0].at_prevalence.prevalence == 0.1
    assert stated[1].at_prevalence is None
    assert stated[0].at_prevalence.ppv.value < stated[0].ppv.value  # rarer than in the cohort
