"""A fit repeats, weighs cases alike, stops on what it may see, and comes back from disk the same."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from mil.errors import FitError, LeakageError
from mil.heads import batches
from mil.heads.batches import UNREADY, collate
from mil.heads.head import Head, HeadSettings
from mil.heads.laws import LAWS
from mil.heads.laws_of_numbers import law_gradients_reach_every_parameter
from mil.heads.layers import Dropout
from mil.heads.registry import build_head, head_class
from mil.heads.table import MODELS
from mil.learning.adamw import AdamW
from mil.learning.fitted import load_model, run_head, save_model
from mil.learning.training import fit_model
from mil.settings import FEW_CASES, FitSettings
from mil.tasks import diagnosis_objective
from mil.tasks.diagnosis_objective import _bag_steps, _tile_steps, make_examples
from tests.mil.made import (
    QUICK,
    RECIPE,
    cohort_of,
    made_case,
    made_cohort,
    planted_cohort,
    probabilities,
)

COHORT = made_cohort((3, 4))
LEARNING = [name for name in MODELS if head_class(name).takes_steps()]


def fit_all(model="abmil", cohort=COHORT, settings=QUICK, *, seed=0, valid=()):
    train = [case for case in cohort.cases if case not in valid]
    return fit_model(model, train, valid, cohort.classes, settings, seed=seed)


def weights_of(fitted):
    return {name: value.clone() for name, value in fitted.head.state_dict().items()}


def same_weights(first, second):
    a, b = weights_of(first), weights_of(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_gives_the_same_weights_and_losses(model):
    first, second = fit_all(model, seed=5), fit_all(model, seed=5)
    assert same_weights(first, second)
    assert first.losses == second.losses


@pytest.mark.parametrize("model", LEARNING)
def test_another_seed_gives_other_weights(model):
    assert not same_weights(fit_all(model, seed=5), fit_all(model, seed=6))


@pytest.mark.parametrize("model", LEARNING)
def test_seed_reaches_the_draw_of_tiles(model):
    few = replace(QUICK, train_tiles=2)
    assert same_weights(fit_all(model, settings=few), fit_all(model, settings=few))


def test_fit_does_not_depend_on_what_was_drawn_before():
    first = fit_all()
    torch.manual_seed(99)
    torch.rand(7)
    np.random.default_rng(3)
    assert same_weights(first, fit_all())


@pytest.mark.parametrize("model", MODELS)
def test_generators_of_the_process_are_left_alone(model):
    torch.manual_seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    fit_all(model)
    after = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_fitted_head_is_in_evaluation_mode():
    assert not fit_all().head.training


def test_fitted_says_what_it_has_seen_and_how():
    valid = (COHORT.cases[0], COHORT.cases[-1])
    fitted = fit_all(valid=valid, seed=4)
    assert fitted.trained_on == tuple(sorted(case.name for case in COHORT.cases))
    assert (fitted.classes, fitted.settings, fitted.seed) == (COHORT.classes, QUICK, 4)
    assert (fitted.recipe, fitted.recipe_sha256) == (RECIPE, COHORT.recipe_sha256)


def slides(*n_tiles, dim=3):
    return [np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32) for n in n_tiles]


UNEVEN = [
    made_case("a0", "a", *slides(4)),
    made_case("a1", "a", *slides(9, 2, 5)),
    made_case("b0", "b", *slides(3, 3)),
    made_case("b1", "b", *slides(7)),
    made_case("b2", "b", *slides(1, 8)),
]


def case_shares(cases, classes=("a", "b")):
    """Each case's share of all weight."""
    examples, _ = make_examples(cases, classes)
    weights = iter([example.weight for example in examples])
    shares = np.array([sum(next(weights) for _ in case.bags) for case in cases])
    return shares / shares.sum()


def test_weight_of_a_bag_is_that_of_its_class_over_cases_and_slides():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    expected = [9 / 2 / 2 / n for n in (1, 3, 3, 3)] + [9 / 2 / 3 / n for n in (2, 2, 1, 2, 2)]
    np.testing.assert_allclose([example.weight for example in examples], expected)


def test_mean_weight_is_one():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    assert np.mean([example.weight for example in examples]) == pytest.approx(1)


def test_cases_of_a_class_weigh_the_same_and_so_do_classes():
    np.testing.assert_allclose(case_shares(UNEVEN), [1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6])


def test_class_counts_are_of_cases():
    assert make_examples(UNEVEN, ("a", "b"))[1].tolist() == [2, 3]


def test_splitting_a_case_into_two_slides_moves_no_weight():
    whole = UNEVEN[0].bags[0].features
    split = [made_case("a0", "a", whole[:2], whole[2:]), *UNEVEN[1:]]
    np.testing.assert_allclose(case_shares(split), case_shares(UNEVEN))


def groups_of(steps, examples, settings=QUICK, seed=0):
    """What all steps of an epoch compute, one after the other."""
    return [
        group for step in steps(examples, settings, np.random.default_rng(seed)) for group in step
    ]


def padded(group):
    """The group with its bags as one batch."""
    return group._replace(bags=group.collate(QUICK, UNREADY))


def bags_of(groups):
    """(tiles, label, weight) of each bag, without padding."""
    return [
        (tiles[mask], int(label), float(weight))
        for (features, mask), labels, weights in map(padded, groups)
        for tiles, mask, label, weight in zip(features, mask, labels, weights, strict=True)
    ]


def tile_weights(cases):
    """(label, weight) of every tile of one epoch."""
    examples, _ = make_examples(cases, ("a", "b"))
    groups = groups_of(_tile_steps, examples)
    return torch.cat([g.labels for g in groups]), torch.cat([g.weights for g in groups])


def test_tiles_weigh_one_on_the_mean():
    assert float(tile_weights(UNEVEN)[1].mean()) == pytest.approx(1)


def test_classes_weigh_the_same_tile_by_tile():
    labels, weights = tile_weights(UNEVEN)
    assert float(weights[labels == 0].sum()) == pytest.approx(float(weights[labels == 1].sum()))


@pytest.mark.parametrize("n_copies", [2, 5])
def test_duplicating_every_tile_of_a_bag_moves_no_weight(n_copies):
    """The tiles of one case are recognised by their features."""
    marked = np.full((3, 3), 77, dtype=np.float32)
    shares = []
    for tiles in (marked, np.repeat(marked, n_copies, axis=0)):
        examples, _ = make_examples([made_case("a0", "a", tiles), *UNEVEN[1:]], ("a", "b"))
        groups = groups_of(_tile_steps, examples)
        features = torch.cat([g.bags.features for g in groups])
        weights = torch.cat([g.weights for g in groups])
        shares.append(float(weights[features[:, 0, 0] == 77].sum() / weights.sum()))
    assert shares == pytest.approx([1 / 4, 1 / 4])


def test_every_bag_is_seen_once_an_epoch():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    steps = list(_bag_steps(examples, replace(QUICK, batch_bags=4), np.random.default_rng(0)))
    assert [sum(len(group.labels) for group in step) for step in steps] == [4, 4, 1]
    seen = sorted(float(tiles.sum()) for step in steps for tiles, _, _ in bags_of(step))
    expected = sorted(float(bag.features.sum()) for case in UNEVEN for bag in case.bags)
    np.testing.assert_allclose(seen, expected, rtol=1e-4)


def test_bags_keep_their_own_label_and_weight_when_shuffled():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    weight_of = {float(e.features[0, 0]): (e.label, pytest.approx(e.weight)) for e in examples}
    for tiles, label, weight in bags_of(groups_of(_bag_steps, examples, seed=1)):
        assert weight_of[float(tiles[0, 0])] == (label, weight)


def test_tiles_keep_the_label_of_their_slide_when_shuffled():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    label_of = {tuple(tile): e.label for e in examples for tile in e.features.tolist()}
    for tiles, label, _ in bags_of(groups_of(_tile_steps, examples)):
        assert label_of[tuple(tiles[0].tolist())] == label


def test_order_of_bags_changes_from_epoch_to_epoch():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    rng = np.random.default_rng(0)
    first, second = (
        [float(t[0, 0]) for step in _bag_steps(examples, QUICK, rng) for t, _, _ in bags_of(step)]
        for _ in range(2)
    )
    assert first != second
    assert sorted(first) == sorted(second)


def test_no_step_holds_more_tiles_than_asked():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    settings = replace(QUICK, train_tiles=3)
    groups = groups_of(_bag_steps, examples, settings)
    assert max(padded(group).bags.features.shape[1] for group in groups) == 3


def test_majority_says_the_shares_of_training_cases_not_slides():
    fitted = fit_model("majority", UNEVEN, (), ("a", "b"), QUICK, seed=0)
    assert probabilities(fitted, UNEVEN[0].bags[0]) == pytest.approx([2 / 5, 3 / 5])


def test_majority_has_no_loss():
    assert fit_all("majority").losses == ()


PLANTED = [name for name in LEARNING if head_class(name).learns_from == "bags"]


@pytest.mark.parametrize("model", PLANTED)
def test_loss_falls_on_a_planted_signal(model):
    cohort, _ = planted_cohort(2, 3)
    losses = fit_all(
        model, cohort, FitSettings(seeds=1, epochs=30, width=16, learning_rate=1e-2)
    ).losses
    assert len(losses) == 30
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("model", PLANTED)
def test_planted_signal_is_found_in_cases_that_did_not_train(model):
    cohort, _ = planted_cohort(2, 16)
    train = [case for case in cohort.cases if int(case.name[1:]) < 8]
    held_out = [case for case in cohort.cases if case not in train]
    epochs = 8 if model == "transmil" else 20  # each bag is a step of its own there
    settings = FitSettings(seeds=1, epochs=epochs, width=32, learning_rate=5e-3)
    fitted = fit_model(model, train, (), cohort.classes, settings, seed=0)
    right = [
        np.argmax(probabilities(fitted, case.bags[0])) == cohort.classes.index(case.label)
        for case in held_out
    ]
    assert np.mean(right) >= 0.8  # chance is a half; 16 cases


def test_one_epoch_learns_something():
    torch.manual_seed(0)
    fitted = fit_all(settings=replace(QUICK, epochs=1))
    assert len(fitted.losses) == 1
    assert not torch.equal(fitted.head.classify.bias, torch.zeros(2))


def noise_fit(**options):
    """A fit whose inner loss turns upwards: labels without a signal, learnt by heart."""
    cohort = made_cohort((8, 8), slides=1, dim=20, seed=3)
    valid = [case for case in cohort.cases if case.name in ("a6", "a7", "b6", "b7")]
    settings = replace(
        FitSettings(
            epochs=40,
            width=32,
            learning_rate=2e-2,
            dropout=0,
            patience=4,
            precision="fp32",
            seeds=1,
        ),
        **options,
    )
    return valid, fit_all("mean", cohort, settings, valid=valid)


def test_early_stopping_keeps_the_epoch_of_the_lowest_inner_loss():
    valid, fitted = noise_fit()
    losses = []
    for case in valid:
        p = probabilities(fitted, case.bags[0])
        losses.append(-np.log(p[fitted.classes.index(case.label)]))
    assert fitted.valid_losses[-1] > min(fitted.valid_losses) + 0.01
    assert np.mean(losses) == pytest.approx(min(fitted.valid_losses), rel=1e-4)


@pytest.mark.parametrize("patience", [1, 4])
def test_early_stopping_waits_as_long_as_asked(patience):
    _, fitted = noise_fit(patience=patience)
    best = int(np.argmin(fitted.valid_losses))
    assert len(fitted.valid_losses) == best + 1 + patience < 40
    assert len(fitted.losses) == len(fitted.valid_losses)


def test_inner_cases_change_no_weight_of_an_epoch():
    """They choose the epoch and teach nothing: one epoch with them is one epoch without."""
    valid = (COHORT.cases[0], COHORT.cases[-1])
    one = replace(QUICK, epochs=1)
    train = [case for case in COHORT.cases if case not in valid]
    without = fit_model("abmil", train, (), COHORT.classes, one, seed=0)
    assert same_weights(without, fit_model("abmil", train, valid, COHORT.classes, one, seed=0))


def test_inner_loss_weighs_cases_not_slides():
    train = made_cohort((3, 3)).cases
    bag = np.ones((3, 5), dtype=np.float32)
    losses = []
    for copies in (1, 4):
        valid = [made_case("x", "class-a", *[bag] * copies), made_case("y", "class-b", -bag)]
        fitted = fit_model("mean", train, valid, ("class-a", "class-b"), QUICK, seed=0)
        losses.append(fitted.valid_losses)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_case_that_trains_cannot_choose_the_epoch():
    with pytest.raises(LeakageError, match="training and the early-stopping part: a1"):
        fit_model("abmil", COHORT.cases, COHORT.cases[1:2], COHORT.classes, QUICK, seed=0)


def test_scale_is_taken_from_the_training_cases():
    fitted = fit_all("mean")
    tiles = np.concatenate([bag.features for case in COHORT.cases for bag in case.bags])
    np.testing.assert_allclose(fitted.head.shift, tiles.mean(axis=0), atol=1e-6)
    spread = np.sqrt(np.mean((tiles - tiles.mean(axis=0)) ** 2))
    np.testing.assert_allclose(fitted.head.scale, spread, rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_outlier_in_an_inner_case_moves_no_scale(model):
    valid = made_case("z", "class-a", np.full((3, 5), 1e3, dtype=np.float32))
    fitted = fit_model(model, COHORT.cases, [valid], COHORT.classes, QUICK, seed=0)
    plain = fit_all(model)
    assert torch.equal(fitted.head.shift, plain.head.shift)
    assert torch.equal(fitted.head.scale, plain.head.scale)


@pytest.mark.parametrize("learning_rate", [1e20, 1e36])
@pytest.mark.parametrize("model", ["abmil", "tile-vote"])
def test_diverging_loss_is_refused_with_the_remedy(model, learning_rate):
    settings = replace(QUICK, learning_rate=learning_rate, epochs=6)
    with pytest.raises(FitError, match=r"loss is .* in epoch \d.*smaller learning_rate"):
        fit_all(model, settings=settings)


def test_inner_loss_that_is_no_number_is_refused():
    valid = made_case("z", "class-a", np.full((3, 5), np.inf, dtype=np.float32))
    with pytest.raises(FitError, match="loss is nan in epoch 1"):
        fit_model("mean", COHORT.cases, [valid], COHORT.classes, QUICK, seed=0)


def test_class_without_a_training_case_is_refused():
    with pytest.raises(FitError, match="No case of class-b to train on"):
        fit_model("abmil", COHORT.cases[:3], (), COHORT.classes, QUICK, seed=0)


def test_no_training_case_is_refused():
    with pytest.raises(FitError, match="No case of class-a, class-b to train on"):
        fit_model("majority", (), (), COHORT.classes, QUICK, seed=0)


def test_label_that_is_no_class_is_refused():
    stranger = made_case("z", "class-z", np.ones((2, 5), dtype=np.float32))
    with pytest.raises(FitError, match="'class-z' is none of the classes class-a, class-b"):
        fit_model("abmil", [*COHORT.cases, stranger], (), COHORT.classes, QUICK, seed=0)


def test_unknown_model_is_refused():
    with pytest.raises(FitError, match=r"No model 'abmi'. Did you mean 'abmil'"):
        fit_all("abmi")


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"width": 0},
        {"batch_bags": 0},
        {"train_tiles": -1},
        {"chunk_tiles": -1},
        {"seeds": 0},
        {"precision": "fp16"},
        {"patience": 0},
        {"patience": 20, "early_stopping": "never"},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1},
        {"dropout": 1},
        {"dropout": -0.1},
        {"early_stopping": "yes"},
    ],
)
def test_settings_that_make_no_fit_are_refused_at_birth(options):
    with pytest.raises(FitError, match=next(iter(options))):
        FitSettings(**options)


@pytest.mark.parametrize(
    ("early_stopping", "n_cases", "stops"),
    [
        ("auto", FEW_CASES - 1, False),
        ("auto", FEW_CASES, True),
        ("never", 1000, False),
        ("always", 4, True),
    ],
)
def test_early_stopping_waits_for_enough_cases(early_stopping, n_cases, stops):
    assert (
        FitSettings(early_stopping=early_stopping).stops_early(
            ["a", "b"] * (n_cases // 2) + ["a"] * (n_cases % 2)
        )
        is stops
    )


@pytest.fixture(params=list(MODELS))
def stored(request, tmp_path):
    """A fit and where it was saved."""
    fitted = fit_all(request.param, valid=(COHORT.cases[1], COHORT.cases[-1]))
    path = tmp_path / "models" / f"{request.param}-r0-f0.safetensors"
    save_model(path, fitted)
    return fitted, path


def test_stored_model_predicts_to_the_last_bit_what_it_did(stored):
    fitted, path = stored
    loaded = load_model(path)
    for case in COHORT.cases:
        for bag in case.bags:
            assert probabilities(loaded, bag, case.other) == probabilities(fitted, bag, case.other)
            attention = run_head(loaded, bag, case.other).attention
            assert torch.equal(attention, run_head(fitted, bag, case.other).attention)


def test_stored_model_knows_all_it_knew(stored):
    fitted, path = stored
    loaded = load_model(path)
    assert replace(loaded, head=fitted.head) == fitted


def test_card_beside_the_model_says_what_the_card_inside_does(stored):
    fitted, path = stored
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["trained_on"] == list(fitted.trained_on)
    assert card["recipe"] == RECIPE
    assert sorted(p.name for p in path.parent.iterdir()) == [path.stem + ".json", path.name]


@pytest.fixture
def abmil_path(tmp_path):
    path = tmp_path / "abmil.safetensors"
    save_model(path, fit_all())
    return path


@pytest.mark.parametrize("n_bytes", [0, 7, 100, -200, -1])
def test_model_that_is_cut_off_is_refused(abmil_path, n_bytes):
    abmil_path.write_bytes(abmil_path.read_bytes()[:n_bytes])
    with pytest.raises(FitError, match=r"abmil\.safetensors: not a model of this library"):
        load_model(abmil_path)


def test_garbage_is_refused(abmil_path):
    abmil_path.write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(FitError, match="not a model"):
        load_model(abmil_path)


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_model_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(FitError, match="not a model"):
        load_model(tmp_path / name)


def rewritten(path, change):
    """The model with its card changed."""
    card = json.loads(path.with_suffix(".json").read_text())
    state = {name: value.contiguous() for name, value in load_model(path).head.state_dict().items()}
    save_file(state, path, metadata={"card": json.dumps(change(card))})


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card | {"model": "abmill"},
        lambda card: card | {"model": "mean"},
        lambda card: card | {"dim": 6},
        lambda card: card | {"classes": ["a", "b", "c"]},
        lambda card: card | {"settings": card["settings"] | {"width": 9}},
        lambda card: card | {"settings": card["settings"] | {"unheard": 1}},
        lambda card: card | {"settings": card["settings"] | {"epochs": 0}},
        lambda card: {key: value for key, value in card.items() if key != "trained_on"},
        lambda card: {key: value for key, value in card.items() if key != "classes"},
        lambda card: [],
        lambda card: None,
    ],
)
def test_card_that_does_not_fit_the_weights_is_refused(abmil_path, change):
    rewritten(abmil_path, change)
    with pytest.raises(FitError, match=r"abmil\.safetensors: not a model of this library"):
        load_model(abmil_path)


def test_weights_without_a_card_are_refused(abmil_path):
    save_file({"w": torch.zeros(2)}, abmil_path)
    with pytest.raises(FitError, match="not a model"):
        load_model(abmil_path)


def test_single_and_half_precision_bags_train_together():
    cases = [
        made_case("a0", "a", np.ones((3, 4), dtype=np.float16)),
        made_case("b0", "b", np.zeros((2, 4), dtype=np.float32)),
    ]
    assert np.isfinite(fit_all(cohort=cohort_of(cases)).losses).all()


def test_number_of_threads_is_left_alone():
    before = torch.get_num_threads()
    fit_all()
    with pytest.raises(FitError):
        fit_all(settings=replace(QUICK, learning_rate=1e36))
    assert torch.get_num_threads() == before


def test_learning_rate_falls_along_a_cosine(monkeypatch):
    rates = []
    step = AdamW.step

    def spy(self):
        rates.append(self.rate)
        step(self)

    monkeypatch.setattr(AdamW, "step", spy)
    cohort = made_cohort((2, 2), slides=1)
    settings = replace(QUICK, epochs=4, learning_rate=0.01, batch_bags=99)
    fit_model("mean", cohort.cases, (), cohort.classes, settings, seed=0)
    expected = [0.01 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates == pytest.approx(expected)


def test_what_the_backbone_has_seen_the_model_has_seen():
    cohort = made_cohort((2, 2), slides=1)
    bag = replace(cohort.cases[0].bags[0], trained_on=("elsewhere",))
    cases = (replace(cohort.cases[0], bags=(bag,)), *cohort.cases[1:])
    assert "elsewhere" in fit_model("mean", cases, (), cohort.classes, QUICK, seed=0).trained_on


@pytest.mark.parametrize("part", ["weights", "classes"])
def test_a_model_that_was_changed_is_refused(tmp_path, part):
    cohort = made_cohort((2, 2), slides=1)
    path = tmp_path / "m.safetensors"
    save_model(path, fit_model("mean", cohort.cases, (), cohort.classes, QUICK, seed=0))
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if part == "weights":
        state["classify.bias"][0] += 1
    else:
        card["classes"] = card["classes"][::-1]
    save_file(state, path, metadata={"card": json.dumps(card)})
    with pytest.raises(FitError, match="its weights or its card were changed after saving"):
        load_model(path)


def padded_share(groups):
    masks = [padded(group).bags.mask for group in groups]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


@pytest.mark.parametrize("batch_bags", [2, 4, 16])
def test_less_than_a_tenth_of_an_epoch_is_padding(batch_bags):
    lengths = np.random.default_rng(0).integers(20, 400, 40)
    cases = [made_case(f"{'ab'[i % 2]}{i}", "ab"[i % 2], *slides(n)) for i, n in enumerate(lengths)]
    examples, _ = make_examples(cases, ("a", "b"))
    settings = replace(QUICK, batch_bags=batch_bags, train_tiles=0)
    assert padded_share(groups_of(_bag_steps, examples, settings)) < 0.1
    together = collate([e.features for e in examples])
    assert 1 - float(together.mask.float().mean()) > 0.4  # what one batch of all would pad


@pytest.mark.parametrize("model", ["abmil", "gated-abmil", "mean", "max"])
def test_a_step_in_groups_is_the_step_at_once(model, monkeypatch):
    """The gradient of a step is that of its mean loss, however its bags are grouped."""
    settings = replace(QUICK, batch_bags=9, dropout=0, precision="fp32")
    first = fit_all(model, cohort_of(UNEVEN), settings)
    monkeypatch.setattr(
        diagnosis_objective, "alike", lambda lengths, at_once: [list(range(len(lengths)))]
    )
    second = fit_all(model, cohort_of(UNEVEN), settings)
    assert first.losses == pytest.approx(second.losses, rel=1e-5)
    for name, value in weights_of(first).items():
        torch.testing.assert_close(value, weights_of(second)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", LEARNING)
@pytest.mark.parametrize(("precision", "train_tiles"), [("bf16", 0), ("fp32", 5)])
def test_bags_that_stay_in_memory_train_as_those_that_are_too_large(
    model, precision, train_tiles, monkeypatch
):
    """To the bit; of some bags only a part is drawn."""
    cohort = cohort_of(UNEVEN)
    settings = replace(QUICK, precision=precision, train_tiles=train_tiles)
    standardise, calls = Head.standardise, []
    monkeypatch.setattr(Head, "standardise", lambda *a: calls.append(0) or standardise(*a))
    stay = fit_all(model, cohort, settings, valid=cohort.cases[:1])
    if train_tiles == 0:
        assert len(calls) == len(cohort.bags)  # once each, for all steps
    monkeypatch.setattr(batches, "READY_VALUES", 0)
    assert same_weights(stay, fit_all(model, cohort, settings, valid=cohort.cases[:1]))


def test_all_tiles_train_where_none_are_drawn():
    examples, _ = make_examples(UNEVEN, ("a", "b"))
    for steps_of in (_bag_steps, _tile_steps):
        groups = groups_of(steps_of, examples, replace(QUICK, train_tiles=0))
        assert sum(len(tiles) for tiles, _, _ in bags_of(groups)) == sum(
            len(e.features) for e in examples
        )


def test_bags_longer_than_a_chunk_train_as_they_would_at_once():
    settings = replace(QUICK, dropout=0, precision="fp32", early_stopping="always")
    valid = (COHORT.cases[0], COHORT.cases[-1])
    whole = fit_all("gated-abmil", settings=settings, valid=valid)
    chunked = fit_all("gated-abmil", settings=replace(settings, chunk_tiles=4), valid=valid)
    assert chunked.losses == pytest.approx(whole.losses, rel=1e-4)
    assert chunked.valid_losses == pytest.approx(whole.valid_losses, rel=1e-4)


def test_head_that_takes_no_chunks_is_refused_in_training():
    with pytest.raises(FitError, match=r"MaxPooling looks at all tiles.*chunk_tiles"):
        fit_all("max", settings=replace(QUICK, chunk_tiles=2))


def test_half_precision_learns_what_single_precision_does():
    cohort, _ = planted_cohort(2, 6)
    settings = FitSettings(seeds=1, epochs=20, width=16, learning_rate=1e-2, dropout=0)
    single, half = (
        fit_all("gated-abmil", cohort, replace(settings, precision=name))
        for name in ("fp32", "bf16")
    )
    assert single.losses != half.losses
    assert half.losses == pytest.approx(single.losses, abs=0.05)
    assert {value.dtype for value in half.head.state_dict().values()} == {torch.float32}


def test_half_precision_survives_features_far_from_zero():
    """A mean a thousand spreads away: centred in single precision first, nothing is lost."""
    cohort, _ = planted_cohort(2, 6)
    moved = [
        made_case(c.name, c.label, *(b.features + np.float32(1000) for b in c.bags))
        for c in cohort.cases
    ]
    settings = FitSettings(
        seeds=1, epochs=20, width=16, learning_rate=1e-2, dropout=0, precision="bf16"
    )
    near, far = fit_all("mean", cohort, settings), fit_all("mean", cohort_of(moved), settings)
    assert far.losses == pytest.approx(near.losses, abs=0.02)


def dropout_of(share, n=400_000):
    torch.manual_seed(0)
    return Dropout(share)(torch.ones(n))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    dropped = dropout_of(share)
    spread = np.sqrt(share * (1 - share) / len(dropped))
    assert abs(float((dropped == 0).float().mean()) - share) < 5 * spread
    assert float(dropped.max()) == pytest.approx(1 / (1 - share), rel=1e-3)
    assert float(dropped.mean()) == pytest.approx(1, abs=5 * spread / (1 - share))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 8])
def test_dropout_has_no_pattern(step):
    """Four draws come of one word: neither place in it is favoured, nor do neighbours agree."""
    retained = (dropout_of(0.5) > 0).double()
    for start in range(4):
        assert abs(float(retained[start::4].mean()) - 0.5) < 0.01
    both = float((retained[step:] * retained[:-step]).mean())
    assert abs(both - 0.25) < 0.005


def test_dropout_does_nothing_in_evaluation_or_without_a_share():
    x = torch.randn(7)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert Dropout(0.5)(torch.randn(3, 5, 2)).shape == (3, 5, 2)


SEVERAL = replace(QUICK, seeds=3)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in LEARNING])
def test_what_takes_no_steps_is_fitted_once_whatever_the_seeds(model):
    assert same_weights(fit_all(model), fit_all(model, settings=SEVERAL))


@pytest.mark.parametrize("model", LEARNING)
def test_seeds_are_averaged(model):
    fitted = fit_all(model, settings=SEVERAL)
    bag = COHORT.cases[0].bags[0]
    members = [replace(fitted, head=member) for member in fitted.head.members]
    mean = np.mean([probabilities(member, bag) for member in members], axis=0)
    assert probabilities(fitted, bag) == pytest.approx(mean.tolist(), abs=1e-6)
    attention = run_head(fitted, bag).attention
    torch.testing.assert_close(
        attention, torch.stack([run_head(m, bag).attention for m in members]).mean(0)
    )
    assert fitted.head.learns_attention == head_class(model).learns_attention


def test_members_are_fits_of_their_own_and_the_first_is_that_of_one_seed():
    exact = replace(SEVERAL, precision="fp32")
    fitted = fit_all(settings=exact)
    first, second, third = (dict(member.state_dict()) for member in fitted.head.members)
    assert not torch.equal(first["classify.weight"], second["classify.weight"])
    assert not torch.equal(second["classify.weight"], third["classify.weight"])
    alone = weights_of(fit_all(settings=replace(exact, seeds=1)))
    for name, value in alone.items():  # they were multiplied together
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5)


# Its members were trained alone, each with its own further loss.
OF_ENSEMBLES = [law for law in LAWS if law is not law_gradients_reach_every_parameter]


@pytest.mark.parametrize("law", OF_ENSEMBLES, ids=lambda law: law.__name__)
@pytest.mark.parametrize("model", LEARNING)
def test_an_ensemble_obeys_the_laws_of_heads(model, law):
    law(lambda: build_head(model, HeadSettings(dim=7, n_outputs=3, width=10), 2))


@pytest.mark.parametrize("model", LEARNING)
def test_an_ensemble_comes_back_from_disk_the_same(model, tmp_path):
    fitted = fit_all(model, settings=SEVERAL)
    save_model(tmp_path / "m.safetensors", fitted)
    loaded = load_model(tmp_path / "m.safetensors")
    for case in COHORT.cases:
        assert probabilities(loaded, case.bags[0]) == probabilities(fitted, case.bags[0])


def test_transmil_reads_all_tiles_and_not_the_first_of_them():
    """Few bags, one tile in twenty moved: a way from the first tiles would be learnt by heart."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(256)
    direction *= 8 / np.linalg.norm(direction)
    cases = []
    for number in range(36):
        tiles = rng.standard_normal((250, 256))
        if number % 2:
            tiles[rng.random(250) < 0.05] += direction
        cases.append(made_case(f"c{number}", "ab"[number % 2], tiles.astype(np.float32)))
    settings = FitSettings(seeds=1, epochs=8, width=64, batch_bags=1, precision="fp32")
    fitted = fit_model("transmil", cases[:16], [], ("a", "b"), settings, seed=0)
    scores = [probabilities(fitted, case.bags[0])[1] for case in cases[16:]]
    assert roc_auc_score([case.label == "b" for case in cases[16:]], scores) > 0.9
