"""The association of a variable with ordered grades, against its definition case by case."""

import numpy as np
import pytest

from mil.audit.association import CaseVariable, associate
from mil.audit.ordinal_association import OrderedOutcome, kappa_alone
from mil.data.splits import Fold
from mil.evaluation.grade.metrics import somers_d

TRUTH = np.repeat([0, 1, 2, 3], [4, 3, 5, 2])


def concordance(truth, score):
    """Half of Somers' D plus one, in the better direction."""
    return (1 + abs(somers_d(truth, np.asarray(score, dtype=float)))) / 2


@pytest.fixture
def arrangements():
    rng = np.random.default_rng(11)
    return rng.permuted(np.tile(TRUTH, (25, 1)), axis=1)


def test_numbers_are_judged_by_their_order_with_ties_and_gaps(arrangements):
    rng = np.random.default_rng(4)
    values = rng.integers(0, 5, (len(TRUTH), 3)).astype(float)
    values[2, 1] = np.nan
    filled = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    measured = OrderedOutcome(TRUTH).measure(CaseVariable("colour", values), arrangements)
    expected = [max(concordance(truth, column) for column in filled.T) for truth in arrangements]
    assert measured == pytest.approx(expected)


@pytest.mark.parametrize("many", [False, True])
def test_categories_are_judged_by_the_mean_grade_of_each(arrangements, many, monkeypatch):
    if many:  # in blocks
        monkeypatch.setattr("mil.audit.ordinal_association.MOST_AT_ONCE", 100)
    codes = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 2])
    predictor = CaseVariable("site", codes[:, None].astype(float), categorical=True)
    measured = OrderedOutcome(TRUTH).measure(predictor, arrangements)
    expected = []
    for truth in arrangements:
        mean = np.array([truth[codes == code].mean() for code in range(3)])
        expected.append(concordance(truth, np.round(mean, 9)[codes]))
    assert measured == pytest.approx(expected)


def test_order_counts_where_classes_alone_would_see_nothing_more():
    """A fact that rises with the grade is perfect; one that tells only the middle apart says nothing."""
    outcome, three = OrderedOutcome(TRUTH), np.repeat([0, 1, 2], 4)
    rising, middle = TRUTH[:, None] * 2.5, (three == 1)[:, None].astype(float)
    assert outcome.measure(CaseVariable("rising", rising), TRUTH[None]) == pytest.approx([1.0])
    assert outcome.measure(CaseVariable("falling", -rising), TRUTH[None]) == pytest.approx([1.0])
    of_three = OrderedOutcome(three).measure(CaseVariable("middle", middle), three[None])
    assert of_three == pytest.approx([0.5])
    noise = np.random.default_rng(0).normal(size=(len(TRUTH), 1))
    found, none = associate(
        [CaseVariable("rising", rising), CaseVariable("noise", noise)], outcome, shuffles=499
    ).results
    assert found.significant
    assert not none.significant
    assert 0.5 < found.chance < found.noticed < 1


def test_alone_a_fact_is_graded_out_of_fold():
    truth = np.tile([0, 1, 2], 8)
    names = [f"c{i:02d}" for i in range(24)]
    folds = [
        Fold(
            repeat=repeat,
            index=index,
            train=tuple(n for i, n in enumerate(names) if (i // 3 + repeat) % 4 != index),
            test=tuple(n for i, n in enumerate(names) if (i // 3 + repeat) % 4 == index),
        )
        for repeat in range(2)
        for index in range(4)
    ]
    own = CaseVariable("own", truth[:, None] + 0.01 * np.arange(24)[:, None])
    assert kappa_alone(own, names, truth, folds) > 0.9
    nothing = CaseVariable("nothing", np.tile([[1.0], [1.0], [2.0]], (8, 1))[::-1].copy())
    assert kappa_alone(nothing, names, truth, folds) < 0.8
    noise = np.random.default_rng(3).normal(size=(24, 1))
    assert kappa_alone(CaseVariable("noise", noise), names, truth, folds) < 0.4
