"""A film is one file that is read as tiles, as a slide and as a bag."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from making import fake_backbone

import features.extraction.extract as module
from features.bags.bag import read_bag, write_bag
from features.errors import BagError, InputError, ScaleError, SlideError
from features.extraction.identity import slide_fingerprints
from features.extraction.jobs import jobs_of_paths
from features.extraction.run import extract_slides
from features.recipe import Recipe
from features.slides.slide import open_slide
from features.volumes.facts import VolumeFacts
from features.volumes.film import columns_for, lay_out, open_film, read_facts, write_film

SIDE = 64


def facts_of(n=7, **changes):
    values = {
        "channels": ("T1", "T2", "CT"),
        "tile_px": SIDE,
        "columns": columns_for(n),
        "pixel_mm": 1.25,
        "slice_mm": 3.0,
        "positions_mm": tuple((1.5, -2.0, 3.0 * i) for i in range(n)),
        "coverage": tuple(0.01 * (i + 1) for i in range(n)),
        "direction": (1.0, 0, 0, 0, 1, 0, 0, 0, 1),
        "sources": ("a" * 64, "b" * 64, "c" * 64),
        "scan": {"CT": {"manufacturer": "M", "kvp": 120.0}},
        "tumour_ml": 12.5,
        "recipe": {"pixel_mm": 1.25, "field": "box"},
    }
    return VolumeFacts(**values | changes)


@pytest.fixture
def cells():
    return np.random.default_rng(3).integers(0, 256, (7, SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def film(tmp_path, cells):
    path = tmp_path / "films" / "case-1.film.tiff"
    write_film(path, cells, facts_of())
    return path


@pytest.fixture
def mean_colour(monkeypatch):
    monkeypatch.setattr(module, "load_backbone", lambda *_, **__: fake_backbone())


def extracted(film, out, **options):
    recipe = Recipe(backbone="mean-colour", precision="fp32", **options)
    [outcome] = extract_slides(film.parent, out, recipe=recipe).outcomes
    assert outcome.status == "done", outcome.reason
    return read_bag(out / "case-1.h5")


def test_tiles_of_a_film_are_its_cells(film, cells):
    tiles = open_film(film)
    assert read_facts(film) == facts_of()
    assert np.array_equal([tiles.read(i) for i in range(7)], cells)
    chosen = tiles.select(np.array([5, 2]))
    assert np.array_equal([chosen.read(i) for i in range(2)], cells[[5, 2]])
    assert np.allclose(chosen.grid.coverage, [0.06, 0.03])


def test_a_film_is_a_slide_with_a_true_scale(film, cells):
    with open_slide(film) as slide:
        assert (slide.name, slide.mpp) == ("case-1", (1250.0, 1250.0))
        for corner, cell in zip(facts_of().corners.tolist(), cells, strict=True):
            assert np.array_equal(slide.read(*corner, SIDE, 1250.0), cell)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_cells_are_laid_row_by_row(n):
    cells = np.arange(n)[:, None, None] * np.ones((1, 2, 2), int)
    columns = columns_for(n)
    sheet = lay_out(cells, columns)
    for i in range(n):
        y, x = divmod(i, columns)
        assert (sheet[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] == i).all()
    assert sheet.size >= 4 * n


def test_a_bag_of_a_film_knows_where_its_tiles_lie_in_the_patient(
    film, cells, tmp_path, mean_colour
):
    bag = extracted(film, tmp_path / "store", max_tiles=4)
    rows = bag.volume.cells_of(bag.coords_l0)
    assert len(bag) == 4
    assert np.allclose(bag.features.astype(float), cells[rows].mean(axis=(1, 2)) / 255, atol=1e-3)
    assert np.array_equal(bag.positions_mm, np.array(facts_of().positions_mm)[rows])
    assert np.allclose(bag.coverage, np.array(facts_of().coverage, np.float32)[rows])
    assert (bag.mpp_l0, bag.mpp_source, bag.target_mpp) == ((1250.0, 1250.0), "file", 1250.0)
    assert not bag.tile_flags.any()
    assert bag.thumbnail
    assert bag.recipe["region"] == "volume"
    assert bag.recipe["volume"] == {
        "pixel_mm": 1.25,
        "field": "box",
        "channels": ["T1", "T2", "CT"],
    }


def test_a_series_is_known_by_its_voxels_however_it_is_laid_out(film, cells, tmp_path, mean_colour):
    bag = extracted(film, tmp_path / "store")
    other = tmp_path / "again" / "renamed.film.tiff"
    write_film(other, cells[::-1][:5], facts_of(5, sources=("c" * 64, "d" * 64)))
    [job] = jobs_of_paths([other])
    assert slide_fingerprints(job) & bag.sources == {"pixels-" + "c" * 64}


def test_films_prepared_in_different_ways_are_not_mixed(film, cells, tmp_path, mean_colour):
    write_film(
        film.with_name("b.film.tiff"), cells, facts_of(recipe={"pixel_mm": 2, "field": "box"})
    )
    with pytest.raises(SlideError, match=r"prepared in different ways \(pixel_mm\)"):
        extract_slides(film.parent, tmp_path / "store", recipe=Recipe(backbone="mean-colour"))


@pytest.mark.parametrize("setting", [{"drop": ("blur",)}, {"icc": "srgb"}])
def test_what_is_of_stained_slides_is_refused(film, tmp_path, mean_colour, setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))} are for stained slides"):
        extracted(film, tmp_path / "store", **setting)


def test_changed_positions_are_noticed(film, tmp_path, mean_colour):
    import h5py

    bag = extracted(film, tmp_path / "store")
    path = tmp_path / "copy.h5"
    write_bag(path, bag)
    with h5py.File(path, "a") as file:
        file["volume"][10] ^= 1
    with pytest.raises(BagError, match="its positions have changed"):
        read_bag(path)


@pytest.mark.parametrize("text", ["another picture", "sarcomil film {}", "sarcomil film [1"])
def test_another_tiff_named_as_a_film_is_refused(tmp_path, text):
    path = tmp_path / "x.film.tiff"
    tifffile.imwrite(path, np.zeros((16, 16, 3), np.uint8), description=text, metadata=None)
    with pytest.raises(SlideError, match="cannot be read as a film"):
        open_film(path)


def test_a_film_of_other_size_than_its_description_is_refused(film, cells):
    description = "sarcomil film " + replace(facts_of(), columns=4).to_json()
    tifffile.imwrite(film, lay_out(cells, 3), description=description, metadata=None)
    with pytest.raises(SlideError, match="pixels and not"):
        open_film(film).read(0)


def test_a_film_of_an_absurd_scale_is_refused(film, cells):
    write_film(film, cells, facts_of(pixel_mm=0.0001))
    with pytest.raises(ScaleError, match="Lay the volume out again"), open_slide(film):
        pass


def test_a_cut_off_film_fails_by_name(film, tmp_path, mean_colour):
    film.write_bytes(film.read_bytes()[:5000])
    recipe = Recipe(backbone="mean-colour", precision="fp32")
    [outcome] = extract_slides(film.parent, tmp_path / "store", recipe=recipe).outcomes
    assert outcome.status == "failed"
    assert "Lay the volume out again" in outcome.reason
