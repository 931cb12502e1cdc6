"""What an annotation says of every cell of a slide: tumour, no tumour, or nothing."""

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon

from features.lowpower.feature_map import CellGrid
from features.regions.annotation_frame import find_frame
from features.regions.drawing import Drawing, Region, polygonal_parts
from features.regions.masks import coverage, polygons_from_mask
from features.slides.slide import Slide
from mil.segmentation.settings import SegmentSettings

SURE = 0.95  # of a cell
CALLED = 0.5  # of a cell that is tumour, where it is judged


@dataclass(frozen=True)
class Target:
    """What is to be learnt of a slide's cells, and judged on them.

    Attributes:
        tumour: (rows, columns) float32, the fraction of each cell that is tumour.
        known: (rows, columns) True where the annotation says what a cell is; the others count nowhere.
        tissue: (rows, columns) True where there is tissue.
        full: whether all tumour of the slide is drawn.
        region: the drawn tumour less what is excluded, in level-0 pixels.
        everything: all that is drawn, likewise.
    """

    tumour: NDArray[np.float32]
    known: NDArray[np.bool_]
    tissue: NDArray[np.bool_]
    full: bool
    region: Region = field(default_factory=MultiPolygon)
    everything: Region = field(default_factory=MultiPolygon)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Cells that are to be called tumour."""
        return self.known & (self.tumour >= CALLED)

    @property
    def negative(self) -> NDArray[np.bool_]:
        """Cells that are not to be called tumour, glass among them."""
        return self.known & (self.tumour < CALLED)

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Cells that lie on one side of an outline, which a head is fitted to."""
        return self.known & ((self.tumour > SURE) | (self.tumour < 1 - SURE))


def make_target(
    slide: Slide, grid: CellGrid, drawing: Drawing, settings: SegmentSettings, *, full: bool
) -> Target:
    """Rasterise an annotation by the exact coverage of every cell.

    On a slide that is annotated in full, all that is not drawn as tumour is no tumour. On one that is
    annotated in part, only glass, the holes of drawn tumour and the negative classes are; the rest is
    unknown. Excluded areas are unknown on both, and so are cells drawn as both, and glass inside tumour.

    Args:
        slide: an open slide.
        grid: its cells.
        drawing: its annotation.
        settings: names of the classes.
        full: whether all tumour is drawn.

    Raises:
        AnnotationError: no annotation has a class that means tumour or no tumour, or it lies outside the
            slide.
    """
    drawn = drawing.union(settings.classes)
    other = drawing.union(settings.negative_classes)
    if drawn.is_empty and other.is_empty:
        drawing.region((*settings.classes, *settings.negative_classes))  # lists what there is
    everything = polygonal_parts(shapely.union_all([a.polygon for a in drawing.annotations]))
    origin = drawing.origin if settings.annotation_origin == "auto" else settings.annotation_origin
    size_l0 = slide.size_l0
    frame = find_frame(everything, slide, origin, lambda: polygons_from_mask(grid.tissue, size_l0))

    def share(region: Region) -> NDArray[np.float32]:
        return _cover(polygonal_parts(translate(region, *frame.offset_l0)), grid)

    excluded = drawing.union(settings.exclude)
    tumour, other_share = share(drawn), share(other)
    negative = np.maximum(other_share, share(_holes(drawn)))
    negative = np.where(grid.tissue & (not full), negative, 1 - tumour)
    known = tumour + negative >= SURE
    known &= share(excluded) == 0
    known &= tumour + other_share <= 2 - SURE  # else drawn as both
    known &= grid.tissue | (tumour < 1 - SURE)
    region = polygonal_parts(translate(drawn - excluded, *frame.offset_l0))
    everything = polygonal_parts(translate(everything, *frame.offset_l0))
    return Target(tumour, known, grid.tissue, full, region, everything)


def unknown_target(grid: CellGrid) -> Target:
    """Of a slide on which nothing is drawn."""
    nothing = np.zeros(grid.shape, dtype=np.float32)
    return Target(nothing, nothing > 0, grid.tissue, full=False)


def _cover(region: Region, grid: CellGrid) -> NDArray[np.float32]:
    """The exact fraction of each cell in a region; cells far from it cost nothing."""
    shares = np.zeros(grid.shape, dtype=np.float32)
    if region.is_empty:
        return shares
    width, height = grid.side_l0
    left, top, right, bottom = region.bounds
    rows = slice(max(0, int(top / height)), max(0, int(bottom / height) + 1))
    columns = slice(max(0, int(left / width)), max(0, int(right / width) + 1))
    row, column = (numbers.ravel() for numbers in np.indices(grid.shape)[:, rows, columns])
    part = coverage(region, column * width, row * height, grid.side_l0)
    shares[rows, columns] = part.reshape(shares[rows, columns].shape)
    return shares


def _holes(region: Region) -> Region:
    """What drawn tumour leaves out inside itself, as necrosis."""
    holes = [Polygon(hole) for part in shapely.get_parts(region) for hole in part.interiors]
    return polygonal_parts(shapely.union_all(holes) - region)
