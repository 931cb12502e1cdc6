from dataclasses import dataclass
from typing import get_type_hints

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from making import write_tiff
from shapely.geometry import MultiPolygon, box

from features.errors import AnnotationError
from features.recipe import ORIGINS
from features.regions.annotation_frame import find_frame
from features.slides.slide import Slide, open_slide

CORNER, EXTENT = (300, 200), (500, 400)


@dataclass
class Cropped:
    """What ``place`` needs to know of a slide."""

    name: str = "a"
    size_l0: tuple[int, int] = (1000, 800)
    bounds_l0: tuple[int, int] = CORNER
    bounds_size_l0: tuple[int, int] = EXTENT


def never():
    pytest.fail("the tissue was asked for")


def nowhere():
    return MultiPolygon()


def test_the_stand_in_is_like_a_slide():
    slide_hints = get_type_hints(Slide)
    hints = get_type_hints(Cropped)
    assert all(slide_hints[name] == kind for name, kind in hints.items() if name != "name")


@pytest.mark.parametrize("origin", ORIGINS)
def test_slide_that_is_scanned_from_its_corner_counts_from_it(tmp_path, origin):
    path = write_tiff(tmp_path / "a.tiff", [np.zeros((256, 256, 3), np.uint8)])
    with open_slide(path) as slide:
        placed = find_frame(box(10, 10, 50, 50), slide, origin, never)
    assert (placed.offset_l0, placed.origin) == ((0, 0), "level0")


@pytest.mark.parametrize(
    ("origin", "offset"), [("level0", (0, 0)), ("bounds", CORNER)], ids=["level0", "bounds"]
)
@pytest.mark.parametrize("drawn", [box(0, 0, 100, 100), box(400, 300, 450, 350)])
def test_frame_that_is_set_is_used(drawn, origin, offset):
    placed = find_frame(drawn, Cropped(), origin, never)
    assert (placed.offset_l0, placed.origin) == (offset, origin)


@pytest.mark.parametrize(
    ("drawn", "origin"),
    [
        (box(0, 0, 100, 100), "bounds"),  # from level 0 it would lie on what was not scanned
        (box(0, 0, 500, 400), "bounds"),
        (box(-10, -10, 510, 410), "bounds"),  # a little over the edge is still inside
        (box(300, 200, 800, 600), "level0"),  # from the scanned part it would leave it
        (box(290, 190, 810, 610), "level0"),
        (box(700, 500, 790, 590), "level0"),
    ],
)
def test_the_only_frame_that_fits_is_taken_without_a_look_at_the_tissue(drawn, origin):
    placed = find_frame(drawn, Cropped(), "auto", never)
    assert (placed.offset_l0, placed.origin) == (CORNER if origin == "bounds" else (0, 0), origin)
    assert "lies in the scanned part" in placed.reason


@pytest.mark.parametrize(
    ("tissue", "origin"),
    [
        (box(310, 210, 400, 300), "level0"),
        (box(610, 410, 700, 500), "bounds"),
        (box(310, 210, 400, 300) | box(610, 410, 643, 500), "level0"),
        (box(310, 210, 343, 300) | box(610, 410, 700, 500), "bounds"),
    ],
)
def test_tissue_decides_between_two_frames_that_fit(tissue, origin):
    placed = find_frame(box(310, 210, 400, 300), Cropped(), "auto", lambda: tissue)
    assert placed.origin == origin
    assert "is tissue" in placed.reason
    assert "undecided" not in placed.reason


@pytest.mark.parametrize(
    "tissue",
    [MultiPolygon(), box(0, 0, 1000, 800), box(310, 210, 400, 300) | box(610, 410, 680, 500)],
    ids=["none", "everywhere", "nearly as much"],
)
def test_undecided_is_what_qupath_does_by_default_and_says_so(tissue):
    placed = find_frame(box(310, 210, 400, 300), Cropped(), "auto", lambda: tissue)
    assert (placed.offset_l0, placed.origin) == (CORNER, "bounds")
    assert "undecided" in placed.reason
    assert "Set annotation_origin to level0" in placed.reason


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("slide", [Cropped(), Cropped(bounds_l0=(0, 0))], ids=["cropped", "whole"])
def test_drawing_beside_the_slide_is_refused(origin, slide):
    with pytest.raises(
        AnnotationError, match=r"^a: .*x 5000 to 6000.*1000 x 800.*set another annotation_origin"
    ):
        find_frame(box(5000, 5000, 6000, 6000), slide, origin, nowhere)


@pytest.mark.parametrize("origin", ["", "Level0", "qupath"])
def test_unknown_origin_is_refused(origin):
    with pytest.raises(AnnotationError, match="auto, level0, bounds"):
        find_frame(box(0, 0, 1, 1), Cropped(), origin, never)


@given(
    corner=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    left=st.floats(0, 0.9),
    top=st.floats(0, 0.9),
    truth=st.sampled_from(["level0", "bounds"]),
)
def test_drawing_round_the_only_tissue_is_placed_on_it(corner, left, top, truth):
    slide = Cropped(bounds_l0=corner)
    x, y = corner[0] + left * EXTENT[0], corner[1] + top * EXTENT[1]
    tissue = box(x, y, x + 0.1 * EXTENT[0], y + 0.1 * EXTENT[1])
    dx, dy = corner if truth == "bounds" else (0, 0)
    drawn = shapely.transform(tissue, lambda xy: xy - (dx, dy))
    placed = find_frame(drawn, slide, "auto", lambda: tissue)
    on_tissue = shapely.transform(drawn, lambda xy: xy + placed.offset_l0) & tissue
    if max(abs(corner[0]), abs(corner[1])) > 50:  # else the frames lie too near to tell
        assert placed.origin == truth
    assert on_tissue.area > 0 or placed.origin == truth
