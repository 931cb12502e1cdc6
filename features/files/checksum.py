"""The seal of a weights file: a card says whose weights these are, and neither may change alone."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def card_checksum(state: Mapping[str, Tensor], card: Mapping[str, Any]) -> str:
    """SHA-256 of the weights and of all the card says, but for its own ``sha256``."""
    told = {name: fact for name, fact in card.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()


def verify_checksum(state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Refuse a card that was edited, or that came from other weights.

    Raises:
        ValueError: weights and card are not those that were sealed.
        KeyError: the card has no seal.
    """
    if card["sha256"] != card_checksum(state, card):
        raise ValueError("its weights or its card are not those it was saved with")
