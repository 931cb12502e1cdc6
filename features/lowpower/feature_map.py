"""The feature map of a slide at 4x: what a frozen backbone sees in every cell of 20 micrometres.

A network is shown windows of the slide with a margin on every side, and what lies in the margin is cut away:
the map is that of the whole slide to .02 standard deviations, and no seam shows. Windows without tissue are
skipped, so that memory and time follow the tissue and not the glass.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from features.backbones.packaged import packaged_file
from features.backbones.registry import Backbone, load_backbone
from features.errors import BackboneError
from features.files.checksum import fingerprint
from features.regions.masks import mask_fraction, tissue_mask
from features.slides.slide import OVERVIEW_PX, Slide
from features.threads import keep_freed_memory

MAP_MPP = 2.5  # micrometres per pixel: 4x
LEVELS = (4, 8, 16)  # pixels per value of the maps that are joined; the next, 32, is too coarse
STRIDE = 8  # pixels per cell
CELL_UM = STRIDE * MAP_MPP
WINDOW_PX, MARGIN_PX = 512, 128  # with 64 px of margin, values differ by up to .3 sd
ALIGNED_PX = (
    32  # sides of all inputs: else padding would shift the maps of one window against the next
)
DEFAULT_BACKBONE = "efficientnet-lite0"
TISSUE_SHARE = 0.5  # of a cell


@dataclass(frozen=True)
class CellGrid:
    """The cells of a slide, row by row from its corner.

    Attributes:
        shape: (rows, columns); the last ones may reach over the slide's edge.
        side_l0: (width, height) of a cell in level-0 pixels.
        tissue: (rows, columns) True where at least half of a cell is tissue by its colour.
    """

    shape: tuple[int, int]
    side_l0: tuple[float, float]
    tissue: NDArray[np.bool_]

    def corners_l0(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The left and the top edges of all cells, each (rows x columns,), row by row."""
        rows, columns = np.indices(self.shape).reshape(2, -1).astype(np.float64)
        return columns * self.side_l0[0], rows * self.side_l0[1]

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """The windows with tissue that a map is computed in, as rows and columns."""
        step = WINDOW_PX // STRIDE
        for row in range(0, self.shape[0], step):
            for column in range(0, self.shape[1], step):
                part = (
                    slice(row, min(row + step, self.shape[0])),
                    slice(column, min(column + step, self.shape[1])),
                )
                if self.tissue[part].any():
                    yield part


@dataclass(frozen=True)
class Window:
    """The feature map of one part of a slide.

    Attributes:
        row, column: of its first cell.
        features: (h, w, C) float32.
    """

    row: int
    column: int
    features: NDArray[np.float32]

    @property
    def cells(self) -> tuple[slice, slice]:
        """The part of an array over all cells that it fills."""
        height, width = self.features.shape[:2]
        return slice(self.row, self.row + height), slice(self.column, self.column + width)


def lay_cells(slide: Slide, tissue: NDArray[np.bool_] | None = None) -> CellGrid:
    """The cells of a slide, and which of them are tissue.

    Args:
        slide: an open slide.
        tissue: (H, W) of the whole slide, where it was found before, as ``Survey.tissue_mask``.

    Raises:
        TileError: hardly anything of the slide can be read.
    """
    width, height = slide.size_l0
    side = (CELL_UM / slide.mpp[0], CELL_UM / slide.mpp[1])
    shape = (max(1, math.ceil(height / side[1] - 1e-3)), max(1, math.ceil(width / side[0] - 1e-3)))
    if tissue is None:
        overview = np.asarray(slide.thumbnail(OVERVIEW_PX))
        tissue = tissue_mask(overview, slide.mpp[0] * width / overview.shape[1])
    grid = CellGrid(shape, side, np.zeros(shape, dtype=np.bool_))
    corners = np.column_stack(grid.corners_l0()).astype(np.int64)
    share = mask_fraction(tissue, slide.size_l0, corners, side)
    return CellGrid(shape, side, (share >= TISSUE_SHARE).reshape(shape))


class CellMap(ABC):
    """What is computed of a slide in every cell of 20 µm.

    Attributes:
        channels: C, the length of a cell's vector.
        margin_px: how far beyond a window it looks.
    """

    channels: int
    margin_px: int = MARGIN_PX

    @property
    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What shapes the map: equal recipes give equal maps of a slide."""

    @abstractmethod
    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W, 3) RGB at 2.5 micrometres per pixel, sides multiples of 32 -> (H / 8, W / 8, C)."""

    @property
    def sha256(self) -> str:
        """Fingerprint of the recipe."""
        return fingerprint(self.recipe)

    def windows(self, slide: Slide, grid: CellGrid) -> Iterator[Window]:
        """The map of a slide, window by window; those without tissue are left out.

        Args:
            slide: an open slide.
            grid: as ``lay_cells`` gives it.

        Raises:
            TileError: the pixels of a window cannot be decoded.
        """
        keep_freed_memory()
        for part in grid.parts():
            yield Window(part[0].start, part[1].start, self._read(slide, grid, part))

    def _read(self, slide: Slide, grid: CellGrid, part: tuple[slice, slice]) -> NDArray[np.float32]:
        """The features of a rectangle of cells, computed with a margin that is cut away."""
        margin, aligned = self.margin_px // STRIDE, ALIGNED_PX // STRIDE
        top, left = (max(0, cells.start - margin) for cells in part)
        bottom, right = (
            min(-(-side // aligned) * aligned, -(-(cells.stop + margin) // aligned) * aligned)
            for side, cells in zip(grid.shape, part, strict=True)
        )
        size = ((right - left) * STRIDE, (bottom - top) * STRIDE)
        x_l0, y_l0 = left * grid.side_l0[0], top * grid.side_l0[1]
        features = self(slide.read_rectangle(x_l0, y_l0, size, MAP_MPP))
        rows, columns = part
        return features[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]


class FeatureMap(CellMap):
    """The intermediate maps of a frozen convolutional network, joined at one value per cell of 20 µm.

    Args:
        backbone: its network has maps of 4, 8 and 16 pixels per value; None takes ``default_backbone``.
        device: torch device.

    Attributes:
        channels: C, the length of a cell's vector; 176 with EfficientNet-Lite0.

    Raises:
        BackboneError: the network has no such maps, as transformers have none.
    """

    def __init__(self, backbone: Backbone | None = None, device: str = "cpu") -> None:
        self.backbone = backbone or default_backbone()
        self.device = torch.device(device)
        network: nn.Module = getattr(self.backbone.module, "network", self.backbone.module)
        self._indices, widths = find_levels(network, self.backbone.name)
        self.channels = sum(widths)
        self.network: nn.Module = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.backbone.mean, self.backbone.std)
        )
        self._mean, self._std = mean, std

    @property
    def recipe(self) -> dict[str, Any]:
        """What shapes the map: equal recipes give equal maps of a slide."""
        return {
            "backbone": self.backbone.name,
            "weights": self.backbone.weights,
            "weights_sha256": self.backbone.weights_sha256,
            "mean": list(self.backbone.mean),
            "std": list(self.backbone.std),
            "mpp": MAP_MPP,
            "levels": list(LEVELS),
            "stride": STRIDE,
        }

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W, 3) RGB at 2.5 micrometres per pixel, sides multiples of 32 -> (H / 8, W / 8, C)."""
        with torch.inference_mode():
            pixels = torch.from_numpy(rgb.copy()).to(self.device).permute(2, 0, 1)[None]
            image = (pixels.float() / 255 - self._mean) / self._std
            joined = self.join(image.contiguous(memory_format=torch.channels_last))
            features: NDArray[np.float32] = joined[0].permute(1, 2, 0).float().cpu().numpy()
        return features

    def join(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, C, H / 8, W / 8)."""
        maps: Sequence[Tensor] = self.network.forward_intermediates(  # type: ignore[operator]
            images, indices=self._indices, stop_early=True, intermediates_only=True
        )
        size = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        return torch.cat([interpolate(level, size, mode="bilinear") for level in maps], dim=1)


def default_backbone() -> Backbone:
    """EfficientNet-Lite0: with ImageNet weights where their package is installed, else with random ones."""
    packaged = packaged_file("tf_efficientnet_lite0.in1k") is not None
    return load_backbone(DEFAULT_BACKBONE, "pretrained" if packaged else "random")


def find_levels(
    network: nn.Module, name: str, levels: Sequence[int] = LEVELS
) -> tuple[list[int], list[int]]:
    """The numbers of the network's last maps of each level, and how many channels they have.

    Args:
        network: of timm.
        name: of it, for the message.
        levels: pixels per value.

    Raises:
        BackboneError: it lacks one of them.
    """
    described: Any = getattr(network, "feature_info", ())
    maps = list(described.get_dicts() if hasattr(described, "get_dicts") else described)
    last = {entry["reduction"]: number for number, entry in enumerate(maps)}
    if not hasattr(network, "forward_intermediates") or not set(levels) <= last.keys():
        *first, final = map(str, levels)
        raise BackboneError(
            f"{name} has no maps of {', '.join(first)} and {final} pixels per value, which tissue at 4x is "
            f"recognised by. Set backbone to a convolutional network, such as {DEFAULT_BACKBONE}."
        )
    indices = [last[level] for level in levels]
    return indices, [maps[index]["num_chs"] for index in indices]
