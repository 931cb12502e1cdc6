from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
from making import noise, write_tiff
from PIL import Image

from features.errors import ScaleError, SlideError
from features.slides import pixels as pixel_reader
from features.slides import slide as slides
from features.slides.names import slide_name
from features.slides.slide import open_slide

MPP = {"40x": 0.25, "16x": 0.625, "4x": 2.5}
RAMP = 0.12  # grey levels per level-0 pixel, the same in x (red) and y (green)


def ruler(height, width, step):
    """Red counts level-0 pixels in x, green in y; dithered, so that means are exact to 0.01 grey."""
    y, x = np.mgrid[:height, :width].astype(float)
    exact = np.stack([(x + 0.5) * step * RAMP, (y + 0.5) * step * RAMP, 0 * x + 9], axis=-1)
    rng = np.random.default_rng(step)
    return np.floor(exact + rng.random(exact.shape)).astype(np.uint8)


@pytest.fixture(scope="module", params=["exact", "rounded up", "rounded down"])
def pyramid(request, tmp_path_factory):
    """Levels at 40x, 10x and 2.5x whose sizes are a quarter each, exactly or rounded."""
    width, height = {
        "exact": (2048, 1600),
        "rounded up": (2001, 1602),
        "rounded down": (2003, 1603),
    }[request.param]
    down = request.param == "rounded down"
    levels = []
    for step in (1, 4, 16):
        w, h = (width // step, height // step) if down else (-(-width // step), -(-height // step))
        levels.append(ruler(h, w, step))
    folder = tmp_path_factory.mktemp("pyramid")
    with open_slide(write_tiff(folder / "ruler.tiff", levels)) as slide:
        yield slide


def seen(tile, axis, channel):
    """(start, extent) in level-0 pixels that a tile of the ruler shows along an axis."""
    profile = tile[:, :, channel].astype(float).mean(axis=1 - axis) / RAMP
    per_pixel, start = np.polyfit(np.arange(len(profile)) + 0.5, profile, 1)
    return start, per_pixel * len(profile)


@pytest.mark.parametrize(
    ("mpp", "level"),
    [(0.25, 0), (0.625, 0), (0.97, 0), (1.0, 1), (2.5, 1), (3.88, 1), (4.0, 2), (20.0, 2)],
)
def test_level_is_the_coarsest_that_holds_every_pixel(pyramid, mpp, level):
    assert pyramid.view_for(mpp).level == level


def test_level_is_the_finest_where_all_are_too_coarse(pyramid):
    assert pyramid.view_for(0.1).level == 0


@pytest.mark.parametrize("at", MPP)
def test_field_of_view_is_as_requested_within_half_a_percent(pyramid, at):
    side_l0 = 112 * MPP[at] / 0.25
    tile = pyramid.read(400, 300, 112, MPP[at])
    for axis, channel in ((1, 0), (0, 1)):
        _, extent = seen(tile, axis, channel)
        assert extent == pytest.approx(side_l0, rel=0.005)


def test_field_of_view_of_a_broken_number_of_pixels_is_not_cut(tmp_path):
    picture = np.zeros((300, 300, 3), np.uint8)
    picture[:, 196:] = 250
    with open_slide(write_tiff(tmp_path / "s.tiff", [picture])) as slide:
        tile = slide.read(100, 100, 96, 0.2525)  # 96.96 pixels: the last of them is bright
    assert (tile[:, :-1] < 10).all()
    assert (tile[:, -1] > 230).all()


@pytest.mark.parametrize("corner", [(0, 0), (402, 303), (877, 478)])
@pytest.mark.parametrize("at", MPP)
def test_field_of_view_starts_where_requested_within_a_pixel_of_the_level(pyramid, at, corner):
    tile = pyramid.read(*corner, 112, MPP[at])
    pixel = 4 if at == "4x" else 1
    assert abs(seen(tile, 1, 0)[0] - corner[0]) < pixel
    assert abs(seen(tile, 0, 1)[0] - corner[1]) < pixel


def test_unequal_scales_in_x_and_y_show_a_square_of_tissue(tmp_path):
    with open_slide(
        write_tiff(tmp_path / "s.tiff", [ruler(800, 1200, 1)], mpp=0.25, mpp_y=0.5)
    ) as slide:
        assert slide.mpp == pytest.approx((0.25, 0.5), rel=1e-6)
        tile = slide.read(0, 0, 200, 1.0)
    assert seen(tile, 1, 0)[1] == pytest.approx(800, rel=0.005)
    assert seen(tile, 0, 1)[1] == pytest.approx(400, rel=0.005)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (13, 7), (255, 255), (301, 411)])
def test_reading_at_level_0_gives_the_files_own_pixels(tmp_path, x, y):
    path = write_tiff(tmp_path / "s.tiff", [noise(700, 600), noise(175, 150)])
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        own = np.asarray(handle.read_region((x, y), 0, (224, 224)).convert("RGB"))
        assert np.array_equal(slide.read(x, y, 224, 0.25), own)


def test_jpeg_pixels_are_those_openslide_decodes(tmp_path):
    path = write_tiff(tmp_path / "s.tiff", [noise(600, 600)], compression="jpeg")
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        own = np.asarray(handle.read_region((100, 50), 0, (224, 224)).convert("RGB"))
        assert np.array_equal(slide.read(100, 50, 224, 0.25), own)


@pytest.mark.parametrize(("mpp", "step"), [(0.25, 1), (0.625, 2.5), (1.0, 4)])
@pytest.mark.parametrize(("x", "y"), [(-40, -40), (560, 360), (-40, 360)])
def test_outside_the_slide_is_white_at_every_level(tmp_path, mpp, step, x, y):
    dark = np.full((400, 600, 3), 40, np.uint8)
    with open_slide(write_tiff(tmp_path / "s.tiff", [dark, dark[::4, ::4]])) as slide:
        tile = slide.read(x, y, 64, mpp)
    at = (np.arange(64) + 0.5) * step  # pixel centres, in level-0 pixels from the corner
    column, row = x + at, y + at
    inside = np.outer((row > 0) & (row < 400), (column > 0) & (column < 600))
    edge = 1.5 * step  # a resampled pixel at the edge is a mixture
    near_x = np.minimum(abs(column), abs(column - 600)) <= edge
    near_y = np.minimum(abs(row), abs(row - 400)) <= edge
    sure = ~(near_x[None, :] | near_y[:, None]) if step > 1 else np.ones_like(inside)
    assert (tile[sure & ~inside] == 255).all()
    assert (tile[sure & inside] == 40).all()
    assert (sure & inside).any()
    assert (sure & ~inside).any()


def test_far_outside_the_slide_is_white(tmp_path):
    with open_slide(write_tiff(tmp_path / "s.tiff", [np.zeros((300, 300, 3), np.uint8)])) as slide:
        assert (slide.read(5000, 5000, 32, 0.25) == 255).all()


def test_threads_read_what_one_reader_reads(tmp_path):
    path = write_tiff(tmp_path / "s.tiff", [noise(1500, 1500), noise(375, 375)], compression="jpeg")
    places = [
        (x, y, mpp) for mpp in (0.25, 1.0) for x in range(0, 1400, 300) for y in (0, 333, 900)
    ]
    with open_slide(path) as slide:
        one = [slide.read(x, y, 64, mpp) for x, y, mpp in places]
        with ThreadPoolExecutor(8) as pool:
            many = list(pool.map(lambda p: slide.read(p[0], p[1], 64, p[2]), places))
    assert all(np.array_equal(a, b) for a, b in zip(one, many, strict=True))


def test_scale_comes_from_the_file(tmp_path):
    with open_slide(write_tiff(tmp_path / "s.tiff", [noise(300, 300)], mpp=0.2527)) as slide:
        assert slide.mpp == pytest.approx((0.2527, 0.2527), rel=1e-6)
        assert slide.mpp_source == "file"


def test_scale_of_the_caller_overrides_the_file_exactly(slide_file):
    with open_slide(slide_file, mpp=0.2204) as slide:
        assert slide.mpp == (0.2204, 0.2204)
        assert slide.mpp_source == "given"


def test_unknown_scale_names_the_remedy(tmp_path):
    path = write_tiff(tmp_path / "s.tiff", [noise(300, 300)], mpp=None)
    with pytest.raises(ScaleError, match=r"^s\.tiff: .*Set slide_mpp"):
        open_slide(path)


def test_unknown_scale_is_set_by_the_caller(tmp_path):
    path = write_tiff(tmp_path / "s.tiff", [noise(300, 300)], mpp=None)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.mpp == (0.5, 0.5)


@pytest.mark.parametrize("mpp", [0.01, 30.0, 0.0, -0.25, float("nan"), float("inf")])
def test_implausible_scale_of_the_caller_is_refused(slide_file, mpp):
    with pytest.raises(ScaleError, match="Set slide_mpp"):
        open_slide(slide_file, mpp=mpp)


@pytest.mark.parametrize("mpp", [0.01, 30.0])
def test_implausible_scale_of_the_file_is_refused(tmp_path, mpp):
    with pytest.raises(ScaleError, match=r"not between 0\.05 and 20"):
        open_slide(write_tiff(tmp_path / "s.tiff", [noise(300, 300)], mpp=mpp))


@pytest.mark.parametrize("mpp", [0.05, 20.0])
def test_scale_at_the_edge_of_the_plausible_is_accepted(slide_file, mpp):
    with open_slide(slide_file, mpp=mpp) as slide:
        assert slide.mpp == (mpp, mpp)


@pytest.mark.parametrize("content", [None, b"", b"not a slide\n" * 99, b"II*\x00" + b"\xff" * 500])
def test_what_is_no_slide_is_one_line_of_slide_error(tmp_path, content):
    path = tmp_path / "s.svs"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SlideError, match=r"s\.svs") as caught:
        open_slide(path)
    assert "\n" not in str(caught.value)


def test_folder_is_no_slide(tmp_path):
    with pytest.raises(SlideError, match="no such slide"):
        open_slide(tmp_path)


def test_undecodable_pixels_are_a_slide_error(tmp_path):
    path = write_tiff(tmp_path / "s.tiff", [noise(512, 512)], compression="jpeg")
    raw = bytearray(path.read_bytes())
    raw[2000:-2000] = bytes(len(raw) - 4000)
    path.write_bytes(raw)
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"^s\.tiff: the pixels at"):
        slide.read(0, 0, 512, 0.25)


@pytest.mark.parametrize("name", ["two words", "Präparat-Ö_日本", "case.01.a", "a'b\"c"])
def test_any_file_name_opens_and_keeps_its_name(tmp_path, name):
    with open_slide(write_tiff(tmp_path / f"{name}.tiff", [noise(300, 300)])) as slide:
        assert slide.name == name
        assert slide.read(0, 0, 32, 0.25).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.svs", "a"),
        ("a.b.SVS", "a.b"),
        ("case.01", "case.01"),
        ("a.ome.tiff", "a.ome"),
        ("a.h5", "a"),
        ("a.jpg", "a.jpg"),
        (".svs", ".svs"),
    ],
)
def test_slide_name_drops_only_a_known_suffix(file, name):
    assert slide_name(file) == name


def test_thumbnail_fits_and_keeps_the_shape(tmp_path):
    with open_slide(write_tiff(tmp_path / "s.tiff", [noise(300, 600)])) as slide:
        assert slide.thumbnail(100).size == (100, 50)


def test_fractions_of_a_pixel_are_part_of_the_field(tmp_path):
    """224 px at .5 are 224.45 px of a slide at .499: neither 224 nor 225 of them."""
    picture = noise(256, 256)
    path = write_tiff(tmp_path / "noise.tiff", [picture], mpp=0.499)
    with open_slide(path) as slide:
        read = slide.read(0, 0, 224, 0.5)[:, :, 0].astype(float)
    plane = Image.fromarray(
        picture[:, :, 0].astype(np.float32)
    )  # in floats, to see the field alone
    off = {}
    for side in (224, 224 * 0.5 / 0.499, 225):
        field = plane.resize((224, 224), Image.Resampling.BILINEAR, box=(0, 0, side, side))
        off[round(side, 2)] = np.abs(read - np.asarray(field)).mean()
    assert off[224.45] < 1
    assert min(off[224], off[225]) > 5


@pytest.mark.parametrize("px", [601, 300, 97])
@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_thumbnail_read_in_bands_is_that_read_in_one_piece(tmp_path, monkeypatch, px, compression):
    path = write_tiff(tmp_path / "s.tiff", [noise(803, 601)], compression=compression)
    bands = []
    for pixels in (1 << 30, 1 << 15):
        monkeypatch.setattr(slides, "BAND_PIXELS", pixels)
        with open_slide(path) as slide:
            bands.append(np.asarray(slide.thumbnail(px)).astype(int))
    assert bands[0].shape == bands[1].shape
    assert np.abs(bands[0] - bands[1]).max() <= 1  # rounding


@pytest.mark.parametrize(("x", "y", "side"), [(0, 0, 300), (17, -60, 257), (-333, 100, 64)])
@pytest.mark.parametrize("mpp", [0.6, 1.3, 2.0])
def test_a_field_read_in_pieces_is_that_read_in_one(tmp_path, monkeypatch, x, y, side, mpp):
    path = write_tiff(tmp_path / "s.tiff", [noise(803, 601)])
    read, decoded = [], []
    region = pixel_reader._read_region

    def counted(handle, level, corner, size):
        decoded.append(size[0] * size[1])
        return region(handle, level, corner, size)

    monkeypatch.setattr(pixel_reader, "_read_region", counted)
    for pixels in (1 << 30, 1 << 14):
        monkeypatch.setattr(slides, "FIELD_PIXELS", pixels)
        decoded.clear()
        with open_slide(path) as slide:
            read.append(slide.read(x, y, side, mpp).astype(int))
    assert read[0].shape == read[1].shape
    assert np.abs(read[0] - read[1]).max() <= 1  # rounding
    assert len(decoded) > 1
    assert max(decoded) < 1.2 * (1 << 14)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty. Copy it again."),
        (
            b"<html>404 not found</html>\n",
            "it is a text file that begins with '<html>404 not found</html>'",
        ),
        (
            "Pr\u00e4parat fehlt".encode(),
            "it is a text file that begins with 'Pr\u00e4parat fehlt'. Give the slide",
        ),
    ],
)
def test_an_empty_file_or_a_text_is_named_as_such(tmp_path, content, words):
    (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(SlideError) as caught:
        open_slide(tmp_path / "a.svs")
    assert words in str(caught.value)
