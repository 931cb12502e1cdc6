"""The tiles of labelled slides: whose, how many, how heavy, and from where."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from lessons import RECIPE, TILE, lesson, lessons, pool_of
from PIL import Image

from features.errors import TileError
from features.recipe import Recipe
from features.tiles.folders import FolderTiles
from features.tiles.grid import draw_rows
from mil.errors import FitError
from mil.finetune.augmentation import Variations, turn_tile
from mil.finetune.tiles import LabelledSlide, TileCache, check_usable, tile_weights


def plain_steps(chosen, size=4):
    parts = np.array_split(chosen, -(-len(chosen) // size))
    return [(part, Variations.none(len(part))) for part in parts]


def test_an_epoch_draws_a_share_of_every_slide_and_the_next_one_others(tmp_path):
    with pool_of([*lessons(tmp_path), lesson(tmp_path, "short", "red", n_tiles=2)]) as pool:
        first, again, other = (
            pool.draw(range(7), 4, np.random.default_rng(seed)) for seed in (1, 1, 2)
        )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert Counter(first[:, 0].tolist()) == {**dict.fromkeys(range(6), 4), 6: 2}
    assert len({tuple(row) for row in first.tolist()}) == len(first)


def test_the_pool_holds_the_tiles_a_bag_would(tmp_path):
    slide = lesson(tmp_path, "many", "red", n_tiles=9)
    with pool_of([slide], replace(RECIPE, max_tiles=4)) as pool:
        rows = draw_rows(9, 4, seed=0, name="many")
        tiles = [pool.read(0, number) for number in range(pool.counts[0])]
    assert len(tiles) == len(rows) == 4
    for row, tile in zip(rows, tiles, strict=True):
        assert np.array_equal(tile, np.asarray(Image.open(slide.job.files[row])))


def test_weights_are_even_over_classes_cases_and_slides(tmp_path):
    slides = [
        lesson(tmp_path, "a1", "red", "a", n_tiles=6), lesson(tmp_path, "a2", "red", "a", n_tiles=2),
        lesson(tmp_path, "b", "red", n_tiles=1), lesson(tmp_path, "c", "blue", n_tiles=5),
    ]  # fmt: skip
    with pool_of(slides) as pool:
        chosen = pool.draw(range(4), 4, np.random.default_rng(0))
        weights = tile_weights(pool, chosen, range(4))
    of_tile = weights[chosen[:, 0]]
    assert of_tile.mean() == pytest.approx(1)
    total = {i: of_tile[chosen[:, 0] == i].sum() / of_tile.sum() for i in range(4)}
    assert total == pytest.approx({0: 1 / 8, 1: 1 / 8, 2: 1 / 4, 3: 1 / 2})


def test_tiles_are_the_same_with_and_without_a_cache_and_read_once(tmp_path, monkeypatch):
    slides, reads = lessons(tmp_path / "images"), []
    read = FolderTiles.read

    def counted(self, index):
        reads.append(index)
        return read(self, index)

    monkeypatch.setattr(FolderTiles, "read", counted)
    seen = {}
    for gigabytes in (0.0, 3 * TILE**2 * 10 / 1e9, 1.0):
        reads.clear()
        with pool_of(slides) as pool:
            pool.keep(gigabytes, tmp_path / "cache")
            chosen = pool.draw(range(6), 6, np.random.default_rng(0))
            for _ in range(2):
                batches = list(pool.batches(plain_steps(chosen), workers=3))
        seen[gigabytes] = np.concatenate([batch.tiles for batch in batches]), len(reads)
    (plain, often), (some, fewer), (cached, once) = seen.values()
    assert np.array_equal(plain, some)
    assert np.array_equal(plain, cached)
    assert (often, fewer, once) == (72, 62, 36)
    assert not list(
        (tmp_path / "cache").iterdir()
    )  # nothing to be left by a process that is killed


def test_the_cache_holds_what_it_may_and_no_more(tmp_path):
    cache = TileCache(tmp_path, 2, 4)
    tiles = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    for number, tile in enumerate(tiles):
        cache.put((0, number), tile)
        cache.put((0, number), tile)
    assert np.array_equal(cache.get((0, 1)), tiles[1])
    assert cache.get((0, 2)) is None
    cache.close()


def test_a_tile_that_cannot_be_decoded_weighs_nothing_and_too_many_end_the_run(
    tmp_path, monkeypatch
):
    read, broken = FolderTiles.read, {3}

    def damaged(self, index):
        if index in broken:
            raise TileError(f"tile {index} is damaged")
        return read(self, index)

    monkeypatch.setattr(FolderTiles, "read", damaged)
    with pool_of([lesson(tmp_path, "long", "red", n_tiles=150)]) as pool:
        chosen = np.stack([np.zeros(150, np.int64), np.arange(150)], axis=1)
        for _ in range(2):  # the same tile twice is one tile
            batches = list(pool.batches(plain_steps(chosen), workers=1))
            usable = np.concatenate([batch.usable for batch in batches])
            assert usable.sum() == 149
        broken.add(4)
        with pytest.raises(TileError, match="damaged"):
            list(pool.batches(plain_steps(chosen), workers=1))


def test_tiles_the_recipe_drops_weigh_nothing(tmp_path):
    white = lesson(tmp_path, "white", "red", colour=(255, 255, 255), spread=0)
    with pool_of(
        [white, lesson(tmp_path, "red", "red")], replace(RECIPE, drop=("background",))
    ) as pool:
        chosen = pool.draw(range(2), 6, np.random.default_rng(0))
        [batch] = pool.batches(plain_steps(chosen, 12), workers=1)
    assert np.array_equal(batch.usable, batch.slides == 1)


def test_the_eight_turns_are_all_different_and_keep_every_pixel():
    tile = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    ways = {turn_tile(tile, turn).tobytes() for turn in range(8)}
    assert len(ways) == 8
    assert {tuple(sorted(way)) for way in ways} == {tuple(range(27))}


def test_slides_without_tiles_are_named(tmp_path):
    good = lesson(tmp_path, "good", "red")
    gone = LabelledSlide(replace(good.job, slide="gone", from_tiles=False), "red")
    scaleless = LabelledSlide(replace(good.job, slide="scaleless", mpp=None), "red")
    with pool_of([good, gone, scaleless]) as pool:
        assert [slide for slide, _ in pool.unusable] == ["gone", "scaleless"]
        with pytest.raises(FitError, match=r"2 of 3 slides cannot be used: .*micrometres"):
            check_usable(pool)


def test_slides_that_were_closed_are_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr("mil.finetune.tiles.OPEN_SLIDES", 2)
    slides = lessons(tmp_path)
    with pool_of(slides, Recipe(**vars(RECIPE))) as pool:
        chosen = pool.draw(range(6), 2, np.random.default_rng(0))
        assert [len(set(chosen[i : i + 4, 0])) for i in (0, 4, 8)] == [2, 2, 2]  # shelf by shelf
        for slide in (0, 1, 2, 0):
            expected = np.asarray(Image.open(slides[slide].job.files[1]))
            assert np.array_equal(pool.read(slide, 1), expected)
