"""Attention on bags of real digits, against another implementation; more in benchmarks/digits.py."""

import numpy as np
import pytest

from benchmarks.digits import EXPECTED, HEADS, one


def least(task, count, model):
    """Two standard deviations below what is expected of a single seed."""
    mean, sd = EXPECTED[task, count][HEADS.index(model)]
    return mean - 2 * sd


def test_attention_finds_the_bags_with_a_nine_and_the_nine():
    bags, tiles = one("nine", 100, "abmil", seed=0)
    assert bags > least("nine", 100, "abmil")
    assert tiles > 0.9


@pytest.mark.parametrize("model", ["abmil", "gated-abmil"])
def test_thirty_bags_are_enough_to_tell_three_subtypes(model):
    found = np.mean([one("subtype", 30, model, seed=seed) for seed in range(2)], axis=0)
    assert found[0] >= 0.94
    assert found[1] > 0.7
