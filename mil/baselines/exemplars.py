"""Baselines that keep some of what they learnt from: their buffers have lengths that the training decides."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from mil.heads.head import Head


class ExemplarHead(Head):
    """A head with buffers that grow with the training part.

    Attributes:
        LENGTHS: names of the buffers whose lengths are not known before; a file gives them their own.
    """

    LENGTHS: ClassVar[tuple[str, ...]]

    def set_buffers(self, **buffers: Tensor) -> None:
        """Register buffers, in place of those of the same names."""
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take buffers of the lengths that were saved."""
        for name in self.LENGTHS:
            if prefix + name in state_dict:
                self.set_buffers(**{name: torch.empty_like(state_dict[prefix + name])})
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
