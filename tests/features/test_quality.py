"""Flags of what is wrong with a tile."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from features.errors import FeaturesError
from features.slides.pixels import flatten_on_white
from features.slides.slide import open_slide
from features.tiles.quality import FLAGS, flag_bits, quality_flags

SIDE = 224
BACKGROUND, BLUR, PEN = FLAGS["background"], FLAGS["blur"], FLAGS["pen"]
GLASS, STROMA, NUCLEUS = (243, 241, 244), (225, 150, 190), (95, 60, 140)


def plain(colour, side=SIDE):
    return np.full((side, side, 3), colour, np.uint8)


def tissue(seed=0, side=SIDE):
    """Stroma with nuclei, sharp, with a camera's noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    nuclei = np.zeros((side, side), bool)
    for centre_y, centre_x in rng.integers(0, side, (side * side // 400, 2)):
        nuclei |= (y - centre_y) ** 2 + (x - centre_x) ** 2 < 16
    picture = np.where(nuclei[..., None], NUCLEUS, STROMA) + rng.normal(0, 2, (side, side, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def blurred(tile, sigma_px):
    smooth = ndimage.gaussian_filter(tile.astype(float), (sigma_px, sigma_px, 0))
    noise = np.random.default_rng(1).normal(0, 1.5, tile.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def flag(*tiles):
    return quality_flags(np.stack(tiles)).tolist()


def inked(tile, colour, share):
    tile = tile.copy()
    tile[: round(share * len(tile))] = colour
    return tile


def test_sharp_tissue_has_no_flag():
    assert flag(*(tissue(seed) for seed in range(5))) == [0] * 5


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (0, 0, 0), (190, 190, 190)])
def test_without_tissue_a_tile_is_background_and_not_blurred(colour):
    assert flag(plain(colour)) == [BACKGROUND]


def test_a_little_tissue_is_still_background_and_more_is_not():
    crumb, corner = plain(GLASS), plain(GLASS)
    crumb[:32, :32], corner[:80, :80] = tissue()[:32, :32], tissue()[:80, :80]
    assert flag(crumb, corner) == [BACKGROUND, 0]


@pytest.mark.parametrize("sigma_px", [2, 3, 4])
def test_blur_is_flagged_whatever_the_contrast(sigma_px):
    sharp = tissue()
    pale = (255 - (255 - sharp.astype(float)) * 0.4).astype(np.uint8)
    assert flag(sharp, pale) == [0, 0]
    assert flag(blurred(sharp, sigma_px), blurred(pale, sigma_px)) == [BLUR, BLUR]


def test_blur_is_seen_beside_glass_and_the_edge_of_the_glass_is_not_blur():
    half = plain(GLASS)
    half[:, SIDE // 2 :] = tissue()[:, SIDE // 2 :]
    assert flag(half, blurred(half, 2)) == [0, BLUR]


@pytest.mark.parametrize(
    "ink", [(40, 160, 130), (30, 90, 200), (20, 60, 60), (205, 15, 20), (60, 60, 65)]
)
def test_ink_is_flagged_from_a_tenth_of_the_tile_on(ink):
    assert flag(inked(tissue(), ink, 0.05), inked(tissue(), ink, 0.2)) == [0, PEN]


@pytest.mark.parametrize("stain", [NUCLEUS, (200, 60, 90), (150, 40, 60), (60, 45, 110)])
def test_the_stains_themselves_are_not_ink(stain):
    assert flag(inked(tissue(), stain, 0.5)) == [0]


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_fluorescence_is_neither_pen_nor_blur(channel):
    lit = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    lit[0, ..., channel] = 255 - tissue()[..., 1]
    lit[1, ..., channel] = blurred(lit[0], 4)[..., channel]
    assert quality_flags(lit).tolist() == [0, 0]


def test_flags_add_up_and_a_tile_does_not_depend_on_its_batch():
    tiles = [plain(GLASS), tissue(), blurred(inked(tissue(), (40, 160, 130), 0.5), 3)]
    together = flag(*tiles)
    assert together == [BACKGROUND, 0, BLUR | PEN]
    assert together == [flag(tile)[0] for tile in tiles]
    assert quality_flags(np.stack(tiles)).dtype == np.uint8
    assert quality_flags(np.zeros((0, SIDE, SIDE, 3), np.uint8)).shape == (0,)


@pytest.mark.parametrize("side", [16, 100, 257])
def test_any_side_will_do(side):
    assert flag(plain(GLASS, side), tissue(side=side)) == [BACKGROUND, 0]


def test_bits_of_names_add_up():
    for flags in range(8):
        assert flag_bits(name for name, bit in FLAGS.items() if flags & bit) == flags
    assert flag_bits(["pen", "pen"]) == PEN
    with pytest.raises(FeaturesError, match=r"'blurr'.*Did you mean 'blur'.*background, blur, pen"):
        flag_bits(["pen", "blurr"])


def cut(picture):
    rows, columns = picture.shape[0] // SIDE, picture.shape[1] // SIDE
    cropped = picture[: rows * SIDE, : columns * SIDE]
    return cropped.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)


@pytest.mark.realdata
def test_real_tiles_are_what_their_names_say(realdata):
    flags = {}
    for path in sorted((realdata / "tiles" / "quality").glob("*.png")):
        with Image.open(path) as image:
            flags[path.stem] = quality_flags(np.asarray(flatten_on_white(image))[None])[0]
    assert flags["no-tissue"] == flags["almost-white-1"] == BACKGROUND
    assert flags["high-nuclei-score-level2"] == flags["low-nuclei-score-level1"] == 0
    for name in ("medium-nuclei-score-green-pen-level1", "no-tissue-green-pen", "tcga-red-pen"):
        assert flags[name] & PEN, name
    assert flags["no-tissue-red-pen"] & BLUR  # a tenth of it is pure red only in one corner


@pytest.mark.realdata
def test_real_sarcoma_is_hardly_ever_flagged_and_blurred_sarcoma_always(realdata):
    fields = []
    for path in sorted((realdata / "tiles" / "osteosarcoma").glob("*.jpg")):
        with Image.open(path) as image:
            fields.append(cut(np.asarray(image)))
    tiles = np.concatenate(fields)
    flags = quality_flags(tiles)
    assert np.mean(flags & (BLUR | PEN) > 0) < 0.005
    with_tissue = tiles[flags & BACKGROUND == 0][::40]
    smooth = quality_flags(np.stack([blurred(tile, 2) for tile in with_tissue]))
    assert np.mean(smooth & BLUR > 0) == 1


@pytest.mark.realdata
def test_real_slides_are_neither_blurred_nor_inked(realdata):
    for name, mpp in (("CMU-1-Small-Region.svs", None), ("fluorescence-DAPI.ndpi", None)):
        with open_slide(realdata / "slides" / name, mpp=mpp) as slide:
            across = min(slide.size_l0)
            flags = quality_flags(cut(slide.read(0, 0, across, slide.mpp[0])))
        assert not np.any(flags & (BLUR | PEN)), name
