"""A slide with its tile scores painted on, as a pyramidal OME-TIFF for slide viewers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from features.errors import SlideError
from features.files.atomic import atomic_path
from features.slides.slide import Slide
from mil.explanation.heatmap import OPACITY, tile_colours
from mil.explanation.scores import TileScores

SIDE_PX = 512  # of a stored tile
FINEST_MPP = 1.0  # 10x: cells are still visible, and a slide of 10^10 pixels takes minutes
SMALLEST_PX = 1024  # longer side below which no further level is stored


def write_ome_tiff(
    path: Path, slide: Slide, scores: TileScores, *, mpp: float = FINEST_MPP
) -> None:
    """Write the slide with coloured tiles; the file appears complete or not at all.

    Each level is read from the slide and painted tile by tile, so that no level is in memory as a whole.

    Args:
        path: ``*.ome.tiff``.
        slide: the slide that was scored.
        scores: of its tiles.
        mpp: micrometres per pixel of the finest level; the slide's own if that is coarser.

    Raises:
        SlideError: the scores are of a slide of another size.
        TileError: pixels of the slide cannot be decoded.
    """
    if slide.size_l0 != scores.bag.size_l0:
        raise SlideError(
            f"{slide.path.name} has {slide.size_l0[0]} x {slide.size_l0[1]} pixels, but the scores of "
            f"{scores.bag.slide} are of {scores.bag.size_l0[0]} x {scores.bag.size_l0[1]}. Give the slide "
            "that was extracted."
        )
    finest = max(mpp, *slide.mpp)
    mpps = [finest]
    while max(_size_at(slide, mpps[-1])) > SMALLEST_PX:
        mpps.append(2 * mpps[-1])
    colours = tile_colours(scores)
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as tiff,
    ):
        for level, level_mpp in enumerate(mpps):
            width, height = _size_at(slide, level_mpp)
            tiff.write(
                _tiles(slide, scores, colours, level_mpp),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(SIDE_PX, SIDE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                subifds=0 if level else len(mpps) - 1,
                subfiletype=int(level > 0),
                resolution=(1e4 / level_mpp, 1e4 / level_mpp),
                resolutionunit="CENTIMETER",
                maxworkers=1,
                metadata=None if level else _ome_metadata(scores, level_mpp),
            )


def _ome_metadata(scores: TileScores, mpp: float) -> dict[str, object]:
    """Entries of the OME header."""
    return {
        "axes": "YXS",
        "Name": f"{scores.bag.slide}: {scores.method} of {scores.model}",
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
    }


def _size_at(slide: Slide, mpp: float) -> tuple[int, int]:
    """(width, height) in square pixels at a scale, even if the slide's own are not square."""
    width, height = (
        max(1, int(np.ceil(side * slide_mpp / mpp - 1e-6)))
        for side, slide_mpp in zip(slide.size_l0, slide.mpp, strict=True)
    )
    return width, height


def _tiles(
    slide: Slide, scores: TileScores, colours: NDArray[np.float32], mpp: float
) -> Iterator[NDArray[np.uint8]]:
    """The stored tiles of one level, row by row."""
    width, height = _size_at(slide, mpp)
    zoom = np.array(slide.mpp) / mpp  # pixels per level-0 pixel, (x, y)
    first = np.floor(np.round(scores.bag.coords_l0 * zoom, 3)).astype(int)  # (N, 2)
    last = np.ceil(np.round((scores.bag.coords_l0 + scores.bag.side_l0) * zoom, 3)).astype(int)
    for top in range(0, height, SIDE_PX):
        for left in range(0, width, SIDE_PX):
            corner = np.array([left, top])
            x_l0, y_l0 = (round(float(value)) for value in corner / zoom)
            pixels = slide.read(x_l0, y_l0, SIDE_PX, mpp).copy()
            inside = np.all((last > corner) & (first < corner + SIDE_PX), axis=1)
            starts, ends = np.clip(first - corner, 0, None), np.clip(last - corner, 0, None)
            for index in np.flatnonzero(inside):
                (x0, y0), (x1, y1) = starts[index], ends[index]
                covered = pixels[y0:y1, x0:x1]
                covered[:] = OPACITY * colours[index] + (1 - OPACITY) * covered
            yield pixels
