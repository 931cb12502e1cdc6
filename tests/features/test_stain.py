"""Stain normalisation: planted stains are found, and renderings of one tissue come together."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from features.errors import FeaturesError
from features.tiles.stain import (
    METHODS,
    Stain,
    StainReference,
    fit_stain,
    load_reference,
    normalise,
    save_reference,
)


def unit(vectors):
    return np.array(vectors) / np.linalg.norm(vectors, axis=-1, keepdims=True)


def degrees(left, right):
    return np.degrees(np.arccos(np.clip((unit(left) * unit(right)).sum(axis=-1), -1, 1)))


# Haematoxylin and eosin of two laboratories: A. C. Ruifrok, D. A. Johnston (2001), and a redder, paler one.
VIOLET = unit([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
ROSE = unit([[0.49, 0.76, 0.42], [0.12, 0.86, 0.50]])


def amounts(seed=0, n_tiles=4, side=128):
    """(B, H, W, 2) how much haematoxylin and eosin: nuclei, stroma, mixtures and a corner of glass."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(n_tiles, side, side, 2)), (0, 3, 3, 0))
    amount = np.maximum(fields / fields.std(), 0)
    amount[:, : side // 4, : side // 4] = 0
    return amount


def render(amount, stains, strength=(0.5, 0.35)):
    """Beer-Lambert: light that passes both stains."""
    density = amount @ (np.array(strength)[:, None] * stains)
    return np.rint(255 * 10**-density).clip(0, 255).astype(np.uint8)


def distance(left, right):
    return np.abs(left.astype(float) - right).mean()


@pytest.mark.parametrize("stains", [VIOLET, ROSE])
@pytest.mark.parametrize("strength", [(0.5, 0.35), (0.25, 0.5)])
def test_macenko_finds_the_planted_stains_in_fixed_order(stains, strength):
    amount = amounts()
    fitted = np.array(fit_stain("macenko", render(amount, stains, strength)).values)
    assert degrees(fitted, stains).max() < 3
    dense = 10 ** -(amount @ (np.array(strength)[:, None] * stains)).max(axis=-1) < 10**-0.15
    strong = np.percentile(amount[dense], 99, axis=0) * strength
    assert np.linalg.norm(fitted, axis=1) == pytest.approx(strong, rel=0.1)


def test_macenko_is_the_paper_step_by_step():
    tiles = render(amounts(), ROSE)
    pixels = tiles.reshape(-1, 3)
    apart = pixels.max(axis=1).astype(int) - pixels.min(axis=1) >= 20
    density = -np.log10(pixels / 255)  # 1
    density = density[(density.max(axis=1) >= 0.15) & apart & (pixels.min(axis=1) >= 8)]  # 2
    axes = np.linalg.svd(density, full_matrices=False)[2][:2]  # 3, 4
    axes *= np.sign(axes.sum(axis=1, keepdims=True))
    flat = density @ axes.T  # 5
    angles = np.percentile(np.arctan2(flat[:, 1], flat[:, 0]), (1, 99))  # 6, 7
    vectors = np.array([np.cos(a) * axes[0] + np.sin(a) * axes[1] for a in angles])  # 8
    vectors = vectors[::-1] if vectors[0, 0] < vectors[1, 0] else vectors
    strong = np.percentile(np.linalg.lstsq(vectors.T, density.T)[0], 99, axis=1)
    fitted = fit_stain("macenko", tiles).values
    np.testing.assert_allclose(fitted, vectors * strong[:, None], rtol=1e-6)


def test_reinhard_is_the_paper_step_by_step():
    source, target = (fit_stain("reinhard", render(amounts(), s)) for s in (ROSE, VIOLET))
    red, green, blue = 140.0, 60.0, 120.0
    lms = [
        np.log(0.3811 * red + 0.5783 * green + 0.0402 * blue),
        np.log(0.1967 * red + 0.7244 * green + 0.0782 * blue),
        np.log(0.0241 * red + 0.1288 * green + 0.8444 * blue),
    ]
    lab = np.array(
        [
            (lms[0] + lms[1] + lms[2]) / 3**0.5,
            (lms[0] + lms[1] - 2 * lms[2]) / 6**0.5,
            (lms[0] - lms[1]) / 2**0.5,
        ]
    )
    (mean_s, std_s), (mean_t, std_t) = np.array(source.values), np.array(target.values)
    light, alpha, beta = (lab - mean_s) * std_t / std_s + mean_t
    light, alpha, beta = light / 3**0.5, alpha / 6**0.5, beta / 2**0.5
    back = np.exp([light + alpha + beta, light + alpha - beta, light - 2 * alpha])
    inverse = [[4.4679, -3.5873, 0.1193], [-1.2186, 2.3809, -0.1624], [0.0497, -0.2439, 1.2045]]
    tile = np.full((1, 8, 8, 3), (red, green, blue), np.uint8)
    assert distance(normalise(tile, source, target), np.array(inverse) @ back) < 1


@pytest.mark.parametrize("method", METHODS)
def test_its_own_stain_changes_next_to_nothing(method):
    tiles = render(amounts(), ROSE)
    own = fit_stain(method, tiles)
    assert np.abs(normalise(tiles, own, own).astype(int) - tiles).max() <= 3
    assert distance(normalise(tiles, own, own), tiles) < 0.5


@pytest.mark.parametrize(("method", "factor"), [("macenko", 20), ("reinhard", 2)])
def test_two_renderings_of_one_tissue_come_together(method, factor):
    amount = 0.4 * amounts()
    amount[:, 32:, :, 1] += 0.5  # stroma between the nuclei
    rose, violet = render(amount, ROSE), render(amount, VIOLET)
    moved = normalise(rose, fit_stain(method, rose), fit_stain(method, violet))
    assert distance(moved, violet) < distance(rose, violet) / factor


@pytest.mark.parametrize("method", METHODS)
def test_white_stays_white_and_odd_tiles_do_not_crash(method):
    source, target = (fit_stain(method, render(amounts(), s)) for s in (ROSE, VIOLET))
    for grey in (0, 1, 128, 255):
        tiles = np.full((2, 16, 16, 3), grey, np.uint8)
        result = normalise(tiles, source, target)
        assert result.shape == tiles.shape
        assert result.dtype == np.uint8
        assert grey < 255 or (result == 255).all()
    assert normalise(np.zeros((0, 16, 16, 3), np.uint8), source, target).shape == (0, 16, 16, 3)


@pytest.mark.parametrize("method", METHODS)
def test_glass_stays_near_white(method):
    source, target = (fit_stain(method, render(amounts(), s)) for s in (ROSE, VIOLET))
    glass = np.full((1, 16, 16, 3), 243, np.uint8)
    assert normalise(glass, source, target).min() > 228


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_repeats_give_the_same_bytes(method):
    tiles = render(amounts(), ROSE)
    source, target = fit_stain(method, tiles), fit_stain(method, render(amounts(1), VIOLET))
    assert fit_stain(method, tiles) == source
    alone = normalise(tiles, source, target)
    before = tiles.copy()
    with ThreadPoolExecutor(4) as threads:
        every = list(threads.map(lambda tile: normalise(tile[None], source, target), tiles))
    assert (np.concatenate(every) == alone).all()
    assert (tiles == before).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_without_stained_tissue_there_is_nothing_to_fit(method, grey):
    tiles = np.full((3, 128, 128, 3), grey, np.uint8)
    with pytest.raises(FeaturesError, match=r"0 stained pixels in 3 tiles.*Take more tiles"):
        fit_stain(method, tiles)
    with pytest.raises(FeaturesError, match="0 stained pixels in 0 tiles"):
        fit_stain(method, tiles[:0])


@pytest.mark.parametrize("method", METHODS)
def test_one_colour_is_not_a_stain(method):
    with pytest.raises(FeaturesError, match=r"one colour only.*Take more tiles"):
        fit_stain(method, np.full((3, 128, 128, 3), (200, 60, 120), np.uint8))


def test_haematoxylin_alone_is_not_split_into_two_stains():
    alone = amounts() * [1, 0]
    with pytest.raises(FeaturesError, match="one colour only"):
        fit_stain("macenko", render(alone, VIOLET))


def test_methods_are_named_and_not_mixed():
    tiles = render(amounts(), ROSE)
    with pytest.raises(FeaturesError, match=r"'macenco'.*Did you mean 'macenko'.*reinhard"):
        fit_stain("macenco", tiles[:0])
    with pytest.raises(FeaturesError, match="macenko, the reference's with reinhard"):
        normalise(tiles, fit_stain("macenko", tiles), fit_stain("reinhard", tiles))


@pytest.mark.parametrize("method", METHODS)
def test_a_stain_survives_json(method):
    stain = fit_stain(method, render(amounts(), ROSE))
    assert Stain.from_json(json.loads(json.dumps(stain.to_json()))) == stain


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"method": "macenko"},
        {"method": "macenko", "values": [[1, 2, 3]]},
        {"method": "macenko", "values": [[1, 2, 3], [1, 2]]},
        {"method": "macenko", "values": [[1, 2, 3], [1, 2, float("nan")]]},
        {"method": "macenko", "values": "abc"},
        {"method": "vahadane", "values": [[1, 2, 3], [1, 2, 3]]},
    ],
)
def test_what_is_not_a_stain_is_refused(document):
    with pytest.raises(FeaturesError):
        Stain.from_json(document)


@pytest.fixture
def reference():
    target = fit_stain("macenko", render(amounts(), VIOLET))
    return StainReference(target, slides=("a", "b"), cases=("p1",))


def test_a_reference_survives_its_file(reference, tmp_path):
    path = tmp_path / "stain.json"
    save_reference(path, reference)
    again = load_reference(path)
    assert again == reference
    assert again.sha256 == reference.sha256
    assert [file.name for file in tmp_path.iterdir()] == ["stain.json"]


def test_the_fingerprint_knows_every_field(reference):
    others = (
        replace(reference, cases=("p2",)),
        replace(reference, slides=("a",)),
        replace(reference, target=replace(reference.target, method="reinhard")),
    )
    assert len({reference.sha256, *(other.sha256 for other in others)}) == 4


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document.update(format="other"),
        lambda document: document.update(format_version="new"),
        lambda document: document.update(slides="a"),
        lambda document: document.update(slides=[]),
        lambda document: document.pop("cases"),
        lambda document: document["target"].update(method="vahadane"),
    ],
)
def test_a_file_that_is_no_reference_is_refused_by_name(edit, reference, tmp_path):
    path = tmp_path / "stain.json"
    save_reference(path, reference)
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(FeaturesError, match=r"stain\.json: cannot be read as a stain reference"):
        load_reference(path)


def test_a_file_of_a_newer_version_is_refused(reference, tmp_path):
    path = tmp_path / "stain.json"
    save_reference(path, reference)
    document = json.loads(path.read_text()) | {"format_version": 99}
    path.write_text(json.dumps(document))
    with pytest.raises(FeaturesError, match=r"stain\.json: written by a newer version"):
        load_reference(path)


@pytest.mark.parametrize("text", [None, "", "[]", "{", "3"])
def test_a_missing_or_damaged_file_is_refused_by_name(text, tmp_path):
    path = tmp_path / "stain.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FeaturesError, match=r"stain\.json: cannot be read"):
        load_reference(path)


@pytest.mark.realdata
@pytest.mark.parametrize("method", METHODS)
def test_real_slides_are_fitted_and_their_own_stain_changes_little(method, realdata):
    files = sorted((realdata / "tiles" / "osteosarcoma").glob("Viable*C2[0-9]*.jpg"))
    tiles = []
    for file in files:
        with Image.open(file) as image:
            tiles.append(np.asarray(image)[:448, :448])
    tiles = np.stack(tiles)
    own = fit_stain(method, tiles)
    # What two stains cannot explain is lost under macenko: red cells, the tint of the glass.
    assert distance(normalise(tiles, own, own), tiles) < (4 if method == "macenko" else 0.5)
    if method == "macenko":
        haematoxylin, eosin = unit(own.values)
        assert haematoxylin[0] > 0.4 > 0.2 > eosin[0]
        assert 15 < degrees(haematoxylin, eosin) < 50
