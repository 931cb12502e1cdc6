from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from making import noise, write_tiff
from shapely.geometry import box

from features.errors import ScaleError
from features.slides.slide import open_slide
from features.tiles.grid import BLOCK_L0, SlideTiles, TileGrid, lay_grid, reading_order, sample

MPPS = (0.17, 0.2204, 0.2527, 0.2985, 0.3031, 0.5021)


def fake_slide(mpp=0.25, size_l0=(4000, 3000), mpp_y=None):
    return SimpleNamespace(
        path=SimpleNamespace(name="s.svs"), mpp=(mpp, mpp_y or mpp), size_l0=size_l0
    )


def lay(area, slide, tile_px=224, mpp=0.5, min_coverage=0.6):
    return lay_grid(area, slide, tile_px=tile_px, mpp=mpp, min_coverage=min_coverage)


def corners(grid):
    return [tuple(corner) for corner in grid.coords_l0.tolist()]


def test_grid_is_row_by_row_from_the_slides_origin():
    grid = lay(box(100, 100, 350, 250), fake_slide(), tile_px=50, mpp=0.25)
    assert corners(grid) == [(x, y) for y in (100, 150, 200) for x in (100, 150, 200, 250, 300)]


def test_grid_does_not_move_with_the_region():
    slide = fake_slide()
    whole = set(corners(lay(box(0, 0, 4000, 3000), slide, min_coverage=1e-6)))
    for shift in (1, 77, 333):
        part = corners(lay(box(shift, shift, shift + 1500, shift + 1500), slide))
        assert part
        assert set(part) <= whole


@pytest.mark.parametrize("mpp", MPPS)
def test_side_in_micrometres_is_as_requested(mpp):
    grid = lay(box(0, 0, 4000, 3000), fake_slide(mpp))
    assert grid.side_l0[0] * mpp == pytest.approx(112)
    assert grid.side_l0[1] * mpp == pytest.approx(112)


@pytest.mark.parametrize("mpp", MPPS)
def test_corners_stay_within_half_a_pixel_of_the_true_grid(mpp):
    grid = lay(box(0, 0, 4000, 3000), fake_slide(mpp))
    steps = grid.coords_l0 / grid.side_l0
    assert (abs(np.rint(steps) * grid.side_l0 - grid.coords_l0) <= 0.5).all()
    assert steps.max() > 4


def test_unequal_scales_give_tiles_square_in_micrometres():
    grid = lay(box(0, 0, 4000, 3000), fake_slide(0.25, mpp_y=0.5))
    assert grid.side_l0 == (448, 224)


@pytest.mark.parametrize("mpp", [*MPPS, 0.25, 0.1])
def test_tile_covered_by_exactly_the_smallest_fraction_is_used(mpp):
    slide = fake_slide(mpp)
    side = 224 * 0.5 / mpp
    for column in range(3):
        left = float(np.rint(column * side))
        grid = lay(box(left, 0, left + 0.6 * side, side), slide)
        assert (round(left), 0) in corners(grid)


def test_tile_covered_by_less_is_left_out():
    assert len(lay(box(0, 0, 0.5999 * 448, 448), fake_slide())) == 0


def test_whole_tiles_can_be_required():
    assert corners(lay(box(0, 0, 448, 448), fake_slide(), min_coverage=1.0)) == [(0, 0)]


def test_border_tile_is_judged_by_its_full_area():
    slide = fake_slide(0.5, size_l0=(224 + 134, 224))  # 134 of 224 is 59.8 %
    assert corners(lay(box(-100, -100, 9999, 9999), slide)) == [(0, 0)]
    slide = fake_slide(0.5, size_l0=(224 + 135, 224))
    assert corners(lay(box(-100, -100, 9999, 9999), slide)) == [(0, 0), (224, 0)]


def test_coverage_is_stored_with_every_tile():
    grid = lay(box(0, 0, 448 + 336, 448), fake_slide())
    assert grid.coverage.tolist() == [1.0, 0.75]


def test_tile_needs_no_single_annotation_to_cover_it():
    area = shapely.union_all([box(0, 0, 180, 448), box(300, 0, 448, 448)])  # 40 % and 33 %
    assert corners(lay(area, fake_slide())) == [(0, 0)]


def test_overlapping_annotations_give_no_tile_twice():
    area = shapely.union_all([box(0, 0, 1500, 1500), box(700, 700, 2400, 2400)])
    squares = corners(lay(area, fake_slide()))
    assert len(squares) == len(set(squares)) > 10


@pytest.mark.parametrize("mpp", MPPS)
def test_tiles_do_not_overlap_by_more_than_rounding(mpp):
    grid = lay(box(0, 0, 4000, 1500), fake_slide(mpp, size_l0=(4000, 1500)))
    squares = [box(x, y, x + grid.side_l0[0], y + grid.side_l0[1]) for x, y in grid.coords_l0]
    for a, b in combinations(squares[:40], 2):
        assert (a & b).area <= 1.0 * max(grid.side_l0)


@pytest.mark.parametrize("area", [shapely.MultiPolygon(), box(9000, 9000, 9999, 9999)])
def test_no_region_on_the_slide_gives_no_tile(area):
    assert len(lay(area, fake_slide())) == 0


def test_grid_equals_testing_every_tile():
    rng = np.random.default_rng(0)
    for _ in range(40):
        slide = fake_slide(rng.choice(MPPS), size_l0=(1500, 1200))
        points = rng.uniform(-100, 1500, (8, 2))
        area = shapely.MultiPoint(points).convex_hull - shapely.Point(points[0]).buffer(150)
        grid = lay(area, slide)
        side = 112 / slide.mpp[0]
        inside = area & box(0, 0, 1500, 1200)
        expected = []
        for row in range(int(1200 // side) + 1):
            for column in range(int(1500 // side) + 1):
                x, y = int(np.rint(column * side)), int(np.rint(row * side))
                if (inside & box(x, y, x + side, y + side)).area / side**2 >= 0.6:
                    expected.append((x, y))
        assert corners(grid) == expected


def test_upsampling_is_refused_with_the_remedy():
    with pytest.raises(ScaleError, match=r"s\.svs was scanned at 0.5 .* Set mpp to 0.5 or coarser"):
        lay(box(0, 0, 900, 900), fake_slide(0.5), mpp=0.25)


def test_remedy_of_upsampling_is_accepted():
    assert len(lay(box(0, 0, 900, 900), fake_slide(0.5021), mpp=0.5))


def test_slightly_finer_than_scanned_is_accepted():
    assert len(lay(box(0, 0, 900, 900), fake_slide(0.3031), mpp=0.25))


def test_tile_shows_the_place_of_its_coordinates(tmp_path):
    picture = noise(600, 600)
    with open_slide(write_tiff(tmp_path / "s.tiff", [picture])) as slide:
        grid = lay(box(100, 100, 500, 500), slide, tile_px=64, mpp=0.25)
        source = SlideTiles(slide, grid)
        for index, (x, y) in enumerate(grid.coords_l0):
            assert np.array_equal(source.read(index), picture[y : y + 64, x : x + 64])


@pytest.fixture
def grid():
    n = np.arange(1000)
    return TileGrid(
        np.stack([n, 3 * n], axis=1), (n / 1000).astype(np.float32), 224, 0.5, (448.0, 448.0)
    )


def test_sample_is_a_subset_in_grid_order(grid):
    few = sample(grid, 100, seed=0, name="a")
    index = few.coords_l0[:, 0]
    assert len(set(index.tolist())) == 100
    assert (np.diff(index) > 0).all()
    assert np.array_equal(few.coords_l0, grid.coords_l0[index])
    assert np.array_equal(few.coverage, grid.coverage[index])


def test_sample_is_the_same_every_time(grid):
    first, second = (sample(grid, 100, seed=3, name="a").coords_l0 for _ in range(2))
    assert np.array_equal(first, second)


def test_sample_is_this_one_on_every_machine(grid):
    assert sample(grid, 5, seed=0, name="a").coords_l0[:, 0].tolist() == [18, 74, 211, 517, 776]


def test_sample_changes_with_seed_and_slide(grid):
    drawn = {
        tuple(sample(grid, 100, seed=seed, name=name).coords_l0[:, 0])
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert len(drawn) == 4


def test_sample_leaves_the_global_generator_alone(grid):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    sample(grid, 100, seed=0, name="a")
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_sample_is_spread_over_the_grid(grid):
    index = sample(grid, 200, seed=0, name="a").coords_l0[:, 0]
    assert all(
        20 < ((index >= low) & (index < low + 200)).sum() < 65 for low in range(0, 1000, 200)
    )


def test_sample_of_enough_is_the_grid_itself(grid):
    sampled = sample(grid, 1000, seed=0, name="a")
    assert np.array_equal(sampled.coords_l0, grid.coords_l0)
    assert np.array_equal(sampled.coverage, grid.coverage)


@pytest.mark.parametrize("side", [56, 224, 1000.7, 5000])
def test_walk_meets_every_tile_once_and_never_comes_back_to_a_block(side):
    """Any set of tiles in any order, as given coordinates may have it."""
    rng = np.random.default_rng(0)
    coords = np.unique(rng.integers(-2, 40_000 // side, (400, 2)), axis=0) * side
    coords = rng.permutation(coords).astype(np.int64)
    order = reading_order(
        TileGrid(coords, np.ones(len(coords), np.float32), 224, 0.5, (side, side))
    )
    assert sorted(order.tolist()) == list(range(len(coords)))
    blocks = [tuple(block) for block in coords[order] // max(BLOCK_L0, side)]
    entered = [
        block for block, before in zip(blocks, [None, *blocks], strict=False) if block != before
    ]
    assert len(entered) == len(set(entered)) > 20
