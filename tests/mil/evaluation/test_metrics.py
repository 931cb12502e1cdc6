import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    auc,
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from mil.evaluation.classification import metrics
from tests import twins


def draw(rng):
    """A small random case with ties, every class present."""
    n_classes = int(rng.integers(2, 5))
    truth = np.concatenate(
        [np.arange(n_classes), rng.integers(n_classes, size=rng.integers(1, 15))]
    )
    p = rng.integers(1, 5, size=(len(truth), n_classes)).astype(float)
    return rng.permutation(truth), p / p.sum(axis=1, keepdims=True)


def test_twins_agree():
    for seed in range(300):
        truth, p = draw(np.random.default_rng(seed))
        assert metrics.macro_auc(truth, p) == pytest.approx(twins.macro_auc(truth, p), abs=1e-12)
        np.testing.assert_array_equal(metrics.confusion(truth, p), twins.confusion(truth, p))


def test_sklearn_agrees():
    for seed in range(100):
        truth, p = draw(np.random.default_rng(1000 + seed))
        n_classes = p.shape[1]
        called = p.argmax(axis=1)
        score = p[:, 1] if n_classes == 2 else p
        assert metrics.macro_auc(truth, p) == pytest.approx(
            roc_auc_score(truth, score, multi_class="ovr")
        )
        assert metrics.accuracy(truth, p) == pytest.approx(accuracy_score(truth, called))
        assert metrics.balanced_accuracy(truth, p) == pytest.approx(
            balanced_accuracy_score(truth, called)
        )
        np.testing.assert_array_equal(
            metrics.confusion(truth, p), confusion_matrix(truth, called, labels=range(n_classes))
        )
        np.testing.assert_allclose(
            metrics.sensitivity(truth, p),
            recall_score(truth, called, average=None, zero_division=0),
        )
        for k in range(n_classes):
            fpr, tpr = metrics.roc_points(truth, p, k)
            assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
            assert auc(fpr, tpr) == pytest.approx(twins.auc(truth == k, p[:, k]))


def test_both_placements_average_to_the_auc():
    for seed in range(100):
        truth, p = draw(np.random.default_rng(2000 + seed))
        below, above = metrics.placements(truth == 0, p[:, 0])
        assert below.mean() == pytest.approx(twins.auc(truth == 0, p[:, 0]))
        assert above.mean() == pytest.approx(below.mean())


def test_a_tie_calls_the_lowest_class():
    p = np.array([[0.25, 0.25, 0.5], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert metrics.predicted(p).tolist() == [2, 0, 1]


def test_two_classes_read_class_1_where_rounding_ties_class_0():
    p = np.array([[0.5, 0.5], [0.5, 0.4995]])
    assert metrics.macro_auc(np.array([1, 0]), p) == 1


def test_an_absent_class_is_undefined_not_guessed():
    truth = np.array([0, 0, 1])
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    assert metrics.macro_auc(truth, p) is None
    np.testing.assert_array_equal(metrics.sensitivity(truth, p), [0.5, 1.0, np.nan])
    assert metrics.balanced_accuracy(truth, p) == 0.75
    assert [rates.size for rates in metrics.roc_points(truth, p, 2)] == [0, 0]
    assert [rates.size for rates in metrics.roc_points(np.zeros(3, int), p, 0)] == [0, 0]


def test_counts_of_the_published_grading_study():
    """Navarro et al. 2021, T2FS on 133 high and 25 low grade: balanced accuracy .672."""
    truth = np.repeat([1, 1, 0, 0], [83, 50, 7, 18])
    called = np.repeat([1, 0, 1, 0], [83, 50, 7, 18])
    p = np.eye(2)[called]
    assert metrics.confusion(truth, p).tolist() == [[18, 7], [50, 83]]
    assert metrics.balanced_accuracy(truth, p) == pytest.approx(0.672, abs=5e-4)
    assert metrics.accuracy(truth, p) == pytest.approx(0.64, abs=5e-3)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_points_of_a_roc_curve_are_those_of_scikit_learn(n):
    rng = np.random.default_rng(n)
    for digits in (1, 9):
        truth = rng.permutation(np.arange(n) % 2)
        p = rng.random((n, 2)).round(digits)
        for own, theirs in zip(
            metrics.roc_points(truth, p, 1), roc_curve(truth, p[:, 1]), strict=False
        ):
            assert np.array_equal(own, theirs)
