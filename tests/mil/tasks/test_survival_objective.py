"""Survival in the cross-validation: a planted risk is found, an absent one is not, and nothing leaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mil.data.cohort import Cohort
from mil.data.outcomes import Outcomes
from mil.errors import FitError, LeakageError
from mil.evaluation.survival.evaluate import evaluate_survival
from mil.heads.registry import head_class
from mil.heads.table import MODELS
from mil.learning.crossval import cross_validate
from mil.learning.fitted import load_model, predict, save_model
from mil.learning.training import fit_model
from mil.settings import FitSettings
from mil.tasks.survival import Survival
from mil.tasks.survival_objective import SurvivalObjective, _draw_steps
from tests.mil.followed import folds_by_event, followed_cohort
from tests.mil.made import made_bag, risk

QUICK = FitSettings(
    task="survival", seeds=1, epochs=15, width=16, learning_rate=5e-3, early_stopping="never"
)
TELLING = ["mean", "abmil", "pooled-logistic"]
# Models with a loss of their own on classes. A further head learns survival too, or is named here.
UNABLE = {
    "clam-sb", "clam-mb", "dsmil", "dtfd", "tile-vote", "tile-vote-votes", "tile-vote-logits",
    "linear-probe", "pooled-svm", "simpleshot", "knn",
}  # fmt: skip
ABLE = set(MODELS) - UNABLE


def judged(cohort, models, settings=QUICK, seed=0, *, count="5", **options):
    folds = folds_by_event(cohort, count, seed=seed)
    predictions = cross_validate(cohort, folds, models, settings, seed=seed, **options)
    return {m.model: m for m in evaluate_survival(predictions).models}


@pytest.fixture(scope="module")
def planted():
    return followed_cohort(60)


@pytest.mark.parametrize("loss", ["cox", "discrete"])
def test_planted_risk_is_found_in_cases_that_were_not_seen(planted, loss):
    results = judged(planted, ["majority", *TELLING], replace(QUICK, loss=loss))
    for model in TELLING:
        assert results[model].metrics["harrell"].low > 0.55, model
        assert results[model].groups.p < 0.05, model
    assert (
        results["pooled-logistic"].metrics["ibs"].value < results["majority"].metrics["ibs"].value
    )
    assert results["majority"].metrics["harrell"].value == 0.5


@pytest.mark.parametrize("model", ["pooled-logistic", "chance", "abmil"])
def test_risk_that_is_not_there_comes_out_at_a_half(model):
    """Over 12 cohorts of 30; the C of one has a standard error of about .08."""
    n = 12
    settings = replace(QUICK, epochs=4)
    planted = model == "chance"
    results = [
        judged(followed_cohort(30, planted=planted, seed=s, n_tiles=8), [model], settings, s)[model]
        for s in range(n)
    ]
    assert (
        abs(np.mean([result.metrics["harrell"].value for result in results]) - 0.5)
        < 3.3 * 0.08 / n**0.5
    )
    assert sum(result.groups.p < 0.05 for result in results) <= 3


def test_every_model_that_can_learns_survival_and_every_other_is_refused():
    assert {name for name in MODELS if head_class(name).supports("times")} == ABLE
    cohort = followed_cohort(16, n_tiles=5)
    settings = replace(QUICK, epochs=1, clinical=("age",))
    results = judged(cohort, sorted(ABLE), settings, count="2")
    assert set(results) == ABLE
    for name in UNABLE:
        with pytest.raises(FitError, match=rf"{name} learns classes, not survival"):
            fit_model(name, cohort.cases, (), (), QUICK, seed=0, task=Survival())


@pytest.mark.parametrize("loss", ["cox", "discrete"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_fit_comes_back_from_its_file(planted, tmp_path, loss, seeds):
    settings = replace(QUICK, loss=loss, seeds=seeds, epochs=2, intervals=3)
    fitted = fit_model("abmil", planted.cases[:40], (), (), settings, seed=1, task=Survival())
    save_model(tmp_path / "m.safetensors", fitted)
    back = load_model(tmp_path / "m.safetensors")
    bag, at = planted.cases[50].bags[0], [100.0, 500.0]
    assert risk(back, bag, at) == risk(fitted, bag, at)
    assert back.readout == fitted.readout
    assert len(back.readout.outputs) == (1 if loss == "cox" else 3)


def test_several_fits_are_averaged_in_their_logits(planted):
    fitted = fit_model(
        "mean", planted.cases, (), (), replace(QUICK, seeds=3, epochs=2), seed=1, task=Survival()
    )
    features = torch.from_numpy(planted.cases[0].bags[0].features[None])
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    logits = [member(features, mask).logits for member in fitted.head.members]
    torch.testing.assert_close(fitted.head(features, mask).logits, torch.stack(logits).mean(0))
    assert not torch.equal(logits[0], logits[1])


def test_case_is_the_unit_however_many_slides_it_has(planted):
    """A slide given twice changes nothing but what is drawn."""
    settings = replace(QUICK, epochs=3, dropout=0.0, train_tiles=0)
    doubled = tuple(
        replace(case, bags=(*case.bags, *(replace(b, slide=b.slide + "x") for b in case.bags)))
        for case in planted.cases
    )
    bag = planted.cases[0].bags[0]
    for model in ("pooled-logistic", "majority"):
        once, twice = (
            fit_model(model, cases, (), (), settings, seed=0, task=Survival())
            for cases in (planted.cases, doubled)
        )
        assert risk(once, bag, [300.0])[0] == pytest.approx(risk(twice, bag, [300.0])[0], abs=1e-4)
        np.testing.assert_allclose(once.readout.hazard, twice.readout.hazard, rtol=1e-4)


def test_backbone_that_has_seen_a_case_is_refused(planted):
    tainted = replace(planted.cases[0], bags=(made_bag("c000-s1", dim=8, trained_on=("c005",)),))
    cohort = Cohort(cases=(tainted, *planted.cases[1:]), classes=planted.classes, task=planted.task)
    with pytest.raises(LeakageError, match="c005"):
        judged(cohort, ["majority"])


def test_fit_that_has_seen_a_test_case_is_refused(planted):
    cheat = fit_model("majority", planted.cases, (), (), QUICK, seed=0, task=Survival())
    with pytest.raises(LeakageError, match=r"majority was trained on c.*, which would be tested"):
        judged(planted, ["majority"], fitter=lambda _model, _fold, _fitter: cheat)


def test_outcomes_of_the_test_part_change_no_prediction(planted):
    folds = folds_by_event(planted)[:1]
    tested = set(folds[0].test)
    changed = tuple(
        replace(c, time=c.time * 3 + 1) if c.name in tested else c for c in planted.cases
    )
    other = Cohort(cases=changed, classes=planted.classes, task=planted.task)
    fits = []
    for cohort in (planted, other):

        def keep(_model, _fold, fitter):
            fits.append(fitter())
            return fits[-1]

        cross_validate(cohort, folds, ["mean"], replace(QUICK, epochs=2), seed=0, fitter=keep)
    assert fits[0].readout == fits[1].readout
    for a, b in zip(fits[0].head.parameters(), fits[1].head.parameters(), strict=True):
        assert torch.equal(a, b)


def test_same_seed_gives_the_same_predictions(planted):
    folds, settings = folds_by_event(planted, "2"), replace(QUICK, epochs=1)
    first, second = (
        cross_validate(planted, folds, ["mean"], settings, seed=3).table for _ in range(2)
    )
    assert first.equals(second)


def test_epoch_is_chosen_on_training_cases_that_are_set_aside(planted):
    settings = replace(QUICK, early_stopping="always", patience=1, epochs=40, learning_rate=0.05)
    fitted = fit_model(
        "abmil", planted.cases[:40], planted.cases[40:], (), settings, seed=0, task=Survival()
    )
    assert len(fitted.valid_losses) == len(fitted.losses) < 40
    assert set(fitted.trained_on) == {case.name for case in planted.cases}


def test_case_in_both_parts_is_refused(planted):
    with pytest.raises(LeakageError, match="early-stopping part"):
        fit_model("mean", planted.cases, planted.cases[:1], (), QUICK, seed=0, task=Survival())


def test_training_without_an_event_is_refused(planted):
    censored = [case for case in planted.cases if case.label == "censored"]
    with pytest.raises(FitError, match="No training case has an event"):
        fit_model("mean", censored, (), (), QUICK, seed=0, task=Survival())


@pytest.mark.parametrize(("n", "size"), [(33, 16), (40, 4), (7, 16), (50, 1)])
def test_steps_hold_every_case_once_and_their_share_of_events(n, size):
    rng = np.random.default_rng(0)
    outcomes = Outcomes(rng.random(n), np.arange(n) % 3 == 0)
    steps = list(_draw_steps(outcomes, size, rng))
    assert sorted(np.concatenate(steps).tolist()) == list(range(n))
    events = [int(outcomes.event[step].sum()) for step in steps]
    assert min(events) >= 1
    assert max(events) - min(events) <= 1
    assert max(map(len, steps)) - min(map(len, steps)) <= 1


def test_cox_loss_compares_within_the_step_alone():
    outcomes = Outcomes(np.array([1.0, 2, 3]), np.array([True, False, True]))
    cases = followed_cohort(4).cases
    objective = SurvivalObjective(cases, ())
    loss = objective._loss(torch.tensor([[1.0], [0.0], [2.0]]), outcomes)
    expected = np.log(np.e + 1 + np.e**2) - 1 + 0  # the last event is alone in its risk set
    assert float(loss) == pytest.approx(expected / 2, rel=1e-6)


def test_model_of_survival_gives_no_probabilities_of_classes_nor_one_of_classes_a_risk(planted):
    bag = planted.cases[0].bags[0]
    classes = fit_model(
        "mean", planted.cases, (), planted.classes, FitSettings(epochs=1, width=4), seed=0
    )
    with pytest.raises(FitError, match="mean answers p_censored, p_event, not risk"):
        predict(classes, bag, columns=("risk", "s_1"))
    fitted = fit_model(
        "mean", planted.cases, (), (), replace(QUICK, epochs=1), seed=0, task=Survival()
    )
    with pytest.raises(FitError, match="mean answers risk, not p_event"):
        predict(fitted, bag, columns=("p_event",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"task": "regression"},
            "task is diagnosis, survival or grade; got 'regression'. Use diagnosis",
        ),
        (
            {"task": "survival", "loss": "focal"},
            "the task here is survival, whose loss is cox or discrete. Set loss to cox",
        ),
        ({"loss": "cox"}, "the task here is diagnosis, whose loss is cross-entropy or focal"),
        (
            {"task": "survival", "label_smoothing": 0.1},
            "label_smoothing 0.1 belongs to cross-entropy",
        ),
        ({"intervals": 0}, "intervals must be at least 1; got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(FitError, match=message):
        FitSettings(**settings)
