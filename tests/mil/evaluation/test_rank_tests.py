"""Tests by ranks are those of scipy."""

import numpy as np
import pytest
from scipy import stats

from mil.evaluation.rank_tests import kruskal_wallis, mann_whitney


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 9), (3, 4), (8, 30), (8, 8), (9, 9), (25, 40)])
def test_two_groups_are_compared_as_by_scipy(sizes, tied):
    rng = np.random.default_rng(sum(sizes))
    for shift in (0.0, 0.7, 3.0):
        first, second = rng.normal(size=sizes[0]) + shift, rng.normal(size=sizes[1])
        if tied:
            first, second = np.round(first), np.round(second)
        for pair in ((first, second), (second, first)):
            expected = float(stats.mannwhitneyu(*pair).pvalue)
            assert mann_whitney(*pair) == pytest.approx(expected, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("tied", [False, True])
def test_several_groups_are_compared_as_by_scipy(tied):
    rng = np.random.default_rng(0)
    for sizes in ((2, 2, 2), (5, 9, 4, 12), (30, 1, 20)):
        groups = [rng.normal(size=n) + 0.3 * i for i, n in enumerate(sizes)]
        if tied:
            groups = [np.round(group) for group in groups]
        expected = float(stats.kruskal(*groups).pvalue)
        assert kruskal_wallis(groups) == pytest.approx(expected, rel=1e-9)


def test_equal_numbers_tell_nothing_apart():
    same = np.ones(4)
    assert not mann_whitney(same, same) < 1
    assert not kruskal_wallis([same, same, same]) < 1
