import json

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mil.errors import RunError
from mil.evaluation.comparison import compare, holm, mcnemar_exact
from mil.evaluation.metrics import predicted
from mil.evaluation.predictions import Predictions
from tests import twins


def test_mcnemar_equals_its_definition_and_statsmodels():
    for b in range(15):
        for c in range(15):
            assert mcnemar_exact(b, c) == pytest.approx(twins.mcnemar_exact(b, c))
            if b + c:
                theirs = mcnemar([[3, b], [c, 4]], exact=True).pvalue
                assert mcnemar_exact(b, c) == pytest.approx(min(theirs, 1.0))
    assert mcnemar_exact(0, 0) == 1


def test_holm_equals_its_definition_and_statsmodels():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p = rng.choice([0.001, 0.01, 0.02, 0.04, 0.3, 1.0, rng.uniform()], size=rng.integers(1, 8))
        assert holm(list(p)) == pytest.approx(twins.holm(list(p)))
        if seed < 20:  # the referee collects garbage at every call
            assert holm(list(p)) == pytest.approx(multipletests(p, method="holm")[1])


def test_no_pair_no_adjustment():
    assert holm([]) == []


def test_all_pairs_or_the_reference_with_each(make):
    predictions = make(models=("a", "b", "c"))
    assert [(t.first, t.second) for t in compare(predictions)] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert [(t.first, t.second) for t in compare(predictions, "b")] == [("b", "a"), ("b", "c")]
    assert compare(make(models=("a",))) == ()
    with pytest.raises(RunError, match=r"No model 'd' to compare with\. Known: a, b, c\."):
        compare(predictions, "d")


def test_counts_are_cases_right_in_more_than_half_of_the_repeats(make):
    predictions = make(counts=(8, 9), repeats=4, seed=4)
    right = {}
    for model in predictions.models:
        votes = np.zeros(17)
        for repeat in range(4):
            scores = predictions.case_scores(model, repeat)
            votes += predicted(scores.p) == scores.truth
        right[model] = votes > 2
    (found,) = compare(predictions)
    assert found.n == 17
    assert found.only_first == sum(right["abmil"] & ~right["votes"])
    assert found.only_second == sum(right["votes"] & ~right["abmil"])
    assert found.p == found.p_holm == twins.mcnemar_exact(found.only_first, found.only_second)
    json.dumps(found.to_json(), allow_nan=False)


def test_repeats_are_not_more_cases(make):
    once = make(repeats=1)
    thrice = pd.concat([once.table.assign(repeat=repeat) for repeat in range(3)])
    assert compare(Predictions(thrice, once.classes)) == compare(once)
