"""How a head computes, as laws: gradients, saved weights, precision."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from mil.heads.law_tools import (
    GARBAGE,
    LENGTHS,
    Build,
    expect_equal,
    gradients_of,
    padded_batch,
    prepared_head,
    tensors_of,
    with_padding,
)

LARGE = 65504.0  # the largest number that half precision holds


def law_gradients_reach_every_parameter(build: Build) -> None:
    """The loss of one batch moves every parameter there is."""
    head = prepared_head(build).train()
    features, mask = padded_batch(head)
    for name, gradient in gradients_of(head, features, mask).items():
        assert torch.isfinite(gradient).all(), f"{name} has a gradient that is not finite"
        assert (gradient != 0).any(), f"{name} has a gradient of zero"


def law_gradients_reach_the_tiles(build: Build) -> None:
    """In evaluation logits have a gradient to each bag's own tiles, so that they can be explained."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
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
    head = prepared_head(build)
    features, mask = padded_batch(head)
    bare = gradients_of(head, features, mask)
    for garbage in GARBAGE:
        padded = gradients_of(head, *with_padding(features, mask, garbage))
        for name, gradient in bare.items():
            expect_equal(padded[name], gradient, f"padding of {garbage}: the gradient of {name}")


def law_saving_is_identity(build: Build) -> None:
    """Weights written as safetensors and read into a fresh head give the same numbers."""
    torch.manual_seed(0)
    head, fresh = build().eval(), build().eval()
    features, mask = padded_batch(head)
    head.prepare(features[mask] * 3 + 1, torch.arange(1.0, head.settings.n_outputs + 1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "head.safetensors"
        save_file({name: value.contiguous() for name, value in head.state_dict().items()}, path)
        fresh.load_state_dict(load_file(path))
    original, reloaded = tensors_of(head(features, mask)), tensors_of(fresh(features, mask))
    for name, value in original.items():
        assert torch.equal(value, reloaded[name]), f"{name} is not what was saved"


def law_large_features_stay_finite(build: Build) -> None:
    """The largest number of half precision overflows nothing."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    output = head(features.sign() * LARGE, mask)
    assert torch.isfinite(output.logits).all(), f"logits are {output.logits}"
    assert torch.isfinite(output.attention).all(), "attention is not finite"


def law_half_precision_is_taken(build: Build) -> None:
    """Features in either half precision give what the same numbers give in single precision."""
    head = prepared_head(build)
    features, mask = padded_batch(head)
    for kind in (torch.float16, torch.bfloat16):
        half = features.to(kind)
        expect_equal(
            head(half, mask).logits, head(half.float(), mask).logits, f"the logits in {kind}"
        )


def law_autocast_is_borne(build: Build) -> None:
    """Under bfloat16 autocast the output stays finite, and attention a share, in training as well."""
    for training in (False, True):
        head = prepared_head(build).train(training)
        features, mask = padded_batch(head)
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
    head = prepared_head(build)
    features, mask = padded_batch(head)
    recorded = tensors_of(head(features, mask))
    with torch.inference_mode():
        inferred = tensors_of(head(features, mask))
    for name, value in recorded.items():
        assert torch.equal(inferred[name], value), f"{name} differs in inference mode"
