"""What every head obeys, as functions that any head can be held to.

Each law takes ``build``, which makes a fresh head, and fails with an AssertionError. They need nothing
but torch, so a head of one's own is tested with the same loop as those of the registry::

    for law in LAWS:
        law(lambda: MyHead(HeadSettings(dim=7, n_classes=3)))
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mil.heads.head import Head, HeadOutput

Build = Callable[[], Head]
LENGTHS = (5, 9, 1, 7)  # tiles of the bags of one batch
GARBAGE = (float("inf"), float("-inf"), float("nan"), 1e30, -1e30)
LARGE = 65504.0  # the largest number that half precision holds
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def law_output_is_whole(build: Build) -> None:
    """The output is a HeadOutput with every tensor in its stated shape, in training as well."""
    for training in (False, True):
        head = _head(build).train(training)
        features, mask = _batch(head)
        output = head(features, mask)
        assert isinstance(output, HeadOutput), f"the output is a {type(output).__name__}"
        n_bags, n_tiles = mask.shape
        n_classes = head.settings.n_classes
        assert output.logits.shape == (n_bags, n_classes)
        assert output.attention.ndim == 3
        assert output.attention.shape[1] in (1, n_classes), "one map, or one per class"
        assert output.attention.shape == (n_bags, output.attention.shape[1], n_tiles)
        assert output.scores.shape == output.attention.shape
        assert (output.scores == -torch.inf).equal(~mask.unsqueeze(1).expand_as(output.scores))
        assert output.embedding.ndim == 2
        assert len(output.embedding) == n_bags
        if output.tile_logits is not None:
            assert output.tile_logits.shape == (n_bags, n_tiles, n_classes)
            assert (output.tile_logits[~mask] == 0).all(), "tile logits are not 0 on padding"


def law_padding_changes_nothing(build: Build) -> None:
    """More padding, and whatever lies in it, changes no number that is said of a real tile."""
    head = _head(build)
    labels = torch.arange(len(LENGTHS)) % head.settings.n_classes
    features, mask = _batch(head)
    bare = head(features, mask)
    bare_loss = head.auxiliary_loss(bare, labels, mask)
    for garbage in GARBAGE:
        n_more = 4
        wide = torch.full((len(mask), mask.shape[1] + n_more, features.shape[2]), garbage)
        wide[:, : mask.shape[1]][mask] = features[mask]
        wide_mask = torch.nn.functional.pad(mask, (0, n_more))
        padded = head(wide, wide_mask)
        _same(padded, bare, mask, f"padding of {garbage}")
        _equal(head.auxiliary_loss(padded, labels, wide_mask), bare_loss, "the auxiliary loss")


def law_attention_is_a_share(build: Build) -> None:
    """Attention is at least 0, sums to 1 over the tiles of each bag, and is 0 on padding."""
    head = _head(build)
    features, mask = _batch(head)
    attention = head(features, mask).attention
    assert (attention >= 0).all(), "attention below 0"
    assert (attention.transpose(1, 2)[~mask] == 0).all(), "attention on padding"
    _equal(attention.sum(dim=-1), torch.ones(attention.shape[:2]), "the sum of attention")


def law_order_changes_nothing(build: Build) -> None:
    """Tiles in another order give the same bag, and each tile keeps its numbers."""
    head = _head(build)
    if head.positional:
        return
    features, mask = _batch(head)
    for length, row in zip(LENGTHS, range(len(mask)), strict=True):
        bag = features[row : row + 1, :length]
        order = torch.randperm(length, generator=torch.Generator().manual_seed(row))
        tiles = torch.ones(1, length, dtype=torch.bool)
        straight, shuffled = head(bag, tiles), head(bag[:, order], tiles)
        _equal(shuffled.logits, straight.logits, "the logits")
        _equal(shuffled.attention, straight.attention[:, :, order], "the attention")
        if straight.tile_logits is not None and shuffled.tile_logits is not None:
            _equal(shuffled.tile_logits, straight.tile_logits[:, order], "the tile logits")


def law_one_tile_is_a_bag(build: Build) -> None:
    """A bag of one tile works, in evaluation and in training; that tile has all attention."""
    for training in (False, True):
        head = _head(build).train(training)
        features, _ = _batch(head)
        output = head(features[:1, :1], torch.ones(1, 1, dtype=torch.bool))
        assert torch.isfinite(output.logits).all(), f"logits are {output.logits}"
        _equal(output.attention, torch.ones_like(output.attention), "the attention")


def law_evaluation_is_deterministic(build: Build) -> None:
    """The same bags give the same numbers to the last bit, whatever was drawn before."""
    head = _head(build)
    features, mask = _batch(head)
    first = head(features, mask)
    torch.rand(3)
    second = head(features, mask)
    for name, value in _tensors(first).items():
        assert torch.equal(value, _tensors(second)[name]), f"{name} changes from call to call"


def law_batch_equals_loop(build: Build) -> None:
    """A batch says of each bag what the bag alone would be told, in whatever company."""
    head = _head(build)
    features, mask = _batch(head)
    together = head(features, mask)
    for row, length in enumerate(LENGTHS):
        alone = head(features[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        _equal(together.logits[row], alone.logits[0], f"logits of bag {row}")
        _equal(together.embedding[row], alone.embedding[0], f"embedding of bag {row}")
        _equal(together.attention[row, :, :length], alone.attention[0], f"attention of bag {row}")


def law_bag_without_tiles_is_refused(build: Build) -> None:
    """A bag whose mask is False throughout is a ValueError, also among others."""
    head = _head(build)
    features, mask = _batch(head)
    mask[1] = False
    _refused(lambda: head(features, mask), "a bag without a tile")


def law_unbatched_is_refused(build: Build) -> None:
    """Features with an axis too few, too many or too short are a ValueError, not many bags."""
    head = _head(build)
    features, mask = _batch(head)
    _refused(lambda: head(features[0], mask[0]), "features (N, D)")
    _refused(lambda: head(features[0], mask[:1]), "features (N, D) with a mask (1, N)")
    _refused(lambda: head(features.unsqueeze(2), mask), "features (B, N, 1, D)")
    _refused(lambda: head(features[..., :-1], mask), "features of another length")


def law_mask_is_bool_and_fits(build: Build) -> None:
    """A mask of numbers, or one of another shape, is a ValueError."""
    head = _head(build)
    features, mask = _batch(head)
    _refused(lambda: head(features, mask.float()), "a mask of floats")
    _refused(lambda: head(features, mask.long()), "a mask of integers")
    _refused(lambda: head(features, mask[:, :-1]), "a mask that is too short")
    _refused(lambda: head(features, mask.unsqueeze(-1)), "a mask with an axis too many")


def law_gradients_reach_every_parameter(build: Build) -> None:
    """The loss of one batch moves every parameter there is."""
    head = _head(build).train()
    labels = torch.arange(len(LENGTHS)) % head.settings.n_classes
    features, mask = _batch(head)
    output = head(features, mask)
    loss = torch.nn.functional.cross_entropy(output.logits, labels)
    loss = loss + head.auxiliary_loss(output, labels, mask)
    parameters = dict(head.named_parameters())
    if not parameters:
        return
    loss.backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert torch.isfinite(parameter.grad).all(), f"{name} has a gradient that is not finite"
        assert (parameter.grad != 0).any(), f"{name} has a gradient of zero"


def law_saving_is_identity(build: Build) -> None:
    """Weights written as safetensors and read into a fresh head give the same numbers."""
    torch.manual_seed(0)
    head, fresh = build().eval(), build().eval()
    features, mask = _batch(head)
    head.prepare(features[mask] * 3 + 1, torch.arange(1.0, head.settings.n_classes + 1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "head.safetensors"
        save_file({name: value.contiguous() for name, value in head.state_dict().items()}, path)
        fresh.load_state_dict(load_file(path))
    told, told_again = _tensors(head(features, mask)), _tensors(fresh(features, mask))
    for name, value in told.items():
        assert torch.equal(value, told_again[name]), f"{name} is not what was saved"


def law_large_features_stay_finite(build: Build) -> None:
    """The largest number of half precision overflows nothing."""
    head = _head(build)
    features, mask = _batch(head)
    output = head(features.sign() * LARGE, mask)
    assert torch.isfinite(output.logits).all(), f"logits are {output.logits}"
    assert torch.isfinite(output.attention).all(), "attention is not finite"


def law_half_precision_is_taken(build: Build) -> None:
    """Features in half precision give what the same numbers give in single precision."""
    head = _head(build)
    features, mask = _batch(head)
    half = features.half()
    _equal(head(half, mask).logits, head(half.float(), mask).logits, "the logits")


def law_no_label_goes_in(build: Build) -> None:
    """``forward`` takes features, mask and coords alone, so that no answer depends on the truth."""
    for method in ("forward", "pool"):
        taken = tuple(inspect.signature(getattr(build(), method)).parameters)
        assert taken == ("features", "mask", "coords"), f"{method} takes {', '.join(taken)}"


LAWS: tuple[Callable[[Build], None], ...] = (
    law_output_is_whole,
    law_padding_changes_nothing,
    law_attention_is_a_share,
    law_order_changes_nothing,
    law_one_tile_is_a_bag,
    law_evaluation_is_deterministic,
    law_batch_equals_loop,
    law_bag_without_tiles_is_refused,
    law_unbatched_is_refused,
    law_mask_is_bool_and_fits,
    law_gradients_reach_every_parameter,
    law_saving_is_identity,
    law_large_features_stay_finite,
    law_half_precision_is_taken,
    law_no_label_goes_in,
)


def _head(build: Build) -> Head:
    """A head that is prepared as in a fit, in evaluation mode; the same at every call."""
    torch.manual_seed(0)
    head = build()
    tiles = torch.randn(40, head.settings.dim) * 2 + 0.5
    head.prepare(tiles, torch.arange(1.0, head.settings.n_classes + 1))
    return head.eval()


def _batch(head: Head) -> tuple[Tensor, Tensor]:
    """Bags of ``LENGTHS`` tiles, padded with zeros."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(LENGTHS), max(LENGTHS), head.settings.dim, generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    return features.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def _tensors(output: HeadOutput) -> dict[str, Tensor]:
    """All tensors of an output by name."""
    named = {each.name: getattr(output, each.name) for each in fields(output)}
    named |= {f"aux {name}": value for name, value in named.pop("aux").items()}
    return {name: value for name, value in named.items() if value is not None}


def _same(output: HeadOutput, bare: HeadOutput, mask: Tensor, why: str) -> None:
    """What is said of bags and of their real tiles is the same; padding has no attention."""
    n_tiles = mask.shape[1]
    _equal(output.logits, bare.logits, f"{why}: the logits")
    _equal(output.embedding, bare.embedding, f"{why}: the embedding")
    _equal(output.attention[..., :n_tiles], bare.attention, f"{why}: the attention")
    assert (output.attention[..., n_tiles:] == 0).all(), f"{why}: attention on it"
    if bare.tile_logits is not None:
        assert output.tile_logits is not None
        _equal(output.tile_logits[:, :n_tiles], bare.tile_logits, f"{why}: the tile logits")


def _equal(got: Tensor, wanted: Tensor, what: str) -> None:
    """Equal but for rounding; NaN equals nothing."""
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    far = (got - wanted).abs().max()
    assert torch.allclose(got, wanted, **TOLERANCE), f"{what} differ by {far:g}"


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{what} is not refused")
