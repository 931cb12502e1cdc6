"""The U-Net: its loss knows only what is known, its crops move with their targets, and it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from features.backbones.networks import weights_fingerprint
from features.backbones.registry import load_backbone
from features.errors import BackboneError
from features.lowpower.segmenter import load_segmenter, save_segmenter
from features.lowpower.unet import UNet, UNetMap
from mil.segmentation import unet_training
from mil.segmentation.cross_validation import masks_of
from mil.segmentation.learner import BOTH, MAP, UNET, Learner, probabilities
from mil.segmentation.scores import score_case
from mil.segmentation.unet_training import masked_loss, train_unet


def slow_loss(probability, tumour, known):
    """Cell by cell, from the definitions."""
    entropy, overlap, called, drawn, n = 0.0, 0.0, 0.0, 0.0, 0
    for p, t, k in zip(probability.ravel(), tumour.ravel(), known.ravel(), strict=True):
        if k:
            entropy -= t * np.log(p) + (1 - t) * np.log(1 - p)
            overlap, called, drawn, n = overlap + p * t, called + p, drawn + t, n + 1
    return entropy / n + 1 - (2 * overlap + 1) / (called + drawn + 1)


def batch(seed):
    rng = np.random.default_rng(seed)
    shape = (3, 6, 5)
    p, t = (rng.uniform(0.02, 0.98, shape).astype(np.float32) for _ in range(2))
    return (
        p,
        np.where(rng.random(shape) < 0.5, t > 0.5, t).astype(np.float32),
        rng.random(shape) > 0.4,
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_equals_a_slow_twin(seed):
    p, t, known = batch(seed)
    loss = masked_loss(*map(torch.from_numpy, (p, t, known)))
    assert float(loss) == pytest.approx(slow_loss(p, t, known), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_unknown_cells_enter_neither_the_loss_nor_its_gradient(seed):
    """As in libraries whose Dice forgot its mask: what is drawn or predicted there must not matter."""
    p, t, known = batch(seed)
    rng = np.random.default_rng(9)
    losses, gradients = [], []
    for change in (False, True):
        predicted = np.where(known | (not change), p, rng.uniform(0.02, 0.98, p.shape)).astype(
            np.float32
        )
        drawn = np.where(known | (not change), t, rng.integers(0, 2, t.shape)).astype(np.float32)
        leaf = torch.from_numpy(predicted).requires_grad_()
        loss = masked_loss(leaf, torch.from_numpy(drawn), torch.from_numpy(known))
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(leaf.grad.numpy())
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(gradients[0], gradients[1])
    assert not gradients[0][~known].any()
    nothing = torch.zeros(p.shape, dtype=torch.bool)
    assert float(masked_loss(torch.from_numpy(p), torch.from_numpy(t), nothing)) == 0


def test_a_crop_and_its_target_are_turned_scaled_and_sheared_together():
    rng = np.random.default_rng(0)
    cells = unet_training.READ_CELLS
    tumour = np.kron(rng.integers(0, 2, (8, 8)), np.ones((4, 4))).astype(np.float32)
    assert tumour.shape == (cells, cells)
    pixels = np.kron(tumour, np.ones((8, 8)))[..., None].repeat(3, 2)
    known = np.ones((cells, cells), bool)
    known[:, : cells // 2] = False
    crops = [
        unet_training._Crop((255 - 155 * pixels).astype(np.uint8), tumour, known) for _ in range(16)
    ]
    images, targets, masks = unet_training._jitter(crops, rng)
    assert images.shape == (16, 192, 192, 3)
    assert targets.shape == masks.shape == (16, 24, 24)
    dark = 1 - images.mean(dim=3).reshape(16, 24, 8, 24, 8).mean(dim=(2, 4)) / 255
    for one, target in zip(dark, targets, strict=True):
        assert np.corrcoef(one.ravel(), target.ravel())[0, 1] > 0.97
    assert 0.3 < float(masks.float().mean()) < 0.6
    assert len({tuple(t.ravel().tolist()) for t in targets}) == 16


def test_what_lies_beyond_the_slide_is_known_to_be_no_tumour(slides):
    tumour, known = unet_training._cut(slides[0].target, -5, -7)
    assert tumour.shape == known.shape == (32, 32)
    assert known[:5].all()
    assert not tumour[:5].any()
    np.testing.assert_array_equal(tumour[5:, 7:], slides[0].target.tumour[:27, :25])
    np.testing.assert_array_equal(known[5:, 7:], slides[0].target.known[:27, :25])


@pytest.fixture(scope="module")
def both(study, slides, tmp_path_factory):
    """A learner of map and U-Net, and what it has learnt of three slides."""
    settings = replace(study.settings, kind="both", steps=24, crops=2)
    learner = Learner(settings, tmp_path_factory.mktemp("maps"))
    before = weights_fingerprint(learner.backbone.module)
    segmenter = learner.fit(slides[:3])
    assert weights_fingerprint(learner.backbone.module) == before
    return learner, segmenter


def test_a_u_net_learns_and_the_mean_is_that_of_both(both, slides):
    _, segmenter = both
    unseen = slides[3]
    by_method = probabilities(segmenter, unseen)
    assert list(by_method) == [MAP, "colour only", UNET, BOTH]
    np.testing.assert_allclose(by_method[BOTH], (by_method[MAP] + by_method[UNET]) / 2, atol=1e-6)
    masks = masks_of(segmenter, unseen)
    assert score_case("x", UNET, [masks[UNET]], [unseen.target]).dice > 0.85


def test_encoder_statistics_stay_and_weights_move(both):
    learner, segmenter = both
    before = dict(learner.backbone.module.network.named_buffers())
    after = dict(segmenter.unet.network.encoder.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = dict(segmenter.unet.network.encoder.named_parameters())
    assert any(
        not torch.equal(value, moved[name])
        for name, value in learner.backbone.module.network.named_parameters()
    )


def test_both_parts_are_in_the_file(both, slides, tmp_path):
    _, segmenter = both
    path = tmp_path / "segmenter.safetensors"
    save_segmenter(path, segmenter)
    loaded = load_segmenter(path)
    with slides[0].opened() as slide:
        first, second = (one.tumour_map(slide).probability for one in (segmenter, loaded))
    np.testing.assert_array_equal(first, second)
    expected = probabilities(segmenter, slides[0])[BOTH]
    assert np.abs(first - expected).max() < 0.02


def test_training_is_the_same_every_time(study, slides, both):
    learner, _ = both
    settings = replace(study.settings, kind="unet", steps=2, crops=1)
    first, second = (
        weights_fingerprint(train_unet(slides[:2], learner.backbone, settings).network)
        for _ in range(2)
    )
    assert first == second


def test_a_cell_is_the_mean_of_its_pixels(both):
    learner, segmenter = both
    network = segmenter.unet.network
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cells = UNetMap(network, learner.backbone.recipe)(rgb)
    assert cells.shape == (8, 12, 1)
    assert ((cells > 0) & (cells < 1)).all()


def test_an_encoder_without_the_maps_is_refused():
    encoder = load_backbone("convnext_atto", "random").module.network
    with pytest.raises(BackboneError, match="no maps of 2, 4, 8 and 16 pixels per value"):
        UNet(encoder, "convnext_atto")
