"""What a head says of bags, as laws: whole, and of their own tiles, whatever the order and the padding."""

import copy
import inspect

import torch
from torch import nn

from mil.heads.batches import collate, in_brief
from mil.heads.head import HeadOutput
from mil.heads.law_tools import (
    GARBAGE,
    LENGTHS,
    Build,
    expect_equal,
    expect_refusal,
    expect_same,
    padded_batch,
    prepared_head,
    tensors_of,
    with_padding,
)

LONG = 3000  # tiles of a bag of whose end a head might lose sight
IN_ORDER = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def law_output_is_whole(build: Build) -> None:
    """The output is a HeadOutput with every tensor in its stated shape, in training as well."""
    for training in (False, True):
        head = prepared_head(build).train(training)
        features, mask = padded_batch(head)
        output = head(features, mask)
        assert isinstance(output, HeadOutput), f"the output is a {type(output).__name__}"
        n_bags, n_tiles = mask.shape
        n_classes = head.settings.n_outputs
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
    head = prepared_head(build)
    labels = torch.arange(len(LENGTHS)) % head.settings.n_outputs
    features, mask = padded_batch(head)
    bare = head(features, mask)
    bare_loss = head.auxiliary_loss(bare, labels, mask)
    assert bare_loss.shape == labels.shape, (
        f"the auxiliary loss is {tuple(bare_loss.shape)}, not (B,)"
    )
    for garbage in GARBAGE:
        wide, wide_mask = with_padding(features, mask, garbage)
        padded = head(wide, wide_mask)
        expect_same(padded, bare, mask, f"padding of {garbage}")
        expect_equal(
            head.auxiliary_loss(padded, labels, wide_mask), bare_loss, "the auxiliary loss"
        )


def law_attention_is_a_share(build: Build) -> None:
    """Attention is at least 0, sums to 1 over the tiles of each bag, and is 0 on padding."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    attention = head(features, mask).attention
    assert (attention >= 0).all(), "attention below 0"
    assert (attention.transpose(1, 2)[~mask] == 0).all(), "attention on padding"
    expect_equal(attention.sum(dim=-1), torch.ones(attention.shape[:2]), "the sum of attention")


def law_order_changes_nothing(build: Build) -> None:
    """Tiles in another order give the same bag, and each tile keeps its numbers."""
    head = prepared_head(build)
    if head.positional:
        return
    features, mask = padded_batch(head)
    for length, row in zip(LENGTHS, range(len(mask)), strict=True):
        bag = features[row : row + 1, :length]
        order = torch.randperm(length, generator=torch.Generator().manual_seed(row))
        tiles = torch.ones(1, length, dtype=torch.bool)
        straight, shuffled = head(bag, tiles), head(bag[:, order], tiles)
        expect_equal(shuffled.logits, straight.logits, "the logits")
        expect_equal(shuffled.attention, straight.attention[:, :, order], "the attention")
        if straight.tile_logits is not None and shuffled.tile_logits is not None:
            expect_equal(shuffled.tile_logits, straight.tile_logits[:, order], "the tile logits")


def law_coords_change_nothing(build: Build) -> None:
    """A head that is not ``positional`` says the same to the last bit wherever its tiles lie."""
    head = prepared_head(build)
    if head.positional:
        return
    features, mask = padded_batch(head)
    nowhere = tensors_of(head(features, mask))
    coords = 256 * torch.arange(2 * mask.numel()).view(*mask.shape, 2)  # (B, N, 2)
    for name, value in tensors_of(head(features, mask, coords)).items():
        assert torch.equal(value, nowhere[name]), f"{name} depends on coords"


def law_long_bag_is_read_whole(build: Build) -> None:
    """Of thousands of tiles the last count as the first.

    Another order changes nothing; of a positional head, which has no such law, other tiles at the end do.
    """
    head = prepared_head(build)
    generator = torch.Generator().manual_seed(2)
    bag = torch.randn(1, LONG, head.settings.dim, generator=generator)
    tiles = torch.ones(1, LONG, dtype=torch.bool)
    with torch.no_grad():
        logits = head(bag, tiles).logits
        if head.positional:
            bag[:, -10:] *= 50
            assert not torch.equal(head(bag, tiles).logits, logits), (
                "the last ten tiles are ignored"
            )
        else:
            order = torch.randperm(LONG, generator=generator)
            expect_equal(head(bag[:, order], tiles).logits, logits, "the logits in two orders")


def law_one_tile_is_a_bag(build: Build) -> None:
    """A bag of one tile works, in evaluation and in training; that tile has all attention."""
    for training in (False, True):
        head = prepared_head(build).train(training)
        features, _ = padded_batch(head)
        output = head(features[:1, :1], torch.ones(1, 1, dtype=torch.bool))
        assert torch.isfinite(output.logits).all(), f"logits are {output.logits}"
        expect_equal(output.attention, torch.ones_like(output.attention), "the attention")


def law_evaluation_is_deterministic(build: Build) -> None:
    """The same bags give the same numbers to the last bit, whatever was drawn before."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    first = head(features, mask)
    torch.rand(3)
    second = head(features, mask)
    for name, value in tensors_of(first).items():
        assert torch.equal(value, tensors_of(second)[name]), f"{name} changes from call to call"


def law_batch_equals_loop(build: Build) -> None:
    """A batch says of each bag what the bag alone would be told, in whatever company."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    together = head(features, mask)
    for row, length in enumerate(LENGTHS):
        alone = head(features[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        expect_equal(together.logits[row], alone.logits[0], f"logits of bag {row}")
        expect_equal(together.embedding[row], alone.embedding[0], f"embedding of bag {row}")
        expect_equal(
            together.attention[row, :, :length], alone.attention[0], f"attention of bag {row}"
        )


def law_bag_without_tiles_is_refused(build: Build) -> None:
    """A bag whose mask is False throughout is a ValueError, also among others."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    mask[1] = False
    expect_refusal(lambda: head(features, mask), "a bag without a tile")


def law_unbatched_is_refused(build: Build) -> None:
    """Features with an axis too few, too many or too short are a ValueError, not many bags."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    expect_refusal(lambda: head(features[0], mask[0]), "features (N, D)")
    expect_refusal(lambda: head(features[0], mask[:1]), "features (N, D) with a mask (1, N)")
    expect_refusal(lambda: head(features.unsqueeze(2), mask), "features (B, N, 1, D)")
    expect_refusal(lambda: head(features[..., :-1], mask), "features of another length")


def law_mask_is_bool_and_fits(build: Build) -> None:
    """A mask of numbers, or one of another shape, is a ValueError."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    expect_refusal(lambda: head(features, mask.float()), "a mask of floats")
    expect_refusal(lambda: head(features, mask.long()), "a mask of integers")
    expect_refusal(lambda: head(features, mask[:, :-1]), "a mask that is too short")
    expect_refusal(lambda: head(features, mask.unsqueeze(-1)), "a mask with an axis too many")


def law_no_label_goes_in(build: Build) -> None:
    """``forward`` takes features, mask and coords alone, so that no answer depends on the truth.

    They are given in this order, whatever a head calls them.
    """
    for method in ("forward", "pool"):
        taken = inspect.signature(getattr(build(), method)).parameters
        in_order = [name for name, parameter in taken.items() if parameter.kind in IN_ORDER]
        assert len(in_order) == len(taken) == 3, (
            f"{method} takes {', '.join(taken)}; it is given features, mask and coords, and no more"
        )


def law_contributions_add_up(build: Build) -> None:
    """A head that says so is, of any selection of tiles, attention times tile logits summed over them.

    Attention is the softmax of the scores, so that of a selection follows from that of all tiles.
    """
    head = prepared_head(build)
    if not head.adds_up:
        return
    features, mask = padded_batch(head)
    whole = head(features, mask)
    assert whole.tile_logits is not None, "a head that adds up tells what each tile says"
    expect_equal(
        whole.attention, whole.scores.softmax(-1), "the attention and the softmax of the scores"
    )
    fewer = mask.clone()
    fewer[:, 1::2] = False
    for selection in (mask, fewer):
        shares = whole.scores.masked_fill(~selection.unsqueeze(1), -torch.inf).softmax(
            -1
        )  # (B, A, N)
        contributions = torch.einsum("ban,bnc->bac", shares, whole.tile_logits)
        n_maps = contributions.shape[1]
        summed = contributions.diagonal(dim1=1, dim2=2) if n_maps > 1 else contributions[:, 0]
        expect_equal(
            summed, head(features, selection).logits, "the sum of the tiles' contributions"
        )


def law_tiles_enter_by_their_embedding(build: Build) -> None:
    """A head that has ``embed`` looks at nothing but what that makes of each tile."""
    head = prepared_head(build)
    if "embed" not in dict(head.named_children()):
        return
    features, mask = padded_batch(head)
    after = copy.deepcopy(head)
    after.embed = nn.Identity()
    tiles = head.embed(head.standardise(features, mask))
    expect_equal(
        after.pool(tiles, mask, None).logits, head(features, mask).logits, "from embedded tiles"
    )


def law_chunks_are_the_whole(build: Build) -> None:
    """A head that takes a bag in chunks answers as to all tiles at once."""
    head = prepared_head(build)
    if not head.takes_chunks():
        return
    features, mask = padded_batch(head)
    longest = [LENGTHS.index(max(LENGTHS))]
    bag, mask = features[longest], mask[longest]  # (1, N, D): chunks are of bags taken one by one
    for length in (1, 4, max(LENGTHS)):
        parts = [
            head.summarise(head.standardise(chunk, real), real)
            for chunk, real in zip(
                torch.split(bag, length, 1), torch.split(mask, length, 1), strict=True
            )
        ]
        expect_same(head.merge(parts), head(bag, mask), mask, f"chunks of {length}")


def law_brief_says_what_the_bag_says(build: Build) -> None:
    """A head that has a ``brief`` of its own answers the same of it as of all tiles."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    for bag, real in zip(features, mask, strict=True):
        tiles = bag[real].numpy()
        brief = head(*collate([in_brief(head, tiles)])).logits
        expect_equal(brief, head(*collate([tiles])).logits, "the logits of a bag in brief")
