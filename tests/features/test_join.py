"""Stores side by side: every tile with the tile of the other scale that has its centre, or mean vectors."""

from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import Bag, read_bag, validate_bag, write_bag
from features.bags.join import join
from features.bags.vectors import vector_bag
from features.errors import InputError
from features.recipe import is_vector, recipe_parts

RNG = np.random.default_rng(7)


def grid_bag(slide, side, step, dim, seed, origin=(0, 0), n=6, **changes):
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(n) * step + origin[0], np.arange(n) * step + origin[1])
    coords = rng.permutation(np.stack([x.ravel(), y.ravel()], axis=1)).astype(np.int64)
    bag = Bag(
        slide=slide,
        features=rng.normal(size=(len(coords), dim)).astype(np.float32),
        coords_l0=coords,
        coverage=rng.uniform(0.6, 1, len(coords)).astype(np.float32),
        side_l0=(side, side),
        size_l0=(4000, 4000),
        mpp_l0=(0.25, 0.25),
        mpp_source="file",
        tile_px=224,
        target_mpp=0.25 * side / 224,
        recipe={
            "backbone": f"net{dim}",
            "weights": "pretrained",
            "region": "annotations",
            "mpp": side,
        },
        tile_flags=rng.integers(0, 3, len(coords)).astype(np.uint8),
        source_sha256=f"source-{slide}",
    )
    return replace(bag, **changes)


def store(folder, *bags):
    for bag in bags:
        write_bag(folder / f"{bag.slide}.h5", bag)
    return folder


def twin(first, other):
    """The features of both, tile by tile, by a loop."""
    rows = {}
    for i, (x, y) in enumerate(first.coords_l0):
        cx, cy = x + first.side_l0[0] / 2, y + first.side_l0[1] / 2
        nearest = None
        for j, (u, v) in enumerate(other.coords_l0):
            if u <= cx < u + other.side_l0[0] and v <= cy < v + other.side_l0[1]:
                off = abs(u + other.side_l0[0] / 2 - cx) + abs(v + other.side_l0[1] / 2 - cy)
                if nearest is None or off < nearest[0]:
                    nearest = off, j
        if nearest:
            rows[i] = np.concatenate([first.features[i], other.features[nearest[1]]])
    return rows


@pytest.mark.parametrize(
    ("side", "step", "origin", "n"),
    [
        (560, 560, (0, 0), 3),
        (896.5, 448, (100, -50), 5),
        (300, 700, (0, 0), 4),
        (224, 224, (112, 112), 5),
    ],
    ids=["centres on edges", "overlapping", "with gaps", "shifted by half"],
)
def test_every_tile_gets_the_tile_that_has_its_centre(tmp_path, side, step, origin, n):
    fine = grid_bag("a", 224, 224, 3, 1)
    coarse = grid_bag("a", side, step, 4, 2, origin, n)
    joined = join([store(tmp_path / "x", fine), store(tmp_path / "y", coarse)], tmp_path / "out")
    bag, rows = read_bag(tmp_path / "out" / "a.h5"), twin(fine, coarse)
    assert 0 < len(rows) == len(bag) == joined.n_tiles
    assert joined.n_alone == len(fine) - len(rows)
    np.testing.assert_array_equal(bag.features, np.stack(list(rows.values())))
    np.testing.assert_array_equal(bag.coords_l0, fine.coords_l0[list(rows)])
    np.testing.assert_array_equal(bag.coverage, fine.coverage[list(rows)])
    np.testing.assert_array_equal(bag.tile_flags, fine.tile_flags[list(rows)])
    assert bag.side_l0 == fine.side_l0


def test_recipes_training_cases_and_slides_of_all_parts_stay(tmp_path):
    fine = grid_bag("a", 224, 224, 3, 1, trained_on=("c1",), trained_on_slides=("s1",))
    coarse = grid_bag("a", 560, 560, 4, 2, n=3, trained_on=("c2",))
    third = grid_bag("a", 448, 448, 2, 3, n=3, source_sha256="")
    join(
        [store(tmp_path / str(i), b) for i, b in enumerate((fine, coarse, third))], tmp_path / "out"
    )
    bag = read_bag(tmp_path / "out" / "a.h5")
    assert list(recipe_parts(bag.recipe)) == [fine.recipe, coarse.recipe, third.recipe]
    assert (bag.trained_on, bag.trained_on_slides) == (("c1", "c2"), ("s1",))
    assert (bag.dim, bag.recipe["dims"]) == (9, [3, 4, 2])
    assert bag.sources == {"source-a"}
    again = store(tmp_path / "again", bag)
    join([again, store(tmp_path / "z", coarse)], tmp_path / "twice")
    nested = read_bag(tmp_path / "twice" / "a.h5").recipe
    assert list(recipe_parts(nested)) == [fine.recipe, coarse.recipe, third.recipe, coarse.recipe]


def test_slides_and_cases_are_mean_vectors(tmp_path):
    bags = [
        grid_bag(name, 224, 224, 3, i, n=i + 2, case="one") for i, name in enumerate(("a", "b"))
    ]
    other = [
        grid_bag(name, 560, 560, 2, i + 5, n=3, case="one")
        for i, name in enumerate(("a", "b", "c"))
    ]
    stores = [store(tmp_path / "x", *bags), store(tmp_path / "y", *other)]
    joined = join(stores, tmp_path / "slides", by="slide")
    assert (joined.n_done, joined.notes) == (2, {"not in every store, left out": ["c"]})
    a = read_bag(tmp_path / "slides" / "a.h5")
    expected = np.concatenate([bags[0].features.mean(0), other[0].features.mean(0)])
    np.testing.assert_allclose(a.features, expected[None], rtol=1e-6)
    assert is_vector(a.recipe)

    join(stores, tmp_path / "cases", by="case")
    one = read_bag(tmp_path / "cases" / "one.h5")
    parts = [np.mean([b.features.mean(0) for b in of], axis=0) for of in (bags, other)]
    np.testing.assert_allclose(one.features, np.concatenate(parts)[None], rtol=1e-5)
    assert one.sources == {"source-a", "source-b", "source-c"}
    table = {"a": "p", "b": "q", "c": "q"}
    named = join(stores, tmp_path / "named", by="case", cases=table)
    assert sorted(path.stem for path in (tmp_path / "named").glob("*.h5")) == ["p", "q"]
    assert named.n_done == 2


def test_what_does_not_belong_together_is_refused(tmp_path):
    fine, coarse = grid_bag("a", 224, 224, 3, 1), grid_bag("a", 560, 560, 4, 2, n=3)
    stores = [store(tmp_path / "x", fine), store(tmp_path / "y", coarse)]
    for wrong, reason in (
        ([stores[0]], "at least two different stores"),
        ([stores[0], tmp_path / "x"], "at least two different stores"),
        ([stores[0], tmp_path / "none"], "none: no such bag store. Check the path"),
        ([stores[0], tmp_path], "holds no bag .* Check the path"),
    ):
        with pytest.raises(InputError, match=reason):
            join(wrong, tmp_path / "out")
    with pytest.raises(InputError, match="one of the stores"):
        join(stores, stores[1])
    with pytest.raises(
        InputError, match=r"by is tile, slide or case; got 'tiles'. Did you mean 'tile'"
    ):
        join(stores, tmp_path / "out", by="tiles")
    with pytest.raises(InputError, match="does not know its case"):
        join(stores, tmp_path / "out", by="case")
    elsewhere = store(tmp_path / "e", replace(coarse, source_sha256="other"))
    assert (
        "two different slides of this name"
        in join([stores[0], elsewhere], tmp_path / "o").failures[0]
    )
    far = store(tmp_path / "f", replace(coarse, coords_l0=coarse.coords_l0 + 2000))
    assert "no tile of the first store" in join([stores[0], far], tmp_path / "o").failures[0]
    with pytest.raises(InputError, match="no slide in common"):
        join([stores[0], store(tmp_path / "g", replace(coarse, slide="b"))], tmp_path / "o")


@pytest.mark.parametrize(
    ("region", "words"), [("no places", "features without places"), ("vector", "one vector")]
)
@pytest.mark.parametrize("at", [0, 1])
def test_rows_without_places_are_not_joined_by_tile(tmp_path, region, words, at):
    bags = [grid_bag("s1", 100, 100, dim, dim) for dim in (3, 5)]
    if region == "vector":
        bags[at] = vector_bag(
            "s1", RNG.normal(size=4).astype(np.float32), {"backbone": "net", "weights": "w"}
        )
    else:
        bags[at] = replace(bags[at], recipe=bags[at].recipe | {"region": region})
    stores = [store(tmp_path / str(i), bag) for i, bag in enumerate(bags)]
    with pytest.raises(InputError, match=rf"The bag of s1 is {words} .*Join by slide or by case\."):
        join(stores, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert join(stores, tmp_path / "out", by="slide").n_done == 1


def test_one_bag_without_places_fails_alone(tmp_path):
    first = store(tmp_path / "a", *(grid_bag(f"s{i}", 100, 100, 3, i) for i in range(3)))
    odd = grid_bag("s2", 100, 100, 4, 9)
    odd = replace(odd, recipe=odd.recipe | {"region": "no places"})
    second = store(tmp_path / "b", *(grid_bag(f"s{i}", 100, 100, 4, i) for i in range(2)), odd)
    result = join([first, second], tmp_path / "out")
    assert result.n_done == 2
    assert result.failures[0].startswith("The bag of s2 is features without places (net4)")


def test_a_joined_store_is_taken_up_and_changed_input_is_noticed(tmp_path):
    fine, coarse = grid_bag("a", 224, 224, 3, 1), grid_bag("a", 560, 560, 4, 2, n=3)
    stores = [store(tmp_path / "x", fine), store(tmp_path / "y", coarse)]
    out = tmp_path / "out"
    assert join(stores, out).n_done == 1
    first = (out / "a.h5").read_bytes()
    assert join(stores, out).n_existing == 1
    store(tmp_path / "y", replace(coarse, features=coarse.features + 1))
    assert "has other content" in join(stores, out).failures[0]
    assert (out / "a.h5").read_bytes() == first
    assert join(stores, out, overwrite=True).n_done == 1
    validate_bag(out / "a.h5")


def test_bags_of_two_cases_or_of_two_scales_are_not_of_one_slide(tmp_path):
    first = [grid_bag(name, 448, 448, 3, 1, case=f"p-{name}", source_sha256="") for name in "abc"]
    second = [
        grid_bag("a", 448, 448, 2, 2, case="p-b", source_sha256=""),
        grid_bag("b", 448, 448, 2, 2, case="p-b", source_sha256="", mpp_l0=(0.23, 0.23)),
        grid_bag("c", 448, 448, 2, 2, source_sha256="", mpp_l0=(0.2502, 0.2502)),
    ]
    joined = join([store(tmp_path / "1", *first), store(tmp_path / "2", *second)], tmp_path / "out")
    assert joined.n_done == 1
    assert "it is of case p-a and of case p-b" in joined.failures[0]
    assert "one bag says 0.25 and the other 0.23 micrometres" in joined.failures[1]


def test_a_slide_whose_case_was_renamed_is_one(tmp_path):
    bags = [grid_bag("a", 448, 448, dim, dim, case=case) for dim, case in ((2, "old"), (3, "new"))]
    folders = [store(tmp_path / bag.case, bag) for bag in bags]
    assert join(folders, tmp_path / "out").n_done == 1
