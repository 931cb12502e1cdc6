"""Bags of different length become one padded batch."""

import warnings

import numpy as np
import pytest
import torch

from mil.batches import collate


def bag(n_tiles, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n_tiles, 3)).astype(dtype)


def test_tiles_stand_first_and_padding_is_zero():
    batch = collate([bag(2, 1), bag(4, 2), bag(1, 3)])
    expected = np.zeros((3, 4, 3), dtype=np.float32)
    expected[0, :2], expected[1], expected[2, :1] = bag(2, 1), bag(4, 2), bag(1, 3)
    np.testing.assert_array_equal(batch.features, expected)


def test_mask_is_true_on_tiles_alone():
    mask = collate([bag(2), bag(4), bag(1)]).mask
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False, False], [True] * 4, [True, False, False, False]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_become_single_precision_without_loss(dtype):
    features = collate([bag(5, dtype=dtype)]).features
    assert features.dtype == torch.float32
    np.testing.assert_array_equal(features[0].numpy().astype(dtype), bag(5, dtype=dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_read_only_features_of_a_file_are_taken_without_a_warning(tmp_path, dtype):
    bag(5, dtype=dtype).tofile(tmp_path / "features")
    mapped = np.memmap(tmp_path / "features", dtype=dtype, mode="r", shape=(5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collate([mapped])


def test_changing_the_batch_leaves_the_bag_alone():
    mine = bag(3)
    collate([mine]).features.zero_()
    np.testing.assert_array_equal(mine, bag(3))


def numbered(n_tiles):
    return np.repeat(np.arange(n_tiles, dtype=np.float32)[:, None], 3, axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_draw_takes_as_many_different_tiles_as_asked(seed):
    batch = collate([numbered(50)], max_tiles=20, rng=np.random.default_rng(seed))
    drawn = batch.features[0, :, 0].tolist()
    assert len(drawn) == 20
    assert len(set(drawn)) == 20
    assert set(drawn) <= set(range(50))


def test_small_bag_is_taken_whole_in_its_order():
    batch = collate([numbered(20), numbered(7)], max_tiles=20, rng=np.random.default_rng(0))
    assert batch.features[0, :, 0].tolist() == list(range(20))
    assert batch.features[1, :7, 0].tolist() == list(range(7))


def test_every_tile_can_be_drawn():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        seen |= set(collate([numbered(9)], max_tiles=3, rng=rng).features[0, :, 0].tolist())
    assert seen == set(range(9))


def test_draw_repeats_with_its_generator():
    first, second, other = (
        collate([bag(60)], max_tiles=9, rng=np.random.default_rng(seed)).features
        for seed in (4, 4, 5)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_draw_without_a_generator_is_refused():
    with pytest.raises(ValueError, match="rng"):
        collate([bag(9)], max_tiles=3)
