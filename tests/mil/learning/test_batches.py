"""Bags of different length become one padded batch."""

import warnings
from dataclasses import fields

import numpy as np
import pytest
import torch

from mil.errors import FitError
from mil.heads.batches import MOST_PADDING, TILES_AT_ONCE, alike, collate, draw, run_in_chunks
from mil.heads.head import Head, HeadSettings
from mil.heads.registry import build_head, head_class
from mil.heads.table import MODELS


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
def test_features_keep_their_precision(dtype):
    features = collate([bag(5, dtype=dtype), bag(2, dtype=dtype)]).features
    np.testing.assert_array_equal(features[0].numpy(), bag(5, dtype=dtype), strict=True)


def test_one_bag_in_single_precision_makes_the_batch_so():
    features = collate([bag(5), bag(5, dtype=np.float16)]).features
    np.testing.assert_array_equal(features[0].numpy(), bag(5), strict=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_read_only_features_of_a_file_are_taken_without_a_warning(tmp_path, dtype):
    bag(5, dtype=dtype).tofile(tmp_path / "features")
    mapped = np.memmap(tmp_path / "features", dtype=dtype, mode="r", shape=(5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collate([mapped])


def test_changing_the_batch_leaves_the_bag_alone():
    original = bag(3)
    collate([original]).features.zero_()
    np.testing.assert_array_equal(original, bag(3))


def numbered(n_tiles):
    return np.repeat(np.arange(n_tiles, dtype=np.float32)[:, None], 3, axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_draw_takes_as_many_different_tiles_as_asked(seed):
    drawn = draw(numbered(50), 20, np.random.default_rng(seed))[:, 0].tolist()
    assert len(drawn) == 20
    assert len(set(drawn)) == 20
    assert set(drawn) <= set(range(50))


@pytest.mark.parametrize(("n_tiles", "most"), [(20, 20), (7, 20), (50, 0)])
def test_bag_is_taken_whole_in_its_order(n_tiles, most):
    drawn = draw(numbered(n_tiles), most, np.random.default_rng(0))
    assert drawn[:, 0].tolist() == list(range(n_tiles))


def test_every_tile_can_be_drawn():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        seen |= set(draw(numbered(9), 3, rng)[:, 0].tolist())
    assert seen == set(range(9))


def test_draw_repeats_with_its_generator():
    first, second, other = (draw(bag(60), 9, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def padding_of(lengths, groups):
    """(tiles that are computed, those of them that are padding)."""
    computed = sum(len(group) * max(lengths[i] for i in group) for group in groups)
    return computed, computed - sum(lengths)


@pytest.mark.parametrize("seed", range(30))
def test_less_than_a_tenth_of_the_work_is_padding(seed):
    """Bags of 1 to 20,000 tiles, of very different and of like lengths; each in one group."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.uniform(0, rng.uniform(0.1, 10), 40)).astype(int).tolist()
    groups = alike(lengths)
    assert sorted(i for group in groups for i in group) == list(range(40))
    computed, padding = padding_of(lengths, groups)
    assert padding <= MOST_PADDING * computed
    for group in groups:
        assert len(group) == 1 or padding_of([lengths[i] for i in group], [range(len(group))])[
            0
        ] <= min(TILES_AT_ONCE, sum(lengths[i] for i in group) / (1 - MOST_PADDING))


def test_bags_of_like_length_are_computed_together():
    assert alike([100, 99, 30, 100]) == [[3, 0, 1], [2]]


def test_long_bags_are_computed_alone():
    assert alike([3000, 3000, 20]) == [[1], [0], [2]]
    assert alike([300, 300], at_once=500) == [[1], [0]]


CHUNKED = [name for name in MODELS if head_class(name).summarise is not Head.summarise]


def test_attention_and_mean_take_chunks():
    assert {"abmil", "gated-abmil", "mean"} <= set(CHUNKED)


def head_of(model, members=1):
    torch.manual_seed(0)
    head = build_head(model, HeadSettings(dim=3, n_outputs=2, width=6, dropout=0), members)
    heads = getattr(head, "members", [head])
    for number, each in enumerate(heads):
        each.prepare(torch.randn(50, 3) * (2 + number) + 0.5, torch.ones(2))
    return head


@pytest.mark.parametrize("chunk_tiles", [1, 7, 50, 99])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("model", CHUNKED)
def test_chunks_say_what_the_bag_at_once_says(model, members, chunk_tiles):
    head, tiles = head_of(model, members).eval(), bag(50) * 30
    whole = head(*collate([tiles]))
    in_chunks = run_in_chunks(head, tiles, chunk_tiles)
    for each in fields(whole):
        chunked = getattr(in_chunks, each.name)
        torch.testing.assert_close(chunked, getattr(whole, each.name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", CHUNKED)
def test_chunks_have_the_gradient_of_the_bag_at_once(model):
    gradients = []
    for run in (
        lambda head: head(*collate([bag(50)])),
        lambda head: run_in_chunks(head, bag(50), 7),
    ):
        head = head_of(model).train()
        torch.nn.functional.cross_entropy(run(head).logits, torch.tensor([1])).backward()
        gradients.append([weight.grad for weight in head.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_chunks_of_scores_that_are_far_apart_overflow_nothing():
    head, tiles = head_of("abmil").eval(), np.zeros((9, 3), dtype=np.float32)
    tiles[4] = 1e4
    with torch.no_grad():
        head.weigh.weight.mul_(1e4)
    whole, in_chunks = head(*collate([tiles])), run_in_chunks(head, tiles, 2)
    assert torch.isfinite(in_chunks.logits).all()
    torch.testing.assert_close(in_chunks.logits, whole.logits)


def test_dropout_is_drawn_again_for_the_gradient_as_it_was():
    """A chunk is computed twice: with other tiles dropped, the gradient would be that of another loss."""
    head = head_of("mean").train()
    head.embed[-1].share = 0.5
    torch.manual_seed(3)
    logits = run_in_chunks(head, bag(40), 40).logits
    logits.sum().backward()
    torch.manual_seed(3)
    again = head_of("mean").train()
    again.embed[-1].share = 0.5
    torch.manual_seed(3)
    again(*collate([bag(40)])).logits.sum().backward()
    torch.testing.assert_close(head.embed[0].weight.grad, again.embed[0].weight.grad)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in CHUNKED])
def test_head_without_chunks_says_so(model):
    with pytest.raises(
        FitError, match=r"looks at all tiles of a bag together.*Set chunk_tiles to 0"
    ):
        run_in_chunks(head_of(model).eval(), bag(50), 7)
