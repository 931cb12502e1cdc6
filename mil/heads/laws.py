"""What every head obeys, as functions that any head can be held to.

Each law takes ``build``, which makes a fresh head, and fails with an AssertionError. They need no test
framework; ``check_head`` runs them all::

    from mil.heads import check_head

    check_head(MyHead)
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mil.heads.head import Head, HeadOutput, HeadSettings

Build = Callable[[], Head]
LENGTHS = (5, 9, 1, 7)  # tiles of the bags of one batch
LONG = 3000  # tiles of a bag of whose end a head might lose sight
GARBAGE = (float("inf"), float("-inf"), float("nan"), 1e30, -1e30)
LARGE = 65504.0  # the largest number that half precision holds
TOLERANCE = 1e-5
IN_ORDER = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# What a head under test may fail with instead of an answer.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def check_head(head: Head | type[Head] | Build) -> None:
    """Hold a head to all laws.

    No law can tell of every head whether the attention it reports is what it pools by: that of DSMIL leaves
    out the critical tiles, which answer for themselves, and TransMIL's tiles have read one another before.
    A head that is nothing but its attention says ``adds_up``, and is held to it.

    Args:
        head: a subclass of ``Head``, judged with 2 and with 5 classes; a function that makes a fresh head;
            or a head, which is copied, and so has no fresh weights by which a state that is not saved shows.

    Raises:
        AssertionError: naming every law that is broken, and what was seen.
        TypeError: it is no head.

    Example:
        from mil.heads.attention import AttentionPooling

        mil.check_head(AttentionPooling)
    """
    if not (callable(head) and (not isinstance(head, type) or issubclass(head, Head))):
        raise TypeError(
            f"check_head takes a subclass of Head, a head or a maker of one; got {head!r}."
        )
    broken = []
    for build in _builds(head):
        for law in LAWS:
            try:
                law(build)
            except FAILURES as error:
                seen = str(error) if isinstance(error, AssertionError) else repr(error)
                n_classes = build().settings.n_outputs
                broken.append(f"{law.__name__} ({n_classes} classes): {seen}")
    if broken:
        raise AssertionError("\n".join(["The head breaks these laws:", *broken]))


def _builds(head: Head | type[Head] | Build) -> list[Build]:
    """Makers of fresh heads."""
    if isinstance(head, Head):
        return [partial(copy.deepcopy, head)]
    if isinstance(head, type):
        shapes = [HeadSettings(dim=7, n_outputs=n_classes, width=10) for n_classes in (2, 5)]
        return [partial(head, shape) for shape in shapes]
    return [head]


def law_output_is_whole(build: Build) -> None:
    """The output is a HeadOutput with every tensor in its stated shape, in training as well."""
    for training in (False, True):
        head = _head(build).train(training)
        features, mask = _batch(head)
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
    head = _head(build)
    labels = torch.arange(len(LENGTHS)) % head.settings.n_outputs
    features, mask = _batch(head)
    bare = head(features, mask)
    bare_loss = head.auxiliary_loss(bare, labels, mask)
    assert bare_loss.shape == labels.shape, (
        f"the auxiliary loss is {tuple(bare_loss.shape)}, not (B,)"
    )
    for garbage in GARBAGE:
        wide, wide_mask = _padded(features, mask, garbage)
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


def law_coords_change_nothing(build: Build) -> None:
    """A head that is not ``positional`` says the same to the last bit wherever its tiles lie."""
    head = _head(build)
    if head.positional:
        return
    features, mask = _batch(head)
    nowhere = _tensors(head(features, mask))
    coords = 256 * torch.arange(2 * mask.numel()).view(*mask.shape, 2)  # (B, N, 2)
    for name, value in _tensors(head(features, mask, coords)).items():
        assert torch.equal(value, nowhere[name]), f"{name} depends on coords"


def law_long_bag_is_read_whole(build: Build) -> None:
    """Of thousands of tiles the last count as the first.

    Another order changes nothing; of a positional head, which has no such law, other tiles at the end do.
    """
    head = _head(build)
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
            _equal(head(bag[:, order], tiles).logits, logits, "the logits in two orders")


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
    features, mask = _batch(head)
    for name, gradient in _gradients(head, features, mask).items():
        assert torch.isfinite(gradient).all(), f"{name} has a gradient that is not finite"
        assert (gradient != 0).any(), f"{name} has a gradient of zero"


def law_gradients_reach_the_tiles(build: Build) -> None:
    """In evaluation logits have a gradient to each bag's own tiles, so that they can be explained."""
    head = _head(build)
    features, mask = _batch(head)
    if not list(head.parameters()):
        return
    features.requires_grad_()
    logits = head(features, mask).logits
    for row in range(len(mask)):
        (gradient,) = torch.autograd.grad(logits[row].square().sum(), features, retain_graph=True)
        assert torch.isfinite(gradient).all(), "the gradient to the tiles is not finite"
        assert (gradient[row] != 0).any(), f"no gradient reaches the tiles of bag {row}"
        assert (gradient[~mask] == 0).all(), "a gradient reaches padding"


def law_padding_teaches_nothing(build: Build) -> None:
    """Gradients are those of the bags without more padding, whatever lies in it."""
    head = _head(build)
    features, mask = _batch(head)
    bare = _gradients(head, features, mask)
    for garbage in GARBAGE:
        padded = _gradients(head, *_padded(features, mask, garbage))
        for name, gradient in bare.items():
            _equal(padded[name], gradient, f"padding of {garbage}: the gradient of {name}")


def law_saving_is_identity(build: Build) -> None:
    """Weights written as safetensors and read into a fresh head give the same numbers."""
    torch.manual_seed(0)
    head, fresh = build().eval(), build().eval()
    features, mask = _batch(head)
    head.prepare(features[mask] * 3 + 1, torch.arange(1.0, head.settings.n_outputs + 1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "head.safetensors"
        save_file({name: value.contiguous() for name, value in head.state_dict().items()}, path)
        fresh.load_state_dict(load_file(path))
    original, reloaded = _tensors(head(features, mask)), _tensors(fresh(features, mask))
    for name, value in original.items():
        assert torch.equal(value, reloaded[name]), f"{name} is not what was saved"


def law_large_features_stay_finite(build: Build) -> None:
    """The largest number of half precision overflows nothing."""
    head = _head(build)
    features, mask = _batch(head)
    output = head(features.sign() * LARGE, mask)
    assert torch.isfinite(output.logits).all(), f"logits are {output.logits}"
    assert torch.isfinite(output.attention).all(), "attention is not finite"


def law_half_precision_is_taken(build: Build) -> None:
    """Features in either half precision give what the same numbers give in single precision."""
    head = _head(build)
    features, mask = _batch(head)
    for kind in (torch.float16, torch.bfloat16):
        half = features.to(kind)
        _equal(head(half, mask).logits, head(half.float(), mask).logits, f"the logits in {kind}")


def law_autocast_is_borne(build: Build) -> None:
    """Under bfloat16 autocast the output stays finite, and attention a share, in training as well."""
    for training in (False, True):
        head = _head(build).train(training)
        features, mask = _batch(head)
        labels = torch.arange(len(LENGTHS)) % head.settings.n_outputs
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = head(features, mask)
            loss = output.logits.float().square().mean()
            loss = loss + head.auxiliary_loss(output, labels, mask).mean()
        assert torch.isfinite(output.logits).all(), f"logits are {output.logits}"
        far = (output.attention.float().sum(dim=-1) - 1).abs().max()
        assert far < 0.02, f"attention is off a sum of 1 by {far:g}"
        if loss.requires_grad:
            loss.backward()
        for name, parameter in head.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


def law_inference_mode_is_borne(build: Build) -> None:
    """Where no gradient is recorded the numbers are the same to the last bit."""
    head = _head(build)
    features, mask = _batch(head)
    recorded = _tensors(head(features, mask))
    with torch.inference_mode():
        inferred = _tensors(head(features, mask))
    for name, value in recorded.items():
        assert torch.equal(inferred[name], value), f"{name} differs in inference mode"


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
    head = _head(build)
    if not head.adds_up:
        return
    features, mask = _batch(head)
    whole = head(features, mask)
    assert whole.tile_logits is not None, "a head that adds up tells what each tile says"
    _equal(whole.attention, whole.scores.softmax(-1), "the attention and the softmax of the scores")
    fewer = mask.clone()
    fewer[:, 1::2] = False
    for selection in (mask, fewer):
        shares = whole.scores.masked_fill(~selection.unsqueeze(1), -torch.inf).softmax(
            -1
        )  # (B, A, N)
        contributions = torch.einsum("ban,bnc->bac", shares, whole.tile_logits)
        n_maps = contributions.shape[1]
        summed = contributions.diagonal(dim1=1, dim2=2) if n_maps > 1 else contributions[:, 0]
        _equal(summed, head(features, selection).logits, "the sum of the tiles' contributions")


def law_tiles_enter_by_their_embedding(build: Build) -> None:
    """A head that has ``embed`` looks at nothing but what that makes of each tile."""
    head = _head(build)
    if "embed" not in dict(head.named_children()):
        return
    features, mask = _batch(head)
    after = copy.deepcopy(head)
    after.embed = nn.Identity()
    tiles = head.embed(head.standardise(features, mask))
    _equal(after.pool(tiles, mask, None).logits, head(features, mask).logits, "from embedded tiles")


def law_chunks_are_the_whole(build: Build) -> None:
    """A head that takes a bag in chunks answers as to all tiles at once."""
    head = _head(build)
    if not head.takes_chunks():
        return
    features, mask = _batch(head)
    longest = [LENGTHS.index(max(LENGTHS))]
    bag, mask = features[longest], mask[longest]  # (1, N, D): chunks are of bags taken one by one
    for length in (1, 4, max(LENGTHS)):
        parts = [
            head.summarise(head.standardise(chunk, real), real)
            for chunk, real in zip(
                torch.split(bag, length, 1), torch.split(mask, length, 1), strict=True
            )
        ]
        _same(head.merge(parts), head(bag, mask), mask, f"chunks of {length}")


LAWS: tuple[Callable[[Build], None], ...] = (
    law_output_is_whole,
    law_padding_changes_nothing,
    law_attention_is_a_share,
    law_order_changes_nothing,
    law_coords_change_nothing,
    law_long_bag_is_read_whole,
    law_one_tile_is_a_bag,
    law_evaluation_is_deterministic,
    law_batch_equals_loop,
    law_bag_without_tiles_is_refused,
    law_unbatched_is_refused,
    law_mask_is_bool_and_fits,
    law_gradients_reach_every_parameter,
    law_gradients_reach_the_tiles,
    law_padding_teaches_nothing,
    law_saving_is_identity,
    law_large_features_stay_finite,
    law_half_precision_is_taken,
    law_autocast_is_borne,
    law_inference_mode_is_borne,
    law_no_label_goes_in,
    law_contributions_add_up,
    law_tiles_enter_by_their_embedding,
    law_chunks_are_the_whole,
)


def _head(build: Build) -> Head:
    """A head that is prepared as in a fit, in evaluation mode; the same at every call."""
    torch.manual_seed(0)
    head = build()
    tiles = torch.randn(40, head.settings.dim) * 2 + 0.5
    head.prepare(tiles, torch.arange(1.0, head.settings.n_outputs + 1))
    return head.eval()


def _batch(head: Head) -> tuple[Tensor, Tensor]:
    """Bags of ``LENGTHS`` tiles, padded with zeros."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(LENGTHS), max(LENGTHS), head.settings.dim, generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    return features.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def _padded(features: Tensor, mask: Tensor, garbage: float) -> tuple[Tensor, Tensor]:
    """The same bags with four more tiles of padding, and garbage in all of it."""
    n_bags, n_tiles = mask.shape
    wide = torch.full((n_bags, n_tiles + 4, features.shape[2]), garbage)
    wide[:, :n_tiles][mask] = features[mask]
    return wide, torch.nn.functional.pad(mask, (0, 4))


def _gradients(head: Head, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The gradient of every parameter for a loss of the logits and the head's own loss."""
    labels = torch.arange(len(LENGTHS)) % head.settings.n_outputs
    output = head(features, mask)
    # Also of one class, whose cross-entropy is always 0, and of a sum over classes, which it ignores.
    expected = torch.linspace(-1, 1, output.logits.numel()).view_as(output.logits)
    loss = (output.logits - expected).square().mean()
    loss = loss + head.auxiliary_loss(output, labels, mask).mean()
    parameters = dict(head.named_parameters())
    if not parameters:
        return {}
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, gradients, strict=True))


def _tensors(output: HeadOutput) -> dict[str, Tensor]:
    """All tensors of an output by name."""
    named = {entry.name: getattr(output, entry.name) for entry in fields(output)}
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


def _equal(got: Tensor, expected: Tensor, what: str) -> None:
    """Equal but for rounding; NaN equals nothing."""
    assert got.shape == expected.shape, (
        f"{what}: shape {tuple(got.shape)}, not {tuple(expected.shape)}"
    )
    far = (got - expected).abs().max()
    assert torch.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE), (
        f"{what} differ by {far:g}"
    )


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{what} is not refused")
