import gc
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from making import noise, write_tiff
from PIL import Image

from features.errors import TileError
from features.slides import jpeg_tiles as module
from features.slides.jpeg_tiles import JpegTiles, Level
from features.slides.pixels import flatten_on_white

SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}


def picture(height, width, seed=0):
    """Soft coloured blobs with grain: every place differs, and JPEG keeps most of it."""
    coarse = Image.fromarray(noise(height // 16 + 2, width // 16 + 2, seed))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = np.random.default_rng(seed).integers(-8, 9, (height, width, 1))
    return np.clip(soft * 0.7 + 40 + grain, 0, 255).astype(np.uint8)


def write_jpeg(
    path, *levels, tile=(256, 256), subsampling=(2, 2), rgb=False, quality=85, **options
):
    """A pyramid of whole JPEG tiles as tifffile writes them; ``rgb`` stores them unconverted."""
    with tifffile.TiffWriter(path, **options) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level,
                subfiletype=int(index > 0),
                tile=tile,
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": quality} | ({"outcolorspace": "rgb"} if rgb else {}),
                subsampling=(1, 1) if rgb else subsampling,
                metadata=None,
                maxworkers=1,
            )
    return path


def segments(jpeg):
    """(marker, bytes) of each segment up to the scan, then the rest under None."""
    at = 2
    while jpeg[at + 1] != 0xDA:
        (length,) = struct.unpack(">H", jpeg[at + 2 : at + 4])
        yield jpeg[at + 1], jpeg[at : at + 2 + length]
        at += 2 + length
    yield None, jpeg[at:]


def write_abbreviated(path, level, *, tile=256, rgb=False, empty=()):
    """One level as scanners write it: tables once in the TIFF, tiles without them or any marker."""
    height, width = level.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.pad(
        level, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge"
    )
    tables, tiles = b"", []
    for y in range(0, rows * tile, tile):
        for x in range(0, columns * tile, tile):
            jpeg = imagecodecs.jpeg_encode(
                np.ascontiguousarray(padded[y : y + tile, x : x + tile]),
                level=85,
                colorspace="RGB",
                outcolorspace="RGB" if rgb else "YCBCR",
                subsampling="444" if rgb else "422",
            )
            # Components 1, 2, 3, as of YCbCr, where libjpeg writes R, G, B: only the TIFF tells.
            for named in (b"R\x11\0G\x11\0B\x11\0", b"R\0G\0B\0"):
                jpeg = jpeg.replace(named, bytes({82: 1, 71: 2, 66: 3}.get(n, n) for n in named))
            parts = list(segments(jpeg))
            tables = b"".join(data for marker, data in parts if marker in (0xDB, 0xC4))
            markers = [data for marker, data in parts if marker is None or 0xC0 <= marker < 0xC4]
            tiles.append(b"" if len(tiles) in empty else b"\xff\xd8" + b"".join(markers))
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles),
            shape=level.shape,
            dtype=np.uint8,
            tile=(tile, tile),
            photometric="rgb",
            compression="jpeg",
            compressionargs={"outcolorspace": 2 if rgb else 6},
            subsampling=(1, 1) if rgb else (2, 1),
            jpegtables=b"\xff\xd8" + tables + b"\xff\xd9",
            metadata=None,
        )
    return path


def opened(path, **options):
    with openslide.OpenSlide(path) as handle:
        return JpegTiles.open(path, handle, **options)


def by_openslide(handle, level, x, y, width, height):
    """The rectangle as OpenSlide reads it; only for downsamples that are whole numbers."""
    downsample = round(handle.level_downsamples[level])
    corner = (x * downsample, y * downsample)
    return np.asarray(flatten_on_white(handle.read_region(corner, level, (width, height))))


def rectangles(size, count, seed=0):
    """Inside, over the borders, far outside; some are single pixels or lines."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        width, height = (int(rng.choice([1, rng.integers(1, 700)])) for _ in range(2))
        yield *(int(rng.integers(-500, side + 300)) for side in size), width, height


def assert_identical(path, *, count=60):
    with openslide.OpenSlide(path) as handle:
        reader = JpegTiles.open(path, handle)
        assert list(reader.levels) == list(range(handle.level_count))
        for level, size in enumerate(handle.level_dimensions):
            assert reader.levels[level][0] == 1
            for where in rectangles(size, count):
                theirs = by_openslide(handle, level, *where)
                np.testing.assert_array_equal(reader.read(level, 1, *where), theirs, str(where))
        reader.close()


def whole(reader, level, shrink, size):
    return reader.read(level, shrink, 0, 0, size[0] // shrink, size[1] // shrink)


def cut(picture, x, y, width, height, margin=1100):
    """The rectangle of a picture that lies on white."""
    on_glass = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    return on_glass[y + margin : y + margin + height, x + margin : x + margin + width]


def rms_to_means(reader, shrink, size):
    """Root mean square of (shrunk read - mean over squares of the full read), and mean by channel."""
    across, down = size[0] // shrink, size[1] // shrink
    full = whole(reader, 0, 1, size)[: down * shrink, : across * shrink].astype(np.float32)
    squares = full.reshape(down, shrink, across, shrink, 3).mean(axis=(1, 3))
    error = whole(reader, 0, shrink, size) - squares
    return np.sqrt((error**2).mean()), error.mean(axis=(0, 1))


@pytest.fixture
def slide(tmp_path):
    """1600 x 1120 and a quarter of it: neither a multiple of the 256 px tiles."""
    finest = picture(1120, 1600)
    return write_jpeg(tmp_path / "s.tif", finest, np.asarray(Image.fromarray(finest).reduce(4)))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS.values(), ids=SUBSAMPLINGS)
@pytest.mark.parametrize("tile", [(240, 240), (256, 256), (512, 512), (128, 400)])
def test_every_rectangle_is_what_openslide_reads(tmp_path, tile, subsampling):
    finest = picture(1000, 1300)
    quarter = np.asarray(Image.fromarray(finest).reduce(4))
    options = {"tile": tile, "subsampling": subsampling}
    assert_identical(write_jpeg(tmp_path / "s.tif", finest, quarter, **options))


@pytest.mark.parametrize("rgb", [True, False])
@pytest.mark.parametrize("form", ["whole", "abbreviated"])
def test_colours_are_read_from_the_tiff_not_guessed(tmp_path, rgb, form):
    write = write_jpeg if form == "whole" else write_abbreviated
    path = write(tmp_path / "s.tif", picture(700, 900), rgb=rgb)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages.first.photometric == (2 if rgb else 6)
    assert_identical(path)


def test_bigtiff(tmp_path):
    assert_identical(write_jpeg(tmp_path / "s.tif", picture(600, 600), bigtiff=True))


def test_levels_between_other_pages(tmp_path):
    finest = picture(1024, 1024)
    path = tmp_path / "s.tif"
    options = {
        "photometric": "rgb",
        "compression": "jpeg",
        "tile": (256, 256),
        "metadata": None,
        "maxworkers": 1,
    }
    quarter = np.asarray(Image.fromarray(finest).reduce(4))
    description = "Aperio Image Library v1\n1024x1024 |AppMag = 40|MPP = 0.25"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(finest, description=description, **options)
        # A thumbnail of the size of no level, in strips, as Aperio's scanners write it.
        tiff.write(finest[::5, ::5], photometric="rgb", rowsperstrip=16, metadata=None)
        tiff.write(quarter, description=description, **options)
    with openslide.OpenSlide(path) as handle:
        assert handle.properties["openslide.vendor"] == "aperio"
        assert handle.level_count == 2
    assert_identical(path)


@pytest.mark.parametrize("size", [(750, 500), (513, 257)])  # the latter has tiles of one pixel
def test_a_level_that_does_not_divide_the_finest_has_its_own_pixels(tmp_path, size):
    # OpenSlide cannot begin at most of that level's pixels, and blends.
    finest = picture(2003, 3001)
    level = np.asarray(Image.fromarray(finest).resize(size, Image.Resampling.BOX))
    path = write_jpeg(tmp_path / "s.tif", finest, level)
    reader = opened(path)
    with tifffile.TiffFile(path) as tiff:
        decoded = tiff.pages[1].asarray()
    np.testing.assert_array_equal(whole(reader, 1, 1, size), decoded)
    for where in rectangles(size, 20):
        np.testing.assert_array_equal(reader.read(1, 1, *where), cut(decoded, *where))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS.values(), ids=SUBSAMPLINGS)
@pytest.mark.parametrize("tile", [(240, 240), (256, 256), (128, 400)])
def test_shrunk_is_the_mean_of_each_square(tmp_path, tile, subsampling):
    size = (1300, 1001)
    path = tmp_path / "s.tif"
    options = {"tile": tile, "subsampling": subsampling}
    reader = opened(write_jpeg(path, picture(1001, 1300) // 2 + 100, **options))
    if subsampling == (2, 1):  # libjpeg blurs this chroma sideways, the more the smaller
        assert 8 not in reader.levels[0]
    else:
        assert reader.levels[0] == (1, 2, 4, 8)
    for shrink in reader.levels[0][1:]:
        rms, shade = rms_to_means(reader, shrink, size)
        assert rms < 2.5
        assert np.abs(shade).max() < 0.2
        shrunk = whole(reader, 0, shrink, size)
        for where in rectangles(shrunk.shape[1::-1], 30):
            np.testing.assert_array_equal(reader.read(0, shrink, *where), cut(shrunk, *where))


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_shrunk_pixels_lie_where_they_should(tmp_path, subsampling):
    # Waves along x, y and both: moved, they differ by their slope, whatever else differs.
    y, x = np.mgrid[:512, :512] * (2 * np.pi / 128)
    waves = 128 + 60 * np.sin(np.stack([x, y, x + y], axis=2))
    grain = np.random.default_rng(0).normal(0, 2, waves.shape)
    content = np.round(waves + grain).astype(np.uint8)
    reader = opened(write_jpeg(tmp_path / "s.tif", content, subsampling=subsampling, quality=95))
    for shrink in (2, 4, 8):
        side = 512 // shrink
        expected = waves.reshape(side, shrink, side, shrink, 3).mean(axis=(1, 3))
        error = whole(reader, 0, shrink, (512, 512)) - expected
        for channel, axis in ((0, 1), (1, 0), (2, 0), (2, 1)):
            slope = np.gradient(expected[..., channel], axis=axis)
            assert abs((error[..., channel] * slope).sum() / (slope**2).sum()) < 0.02


def damage(path, index, make, page=0):
    """Replace one tile's bytes by make(bytes); the file keeps its length."""
    with tifffile.TiffFile(path) as tiff:
        start, count = (
            tiff.pages[page].dataoffsets[index],
            tiff.pages[page].databytecounts[index],
        )
    content = bytearray(path.read_bytes())
    content[start : start + count] = make(bytes(content[start : start + count]))
    path.write_bytes(content)


def shorten(jpeg):
    return jpeg[: len(jpeg) // 2] + bytes(len(jpeg) - len(jpeg) // 2)


def vast(jpeg):
    """A tile whose frame header asks for 65000 x 65000 pixels."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", 65000, 65000) + jpeg[at + 4 :]


def no_start(jpeg):
    return b"\0\0" + jpeg[2:]


def smaller(jpeg):
    """Another JPEG, sound but of 64 x 64 pixels."""
    return imagecodecs.jpeg_encode(noise(64, 64), level=30).ljust(len(jpeg), b"\0")


DAMAGES = {
    "zeroed": lambda jpeg: bytes(len(jpeg)),
    "half": shorten,
    "vast": vast,
    "small": smaller,
    "start": no_start,
}


@pytest.mark.parametrize("harm", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize(
    "index", [0, 9, 34]
)  # the first and the last tile are samples of the proof
def test_a_damaged_tile_is_an_error_and_its_neighbours_are_whole(slide, index, harm):
    sound = whole(opened(slide), 0, 1, (1600, 1120))
    damage(slide, index, harm)
    reader = opened(slide)
    assert list(reader.levels) == [0, 1]
    assert reader.levels[0] == (1, 2, 4, 8)
    row, column = divmod(index, 7)
    x, y = column * 256, row * 256
    for _ in range(2):  # the error leaves nothing behind
        for shrink in (1, 2, 4, 8):
            side = 256 // shrink
            at = (x // shrink, y // shrink)
            for where in [(*at, side, side), (*at, 8, 8), (at[0] + 1, at[1] + 1, side, side)]:
                with pytest.raises(TileError, match=rf"s\.tif.*\({x}, {y}\) of level 0.*again"):
                    reader.read(0, shrink, *where)
    others = [n for n in range(35) if n != index]
    for n in others:
        left, top = n % 7 * 256, n // 7 * 256
        w, h = min(256, 1600 - left), min(256, 1120 - top)
        np.testing.assert_array_equal(
            reader.read(0, 1, left, top, w, h), sound[top : top + h, left : left + w]
        )
    assert reader._cached == sum(tile.result().nbytes for tile in reader._cache.values())


def test_flipped_bits_are_an_error_or_what_openslide_reads(slide):
    rng = np.random.default_rng(0)
    intact, both, alone, neither = slide.read_bytes(), 0, 0, 0

    def flip(jpeg):
        flipped = bytearray(jpeg)
        for at in rng.integers(700, len(jpeg) - 2, int(rng.integers(1, 30))):
            flipped[at] ^= 1 << int(rng.integers(8))
        return bytes(flipped)

    for _ in range(40):
        slide.write_bytes(intact)
        damage(slide, 8, flip)
        with openslide.OpenSlide(slide) as handle:
            reader = JpegTiles.open(slide, handle)
            try:
                theirs = by_openslide(handle, 0, 256, 256, 256, 256)
            except openslide.OpenSlideError:
                both += 1
                with pytest.raises(TileError):
                    reader.read(0, 1, 256, 256, 256, 256)
                continue
        try:
            own = reader.read(0, 1, 256, 256, 256, 256)
        except TileError:  # of what follows the last row, where OpenSlide does not look
            alone += 1
        else:
            neither += 1
            np.testing.assert_array_equal(own, theirs)
    assert min(both, alone, neither) > 0


def test_a_file_cut_short_reads_up_to_the_cut(tmp_path):
    # The finest level last, since OpenSlide reads the coarsest when it opens a file.
    path = write_jpeg(tmp_path / "s.tif", picture(256, 256), picture(1024, 1024))
    with tifffile.TiffFile(path) as tiff:
        cut_at = tiff.pages[1].dataoffsets[12] + 100
    path.write_bytes(path.read_bytes()[:cut_at])
    reader = opened(path)
    assert reader.read(0, 1, 0, 0, 1024, 768).shape == (768, 1024, 3)
    for x in range(0, 1024, 256):
        with pytest.raises(TileError):
            reader.read(0, 1, x, 768, 256, 256)


def test_an_unreadable_level_is_left_out(slide):
    for index in range(4):
        damage(slide, index, DAMAGES["zeroed"], page=1)
    assert opened(slide).levels == {0: (1, 2, 4, 8)}


def test_what_is_no_plain_grid_of_colour_jpegs_is_none(tmp_path, monkeypatch):
    some = picture(600, 600)
    plain = {"compression": "jpeg", "metadata": None, "maxworkers": 1}
    deflate, j2k, grey, twice, sparse, strips, text = (
        tmp_path / f"{name}.tif"
        for name in ("deflate", "j2k", "grey", "twice", "sparse", "strips", "text")
    )
    write_tiff(deflate, [some])
    write_tiff(j2k, [some], compression="jpeg2000")
    tifffile.imwrite(grey, some[..., 0], tile=(256, 256), photometric="minisblack", **plain)
    with tifffile.TiffWriter(twice) as tiff:  # which of them OpenSlide takes is not for us to guess
        for seed in range(2):
            tiff.write(picture(600, 600, seed), tile=(256, 256), photometric="rgb", **plain)
    write_abbreviated(sparse, some, empty=(4,))
    tifffile.imwrite(strips, some, photometric="rgb", rowsperstrip=64, **plain)
    text.write_bytes(b"no TIFF at all")
    with openslide.OpenSlide(deflate) as geometry:  # OpenSlide itself opens only some of the others
        for path in (deflate, j2k, grey, twice, sparse, strips, text):
            assert JpegTiles.open(path, geometry) is None, path.name
        jpeg = write_jpeg(tmp_path / "s.tif", some)
        assert JpegTiles.open(jpeg, geometry) is not None
        monkeypatch.delattr(os, "pread")  # as on Windows
        assert JpegTiles.open(jpeg, geometry) is None


WRONG = {
    "moved by a pixel": lambda rgb: np.roll(rgb, 1, axis=1),
    "red and blue exchanged": lambda rgb: rgb[..., ::-1],
    "one grey value brighter": lambda rgb: np.minimum(rgb, 254) + np.uint8(1),
    "upside down": lambda rgb: rgb[::-1],
    "one pixel changed": lambda rgb: np.where(np.arange(rgb.size).reshape(rgb.shape) == 9, 7, rgb),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_decoder_that_differs_is_not_used(slide, monkeypatch, wrong):
    decode = module.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        module.simplejpeg, "decode_jpeg", lambda *args, **named: wrong(decode(*args, **named))
    )
    assert opened(slide) is None


def test_a_decoder_that_reads_what_openslide_refuses_is_not_used(slide, monkeypatch):
    damage(slide, 0, shorten)
    assert list(opened(slide).levels) == [0, 1]
    decode = module.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        module.simplejpeg,
        "decode_jpeg",
        lambda *args, **named: decode(*args, **(named | {"strict": False})),
    )
    assert list(opened(slide).levels) == [1]


def test_a_decoder_wrong_on_a_fractional_level_is_not_used_there(tmp_path, monkeypatch):
    finest = picture(1003, 1501)
    level = np.asarray(Image.fromarray(finest).resize((375, 250), Image.Resampling.BOX))
    path = write_jpeg(tmp_path / "s.tif", finest, level)
    assert list(opened(path).levels) == [0, 1]
    decode = Level.decode

    def moved(self, file, index, shrink):
        rgb = decode(self, file, index, shrink)
        return np.roll(rgb, 1, axis=0) if self.size == (375, 250) and index else rgb

    monkeypatch.setattr(Level, "decode", moved)
    assert list(opened(path).levels) == [0]


@pytest.mark.parametrize("name", ["moved by a pixel", "red and blue exchanged", "upside down"])
def test_a_shrunk_decode_that_is_no_mean_is_not_used(slide, monkeypatch, name):
    decode = module.simplejpeg.decode_jpeg

    def wrong_at_a_quarter(*args, min_height, **named):
        rgb = decode(*args, min_height=min_height, **named)
        return WRONG[name](rgb) if min_height == 256 // 4 else rgb

    monkeypatch.setattr(module.simplejpeg, "decode_jpeg", wrong_at_a_quarter)
    assert opened(slide).levels[0] == (1, 2, 8)


def test_tiles_in_another_order_than_openslide_reads_them_are_not_used(slide, monkeypatch):
    find = module._find_levels

    def exchanged(path, handle):
        levels = find(path, handle)
        for stored in (levels[0].offsets, levels[0].byte_counts):
            stored[0], stored[1] = stored[1], stored[0]
        return levels

    monkeypatch.setattr(module, "_find_levels", exchanged)
    assert list(opened(slide).levels) == [1]


@pytest.fixture
def decodes(monkeypatch):
    """Every (index, shrink) that is decoded, after the proof."""
    seen, decode = [], Level.decode

    def counting(self, file, index, shrink):
        seen.append((index, shrink))
        return decode(self, file, index, shrink)

    monkeypatch.setattr(Level, "decode", counting)
    return seen


@pytest.mark.parametrize("shrink", [1, 2])
def test_a_walk_in_row_order_decodes_each_tile_once(slide, decodes, shrink):
    side = 256 // shrink
    reader = opened(slide, cache_bytes=3 * 7 * side**2 * 3)  # three rows of tiles
    decodes.clear()
    for y in range(side // 2, 1120 // shrink - side, side):
        for x in range(side // 2, 1600 // shrink - side, side):
            reader.read(0, shrink, x, y, side, side)
            assert reader._cached <= reader._cache_bytes
    assert len(decodes) == len(set(decodes)) == 6 * 4


def test_eight_threads_read_the_same_pixels_and_decode_each_tile_once(slide, decodes):
    reader = opened(slide)
    alone = opened(slide)
    wheres = [*rectangles((1600, 1120), 200)]
    expected = [alone.read(0, 1, *where) for where in wheres]
    decodes.clear()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda where: reader.read(0, 1, *where), wheres))
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got, want)
    assert len(decodes) == len(set(decodes))


@pytest.mark.parametrize("tiles", [0, 1, 5])
def test_the_cache_keeps_its_bound_and_the_pixels_are_right(slide, tiles):
    bound = tiles * 256 * 256 * 3
    reader = opened(slide, cache_bytes=bound)
    expected = whole(opened(slide), 0, 1, (1600, 1120))

    def check(where):
        np.testing.assert_array_equal(reader.read(0, 1, *where), cut(expected, *where))
        with reader._lock:  # within, it may be above it for a moment
            assert reader._cached <= bound

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, rectangles((1600, 1120), 60, seed=1)))
    assert reader._cached == sum(tile.result().nbytes for tile in reader._cache.values())


def test_the_tile_used_last_is_forgotten_last(slide, decodes):
    reader = opened(slide, cache_bytes=2 * 256 * 256 * 3)
    decodes.clear()
    for x in (0, 256, 0, 512, 0, 256):
        reader.read(0, 1, x, 0, 10, 10)
    assert [index for index, _ in decodes] == [0, 1, 2, 1]


def test_what_is_read_is_the_callers_to_change(slide):
    reader = opened(slide)
    for where in [(256, 256, 256, 256), (300, 300, 100, 100), (256, 0, 256, 512)]:
        first = reader.read(0, 1, *where)
        copy = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(reader.read(0, 1, *where), copy)


def test_threads_that_wait_for_a_damaged_tile_all_hear_of_it(slide):
    damage(slide, 9, shorten)
    reader = opened(slide)

    def fails(_):
        with pytest.raises(TileError):
            reader.read(0, 1, 500, 250, 100, 100)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fails, range(100)))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_no_file_stays_open(slide, tmp_path):
    def open_files():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    reader = opened(slide)
    assert open_files() == before + 1
    reader.close()
    reader.close()
    assert open_files() == before
    with slide.open("rb"), pytest.raises(TileError):  # which has the number that was given back
        reader.read(0, 1, 0, 0, 256, 256)
    assert opened(write_tiff(tmp_path / "d.tif", [picture(300, 300)])) is None
    damage(slide, 0, shorten)
    reader = opened(slide)
    del reader  # forgotten, not closed
    assert open_files() == before


def test_a_million_tiles_take_sixteen_bytes_each():
    level = module._level(Million(), 0, dict.fromkeys(KEYS, "256"))
    assert len(level.offsets) == 10**6
    assert level.offsets.nbytes + level.byte_counts.nbytes == 16 * 10**6


KEYS = ("openslide.level[0].tile-width", "openslide.level[0].tile-height")


def test_tiles_that_openslide_does_not_tell_of_are_not_used():
    # It tells of none where they overlap.
    assert module._level(Million(), 0, {}) is None
    assert module._level(Million(), 0, dict.fromkeys(KEYS, "240")) is None


def test_a_page_that_lacks_tiles_or_has_odd_ones_is_not_used():
    fewer, odd = Million(), Million()
    fewer.dataoffsets = range(10, 10**6)
    odd.tilewidth = odd.tilelength = 250
    odd.dataoffsets = odd.databytecounts = range(1, 1024**2 + 1)
    assert module._level(fewer, 0, dict.fromkeys(KEYS, "256")) is None
    assert module._level(odd, 0, dict.fromkeys(KEYS, "250")) is None


class Million:
    """What is asked of a tifffile page, with 1000 x 1000 tiles."""

    is_tiled, compression, photometric, jpegtables = True, 7, 6, None
    imagewidth = imagelength = 256_000
    tilewidth = tilelength = 256
    dataoffsets, databytecounts = range(10, 10**6 + 10), range(1, 10**6 + 1)


@pytest.mark.realdata
def test_a_real_aperio_slide_is_identical(realdata):
    assert_identical(realdata / "slides" / "CMU-1-Small-Region.svs", count=150)


@pytest.mark.realdata
def test_a_real_aperio_slide_shrinks_to_its_means(realdata):
    reader = opened(realdata / "slides" / "CMU-1-Small-Region.svs")
    assert reader.levels == {0: (1, 2, 4, 8)}
    for shrink in (2, 4, 8):
        rms, shade = rms_to_means(reader, shrink, (2220, 2967))
        assert rms < 0.5
        assert np.abs(shade).max() < 0.1


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["TCGA-CR-7395-01A-01-TS1.svs", "fluorescence-DAPI.ndpi", "blank.dcm"]
)
def test_a_real_slide_of_another_kind_is_none(realdata, name):
    assert opened(realdata / "slides" / name) is None
