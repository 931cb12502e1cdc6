"""Our distributions and ranks are those of scipy.stats to the last digit, without its import."""

import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import mil
from mil import distributions

P = np.array([1e-9, 0.0125, 0.025, 0.3, 0.5, 0.975, 1 - 1e-9])
X = np.array([-3.5, -1.0, 0.0, 0.2, 1.96, 4.0, 12.0, np.inf, np.nan])


@pytest.mark.parametrize(
    ("ours", "theirs", "shapes"),
    [
        ("norm", stats.norm, [()]),
        ("student", stats.t, [(1,), (4,), (37.5,), (999,)]),
        ("chi2", stats.chi2, [(1,), (3,), (58,)]),
        ("beta", stats.beta, [(1, 20), (7, 3.5), (240, 61), (0.5, 0.5)]),
    ],
)
def test_tails_and_quantiles(ours, theirs, shapes):
    for shape in shapes:
        for name, values in (("ppf", P), ("isf", P), ("sf", X)):
            if function := getattr(getattr(distributions, ours), name, None):
                expected = getattr(theirs, name)(values, *shape)
                assert np.array_equal(function(values, *shape), expected, equal_nan=True), name


def test_the_tail_of_a_binomial():
    for n, p in ((1, 0.5), (17, 0.3), (300, 0.04)):
        for k in range(-1, n + 1):
            assert distributions.binomial_tail(k, n, p) == stats.binom.sf(k, n, p)


def test_ranks():
    rng = np.random.default_rng(3)
    for values in (
        rng.integers(0, 9, 50),
        rng.normal(size=8),
        np.zeros(3),
        np.array([2.0, np.nan]),
    ):
        expected = stats.rankdata(values)
        assert np.array_equal(distributions.rankdata(values), expected, equal_nan=True)
    table = rng.integers(0, 5, (30, 4)).astype(float)
    assert np.array_equal(distributions.rankdata(table), stats.rankdata(table, axis=0))


def test_what_every_command_needs_imports_it_in_functions_only():
    for room in ("answers", "data", "evaluation", "explanation", "runs"):
        for path in (Path(mil.__file__).parent / room).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                assert "scipy.stats" not in ast.unparse(node).split("def ")[0], path
