"""The number format a network computes in."""

import torch

from features.errors import FeaturesError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for a precision; ``auto`` is bf16 where the device supports it natively, else fp32.

    Raises:
        FeaturesError: the precision is unknown.
    """
    if precision in DTYPES:
        return DTYPES[precision]
    if precision != "auto":
        raise FeaturesError(
            f"precision is one of auto, {', '.join(DTYPES)}; got {precision!r}. Use auto."
        )
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = (
            torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        )
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32
