"""Many bags of features without places in one file."""

from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import read_bag
from features.bags.bare import is_bare, read_bare
from features.bags.convert import convert
from features.bags.foreign_readers import SourceFacts
from features.errors import BagError, InputError

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(30, 4)).astype(np.float32)
INDEX = np.repeat([3, 11, 7], [5, 15, 10])


def table(folder, header, rows, delimiter=","):
    lines = [delimiter.join(map(str, row)) for row in [header, *rows]]
    (folder / "f.csv").write_text("\n".join(lines) + "\n")
    return folder / "f.csv"


@pytest.mark.parametrize("features", ["X", "features", "feats"])
@pytest.mark.parametrize("index", ["bag", "Bag_ID", "bags"])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float64])
def test_an_archive_becomes_one_bag_per_value_of_its_index(tmp_path, features, index, kind):
    arrays = {features: FEATURES, index: INDEX.astype(kind), "y": np.ones(3)}
    np.savez(tmp_path / "musk.npz", **arrays)
    result = convert(tmp_path / "musk.npz", tmp_path / "store")
    assert (result.n_done, result.n_tiles, result.failures) == (3, 30, [])
    [(note, slides)] = result.notes.items()
    assert note.startswith("Features without places")
    assert slides == ["musk-03", "musk-07", "musk-11"]
    for value in (3, 7, 11):
        bag = read_bag(tmp_path / "store" / f"musk-{value:02d}.h5")
        assert np.array_equal(bag.features, FEATURES[value == INDEX])
        assert bag.recipe["region"] == "no places"
        assert len(np.unique(bag.coords_l0, axis=0)) == len(bag)
    assert convert(tmp_path / "musk.npz", tmp_path / "store").n_existing == 3


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_becomes_one_bag_per_name(tmp_path, delimiter):
    names = np.array(["a", "b é"])[np.arange(30) % 2]
    rows = [(name, *row, 1) for name, row in zip(names, FEATURES.tolist(), strict=True)]
    path = table(tmp_path, ("bag", "f0", "f1", "f2", "f3", "label"), rows, delimiter)
    bags = read_bare(path)
    assert list(bags) == ["a", "b é"]
    assert np.allclose(bags["b é"].features, FEATURES[1::2])


def test_files_with_places_are_not_bare(tmp_path):
    np.savez(tmp_path / "a.npz", X=FEATURES, bag=INDEX, coords=np.zeros((30, 2)))
    assert not is_bare(tmp_path / "a.npz")
    assert not is_bare(table(tmp_path, ("x", "y", "slide", "f0"), [(1, 2, "a", 3)]))
    np.savez(tmp_path / "b.npz", X=FEATURES, places=np.zeros((30, 2)))
    assert not is_bare(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "arrays", [{"X": FEATURES}, {"feats": FEATURES, "Label": 1}, {"arr_0": FEATURES}]
)
def test_an_archive_of_features_alone_is_one_bag_of_its_name(tmp_path, arrays):
    for number in (1, 2):
        np.savez(tmp_path / f"slide-{number}.npz", **arrays)
    result = convert(tmp_path, tmp_path / "store")
    assert (result.n_done, result.failures) == (2, [])
    bag = read_bag(tmp_path / "store" / "slide-2.h5")
    assert np.array_equal(bag.features, FEATURES)
    assert bag.recipe["region"] == "no places"


def test_an_archive_that_may_have_places_says_both_remedies(tmp_path):
    np.savez(tmp_path / "a.npz", feats=FEATURES, where=np.zeros((30, 2)))
    [failure] = convert(tmp_path / "a.npz", tmp_path / "store").failures
    assert "Name one of them coords, or leave the features alone in the file" in str(failure)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": FEATURES, "bag": INDEX[:-1]}, "have different lengths"),
        ({"X": FEATURES[0], "bag": INDEX}, "have different lengths"),
        ({"X": FEATURES[:0], "bag": INDEX[:0]}, "have different lengths"),
        ({"X": FEATURES * np.nan, "bag": INDEX}, "not all finite numbers"),
        ({"X": FEATURES.astype(str), "bag": INDEX}, "not all finite numbers|cannot be read"),
        ({"Z": FEATURES, "bag": INDEX}, "means features"),
        ({"X": FEATURES, "bag": INDEX.astype(object)}, "cannot be read"),
    ],
)
def test_what_cannot_be_bags_fails_by_name_and_stops_no_other(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    np.savez(tmp_path / "good.npz", X=FEATURES, bag=INDEX)
    with pytest.raises(BagError, match=message):
        read_bare(tmp_path / "bad.npz")
    result = convert([tmp_path / "bad.npz", tmp_path / "good.npz"], tmp_path / "store")
    assert result.n_done == 3
    [failure] = result.failures
    assert failure.startswith(f"{tmp_path / 'bad.npz'}: ")


def test_a_damaged_table_fails_by_name(tmp_path):
    with pytest.raises(BagError, match=r"f\.csv: column 'f0' holds 'x' on line 3"):
        read_bare(table(tmp_path, ("bag", "f0"), [(1, 2.0), (2, "x")]))


def test_two_files_with_one_bag_are_refused(tmp_path):
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        np.savez(
            tmp_path / folder / f"{folder}.npz", X=FEATURES, bag=np.array(["a", "b", "c"] * 10)
        )
    with pytest.raises(InputError, match="both have a"):
        convert([tmp_path / "p" / "p.npz", tmp_path / "q" / "q.npz"], tmp_path / "store")


def test_a_table_of_a_german_spreadsheet_is_read(tmp_path):
    rows = [
        (name, *(f"{v:.4f}".replace(".", ",") for v in row))
        for name, row in zip("aab", FEATURES, strict=False)
    ]
    bags = read_bare(table(tmp_path, ("bag", "f0", "f1", "f2", "f3"), rows, ";"))
    assert np.allclose(
        np.concatenate([bags["a"].features, bags["b"].features]), FEATURES[:3], atol=1e-4
    )


@pytest.mark.parametrize(("index", "names"), [
    (["1.0", "2.0", "2.0"], ["f-1", "f-2"]), (["007", "7", "12"], ["f-07", "f-12"]),
    (["Case A", "Case A", "Case B"], ["Case A", "Case B"]), (["1e3", "2", "2"], ["1e3", "2"]),
])  # fmt: skip
def test_whole_numbers_and_names_are_an_index(tmp_path, index, names):
    rows = [(name, *row) for name, row in zip(index, FEATURES.tolist(), strict=False)]
    assert sorted(read_bare(table(tmp_path, ("bag", "f0", "f1", "f2", "f3"), rows))) == names


def test_an_index_of_fractions_is_refused(tmp_path):
    rows = [(name, *row) for name, row in zip((1, 2.5, 2.5), FEATURES.tolist(), strict=False)]
    with pytest.raises(BagError, match=r"the bag index holds 2\.5\. It numbers or names bags"):
        read_bare(table(tmp_path, ("bag", "f0", "f1", "f2", "f3"), rows))
    np.savez(tmp_path / "g.npz", X=FEATURES, bag=INDEX + 0.5)
    with pytest.raises(BagError, match=r"the bag index holds 3\.5"):
        read_bare(tmp_path / "g.npz")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["s1", "", "s2"], "'' names a bag"),
        (["s1", "N/A", "s2"], "'N/A' names a bag"),
        (["s1", "../s3", "s2"], "'../s3' names a bag"),
        (["P1", "p1 ", "s2"], "differ in spelling only"),
        (["s1.svs", "s1.ndpi", "s2"], "differ in spelling only"),
        (["3.41E+09", "s1", "s2"], "was shortened by a spreadsheet"),
    ],
)
def test_names_of_bags_that_are_none_or_two_are_refused(tmp_path, names, message):
    rows = [(names[n % 3], *row) for n, row in enumerate(FEATURES.tolist())]
    with pytest.raises(BagError, match=message):
        read_bare(table(tmp_path, ("bag", "f0", "f1", "f2", "f3"), rows))


def test_bags_have_the_names_of_slides_without_the_ending_of_their_files(tmp_path):
    names = ["TCGA-X1.svs", "site-2/b.ndpi", "c.d"]
    rows = [(names[n % 3], *row) for n, row in enumerate(FEATURES.tolist())]
    path = table(tmp_path, ("slide", "f0", "f1", "f2", "f3"), rows)
    assert sorted(read_bare(path)) == ["TCGA-X1", "c.d", "site-2/b"]
    np.savez(tmp_path / "b.npz", X=FEATURES, bag=np.array([b"u", b"v"]).repeat(15))
    assert sorted(read_bare(tmp_path / "b.npz")) == ["u", "v"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    rows = [("a", *row) for row in FEATURES.tolist()]
    with pytest.raises(BagError, match="column 'f2' comes twice"):
        read_bare(table(tmp_path, ("bag", "f0", "f2", "f1", "f2"), rows))


@pytest.mark.parametrize("kind", ["archive", "tables"])
def test_a_label_among_the_features_of_tiles_is_told(tmp_path, kind):
    """It has one value in every bag, whatever the files are."""
    folder, index = tmp_path / "in", np.repeat([0, 1, 2, 3, 4], 6)
    folder.mkdir()
    values = np.c_[FEATURES, np.array([2, 7, 7, 2, 2])[index]].astype(np.float32)
    facts = SourceFacts(encoder="net", tile_px=224, target_mpp=0.5, slide_mpp=(0.25, 0.25))
    if kind == "archive":
        np.savez(folder / "m.npz", X=values, bag=index)
    for bag in range(5 if kind == "tables" else 0):
        lines = [
            f"{448 * n},0," + ",".join(map(str, row)) for n, row in enumerate(values[index == bag])
        ]
        (folder / f"s{bag}.csv").write_text("\n".join(["x,y,a,b,c,d,kappa", *lines]))
    result = convert(folder, tmp_path / "store", facts=facts)
    assert (result.n_done, result.failures) == (5, [])
    assert "column 'feature 5' (the same in all rows of a bag) is no feature" in result.doubts[0]
    again = replace(facts, feature_columns=("feature 5",))
    assert convert(folder, tmp_path / "store", facts=again).doubts == []
