"""A segmenter of tumour: its file, which is whole in itself and knows its cases, and its use on a slide."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy.special import expit
from torch import Tensor, nn

from features.backbones.network_recipe import NetworkRecipe
from features.backbones.networks import PooledFeatures, build_network
from features.backbones.registry import Backbone
from features.errors import BackboneError, FeaturesError, NoTissue
from features.files.atomic import write_atomic
from features.files.checksum import card_checksum, verify_checksum
from features.files.parse import parse_json
from features.lowpower.colour_map import ColourMap
from features.lowpower.descriptor import Descriptor
from features.lowpower.feature_map import (
    MAP_MPP,
    CellGrid,
    CellMap,
    FeatureMap,
    Window,
    lay_cells,
)
from features.lowpower.tumour_map import TumourMap, smooth_over_tissue
from features.lowpower.unet import UNet, UNetMap
from features.reference import Reference
from features.slides.slide import Slide
from features.stored import check_version

FORMAT = "sarcomil-segmenter"
FORMAT_VERSION = 1
Kind = Literal["map", "unet", "both"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_CELLS = 25  # .01 mm², called tumour, of which it can be said whether they look like tumour
Watch = Callable[[Window, NDArray[np.float32]], None]


@dataclass(frozen=True)
class CellHead:
    """Log odds of tumour as a weighted sum of a cell's vector.

    Attributes:
        weight: (C,) float32.
        bias: of the sum.
    """

    weight: NDArray[np.float32]
    bias: float

    def __call__(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """(..., C) -> (...) probability of tumour."""
        odds = vectors.astype(np.float32, copy=False) @ self.weight + np.float32(self.bias)
        return np.asarray(expit(odds), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class SegmenterCard:
    """What a segmenter is and what it has seen.

    Attributes:
        kind: ``map``, a linear head on a frozen feature map; ``unet``; or ``both``, their mean.
        classes: annotation classes that were called tumour.
        threshold: from which a cell is called tumour.
        network: how its encoder is built and images are prepared.
        weights: what the encoder's first weights are, in words.
        weights_sha256: fingerprint of these.
        trained_on: cases whose annotations it has seen.
        trained_on_slides: fingerprints of their slides, as ``Bag.sources``.
        settings: of training.
        evaluation: how good it is on cases it has not seen, as plain values; empty if that was not measured.
        reference_cases: case of each slide in ``Segmenter.reference``.
        copy_of: fingerprint of the segmenter that this is a copy of, without names; empty for an original.
        mpp: micrometres per pixel that it looks at.
    """

    kind: Kind
    classes: tuple[str, ...]
    threshold: float
    network: NetworkRecipe
    weights: str
    weights_sha256: str
    trained_on: tuple[str, ...] = ()
    trained_on_slides: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    reference_cases: tuple[str, ...] = ()
    copy_of: str = ""
    mpp: float = MAP_MPP

    @property
    def has_random_weights(self) -> bool:
        """Whether its encoder has never seen a picture."""
        return self.weights.startswith("random")


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A segmenter ready for use; at least one of its parts is not None.

    Attributes:
        card: what it is.
        maps: the frozen feature map of ``linear``.
        linear: the linear head.
        unet: the U-Net.
        colour: a head on colour alone, fitted to the same cells: what the segmenter has to beat.
        descriptors: (n, 2 C) of what it marks as tumour on the slides that it learnt from, by its frozen map;
            None without one, and in files of earlier versions.
    """

    card: SegmenterCard
    maps: FeatureMap | None = None
    linear: CellHead | None = None
    unet: UNetMap | None = None
    colour: CellHead | None = None
    descriptors: NDArray[np.float32] | None = None

    @cached_property
    def reference(self) -> Reference | None:
        """What it marks as tumour on slides that it learnt from: is it such on a new one?"""
        if self.descriptors is None:
            return None
        return Reference(self.descriptors, self.card.reference_cases)

    def tumour_map(self, slide: Slide, grid: CellGrid | None = None) -> TumourMap:
        """The probability of tumour over a slide; parts without tissue are not read.

        Args:
            slide: an open slide.
            grid: its cells, if they were laid before.

        Raises:
            NoTissue: the slide shows none.
            TileError: its pixels cannot be decoded.
        """
        grid = grid or lay_cells(slide)
        parts, ratio = [], math.nan
        if self.maps and self.linear:
            tumour = Descriptor(self.maps.channels)

            def gather(window: Window, probability: NDArray[np.float32]) -> None:
                called = grid.tissue[window.cells] & (probability >= self.card.threshold)
                tumour.add(window.features[called])

            parts.append(map_probability(slide, grid, self.maps, self.linear, gather))
            if self.reference and tumour.count >= LEAST_CELLS:
                ratio = self.reference.ratio(tumour.values())
        if self.unet:
            parts.append(map_probability(slide, grid, self.unet, _first_channel))
        probability = np.asarray(np.mean(parts, axis=0), dtype=np.float32)
        return replace(as_tumour_map(slide, grid, probability, self.card.threshold), ratio=ratio)

    def colour_map(self, slide: Slide, grid: CellGrid) -> TumourMap:
        """As ``tumour_map``, by colour alone."""
        assert self.colour
        probability = map_probability(slide, grid, ColourMap(), self.colour)
        return as_tumour_map(slide, grid, probability, self.card.threshold)


def map_probability(
    slide: Slide,
    grid: CellGrid,
    maps: CellMap,
    head: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    watch: Watch = lambda _window, _probability: None,
) -> NDArray[np.float32]:
    """What a head makes of every window, smoothed: (rows, columns) probability, 0 on glass.

    Args:
        slide: open.
        grid: its cells.
        maps: what the head reads.
        head: (..., C) -> (...) probability.
        watch: called with every window and its probability before smoothing.

    Raises:
        NoTissue: the slide shows none.
    """
    if not grid.tissue.any():
        raise NoTissue(
            f"{slide.path.name}: no tissue is found by its colour. Look at the slide: it may be empty, or "
            "not be stained with H&E."
        )
    probability = np.zeros(grid.shape, dtype=np.float32)
    for window in maps.windows(slide, grid):
        probability[window.cells] = head(window.features)
        watch(window, probability[window.cells])
    return smooth_over_tissue(probability, grid.tissue)


def as_tumour_map(
    slide: Slide, grid: CellGrid, probability: NDArray[np.float32], threshold: float
) -> TumourMap:
    """Probabilities with what places them on their slide."""
    return TumourMap(probability, grid, threshold, slide.size_l0, slide.bounds_l0)


def save_segmenter(path: Path, segmenter: Segmenter) -> None:
    """Write a segmenter with all its weights into one ``.safetensors`` file, sealed with its card.

    Raises:
        BackboneError: its encoder is not of timm, so that it could not be built again.
        OSError: the disk is full or not writable.
    """
    card = segmenter.card
    if not card.network.architecture:
        raise BackboneError(
            f"{card.network.name}: a network of an installed package cannot be stored in a segmenter. Set "
            "backbone to a network of timm."
        )
    tensors: dict[str, Tensor] = {}
    if segmenter.maps and segmenter.linear:
        tensors |= _under("encoder", _network(segmenter.maps.backbone).state_dict())
        tensors |= _head_tensors("linear", segmenter.linear)
    if segmenter.unet:
        tensors |= _under("unet", segmenter.unet.network.state_dict())
    if segmenter.colour:
        tensors |= _head_tensors("colour", segmenter.colour)
    if segmenter.descriptors is not None:
        tensors["descriptors"] = torch.from_numpy(segmenter.descriptors)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **asdict(card),
        "network": card.network.to_json(),
    }
    facts = json.loads(json.dumps(facts))
    sealed = {**facts, "sha256": card_checksum(plain, facts)}
    write_atomic(path, save(plain, metadata={"card": json.dumps(sealed)}))


def load_segmenter(path: Path | str, device: str = "cpu") -> Segmenter:
    """Read a segmenter.

    Raises:
        FeaturesError: the file is missing, is no segmenter, or was changed after saving.
    """
    path = Path(path)
    facts, state = _read_sealed(path)
    card = _card_of(path, facts)
    heads = {
        name: CellHead(state[f"{name}.weight"].numpy(), float(state[f"{name}.bias"]))
        for name in ("linear", "colour")
        if f"{name}.weight" in state
    }
    encoder, unet = _part(state, "encoder"), _part(state, "unet")
    maps = unet_map = None
    if encoder:
        network = build_network(card.network)
        network.load_state_dict(encoder)
        maps = FeatureMap(_as_backbone(card, network), device)
    if unet:
        decoder = UNet(build_network(card.network), card.network.name)
        decoder.load_state_dict(unet)
        unet_map = UNetMap(decoder, card.network, device)
    return Segmenter(
        card=card,
        maps=maps,
        linear=heads.get("linear"),
        unet=unet_map,
        colour=heads.get("colour"),
        descriptors=state["descriptors"].numpy() if "descriptors" in state else None,
    )


def read_segmenter_card(path: Path | str) -> tuple[SegmenterCard, str]:
    """What a segmenter is, and its fingerprint, which bags made with it record; a copy has the original's.

    Raises:
        FeaturesError: the file is missing, is no segmenter, or was changed after saving.
    """
    path = Path(path)
    facts, _ = _read_sealed(path)
    card = _card_of(path, facts)
    return card, card.copy_of or str(facts["sha256"])


def _read_sealed(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the weights of a file, which have not changed since they were written."""
    remedy = "Give the segmenter.safetensors that training a segmenter has written."
    if not path.is_file():
        raise FeaturesError(f"{path}: no such file. {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = parse_json((file.metadata() or {}).get("card", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise FeaturesError(f"{path}: cannot be read as a segmenter ({error}). {remedy}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise FeaturesError(f"{path}: not a segmenter. {remedy}")
    check_version(path, facts["format_version"], FORMAT_VERSION, FeaturesError)
    try:
        verify_checksum(state, facts)
    except (ValueError, KeyError) as error:
        raise FeaturesError(
            f"{path}: its weights or its card have changed since it was written, so which cases it has seen "
            "is not known. Train it again."
        ) from error
    return facts, state


def _card_of(path: Path, facts: Mapping[str, Any]) -> SegmenterCard:
    try:
        return SegmenterCard(
            kind=facts["kind"],
            classes=tuple(facts["classes"]),
            threshold=float(facts["threshold"]),
            network=NetworkRecipe.from_json(facts["network"]),
            weights=str(facts["weights"]),
            weights_sha256=str(facts["weights_sha256"]),
            trained_on=tuple(facts["trained_on"]),
            trained_on_slides=tuple(facts["trained_on_slides"]),
            settings=facts["settings"],
            evaluation=facts["evaluation"],
            reference_cases=tuple(facts.get("reference_cases", ())),
            copy_of=str(facts.get("copy_of", "")),
            mpp=float(facts["mpp"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FeaturesError(
            f"{path}: its card cannot be read ({error!r}). Train the segmenter again."
        ) from error


def _as_backbone(card: SegmenterCard, network: nn.Module) -> Backbone:
    module = (
        PooledFeatures(network, card.network.pooling).eval().requires_grad_(requires_grad=False)
    )
    return Backbone(card.network, module, card.weights, card.weights_sha256)


def _network(backbone: Backbone) -> nn.Module:
    network: nn.Module = getattr(backbone.module, "network", backbone.module)
    return network


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in state.items()
        if name.startswith(f"{prefix}.")
    }


def _head_tensors(name: str, head: CellHead) -> dict[str, Tensor]:
    return _under(
        name, {"weight": torch.from_numpy(head.weight), "bias": torch.tensor([head.bias])}
    )


def _first_channel(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features[..., 0]
