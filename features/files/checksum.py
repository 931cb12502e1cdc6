"""Checksums: of settings, and over a weights file and its card, so that neither changes without the other."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, independent of their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def card_checksum(state: "Mapping[str, Tensor]", card: Mapping[str, Any]) -> str:
    """SHA-256 of the weights and of the card without its own ``sha256``.

    Args:
        state: the tensors by name.
        card: what the weights file says of itself, as plain JSON values.
    """
    facts = {name: value for name, value in card.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()


def verify_checksum(state: "Mapping[str, Tensor]", card: Mapping[str, Any]) -> None:
    """Refuse a card that was edited or belongs to other weights.

    Raises:
        ValueError: weights and card do not match the checksum.
        KeyError: the card has no checksum.
    """
    if card["sha256"] != card_checksum(state, card):
        raise ValueError("its weights or its card were changed after saving")
