"""A backbone learns from tiles, remembers its cases, and survives a kill."""

import json
import math
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from lessons import QUICK, RECIPE, TILE, lesson, lessons, pool_of, results, small_inputs, tune
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from features.backbones.registry import load_backbone
from features.bags.bag import read_bag
from features.errors import BackboneError
from features.extraction.embed import preprocess
from features.extraction.extract import extract
from mil.errors import CohortError, FitError
from mil.finetune import files, training
from mil.finetune.augmentation import jitter_colours, turn_tile
from mil.finetune.files import load_classifier
from mil.finetune.network import TileClassifier, parameter_groups
from mil.finetune.settings import Augmentation, FinetuneSettings
from mil.finetune.tiles import tile_weights
from mil.finetune.training import learning_fraction

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """(slides, folder): six slides of two colours, learnt for a few epochs."""
    folder = tmp_path_factory.mktemp("taught")
    slides = lessons(folder / "tiles")
    tune(slides, folder / "tuned", replace(QUICK, epochs=8, learning_rate=3e-3))
    return slides, folder / "tuned"


def test_what_was_learnt_holds_on_new_tiles(taught, tmp_path):
    _, tuned = taught
    card = json.loads((tuned / "card.json").read_text())
    assert card["losses"][-1] < card["losses"][0] / 2
    classifier, card = load_classifier(tuned)
    assert card["classes"] == ["blue", "red"]
    backbone = load_backbone("test_resnet", str(tuned / "weights.safetensors"))
    for slide in lessons(tmp_path / "new", per_class=2, seed=9):
        tiles = torch.from_numpy(np.stack([_pixels(path) for path in slide.job.files]))
        with torch.inference_mode():
            called = classifier(preprocess(tiles, backbone)).argmax(dim=1)
        assert [card["classes"][i] for i in called] == [slide.label] * len(tiles)


def test_bags_know_the_cases_of_their_backbone(taught, tmp_path):
    slides, tuned = taught
    recipe = replace(RECIPE, weights=str(tuned / "weights.safetensors"))
    extract([slides[0].job], recipe, tmp_path / "tuned", device="cpu", workers=1)
    extract([slides[0].job], RECIPE, tmp_path / "random", device="cpu", workers=1)
    bag, other = (
        read_bag(tmp_path / name / f"{slides[0].job.slide}.h5") for name in ("tuned", "random")
    )
    assert bag.trained_on == tuple(sorted(slide.job.case for slide in slides))
    assert other.trained_on == ()
    assert bag.recipe_sha256 != other.recipe_sha256
    assert not np.allclose(bag.features, other.features)


def test_what_starts_from_tuned_weights_has_seen_their_cases_too(taught, tmp_path):
    _, tuned = taught
    recipe = replace(RECIPE, weights=str(tuned / "weights.safetensors"))
    more = lessons(tmp_path / "tiles", per_class=1, seed=5)
    more = [replace(slide, job=replace(slide.job, case=f"new-{slide.label}")) for slide in more]
    card = tune(more, tmp_path / "out", replace(QUICK, epochs=1), recipe)
    assert {"new-red", "new-blue", "red-0", "blue-2"} <= set(card["trained_on"])


def test_real_weights_are_trained_further_and_are_read_again(tmp_path, monkeypatch):
    """The ImageNet weights of the package ``weights``, at a quarter of their side, as it takes less time."""
    small_inputs(monkeypatch, of=("tf_efficientnet_lite0.in1k",))
    recipe = replace(RECIPE, backbone="efficientnet-lite0", weights="pretrained")
    slides = lessons(tmp_path / "tiles", per_class=2)
    settings = replace(QUICK, epochs=8, train="last", last_blocks=1, learning_rate=1e-3)
    card = tune(slides, tmp_path / "out", settings, recipe)
    assert card["losses"][-1] < card["losses"][0] / 2
    assert card["backbone"] == "tf_efficientnet_lite0.in1k"
    start = load_backbone("efficientnet-lite0", "pretrained")
    tuned = load_backbone("efficientnet-lite0", str(tmp_path / "out" / "weights.safetensors"))
    assert tuned.recipe == start.recipe
    assert set(tuned.trained_on) == {slide.job.case for slide in slides}
    before, after = (one.module.network.state_dict() for one in (start, tuned))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert "conv_stem" not in changed
    assert changed
    assert all(
        torch.nn.functional.cosine_similarity(before[k].ravel(), after[k].ravel(), dim=0) > 0.9
        for k in before
        if k.endswith("conv_head.weight")
    )


def test_the_head_alone_leaves_the_backbone_as_it_was(tmp_path):
    tune(lessons(tmp_path / "tiles"), tmp_path / "out", replace(QUICK, train="head"))
    tuned_backbone = load_backbone("test_resnet", str(tmp_path / "out" / "weights.safetensors"))
    assert tuned_backbone.weights_sha256 == load_backbone("test_resnet", "random").weights_sha256


def test_last_blocks_change_and_the_others_do_not(tmp_path):
    tune(lessons(tmp_path / "tiles"), tmp_path / "out", replace(QUICK, train="last", last_blocks=2))
    start = load_backbone("test_resnet", "random").module.state_dict()
    tuned_backbone = load_backbone(
        "test_resnet", str(tmp_path / "out" / "weights.safetensors")
    ).module
    changed = {
        name.split(".")[1]
        for name, v in tuned_backbone.state_dict().items()
        if not torch.equal(v, start[name])
    }
    assert changed == {"layer3", "layer4"}


def test_the_same_twice_is_the_same_bytes_and_finished_work_is_not_done_again(
    taught, tmp_path, monkeypatch
):
    slides = lessons(tmp_path / "tiles")
    for name in ("one", "two"):
        tune(slides, tmp_path / name)
    assert results(tmp_path / "one") == results(tmp_path / "two")
    assert not (tmp_path / "one" / "checkpoint.safetensors").exists()
    with monkeypatch.context() as patch:
        patch.setattr(training, "_Training", None)
        tune(slides, tmp_path / "one")
    changed = tune(slides, tmp_path / "one", replace(QUICK, learning_rate=1e-4))
    assert changed["settings"]["learning_rate"] == 1e-4
    assert results(tmp_path / "one") != results(tmp_path / "two")


class Killed:
    """Progress that ends its process in the middle of an epoch."""

    def __init__(self, after):
        self.left = after

    @contextmanager
    def task(self, name, total, unit):
        def advance(count):
            if unit == "steps":
                self.left -= count
                if self.left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        yield advance


def killed(folder, after):
    """The body of the process that is killed."""
    small_inputs(pytest.MonkeyPatch())
    torch.set_num_threads(1)
    tune(lessons(folder / "tiles"), folder / "cut", WITH_CHANCE, progress=Killed(after))


WITH_CHANCE = replace(
    QUICK, epochs=4, dropout=0.5, jitter=0.2, early_stopping="always", optimizer="sgdm",
    augment=get_args(Augmentation)[1:],
)  # fmt: skip


@pytest.mark.parametrize("after", [1, 5])  # in the first epoch, and in the third
def test_a_killed_run_goes_on_to_the_bytes_of_one_that_nothing_disturbed(after, tmp_path, forked):
    slides = lessons(tmp_path / "tiles")
    process = forked.Process(target=killed, args=(tmp_path, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists() == (after == 5)
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    epochs = []
    with pytest.MonkeyPatch.context() as patch:
        epoch = training._Training._epoch
        patch.setattr(
            training._Training,
            "_epoch",
            lambda *keywords: epochs.append(keywords[2]) or epoch(*keywords),
        )
        tune(slides, tmp_path / "cut", WITH_CHANCE)
    assert epochs == ([2, 3] if after == 5 else [0, 1, 2, 3])
    tune(slides, tmp_path / "whole", WITH_CHANCE)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_a_checkpoint_of_another_request_is_not_taken_up(tmp_path):
    slides = lessons(tmp_path / "tiles")

    class Stop(Exception):
        pass

    class Stopped(Killed):
        @contextmanager
        def task(self, name, total, unit):
            def advance(count):
                self.left -= unit == "steps"
                if self.left < 0:
                    raise Stop

            yield advance

    with pytest.raises(Stop):
        tune(slides, tmp_path / "out", progress=Stopped(4))
    assert (tmp_path / "out" / "checkpoint.safetensors").exists()
    other = replace(QUICK, dropout=0.1)
    tune(slides, tmp_path / "out", other)
    tune(slides, tmp_path / "fresh", other)
    assert results(tmp_path / "out") == results(tmp_path / "fresh")
    shutil.copy(tmp_path / "fresh" / "weights.safetensors", tmp_path / "checkpoint.safetensors")
    started = files.read_checkpoint(tmp_path, "request", None, None)  # a file of another kind
    assert started == files.TrainingProgress()


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    for card in ({}, {"card": "[]"}, {"card": '{"request": "r"}'}):
        save_file({"now.a": torch.ones(1)}, path, metadata=card)
        with pytest.raises(FitError, match=r"checkpoint\.safetensors: not a file of fine-tuning"):
            files.read_checkpoint(tmp_path, "r", None, None)


def test_weights_whose_card_was_emptied_by_hand_do_not_embed(tmp_path):
    slides = lessons(tmp_path / "tiles")
    tune(slides, tmp_path / "out", replace(QUICK, epochs=1))
    path = tmp_path / "out" / "weights.safetensors"
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["trained_on"]
    emptied = json.dumps(card | {"trained_on": []})
    save_file(load_file(path), path, metadata={"card": emptied})
    recipe = replace(RECIPE, weights=str(path))
    with pytest.raises(BackboneError, match=r"its card were changed after saving.*Fine-tune"):
        extract(
            [slide.job for slide in slides], recipe, tmp_path / "store", device="cpu", workers=1
        )
    with pytest.raises(FitError, match="fine-tune again"):
        tune(slides, tmp_path / "out", replace(QUICK, epochs=1))


def test_the_weights_are_of_the_epoch_best_on_inner_cases_which_do_not_train(tmp_path, monkeypatch):
    slides = lessons(tmp_path / "tiles", per_class=5)
    slides.append(replace(slides[0], job=replace(slides[0].job, slide="red-0-again")))
    drawn, draw = [], training.TilePool.draw

    def recorded(self, members, at_most, rng):
        drawn.append({self.slides[m].job.case for m in members})
        return draw(self, members, at_most, rng)

    monkeypatch.setattr(training.TilePool, "draw", recorded)
    states, losses = [], iter([0.5, 0.2, 0.9])
    real = training._Training._validate

    def validate(self):
        real(self)
        states.append({k: v.clone() for k, v in self.classifier.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(training._Training, "_validate", validate)
    card = tune(slides, tmp_path / "out", replace(QUICK, early_stopping="always"))
    assert card["kept_epoch"] == 2
    tuned_backbone = load_backbone(
        "test_resnet", str(tmp_path / "out" / "weights.safetensors")
    ).module
    for name, value in tuned_backbone.state_dict().items():
        assert torch.equal(value, states[1][f"backbone.{name}"])
    train, valid = drawn[0], drawn[1]
    assert drawn == [train, valid] * 3
    assert not train & valid
    assert sorted(valid) == card["chosen_by"]
    assert len(valid) == 2
    assert set(card["trained_on"]) == train | valid


@pytest.mark.parametrize(
    ("losses", "patience", "n_epochs", "best"),
    [
        ([0.5, 0.2, 0.9, 0.8, 0.1, 0.0], 2, 4, 2),
        ([0.5, 0.2, 0.9, 0.8, 0.1, 0.0], 3, 6, 6),
        ([0.5, 0.2, 0.2, 0.9, 0.8, 0.0], 3, 5, 2),  # an equal loss is not a lower one
        ([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], 0, 6, 1),
    ],
)
def test_training_stops_when_the_inner_loss_no_longer_falls(
    losses, patience, n_epochs, best, tmp_path, monkeypatch
):
    left = iter(losses)
    monkeypatch.setattr(training._Training, "_validate", lambda _self: next(left))
    settings = replace(
        QUICK, epochs=6, early_stopping="always", patience=patience, tiles_per_slide=1
    )
    card = tune(lessons(tmp_path / "tiles"), tmp_path / "out", settings)
    assert card["valid_losses"] == losses[:n_epochs]
    assert (len(card["losses"]), card["kept_epoch"]) == (n_epochs, best)
    assert card["chosen_by"]
    assert (tmp_path / "out" / "history.csv").read_text().count("\n") == 1 + n_epochs


def test_patience_without_inner_cases_is_refused_before_any_step(tmp_path):
    slides = lessons(tmp_path / "tiles")
    with pytest.raises(
        FitError, match=r"patience 4 .* 6 cases are too few .* \(from 60\)\. Set early"
    ):
        tune(slides, tmp_path / "out", replace(QUICK, patience=4))
    with pytest.raises(FitError, match=r"early_stopping is never\. Set early_stopping to always"):
        replace(QUICK, patience=4, early_stopping="never")


def test_defaults_train_as_they_always_have(tmp_path):
    """The slow twin: AdamW, a cosine, eight ways to lie and colours, to the last bit."""
    slides = lessons(tmp_path / "tiles")
    card = tune(slides, tmp_path / "out", QUICK)
    losses, network = [], None
    with pool_of(slides) as pool, training._seeded(0, training.INITIAL):
        network = TileClassifier(load_backbone("test_resnet", "random"), 2, QUICK)
        network.to(memory_format=torch.channels_last)
        groups = parameter_groups(network, QUICK)
        optimizer = torch.optim.AdamW(groups, lr=QUICK.learning_rate)
        assert {group["weight_decay"] for group in groups} == {0.05, 0.0}
        for epoch in range(QUICK.epochs):
            with training._seeded(0, 0, epoch, 0):
                losses.append(_epoch_as_always(pool, network, optimizer, epoch))
    assert card["losses"] == losses
    learnt = load_backbone("test_resnet", str(tmp_path / "out" / "weights.safetensors")).module
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, learnt.state_dict()[name])


def _epoch_as_always(pool, network, optimizer, epoch):
    rng, total = np.random.default_rng([0, 0, epoch]), 0.0
    chosen = pool.draw(range(len(pool.slides)), QUICK.tiles_per_slide, rng)
    weights = tile_weights(pool, chosen, range(len(pool.slides)))
    turns = rng.integers(8, size=len(chosen))
    factors = 1 + QUICK.jitter * rng.uniform(-1, 1, size=(len(chosen), 3))
    labels = sorted({slide.label for slide in pool.slides})
    n_steps = -(-len(chosen) // QUICK.batch_tiles)
    network.train()
    for number, rows in enumerate(np.array_split(np.arange(len(chosen)), n_steps)):
        at = epoch + number / n_steps
        fraction = (
            (at + 1e-3) / (1 + 1e-3) if at < 1 else 0.5 * (1 + math.cos(math.pi * (at - 1) / 2))
        )
        for group in optimizer.param_groups:
            group["lr"] = QUICK.learning_rate * group["scale"] * fraction
        tiles = np.stack(
            [
                turn_tile(pool.read(s, n), t)
                for (s, n), t in zip(chosen[rows], turns[rows], strict=True)
            ]
        )
        shown = jitter_colours(torch.from_numpy(tiles), torch.from_numpy(factors[rows]))
        images = preprocess(shown, load_backbone("test_resnet", "random"))
        logits = network(images.contiguous(memory_format=torch.channels_last))
        targets = torch.tensor([labels.index(pool.slides[s].label) for s in chosen[rows][:, 0]])
        weight = torch.from_numpy(weights).float()[torch.from_numpy(chosen[rows][:, 0])]
        loss = (torch.nn.functional.cross_entropy(logits, targets, reduction="none") * weight).sum()
        optimizer.zero_grad()
        (loss / len(rows)).backward()
        optimizer.step()
        total += float(loss.detach() / len(rows)) * len(rows)
    return total / len(chosen)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam"},
        {"optimizer": "sgdm", "learning_rate": 0.05},
        {"schedule": "constant"},
        {"augment": ("off",)},
        {"augment": ("rotation", "zoom", "elastic", "crop")},
    ],
)
def test_every_way_to_learn_learns(changes, taught, tmp_path):
    slides, tuned = taught
    settings = replace(QUICK, epochs=8, **{"learning_rate": 3e-3} | changes)
    card = tune(slides, tmp_path / "out", settings)
    assert card["losses"][-1] < card["losses"][0] / 2
    assert results(tuned) != results(tmp_path / "out")
    name, value = next(iter(changes.items()))
    assert card["settings"][name] == value
    assert card["settings"]["weight_decay"] == (0.05 if settings.optimizer == "adamw" else 0.0)


def test_validation_is_the_balanced_mean_loss(tmp_path, monkeypatch):
    """The slow twin: a loop over classes, cases and tiles."""
    values = {}

    def grab(self):
        values["loss"], values["training"] = real(self), self
        network = self.classifier.eval()
        means = []
        for label in self.objective.outputs:
            of_class = []
            for m in self.valid:
                slide = self.pool.slides[m]
                if slide.label == label:
                    tiles = np.stack([_pixels(path) for path in slide.job.files])
                    with torch.inference_mode():
                        logits = network(preprocess(torch.from_numpy(tiles), self.backbone))
                    p = torch.log_softmax(logits, dim=1)[
                        :, list(self.objective.outputs).index(label)
                    ]
                    of_class.append(-float(p.mean()))
            means.append(np.mean(of_class))
        values["twin"] = np.mean(means)
        return values["loss"]

    real = training._Training._validate
    monkeypatch.setattr(training._Training, "_validate", grab)
    slides = [
        lesson(tmp_path / "tiles", f"{label}-{i}", label, n_tiles=n_tiles)
        for i in range(6)
        for label, n_tiles in (("red", 3), ("blue", 7))
    ]
    settings = replace(QUICK, epochs=1, early_stopping="always", tiles_per_slide=9)
    tune(slides, tmp_path / "out", settings)
    assert values["loss"] == pytest.approx(values["twin"], rel=1e-5)


def test_rates_rise_then_fall_along_a_cosine_or_stay():
    cosine = FinetuneSettings(epochs=10, warmup=2.0)
    constant = replace(cosine, schedule="constant")
    for settings in (cosine, constant):
        assert learning_fraction(0, settings) < 0.01
        assert learning_fraction(1, settings) == pytest.approx(0.5, abs=0.01)
        assert learning_fraction(2, settings) == pytest.approx(1)
    assert learning_fraction(6, cosine) == pytest.approx(0.5)
    assert learning_fraction(9.99, cosine) < 0.001
    assert [learning_fraction(at, constant) for at in (3, 6, 9.99)] == [1, 1, 1]
    assert learning_fraction(0, FinetuneSettings(epochs=1, warmup=0.0)) == 1


def test_requests_that_cannot_be_trained_are_refused(tmp_path):
    slides = lessons(tmp_path / "tiles")
    with pytest.raises(FitError, match=r"fp16 .*Set precision to bf16"):
        tune(slides, tmp_path / "out", recipe=replace(RECIPE, precision="fp16"))
    with pytest.raises(FitError, match="Two or more classes"):
        tune([s for s in slides if s.label == "red"], tmp_path / "out")
    with pytest.raises(CohortError, match="two training cases with every label"):
        tune(slides[:3], tmp_path / "out", replace(QUICK, early_stopping="always"))
    with pytest.raises(FitError, match=r"Use a smaller learning_rate"):
        tune(slides, tmp_path / "out", _wild(), replace(RECIPE, seed=1))


def _wild():
    return replace(QUICK, epochs=1, learning_rate=1.0, weight_decay=1e30, warmup=0.0)


def _pixels(path):
    from PIL import Image

    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (TILE, TILE, 3)
    return pixels
