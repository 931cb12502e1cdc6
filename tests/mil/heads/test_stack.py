"""Fits that are trained as one learn what each learns by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mil.heads.head import Head, HeadSettings
from mil.heads.layers import Dropout
from mil.heads.pooling import MeanPooling
from mil.heads.registry import build_head, head_class
from mil.heads.stack import StackedDropout, StackedLinear, stacks
from mil.heads.table import MODELS, BuiltIn
from mil.learning import training
from mil.learning.crossval import fit_fold, fit_folds
from mil.learning.fitted import predict
from mil.learning.stacked import fits_together, stack_fits
from mil.learning.training import fit_model
from mil.settings import FitSettings
from mil.tasks.grade import Grade
from tests.mil.made import cohort_of, folds_of, made_case

STACKED = [name for name in MODELS if vars(head_class(name)).get("stacks")]
SHAPE = HeadSettings(dim=6, n_outputs=3, width=8)
SETTINGS = FitSettings(
    seeds=3, epochs=7, width=8, batch_bags=3, precision="fp32", early_stopping="never"
)


def a_cohort(lengths=(9, 8, 7, 9, 6, 9, 8, 5, 9, 7), dim=6):
    rng = np.random.default_rng(0)
    return cohort_of([
        made_case(f"c{i:02d}", "abc"[i % 3], (rng.normal(size=(n, dim)) + i % 3).astype(np.float16))
        for i, n in enumerate(lengths)
    ])  # fmt: skip


def both_ways(monkeypatch, model, settings=SETTINGS, cohort=None, **more):
    """The fit with stacked members, with as many stacks as were made, and the fit one by one."""
    cohort = cohort or a_cohort()
    made = []

    def counted(*args):
        made.append(stack_fits(*args))
        return made[-1]

    fits = []
    for way in (counted, lambda *_: None):
        monkeypatch.setattr(training, "stack_fits", way)
        fits.append(fit_model(model, cohort.cases, (), cohort.classes, settings, seed=4, **more))
    return sum(each is not None for each in made), *fits


def furthest(first, second):
    """The largest difference of two fits' weights, and of their losses."""
    state, other = first.head.state_dict(), second.head.state_dict()
    weights = [
        float((state[name] - other[name]).abs().max()) for name in state if state[name].numel()
    ]
    return max(weights), max(np.abs(np.subtract(first.losses, second.losses)))


@pytest.mark.parametrize("model", STACKED)
def test_members_learn_together_what_they_learn_one_by_one(monkeypatch, model):
    n_stacks, together, alone = both_ways(monkeypatch, model)
    assert n_stacks == 1
    weights, losses = furthest(together, alone)
    assert weights < 1e-5
    assert losses < 1e-6
    fresh = build_head(model, SHAPE).state_dict()
    assert set(alone.head.members[0].state_dict()) == set(fresh)


@pytest.mark.parametrize("model", ["abmil", "tile-vote"])
def test_half_precision_learns_the_same_but_for_rounding(monkeypatch, model):
    settings = replace(SETTINGS, precision="bf16")
    n_stacks, together, alone = both_ways(monkeypatch, model, settings)
    assert n_stacks == 1
    assert furthest(together, alone)[0] < 0.02


def test_grades_and_focal_loss_are_learnt_together(monkeypatch):
    for settings, more in (
        (replace(SETTINGS, loss="focal"), {}),
        (replace(SETTINGS, task="grade"), {"task": Grade()}),
    ):
        n_stacks, together, alone = both_ways(monkeypatch, "gated-abmil", settings, **more)
        assert n_stacks == 1
        assert furthest(together, alone)[0] < 1e-5


def test_seed_gives_the_same_stack_twice(monkeypatch):
    _, first, _ = both_ways(monkeypatch, "abmil")
    _, second, _ = both_ways(monkeypatch, "abmil")
    assert furthest(first, second) == (0, 0)


class Comparing(MeanPooling):
    """A head of another package whose bags know each other in training."""

    def pool(self, features, mask, coords):
        shifted = features - features.mean(dim=0, keepdim=True) if self.training else features
        return super().pool(shifted, mask, coords)


class Scaled(MeanPooling):
    """A head with a weight that no linear layer has, though it says it stacks."""

    stacks = True

    def __init__(self, settings):
        super().__init__(settings)
        self.factor = nn.Parameter(torch.ones(()))

    def pool(self, features, mask, coords):
        return super().pool(self.factor * features, mask, coords)


@pytest.mark.parametrize("head", [Comparing, Scaled])
def test_head_of_another_package_is_trained_one_by_one(monkeypatch, head):
    monkeypatch.setitem(MODELS, "other", BuiltIn(f"{__name__}:{head.__name__}", "another"))
    assert not stacks(head(SHAPE))
    n_stacks, together, alone = both_ways(monkeypatch, "other")
    assert n_stacks == 0
    assert furthest(together, alone) == (0, 0)


def test_own_head_that_says_so_is_stacked(monkeypatch):
    class Own(Head):
        stacks = True

        def __init__(self, settings):
            super().__init__(settings)
            self.inner = MeanPooling(settings)

        def pool(self, features, mask, coords):
            return self.inner.pool(features, mask, coords)

    monkeypatch.setattr(training, "build_head", lambda _model, shape: Own(shape))
    n_stacks, together, alone = both_ways(monkeypatch, "mean")
    assert n_stacks == 1
    assert furthest(together, alone)[0] < 1e-5


@pytest.mark.parametrize(
    ("settings", "cohort"),
    [
        (replace(SETTINGS, seeds=1), None),
        (replace(SETTINGS, train_tiles=5), None),
        (replace(SETTINGS, chunk_tiles=5), None),
        (replace(SETTINGS, early_stopping="always"), None),
        (SETTINGS, a_cohort((1, 2, 1, 1, 60, 2))),  # nearly all would be padding
        (SETTINGS, a_cohort((1500,) * 6)),  # bags that fill the processor by themselves
    ],
)
def test_fits_are_not_stacked_where_it_is_not_the_same_or_does_not_pay(
    monkeypatch, settings, cohort
):
    settings = replace(settings, epochs=1)
    cohort = cohort or a_cohort()
    from mil.learning.crossval import fit_cases

    made = []
    monkeypatch.setattr(
        training, "stack_fits", lambda *args: made.append(stack_fits(*args)) or made[-1]
    )
    fit_cases("abmil", cohort.cases, cohort.classes, settings, 0)
    assert not any(made)


@pytest.mark.parametrize("model", ["abmil", "max", "tile-vote"])
@pytest.mark.parametrize(
    "n_cases", [10, 11]
)  # folds of 2 or 3 steps; of 3, the last of 1 or 2 bags
def test_folds_learn_together_what_each_learns_by_itself(monkeypatch, model, n_cases):
    lengths = np.random.default_rng(1).integers(40, 60, n_cases)
    cohort = a_cohort(tuple(map(int, lengths)))
    folds = folds_of(cohort, folds="3")
    made = []
    monkeypatch.setattr(
        training, "stack_fits", lambda *args: made.append(stack_fits(*args)) or made[-1]
    )
    together = fit_folds(cohort, model, folds, SETTINGS, 0)
    members = [len(stack.fits) for stack in made]
    assert sum(members) == 9
    assert max(members) > 3
    monkeypatch.setattr(training, "stack_fits", lambda *_: None)
    for fold, fitted in zip(folds, together, strict=True):
        alone = fit_fold(cohort, model, fold, SETTINGS, 0)
        weights, losses = furthest(fitted, alone)
        assert weights < 1e-5
        assert losses < 1e-6
        assert fitted.trained_on == alone.trained_on
        for case in cohort.cases:
            answer = predict(fitted, case.bags[0])
            assert answer == pytest.approx(predict(alone, case.bags[0]), abs=1e-5)


def test_as_many_fits_are_trained_as_one_as_pay():
    head = head_class("abmil")
    assert fits_together(head, [100] * 20, FitSettings()) == 30
    assert fits_together(head, [1000] * 20, FitSettings()) == 3
    assert fits_together(head, [1100] * 20, FitSettings()) == 1
    assert fits_together(head, [20] * 9 + [100], FitSettings()) == 1  # padding
    assert fits_together(head_class("tile-vote"), [20] * 9 + [100], FitSettings()) == 48
    assert fits_together(head, [100] * 20, FitSettings(train_tiles=99)) == 1


def test_stacked_layer_is_its_members_side_by_side():
    torch.manual_seed(0)
    for bias in (True, False):
        layers = [nn.Linear(5, 4, bias=bias) for _ in range(3)]
        x = torch.randn(6, 7, 5)  # two bags for each
        expected = torch.cat([layer(part) for layer, part in zip(layers, x.split(2), strict=True)])
        torch.testing.assert_close(StackedLinear(layers)(x), expected)
        assert StackedLinear(layers)(x[:, :0]).shape == (6, 0, 4)


def test_stacked_dropout_draws_as_its_members_would():
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 5)]
    stacked = StackedDropout(0.4, generators)
    stacked.shapes = [[(2, 6), (1, 4)], [(3, 5)]]
    dropped = stacked(torch.ones(6, 6, 3))
    alone = Dropout(0.4)
    for seed, rows, shapes in ((3, (0, 2), stacked.shapes[0]), (5, (3,), stacked.shapes[1])):
        torch.manual_seed(seed)
        for row, (bags, tiles) in zip(rows, shapes, strict=True):
            expected = alone(torch.ones(bags, tiles, 3))
            assert torch.equal(dropped[row : row + bags, :tiles], expected)
    assert 0.3 < float((dropped[:2] == 0).float().mean()) < 0.5
