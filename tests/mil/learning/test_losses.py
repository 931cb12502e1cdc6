"""Losses against slow twins, sklearn, lifelines and their own gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from mil.errors import FitError
from mil.learning.losses import (
    cox_efron,
    cross_entropy,
    discrete_survival_nll,
    focal,
    ordinal_log_losses,
)
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.made import QUICK, made_cohort, planted_cohort

RNG = np.random.default_rng(0)
LOGITS = torch.tensor(RNG.normal(size=(12, 4)) * 2)
LABELS = torch.tensor(RNG.integers(0, 4, 12))
WEIGHTS = torch.tensor(RNG.uniform(0.5, 2, 12))


def test_cross_entropy_is_that_of_sklearn():
    weighed = log_loss(
        LABELS, torch.softmax(LOGITS, 1).numpy(), sample_weight=WEIGHTS.numpy(), labels=range(4)
    )
    got = (cross_entropy(LOGITS, LABELS) * WEIGHTS).mean()
    assert float(got) == pytest.approx(weighed * float(WEIGHTS.mean()), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothing_mixes_the_label_with_all_classes(smoothing):
    log_p = np.log(torch.softmax(LOGITS, 1).numpy())
    target = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    expected = np.mean(-(target * log_p).sum(axis=1) * WEIGHTS.numpy())
    got = (cross_entropy(LOGITS, LABELS, smoothing=smoothing) * WEIGHTS).mean()
    assert float(got) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_is_equation_4(gamma):
    p = torch.softmax(LOGITS, 1).numpy()[np.arange(12), LABELS]
    expected = np.mean((1 - p) ** gamma * -np.log(p) * WEIGHTS.numpy())
    got = (focal(LOGITS, LABELS, gamma=gamma) * WEIGHTS).mean()
    assert float(got) == pytest.approx(expected, rel=1e-10)


def test_focal_loss_has_a_gradient_where_a_class_is_certain():
    logits = torch.tensor([[90.0, -90.0], [-90.0, 90.0]], requires_grad=True)
    loss = focal(logits, torch.tensor([0, 0]), gamma=2.0).mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(90)
    assert torch.isfinite(logits.grad).all()


def test_ordinal_loss_is_the_mean_of_sklearns_over_levels():
    p = torch.sigmoid(LOGITS).numpy()
    expected = np.mean(
        [log_loss(k < LABELS, p[:, k], labels=[0, 1]) for k in range(LOGITS.shape[1])]
    )
    loss = ordinal_log_losses(LOGITS, LABELS).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_ordinal_loss_is_least_at_the_log_odds_of_exceeding():
    labels = torch.tensor([0, 1, 1, 2])
    best = torch.logit(torch.tensor([[3 / 4, 1 / 4]], dtype=torch.float64)).expand(4, -1)
    least = ordinal_log_losses(best, labels).mean()
    for step in ([0.1, 0.0], [-0.1, 0.0], [0.0, 0.1], [0.0, -0.1]):
        assert ordinal_log_losses(best + torch.tensor(step), labels).mean() > least


def slow_cox(risk, time, event):
    """Efron's likelihood, written out event by event."""
    loss = 0.0
    for t in sorted({t for t, e in zip(time, event, strict=True) if e}):
        dead = [i for i in range(len(time)) if time[i] == t and event[i]]
        observed = sum(math.exp(risk[i]) for i in range(len(time)) if time[i] >= t)
        share = sum(math.exp(risk[i]) for i in dead)
        for rank, i in enumerate(dead):
            loss -= risk[i] - math.log(observed - rank / len(dead) * share)
    return loss


@pytest.mark.parametrize("seed", range(40))
def test_cox_loss_is_the_slow_one_with_many_ties(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    risk, time = rng.normal(size=n) * 2, rng.integers(1, 6, n).astype(float)
    event = rng.random(n) < rng.choice([0.2, 0.6, 1.0])
    got = cox_efron(torch.tensor(risk), torch.tensor(time), torch.tensor(event))
    assert float(got) == pytest.approx(slow_cox(risk, time, event), rel=1e-10, abs=1e-12)


def test_cox_loss_without_an_event_is_zero_and_teaches_nothing():
    risk = torch.randn(5, requires_grad=True)
    loss = cox_efron(risk, torch.arange(5.0), torch.zeros(5, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (risk.grad == 0).all()


def test_cox_loss_is_finite_where_exponentials_are_not():
    risk = torch.tensor([900.0, -900.0, 3.0, 900.0], requires_grad=True)
    event = torch.tensor([True, True, True, True])
    loss = cox_efron(risk, torch.tensor([1.0, 2.0, 2.0, 1.0]), event)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(risk.grad).all()


def test_a_shift_of_all_risks_changes_no_cox_loss():
    time, event = torch.tensor([3.0, 1.0, 1.0, 2.0]), torch.tensor([True, True, True, False])
    risk = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(cox_efron(risk + 7, time, event), cox_efron(risk, time, event))


@pytest.fixture(scope="module")
def rossi():
    from lifelines import CoxPHFitter
    from lifelines.datasets import load_rossi

    table = load_rossi()
    fitter = CoxPHFitter().fit(table, "week", "arrest")
    x = torch.tensor(table[list(fitter.params_.index)].to_numpy(), dtype=torch.float64)
    time = torch.tensor(table["week"].to_numpy(), dtype=torch.float64)
    event = torch.tensor(table["arrest"].to_numpy(), dtype=torch.bool)
    return fitter, x, time, event


def test_cox_loss_at_lifelines_coefficients_is_its_likelihood(rossi):
    fitter, x, time, event = rossi
    loss = cox_efron(x @ torch.tensor(fitter.params_.to_numpy()), time, event)
    assert float(loss) == pytest.approx(658.75, abs=0.005)
    assert float(loss) == pytest.approx(-fitter.log_likelihood_, rel=1e-9)


def test_lowering_the_cox_loss_gives_lifelines_coefficients(rossi):
    fitter, x, time, event = rossi
    coefficients = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([coefficients], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = cox_efron(x @ coefficients, time, event)
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(coefficients.detach(), fitter.params_, atol=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_discrete_loss_is_the_product_of_hazards(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(7, 4)) * 2
    event = rng.random(7) < 0.5
    interval = np.where(event, rng.integers(0, 4, 7), rng.integers(-1, 4, 7))
    hazard = 1 / (1 + np.exp(-logits))
    likelihoods = []
    for h, k, happened in zip(hazard, interval, event, strict=True):
        survived = np.prod(1 - h[:k]) if happened else np.prod(1 - h[: k + 1])
        likelihoods.append(survived * h[k] if happened else survived)
    got = discrete_survival_nll(*map(torch.tensor, (logits, interval, event)))
    assert float(got) == pytest.approx(-np.log(likelihoods).mean(), rel=1e-10)


def test_likelihoods_of_all_that_can_happen_sum_to_one():
    logits = torch.randn(1, 5, dtype=torch.float64)
    every = [(k, True) for k in range(5)] + [(4, False)]
    losses = [
        discrete_survival_nll(logits, torch.tensor([k]), torch.tensor([event]))
        for k, event in every
    ]
    assert float(torch.stack(losses).neg().exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: cross_entropy(x, LABELS, smoothing=0.1) * WEIGHTS,
        lambda x: focal(x, LABELS, gamma=2.0) * WEIGHTS,
        lambda x: ordinal_log_losses(x, LABELS) * WEIGHTS,
        lambda x: cox_efron(x[:, 0], torch.arange(12) // 3, LABELS > 0),
        lambda x: discrete_survival_nll(x, LABELS, WEIGHTS > 1),
    ],
    ids=["cross_entropy", "focal", "ordinal_log_losses", "cox_efron", "discrete_survival_nll"],
)
def test_gradient_is_that_of_differences(loss):
    assert torch.autograd.gradcheck(loss, LOGITS.clone().requires_grad_())


@pytest.mark.parametrize(
    "options", [{"loss": "focal"}, {"loss": "focal", "focal_gamma": 4.0}, {"label_smoothing": 0.2}]
)
def test_fit_lowers_the_loss_asked_for(options):
    cohort, _ = planted_cohort(2, 3)
    settings = FitSettings(seeds=1, epochs=30, width=16, learning_rate=1e-2, dropout=0)
    fitted = fit_model(
        "mean", cohort.cases, (), cohort.classes, replace(settings, **options), seed=0
    )
    plain = fit_model("mean", cohort.cases, (), cohort.classes, settings, seed=0)
    assert fitted.losses[-1] < 0.8 * fitted.losses[0]
    assert abs(fitted.losses[0] - plain.losses[0]) > 1e-3


def test_inner_cases_are_judged_by_the_loss_asked_for():
    cohort = made_cohort((4, 4))
    valid, train = cohort.cases[:1], cohort.cases[1:]
    options = replace(QUICK, epochs=1, learning_rate=1e-30)
    losses = [
        fit_model(
            "mean", train, valid, cohort.classes, replace(options, loss=loss), seed=0
        ).valid_losses
        for loss in ("cross-entropy", "focal")
    ]
    assert 0 < losses[1][0] < losses[0][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss is cross-entropy or focal; got 'hinge'"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be a fraction in \[0, 1\); got 1.0"),
        ({"label_smoothing": math.nan}, "label_smoothing must be a fraction"),
        ({"focal_gamma": -1.0}, "focal_gamma must be 0 or more; got -1.0"),
        ({"loss": "focal", "label_smoothing": 0.1}, "label_smoothing 0.1 belongs to cross-entropy"),
    ],
)
def test_loss_that_cannot_be_is_refused(options, message):
    with pytest.raises(FitError, match=message):
        FitSettings(**options)
