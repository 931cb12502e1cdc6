"""Weights under the names of other libraries, renamed as timm's networks name them.

The names are those of transformers' ``ViTModel``, ``Dinov2Model`` (also with registers) and
``CLIPModel``, of the repositories of DINOv2 and Swin, and of CONCH's towers. Which of them a file has is
seen from its names, which no two of them share.
"""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

WRAPPERS = ("state_dict", "model", "teacher", "student")
PREFIXES = ("module.", "backbone.", "vit.", "dinov2.", "dinov2_with_registers.")

_BLOCKS = (  # of ViT and DINOv2 in transformers
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^layernorm\.", "norm."),
)
_CLIP = (
    (r"^vision_model\.", ""),
    (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^visual_projection\.", "head."),
)
# How messages call the names that ``name_style`` finds.
STYLES = {
    "timm": "timm", "clip": "transformers' CLIPModel", "conch": "CONCH", "vit": "transformers' ViTModel",
    "hf-dinov2": "transformers' Dinov2Model", "swin": "Swin's authors", "dinov2": "DINOv2's authors",
}  # fmt: skip
_QUERY = re.compile(
    r"(blocks\.\d+)\.(?:attention\.attention|self_attn)\.(query|key|value|[qkv]_proj)\.(\w+)"
)


def name_style(state: Mapping[str, Tensor]) -> str:
    """Whose names the weights of a file have: one of ``STYLES``."""
    if any(key.startswith("vision_model.") for key in state):
        return "clip"
    if any(key.startswith("visual.attn_pool_contrast.") for key in state):
        return "conch"
    if "embeddings.cls_token" in state:
        return "vit" if any(".layernorm_before." in key for key in state) else "hf-dinov2"
    if "layers.0.downsample.reduction.weight" in state:
        return "swin"
    return "dinov2" if {"mask_token", "register_tokens"} & state.keys() else "timm"


def to_timm_names(state: Mapping[str, Tensor]) -> State:
    """The weights under timm's names; unchanged if they have these already.

    Args:
        state: of a published file, without the wrapper and the prefix that training adds.
    """
    style = name_style(state)
    if style == "clip":
        return _from_clip(state)
    if style == "conch":
        parts = ("trunk.", "attn_pool_contrast.", "ln_contrast.")
        tower = {
            key.removeprefix("visual."): v for key, v in state.items() if key.startswith("visual.")
        }
        return {key: value for key, value in tower.items() if key.startswith(parts)}
    if style == "swin":
        return _from_swin(state)
    if style in ("vit", "hf-dinov2"):
        state = _join_queries(_rename(state, _BLOCKS))
        state = {key: v for key, v in state.items() if not key.startswith("pooler.")}
    return _from_dinov2(state)


def unwrap(content: object) -> State:
    """The weights of a checkpoint: without the wrapper and the prefix that training libraries add.

    Raises:
        ValueError: it holds no weights.
    """
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ValueError("it holds no table of weights")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if any(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    if not state:
        raise ValueError("it holds no weights")
    return state


def fit_positions(state: State, network: nn.Module, table_side: int) -> State:
    """The published position table brought to the network's grid of patches, as its own code does it.

    DINOv2 and transformers interpolate bicubically and without a filter when they run; CONCH v1.5 does so
    with the published offset of .1. A table of any other size is that of other weights, and left as it is.

    Args:
        state: under timm's names.
        network: that they are for.
        table_side: patches along a side of the published table; 0 if it has the network's own.
    """
    own = network.state_dict()
    name = next(
        (key for key in ("pos_embed", "trunk.pos_embed") if key in own and key in state), None
    )
    if name is None or own[name].shape == state[name].shape:
        return state
    prefix = own[name].shape[1] - isqrt(own[name].shape[1]) ** 2
    sides = [isqrt(table.shape[1] - prefix) for table in (state[name], own[name])]
    if [s.shape[1] - prefix for s in (state[name], own[name])] != [side**2 for side in sides]:
        return state  # other tokens come first: reported as a misfit
    if sides[0] != table_side:
        return state  # likewise
    first, grid = state[name][:, :prefix], state[name][:, prefix:]
    grid = grid.reshape(1, sides[0], sides[0], -1).permute(0, 3, 1, 2)  # (1, C, h, w)
    scale = (sides[1] + 0.1) / sides[0]
    size: dict[str, Any] = (
        {"scale_factor": (scale, scale)}
        if name.startswith("trunk.")
        else {"size": (sides[1], sides[1])}
    )
    grid = nn.functional.interpolate(grid.float(), mode="bicubic", align_corners=False, **size)
    return state | {name: torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)}


def _rename(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> State:
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _join_queries(state: State) -> State:
    """Queries, keys and values of a block as one layer, in this order."""
    joined = {key: value for key, value in state.items() if not _QUERY.fullmatch(key)}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if match := _QUERY.fullmatch(key):
            block, part, kind = match.groups()
            parts.setdefault(f"{block}.attn.qkv.{kind}", {})[part[0]] = value
    for key, values in parts.items():
        joined[key] = torch.cat([values[part] for part in "qkv" if part in values])
    return joined


def _from_dinov2(state: Mapping[str, Tensor]) -> State:
    """Names of the DINOv2 repository; with registers, timm adds the first position to the class token."""
    if "mask_token" not in state and "register_tokens" not in state:
        return dict(state)
    rules = ((r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))
    renamed = _rename(state, rules)
    renamed.pop("mask_token", None)
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        positions = renamed["pos_embed"]
        renamed |= {
            "cls_token": renamed["cls_token"] + positions[:, :1],
            "pos_embed": positions[:, 1:],
        }
    return renamed


def _from_swin(state: Mapping[str, Tensor]) -> State:
    """Names of Swin's authors: a stage ends with what timm begins the next one with."""

    def later(match: "re.Match[str]") -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    weights = {
        k: v
        for k, v in state.items()
        if "relative_position_index" not in k and "attn_mask" not in k
    }
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", later, key): value for key, value in weights.items()
    }


def _from_clip(state: Mapping[str, Tensor]) -> State:
    vision = {
        key: value
        for key, value in state.items()
        if key.startswith(("vision_model.", "visual_projection.")) and "position_ids" not in key
    }
    renamed = _join_queries(_rename(vision, _CLIP))
    width = renamed["cls_token"].shape[-1]
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, width)
    renamed["pos_embed"] = renamed["pos_embed"].reshape(1, -1, width)
    if "head.weight" in renamed:
        renamed["head.bias"] = torch.zeros(len(renamed["head.weight"]))
    return renamed
