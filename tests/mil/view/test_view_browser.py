"""The page in a real browser: load, zoom, switch the layer, point at a tile, pin it."""

import json
from itertools import product

import numpy as np
import openslide
import pytest

from tests.chromium import chromium
from tests.mil.view.conftest import NASTY, SIZE
from tests.mil.view.requests import fetch

SLIDE = f"{NASTY}-s1"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser, server):
    """The page on the slide that has a file, its first layer drawn."""
    browser.errors.clear()
    browser.open(server.address)
    browser.until("document.body && document.body.dataset.layer === '0'")
    number = server.gallery.slides.index(SLIDE)
    browser.value(f"document.querySelector('#list button[data-number=\"{number}\"]').click()")
    browser.until(f"document.body.dataset.slide === '{number}' && shown !== null")
    browser.until("document.body.dataset.loaded && !dirty")
    yield browser
    assert browser.errors == []
    browser.ask("Page.navigate", url="about:blank")  # asks nothing of a server that has ended


def scores(server, layer):
    number = server.gallery.slides.index(SLIDE)
    return json.loads(fetch(server, f"slides/{number}/scores/{layer}.json")[2])


def colour_at(page, canvas, x, y):
    """The canvas's colour at a place of the window, (r, g, b, a)."""
    return page.value(
        "(() => { draw(); const f = stage.getBoundingClientRect(); "
        f"const canvas = document.getElementById('{canvas}').getContext('2d'); "
        f"return [...canvas.getImageData({x} - f.left, {y} - f.top, 1, 1).data]; }})()"
    )


def window_of(page, x_l0, y_l0):
    """Where a level-0 point is in the window."""
    return page.value(
        "(() => { const f = stage.getBoundingClientRect(), p = toScreen("
        f"{x_l0}, {y_l0}); return [Math.round(p[0] + f.left), Math.round(p[1] + f.top)]; }})()"
    )


def under(page, x, y):
    """The level-0 point at a place of the window."""
    return page.value(
        f"(() => {{ const f = stage.getBoundingClientRect(); return toSlide({x} - f.left, {y} - f.top); }})()"
    )


def test_names_of_cases_are_text_and_the_hardest_case_comes_first(page, server):
    listed = page.value(
        "[...document.querySelectorAll('#list button')].map(b => b.children[1].textContent)"
    )
    cases = server.gallery.contents()["cases"]
    classes = server.gallery.contents()["classes"]
    truth = {c["case"]: c["predictions"]["abmil"]["p"][classes.index(c["label"])] for c in cases}
    assert listed == sorted(truth, key=truth.__getitem__)
    assert NASTY in listed
    assert page.value("document.querySelector('[onclick], #list b, #case b')") is None
    marks = page.value(
        "[...document.querySelectorAll('#list button')].map(b => b.children[0].textContent)"
    )
    right = {c["case"]: c["predictions"]["abmil"]["right"] for c in cases}
    assert marks == ["✓" if right[name] else "✗" for name in listed]


def test_the_wheel_zooms_at_the_cursor_and_finer_tiles_come(page, viewed):
    x, y = window_of(page, 700, 600)
    before, level = under(page, x, y), page.value("document.body.dataset.loaded")
    for _ in range(4):
        page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    page.until("zoom > 1.5")
    assert np.allclose(under(page, x, y), before, atol=0.01)
    finest = page.value("slide.zoom.levels - 1")
    assert not level.startswith(f"{finest}/")
    page.until(f"[...tiles].some(([key, t]) => key.startsWith('{finest}/') && t.complete)")
    with openslide.OpenSlide(viewed[1][SLIDE]) as slide:
        middle = [int(n // 20 * 20 + 10) for n in before]  # of a square of one colour
        true = slide.read_region(middle, 0, (1, 1)).getpixel((0, 0))
    drawn = colour_at(page, "pixels", *window_of(page, *middle))
    assert np.abs(np.subtract(drawn[:3], true[:3])).max() < 12


def test_tiles_lie_where_the_slide_has_them_to_the_pixel(page, viewed):
    """Squares of 20 pixels in one colour: on both sides of their edges the brightness is their own."""
    page.value("[x, y, zoom] = [820, 610, 4]; redraw()")  # in the second tile of both axes
    page.until("document.body.dataset.loaded.startsWith(`${slide.zoom.levels - 1}/`)")
    luma = np.array([0.299, 0.587, 0.114])  # JPEG blurs colour, not brightness
    right = []
    with openslide.OpenSlide(viewed[1][SLIDE]) as slide:
        for edge, row in product(range(760, 900, 20), (570, 610, 650)):
            squares = slide.read_region((edge - 5, row), 0, (10, 1))
            left, other = np.asarray(squares)[0, [0, -1], :3] @ luma
            for own, x_l0 in ((left, edge - 0.5), (other, edge + 0.5)):
                drawn = colour_at(page, "pixels", *window_of(page, x_l0, row + 0.5))[:3] @ luma
                if abs(left - other) > 50:
                    right.append(abs(drawn - own) < abs(left - other) / 2)
    assert len(right) >= 10
    assert np.mean(right) >= 0.9


def test_tiles_are_coloured_by_the_layer_that_is_chosen(page, server):
    drawn = []
    for layer in (0, 1):
        page.value(f"$('layer').value = {layer}; $('layer').dispatchEvent(new Event('change'))")
        page.until(f"document.body.dataset.layer === '{layer}'")
        colours = scores(server, layer)["colours"]
        for tile in range(6):
            red, green, blue, alpha = colour_at(
                page, "scores", *window_of(page, 448 * tile + 200, 220)
            )
            assert (red << 16) + (green << 8) + blue == colours[tile]
            assert alpha == 255
        drawn.append(colours)
        assert colour_at(page, "scores", *window_of(page, 700, 700))[3] == 0  # no tile there
    assert drawn[0] != drawn[1]
    page.value("$('layer').value = -1; $('layer').dispatchEvent(new Event('change'))")
    page.until("shown === null")
    assert colour_at(page, "scores", *window_of(page, 200, 220))[3] == 0


def test_opacity_is_that_of_the_slider(page):
    page.value("$('opacity').value = 25; $('opacity').dispatchEvent(new Event('input'))")
    assert page.value("getComputedStyle($('scores')).opacity") == "0.25"


def test_the_tile_under_the_cursor_tells_its_scores_and_a_click_pins_it(page, server):
    layer_scores = scores(server, 0)
    x, y = window_of(page, 448 * 2 + 100, 100)
    page.mouse("mouseMoved", x, y)
    page.until("hovered === 2")
    page.click(x, y)
    page.until("pinned === 2")
    page.mouse("mouseMoved", *window_of(page, 700, 900))
    page.until("hovered === -1")
    values = page.value("[...document.querySelectorAll('#tile dd')].map(d => d.textContent)")
    rank = 1 + sum(value > layer_scores["relative"][2] for value in layer_scores["relative"])
    assert values[0] == "3 of 6"
    assert np.isclose(float(values[3]), layer_scores["values"][2], rtol=1e-2)
    assert np.isclose(float(values[4]), layer_scores["relative"][2], rtol=1e-2)
    assert values[5] == f"{rank} of 6"
    left, right = (window_of(page, edge, 0)[0] for edge in (448 * 2, 448 * 3))
    frame = page.value("(r => [r.left, r.right])($('pin').getBoundingClientRect())")
    assert np.allclose(frame, (left, right), atol=1.5)
    page.click(x, y)
    page.until("pinned === -1")


def test_keys_zoom_move_pin_and_show_all(page):
    page.value("stage.focus()")
    whole = page.value("[x, y, zoom]")
    assert whole[:2] == [side / 2 for side in SIZE]
    page.press("+")
    page.until(f"zoom > {whole[2]} * 1.4")
    page.press("ArrowUp")
    page.until(f"y < {whole[1]}")
    page.press("0")
    page.until(f"zoom === {whole[2]}")
    page.value("goTo(4)")
    page.press("Enter")
    page.until("pinned === 4")
    page.press("Escape")
    page.until("pinned === -1")
    page.press("-")


def test_dragging_moves_the_slide_and_pins_nothing(page):
    x, y = window_of(page, 1000, 200)
    before = under(page, x, y)
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    for step in (20, 40, 60):
        page.mouse("mouseMoved", x + step, y, button="left", buttons=1)
    page.mouse("mouseReleased", x + 60, y, button="left", clickCount=1)
    assert np.allclose(under(page, x + 60, y), before, atol=0.01)
    assert page.value("pinned") == -1


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out_of_the_window(browser, server, width):
    browser.open(server.address, width=width)
    browser.until("document.body && document.body.dataset.layer === '0'")
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert browser.value("stage.clientWidth >= 300 && stage.clientHeight >= 300")
