"""Films: a volume as a contact sheet of its slices, which all that reads slides can read.

A film is a TIFF of square cells, row by row from the top left, one for each transversal slice. The three
channels of a cell show three modalities, one modality three times, or a slice between its neighbours. What
the cells show and where they lie in the patient is in the file's description, so that a film is one file.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from features.errors import SlideError
from features.files.atomic import atomic_path
from features.tiles.grid import TileGrid
from features.volumes.facts import VolumeFacts

TITLE = "sarcomil film "  # begins the description of the file
BLOCK_PX = 256  # side of a block of the TIFF, which viewers read one by one


def columns_for(n_cells: int) -> int:
    """How many cells stand in a row of a film, so that it is about square."""
    return math.ceil(math.sqrt(n_cells))


def lay_out(cells: NDArray[np.generic], columns: int) -> NDArray[np.generic]:
    """(N, side, side, ...) cells as one sheet, (rows x side, columns x side, ...); empty places are 0."""
    n, side = cells.shape[:2]
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * columns, *cells.shape[1:]), cells.dtype)
    sheet[:n] = cells
    grid = sheet.reshape(rows, columns, side, side, *cells.shape[3:])
    return grid.swapaxes(1, 2).reshape(rows * side, columns * side, *cells.shape[3:])


def write_film(
    path: Path, cells: NDArray[np.uint8], facts: VolumeFacts, notes: Sequence[str] = ()
) -> None:
    """Write a film; it appears complete or not at all.

    Args:
        path: ``<name>.film.tiff``.
        cells: (N, tile_px, tile_px, 3), in the order of ``facts``.
        facts: of the cells.
        notes: what was assumed or left out, for who reads the film later.

    Raises:
        OSError: the disk is full or not writable.
    """
    assert cells.shape == (len(facts), facts.tile_px, facts.tile_px, 3), "cells and facts differ"
    per_cm = 10 / facts.pixel_mm
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            lay_out(cells, facts.columns),
            photometric="rgb",
            tile=(BLOCK_PX, BLOCK_PX),
            compression="adobe_deflate",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            description=f"{TITLE}{facts.to_json()}\n{json.dumps(list(notes))}",
            metadata=None,
            software=False,
        )


def read_facts(path: Path) -> VolumeFacts:
    """What the cells of a film show.

    Raises:
        SlideError: it is no film, or is damaged.
    """
    return _read_description(path)[0]


def is_whole(path: Path) -> bool:
    """Whether a film has all its pixels, by its length; a copy that broke off has its description alone."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            ends = [a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        return max(ends) <= path.stat().st_size
    except (OSError, ValueError, tifffile.TiffFileError, IndexError):
        return False


def read_notes(path: Path) -> tuple[str, ...]:
    """What was assumed or left out when a film was laid out.

    Raises:
        SlideError: it is no film, or is damaged.
    """
    return _read_description(path)[1]


def _read_description(path: Path) -> tuple[VolumeFacts, tuple[str, ...]]:
    try:
        with tifffile.TiffFile(path) as file:
            description = file.pages.first.description
        if not description.startswith(TITLE):
            raise ValueError("its description is another's")
        facts, _, notes = description.removeprefix(TITLE).partition("\n")
        return VolumeFacts.from_json(facts), tuple(json.loads(notes or "[]"))
    except (OSError, ValueError, tifffile.TiffFileError, IndexError, KeyError) as error:
        raise SlideError(
            f"{path}: cannot be read as a film of a volume ({error}). Lay the volume out again."
        ) from error


@dataclass(frozen=True)
class FilmTiles:
    """The cells of a film, or some of them, as tiles.

    Attributes:
        path: the film.
        facts: of all its cells.
        cells: (M,) the numbers of the cells.
    """

    path: Path
    facts: VolumeFacts
    cells: NDArray[np.int64]

    @property
    def grid(self) -> TileGrid:
        """Where the tiles lie on the film."""
        facts = self.facts
        return TileGrid(
            coords_l0=facts.corners[self.cells],
            coverage=np.array(facts.coverage, np.float32)[self.cells],
            tile_px=facts.tile_px,
            mpp=self.mpp_l0,
            side_l0=(float(facts.tile_px), float(facts.tile_px)),
        )

    @property
    def mpp_l0(self) -> float:
        """Micrometres per pixel of the film."""
        return self.facts.pixel_mm * 1000

    @property
    def size_l0(self) -> tuple[int, int]:
        """(width, height) of the film in pixels."""
        rows = math.ceil(len(self.facts) / self.facts.columns)
        return self.facts.columns * self.facts.tile_px, rows * self.facts.tile_px

    @property
    def volume(self) -> VolumeFacts:
        """What the cells show."""
        return self.facts

    def picture(self, max_px: int) -> Image.Image:
        """The whole film, its longest side at most ``max_px``."""
        picture = Image.fromarray(self.pixels)
        picture.thumbnail((max_px, max_px))
        return picture

    def note(self, _target_mpp: float) -> str:
        """What to know of its scale; nothing, as a film was laid out at the scale that was asked for."""
        return ""

    def select(self, rows: NDArray[np.int64]) -> "FilmTiles":
        """Some of its tiles."""
        return FilmTiles(self.path, self.facts, self.cells[rows])

    def read(self, index: int) -> NDArray[np.uint8]:
        """Tile ``index``, (tile_px, tile_px, 3)."""
        x, y = self.facts.corners[self.cells[index]]
        side = self.facts.tile_px
        return self.pixels[y : y + side, x : x + side]

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The whole film, (height, width, 3)."""
        width, height = self.size_l0
        try:
            pixels: NDArray[np.uint8] = tifffile.imread(self.path)
        except (OSError, ValueError, RuntimeError, tifffile.TiffFileError) as error:
            raise SlideError(
                f"{self.path}: cannot be read ({error}). Lay the volume out again."
            ) from error
        if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
            raise SlideError(
                f"{self.path}: has {pixels.shape} pixels and not {(height, width, 3)}. Lay the volume out "
                "again."
            )
        return pixels


def open_film(path: Path) -> FilmTiles:
    """The tiles of a film.

    Raises:
        SlideError: it is no film, or is damaged.
    """
    facts = read_facts(path)
    return FilmTiles(path, facts, np.arange(len(facts)))


def check_film(path: Path, volume: VolumeFacts | None) -> None:
    """Refuse a film that is not the one that a bag was made of: its cells would be other slices.

    Args:
        path: of the film.
        volume: what the bag knows of it; None for a bag of slides, to which anything fits.

    Raises:
        SlideError: it was laid out of other files, or in another way, or is no film.
    """
    if volume and read_facts(path).request_sha256 != volume.request_sha256:
        raise SlideError(
            f"{path} was laid out of other files, or in another way, than the film that its bag was made of. "
            "Extract the volumes again."
        )


def check_alike(films: Sequence[tuple[str, VolumeFacts]]) -> None:
    """Refuse films of one store that were prepared in different ways.

    Raises:
        SlideError: a recipe is another.
    """
    (first, facts), *others = films
    for name, other in others:
        differing = [
            key
            for key in sorted({*facts.recipe, *other.recipe})
            if facts.recipe.get(key) != other.recipe.get(key)
        ]
        if differing or other.channels != facts.channels:
            raise SlideError(
                f"{name} and {first} were prepared in different ways ({', '.join(differing) or 'channels'})."
                " Lay them out with the same settings."
            )
