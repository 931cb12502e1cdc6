"""A patient's volumes as the cells of a film: one grid, slices and field of a region, grey of 8 bits."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.contours import Mask
from features.volumes.facts import VolumeFacts
from features.volumes.film import columns_for
from features.volumes.grid import (
    Box,
    box_of,
    crop_mask,
    grid_of_spacing,
    resample,
    resample_mask,
    share_beyond,
    share_grid,
    square_box,
    whole_box,
)
from features.volumes.intensity import correct_bias, scale_min_max, scale_z, window
from features.volumes.recipe import VolumeRecipe
from features.volumes.volume import PLANES, Grid, Volume

Z_RANGE = 4.0  # standard deviations on either side that 8 bits hold
WHITE = 255
MIN_BEYOND = 0.0005  # of a region; less is rounded to nothing
MOST_BEYOND = 0.5  # of a region: a modality that shows less of it is of another place
FLAT = 0.95  # of the pixels
EDGE = 3  # voxels round what cells show, for the interpolation of the region
HALF = 0.5


@dataclass(frozen=True)
class Cells:
    """The cells of a film.

    Attributes:
        pixels: (N, tile, tile, 3) uint8.
        inside: (N, tile, tile) the region.
        facts: of the cells.
        notes: what to know, as a region that does not fit into a cell.
    """

    pixels: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    facts: VolumeFacts
    notes: tuple[str, ...]


def make_cells(volumes: Mapping[str, Volume], mask: Mask, recipe: VolumeRecipe) -> Cells:
    """Cut the slices of a region out of all modalities.

    Args:
        volumes: by modality, in one frame of reference; at least those of ``recipe.channels``.
        mask: the region, on the grid of one of them, whose slices are taken; without a name it is no tumour,
            but all of a volume.
        recipe: which slices, what they show, and at what scale.

    Raises:
        VolumeError: the region is empty, or volumes lie in different frames of reference or apart.
    """
    if not mask.values.any():
        raise VolumeError(
            f"{mask.name or 'The region'} is empty: there are no slices to take. Draw it again."
        )
    spacing = _spacing(mask, recipe)
    near = _near(mask, spacing, recipe)
    region = resample_mask(near, grid_of_spacing(near.grid, spacing))
    first, last = _slices(region, recipe)
    extra = int(recipe.neighbours)
    region = crop_mask(region, _cell_box(region, recipe, first - extra, last + extra))
    grid = region.grid
    names = tuple(dict.fromkeys(recipe.channels))
    prepared = {name: _corrected(volumes[name], name, recipe) for name in names}
    tissue = {name: _z_scaled(volume, name, recipe) for name, volume in prepared.items()}
    placed = share_grid(tissue, grid)
    shown = {name: _shown(region, recipe) & _exists(volumes[name], grid) for name in names}
    grey = {name: _grey(placed[name], shown[name], name, recipe) for name in names}
    rows = np.arange(last - first)
    if recipe.slices == "region":
        rows = np.flatnonzero(region.values[extra : extra + len(rows)].any(axis=(1, 2)))
    pixels = np.stack(_channels(grey, recipe), axis=-1)[rows]
    inside = region.values[extra + rows]
    facts = VolumeFacts(
        channels=_channel_names(recipe),
        tile_px=recipe.tile,
        columns=columns_for(len(inside)),
        pixel_mm=grid.spacing_mm[0],
        slice_mm=grid.spacing_mm[2],
        positions_mm=_centres(grid, extra + rows),
        coverage=tuple(float(value) for value in inside.mean(axis=(1, 2))),
        direction=tuple(float(value) for value in grid.direction.ravel()),
        frame_of_reference=next(
            (v.frame_of_reference for v in volumes.values() if v.frame_of_reference), ""
        ),
        sources=tuple(voxels_sha256(volumes[name]) for name in names),
        scan={name: _scan(volumes[name]) for name in names},
        tumour_ml=mask.drawn_ml if mask.name else math.nan,
        trained_on=mask.trained_on,
        trained_on_slides=mask.trained_on_slides,
        recipe=recipe.to_json(),
    )
    notes = (*mask.notes, *_overhang(region, box_of(mask), mask, recipe))
    notes += (*_gaps_in_view(shown, _shown(region, recipe)), *_flat_notes(grey, shown))
    return Cells(pixels, inside, facts, (*_notes(prepared, mask), *notes))


def voxels_sha256(volume: Volume) -> str:
    """Fingerprint of a volume's voxels in the patient's order, whatever file they were read from."""
    digest = hashlib.sha256(f"{volume.values.shape}".encode())
    digest.update(np.ascontiguousarray(volume.values, dtype="<f4").data)
    return digest.hexdigest()


def _spacing(mask: Mask, recipe: VolumeRecipe) -> tuple[float, float, float]:
    """Of the cells: that of the recipe, or what makes the box of the region as wide as a cell."""
    x, y, z = mask.grid.spacing_mm
    pixel = recipe.pixel_mm
    if pixel == 0:
        box = box_of(mask, (recipe.margin_mm, recipe.margin_mm, 0.0))
        pixel = max(box.shape[1] * y, box.shape[2] * x) / recipe.tile
    return pixel, pixel, recipe.slice_mm or z


def _near(mask: Mask, spacing_mm: tuple[float, float, float], recipe: VolumeRecipe) -> Mask:
    """The part of a region's grid that cells can show, so that no whole body is made as fine as they are."""
    box, side_mm = box_of(mask), recipe.tile * spacing_mm[0]
    start, stop = list(box.start), list(box.stop)
    for axis, step in ((1, mask.grid.spacing_mm[1]), (2, mask.grid.spacing_mm[0])):
        middle, reach = (box.start[axis] + box.stop[axis]) / 2, side_mm / 2 / step + EDGE
        start[axis], stop[axis] = math.floor(middle - reach), math.ceil(middle + reach)
    if recipe.show == "whole":
        start[1:], stop[1:] = (0, 0), mask.grid.shape[1:]
    if recipe.slices == "all":
        start[0], stop[0] = 0, mask.grid.shape[0]
    else:
        margin = recipe.margin_mm if recipe.slices == "margin" else 0.0
        rows = math.ceil(margin / mask.grid.spacing_mm[2])
        start[0] = max(start[0] - rows, 0)
        stop[0] = min(stop[0] + rows, mask.grid.shape[0])
    return crop_mask(mask, Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])))


def _exists(volume: Volume, grid: Grid) -> NDArray[np.bool_]:
    """(z, y, x) whether a place lies in the image; beyond it there is neither air nor tissue."""
    everywhere = replace(volume, values=np.ones_like(volume.values), modality="")
    inside: NDArray[np.bool_] = resample(everywhere, grid).values > HALF
    return inside


def _slices(region: Mask, recipe: VolumeRecipe) -> tuple[int, int]:
    """The first slice, and the one after the last."""
    area = region.values.sum(axis=(1, 2))
    if recipe.slices == "largest":
        largest = int(area.argmax())
        return largest, largest + 1
    if recipe.slices == "all":
        return 0, len(area)
    margin = recipe.margin_mm if recipe.slices == "margin" else 0.0
    box = box_of(region, (0.0, 0.0, margin))
    return max(box.start[0], 0), min(box.stop[0], len(area))


def _cell_box(region: Mask, recipe: VolumeRecipe, first: int, last: int) -> Box:
    """A square of the side of a cell, in the middle of the region or of the slice."""
    middle = whole_box(region.grid) if recipe.show == "whole" else box_of(region)
    square = square_box(middle, recipe.tile)
    return Box((first, *square.start[1:]), (last, *square.stop[1:]))


def _corrected(volume: Volume, name: str, recipe: VolumeRecipe) -> Volume:
    return correct_bias(volume) if name in recipe.n4 else volume


def _z_scaled(volume: Volume, name: str, recipe: VolumeRecipe) -> Volume:
    """In standard deviations of the tissue of the whole volume, where the recipe asks for that."""
    if recipe.scaling != "z-score" or name in recipe.limits:
        return volume
    return scale_z(volume)


def _shown(region: Mask, recipe: VolumeRecipe) -> NDArray[np.bool_]:
    """(z, y, x) what the cells show."""
    if recipe.show == "masked":
        return region.values
    shown = np.zeros_like(region.values)
    if recipe.show == "whole":
        shown[:] = True
    elif region.values.any():
        box = box_of(region, (recipe.margin_mm, recipe.margin_mm, 0.0))
        (_, top, left), (_, bottom, right) = box.start, box.stop
        shown[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return shown


def _grey(
    volume: Volume, shown: NDArray[np.bool_], name: str, recipe: VolumeRecipe
) -> NDArray[np.uint8]:
    """(z, y, x) 8 bits of one modality; 0 beyond the field."""
    if not shown.any():
        return np.zeros(shown.shape, np.uint8)
    if name in recipe.limits:
        scaled = window(volume, *recipe.limits[name]).values
    elif recipe.scaling == "z-score":
        scaled = window(volume, -Z_RANGE, Z_RANGE).values
    else:
        within = replace(volume, values=np.where(shown, volume.values, volume.values[shown].min()))
        scaled = scale_min_max(within).values
    return np.where(shown, np.rint(scaled * WHITE), 0).astype(np.uint8)


def _channels(
    grey: Mapping[str, NDArray[np.uint8]], recipe: VolumeRecipe
) -> list[NDArray[np.uint8]]:
    if recipe.neighbours:
        [values] = grey.values()
        return [values[:-2], values[1:-1], values[2:]]
    names = recipe.channels * 3 if len(recipe.channels) == 1 else recipe.channels
    return [grey[name] for name in names]


def _channel_names(recipe: VolumeRecipe) -> tuple[str, ...]:
    if recipe.neighbours:
        return tuple(f"{recipe.channels[0]} {step}" for step in ("-1", "0", "+1"))
    return recipe.channels * 3 if len(recipe.channels) == 1 else recipe.channels


def _centres(grid: Grid, slices: NDArray[np.int64]) -> tuple[tuple[float, float, float], ...]:
    """LPS millimetres of the middle of every cell."""
    _, height, width = grid.shape
    index = np.array([[(width - 1) / 2, (height - 1) / 2, z] for z in slices])
    return tuple((float(x), float(y), float(z)) for x, y, z in np.round(grid.to_mm(index), 4))


def _scan(volume: Volume) -> dict[str, str | float]:
    in_plane = list(volume.spacing_mm)
    step = in_plane.pop(2 - volume.slice_axis)
    facts = {
        "plane": PLANES[volume.slice_axis],
        "pixel_spacing_mm": sum(in_plane) / 2,
        "slice_spacing_mm": step,
        **volume.facts,
    }
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()}


def _notes(volumes: Mapping[str, Volume], mask: Mask) -> list[str]:
    """What was assumed when the modalities were read, and how much of the region one does not show."""
    notes = [f"{name}: {note}" for name, volume in volumes.items() for note in volume.notes]
    for name, volume in volumes.items():
        if volume.slice_axis:
            step = volume.spacing_mm[2 - volume.slice_axis]
            notes.append(
                f"{name}: acquired in the {PLANES[volume.slice_axis]} plane, {step:.3g} mm apart; its "
                "transversal slices are interpolated"
            )
        beyond = share_beyond(mask, volume.grid) if mask.name else 0.0
        if beyond > MOST_BEYOND:
            raise VolumeError(
                f"{name}: {beyond:.0%} of the region lies beyond it. Check that both are of one patient and "
                "one examination, or register them (register)."
            )
        if beyond > MIN_BEYOND:
            notes.append(
                f"{name}: {beyond:.1%} of the region lies beyond it and is shown as nothing"
            )
    return notes


def _gaps_in_view(
    shown: Mapping[str, NDArray[np.bool_]], field: NDArray[np.bool_]
) -> tuple[str, ...]:
    """A note where a modality does not reach over all that the slices show."""
    shares = {name: 1 - values.sum() / field.sum() for name, values in shown.items()}
    return tuple(
        f"{name}: {share:.1%} of what slices show lies beyond its image and is black"
        for name, share in shares.items()
        if share > MIN_BEYOND
    )


def _flat_notes(
    grey: Mapping[str, NDArray[np.uint8]], shown: Mapping[str, NDArray[np.bool_]]
) -> tuple[str, ...]:
    """A note where nearly all of a modality is black or white, as with the window of another unit."""
    notes = []
    for name, values in grey.items():
        inside = values[shown[name]]
        flat = max(np.mean(inside == 0), np.mean(inside == WHITE)) if len(inside) else 0.0
        if flat > FLAT:
            notes.append(
                f"{name}: {flat:.0%} of it is black or white; check its window and its unit"
            )
    return tuple(notes)


def _overhang(region: Mask, box: Box, mask: Mask, recipe: VolumeRecipe) -> tuple[str, ...]:
    """A note where a cell does not hold the whole width of the region."""
    x, y, _ = mask.grid.spacing_mm
    widest_mm = max(box.shape[1] * y, box.shape[2] * x)
    side_mm = recipe.tile * region.grid.spacing_mm[0]
    if widest_mm <= side_mm:
        return ()
    return (
        f"the region is {widest_mm:.0f} mm wide and a slice shows {side_mm:.0f} mm: set pixel_mm to "
        f"{widest_mm / recipe.tile:.2f} or more to show all of it",
    )
