"""Facts of the cases against times and events: C by hand, a null at its level, a planted fact found."""

import numpy as np
import pytest

from mil.audit.association import CaseVariable, associate
from mil.audit.survival_association import SurvivalOutcome, concordance_alone
from mil.data.outcomes import Outcomes
from mil.data.splits import Fold
from mil.evaluation.survival.metrics import expected_events, harrell_c
from tests.mil.followed import drawn


def outcomes_of(rng, n, **options):
    time, event, risk = drawn(rng, n, **options)
    return Outcomes(time, event), risk


@pytest.mark.parametrize("ties", [False, True])
def test_numbers_are_measured_by_harrells_c_in_the_better_direction(ties):
    rng = np.random.default_rng(1)
    outcomes, _ = outcomes_of(rng, 25, ties=ties)
    values = rng.normal(size=(25, 2)).round(1)
    outcome = SurvivalOutcome(outcomes)
    places = rng.permuted(np.tile(np.arange(25), (6, 1)), axis=1)
    measured = outcome.measure(CaseVariable("x", values), places)
    for value, place in zip(measured, places, strict=True):
        c = [harrell_c(outcomes.time, outcomes.event, column[place]) for column in values.T]
        assert value == pytest.approx(max(max(x, 1 - x) for x in c))


def test_categories_are_measured_by_observed_over_expected_events():
    rng = np.random.default_rng(2)
    outcomes, _ = outcomes_of(rng, 30, ties=True)
    codes = rng.integers(0, 4, 30)
    hazard = np.zeros(30)
    for code in range(4):
        inside = codes == code
        expected = expected_events(outcomes.time, outcomes.event, inside)
        hazard[inside] = outcomes.event[inside].sum() / expected
    c = harrell_c(outcomes.time, outcomes.event, hazard)
    outcome = SurvivalOutcome(outcomes)
    [value] = outcome.measure(
        CaseVariable("site", codes[:, None].astype(float), categorical=True), outcome.observed
    )
    assert value == pytest.approx(max(c, 1 - c))


def test_a_fact_without_meaning_is_significant_no_more_often_than_it_should_be():
    rng = np.random.default_rng(3)
    p = []
    for seed in range(150):
        outcomes, _ = outcomes_of(rng, 24)
        predictors = [
            CaseVariable("x", rng.normal(size=(24, 1))),
            CaseVariable("site", rng.integers(0, 3, (24, 1)).astype(float), categorical=True),
        ]
        associations = associate(predictors, SurvivalOutcome(outcomes), shuffles=99, seed=seed)
        p.append([result.p for result in associations.results])
    below = (np.array(p) <= 0.05).mean(axis=0)
    assert (below <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)).all()
    assert (np.array(p) <= 0.5).mean() == pytest.approx(0.5, abs=0.12)


def test_a_fact_that_is_the_risk_is_found_and_ranks_cases_alone():
    rng = np.random.default_rng(4)
    outcomes, risk = outcomes_of(rng, 60, strength=2.0)
    names = [f"c{i}" for i in range(60)]
    folds = [
        Fold(
            repeat=0, index=k, train=tuple(n for i, n in enumerate(names) if i % 5 != k),
            test=tuple(names[k::5]),
        )
        for k in range(5)
    ]  # fmt: skip
    predictors = [
        CaseVariable("risk", risk[:, None]),
        CaseVariable("noise", rng.normal(size=(60, 1))),
    ]
    risky, noise = associate(predictors, SurvivalOutcome(outcomes), shuffles=199).results
    assert risky.significant
    assert not noise.significant
    alone = concordance_alone(predictors[0], names, outcomes, folds)
    assert alone == pytest.approx(risky.measure, abs=0.02)
    assert concordance_alone(predictors[1], names, outcomes, folds) < 0.65
    site = CaseVariable("site", (risk > 0).astype(float)[:, None], categorical=True)
    assert concordance_alone(site, names, outcomes, folds) > 0.65
    constant = CaseVariable("site", np.zeros((60, 1)), categorical=True)
    assert concordance_alone(constant, names, outcomes, folds) == 0.5
