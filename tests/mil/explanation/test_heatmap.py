"""The map colours the tiles and nothing else, on a scale that no slide can stretch."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mil.explanation.heatmap import (
    BLANK_PX,
    COLOURS,
    OPACITY,
    SCALE,
    SIGNED_COLOURS,
    draw_layers,
    overlay,
    show_heatmap,
    tile_colours,
)
from mil.explanation.scores import TileScores
from mil.figures.saving import png_bytes
from tests.mil.made import made_bag

SIDE = 10  # of a tile, in pixels of the thumbnail
SIZE = (120, 80)  # of the thumbnail
ZOOM = 32  # level-0 pixels per pixel of the thumbnail
GREY = 200


def jpeg(size=SIZE, colour=(GREY, GREY, GREY)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def scores_of(relative, places, *, slide="s1", thumbnail=None, **changes):
    """Scores of tiles at (column, row) of a grid over the thumbnail."""
    facts = {
        "coords_l0": np.array(places, dtype=np.int64).reshape(-1, 2) * SIDE * ZOOM,
        "side_l0": (float(SIDE * ZOOM), float(SIDE * ZOOM)),
        "size_l0": (SIZE[0] * ZOOM, SIZE[1] * ZOOM),
        "thumbnail": jpeg() if thumbnail is None else thumbnail,
    }
    relative = np.array(relative, dtype=float)
    return TileScores(
        bag=made_bag(slide, n_tiles=len(relative), **(facts | changes)),
        method="attention",
        model="abmil",
        values=relative / len(relative),
        relative=relative,
    )


def tile(canvas, column, row):
    return canvas[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]


def blended(relative, ground=GREY):
    """The definition: 60 % of the colour of the score, 40 % of what lies below."""
    colour = np.array(COLOURS(SCALE([relative])))[0, :3] * 255
    return OPACITY * colour + (1 - OPACITY) * ground


PLACES = [(0, 0), (3, 2), (11, 7), (4, 2)]


def test_tiles_have_the_colour_of_their_score():
    relative = (1.0, 4.0, 0.25, 1 / 3)
    canvas = overlay(scores_of(relative, PLACES))
    for place, score in zip(PLACES, relative, strict=True):
        assert np.abs(tile(canvas, *place).astype(float) - blended(score)).max() <= 1


def test_pixels_outside_the_tiles_are_left_as_they_were():
    canvas = overlay(scores_of((1, 4, 0.25, 9), PLACES))
    untouched = np.ones(canvas.shape[:2], dtype=bool)
    for column, row in PLACES:
        tile(untouched, column, row)[:] = False
    assert untouched.sum() == SIZE[0] * SIZE[1] - 4 * SIDE**2
    assert (canvas[untouched] == GREY).all()
    assert (canvas[~untouched] != GREY).any(axis=1).all()


@pytest.mark.parametrize("step", [141, 143, 156, 212, 448])
def test_tile_paints_no_pixel_beyond_its_rim(step):
    """Steps that no binary fraction holds: rounding must not add a row or column of pixels."""
    for column in range(12):
        scores = scores_of(
            [1.0],
            [],
            coords_l0=np.array([[column * step, 3 * step]]),
            side_l0=(float(step), float(step)),
            size_l0=(12 * step, 8 * step),
        )
        expected = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
        tile(expected, column, 3)[:] = True
        np.testing.assert_array_equal((overlay(scores) != GREY).any(axis=2), expected)


def test_tile_over_the_edge_of_the_slide_is_cut_off():
    canvas = overlay(scores_of((4,), [(11.5, 7.5)], coords_l0=np.array([[3680, 2400]])))
    painted = (canvas != GREY).any(axis=2)
    assert painted.sum() == (SIDE // 2) ** 2
    assert painted[75:, 115:].all()


def test_what_lies_below_shows_through():
    dark = overlay(scores_of((1,), [(0, 0)], thumbnail=jpeg(colour=(0, 0, 0))))
    assert np.abs(tile(dark, 0, 0).astype(float) - blended(1, ground=0)).max() <= 1


def test_same_attention_has_the_same_colour_on_slides_of_different_maxima():
    mild = overlay(scores_of((0.5, 1.5), PLACES[:2]))
    wild = overlay(scores_of((0.5, 12.0), PLACES[:2]))
    np.testing.assert_array_equal(tile(mild, 0, 0), tile(wild, 0, 0))
    assert (tile(mild, 3, 2) != tile(wild, 3, 2)).any()


def test_flat_attention_has_one_colour_and_no_hot_spot():
    nearly = np.ones(4) + np.array([0, 1, -1, 2]) * 1e-4
    canvas = overlay(scores_of(nearly, PLACES))
    colours = np.concatenate([tile(canvas, *place).reshape(-1, 3) for place in PLACES])
    assert np.ptp(colours.astype(int), axis=0).max() <= 1
    assert np.abs(colours - blended(1)).max() <= 1


def test_uniform_share_is_the_middle_of_the_scale():
    assert SCALE(1.0) == pytest.approx(0.5)
    assert SCALE(4.0) - SCALE(1.0) == pytest.approx(SCALE(1.0) - SCALE(0.25))


@pytest.mark.parametrize(("beyond", "end"), [(0.0, 1 / 16), (1e-9, 1 / 16), (500.0, 16)])
def test_scores_beyond_the_scale_have_the_colour_of_its_end(beyond, end):
    first, last = (tile(overlay(scores_of((score,), [(2, 2)])), 2, 2) for score in (beyond, end))
    np.testing.assert_array_equal(first, last)


def test_drawing_one_slide_does_not_move_the_scale_of_the_next():
    before = overlay(scores_of((3.0,), [(0, 0)]))
    drawn(scores_of((100.0, 0.001), PLACES[:2]))
    np.testing.assert_array_equal(overlay(scores_of((3.0,), [(0, 0)])), before)


def test_scores_with_a_sign_have_a_scale_that_is_white_at_nothing():
    scores = replace(scores_of((0, 4, -4, 100), PLACES), target="LMS")
    nothing, for_it, against, beyond = (
        tile(overlay(scores), *place)[0, 0].astype(float) for place in PLACES
    )
    assert np.ptp(nothing) < 6
    assert for_it[0] > for_it[2] + 20  # red
    assert against[2] > against[0] + 20  # blue
    top = np.array(SIGNED_COLOURS(1.0))[:3] * 255
    assert np.abs(beyond - (OPACITY * top + (1 - OPACITY) * GREY)).max() <= 1
    assert drawn(scores) != drawn(replace(scores, target=""))


def test_scores_and_bag_are_left_alone():
    scores = scores_of((1, 4, 0.25, 9), PLACES)
    relative, coords = scores.relative.copy(), scores.bag.coords_l0.copy()
    overlay(scores)
    np.testing.assert_array_equal(scores.relative, relative)
    np.testing.assert_array_equal(scores.bag.coords_l0, coords)


def test_bag_without_a_thumbnail_isdraw_order_on_grey_that_ends_with_its_tiles():
    canvas = overlay(scores_of((4, 4), [(2, 1), (5, 2)], thumbnail=b""))
    assert canvas.shape == (BLANK_PX // 2, BLANK_PX, 3)  # four tiles by two
    assert (canvas[-1, 0] == 238).all()
    for place in ((0, 0), (-1, -1)):
        assert np.abs(canvas[place] - blended(4, ground=238)).max() <= 1


def test_a_row_of_very_many_tiles_without_a_thumbnail_still_has_a_pixel():
    scores = scores_of((1, 1), [(0, 0), (5_000, 0)], thumbnail=b"")
    assert overlay(scores).shape == (1, BLANK_PX, 3)


def test_a_picture_replaces_the_thumbnail_at_its_own_size():
    scores = scores_of((4,), [(0, 0)])
    picture = Image.new("RGB", (3 * SIZE[0], 3 * SIZE[1]), (0, 0, 0))
    canvas = overlay(scores, picture)
    assert canvas.shape == (picture.height, picture.width, 3)
    assert (canvas[-1, -1] == 0).all()
    assert np.abs(canvas[0, 0] - blended(4, ground=0)).max() <= 1


def drawn(scores, caption=""):
    """A map with its title and colour bar, as a file."""
    figure = Figure(figsize=(6, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    show_heatmap(figure.add_subplot(), overlay(scores), scores, caption)
    return png_bytes(figure)


NAMES = ["s1", "case_01", "$x", "a$b_c$", "a$_$", r"$\frac{1}{2$", "50 % _^{", "<b>&amp;"]


@pytest.mark.parametrize("name", NAMES)
def test_heatmap_is_a_png_whatever_the_slide_is_called(name):
    scores = scores_of((1, 4, 0.25, 9), PLACES, slide=name)
    png = drawn(scores, caption=f"of {name}, not trained on this case")
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.width) == ("PNG", 900)


def test_caption_stands_on_the_picture():
    scores = scores_of((1, 4, 0.25, 9), PLACES)
    assert drawn(scores) != drawn(scores, caption="not trained on this case")


def test_heatmap_shows_the_colours_of_the_tiles():
    pixels = np.asarray(Image.open(io.BytesIO(drawn(scores_of((16,), [(4, 3)])))).convert("RGB"))
    near = np.abs(pixels.astype(float) - blended(16)).max(axis=2) <= 2
    assert near.sum() > 100


def test_heatmap_is_repeatable():
    scores = scores_of((1, 4, 0.25, 9), PLACES)
    assert drawn(scores) == drawn(scores)


def test_layers_are_the_slide_without_a_map_and_the_colours_of_its_tiles_alone():
    scores = scores_of((16,), [(4, 3)])
    slide, tiles = (Image.open(io.BytesIO(file)) for file in draw_layers(scores, side_px=120))
    assert [slide.format, tiles.format] == ["JPEG", "PNG"]
    assert slide.size == tiles.size == (120, 80)
    bare = np.asarray(Image.open(io.BytesIO(scores.bag.thumbnail)).convert("RGB").resize((120, 80)))
    assert np.abs(np.asarray(slide.convert("RGB"), float) - bare).max() <= 4
    pixels = np.asarray(tiles.convert("RGBA")).astype(float)
    inside = pixels[..., 3] == 255
    assert np.abs(tile(pixels, 4, 3)[..., :3] - tile_colours(scores)[0]).max() <= 4
    assert 0 < inside.sum() < inside.size
    assert set(np.unique(pixels[..., 3])) == {0, 255}


def test_layers_of_a_slide_without_a_thumbnail_are_one_that_shows_the_map():
    picture, tiles = draw_layers(scores_of((16,), [(4, 3)], thumbnail=b""))
    assert tiles == b""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(float)
    assert np.ptp(pixels, axis=2).max() > 40  # colours, not grey alone


def test_layers_of_a_tall_slide_are_no_taller_than_their_side():
    tall = scores_of((16,), [(0, 3)], thumbnail=jpeg((20, 200)))
    slide, tiles = (Image.open(io.BytesIO(png)) for png in draw_layers(tall, side_px=100))
    assert slide.size == tiles.size == (10, 100)
