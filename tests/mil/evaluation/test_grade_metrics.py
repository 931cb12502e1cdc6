"""Metrics and intervals of ordered grades against hand counts, loops, scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.stats import kendalltau, somersd
from scipy.stats import t as student
from sklearn.metrics import accuracy_score, cohen_kappa_score, roc_auc_score
from sklearn.metrics import mean_absolute_error as sklearn_mae

from mil.evaluation.auc_intervals import newcombe_auc
from mil.evaluation.grade.intervals import graded_interval, somers_interval
from mil.evaluation.grade.metrics import (
    distances,
    exact_accuracy,
    expected_grade,
    linear_kappa,
    mean_absolute_error,
    mean_error,
    median_grade,
    quadratic_kappa,
    ranked_confusion,
    somers_d,
    within_one,
)
from tests import twins

# Rows the true grade: of 8, 7 and 5 cases 6, 4 and 3 exact, 1 graded 3 instead of 1.
TABLE = np.array([[6.0, 1, 1], [2, 4, 1], [0, 2, 3]])


def drawn(seed, n_grades=3, n=30):
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_grades, size=n)
    grade = np.clip(truth + rng.integers(-1, 2, size=n), 0, n_grades - 1)
    return truth, grade, ranked_confusion(truth, grade, n_grades)


def test_numbers_of_one_table_by_hand():
    # Misses: 1 + 2 + 1 + 2 = 6 by one grade, 1 by two.
    assert mean_absolute_error(TABLE) == pytest.approx((6 * 1 + 1 * 2) / 20)
    assert mean_error(TABLE) == pytest.approx((1 + 2 - 2 + 1 - 2) / 20)
    assert exact_accuracy(TABLE) == pytest.approx(13 / 20)
    assert within_one(TABLE) == pytest.approx(19 / 20)
    # Columns 8, 7, 5; expected squares: 4 (8 5 + 5 8) + (8 7 + 7 8 + 7 5 + 5 7) = 502, by 20 cases.
    assert quadratic_kappa(TABLE) == pytest.approx(1 - (6 + 4) / (502 / 20))
    # Expected distances: 2 (8 5 + 5 8) + (8 7 + 7 8 + 7 5 + 5 7) = 342.
    assert linear_kappa(TABLE) == pytest.approx(1 - (6 + 2) / (342 / 20))


@pytest.mark.parametrize("n_grades", [2, 3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_metrics_equal_those_of_scikit_learn(seed, n_grades):
    truth, grade, table = drawn(seed, n_grades)
    labels = list(range(n_grades))
    for metric, weights in ((quadratic_kappa, "quadratic"), (linear_kappa, "linear")):
        expected = cohen_kappa_score(truth, grade, labels=labels, weights=weights)
        assert metric(table) == pytest.approx(expected)
    assert mean_absolute_error(table) == pytest.approx(sklearn_mae(truth, grade))
    assert exact_accuracy(table) == pytest.approx(accuracy_score(truth, grade))
    assert mean_error(table) == pytest.approx(np.mean(grade - truth))
    assert within_one(table) == pytest.approx(np.mean(np.abs(grade - truth) <= 1))


def test_of_two_grades_both_kappas_are_cohens():
    _, _, table = drawn(3, 2)
    assert quadratic_kappa(table) == pytest.approx(linear_kappa(table))
    assert quadratic_kappa(table) == pytest.approx(twins.kappa(table.tolist()))


def test_many_tables_at_once():
    tables = np.stack([drawn(seed)[2] for seed in range(6)]).reshape(2, 3, 3, 3)
    for metric in (quadratic_kappa, linear_kappa, mean_absolute_error, mean_error, within_one):
        every = metric(tables)
        assert every.shape == (2, 3)
        assert every[1, 2] == pytest.approx(float(metric(tables[1, 2])))


def test_scale_of_kappa():
    assert quadratic_kappa(np.diag([8.0, 7, 5])) == 1
    assert quadratic_kappa(np.outer([8.0, 7, 5], [0.5, 0.3, 0.2])) == pytest.approx(0)
    assert quadratic_kappa(np.array([[0.0, 0, 5], [0, 0, 0], [5, 0, 0]])) == pytest.approx(-1)
    assert (
        quadratic_kappa(np.diag([9.0, 0, 0])) == 0
    )  # one grade only: no agreement beyond the margins
    reversed_table = TABLE[::-1, ::-1]
    assert quadratic_kappa(reversed_table) == pytest.approx(float(quadratic_kappa(TABLE)))
    assert mean_error(reversed_table) == pytest.approx(-float(mean_error(TABLE)))


@pytest.mark.parametrize("seed", range(5))
def test_no_grade_has_a_smaller_expected_absolute_error_than_the_median(seed):
    p = np.random.default_rng(seed).dirichlet(np.full(4, 0.7), size=50)
    expected_error = p @ distances(4)
    chosen = np.take_along_axis(expected_error, median_grade(p)[:, None], axis=1)[:, 0]
    assert chosen == pytest.approx(expected_error.min(axis=1))


def test_median_is_not_the_most_probable_grade():
    p = np.array([[0.4, 0.25, 0.35], [0.5, 0.0, 0.5], [0.3, 0.1, 0.6], [0.0, 0.0, 1.0]])
    assert list(median_grade(p)) == [1, 0, 2, 2]
    thirds = np.mean([[0.1, 0.4, 0.5], [0.9, 0.1, 0.0], [0.5, 0.1, 0.4]], axis=0)
    assert median_grade(thirds[None])[0] == 0  # .1 + .9 + .5 is 1.5 but for the last bits
    assert list(expected_grade(p)) == pytest.approx([0.95, 1.0, 1.3, 2.0])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_somers_d_equals_scipys_and_relates_to_kendalls_tau_and_auc(seed, ties):
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=25)
    score = truth + rng.normal(size=25)
    score = np.round(score) if ties else score
    value = somers_d(truth, score)
    assert value == pytest.approx(somersd(truth, score).statistic)
    # tau-b divides by the pairs untied in the score as well: D^2 ratio is that of untied pairs.
    untied = [np.sum(np.sign(x[:, None] - x) != 0) for x in (truth, score)]
    tau = kendalltau(truth, score).statistic
    assert value == pytest.approx(tau * np.sqrt(untied[1] / untied[0]))
    binary = (truth > 0).astype(np.int64)
    assert somers_d(binary, score) == pytest.approx(2 * roc_auc_score(binary, score) - 1)
    assert somers_d(np.zeros(25, np.int64), score) is None


def test_somers_limits_come_from_the_derivative_by_case_weights():
    rng = np.random.default_rng(4)
    truth = np.repeat([0, 1, 2], [5, 6, 4])
    repeats = [np.round(truth + rng.normal(size=15), 1) for _ in range(2)]
    n = len(truth)

    def weighted(weight):
        values = []
        for score in repeats:
            excess = pairs = 0.0
            for i in range(n):
                for j in range(n):
                    if truth[i] > truth[j]:
                        pairs += weight[i] * weight[j]
                        excess += weight[i] * weight[j] * np.sign(score[i] - score[j])
            values.append(excess / pairs)
        return np.mean(values)

    step, square = 1e-5, 0.0
    for i in range(n):
        change = step * (np.arange(n) == i)
        square += ((weighted(1 + change) - weighted(1 - change)) / (2 * step)) ** 2
    value = np.mean([somers_d(truth, score) for score in repeats])
    half = np.sqrt(square * n / (n - 1)) / (1 - value**2) * student.ppf(0.975, n - 1)
    interval = somers_interval(truth, repeats, value)
    assert interval.low == pytest.approx(np.tanh(np.arctanh(value) - half))
    assert interval.high == pytest.approx(np.tanh(np.arctanh(value) + half))
    assert somers_interval(truth, [np.zeros(len(truth))], 0.0) is None


@pytest.mark.parametrize(
    ("counts", "even"),
    [((7, 7, 7), (7, 14)), ((2, 2, 2), (2, 4)), ((1, 9), (1, 9)), ((3, 0, 4, 4), (7, 4))],
)
def test_a_perfect_order_has_the_limits_of_its_most_even_division(counts, even):
    truth = np.repeat(np.arange(len(counts)), counts)
    right = somers_interval(truth, [truth.astype(float)], 1.0)
    lows = [2 * newcombe_auc(1.0, n, len(truth) - n).low - 1 for n in even]
    assert right.low == pytest.approx(lows[0])
    assert right.high == 1
    wrong = somers_interval(truth, [-truth.astype(float)], -1.0)
    assert (wrong.low, wrong.high) == pytest.approx((-1, -right.low))


def test_a_perfect_order_of_three_cases_is_no_finding():
    """It comes once in six times by chance; of nine cases, three of each grade, once in 1,680."""
    assert somers_interval(np.array([0, 1, 2]), [np.arange(3.0)], 1.0).low < 0
    nine = np.repeat([0, 1, 2], 3)
    assert somers_interval(nine, [nine.astype(float)], 1.0).low > 0


@pytest.mark.parametrize("metric", [quadratic_kappa, mean_absolute_error, mean_error])
def test_drawn_tables_have_the_mean_and_variance_of_shares_with_a_prior(metric):
    """Of one row: a cell's share varies as that of n cases does, about the value drawn in by the prior."""
    shares = []

    def record(counts):
        if counts.ndim == 3:
            shares.append(counts[:, 0] / 8)
        return metric(counts)

    graded_interval(record, TABLE)
    prior = np.array([1 / 3, 1 / 6, 1 / 6])
    center = (TABLE[0] + prior) / (8 + prior.sum())
    assert shares[0].mean(axis=0) == pytest.approx(center, abs=0.012)
    assert shares[0].std(axis=0) == pytest.approx(np.sqrt(center * (1 - center) / 8), rel=0.08)


def test_limits_enclose_the_value_and_leave_room_for_errors_that_did_not_occur():
    perfect = np.diag([8.0, 7, 5])
    kappa, error = (graded_interval(m, perfect) for m in (quadratic_kappa, mean_absolute_error))
    assert kappa.high == 1
    assert 0.3 < kappa.low < 0.9
    assert error.low == 0
    assert 0.05 < error.high < 0.5
    for seed in range(20):
        table = drawn(seed)[2]
        for metric in (quadratic_kappa, mean_absolute_error, mean_error):
            interval = graded_interval(metric, table)
            assert interval.low <= float(metric(table)) <= interval.high


def test_limits_narrow_with_cases_and_with_less_confidence():
    widths = []
    for times in (1, 2, 4, 8):
        interval = graded_interval(quadratic_kappa, times * TABLE)
        widths.append(interval.high - interval.low)
    assert widths == sorted(widths, reverse=True)
    narrow = graded_interval(quadratic_kappa, TABLE, confidence=0.5)
    assert narrow.high - narrow.low < widths[0] / 2


def test_rows_of_one_case_or_none_give_finite_limits():
    table = np.array([[1.0, 0, 0], [1, 6, 1], [0, 0, 0]])
    for metric in (quadratic_kappa, mean_absolute_error):
        interval = graded_interval(metric, table)
        assert np.isfinite([interval.low, interval.high]).all()


def test_interval_holds_the_truth_in_most_of_a_few_cohorts():
    """150 cohorts; benchmarks.grade_intervals draws 2,000 of each kind."""
    shares = np.array([[0.75, 0.2, 0.05], [0.2, 0.6, 0.2], [0.05, 0.3, 0.65]])
    counts = np.array([8, 7, 5])
    rng = np.random.default_rng(0)
    for metric in (quadratic_kappa, mean_absolute_error):
        true, inside = float(metric(shares * counts[:, None])), 0
        for _ in range(150):
            table = np.stack(
                [rng.multinomial(n, row) for n, row in zip(counts, shares, strict=True)]
            )
            interval = graded_interval(metric, table.astype(float))
            inside += interval.low <= true <= interval.high
        assert inside >= 135
