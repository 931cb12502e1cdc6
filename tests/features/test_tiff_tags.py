"""The look at a TIFF's tags before a library sees them."""

import struct

import numpy as np
import pytest
import tifffile
from making import noise, write_tiff

from features.errors import SlideError, TileError
from features.slides import tiff_tags
from features.slides.slide import open_slide
from features.slides.tiff_tags import check_tags, undecodable_pixels


def change_tag(path, tag, value, *, index=0, page=0):
    """Overwrite one number of a tag, where it is stored."""
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages[page].tags[tag]
        form, order, place = (
            {3: "H", 4: "I", 16: "Q"}[entry.dtype],
            tiff.byteorder,
            entry.valueoffset,
        )
    content = bytearray(path.read_bytes())
    struct.pack_into(order + form, content, place + index * struct.calcsize(form), value)
    path.write_bytes(content)


def slide(folder, **options):
    return write_tiff(folder / "s.tiff", [noise(700, 600), noise(350, 300)], **options)


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        ("ImageWidth", 60_000, "60,000 x 700 pixels are 705 tiles of 256 x 256, but it lists 9"),
        ("ImageLength", 65_000, "600 x 65,000 pixels are 762 tiles"),
        ("TileWidth", 16, "tiles of 16 x 256, but it lists 9"),
        ("TileLength", 0, "600 x 700 pixels in tiles of 256 x 0"),
        ("TileByteCounts", 900_000_000, "a tile of 900,000,000 bytes in a file of"),
    ],
)
@pytest.mark.parametrize("page", [0, 1])
def test_tags_that_contradict_each_other_are_named(tmp_path, tag, value, said, page):
    path = slide(tmp_path)
    change_tag(path, tag, value, page=page)
    with pytest.raises(SlideError, match=r"^s\.tiff: its tags contradict each other: ") as caught:
        open_slide(path)
    if page == 0:
        assert said in str(caught.value)


@pytest.mark.parametrize("side", [1 << 15, 1 << 24, 1 << 30])
def test_tiles_larger_than_memory_are_refused(tmp_path, side):
    path = write_tiff(tmp_path / "s.tiff", [noise(64, 64)], tile=(64, 64))
    for tag in ("TileWidth", "TileLength"):
        change_tag(path, tag, side)
    with pytest.raises(SlideError, match=f"in tiles of {side:,} x {side:,}"):
        open_slide(path)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "jpeg"}, {"tile": (64, 128)}, {"compression": "lzw"}],
)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sound_files_pass(tmp_path, options, big, order):
    path = tmp_path / "s.tiff"
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as tiff:
        for side in (900, 450):
            tiff.write(noise(side, side), photometric="rgb", **{"tile": (256, 256)} | options)
    check_tags(path)
    assert undecodable_pixels(path) == ""
    pages = list(tiff_tags._pages_of(path))
    assert [page.number(tiff_tags.WIDTH, 0) for page in pages] == [900, 450]


def test_a_truncated_tail_is_for_the_decoder_to_judge(tmp_path):
    path = slide(tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    check_tags(path)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 40, 200])
def test_a_stump_is_no_error_of_the_look_itself(tmp_path, length):
    path = slide(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    check_tags(path)


def test_a_loop_of_pages_ends(tmp_path):
    path = slide(tmp_path)
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, first + 2 + 12 * count, first)
    path.write_bytes(content)
    assert len(list(tiff_tags._pages_of(path))) == 1


def test_chance_mutations_never_raise_anything_else(tmp_path):
    path, rng = slide(tmp_path), np.random.default_rng(1)
    content = path.read_bytes()
    for number in range(100):
        changed = bytearray(content)
        for _ in range(1 + number % 4):
            changed[rng.integers(0, 600)] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            check_tags(path)
        except SlideError:
            continue
        undecodable_pixels(path)


KINDS = [
    (np.float32, {}, "32-bit floating-point samples"),
    (np.int16, {}, "16-bit signed whole-number samples"),
    (np.float64, {}, "64-bit floating-point samples"),
    (np.uint8, {"compression": "zstd"}, "Zstandard tiles"),
    (np.uint8, {"compression": "webp"}, "WebP tiles"),
    (np.uint8, {"compression": "jpegxl"}, "JPEG XL tiles"),
    (np.uint8, {"planarconfig": "separate"}, "channels stored one after the other"),
]


@pytest.mark.parametrize(("dtype", "options", "kind"), KINDS)
def test_kinds_of_pixels_are_named_with_the_remedy(tmp_path, dtype, options, kind):
    picture = noise(300, 300)
    if options.get("planarconfig"):
        picture = np.moveaxis(picture, -1, 0).copy()
    path = tmp_path / "s.tif"
    tifffile.imwrite(
        path, picture.astype(dtype), tile=(128, 128), photometric="rgb", metadata=None, **options
    )
    assert undecodable_pixels(path) == kind


def test_what_cannot_be_decoded_says_convert_and_not_copy_again(tmp_path):
    path = tmp_path / "s.tif"
    picture = np.random.default_rng(0).random((300, 300, 3)).astype(np.float64)
    tifffile.imwrite(path, picture, tile=(128, 128), photometric="rgb", metadata=None)
    with (
        pytest.raises(
            (SlideError, TileError), match=r"64-bit floating-point samples.*convert"
        ) as caught,
        open_slide(path, mpp=0.5) as opened,
    ):
        opened.read(0, 0, 64, 0.5)
    assert "Copy the file again" not in str(caught.value)
