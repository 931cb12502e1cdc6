"""Each step of the lipoma study's classifier beside scikit-learn's, and what must not leak between them."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_selection import RFE, f_classif
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mil.baselines import svm
from mil.baselines.nested_cv import inner_folds, standard_of
from mil.baselines.svm import (
    LEAST_SLOPE,
    Setting,
    choose_setting,
    eliminate,
    fit_machine,
    platt_scale,
    separate,
    variance_ratio,
)
from tests.mil.baselines.made import made_training, means, said, solved

ONES = np.ones(18)


def standardised(training):
    rows = means(training)
    return standard_of(rows, training.weights)(rows)


def test_f_is_that_of_scikit_learn():
    training = made_training()
    rows = means(training)
    expected = f_classif(rows, training.labels)[0]
    np.testing.assert_allclose(variance_ratio(rows, training.labels, ONES), expected, rtol=1e-9)


def test_weights_of_f_are_copies():
    training = made_training()
    rows, labels = means(training), training.labels
    weights = np.where(np.arange(18) < 5, 2.0, 1.0)
    copies = np.repeat(np.arange(18), weights.astype(int))
    weighted = variance_ratio(rows, labels, weights)
    copied = variance_ratio(rows[copies], labels[copies], np.ones(len(copies)))
    np.testing.assert_allclose(weighted / copied, weighted[0] / copied[0], rtol=1e-9)


def test_feature_without_spread_is_last_and_one_that_is_the_label_first():
    rows = np.random.default_rng(0).normal(size=(18, 4))
    labels = np.arange(18) % 3
    rows[:, 1], rows[:, 2] = 5.0, labels
    order = np.argsort(-variance_ratio(rows, labels, ONES))
    assert (order[0], order[-1]) == (2, 1)


@pytest.mark.parametrize(
    ("dim", "sizes"), [(3, [3]), (4, [4]), (20, [5]), (60, [12, 6]), (300, [60, 30, 15, 7])]
)
def test_a_fifth_is_kept_then_halves(dim, sizes):
    left = eliminate(standardised(made_training(dim=dim)), made_training().labels, ONES)
    assert [len(columns) for columns in left] == sizes
    assert all(set(b) < set(a) for a, b in pairwise(left))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_elimination_is_that_of_scikit_learn(n_classes):
    """One halving: scikit-learn's step is a number of features, ours a share of those that are left."""
    training = made_training(n_classes=n_classes, dim=60)
    rows, weights = standardised(training), np.ones(6 * n_classes)
    first, second = eliminate(rows, training.labels, weights)
    f = f_classif(rows, training.labels)[0]
    assert set(first) == set(np.argsort(-f)[:12])
    machines = OneVsRestClassifier(SVC(kernel="linear", C=svm.RANKING_COST))

    def strength(fitted):
        return np.square(np.concatenate([each.coef_ for each in fitted.estimators_])).sum(axis=0)

    rfe = RFE(machines, n_features_to_select=6, step=6, importance_getter=strength)
    rfe.fit(rows[:, first], training.labels)
    assert set(second) == set(first[rfe.support_])


@pytest.mark.parametrize("n_classes", [2, 4])
def test_probabilities_are_those_of_scikit_learn(n_classes):
    """Cases of one slide weigh the same, so that scikit-learn needs no weights."""
    training = made_training(n_classes=n_classes, dim=60, shift=2.5)
    head = solved("pooled-svm", training, n_classes)
    rows = means(training)
    folds = inner_folds(training)
    setting, _ = choose_setting(rows, training.labels, training.weights, folds)

    class Machine(SVC):
        """Standardise, select and fit, as one estimator."""

        def fit(self, x, y, sample_weight=None):
            self.scaler_ = StandardScaler().fit(x)
            truth = training.labels[[np.flatnonzero((rows == each).all(axis=1))[0] for each in x]]
            self.columns_ = eliminate(self.scaler_.transform(x), truth, np.ones(len(x)))[
                setting.halvings
            ]
            self.gamma = setting.width / len(self.columns_)
            return super().fit(self.scaler_.transform(x)[:, self.columns_], y)

        def decision_function(self, x):
            if x.shape[1] == rows.shape[1]:
                x = self.scaler_.transform(x)[:, self.columns_]
            return super().decision_function(x)

    machines = OneVsRestClassifier(Machine(C=setting.cost))
    judge = CalibratedClassifierCV(machines, ensemble=False, cv=[(f.train, f.test) for f in folds])
    others = made_training(n_classes=n_classes, dim=60, shift=2.5, seed=1)
    expected = judge.fit(rows, training.labels).predict_proba(means(others))
    np.testing.assert_allclose(said(head, others.features), expected, atol=2e-3)
    assert np.ptp(expected) > 0.3


def test_machine_kept_is_all_that_is_needed():
    training = made_training(dim=60)
    rows = means(training)
    machine = fit_machine(rows, training.labels, ONES, Setting(1, 1.0, 0.1))
    assert len(machine.columns) == 6
    scaled = standard_of(rows, ONES)(rows)[:, machine.columns]
    gram = svm.kernel(scaled, scaled, 0.1 / 6)
    alpha, bias = separate(gram, training.labels, ONES, 1.0)
    expected = gram @ alpha + bias
    kept = svm.kernel(scaled, machine.exemplars, machine.gamma) @ machine.alpha + machine.bias
    np.testing.assert_allclose(kept, expected, atol=1e-9)


def test_platt_of_decisions_that_contradict_says_the_share():
    labels = np.arange(18) % 3
    slope, offset = platt_scale(-5.0 * np.eye(3)[labels], labels, ONES)
    np.testing.assert_allclose(slope, LEAST_SLOPE)
    np.testing.assert_allclose(1 / (1 + np.exp(-offset)), 1 / 3, atol=0.05)


def test_decisions_on_held_out_slides_know_nothing_of_them():
    """They are those of a machine that was fitted on the other slides alone, selection and all."""
    training = made_training(dim=60)
    rows, labels, weights = means(training), training.labels, training.weights
    folds = inner_folds(training)
    train, test = folds[0]
    setting = Setting(1, 1.0, 0.1)
    machine = fit_machine(rows[train], labels[train], weights[train], setting)
    scaled = (rows[:, machine.columns] - machine.centre) / machine.spread
    expected = (
        svm.kernel(scaled[test], machine.exemplars, machine.gamma) @ machine.alpha + machine.bias
    )

    with pytest.MonkeyPatch.context() as patch:  # the search held to one setting
        patch.setattr(svm, "COSTS", (1.0,))
        patch.setattr(svm, "WIDTHS", (0.1,))
        patch.setattr(svm, "eliminate", lambda *given: [eliminate(*given)[1]])
        _, decisions = choose_setting(rows, labels, weights, folds)
    np.testing.assert_allclose(decisions[test], expected, atol=1e-9)


def test_setting_chosen_on_noise_promises_little():
    """Chosen as the best of many, a setting may look better than guessing; its probabilities hardly do."""
    p = [said(solved("pooled-svm", made_training(shift=0, dim=100, seed=s)),
              made_training(shift=0, dim=100, seed=s + 50).features) for s in range(4)]  # fmt: skip
    truth = made_training().labels
    loss = np.mean([-np.log(each[np.arange(18), truth]).mean() for each in p])
    assert loss < np.log(3) + 0.35


def test_study_of_twelve_cases_and_many_features_is_fitted():
    training = made_training(3, n_classes=4, dim=2048, shift=4)
    head = solved("pooled-svm", training, 4)
    assert len(head.columns) <= 410
    assert {0, 1, 2, 3} <= set(eliminate(standardised(training), training.labels, np.ones(12))[0])
