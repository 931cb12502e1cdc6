"""CPU time to read a tile by the file's own JPEG tiles, beside OpenSlide and the bare decoder.

    python -m benchmarks.reading [--rounds 5] [--slide FILE]

The candidates take turns in one process and one thread, each with a reader opened anew. CPU seconds
are the figure to trust; ratios are within one round. The limit decodes each JPEG tile once, from
memory, and does nothing else.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np
import openslide
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.table import print_table, save
from features.slides.jpeg_tiles import JpegTiles

SIDE, TILE, QUALITY = 7168, 256, 80
MAX_TILES = 800


def made_picture(side: int) -> NDArray[np.uint8]:
    """(side, side, 3): eosin in octaves, nuclei, glass and sensor noise, by optical densities."""
    rng = np.random.default_rng(0)

    def octave(cells: int) -> NDArray[np.float32]:
        field = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        return np.asarray(field.resize((side, side), Image.Resampling.BICUBIC))

    eosin = 0.4 * octave(side // 128) + 0.3 * octave(side // 16) + 0.3 * octave(side // 4)
    nuclei = np.clip((octave(side // 12) - 0.72) * 8, 0, 1)
    tissue = np.clip((octave(7) - 0.3) * 20, 0, 1)
    picture = np.empty((side, side, 3), np.uint8)
    for channel, (pink, blue) in enumerate([(0.1, 0.75), (0.7, 0.8), (0.25, 0.3)]):
        density = tissue * (pink * (0.25 + 0.5 * eosin) + blue * nuclei)
        noisy = 245 * np.exp(-density) + rng.normal(0, 6, (side, side))
        picture[..., channel] = np.clip(noisy, 0, 255)
    return picture


def write_slide(path: Path, side: int = SIDE) -> None:
    """Three levels (1, 4, 16) of 256 px JPEG tiles, Q80, 4:2:0."""
    finest = Image.fromarray(made_picture(side))
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 4, 16):
            tiff.write(
                np.asarray(finest.reduce(factor)),
                subfiletype=int(factor > 1),
                tile=(TILE, TILE),
                photometric="rgb",  # "ycbcr" would store RGB samples under that name: a pink slide
                compression="jpeg",
                compressionargs={"level": QUALITY},
                subsampling=(2, 2),
                resolution=(1e4 / (0.25 * factor), 1e4 / (0.25 * factor)),
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def corners(size: tuple[int, int], offset: int, side: int) -> list[tuple[int, int]]:
    """(x, y) of squares that lie inside, row by row."""
    xs, ys = (range(offset, length - side + 1, side) for length in size)
    return [(x, y) for y in ys for x in xs][: MAX_TILES * TILE**2 // side**2]


def read_openslide(slide: Path, where: Iterable[tuple[int, int]], side: int, out_px: int) -> float:
    with openslide.OpenSlide(slide) as handle:
        before = time.process_time()
        for corner in where:
            image = handle.read_region(corner, 0, (side, side)).convert("RGB")
            np.asarray(image if side == out_px else image.resize((out_px, out_px)))
        return time.process_time() - before


def read_own(slide: Path, where: Iterable[tuple[int, int]], side: int, out_px: int) -> float:
    with openslide.OpenSlide(slide) as handle:
        reader = JpegTiles.open(slide, handle)
    assert reader is not None, f"{slide} holds no JPEG tiles that can be read so"
    shrink = side // out_px
    before = time.process_time()
    for x, y in where:
        reader.read(0, shrink, x // shrink, y // shrink, out_px, out_px)
    spent = time.process_time() - before
    reader.close()
    return spent


def decode_once(slide: Path, where: Iterable[tuple[int, int]], side: int, out_px: int) -> float:
    """The limit: every JPEG tile under the squares once, from memory."""
    with openslide.OpenSlide(slide) as handle:
        reader = JpegTiles.open(slide, handle)
    assert reader is not None
    level, file, shrink = reader._stored[0], reader._file, side // out_px
    (tile_w, tile_h), needed = level.tile, set()
    for x, y in where:
        for row in range(y // tile_h, (y + side - 1) // tile_h + 1):
            columns = range(x // tile_w, (x + side - 1) // tile_w + 1)
            needed.update(row * level.across + column for column in columns)
    blobs = [level.jpeg(file, index) for index in sorted(needed)]
    reader.close()
    before = time.process_time()
    for blob in blobs:
        simplejpeg.decode_jpeg(blob, "RGB", min_height=tile_h // shrink, min_width=tile_w // shrink)
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slide", type=Path, help="a tiled JPEG slide; default: one made here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = asked.slide or Path(folder, "made.tif")
        if not asked.slide:
            write_slide(slide)
        rows = measure(slide, asked.rounds)
    header = ["what", "how", "CPU per item", "times OpenSlide", "share of the limit"]
    print_table(header, rows)
    settings = {
        "slide": asked.slide or f"made, {SIDE} px, Q{QUALITY} 4:2:0",
        "rounds": asked.rounds,
    }
    save("reading", header, rows, settings)


def measure(slide: Path, rounds: int) -> list[list[str]]:
    """Rows of the table."""
    with openslide.OpenSlide(slide) as handle:
        size = handle.dimensions
        tile = int(handle.properties["openslide.level[0].tile-width"])
    tasks = {
        f"{tile} px, aligned": (0, tile, tile),
        f"{tile} px, offset by {tile // 2}, row by row": (tile // 2, tile, tile),
        f"{2 * tile} px to {tile} px": (0, 2 * tile, tile),
    }
    ways: dict[str, Callable[..., float]] = {
        "OpenSlide": read_openslide,
        "own tiles": read_own,
        "limit": decode_once,
    }
    rows = []
    for task, (offset, side, out_px) in tasks.items():
        where = corners(size, offset, side)
        spent = [
            {name: way(slide, where, side, out_px) for name, way in ways.items()}
            for _ in range(rounds)
        ]
        for name in ways:
            ratio = [each["OpenSlide"] / each[name] for each in spent]
            share = [each["limit"] / each[name] for each in spent]
            rows.append(
                [
                    task,
                    name,
                    f"{1000 * median(each[name] for each in spent) / len(where):.3f} ms",
                    f"{min(ratio):.1f} to {max(ratio):.1f}",
                    f"{min(share):.0%} to {max(share):.0%}",
                ]
            )
    return rows


if __name__ == "__main__":
    main()
