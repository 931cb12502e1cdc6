"""Weights that do not say which cases they have seen are reported wherever they are used."""

from dataclasses import replace

import pytest

from cli.learn import CrossvalOptions, crossval
from features.backbones.card import weights_notes
from features.backbones.registry import load_backbone
from features.bags.bag import write_bag
from features.recipe import Recipe
from mil.finetune.files import _save
from tests.mil.made import RECIPE, made_bag

CARD = {"backbone": "test_resnet", "mpp": 0.5, "tile": 224, "trained_on": ["a"]}


@pytest.fixture
def weights(tmp_path):
    state = load_backbone("test_resnet", "random").module.network.state_dict()
    _save(tmp_path / "w.safetensors", state, CARD)
    return tmp_path / "w.safetensors"


def notes_of(weights):
    return weights_notes([Recipe(weights=str(weights), mpp=0.5)])


def test_a_file_without_a_card_is_reported_at_extraction(weights):
    assert notes_of(weights) == []
    for known in ("pretrained", "random"):
        assert notes_of(known) == []
    from safetensors.torch import load_file, save_file

    save_file(load_file(weights), weights)
    (note,) = notes_of(weights)
    assert "does not say which cases it has seen" in note


@pytest.mark.parametrize(
    ("weights", "seen", "warned"),
    [
        ("mine.safetensors", (), True),
        ("mine.safetensors", ("elsewhere",), False),
        ("pretrained", (), False),
        ("random (seed 0)", (), False),
    ],
)
def test_bags_of_such_weights_are_reported_before_a_run_learns_from_them(
    tmp_path, capsys, weights, seen, warned
):
    rows = ["case,slide,label"]
    for i in range(4):
        bag = replace(made_bag(f"s{i}", recipe=RECIPE | {"weights": weights}), trained_on=seen)
        write_bag(tmp_path / "store" / f"s{i}.h5", bag)
        rows.append(f"c{i},s{i},{'xy'[i % 2]}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n")
    options = CrossvalOptions(
        cohort=tmp_path / "cohort.csv", store=tmp_path / "store", out=tmp_path / "run",
        models=("majority",), folds="2",
    )  # fmt: skip
    crossval(options)
    printed = " ".join(capsys.readouterr().err.split())
    assert ("mine.safetensors, do not say which cases they have seen" in printed) == warned
