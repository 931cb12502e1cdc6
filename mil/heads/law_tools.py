"""What the laws of heads are tried with: a prepared head, a padded batch, and what must be equal."""

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from mil.heads.head import Head, HeadOutput

Build = Callable[[], Head]
LENGTHS = (5, 9, 1, 7)  # tiles of the bags of one batch
GARBAGE = (float("inf"), float("-inf"), float("nan"), 1e30, -1e30)
TOLERANCE = 1e-5


def prepared_head(build: Build) -> Head:
    """A head that is prepared as in a fit, in evaluation mode; the same at every call."""
    torch.manual_seed(0)
    head = build()
    tiles = torch.randn(40, head.settings.dim) * 2 + 0.5
    head.prepare(tiles, torch.arange(1.0, head.settings.n_outputs + 1))
    return head.eval()


def padded_batch(head: Head) -> tuple[Tensor, Tensor]:
    """Bags of ``LENGTHS`` tiles, padded with zeros."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(LENGTHS), max(LENGTHS), head.settings.dim, generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    return features.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def with_padding(features: Tensor, mask: Tensor, garbage: float) -> tuple[Tensor, Tensor]:
    """The same bags with four more tiles of padding, and garbage in all of it."""
    n_bags, n_tiles = mask.shape
    wide = torch.full((n_bags, n_tiles + 4, features.shape[2]), garbage)
    wide[:, :n_tiles][mask] = features[mask]
    return wide, torch.nn.functional.pad(mask, (0, 4))


def gradients_of(head: Head, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
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


def tensors_of(output: HeadOutput) -> dict[str, Tensor]:
    """All tensors of an output by name."""
    named = {entry.name: getattr(output, entry.name) for entry in fields(output)}
    named |= {f"aux {name}": value for name, value in named.pop("aux").items()}
    return {name: value for name, value in named.items() if value is not None}


def expect_same(output: HeadOutput, bare: HeadOutput, mask: Tensor, why: str) -> None:
    """What is said of bags and of their real tiles is the same; padding has no attention."""
    n_tiles = mask.shape[1]
    expect_equal(output.logits, bare.logits, f"{why}: the logits")
    expect_equal(output.embedding, bare.embedding, f"{why}: the embedding")
    expect_equal(output.attention[..., :n_tiles], bare.attention, f"{why}: the attention")
    assert (output.attention[..., n_tiles:] == 0).all(), f"{why}: attention on it"
    if bare.tile_logits is not None:
        assert output.tile_logits is not None
        expect_equal(output.tile_logits[:, :n_tiles], bare.tile_logits, f"{why}: the tile logits")


def expect_equal(got: Tensor, expected: Tensor, what: str) -> None:
    """Equal but for rounding; NaN equals nothing."""
    assert got.shape == expected.shape, (
        f"{what}: shape {tuple(got.shape)}, not {tuple(expected.shape)}"
    )
    far = (got - expected).abs().max()
    assert torch.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE), (
        f"{what} differ by {far:g}"
    )


def expect_refusal(call: Callable[[], object], what: str) -> None:
    """A call is a ValueError."""
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{what} is not refused")
