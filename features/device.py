"""Where networks compute, and how arrays get there."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.errors import FeaturesError


def resolve_device(device: str) -> torch.device:
    """The torch device meant by a name; ``auto`` is the GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise FeaturesError(
            f"device is {device!r}, which torch does not know. Set device to auto, cpu or cuda."
        ) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise FeaturesError(f"device is {device!r}, but torch sees no GPU. Set device to cpu.")
    return resolved


def move_array(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device; on the way to a GPU it is page-locked, so that nothing waits for it.

    Args:
        values: of any shape and of a type that torch knows; shared with the tensor on a CPU.
        device: where to.
    """
    tensor = torch.from_numpy(values if values.flags.writeable else np.array(values))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
