"""All modalities of a patient on one grid, at the places that they have in millimetres."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import VolumeError
from features.volumes.contours import Mask
from features.volumes.grid import (
    Box,
    box_of,
    crop,
    crop_mask,
    grid_of_spacing,
    resample,
    resample_mask,
    share_grid,
    square_box,
    whole_box,
)
from features.volumes.volume import Grid, Volume, turn_to_lps

RNG = np.random.default_rng(6)
GRID = Grid((8, 20, 24), (1.0, 1.5, 3.0), (-4.0, 7.0, 11.0), np.eye(3))


def turned(degrees=20.0):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )


def field(grid, modality="MR", frame="1.2"):
    """A volume whose values are a plane in millimetres, which linear interpolation keeps."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)[..., ::-1]
    places = grid.to_mm(index.reshape(-1, 3).astype(float)).reshape(*grid.shape, 3)
    values = places @ np.array([2.0, -3.0, 5.0]) + 1000
    return Volume(values.astype(np.float32), grid, modality, frame)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_turning_to_lps_moves_no_voxel(seed):
    """The value at a place in mm is the same, whatever the order and direction of the stored axes."""
    rng = np.random.default_rng(seed)
    direction = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    grid = Grid((2, 3, 4), tuple(rng.uniform(0.5, 4, 3)), tuple(rng.normal(0, 50, 3)), direction)
    values = rng.integers(0, 99, grid.shape)
    moved, new, _ = turn_to_lps(values, grid)
    assert sorted(new.spacing_mm) == sorted(grid.spacing_mm)
    assert (np.diag(new.direction) > 0).sum() >= 2
    for k, j, i in np.ndindex(2, 3, 4):
        x, y, z = np.round(new.to_index(grid.to_mm(np.array([[i, j, k]], float)))[0]).astype(int)
        assert moved[z, y, x] == values[k, j, i]


def test_one_grid_changes_no_value():
    volume = field(GRID)
    nearly = replace(GRID, origin_mm=(-4.0 + 1e-4, 7.0, 11.0 - 2e-3))
    assert np.array_equal(resample(volume, nearly).values, volume.values)


@pytest.mark.parametrize(
    "grid",
    [
        Grid((10, 16, 12), (1.4, 1.1, 1.7), (0.3, 11.2, 13.5), np.eye(3)),
        Grid((6, 8, 10), (1.3, 1.3, 2.0), (4.0, 14.0, 17.0), turned()),
        Grid((3, 5, 4), (3.0, 4.0, 5.0), (1.0, 9.0, 14.0), np.eye(3)),
    ],
    ids=["finer", "oblique", "coarser"],
)
def test_a_value_stays_at_its_place(grid):
    """A linear field keeps its values; what lies beyond the volume by half a voxel is 0."""
    placed, wanted = resample(field(GRID), grid).values, field(grid).values
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)[..., ::-1]
    source = GRID.to_index(grid.to_mm(index.reshape(-1, 3).astype(float)))
    size = np.array(GRID.shape[::-1])
    within = ((source >= 0) & (source <= size - 1)).all(axis=1).reshape(grid.shape)
    beyond = ((source < -0.6) | (source > size - 0.4)).any(axis=1).reshape(grid.shape)
    assert within.any()
    assert np.abs(placed[within] - wanted[within]).max() < 0.12  # places are rounded to 1/96 voxel
    assert (placed[beyond] == 0).all()


def test_beyond_a_ct_there_is_air():
    grid = Grid((8, 20, 30), (1.0, 1.5, 3.0), (10.0, 7.0, 11.0), np.eye(3))
    assert (resample(field(GRID, "CT"), grid).values[..., -5:] == -1024).all()


@pytest.mark.parametrize("pixel_mm", [1.25, 0.5, 1 / 3, 22 / 96, 22 / 224, 19.53125 / 64, 0.77])
def test_what_float32_rounds_away_of_a_place_changes_no_value(pixel_mm):
    rng = np.random.default_rng(3)
    volume = Volume(rng.normal(size=GRID.shape).astype(np.float32), GRID)
    grid = replace(grid_of_spacing(GRID, (pixel_mm, pixel_mm, 3.0)), shape=(2, 9, 9))
    exact = resample(volume, grid).values
    for _ in range(20):
        noise = 1e-6 * rng.normal(size=3)
        stored = replace(
            GRID,
            origin_mm=tuple(np.array(GRID.origin_mm) + 20 * noise),
            spacing_mm=tuple(np.array(GRID.spacing_mm) * (1 + noise / 10)),
        )
        assert np.array_equal(resample(replace(volume, grid=stored), grid).values, exact)


def test_cubic_interpolation_stays_in_the_range_of_the_values():
    values = np.zeros(GRID.shape, np.float32)
    values[:, 8:12, 8:12] = 1198
    placed = resample(
        Volume(values, GRID), grid_of_spacing(GRID, (0.7,) * 3), interpolation="bspline"
    )
    assert placed.values.min() == 0
    assert placed.values.max() == 1198


def test_a_moved_volume_is_taken_from_where_it_lies():
    shift = np.eye(4)
    shift[:3, 3] = (2.0, -1.5, 3.0)
    there = replace(GRID, origin_mm=tuple(np.array(GRID.origin_mm) + shift[:3, 3]))
    volume = replace(field(GRID), grid=there)
    assert np.allclose(resample(volume, GRID, moved=shift).values, field(GRID).values, atol=1e-3)


def test_grids_keep_their_centre_and_cover_the_extent():
    for spacing in (0.4, 1.0, 2.3, 5.0):
        grid = grid_of_spacing(replace(GRID, direction=turned()), (spacing,) * 3)
        assert grid.spacing_mm == (spacing,) * 3
        centres = [g.to_mm((np.array([g.shape[::-1]], float) - 1) / 2)[0] for g in (grid, GRID)]
        turned_grid = replace(GRID, direction=turned())
        centres[1] = turned_grid.to_mm((np.array([GRID.shape[::-1]], float) - 1) / 2)[0]
        assert np.allclose(*centres)
        extents = [np.array(g.shape[::-1]) * g.spacing_mm for g in (grid, GRID)]
        assert (extents[0] >= extents[1] - 1e-2 * spacing).all()
        assert (extents[0] < extents[1] + spacing).all()


@pytest.mark.parametrize(
    ("spacing", "words"), [(0.0, "above 0"), (-1, "above 0"), (0.001, "voxels")]
)
def test_grids_that_cannot_be(spacing, words):
    with pytest.raises(VolumeError, match=words):
        grid_of_spacing(GRID, (spacing, 1.0, 0.01))


def ball(grid, centre_mm, radius_mm):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)[..., ::-1]
    places = grid.to_mm(index.reshape(-1, 3).astype(float))
    inside = np.linalg.norm(places - centre_mm, axis=1) < radius_mm
    return Mask(inside.reshape(grid.shape), grid, "ball")


def test_a_region_keeps_its_shape_on_a_finer_grid():
    mask = ball(GRID, (7.0, 21.0, 21.0), 8.0)
    fine = grid_of_spacing(GRID, (1.0,) * 3)
    moved, true = resample_mask(mask, fine).values, ball(fine, (7.0, 21.0, 21.0), 8.0).values
    volume = Volume(mask.values.astype(np.float32), GRID)
    steps = resample(volume, fine, interpolation="nearest").values > 0
    dice = [2 * (one & true).sum() / (one.sum() + true.sum()) for one in (moved, steps)]
    assert dice[0] > 0.94
    assert dice[0] > dice[1] + 0.02
    assert moved.sum() * 1e-3 == pytest.approx(mask.volume_ml, rel=0.06)


def test_a_region_elsewhere_or_too_small_is_an_error():
    mask = ball(GRID, (7.0, 21.0, 21.0), 8.0)
    with pytest.raises(VolumeError, match="ball has no voxel on the grid"):
        resample_mask(mask, replace(GRID, origin_mm=(400.0, 0.0, 0.0)))
    with pytest.raises(VolumeError, match="ball is empty"):
        resample_mask(
            replace(mask, values=np.zeros(GRID.shape, bool)), grid_of_spacing(GRID, (1.0,) * 3)
        )


def test_modalities_share_a_grid_in_one_frame_alone():
    other = Grid((12, 24, 24), (1.4, 1.4, 2.1), (-6.0, 4.0, 9.0), np.eye(3))
    volumes = {"T1": field(GRID), "CT": field(other, "CT"), "made": field(other, frame="")}
    placed = share_grid(volumes, GRID)
    assert {one.grid.is_same_as(GRID) for one in placed.values()} == {True}
    assert placed["T1"].values is volumes["T1"].values
    assert np.abs(placed["CT"].values - placed["T1"].values).max() < 0.12
    with pytest.raises(VolumeError, match="T1 and CT lie in different frames of reference"):
        share_grid(volumes | {"CT": field(other, "CT", "1.3")}, GRID)
    far = replace(other, origin_mm=(300.0, 4.0, 9.0))
    with pytest.raises(
        VolumeError, match=r"CT does not overlap the target grid, from which it is 280\.3 mm away"
    ):
        share_grid({"T1": field(GRID), "CT": field(far, "CT")}, GRID)


def test_a_box_holds_the_region_and_its_margin():
    values = np.zeros(GRID.shape, bool)
    values[2:4, 5:9, 10:11] = True
    mask = Mask(values, GRID, "GTV")
    assert box_of(mask) == Box((2, 5, 10), (4, 9, 11))
    assert box_of(mask, (2.0, 3.0, 10.0)) == Box((-2, 3, 8), (8, 11, 13))
    with pytest.raises(VolumeError, match="GTV is empty"):
        box_of(replace(mask, values=np.zeros(GRID.shape, bool)))


def test_what_is_cut_out_stays_at_its_place():
    box = Box((-2, 3, 8), (8, 11, 30))
    part = crop(field(GRID, "CT"), box)
    assert part.values.shape == (10, 8, 22)
    assert (part.values[:2] == -1024).all()
    assert (part.values[..., 16:] == -1024).all()
    inner = Box((0, 3, 8), (8, 11, 24))
    assert np.allclose(
        crop(field(GRID), inner).values, field(crop(field(GRID), inner).grid).values, atol=1e-3
    )
    assert crop(field(GRID), whole_box(GRID)).grid.is_same_as(GRID)
    mask = ball(GRID, (7.0, 21.0, 21.0), 8.0)
    assert crop_mask(mask, box_of(mask)).values.sum() == mask.values.sum()
    assert (crop(field(GRID), Box((50, 0, 0), (52, 2, 2))).values == 0).all()


@pytest.mark.parametrize("side", [1, 4, 5, 40])
def test_a_square_has_the_centre_of_its_box(side):
    box = square_box(Box((2, 5, 10), (4, 9, 13)), side)
    assert box.shape == (2, side, side)
    for axis, centre in ((1, 7.0), (2, 11.5)):
        assert abs((box.start[axis] + box.stop[axis]) / 2 - centre) <= 0.5
