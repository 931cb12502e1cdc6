import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.auc_intervals import logit_delong_auc, macro_auc_interval
from mil.evaluation.auc_intervals import (
    delong_variance,
    newcombe_auc,
    newcombe_macro_auc,
    shared_variance,
)
from mil.evaluation.classification.metrics import macro_auc
from mil.evaluation.intervals import balanced_accuracy_interval, exact, wilson
from tests import twins


def limits(interval):
    return interval.low, interval.high


@pytest.mark.parametrize("n", [1, 2, 5, 20, 137])
def test_wilson_and_exact_equal_scipy(n):
    for k in range(n + 1):
        for confidence in (0.8, 0.95, 0.99):
            reference = binomtest(k, n).proportion_ci(confidence, "wilson")
            assert limits(wilson(k, n, confidence)) == pytest.approx(tuple(reference), abs=1e-12)
            reference = binomtest(k, n).proportion_ci(confidence, "exact")
            assert limits(exact(k, n, confidence)) == pytest.approx(tuple(reference), abs=1e-9)


def test_wilson_is_the_score_test_inverted_also_between_whole_counts():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 60))
        k = float(rng.choice([0, n, rng.uniform(0, n)]))
        assert limits(wilson(k, n)) == pytest.approx(twins.wilson(k, n), abs=1e-7)


def test_golden_proportions():
    """Sensitivity 19/20 and specificity 16/18 of Yang et al. 2022; specificities of Navarro."""
    for interval, percent in [
        (wilson(19, 20), (76.39, 99.11)),
        (wilson(16, 18), (67.20, 96.90)),
        (exact(19, 20), (75.13, 99.87)),
        (exact(16, 18), (65.29, 98.62)),
        (exact(10, 25), (21.1, 61.3)),
        (exact(18, 25), (50.6, 87.9)),
    ]:
        assert limits(interval) == pytest.approx([p / 100 for p in percent], abs=6e-4)
    for interval, percent in [(wilson(19, 20), (76.39, 99.11)), (wilson(16, 18), (67.20, 96.90))]:
        assert [round(100 * limit, 2) for limit in limits(interval)] == list(percent)


def test_nonsense_is_refused():
    for k, n in [(-1, 5), (6, 5), (0, 0), (float("nan"), 5)]:
        with pytest.raises(ValueError, match="successes"):
            wilson(k, n)
    for confidence in (0, 1, 95):
        with pytest.raises(ValueError, match="confidence must lie in"):
            wilson(1, 2, confidence)
    for value, pos, neg in [(1.1, 5, 5), (-0.1, 5, 5), (0.5, 0, 5), (float("nan"), 5, 5)]:
        with pytest.raises(ValueError, match="AUC in"):
            newcombe_auc(value, pos, neg)
    with pytest.raises(ValueError, match="needs both groups"):
        logit_delong_auc(np.ones(3, bool), np.arange(3.0))
    with pytest.raises(ValueError, match="case of every class"):
        macro_auc_interval(np.array([0, 1]), np.full((2, 3), 1 / 3))


def test_newcombe_equals_its_definition():
    rng = np.random.default_rng(1)
    for _ in range(300):
        counts = rng.integers(1, 25, size=rng.integers(2, 6))
        value = float(rng.choice([0, 0.5, 1, rng.uniform()]))
        shared = float(rng.uniform(0.2, 1))
        assert limits(newcombe_macro_auc(value, counts, shared)) == pytest.approx(
            twins.newcombe(value, counts.tolist(), shared), abs=1e-7
        )


def test_newcombe_at_the_ends_of_the_scale():
    low, high = limits(newcombe_auc(1.0, 20, 18))
    assert high == 1
    assert 0.85 < low < 0.95
    assert limits(newcombe_auc(0.0, 20, 18)) == pytest.approx((0, 1 - low))
    assert limits(newcombe_auc(0.8, 7, 20)) == limits(newcombe_auc(0.8, 20, 7))


def tied(rng, n_classes):
    counts = rng.integers(2, 8, size=n_classes)
    truth = rng.permutation(np.repeat(np.arange(n_classes), counts))
    p = rng.integers(1, 6, size=(len(truth), n_classes)).astype(float)
    p[np.arange(len(truth)), truth] += rng.integers(0, 6)
    return truth, p / p.sum(axis=1, keepdims=True)


def test_delong_equals_its_definition():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth, p = tied(rng, int(rng.integers(2, 5)))
        assert delong_variance(truth == 0, p[:, 0]) == pytest.approx(
            twins.delong_variance(truth == 0, p[:, 0]), abs=1e-12
        )
        if p.shape[1] > 2:
            assert shared_variance(truth, p) == pytest.approx(twins.shared_variance(truth, p))


def test_logit_delong_by_hand_and_its_fall_back():
    truth = np.array([True] * 4 + [False] * 5)
    score = np.array([0.9, 0.8, 0.4, 0.6, 0.1, 0.4, 0.3, 0.7, 0.2])
    value, error = twins.auc(truth, score), twins.delong_variance(truth, score) ** 0.5
    centre, half = np.log(value / (1 - value)), 1.959964 * error / (value * (1 - value))
    interval = logit_delong_auc(truth, score)
    assert limits(interval) == pytest.approx(1 / (1 + np.exp(-(centre + np.array([-half, half])))))
    assert interval.method == "DeLong, logit scale"
    perfect = logit_delong_auc(truth, truth.astype(float))
    assert perfect == newcombe_auc(1.0, 4, 5)
    single = logit_delong_auc(np.array([True, False, False]), np.array([0.5, 0.2, 0.8]))
    assert single == newcombe_auc(0.5, 1, 2)


def test_two_classes_reduce_to_the_binary_interval():
    rng = np.random.default_rng(3)
    for _ in range(50):
        truth, p = tied(rng, 2)
        p[:, 0] = p[:, 0].round(1)  # need not be the exact complement; class 1 is the one read
        n_neg, n_pos = np.bincount(truth)
        assert macro_auc_interval(truth, p) == newcombe_auc(macro_auc(truth, p), n_pos, n_neg)


def test_shared_variance_where_it_cannot_be_estimated():
    truth = np.array([0, 1, 1, 2, 2])
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    assert shared_variance(truth, p) == 1
    assert np.isnan(delong_variance(truth == 0, p[:, 0]))
    assert shared_variance(np.repeat([0, 1, 2], 4), np.eye(3)[np.repeat([0, 1, 2], 4)]) == 1


def test_balanced_accuracy_of_equal_classes_has_the_interval_of_the_accuracy():
    for k in range(21):
        interval = balanced_accuracy_interval(k / 20, np.array([5, 5, 5, 5]))
        assert limits(interval) == pytest.approx(limits(wilson(k, 20)))
    few = balanced_accuracy_interval(0.8, np.array([5, 45]))
    assert limits(few) == pytest.approx(limits(wilson(0.8 * 18, 18)))
    assert few == balanced_accuracy_interval(0.8, np.array([0, 5, 45]))
    assert balanced_accuracy_interval(1.0, np.array([3, 7, 11])).high == 1


@pytest.mark.parametrize(("counts", "signal"), [((5, 5, 5, 5), 1.2), ((10, 10, 10), 2.2)])
def test_macro_auc_interval_covers(counts, signal):
    """At nominal .95: >= .93 of cohorts, less three standard errors of this small simulation."""
    rng = np.random.default_rng(5)

    def draw(sizes):
        truth = np.repeat(np.arange(len(sizes)), sizes)
        score = rng.normal(size=(len(truth), len(sizes)))
        score[np.arange(len(truth)), truth] += signal
        return truth, np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)

    true_auc = macro_auc(*draw([20_000] * len(counts)))
    intervals = [macro_auc_interval(*draw(counts)) for _ in range(600)]
    covered = np.mean([interval.low <= true_auc <= interval.high for interval in intervals])
    assert covered >= 0.93 - 3 * (0.93 * 0.07 / 600) ** 0.5
    # Wide enough is easy; taking all one-vs-rest AUCs for one and the same covers .99 or more.
    assert covered <= 0.98


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (3, 5, 8, 14)])
def test_balanced_accuracy_interval_covers(counts):
    rng = np.random.default_rng(6)
    counts = np.array(counts)
    for share in (0.5, 0.8, 0.9):
        means = (rng.binomial(counts, share, size=(1500, len(counts))) / counts).mean(axis=1)
        intervals = [balanced_accuracy_interval(float(mean), counts) for mean in means]
        assert np.mean([interval.low <= share <= interval.high for interval in intervals]) >= 0.93
