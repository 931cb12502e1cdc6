import numpy as np
import pytest
import shapely
from making import GLASS, STAIN, stained
from scipy import ndimage
from shapely.geometry import MultiPolygon, Polygon, box

from features.regions.masks import (
    coverage,
    is_bright_field,
    majority_filter,
    polygons_from_mask,
    tissue_mask,
)


def clipped_area(ring, left, top, right, bottom):
    """Sutherland and Hodgman: cut the ring along each side in turn, then the shoelace sum."""
    for axis, limit, sign in ((0, left, 1), (0, right, -1), (1, top, 1), (1, bottom, -1)):
        corners = []
        for a, b in zip(ring, [*ring[1:], *ring[:1]], strict=True):
            inside_a, inside_b = sign * (a[axis] - limit) >= 0, sign * (b[axis] - limit) >= 0
            if inside_a:
                corners.append(a)
            if inside_a != inside_b:
                t = (limit - a[axis]) / (b[axis] - a[axis])
                corners.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
        ring = corners
        if not ring:
            return 0.0
    pairs = zip(ring, [*ring[1:], *ring[:1]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def star(rng, x, y, r):
    """A polygon with a hole, neither of them convex, as (outer, hole)."""
    angles = np.sort(rng.random(rng.integers(5, 14))) * 2 * np.pi
    radii = r * rng.uniform(0.4, 1, len(angles))
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    centre = np.array([x, y])
    outer, hole = around + centre, around * rng.uniform(0.2, 0.8) + centre
    return list(map(tuple, outer)), list(map(tuple, hole))


def test_coverage_equals_its_slow_twin():
    rng = np.random.default_rng(0)
    compared = partial = 0
    while compared < 400:
        outer, hole = star(rng, *rng.uniform(20, 80, 2), rng.uniform(5, 60))
        if not (polygon := Polygon(outer, [hole])).is_valid:
            continue
        x, y = rng.uniform(-10, 100, (2, 6))
        side = tuple(rng.uniform(3, 40, 2))
        squares = [(a, b, a + side[0], b + side[1]) for a, b in zip(x, y, strict=True)]
        slow = [
            (clipped_area(outer, *s) - clipped_area(hole, *s)) / (side[0] * side[1])
            for s in squares
        ]
        fast = coverage(polygon, x, y, side)
        assert fast == pytest.approx(slow, abs=1e-9)
        compared += 1
        partial += sum(0 < value < 1 for value in slow)
    assert partial > 500  # the comparison is not of zeros and ones


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0, 0, 1.0),  # shares two edges with the region
        (10, 10, 0.75),  # a quarter is hole
        (15, 15, 0.0),  # wholly in the hole
        (35, 0, 0.5),
        (38, 35, 0.1),
        (40, 0, 0.0),  # touches from outside
        (-5, -5, 0.25),  # reaches over the slide's edge: the whole tile counts
        (100, 100, 0.0),
    ],
)
def test_coverage_of_hand_made_squares(x, y, expected):
    area = Polygon(box(0, 0, 40, 40).exterior, [box(15, 15, 25, 25).exterior])
    got = coverage(area, np.array([float(x)]), np.array([float(y)]), (10.0, 10.0))
    assert got == pytest.approx([expected], abs=1e-12)


def test_coverage_of_an_empty_region_is_zero():
    assert coverage(MultiPolygon(), np.zeros(3), np.zeros(3), (5.0, 5.0)).tolist() == [0, 0, 0]


def test_coverage_of_two_touching_parts_is_their_sum():
    area = MultiPolygon([box(0, 0, 3, 10), box(7, 0, 10, 10)])
    assert coverage(area, np.zeros(1), np.zeros(1), (10.0, 10.0)) == pytest.approx([0.6])


@pytest.mark.parametrize("grey", [255, 243, 128, 26, 25, 0])
def test_grey_of_any_brightness_is_no_tissue(grey):
    assert not tissue_mask(np.full((50, 60, 3), grey, np.uint8)).any()


def test_dark_colour_is_no_tissue():
    assert not tissue_mask(np.full((50, 60, 3), (25, 0, 10), np.uint8)).any()


def test_half_stained_picture_is_half_tissue():
    mask = tissue_mask(stained(80, 100))
    assert np.array_equal(mask, np.tile(np.arange(100) < 50, (80, 1)))


def test_wholly_stained_picture_is_tissue_to_its_edge():
    assert tissue_mask(np.full((40, 60, 3), STAIN, np.uint8)).all()


def test_speck_is_no_tissue():
    picture = stained(80, 100)
    picture[40:42, 80:82] = STAIN
    assert not tissue_mask(picture)[:, 60:].any()


def test_small_hole_is_tissue():
    picture = stained(80, 100)
    picture[40:42, 20:22] = GLASS
    assert tissue_mask(picture)[:, :50].all()


def test_large_hole_is_no_tissue():
    picture = stained(80, 100)
    picture[20:60, 10:40] = GLASS
    assert not tissue_mask(picture)[25:55, 15:35].any()


def test_outline_has_the_area_of_the_pixels():
    rng = np.random.default_rng(2)
    for density in (0.0, 0.02, 0.5, 0.9, 1.0):
        mask = rng.random((37, 53)) < density
        outline = polygons_from_mask(mask, (53 * 8, 37 * 6))
        assert outline.area == pytest.approx(mask.sum() * 48)
        assert outline.is_valid


def test_outline_lies_on_its_pixels():
    mask = np.zeros((10, 20), bool)
    mask[2:4, 5:9] = True
    mask[3, 6] = False
    outline = polygons_from_mask(mask, (200, 50))
    assert outline.bounds == (50, 10, 90, 20)
    assert not outline.contains(shapely.Point(65, 17.5))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (60, 41)])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_most_of_25_pixels_are_their_median(shape, share):
    mask = (np.random.default_rng(0).random(shape) < share).astype(np.uint8)
    expected = ndimage.median_filter(mask, size=5).astype(bool)
    assert np.array_equal(majority_filter(mask), expected)


def nuclei(picture, seed, count=60):
    """Dark nuclei strewn over a picture."""
    rng = np.random.default_rng(seed)
    for y, x in rng.integers(0, np.array(picture.shape[:2]) - 4, (count, 2)):
        picture[y : y + 4, x : x + 4] = (90, 60, 130)
    return picture


@pytest.mark.parametrize(
    "colour", [(220, 150, 190), (236, 214, 228), (180, 120, 170), (240, 200, 190)]
)
def test_without_glass_all_is_tissue(colour):
    picture = nuclei(np.full((200, 260, 3), colour, np.uint8), 3)
    assert tissue_mask(picture, 4.0).all()


@pytest.mark.parametrize(
    "glass", [(255, 255, 255), (243, 243, 243), (244, 240, 236), (222, 224, 226)]
)
@pytest.mark.parametrize("pale", [(241, 222, 232), (228, 205, 222), (240, 226, 224)])
def test_pale_tissue_beside_dark_is_found_on_glass_of_any_tint(glass, pale):
    picture = np.full((200, 300, 3), glass, np.uint8)
    picture[40:160, 30:130] = (150, 60, 130)
    picture[40:160, 130:230] = pale
    noise = np.random.default_rng(0).normal(0, 1, picture.shape)
    picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    mask = tissue_mask(picture, 10.0)
    assert mask[44:156, 34:226].mean() > 0.99
    mask[36:164, 26:234] = False
    assert mask.mean() < 0.01


@pytest.mark.parametrize(("um_per_px", "whole"), [(1.0, True), (20.0, False)])
def test_clefts_are_no_bare_glass_but_a_gap_as_wide_as_a_tile_is(um_per_px, whole):
    picture = nuclei(np.full((800, 800, 3), (200, 120, 180), np.uint8), 5)
    picture[300:400, 100:700] = 244  # 100 micrometres wide, or 2 millimetres
    assert tissue_mask(picture, um_per_px).all() == whole


def test_a_core_is_outlined_on_its_glass():
    y, x = np.mgrid[:400, :400]
    core = np.hypot(x - 200, y - 200) < 150
    picture = np.where(core[..., None], (205, 140, 185), (242, 242, 244)).astype(np.uint8)
    assert np.mean(tissue_mask(picture, 3.0) == core) > 0.99


@pytest.mark.parametrize(
    ("background", "signal", "expected"),
    [
        ((0, 0, 0), (0, 0, 180), False),
        ((2, 3, 40), (3, 90, 5), False),
        ((0, 0, 0), (200, 120, 180), True),  # black beside the scanned part
        ((243, 243, 243), (120, 40, 130), True),
        ((0, 0, 0), (0, 0, 0), True),
    ],
)
def test_bright_field_has_light_in_every_channel(background, signal, expected):
    picture = np.full((60, 80, 3), background, np.uint8)
    picture[20:40, 20:60] = signal
    assert is_bright_field(picture) == expected
