"""Whether probabilities mean what they say: against statsmodels, scikit-learn and definitions."""

import json
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit, softmax
from sklearn.calibration import _sigmoid_calibration, _TemperatureScaling
from sklearn.metrics import brier_score_loss, d2_brier_score
from sklearn.metrics import log_loss as sklearn_log_loss
from statsmodels.nonparametric.smoothers_lowess import lowess
from statsmodels.stats.diagnostic_gen import test_chisquare_binning as chisquare_binning

from mil.evaluation.classification.calibration import (
    calibrate,
    calibration_error,
    hosmer_lemeshow,
    reliability,
    slope_and_intercept,
    smoothed,
)
from mil.evaluation.classification.metrics import brier, predicted
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.classification.recalibration import (
    log_loss,
    logistic,
    platt,
    platt_scaled,
    temperature,
    temperature_scaled,
)
from tests import twins


def predicted_and_true(seed, n=60, sharper=1.0, shift=0.0):
    """Probabilities that are too extreme by ``sharper`` and too low by ``shift``, and what came true."""
    rng = np.random.default_rng(seed)
    line = rng.normal(0, 1.2, n)
    return expit(sharper * line - shift), rng.random(n) < expit(line)


def scores(seed, counts=(9, 8, 10), folds=3, sharper=1.0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(counts)), counts)
    line = rng.normal(size=(len(truth), len(counts))) + 1.2 * np.eye(len(counts))[truth]
    names = tuple(f"{i:02d}" for i in range(len(truth)))
    return CaseScores(names, truth, softmax(sharper * line, axis=1), np.arange(len(truth)) % folds)


def test_slope_and_intercept_equal_statsmodels():
    for seed in range(10):
        p, y = predicted_and_true(seed, sharper=1.5, shift=0.5)
        line = logit(p)
        (slope, slope_error), (level, level_error) = slope_and_intercept(y, p)
        sloped = sm.GLM(y.astype(float), sm.add_constant(line), family=sm.families.Binomial()).fit()
        assert (slope, slope_error) == pytest.approx((sloped.params[1], sloped.bse[1]), rel=1e-4)
        one = np.ones((len(y), 1))
        flat = sm.GLM(y.astype(float), one, family=sm.families.Binomial(), offset=line).fit()
        assert (level, level_error) == pytest.approx((flat.params[0], flat.bse[0]), rel=1e-4)


def test_planted_slope_and_intercept_are_recovered():
    p, y = predicted_and_true(0, n=40_000, sharper=2.0, shift=0.7)
    (slope, _), _ = slope_and_intercept(y, p)
    assert slope == pytest.approx(0.5, abs=0.03)
    p, y = predicted_and_true(1, n=40_000, shift=0.7)
    _, (level, _) = slope_and_intercept(y, p)
    assert level == pytest.approx(0.7, abs=0.05)
    assert hosmer_lemeshow(y, p)[1] < 1e-6


def test_separated_or_constant_cases_have_no_slope():
    y = np.arange(10) > 4
    assert slope_and_intercept(y, np.linspace(0.1, 0.9, 10)) is None
    assert slope_and_intercept(y, np.full(10, 0.3)) is None
    assert slope_and_intercept(np.ones(10, bool), np.linspace(0.1, 0.9, 10)) is None
    assert logistic(np.ones((4, 2)), np.array([0.0, 1, 0, 1])) is None  # the same column twice


def test_the_smoothed_curve_equals_statsmodels_lowess():
    for seed in range(10):
        p, y = predicted_and_true(seed, n=37)
        reference = lowess(y.astype(float), p, frac=0.75, it=0, delta=0, return_sorted=False)
        np.testing.assert_allclose(smoothed(p, y.astype(float)), reference, atol=1e-8)
    straight = np.linspace(0, 1, 20)
    np.testing.assert_allclose(smoothed(straight, 2 * straight + 1), 2 * straight + 1, atol=1e-9)
    constant = smoothed(np.full(6, 0.4), np.array([0.0, 1, 0, 0, 1, 1]))
    np.testing.assert_allclose(constant, 0.5)


def test_hosmer_lemeshow_equals_statsmodels():
    for seed in range(10):
        p, y = predicted_and_true(seed, n=120)
        counts, expected = np.column_stack([~y, y]).astype(float), np.column_stack([1 - p, p])
        for development, df in ((False, 10), (True, 8)):
            reference = chisquare_binning(counts, expected, sort_var=p, bins=10, df=df)
            statistic = hosmer_lemeshow(y, p, development=development)
            assert statistic == pytest.approx((reference.statistic, reference.pvalue))


@pytest.mark.parametrize("n", [15, 16, 25, 60, 61, 120])
@pytest.mark.parametrize("groups", [3, 4, 9, 10])
@pytest.mark.parametrize("levels", [4, 16, 2**20])  # many ties, few, none
def test_hosmer_lemeshow_is_the_same_of_either_class_and_in_any_order(n, groups, levels):
    rng = np.random.default_rng(n)
    p = rng.integers(1, levels, n) / levels
    y = rng.random(n) < p
    statistic = hosmer_lemeshow(y, p, groups)
    assert statistic == pytest.approx(hosmer_lemeshow(~y, 1 - p, groups), rel=1e-9)
    order = rng.permutation(n)
    assert statistic == pytest.approx(hosmer_lemeshow(y[order], p[order], groups), rel=1e-9)


def test_hosmer_lemeshow_of_repeats_is_that_of_the_first():
    first, second = scores(4, (20, 25)), scores(5, (20, 25))
    results = calibrate([first, second], ["a", "b"]).per_class
    assert results[0].p_hosmer_lemeshow == pytest.approx(results[1].p_hosmer_lemeshow, rel=1e-9)
    positive = first.truth == 1
    assert results[1].p_hosmer_lemeshow == hosmer_lemeshow(positive, first.p[:, 1], 9)[1]


def test_the_calibration_error_equals_its_definition():
    for seed in range(20):
        case_scores = scores(seed)
        error, expected, p_value = calibration_error(case_scores.truth, case_scores.p)
        assert error == pytest.approx(twins.calibration_error(case_scores.truth, case_scores.p))
        assert 0 < expected < 0.5
        assert 0 < p_value <= 1


def test_few_cases_have_a_calibration_error_though_calibration_be_perfect():
    """Over cohorts whose labels follow their probabilities: its expectation, and a p that is uniform."""
    errors, expected, p = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        probabilities = softmax(1.5 * rng.normal(size=(25, 3)), axis=1)
        truth = np.array([rng.choice(3, p=row) for row in probabilities])
        for value, values in zip(
            calibration_error(truth, probabilities), (errors, expected, p), strict=True
        ):
            values.append(value)
    assert np.mean(errors) == pytest.approx(np.mean(expected), abs=0.01)
    assert np.mean(errors) > 0.1
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.06)
    sure = np.eye(3)[truth][:, [1, 2, 0]] * 0.98 + 0.01 - 0.01 / 3
    assert calibration_error(truth, sure / sure.sum(axis=1, keepdims=True))[2] < 0.01


def test_bins_hold_all_cases_equal_probabilities_together_and_exact_limits():
    case_scores = scores(0, counts=(20, 20, 20))
    right = predicted(case_scores.p) == case_scores.truth
    bins = reliability(case_scores.p.max(axis=1), right)
    assert sum(b.n for b in bins) == 60
    assert sum(b.k for b in bins) == right.sum()
    assert [b.predicted for b in bins] == sorted(b.predicted for b in bins)
    assert all(b.low <= b.k / b.n <= b.high and b.n >= 4 for b in bins)
    (one,) = reliability(np.full(20, 0.25), np.arange(20) < 5)
    assert (one.predicted, one.k, one.n) == (0.25, 5, 20)


def test_the_scores_equal_scikit_learn(make):
    case_scores = scores(0)
    calibration = calibrate([case_scores], ["a", "b", "c"])
    assert calibration.brier.value == pytest.approx(
        brier_score_loss(case_scores.truth, case_scores.p, labels=[0, 1, 2], scale_by_half=False)
    )
    assert calibration.scaled_brier.value == pytest.approx(
        d2_brier_score(case_scores.truth, case_scores.p)
    )
    assert calibration.log_loss == pytest.approx(sklearn_log_loss(case_scores.truth, case_scores.p))
    assert calibration.brier.low < calibration.brier.value < calibration.brier.high
    assert (
        calibration.scaled_brier.low
        < calibration.scaled_brier.value
        < calibration.scaled_brier.high
    )
    two = scores(1, counts=(8, 9))
    halved = brier_score_loss(two.truth, two.p[:, 1])
    assert calibrate([two], ["a", "b"]).brier.value == pytest.approx(2 * halved)


def test_the_temperature_equals_scikit_learns_and_no_other_is_better():
    for seed, sharper in ((0, 1.0), (1, 3.0), (2, 0.5)):
        case_scores = scores(seed, counts=(40, 40, 40), sharper=sharper)
        fitted = temperature(case_scores.truth, case_scores.p)
        reference = _TemperatureScaling().fit(np.log(case_scores.p), case_scores.truth)
        assert fitted == pytest.approx(1 / reference.beta_, rel=1e-3)
        losses = {
            t: log_loss(case_scores.truth, softmax(np.log(case_scores.p) / t, axis=1))
            for t in (fitted, 0.98 * fitted, 1.02 * fitted)
        }
        assert min(losses, key=losses.get) == fitted


def test_a_temperature_at_the_bound_of_the_search_is_called_so():
    """Answers that are wrong more often than right are best forgotten."""
    case_scores = scores(0, counts=(20, 20))
    wrong = CaseScores(case_scores.case, 1 - case_scores.truth, case_scores.p, case_scores.fold)
    scaled = calibrate([wrong], ["a", "b"]).temperature
    assert scaled.parameter == pytest.approx(np.exp(3), rel=1e-4)
    assert scaled.note == "reached its upper limit: the scores carry no information about the class"
    assert calibrate([case_scores], ["a", "b"]).temperature.note == ""
    both = calibrate([case_scores, wrong], ["a", "b"]).temperature.note
    assert both == (
        "reached its upper limit in 3 of 6 folds: the scores carry no information about the class there"
    )


def test_platts_line_equals_scikit_learns():
    for seed in range(5):
        p, y = predicted_and_true(seed, sharper=2)
        slope, intercept = platt(y, p)
        a, b = _sigmoid_calibration(logit(p), y.astype(float))
        assert (slope, intercept) == pytest.approx((-a, -b), abs=1e-3)
    slope, _ = platt(np.arange(10) > 4, np.linspace(0.1, 0.9, 10))  # separated, and yet finite
    assert 0 < slope < 20
    assert platt(np.arange(10) > 4, np.full(10, 0.3)) == (1.0, 0.0)


@pytest.mark.parametrize("mend", [temperature_scaled, platt_scaled])
@pytest.mark.parametrize("counts", [(20, 20), (15, 15, 15)])
def test_a_fold_is_mended_by_the_other_folds_alone(mend, counts):
    case_scores = scores(3, counts, sharper=4.0)
    mended, _ = mend(case_scores)
    np.testing.assert_allclose(mended.sum(axis=1), 1)
    assert log_loss(case_scores.truth, mended) < log_loss(case_scores.truth, case_scores.p)
    # Other labels in fold 0 change what the other folds become, and fold 0 not at all.
    truth = case_scores.truth.copy()
    own = case_scores.fold == 0
    truth[own] = (truth[own] + 1) % len(counts)
    again, _ = mend(CaseScores(case_scores.case, truth, case_scores.p, case_scores.fold))
    np.testing.assert_array_equal(again[own], mended[own])
    assert not np.allclose(again[~own], mended[~own])


def test_one_fold_cannot_be_mended_by_others():
    case_scores = scores(0, folds=1)
    calibration = calibrate([case_scores], ["a", "b", "c"])
    assert calibration.temperature is None
    assert calibration.platt is None


def test_repeats_are_means_and_never_more_cases():
    case_scores = scores(0)
    once, thrice = (
        calibrate([case_scores], ["a", "b", "c"]),
        calibrate([case_scores] * 3, ["a", "b", "c"]),
    )
    for a, b in zip(once.per_class, thrice.per_class, strict=True):
        assert (a.slope.value, a.slope.low) == pytest.approx((b.slope.value, b.slope.low))
        assert a.ici == pytest.approx(b.ici)
    assert (once.brier.low, once.ece, once.temperature.brier) == pytest.approx(
        (thrice.brier.low, thrice.ece, thrice.temperature.brier)
    )


def test_extreme_and_constant_probabilities_are_finite_and_plain():
    truth = np.repeat([0, 1], 10)
    names, fold = tuple(map(str, range(20))), np.arange(20) % 4
    for p in (np.eye(2)[truth], np.eye(2)[1 - truth], np.full((20, 2), 0.5)):
        calibration = calibrate([CaseScores(names, truth, p, fold)], ["a", "b"])
        json.dumps(calibration.to_json(), allow_nan=False)
        assert calibration.per_class[0].slope.value is None
    assert calibration.scaled_brier.value == 0
    assert calibration.log_loss == pytest.approx(math.log(2))
    assert brier(truth, p).tolist() == [0.5] * 20
