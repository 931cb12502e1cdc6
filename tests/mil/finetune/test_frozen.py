"""Layers that do not learn are computed once for each tile, and training on their numbers is the same."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from lessons import QUICK, RECIPE, alone, lesson, lessons, pool_of, results, tune

from features.backbones.registry import load_backbone
from features.progress import Silent
from features.tiles.folders import FolderTiles
from mil.data.case import Row
from mil.data.splits import Fold
from mil.errors import FitError
from mil.finetune import training
from mil.finetune.files import load_classifier
from mil.finetune.frozen import FrozenLayers, FrozenStore
from mil.finetune.network import TileClassifier
from mil.finetune.per_fold import Tuning, cross_validate_per_fold
from mil.learning.crossval import fit_anew
from mil.settings import FitSettings
from mil.tasks.diagnosis import Diagnosis
from tests.small_vgg import narrow_vgg

OFF = replace(QUICK, train="head", augment=("off",), early_stopping="always")
VGG = replace(RECIPE, backbone="vgg11-hidden")
SLIDES = (("one", 3), ("two", 2))


def numbers(seed, shape=(4, 2, 2)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


def store(folder, gigabytes=1.0, key="k", slides=SLIDES):
    return FrozenStore(folder, key, slides, (4, 2, 2), gigabytes)


def test_what_is_put_is_found_again_by_whoever_starts_alike(tmp_path):
    with store(tmp_path) as first:
        assert first.get(0, 2) is None
        first.put(0, 2, numbers(0))
        first.put(1, 0, numbers(1))
        assert np.array_equal(first.get(0, 2), numbers(0))
        assert first.get(0, 1) is None
    with store(tmp_path, slides=(("two", 2), ("three", 1))) as other:  # another fold
        assert np.array_equal(other.get(0, 0), numbers(1))
        assert other.get(1, 0) is None
    with store(tmp_path, key="l") as different:
        assert different.get(1, 0) is None


def test_half_a_slot_is_none(tmp_path):
    with store(tmp_path, slides=SLIDES[:1]) as first:
        first.put(0, 1, numbers(0))
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 3 + 20] ^= 1
    path.write_bytes(content)
    with store(tmp_path, slides=SLIDES[:1]) as again:
        assert again.get(0, 1) is None


def test_the_cache_is_no_larger_than_it_may_be(tmp_path):
    slot = 4 + 2 * 16
    with store(tmp_path, gigabytes=4 * slot / 1e9) as small:
        for slide, n_tiles in enumerate((3, 2)):
            for tile in range(n_tiles):
                small.put(slide, tile, numbers(tile))
        assert [small.get(slide, 0) is not None for slide in (0, 1)] == [True, False]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 3 * slot
    with store(tmp_path, gigabytes=4 * slot / 1e9) as again:
        assert np.array_equal(again.get(0, 2), numbers(2))


@pytest.mark.parametrize(
    ("name", "settings", "stage"),
    [
        ("test_resnet", {"train": "head"}, "features"),
        ("test_resnet", {"train": "last"}, None),
        ("test_resnet", {"train": "all"}, None),
        ("vgg11-hidden", {"train": "head"}, "features"),
        ("vgg11-hidden", {"train": "last"}, "map"),
        ("vgg11-hidden", {"train": "last", "last_blocks": 2}, None),
    ],
)
def test_the_stage_before_which_nothing_learns(name, settings, stage, monkeypatch):
    narrow_vgg(monkeypatch)
    network = TileClassifier(load_backbone(name, "random"), 2, replace(QUICK, **settings))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert network.frozen_stage(64) == stage
    assert network.training
    assert network.backbone.training == (settings["train"] != "head")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    if stage:
        images = torch.randn(2, 3, 64, 64)
        network.eval()
        values = network.until(stage, images)
        torch.testing.assert_close(network(values, stage), network(images))


@contextmanager
def counted(monkeypatch):
    """How many tiles the frozen layers have computed."""
    computed, compute = [], FrozenLayers._compute

    def count(self, tiles, device):
        computed.append(len(tiles))
        return compute(self, tiles, device)

    with monkeypatch.context() as patch:
        patch.setattr(FrozenLayers, "_compute", count)
        yield computed


@pytest.mark.parametrize(("recipe", "train"), [(RECIPE, "head"), (VGG, "last")])
def test_frozen_layers_see_each_tile_once_and_nothing_else_changes(
    recipe, train, tmp_path, monkeypatch
):
    narrow_vgg(monkeypatch)
    slides = lessons(tmp_path / "tiles", per_class=2, n_tiles=3)
    settings = replace(OFF, train=train, tiles_per_slide=3, epochs=2)
    reads, read = [], FolderTiles.read
    monkeypatch.setattr(FolderTiles, "read", lambda *args: reads.append(args[1]) or read(*args))
    with counted(monkeypatch) as computed:
        tune(slides, tmp_path / "cached", settings, recipe)
    assert (sum(computed), len(reads)) == (12, 12)  # four slides of three tiles, over all epochs
    assert not (tmp_path / "cached" / "frozen").exists()
    with counted(monkeypatch) as computed:
        tune(slides, tmp_path / "anew", replace(settings, frozen_cache=0.0), recipe)
    assert sum(computed) == 2 * 12
    cached, anew = (results(tmp_path / name) for name in ("cached", "anew"))
    assert cached["history.csv"] == anew["history.csv"]
    with monkeypatch.context() as patch:  # the whole network, in full precision
        patch.setattr(TileClassifier, "frozen_stage", lambda *_args: None)
        whole = tune(slides, tmp_path / "whole", settings, recipe)
    nets = [
        load_classifier(tmp_path / name)[0].state_dict() for name in ("cached", "anew", "whole")
    ]
    for key, value in nets[0].items():
        assert torch.equal(value, nets[1][key])
        torch.testing.assert_close(value, nets[2][key], rtol=0.02, atol=2e-3)
    losses = load_classifier(tmp_path / "cached")[1]["losses"]
    assert losses == pytest.approx(whole["losses"], rel=2e-3)
    assert losses != whole["losses"]


def test_an_interrupted_training_goes_on_with_what_is_cached(tmp_path, monkeypatch):
    slides = lessons(tmp_path / "tiles")

    class Stop(Exception):
        pass

    class Stopping(Silent):
        left = 5  # in the second epoch

        @contextmanager
        def task(self, _name, _total, unit):
            def advance(count):
                self.left -= count * (unit == "steps")
                if self.left < 0:
                    raise Stop

            yield advance

    with counted(monkeypatch) as first, pytest.raises(Stop):
        tune(slides, tmp_path / "cut", OFF, progress=Stopping())
    assert list((tmp_path / "cut" / "frozen").iterdir())
    with counted(monkeypatch) as second:
        tune(slides, tmp_path / "cut", OFF)
    assert sum(first) + sum(second) <= 36
    tune(slides, tmp_path / "whole", OFF)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_folds_share_what_their_frozen_layers_give(tmp_path, monkeypatch):
    slides = lessons(tmp_path / "tiles", n_tiles=3)
    rows = [
        Row(line=n, case=s.job.case, slide=s.job.slide, label=s.label) for n, s in enumerate(slides)
    ]
    names = [slide.job.case for slide in slides]
    folds = [
        Fold(repeat=0, index=i, test=tuple(names[2 * i : 2 * i + 2]),
             train=tuple(n for n in names if n not in names[2 * i : 2 * i + 2]))
        for i in range(3)
    ]  # fmt: skip
    tuning = Tuning(
        rows=rows, slides=slides, recipe=RECIPE, task=Diagnosis(), ranks=alone(),
        settings=replace(OFF, early_stopping="never", tiles_per_slide=3),
        store=lambda fold: tmp_path / "folds" / fold.name / "store",
    )  # fmt: skip
    with counted(monkeypatch) as computed:
        cross_validate_per_fold(
            tuning, folds, ["majority"], FitSettings(), seed=0, fitter=fit_anew, progress=Silent()
        )
    assert sum(computed) == 6 * 3  # each tile once, though it trains in two folds of three
    assert sorted(path.name for path in (tmp_path / "folds").iterdir()) == [
        "r0-f0",
        "r0-f1",
        "r0-f2",
    ]


def test_only_trainings_that_start_alike_share(tmp_path, monkeypatch):
    slides, shared = lessons(tmp_path / "tiles"), tmp_path / "shared"
    computed_again = []
    for number, (settings, recipe) in enumerate(
        [
            (OFF, RECIPE),
            (replace(OFF, dropout=0.5), RECIPE),
            (OFF, replace(RECIPE, seed=1)),
            (OFF, replace(RECIPE, mpp=0.25, tile=64)),
            (OFF, replace(RECIPE, precision="bf16")),
        ]
    ):
        with counted(monkeypatch) as computed:
            tune(slides, tmp_path / str(number), settings, recipe, frozen=shared)
        computed_again.append(sum(computed) > 0)
    assert computed_again == [True, False, True, True, True]
    assert shared.is_dir()


def test_tiles_that_weigh_nothing_are_not_cached(tmp_path, monkeypatch):
    white = lesson(tmp_path / "tiles", "white", "red", case="red-0", colour=(255,) * 3, spread=0)
    slides = [*lessons(tmp_path / "tiles"), white]
    recipe = replace(RECIPE, drop=("background",))
    seen = []
    batches = training.TilePool.batches

    def watched(self, *args):
        for batch in batches(self, *args):
            seen.append((batch, [self.slides[s].job.slide for s in batch.slides]))
            yield batch

    monkeypatch.setattr(training.TilePool, "batches", watched)
    tune(slides, tmp_path / "out", replace(OFF, early_stopping="never"), recipe)
    for batch, names in seen:
        assert [bool(usable) for usable in batch.usable] == [name != "white" for name in names]
    assert any(batch.frozen for batch, _ in seen[-2:])


def test_last_block_of_vgg_is_its_fully_connected_layers(tmp_path, monkeypatch):
    """The classifier and the two pretrained hidden layers learn; every convolution stays."""
    width = narrow_vgg(monkeypatch)
    settings = replace(
        OFF, train="last", optimizer="sgdm", learning_rate=0.01, schedule="constant", warmup=0.0,
        layer_decay=1.0, dropout=0.5, early_stopping="never", epochs=1,
    )  # fmt: skip
    tune(lessons(tmp_path / "tiles"), tmp_path / "out", settings, VGG)
    classifier, card = load_classifier(tmp_path / "out")
    assert card["backbone"] == "vgg11-hidden"
    assert classifier.head[-1].in_features == width
    start = load_backbone("vgg11-hidden", "random").module.state_dict()
    changed = {
        k for k, v in classifier.backbone.state_dict().items() if not torch.equal(v, start[k])
    }
    layers = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    assert changed == {f"network.pre_logits.{layer}" for layer in layers}
    network = TileClassifier(load_backbone("vgg11-hidden", "random"), 2, settings)
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert len(learning) == 6  # three layers, each a weight and a bias
    assert network.backbone.network.pre_logits.drop.p == 0.5
    assert network.backbone.network.pre_logits.drop.training
    frozen = TileClassifier(
        load_backbone("vgg11-hidden", "random"), 2, replace(settings, train="head")
    )
    assert not frozen.backbone.network.pre_logits.drop.training


def test_numbers_beyond_half_precision_are_refused(tmp_path, monkeypatch):
    until = TileClassifier.until
    monkeypatch.setattr(TileClassifier, "until", lambda *args: until(*args) * 1e6)
    with pytest.raises(FitError, match=r"overflow half precision.* Set augment to flips"):
        tune(lessons(tmp_path / "tiles"), tmp_path / "out", OFF)


def test_slides_and_which_of_their_tiles_are_taken_are_distinguished(tmp_path):
    slides = lessons(tmp_path, per_class=1)
    with pool_of(slides) as pool, pool_of(slides, replace(RECIPE, max_tiles=3)) as fewer:
        names = [pool.identity(0), pool.identity(1), fewer.identity(0)]
    assert len(set(names)) == 3
    with pool_of(slides) as again:
        assert again.identity(0) == names[0]
