"""Weights that do not say which cases they have seen are told of wherever they are used."""

from dataclasses import replace

import pytest
from cli.cohort import assembled

from cli.extract import SlideOptions, warn_of_weights
from cli.learn import CrossvalOptions
from features.backbones.registry import load_backbone
from features.bags.bag import write_bag
from mil.finetune.files import _save
from tests.mil.made import RECIPE, made_bag

CARD = {"backbone": "test_resnet", "mpp": 0.5, "tile": 224, "trained_on": ["a"]}


@pytest.fixture
def weights(tmp_path):
    state = load_backbone("test_resnet", "random").module.network.state_dict()
    _save(tmp_path / "w.safetensors", state, CARD)
    return tmp_path / "w.safetensors"


def told_of(weights, tmp_path, capsys):
    warn_of_weights(SlideOptions(inputs=(), out=tmp_path, weights=str(weights), mpp=(0.5,)))
    return capsys.readouterr().err


def test_a_file_without_a_card_is_told_of_at_extraction(weights, tmp_path, capsys):
    assert told_of(weights, tmp_path, capsys) == ""
    for known in ("pretrained", "random"):
        assert told_of(known, tmp_path, capsys) == ""
    from safetensors.torch import load_file, save_file

    save_file(load_file(weights), weights)
    assert "does not say which cases it has seen" in told_of(weights, tmp_path, capsys)


@pytest.mark.parametrize(
    ("weights", "seen", "warned"),
    [
        ("mine.safetensors", (), True),
        ("mine.safetensors", ("elsewhere",), False),
        ("pretrained", (), False),
        ("random (seed 0)", (), False),
    ],
)
def test_bags_of_such_weights_are_told_of_before_they_are_learnt_from(
    tmp_path, capsys, weights, seen, warned
):
    rows = ["case,slide,label"]
    for i in range(4):
        bag = replace(made_bag(f"s{i}", recipe=RECIPE | {"weights": weights}), trained_on=seen)
        write_bag(tmp_path / "store" / f"s{i}.h5", bag)
        rows.append(f"c{i},s{i},{'xy'[i % 2]}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n")
    options = CrossvalOptions(
        cohort=tmp_path / "cohort.csv", store=tmp_path / "store", out=tmp_path / "run"
    )
    assembled(options, options.store)
    said = capsys.readouterr().err
    assert ("mine.safetensors, do not say which cases they have seen" in said) == warned
