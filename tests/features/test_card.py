"""What a weights file says of itself is believed, and what it does not say is not guessed."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from features.backbones.card import BackboneCard, read_card
from features.backbones.registry import load_backbone
from features.errors import BackboneError
from features.files.checksum import card_checksum
from features.recipe import Recipe

CARD = {"backbone": "test_resnet", "mpp": 0.5, "tile": 224, "trained_on": ["a", "b"]}


def weights(path, card, name="test_resnet"):
    state = load_backbone(name, "random").module.network.state_dict()
    if isinstance(card, dict):
        card = json.dumps(card | {"sha256": card_checksum(state, card)})
    metadata = {"card": card}
    save_file(state, path, metadata=metadata if card is not None else None)
    return path


def test_a_file_with_a_card_names_its_cases(tmp_path):
    path = weights(tmp_path / "w.safetensors", CARD)
    assert read_card(path) == BackboneCard(
        backbone="test_resnet", mpp=0.5, tile=224, trained_on=("a", "b")
    )
    assert load_backbone("test_resnet", str(path)).trained_on == ("a", "b")


def test_published_weights_have_none(tmp_path):
    assert read_card(weights(tmp_path / "w.safetensors", None)) is None
    assert read_card(tmp_path / "pretrained") is None
    full_name = "test_resnet.r160_in1k"
    assert load_backbone(full_name, str(tmp_path / "w.safetensors")).trained_on == ()


def test_another_architecture_is_named(tmp_path):
    path = weights(tmp_path / "w.safetensors", CARD)
    with pytest.raises(BackboneError, match=r"trained as test_resnet, not test_vit\. Set backbone"):
        load_backbone("test_vit", str(path))


@pytest.mark.parametrize("change", [{"trained_on": []}, {"mpp": 0.25}, {"sha256": "0"}])
def test_a_card_edited_by_hand_is_refused(tmp_path, change):
    path = weights(tmp_path / "w.safetensors", CARD)
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    save_file(load_file(path), path, metadata={"card": json.dumps(card | change)})
    with pytest.raises(BackboneError, match="its card were changed after saving"):
        load_backbone("test_resnet", str(path))


def test_a_card_on_other_weights_is_refused(tmp_path):
    path = weights(tmp_path / "w.safetensors", CARD)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    others = {name: value + 1 for name, value in load_file(path).items()}
    save_file(others, path, metadata=metadata)
    with pytest.raises(BackboneError, match="its card were changed after saving"):
        read_card(path)


@pytest.mark.parametrize("broken", ["{", "[]", "{}", json.dumps(CARD), CARD | {"trained_on": None}])
def test_a_card_that_cannot_be_read_is_refused_not_taken_for_none(tmp_path, broken):
    path = weights(tmp_path / "w.safetensors", broken)
    with pytest.raises(BackboneError, match="which cases it has seen is not known"):
        load_backbone("test_resnet", str(path))


@pytest.mark.parametrize(
    ("mpp", "tile", "differs"),
    [(0.5, 224, False), (0.52, 224, False), (0.25, 224, True), (0.5, 256, True)],
)
def test_other_scales_are_reported(mpp, tile, differs):
    card = BackboneCard(backbone="b", mpp=0.5, tile=224, trained_on=())
    message = card.scale_mismatch(mpp, Recipe(tile=tile))
    assert bool(message) == differs
    assert not differs or f"{tile} px at {mpp:g}" in message
