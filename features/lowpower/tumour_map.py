"""The probability of tumour over a slide, and the region, files and pictures that are made of it."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin
from scipy import ndimage
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, mapping

from features.files.atomic import atomic_path, write_atomic
from features.lowpower.feature_map import CELL_UM, CellGrid
from features.reference import UNLIKE, describe_distance
from features.regions.drawing import PREDICTED, Region, polygonal_parts
from features.regions.masks import polygons_from_mask

SMOOTHING_CELLS = 1.0  # standard deviation
FINER = 4  # steps of an outline per cell: 5 micrometres
MIN_PART_UM2 = 1600.0  # of a region or a hole: less than half a tile of 224 px at 40x
COLOUR = (200, 0, 0)
LEARNT_FROM = "the tumours that the segmenter learnt from"
TINT = 0.35  # of the colour, in the overlay


@dataclass(frozen=True)
class TumourMap:
    """The probability of tumour in every cell of a slide.

    Attributes:
        probability: (rows, columns) float32; 0 where there is no tissue.
        grid: the slide's cells.
        threshold: from which a cell is called tumour.
        size_l0: the slide's (width, height).
        bounds_l0: (x, y) of the scanned part's corner, which QuPath counts from.
        ratio: distance of what is called tumour to the tumours that the segmenter learnt from, in multiples
            of the largest that one of these has to the others; above 1 unusual, above 1.5 unlike. NaN where
            it is not known, or hardly anything is called tumour.
    """

    probability: NDArray[np.float32]
    grid: CellGrid
    threshold: float
    size_l0: tuple[int, int]
    bounds_l0: tuple[int, int] = (0, 0)
    ratio: float = math.nan

    @property
    def unlike(self) -> str:
        """Why the outline cannot be relied on: it holds no tumour such as was learnt; else empty."""
        return self._distance if self.ratio > UNLIKE else ""

    @property
    def note(self) -> str:
        """A remark on an outline whose tumour is unusual or unlike; empty if it is neither."""
        beware = ", so that the outline cannot be relied on" * bool(self.unlike)
        return f"{self._distance[0].upper()}{self._distance[1:]}{beware}." if self._distance else ""

    @property
    def _distance(self) -> str:
        words = describe_distance(self.ratio, LEARNT_FROM)
        return f"what is called tumour is {words}" if words else ""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(rows, columns) True where a cell is called tumour."""
        return self.grid.tissue & (self.probability >= self.threshold)

    @property
    def tumour_of_tissue(self) -> float:
        """Fraction of the tissue that is called tumour; NaN without tissue."""
        tissue = int(self.grid.tissue.sum())
        return float(self.mask.sum() / tissue) if tissue else float("nan")

    @property
    def tumour_mm2(self) -> float:
        """Area that is called tumour."""
        return float(self.mask.sum()) * CELL_UM**2 / 1e6

    @cached_property
    def region(self) -> Region:
        """What is called tumour, as polygons with holes in level-0 pixels, smooth to 5 micrometres."""
        values: NDArray[Any] = ndimage.zoom(
            self.probability, float(FINER), order=1, grid_mode=True, mode="nearest"
        )
        fine = values >= self.threshold
        fine &= self.grid.tissue.repeat(FINER, axis=0).repeat(FINER, axis=1)
        (width, height), (rows, columns) = self.grid.side_l0, self.grid.shape
        outline = polygons_from_mask(fine, (columns * width, rows * height))
        smooth = polygonal_parts(shapely.simplify(outline, 0.5 * max(width, height) / FINER))
        within = polygonal_parts(shapely.clip_by_rect(smooth, 0, 0, *self.size_l0))
        least = MIN_PART_UM2 / CELL_UM**2 * width * height
        parts = [_without_specks(part, least) for part in shapely.get_parts(within)]
        large = [part for part in parts if part.area >= least]
        return polygonal_parts(shapely.set_precision(MultiPolygon(large), 0.01))

    def mean_probability(self, part: Polygon) -> float:
        """The mean over the tissue whose middle lies in a polygon; NaN without any."""
        width, height = self.grid.side_l0
        left, top, right, bottom = part.bounds
        rows = slice(int(top / height), int(bottom / height) + 1)
        columns = slice(int(left / width), int(right / width) + 1)
        values, tissue = self.probability[rows, columns], self.grid.tissue[rows, columns]
        row, column = np.indices(values.shape)
        x, y = (columns.start + column + 0.5) * width, (rows.start + row + 0.5) * height
        inside = tissue & shapely.contains_xy(part, x, y)
        return float(values[inside].mean()) if inside.any() else float("nan")


def smooth_over_tissue(
    probability: NDArray[np.float32], tissue: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Probabilities smoothed over neighbouring tissue; glass beside it has no say.

    Args:
        probability: (rows, columns).
        tissue: (rows, columns).

    Returns:
        (rows, columns) float32, 0 where there is no tissue.
    """
    weights = ndimage.gaussian_filter(tissue.astype(np.float32), SMOOTHING_CELLS)
    sums = ndimage.gaussian_filter(np.where(tissue, probability, 0), SMOOTHING_CELLS)
    smooth = np.where(tissue, sums / np.maximum(weights, 1e-6), 0)
    return np.asarray(smooth.clip(0, 1), dtype=np.float32)


def write_geojson(path: Path, tumour: TumourMap, class_name: str) -> None:
    """Write the region for QuPath, to be looked at, corrected and read again as an annotation.

    Args:
        path: of the file.
        tumour: with the region.
        class_name: of the annotations that were learnt from; the class is derived from it, as
            ``Tumor: Predicted``, so that whatever reads the one reads the other.
    """
    name = f"{class_name}: {PREDICTED}"
    x, y = tumour.bounds_l0
    features = [
        {
            "type": "Feature",
            "id": _identifier(part),
            "geometry": mapping(translate(part, -x, -y)),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(COLOUR)},
                "measurements": {"Mean probability": round(tumour.mean_probability(part), 4)},
            },
        }
        for part in shapely.get_parts(tumour.region)
    ]
    write_atomic(path, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")


def write_probability(path: Path, tumour: TumourMap) -> None:
    """Write the probabilities as a grey PNG, one pixel per cell, white where tumour is certain."""
    text = PngImagePlugin.PngInfo()
    text.add_text("micrometres per pixel", f"{CELL_UM:g}")
    text.add_text("threshold", f"{255 * tumour.threshold:.0f} of 255")
    grey = Image.fromarray(np.round(255 * tumour.probability).astype(np.uint8))
    with atomic_path(path) as temporary:
        grey.save(temporary, "PNG", pnginfo=text)


def draw_overlay(overview: Image.Image, tumour: TumourMap) -> Image.Image:
    """The overview of a slide with what is called tumour tinted and outlined.

    Args:
        overview: of the whole slide.
        tumour: of the same slide.
    """
    scale = np.divide(overview.size, tumour.size_l0)
    inside = _rasterise(tumour.region, overview.size, scale)
    edge = ndimage.binary_dilation(inside, iterations=2) & ~inside
    picture = np.asarray(overview).astype(np.float32)
    picture[inside] = (1 - TINT) * picture[inside] + TINT * np.array(COLOUR)
    picture[edge] = COLOUR
    return Image.fromarray(picture.astype(np.uint8))


def _rasterise(
    region: Region, size: tuple[int, int], scale: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(H, W) True inside a region."""
    mask = np.zeros((size[1], size[0]), dtype=np.bool_)
    for part in shapely.get_parts(region):
        image = Image.new("1", size)
        draw = ImageDraw.Draw(image)
        for ring, fill in [(part.exterior, 1), *((hole, 0) for hole in part.interiors)]:
            draw.polygon([tuple(point) for point in np.asarray(ring.coords) * scale], fill=fill)
        mask |= np.asarray(image)
    return mask


def _without_specks(part: Polygon, least: float) -> Polygon:
    """A polygon without its smallest holes."""
    holes = [hole for hole in part.interiors if Polygon(hole).area >= least]
    return Polygon(part.exterior, holes)


def _identifier(part: Polygon) -> str:
    """A name that follows from the outline: the same region is the same object."""
    digest = hashlib.sha256(shapely.to_wkb(part)).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
