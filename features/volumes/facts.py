"""What a bag knows of the volume that its tiles show: where each lies in the patient, and the scan."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.stored import all_of_stored

LEAST_ML = 0.1  # smaller regions have digits in place of decimals


def format_ml(size_ml: float, decimals: int = 2) -> str:
    """Millilitres with so many decimals, or three digits for regions of micro-CT; NaN as nothing."""
    if math.isnan(size_ml):
        return ""
    return f"{size_ml:.{decimals}f}" if size_ml >= LEAST_ML else f"{size_ml:.3g}"


@dataclass(frozen=True, kw_only=True)
class VolumeFacts:
    """The cells of a film in the frame of the patient, and facts of the scan that features may betray.

    Positions are in the patient's frame of DICOM, LPS: x to the left, y to the back, z to the head.

    Attributes:
        channels: what red, green and blue show: names of modalities, or of one with the distance in slices.
        tile_px: side of a cell in pixels of the film.
        columns: cells in a row of the film.
        pixel_mm: side of a pixel.
        slice_mm: distance between slices.
        positions_mm: (x, y, z) of the centre of every cell, in the order of the film.
        coverage: tumour as a share of every cell.
        direction: of columns, rows and slices in the patient, nine numbers row by row.
        frame_of_reference: its UID; empty if unknown.
        sources: fingerprints of the voxels of every modality, whatever file they were read from.
        scan: facts of the scan of every modality by name, such as ``manufacturer`` or ``slice_thickness_mm``.
        tumour_ml: volume of the region of interest in millilitres; NaN if none was drawn.
        recipe: how the volume was prepared.
        trained_on: cases that a network has learnt from which has drawn the region; empty for a person's.
        trained_on_slides: fingerprints of their images, as ``sources``.
        request_sha256: fingerprint of the recipe and of the files that the film was made of.
    """

    channels: tuple[str, ...]
    tile_px: int
    columns: int
    pixel_mm: float
    slice_mm: float
    positions_mm: tuple[tuple[float, float, float], ...]
    coverage: tuple[float, ...]
    direction: tuple[float, ...]
    frame_of_reference: str = ""
    sources: tuple[str, ...] = ()
    scan: Mapping[str, Mapping[str, str | float]]
    tumour_ml: float = math.nan
    trained_on: tuple[str, ...] = ()
    trained_on_slides: tuple[str, ...] = ()
    request_sha256: str = ""
    recipe: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.positions_mm)

    @property
    def corners(self) -> NDArray[np.int64]:
        """(N, 2) the top-left corner (x, y) of every cell, in pixels of the film."""
        row, column = np.divmod(np.arange(len(self)), self.columns)
        return np.stack([column, row], axis=1).astype(np.int64) * self.tile_px

    def cells_of(self, coords_l0: NDArray[np.int64]) -> NDArray[np.int64]:
        """(M,) the numbers of the cells with these corners, (M, 2)."""
        column, row = (coords_l0 // self.tile_px).T
        cells: NDArray[np.int64] = row * self.columns + column
        return cells

    def positions_of(self, coords_l0: NDArray[np.int64]) -> NDArray[np.float64]:
        """(M, 3) millimetres, LPS: the centres of the cells with these corners, (M, 2)."""
        return np.array(self.positions_mm)[self.cells_of(coords_l0)]

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "VolumeFacts":
        """From text.

        Raises:
            ValueError: it is another text.
        """
        values = json.loads(text)
        try:
            return all_of_stored(cls, values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not the facts of a volume ({error})") from error
