"""A voxel belongs to a region if its centre lies in it: whatever the contours look like."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import AnnotationError
from features.volumes.contours import fill_even_odd, mask_of_contours
from features.volumes.volume import Grid

GRID = Grid((6, 20, 24), (1.0, 1.5, 3.0), (-4.0, 7.0, 11.0), np.eye(3))


def at(index, grid=GRID):
    """Places in mm of indices (x, y, z)."""
    return grid.to_mm(np.asarray(index, dtype=float))


def rectangle(x0, y0, x1, y1, z, grid=GRID):
    return at([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], grid)


def mask(*contours, grid=GRID, **options):
    return mask_of_contours(contours, grid, "GTV", **options)


def box(x, y, z, grid=GRID):
    values = np.zeros(grid.shape, bool)
    values[z, y, x] = True
    return values


def circle(radius, z, centre=(11.3, 9.6), n=60, grid=GRID):
    """A circle of so many mm round a centre in pixels."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    middle = at([(*centre, z)], grid)[0]
    points = np.stack([np.cos(angle), np.sin(angle), np.zeros(n)], axis=1) * radius
    return middle + points @ grid.direction.T


def test_a_border_between_centres(tmp_path):
    region = mask(rectangle(1.5, 2.5, 5.5, 8.5, 2))
    assert np.array_equal(region.values, box(slice(2, 6), slice(3, 9), 2))
    assert region.volume_ml == pytest.approx(24 * 4.5 / 1000)
    assert region.notes == ()


def test_a_border_on_centres_belongs_to_one_side(tmp_path):
    """Two regions with a common border share no voxel and leave none out, in x and in y."""
    left, right = mask(rectangle(1, 2, 5, 8, 2)), mask(rectangle(5, 2, 9, 8, 2))
    upper, lower = mask(rectangle(1, 2, 9, 5, 2)), mask(rectangle(1, 5, 9, 8, 2))
    both = mask(rectangle(1, 2, 9, 8, 2)).values
    for one, other in ((left, right), (upper, lower)):
        assert not (one.values & other.values).any()
        assert np.array_equal(one.values | other.values, both)


def test_noise_of_a_change_of_frame_is_no_side():
    steps = np.random.default_rng(0).normal(0, 1e-9, (4, 3))
    usual = mask(rectangle(1, 2, 5, 8, 2)).values
    assert np.array_equal(mask(rectangle(1, 2, 5, 8, 2) + steps).values, usual)


@given(
    st.lists(st.tuples(st.floats(-2, 12), st.floats(-2, 10)), min_size=3, max_size=9, unique=True)
)
@settings(max_examples=60, deadline=None)
def test_even_odd_agrees_with_the_number_of_crossings(points):
    """A slow twin: the parity of the crossings of a ray, pixel by pixel, on rounded corners."""
    outline = np.round(np.array(points), 6)
    inside = fill_even_odd(outline, (9, 11))
    for y, x in np.ndindex(9, 11):
        odd = False
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if (y0 <= y) != (y1 <= y):
                odd ^= bool(np.round(x0 + (y - y0) * ((x1 - x0) / (y1 - y0)), 6) <= x)
        on_border = shapely.LinearRing(outline).distance(shapely.Point(x, y)) < 1e-5
        assert on_border or inside[y, x] == odd


@pytest.mark.parametrize(
    "change",
    [
        lambda points: points[::-1],
        lambda points: np.roll(points, 2, axis=0),
        lambda points: np.vstack([points, points[:1]]),
        lambda points: np.repeat(points, 2, axis=0),
        lambda points: points + np.array([0, 0, 0.4 * 3]),
        lambda points: points - [0, 0, 0.4 * 3],
        lambda points: points + np.array([[0, 0, 0.1], [0, 0, -0.1], [0, 0, 0.2], [0, 0, -0.2]]),
    ],
    ids=["turned", "rolled", "closed", "doubled points", "above", "below", "not quite flat"],
)
def test_how_a_contour_is_stored_changes_nothing(change):
    points = rectangle(1.4, 2.6, 5.5, 8.5, 2)
    assert np.array_equal(mask(change(points)).values, mask(points).values)


def test_an_outline_in_another_is_a_hole_and_noted():
    region = mask(rectangle(1.5, 1.5, 9.5, 9.5, 2), rectangle(3.5, 3.5, 6.5, 6.5, 2))
    wanted = box(slice(2, 10), slice(2, 10), 2) & ~box(slice(4, 7), slice(4, 7), 2)
    assert np.array_equal(region.values, wanted)
    assert region.notes == ("contours lie in each other: 9 voxels between them are holes",)


def test_an_island_in_a_hole_and_islands_beside():
    region = mask(
        rectangle(1.5, 1.5, 11.5, 11.5, 2),
        rectangle(3.5, 3.5, 9.5, 9.5, 2),
        rectangle(5.5, 5.5, 7.5, 7.5, 2),
        rectangle(14.5, 2.5, 16.5, 4.5, 2),
    )
    assert region.values.sum() == 100 - 36 + 4 + 4
    assert region.values[2, 6, 6]
    assert not region.values[2, 4, 4]


def test_a_keyhole_is_a_hole():
    outer = [(1.5, 1.5), (9.5, 1.5), (9.5, 9.5), (1.5, 9.5), (1.5, 5.2)]
    inner = [(3.5, 5.2), (3.5, 6.5), (6.5, 6.5), (6.5, 3.5), (3.5, 3.5), (3.5, 5.2)]
    points = at([(x, y, 2) for x, y in [*outer, *inner, (1.5, 5.2)]])
    wanted = box(slice(2, 10), slice(2, 10), 2) & ~box(slice(4, 7), slice(4, 7), 2)
    assert np.array_equal(mask(points).values, wanted)
    assert mask(points).notes == ()


def test_a_contour_stored_twice_does_not_cancel_itself():
    points = rectangle(1.5, 2.5, 5.5, 8.5, 2)
    for copy in (points, points[::-1], np.roll(points, 1, axis=0)):
        region = mask(points, copy)
        assert np.array_equal(region.values, mask(points).values)
        assert region.notes == ("1 contours stored twice are taken once",)


@pytest.mark.parametrize("aside_mm", [0.008, 0.03, 0.09])
def test_a_copy_a_hair_beside_does_not_cancel_the_contour(aside_mm):
    points = circle(5, 3)
    finer = np.repeat(points, 2, axis=0)
    finer[1::2] = (points + np.roll(points, -1, axis=0)) / 2
    for copy in (points, finer[::-1]):
        region = mask(points, copy + np.array([aside_mm, -aside_mm, 0.01]))
        assert np.array_equal(region.values, mask(points).values)
        assert region.notes == ("1 contours stored twice are taken once",)


def test_a_thin_wall_is_no_copy():
    region = mask(rectangle(1.5, 1.5, 20.5, 17.5, 2), rectangle(2.5, 2.5, 19.5, 16.5, 2))
    assert region.values.sum() == 19 * 16 - 17 * 14


def test_planes_denser_than_slices_are_taken_at_the_slice():
    """Contours every mm on slices of 3 mm: cones, of which each slice shows the circle of its own plane."""
    cone = [circle(2 + k, 1 + k / 3) for k in range(10)]
    region = mask(*cone)
    for place in range(1, 5):
        own = mask(circle(2 + 3 * (place - 1), place)).values[place]
        assert np.array_equal(region.values[place], own)
    assert region.notes == (
        "contours in 10 planes 1.00 mm apart are taken to the slices, 3.00 mm apart",
    )


def ball_of_contours(step_mm, radius=17.0):
    """Circles of a ball round (0, 0, 0), one plane every ``step_mm``."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    contours = []
    for z in np.arange(step_mm / 2 - radius, radius, step_mm):
        wide = np.sqrt(radius**2 - z**2)
        contours.append(
            np.stack([wide * np.cos(angle), wide * np.sin(angle), np.full(120, z)], axis=1)
        )
    return contours


@pytest.mark.parametrize("slice_mm", [0.9, 3.1, 4.8])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("step_mm", [0.6, 1.7, 2.8, 4.8])
def test_the_volume_of_a_ball_whatever_the_planes_and_slices(slice_mm, shift, step_mm):
    count = int(46 / slice_mm)
    grid = Grid(
        (count, 44, 44), (0.9, 0.9, slice_mm), (-19.4, -19.4, (shift - count / 2) * slice_mm), np.eye(3)
    )  # fmt: skip
    true_ml = 4 / 3 * np.pi * 17**3 / 1000
    region = mask_of_contours(ball_of_contours(step_mm), grid, fill_between=True)
    assert region.drawn_ml == pytest.approx(true_ml, rel=0.03)
    if step_mm <= slice_mm:
        assert region.volume_ml == pytest.approx(true_ml, rel=0.04)
        assert not any("between contoured ones" in note for note in region.notes)
    areas = region.values.sum(axis=(1, 2))
    top = int(areas.argmax())
    assert (np.diff(areas[: top + 1]) >= 0).all()
    assert (np.diff(areas[top:]) <= 0).all()


def test_a_lesion_beside_a_gap_of_dense_planes_stays_apart():
    low = [circle(4, 0.3 * k) for k in range(4)]
    high = [circle(5, 4 + 0.3 * k) for k in range(4)]
    region = mask(*low, *high)
    assert region.values.any(axis=(1, 2)).tolist() == [True, True, False, False, True, True]
    assert "2 slices between contoured ones have no contour" in region.notes[1]


def test_planes_half_way_between_slices_are_all_taken():
    contours = [circle(4, place + 0.5) for place in range(1, 4)]
    assert mask(*contours).values.any(axis=(1, 2)).tolist() == [False] * 2 + [True] * 3 + [False]


def test_gaps_between_contours_are_counted_or_filled():
    contours = [circle(3, 0), circle(6, 4)]
    region = mask(*contours)
    assert region.values.any(axis=(1, 2)).tolist() == [True, False, False, False, True, False]
    assert "3 slices between contoured ones have no contour" in region.notes[0]
    filled = mask(*contours, fill_between=True)
    areas = filled.values.sum(axis=(1, 2))
    assert (np.diff(areas[:5]) > 0).all()
    middle = mask(circle(4.5, 2)).values[2]
    assert (filled.values[2] != middle).sum() <= 0.1 * middle.sum()


def test_nothing_is_filled_between_two_lesions():
    """Their outlines do not lie over each other; each is filled by itself."""
    apart = [circle(3, 0, (4, 4)), circle(3, 5, (14, 13))]
    region, filled = mask(*apart), mask(*apart, fill_between=True)
    assert np.array_equal(filled.values, region.values)
    assert filled.drawn_ml == filled.volume_ml
    assert filled.notes == (
        "4 slices between contoured ones are outside: no outline of one side lies over one of the other, as "
        "between two lesions",
    )
    one, other = [circle(3, z, (4, 4)) for z in (0, 3)], [circle(3, z, (14, 13)) for z in (0, 3, 5)]
    both = mask(*one, *other, fill_between=True)
    alone = [mask(*some, fill_between=True).values for some in (one, other)]
    assert np.array_equal(both.values, alone[0] | alone[1])
    sizes = [mask(*some, fill_between=True).drawn_ml for some in (one, other)]
    assert both.drawn_ml == pytest.approx(sum(sizes), rel=0.1)
    assert both.notes == (
        "3 slices between contoured ones are filled with a shape between theirs, over up to 9.0 mm",
    )


def test_a_lesion_that_forks_is_filled_on_both_sides_and_an_end_is_left():
    trunk, arms = circle(8, 0), [circle(2.5, 4, (6, 9.6)), circle(2.5, 4, (16.5, 9.6))]
    filled = mask(trunk, *arms, fill_between=True).values
    assert all(filled[2, 10, x] for x in (6, 16))
    far = mask(
        circle(3, 0, (4, 4)), circle(3, 2, (4, 4)), circle(3, 5, (14, 13)), fill_between=True
    )
    assert far.values.any(axis=(1, 2)).tolist() == [True, True, True, False, False, True]
    assert "1 slices between" in far.notes[0]
    assert "2 slices between contoured ones are outside" in far.notes[1]


def test_two_lesions_have_their_volumes_however_far_they_lie_apart():
    grid = Grid((60, 20, 24), GRID.spacing_mm, GRID.origin_mm, GRID.direction)
    slice_ml = mask(circle(3, 0, (5, 5)), grid=grid).volume_ml
    for above, step in ((4, 1), (20, 1), (41, 2), (20, 0.25)):
        planes = np.arange(0, 4.01, step)
        contours = [circle(3, z, (5, 5), grid=grid) for z in planes]
        contours += [circle(3, z + above + 4, (15, 13), grid=grid) for z in planes]
        region = mask(*contours, grid=grid, fill_between=True)
        assert region.drawn_ml == pytest.approx(2 * slice_ml * (4 + step), rel=0.02)
        assert region.volume_ml == pytest.approx(2 * slice_ml * 5, rel=0.02)


def test_dense_planes_with_a_gap_of_one_lesion_are_one_volume():
    low = [circle(5, 0.25 * k) for k in range(5)]
    high = [circle(5, 4 + 0.25 * k) for k in range(5)]
    filled = mask(*low, *high, fill_between=True)
    assert filled.drawn_ml == pytest.approx(np.pi * 25 / 1000 * 5.25 * GRID.spacing_mm[2], rel=0.05)


def test_contours_beyond_the_slices_are_an_error_in_mm():
    with pytest.raises(
        AnnotationError, match=r"GTV: 1 of 2 contours lie beyond.*by up to 4\.50 mm"
    ):
        mask(circle(3, 5), circle(3, 7))


def test_contours_at_half_a_slice_beyond_the_end_are_within():
    assert mask(circle(3, -0.5)).values[0].any()
    assert mask(circle(3, 5.5)).values[5].any()


def test_a_region_that_leaves_the_picture_is_refused_or_named():
    with pytest.raises(AnnotationError, match=r"GTV: 48% of it lies beyond the image\. Use"):
        mask(rectangle(-5.5, 9.5, 5.5, 14.5, 2), rectangle(-5.5, 9.5, 4.5, 14.5, 3))
    with pytest.raises(AnnotationError, match="GTV: 2% of it lies beyond"):
        mask(rectangle(4.5, 3.5, 14.5, 14.5, 3), rectangle(20.5, 2.5, 24.5, 4.5, 1))
    with pytest.raises(AnnotationError, match="GTV: a contour reaches farther beyond the image"):
        mask(rectangle(2.5, 2.5, 60.5, 4.5, 2))
    region = mask(rectangle(3.5, -1.5, 8.5, 19.5, 2), rectangle(-0.5, -0.5, 23.5, 19.5, 3))
    assert np.array_equal(region.values[2], box(slice(4, 9), slice(0, 20), 2)[2])
    assert region.values[3].all()
    assert region.notes == ("0.85% of the region lies beyond the image and is cut off",)


def test_points_and_lines_are_left_out_with_a_count():
    line = rectangle(1, 1, 2, 2, 2)[:2]
    region = mask(line, line[:1], rectangle(1.5, 2.5, 5.5, 8.5, 2))
    assert region.notes == ("2 contours of fewer than 3 points left out",)
    with pytest.raises(AnnotationError, match=r"GTV has no contour of three points.*2 contours"):
        mask(line, line)
    with pytest.raises(AnnotationError, match=r"no contour of three points or more \(0"):
        mask()


def test_a_region_smaller_than_a_voxel_is_an_error():
    with pytest.raises(AnnotationError, match="holds no centre of a voxel"):
        mask(rectangle(1.1, 2.1, 1.4, 2.4, 2))


@pytest.mark.parametrize("axis", [0, 1])
def test_contours_drawn_on_another_plane_are_filled_in_it(axis):
    """A sagittal or coronal outline on axial slices."""
    corners = np.array([(2.5, 0.5), (9.5, 0.5), (9.5, 3.5), (2.5, 3.5)])
    contours = [at(np.insert(corners, axis, place, axis=1)) for place in (5, 6, 7)]
    region = mask(*contours)
    across = slice(5, 8), slice(3, 10)
    wanted = box(*(across if axis == 0 else across[::-1]), slice(1, 4))
    assert np.array_equal(region.values, wanted)


def test_contours_on_the_slices_of_a_sagittal_series():
    corners = np.array([(2.5, 0.5), (9.5, 0.5), (9.5, 3.5), (2.5, 3.5)])
    region = mask(at(np.insert(corners, 0, 5, axis=1)), slice_axis=2)
    assert np.array_equal(region.values, box(5, slice(3, 10), slice(1, 4)))


def test_contours_in_oblique_planes_are_an_error_in_mm():
    tilted = circle(4, 2) + np.outer(circle(4, 2)[:, 0] - 7, [0, 0, 0.5])
    with pytest.raises(AnnotationError, match=r"rises by \d\.\d\d mm through the axial slices"):
        mask(tilted)


def turned_grid():
    turn = np.linalg.qr(np.array([[1.0, 0.3, -0.2], [-0.3, 0.9, 0.3], [0.2, -0.3, 0.9]]))[0]
    return Grid((9, 30, 32), (1.1, 0.9, 3.0), (-20.0, 5.0, 40.0), turn * np.sign(np.diag(turn)))


def test_a_sphere_on_a_double_oblique_grid():
    """Circles cut from a sphere give the voxels whose centres lie in it, to the voxel."""
    grid = turned_grid()
    centre = grid.to_mm(np.array([[15.3, 14.6, 4.2]]))[0]
    contours = []
    for place in range(9):
        below = 9.7**2 - (3.0 * (place - 4.2)) ** 2
        if below > 0:
            contours.append(circle(np.sqrt(below), place, (15.3, 14.6), n=2000, grid=grid))
    region = mask_of_contours(contours, grid)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)[..., ::-1]
    distance = np.linalg.norm(grid.to_mm(index.reshape(-1, 3).astype(float)) - centre, axis=1)
    assert np.array_equal(region.values, (distance < 9.7).reshape(grid.shape))


def pixel_edges(region):
    """The closed outlines of a region along the edges of its pixels, (n, 2) corners (x, y) each."""
    padded, steps = np.pad(region, 1), {}
    sides = (  # the neighbour that is outside, and the corners of the edge to it
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    )
    for y, x in np.argwhere(padded):
        for (up, left), (x0, y0), (x1, y1) in sides:
            if not padded[y + up, x + left]:
                steps.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    outlines = []
    while steps:
        first = place = next(iter(steps))
        outline = []
        while place != first or not outline:
            outline.append(place)
            following = steps[place].pop()
            if not steps[place]:
                del steps[place]
            place = following
        outlines.append(np.array(outline, float) - 1.5)
    return outlines


@given(st.integers(0, 10_000), st.floats(0.2, 0.9))
@settings(max_examples=40, deadline=None)
def test_outlines_of_any_region_give_it_back(seed, share):
    """Islands, holes, islands in holes, corners that touch: on a turned grid, to the voxel."""
    region = np.random.default_rng(seed).random((3, 8, 9)) < share
    region[:, 0, 0] = True
    grid = replace(turned_grid(), shape=region.shape)
    contours = [
        grid.to_mm(np.column_stack([outline, np.full(len(outline), float(place))]))
        for place in range(3)
        for outline in pixel_edges(region[place])
    ]
    assert np.array_equal(mask_of_contours(contours, grid).values, region)


@pytest.mark.parametrize(
    ("beside", "noted"), [(0.45, "1.35"), (-0.3, "0.90"), (0.2, ""), (0.0, "")]
)
def test_contours_beside_their_slices_are_noted(beside, noted):
    region = mask(*(rectangle(2, 3, 7, 9, z + beside) for z in (1, 2, 3)))
    words = f"contours lie up to {noted} mm beside the slices that they are taken to"
    assert region.notes == (words,) * bool(noted)
    assert np.flatnonzero(region.values.any(axis=(1, 2))).tolist() == [1, 2, 3]
