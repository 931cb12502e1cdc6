"""Every layout comes into one frame and one scale, or is refused with what to do about it."""

import dataclasses
import json
import pickle

import h5py
import numpy as np
import pytest
import torch

from features.bags.bag import read_bag, validate_bag, write_bag
from features.bags.foreign_readers import SourceFacts
from features.bags.foreign_writers import write_clam, write_stamp
from features.bags.interchange import conversion_notes, make_bag, read_foreign, write_foreign
from features.bags.layouts import LAYOUTS, WRITABLE, detect_layout
from features.bags.vectors import vector_bag
from features.errors import BagError
from features.recipe import is_vector
from mil.data.case import Row
from mil.data.cohort import assemble
from mil.data.splits import Fold
from mil.errors import CohortError, LeakageError
from mil.learning.crossval import check_seen

N, DIM = 6, 4
FEATURES = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
COORDS = np.array([[1024 + 512 * (i % 3), 2048 + 512 * (i // 3)] for i in range(N)])
MPP = SourceFacts(slide_mpp=(0.25, 0.25))
TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "s",
    "savetodir": "None",
    "level0_width": 10_000,
    "level0_height": 8_000,
}
CLAM = {"patch_size": 256, "patch_level": 1, "downsample": (2.0, 2.0), "name": "s"}
STAMP = {
    "stamp_version": "2.3.0",
    "extractor": "ctranspath",
    "unit": "um",
    "tile_size_um": 128.0,
    "tile_size_px": 256,
    "code_hash": "abc",
    "feat_type": "tile",
}
SLIDEFLOW = {
    "extractor": {"class": "slideflow.model.extractors.resnet50_imagenet", "kwargs": {}},
    "normalizer": "reinhard",
    "num_features": DIM,
    "tile_px": 256,
    "tile_um": 128,
}


def hdf5(path, arrays, root=(), **on_arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
            file[name].attrs.update(on_arrays.get(name, {}))
        file.attrs.update(dict(root))
    return path


def trident(folder, features=FEATURES, coords=COORDS, **changes):
    arrays = {"features": features, "coords": coords}
    return hdf5(
        folder / "s.h5",
        arrays,
        features={"encoder": "uni_v1", "name": "s"},
        coords=TRIDENT | changes,
    )


def clam(folder, features=FEATURES, coords=COORDS):
    return hdf5(folder / "s.h5", {"features": features, "coords": np.asarray(coords, np.int32)})


def patches(folder, coords=COORDS, name="s.h5", **changes):
    return hdf5(folder / "patches" / name, {"coords": coords}, coords=CLAM | changes).parent


def stamp(folder, features=None, coords=COORDS * 0.25, name="feats", drop=(), **changes):
    root = {key: value for key, value in (STAMP | changes).items() if key not in drop}
    features = FEATURES.astype(np.float16) if features is None else features
    return hdf5(folder / "s.h5", {name: features, "coords": np.float32(coords)}, root=root)


def slideflow(folder, features=FEATURES, centres=COORDS + 256, config=SLIDEFLOW):
    torch.save(torch.from_numpy(features), folder / "s.pt")
    np.savez(folder / "s.index.npz", centres)
    if config:
        (folder / "bags_config.json").write_text(json.dumps(config))
    return folder / "s.pt"


def npz(folder, **arrays):
    values = {"feats": FEATURES, "coords": COORDS, "tile_px": 256} | arrays
    np.savez(folder / "s.npz", **values)
    return folder / "s.npz"


def table(folder, header="x,y,f0,f1,f2,f3", rows=None):
    rows = np.hstack([COORDS, FEATURES]).tolist() if rows is None else rows
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / "s.csv").write_text("\n".join(lines) + "\n")
    return folder / "s.csv"


AT_20X = dataclasses.replace(MPP, tile_px=256, target_mpp=0.5)
WAYS = {
    "trident": (trident, lambda folder: MPP),
    "clam": (clam, lambda folder: dataclasses.replace(MPP, patches=patches(folder))),
    "stamp": (stamp, lambda folder: MPP),
    "slideflow": (slideflow, lambda folder: MPP),
    "npz": (npz, lambda folder: dataclasses.replace(MPP, target_mpp=0.5)),
    "csv": (table, lambda folder: AT_20X),
}


def test_every_layout_is_tested():
    assert {*WAYS, "vector"} == set(LAYOUTS)  # of whole slides: tests/mil/learning/test_joined.py


@pytest.mark.parametrize("layout", WAYS)
def test_every_layout_becomes_the_same_bag(tmp_path, layout):
    write, make_facts = WAYS[layout]
    path = write(tmp_path)
    assert detect_layout(path) == layout
    bag = read_foreign(path, facts=make_facts(tmp_path), case="c")
    write_bag(tmp_path / "bag.h5", bag)
    read = read_bag(tmp_path / "bag.h5")
    assert np.allclose(read.features, FEATURES, atol=0 if layout != "stamp" else 1e-3, rtol=0)
    assert np.array_equal(read.coords_l0, COORDS)
    assert (read.slide, read.case) == ("s", "c")
    assert read.side_l0 == pytest.approx((512, 512), abs=1e-9)
    assert (read.tile_px, read.target_mpp) == (256, pytest.approx(0.5))
    assert (read.mpp_l0, read.mpp_source) == ((0.25, 0.25), "given")
    assert (read.coverage == 1).all()
    assert read.recipe["region"] == "converted"
    assert read.recipe["layout"] == layout
    assert read.recipe["mpp"] == pytest.approx(0.5)
    assert read.recipe["precision"] == ("fp16" if layout == "stamp" else "fp32")
    assert read.recipe["weights"].lower() == f"converted from {layout}"
    assert conversion_notes(read) == ()


@pytest.mark.parametrize(
    ("layout", "encoder"),
    [("trident", "uni_v1"), ("clam", "unknown"), ("stamp", "ctranspath"), ("slideflow", "resnet50_imagenet")],
)  # fmt: skip
def test_the_encoder_is_named_or_unknown(tmp_path, layout, encoder):
    write, make_facts = WAYS[layout]
    path, facts = write(tmp_path), make_facts(tmp_path)
    assert read_foreign(path, facts=facts).recipe["backbone"] == encoder
    named = dataclasses.replace(facts, encoder="mine")
    if encoder == "unknown":
        assert read_foreign(path, facts=named).recipe["backbone"] == "mine"
    else:
        with pytest.raises(BagError, match=r"the file says encoder is .*, and mine was given"):
            read_foreign(path, facts=named)


def test_the_file_decides_and_not_its_name(tmp_path):
    path = stamp(tmp_path / "trident" / "clam").rename(tmp_path / "s.csv")
    assert detect_layout(path) == "stamp"
    assert len(read_foreign(path, facts=MPP)) == N


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_bytes(b""), "not features of"),
        (lambda p: p.write_bytes(b"\x00\xff\x80" * 99), "not features of"),
        (lambda p: p.write_text("case,slide,label\na,b,c\n"), "header with x and y"),
        (lambda p: hdf5(p, {"coords": COORDS}), "no features.*belongs into patches"),
        (lambda p: hdf5(p, {}), "contains nothing"),
    ],
)
def test_what_is_no_file_of_features_is_refused(tmp_path, make, message):
    make(tmp_path / "s.h5")
    with pytest.raises(BagError, match=message):
        read_foreign(tmp_path / "s.h5", facts=MPP)


def test_a_cut_file_is_a_bag_error_at_every_length(tmp_path):
    whole = trident(tmp_path).read_bytes()
    for length in range(0, len(whole), 211):
        (tmp_path / "s.h5").write_bytes(whole[:length])
        with pytest.raises(BagError, match=r"s\.h5"):
            read_foreign(tmp_path / "s.h5", facts=MPP)


def test_an_unknown_layout_is_refused_with_those_known(tmp_path):
    with pytest.raises(BagError, match="Known: auto, trident"):
        read_foreign(trident(tmp_path), layout="conch")


def test_a_bag_of_ours_stays_as_it_is(tmp_path):
    bag = read_foreign(trident(tmp_path), facts=MPP, slide="s")
    write_bag(tmp_path / "ours.h5", bag)
    assert detect_layout(tmp_path / "ours.h5") == "mil"
    again = read_foreign(tmp_path / "ours.h5", slide="other")
    assert (again.slide, again.request_sha256) == ("s", bag.request_sha256)
    assert again.data_sha256 == bag.data_sha256


# ------------------------------------------------------------------ scale and unit


def test_micrometres_without_a_scale_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(BagError, match=r"Set slide_mpp, e\.g\. 0\.25.*slides"):
        read_foreign(stamp(tmp_path))


def test_micrometres_become_pixels_per_axis(tmp_path):
    facts = SourceFacts(slide_mpp=(0.25, 0.5))
    bag = read_foreign(stamp(tmp_path), facts=facts)
    assert np.array_equal(bag.coords_l0, np.round(COORDS * [1, 0.5]))
    assert bag.side_l0 == (512, 256)


@pytest.mark.parametrize("drop", [(), ("unit",)])
def test_stamps_tile_size_um_names_the_unit(tmp_path, drop):
    assert np.array_equal(read_foreign(stamp(tmp_path, drop=drop), facts=MPP).coords_l0, COORDS)


def test_stamps_old_tile_size_counts_where_the_unit_is_stated(tmp_path):
    path = stamp(tmp_path, drop=("tile_size_um", "tile_size_px"), tile_size=128.0)
    with pytest.raises(BagError, match="Set tile_px"):
        read_foreign(path, facts=MPP)
    bag = read_foreign(path, facts=dataclasses.replace(MPP, tile_px=256))
    assert (bag.side_l0, bag.target_mpp) == ((512, 512), 0.5)


@pytest.mark.parametrize("unit", [None, "pixel"])
def test_an_unknown_unit_is_requested_and_never_guessed(tmp_path, unit):
    steps = COORDS / 512 * 224  # 224 is what STAMP itself would take for its old unit
    drop = ("tile_size_um", "tile_size_px", *([] if unit else ["unit"]))
    stated = {"unit": unit} if unit else {}
    path = stamp(tmp_path, coords=steps, drop=drop, tile_size=224, **stated)
    with pytest.raises(BagError, match=r"step by 224\)\. Set unit to um, to "):
        read_foreign(path, facts=AT_20X)
    read = {
        unit: read_foreign(path, facts=dataclasses.replace(AT_20X, unit=unit)).coords_l0
        for unit in ("px", "um", "tile")
    }
    assert np.array_equal(read["px"], steps)
    assert np.array_equal(read["um"], steps * 4)
    assert np.array_equal(read["tile"], steps * 2)


def test_a_unit_against_the_files_own_is_refused(tmp_path):
    with pytest.raises(BagError, match="the file says unit is um, and px was given"):
        read_foreign(stamp(tmp_path), facts=dataclasses.replace(MPP, unit="px"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile_px": 224}, "says tile_px is 256, and 224 was given"),
        ({"target_mpp": 0.25}, r"says target_mpp is 0\.5, and 0\.25 was given"),
        ({"tile_l0": 256.0}, "tile_l0 is"),
        ({"slide_size": (9_000, 8_000)}, "slide_size is"),
    ],
)
def test_what_contradicts_the_file_is_refused(tmp_path, change, message):
    with pytest.raises(BagError, match=message):
        read_foreign(trident(tmp_path), facts=dataclasses.replace(MPP, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"slide_mpp": (0.25, 0)},
        {"tile_px": -1},
        {"target_mpp": float("nan")},
        {"tile_l0": np.inf},
        {"unit": "mm"},
    ],
)
def test_impossible_facts_are_refused(change):
    with pytest.raises(BagError, match=next(iter(change))):
        SourceFacts(**change)


def test_tridents_scale_is_nominal_and_says_so(tmp_path):
    bag = read_foreign(trident(tmp_path))
    assert (bag.mpp_l0, bag.mpp_source, bag.size_l0) == (
        (0.25, 0.25),
        "magnification",
        (10_000, 8_000),
    )
    assert any("nominal" in text for text in conversion_notes(bag))


@pytest.mark.parametrize(("mpp", "noted"), [(0.2515, False), (0.2527, True), (0.2475, True)])
def test_tridents_side_is_compared_with_the_true_scale(tmp_path, mpp, noted):
    bag = read_foreign(trident(tmp_path), facts=SourceFacts(slide_mpp=(mpp, mpp)))
    assert bag.side_l0 == (512, 512)  # what was read, whatever it was meant to be
    assert bag.target_mpp == pytest.approx(2 * mpp)
    assert bag.recipe["mpp"] == 0.5
    assert any(f"{2 * mpp:.4g}" in text for text in conversion_notes(bag)) == noted


def test_tridents_rounded_side_is_seen_without_a_scale(tmp_path):
    bag = read_foreign(trident(tmp_path, patch_size_level0=500))
    assert any("500 level-0 pixels wide" in text for text in conversion_notes(bag))


def test_nothing_is_none_though_it_is_written_as_text(tmp_path):
    path = trident(tmp_path, level0_magnification="None", target_magnification="None")
    with pytest.raises(BagError, match="Set slide_mpp"):
        read_foreign(path)
    assert read_foreign(path, facts=MPP).target_mpp == 0.5


def test_attributes_on_the_root_count_too(tmp_path):
    path = hdf5(tmp_path / "s.h5", {"features": FEATURES, "coords": COORDS}, root=TRIDENT)
    assert detect_layout(path) == "trident"
    assert read_foreign(path).side_l0 == (512, 512)


def test_attributes_as_bytes_are_text(tmp_path):
    path = stamp(tmp_path, unit=np.bytes_("um"), extractor=np.bytes_("uni"))
    assert read_foreign(path, facts=MPP).recipe["backbone"] == "uni"


# ------------------------------------------------------------------ CLAM


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({}, (512, 512)),
        ({"patch_level": 0, "downsample": (1.0, 1.0)}, (256, 256)),
        ({"downsample": (4.0003, 4.0007)}, (256 * 4.0003, 256 * 4.0007)),
        ({"downsample": 1.0, "custom_downsample": 2}, (512, 512)),
    ],
)
def test_clams_tile_size_comes_from_the_patches(tmp_path, changes, side):
    facts = dataclasses.replace(MPP, patches=patches(tmp_path, **changes))
    assert read_foreign(clam(tmp_path), facts=facts).side_l0 == pytest.approx(side, abs=1e-9)


def test_clam_without_patches_asks_for_them_or_for_the_numbers(tmp_path):
    path = clam(tmp_path)
    with pytest.raises(BagError, match="set patches to the folder"):
        read_foreign(path, facts=MPP)
    with pytest.raises(BagError, match="set patches to the folder"):
        read_foreign(path, facts=dataclasses.replace(MPP, tile_px=256))
    facts = dataclasses.replace(MPP, tile_px=256, tile_l0=512.0)
    assert read_foreign(path, facts=facts).side_l0 == (512, 512)


def test_clams_tensor_takes_its_coordinates_from_the_patches(tmp_path):
    torch.save(torch.from_numpy(FEATURES), tmp_path / "s.pt")
    assert detect_layout(tmp_path / "s.pt") == "clam"
    with pytest.raises(BagError, match=r"without coordinates\. Set patches"):
        read_foreign(tmp_path / "s.pt", facts=AT_20X)
    folder = patches(tmp_path, name="s_patches.h5", patch_size_level0=512)  # TRIDENT's name
    bag = read_foreign(tmp_path / "s.pt", facts=dataclasses.replace(MPP, patches=folder))
    assert np.array_equal(bag.coords_l0, COORDS)


def test_clams_patches_must_be_those_of_the_features(tmp_path):
    facts = dataclasses.replace(MPP, patches=patches(tmp_path, coords=COORDS + 1))
    with pytest.raises(BagError, match="are not those of"):
        read_foreign(clam(tmp_path), facts=facts)
    facts = dataclasses.replace(MPP, patches=tmp_path)
    torch.save(torch.from_numpy(FEATURES), tmp_path / "t.pt")
    with pytest.raises(BagError, match=r"no t\.h5 or t_patches\.h5 in patches"):
        read_foreign(tmp_path / "t.pt", facts=facts)


# ------------------------------------------------------------------ slideflow


def test_slideflows_centres_become_corners_of_tiles_of_odd_width(tmp_path):
    facts = SourceFacts(slide_mpp=(0.25, 0.2))
    bag = read_foreign(slideflow(tmp_path), facts=facts)
    assert bag.side_l0 == pytest.approx((512, 640))
    assert np.array_equal(bag.coords_l0, COORDS + 256 - [256, 320])


def test_slideflows_magnification_is_a_scale(tmp_path):
    bag = read_foreign(slideflow(tmp_path, config=SLIDEFLOW | {"tile_um": "20x"}), facts=MPP)
    assert bag.side_l0 == (512, 512)


def test_slideflow_without_its_config_asks_for_the_tile(tmp_path):
    path = slideflow(tmp_path, config=None)
    with pytest.raises(BagError, match="Set tile_px"):
        read_foreign(path, facts=MPP)
    assert np.array_equal(read_foreign(path, facts=AT_20X).coords_l0, COORDS)


# ------------------------------------------------------------------ tensors, arrays, tables


class Evil:
    def __reduce__(self):
        return (print, ("this code ran",))


def test_a_tensor_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "s.pt")
    np.savez(tmp_path / "s.index.npz", COORDS)
    with pytest.raises(BagError, match="may run code"):
        read_foreign(tmp_path / "s.pt", facts=AT_20X)
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["features", "coords"])
def test_a_pickled_array_is_refused(tmp_path, capsys, what):
    name = {"features": "feats", "coords": "coords"}[what]
    path = npz(tmp_path, **{name: np.array([Evil()], dtype=object)})
    with pytest.raises(BagError, match="allow_pickle=False"):
        read_foreign(path, facts=AT_20X)
    assert "this code ran" not in capsys.readouterr().out


def test_a_pickled_index_is_refused(tmp_path, capsys):
    path = slideflow(tmp_path, centres=np.array([Evil()], dtype=object))
    with pytest.raises(BagError, match="allow_pickle=False"):
        read_foreign(path, facts=MPP)
    assert "this code ran" not in capsys.readouterr().out


def test_a_pickle_with_a_tensors_name_is_refused(tmp_path, capsys):
    (tmp_path / "s.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(BagError):
        read_foreign(tmp_path / "s.pt", facts=AT_20X)
    assert "this code ran" not in capsys.readouterr().out


def test_a_dictionary_of_tensors_is_not_a_bag(tmp_path):
    torch.save({"features": torch.zeros(3, 2)}, tmp_path / "s.pt")
    with pytest.raises(BagError, match="a dict, not a tensor"):
        read_foreign(tmp_path / "s.pt", facts=AT_20X)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_age_and_precision(tmp_path, dtype, old):
    path = slideflow(tmp_path)
    values = torch.from_numpy(FEATURES).to(dtype)[None]  # (1, N, D)
    torch.save(values, path, _use_new_zipfile_serialization=not old)
    bag = read_foreign(path, facts=MPP)
    assert bag.features.dtype == (np.float16 if dtype == torch.float16 else np.float32)
    assert np.array_equal(bag.features, values[0].float().numpy())


@pytest.mark.parametrize(
    "names", [("features", "coordinates"), ("X", "xy"), ("embeddings", "coords")]
)
def test_arrays_under_their_usual_names(tmp_path, names):
    np.savez(tmp_path / "s.npz", **dict(zip(names, (FEATURES, COORDS), strict=True)))
    assert np.array_equal(read_foreign(tmp_path / "s.npz", facts=AT_20X).features, FEATURES)


def test_arrays_whose_meaning_is_open_are_refused(tmp_path):
    with pytest.raises(BagError, match=r"2 of .* means features"):
        read_foreign(npz(tmp_path, embeddings=FEATURES), facts=AT_20X)
    np.savez(tmp_path / "s.npz", coords=COORDS)
    with pytest.raises(BagError, match="none of coords means features"):
        read_foreign(tmp_path / "s.npz", facts=AT_20X)


@pytest.mark.parametrize(
    "header", ["x,y,a,b,c,d", "x_l0,y_l0,a,b,c,d", "coord_x,coord_y,a,b,c,d", "﻿X, Y ,a,b,c,d"]
)
def test_tables_with_their_usual_headers(tmp_path, header):
    bag = read_foreign(table(tmp_path, header), facts=AT_20X)
    assert np.array_equal(bag.coords_l0, COORDS)
    assert np.allclose(bag.features, FEATURES)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_other_countries(tmp_path, delimiter):
    path = table(tmp_path)
    path.write_text(path.read_text().replace(",", delimiter))
    assert np.array_equal(read_foreign(path, facts=AT_20X).coords_l0, COORDS)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            "x,y,tile_id,a",
            [[0, 0, 1, 2]],
            r"column 'tile_id' \(a name or number of rows\) is no feature\. Remove it",
        ),
        (",x,y,a", [[0, 0, 1, 2]], r"column '' \(without a name\) is no feature"),
        ("x,y,a", [[0, 0, "red"]], "column 'a' holds 'red' on line 2"),
        ("x,y,a", [["left", 0, 1]], "column 'x' holds 'left' on line 2"),
        ("x,y,a", [[0, 0, 1], [0, 0]], r"3 columns in the header, 2 below it, on line 3\."),
        ("x,y,a", [[0, 0, 1, 2]], "3 columns in the header, 4 below"),
        (
            "x,y,a",
            [[0, 0, 1], [0, 0, ""]],
            "column 'a' is empty on line 3, where a feature has a number",
        ),
        ("x,y,a", [[0, 0, "nan"]], "not finite"),
        ("x,y", [[0, 0]], "no tiles"),
        ("x,x_l0,y,a", [[0, 0, 0, 1]], "2 of"),
    ],
)
def test_tables_that_are_not_features_are_refused(tmp_path, header, rows, message):
    with pytest.raises(BagError, match=message):
        read_foreign(table(tmp_path, header, rows), layout="csv", facts=AT_20X)


def test_a_table_without_rows_is_refused(tmp_path):
    with pytest.raises(BagError, match=r"s\.csv"):
        read_foreign(table(tmp_path, rows=[]), facts=AT_20X)


# ------------------------------------------------------------------ arrays that cannot be


@pytest.mark.parametrize(
    ("features", "coords", "message"),
    [
        (np.zeros((0, DIM), np.float32), np.zeros((0, 2), int), "no tiles"),
        (np.zeros(0, np.float32), np.zeros((0, 2), int), "no tiles"),
        (np.zeros((2, N, DIM), np.float32), COORDS, "not \\(tiles, features\\)"),
        (FEATURES[:-1], COORDS, "5 feature vectors for 6 coordinates"),
        (FEATURES, COORDS[:, :1], "not \\(tiles, 2\\)"),
        (FEATURES, np.full((N, 2), np.nan), "not finite"),
        (FEATURES, np.full((N, 2), 1e19), "larger than any slide"),
        (FEATURES * np.nan, COORDS, "not finite"),
        (FEATURES * np.float32(np.inf), COORDS, "not finite"),
        (FEATURES.astype(np.float64) * 1e300, COORDS, "not finite"),
        (FEATURES.astype(complex), COORDS, "complex"),
        (FEATURES > 0, COORDS, "bool"),
        (FEATURES.astype("S8"), COORDS, "type"),
        (FEATURES, COORDS + 9_000, "outside the slide"),
        (FEATURES, COORDS - 3_000, "outside the slide"),
    ],
)
def test_arrays_that_cannot_be_are_refused_by_name(tmp_path, features, coords, message):
    with pytest.raises(BagError, match=message) as caught:
        read_foreign(trident(tmp_path, features, coords), facts=MPP)
    assert "s.h5" in str(caught.value)


def test_legacy_shape_and_integers_are_read(tmp_path):
    whole = np.round(FEATURES * 100).astype(np.int16)
    bag = read_foreign(trident(tmp_path, whole[None], COORDS[None].astype(np.uint16)), facts=MPP)
    assert np.array_equal(bag.features, whole)
    assert np.array_equal(bag.coords_l0, COORDS)


def test_a_missing_array_is_named(tmp_path):
    path = hdf5(tmp_path / "s.h5", {"feats": FEATURES}, root=STAMP)
    with pytest.raises(BagError, match=r"s\.h5: no array coords, it contains feats"):
        read_foreign(path, facts=MPP)
    path = stamp(tmp_path, name="patch_embeddings")
    assert len(read_foreign(path, facts=MPP)) == N


@pytest.mark.parametrize("vector", [FEATURES[0], FEATURES[:1]], ids=["(D,)", "(1, D)"])
@pytest.mark.parametrize("kind", ["slide", "patient"])
def test_the_vector_of_a_slide_or_patient_is_one_row(tmp_path, kind, vector):
    bag = read_foreign(stamp(tmp_path, vector, feat_type=kind))
    np.testing.assert_array_equal(bag.features, FEATURES[:1])
    assert bag.recipe["region"] == "vector"
    with pytest.raises(BagError, match=rf"vector of a {kind}, and has features \(6, 4\)"):
        read_foreign(stamp(tmp_path, feat_type=kind))


def test_doubled_and_overhanging_tiles_are_remarked_on(tmp_path):
    coords = COORDS.copy()
    coords[1] = coords[0]
    coords[2] = (9_999, 100)
    notes = conversion_notes(read_foreign(trident(tmp_path, coords=coords), facts=MPP))
    assert notes == (
        "1 of 6 tiles have the coordinates of another tile.",
        "1 of 6 tiles reach over the slide's edge.",
    )


def test_tiles_that_all_have_the_same_features_are_remarked_on(tmp_path):
    same = np.repeat(FEATURES[2:3], N, axis=0)
    [note] = conversion_notes(read_foreign(stamp(tmp_path, same), facts=MPP))
    assert note.startswith("All 6 tiles have the same features")
    same[3, 1] += 1
    assert conversion_notes(read_foreign(stamp(tmp_path, same), facts=MPP)) == ()


# ------------------------------------------------------------------ what others make of the bags


def store_of(folder, layout, **facts):
    """Four slides of four cases, as one foreign store, converted."""
    (folder / "store").mkdir(parents=True)
    for index in range(4):
        write, known = WAYS[layout]
        place = folder / str(index)
        place.mkdir()
        path = (
            write(place, FEATURES + index)
            if layout != "npz"
            else write(place, feats=FEATURES + index)
        )
        bag = read_foreign(
            path, facts=dataclasses.replace(known(place), **facts), slide=f"s{index}"
        )
        write_bag(folder / "store" / f"s{index}.h5", bag)
    return folder / "store"


ROWS = [Row(line=i + 2, case=f"c{i}", slide=f"s{i}", label="AB"[i % 2]) for i in range(4)]


@pytest.mark.parametrize("layout", ["trident", "clam", "stamp", "slideflow", "npz"])
def test_bags_of_one_foreign_store_are_used_together(tmp_path, layout):
    cohort = assemble(ROWS, store_of(tmp_path, layout))
    assert (len(cohort.cases), cohort.dim) == (4, DIM)


def test_bags_of_two_foreign_stores_are_not(tmp_path):
    store = store_of(tmp_path / "one", "trident")
    other = store_of(tmp_path / "two", "slideflow")
    (other / "s3.h5").replace(store / "s3.h5")
    with pytest.raises(CohortError, match=r"made differently .*backbone"):
        assemble(ROWS, store)


def test_the_recipe_does_not_depend_on_the_slides_own_scale(tmp_path):
    path = trident(tmp_path)
    bags = [read_foreign(path, facts=SourceFacts(slide_mpp=(mpp, mpp))) for mpp in (0.25, 0.2527)]
    assert len({bag.recipe_sha256 for bag in bags}) == 1
    assert len({bag.request_sha256 for bag in bags}) == 2
    clams = clam(tmp_path)
    known = SourceFacts(slide_mpp=(0.2527, 0.2527), target_mpp=0.5, patches=patches(tmp_path))
    assert read_foreign(clams, facts=known).recipe["mpp"] == 0.5


# ------------------------------------------------------------------ export


def made(tmp_path, **changes):
    """A bag on a slide whose pixels are not square and whose tiles are no whole pixels."""
    facts = SourceFacts(slide_mpp=(0.2527, 0.2508))
    bag = read_foreign(stamp(tmp_path), facts=facts, slide="a.b")
    return dataclasses.replace(bag, **changes)


def test_stamp_gets_what_its_reader_asks_for(tmp_path):
    bag = made(tmp_path)
    write_stamp(tmp_path / "out" / "a.b.h5", bag)
    with h5py.File(tmp_path / "out" / "a.b.h5") as file:
        assert sorted(file) == ["coords", "feats"]
        assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
        assert np.allclose(file["coords"][:], bag.coords_l0 * bag.mpp_l0, rtol=1e-6)
        attributes = dict(file.attrs)
    assert attributes.pop("tile_size_um") == pytest.approx(128)
    assert attributes == {
        "unit": "um",
        "tile_size_px": 256,
        "extractor": "ctranspath",
        "feat_type": "tile",
        "stamp_version": "2.0.0",
    }


def test_to_stamp_and_back(tmp_path):
    far = 200_000 + np.arange(2 * N).reshape(N, 2) * 1000
    bag = made(tmp_path, coords_l0=far, features=FEATURES)
    write_stamp(tmp_path / "a.b.h5", bag)
    back = read_foreign(tmp_path / "a.b.h5", facts=SourceFacts(slide_mpp=bag.mpp_l0))
    assert np.abs(back.coords_l0 - far).max() < 0.5
    assert np.array_equal(back.features, FEATURES.astype(np.float16))
    assert back.side_l0 == pytest.approx(bag.side_l0)
    assert (back.slide, back.tile_px) == ("a.b", bag.tile_px)


@pytest.mark.parametrize(
    ("joined", "kind"), [(None, "slide"), ("slide", "slide"), ("case", "patient")]
)
def test_vectors_go_to_stamp_and_come_back_as_vectors(tmp_path, joined, kind):
    recipe = {"backbone": "prism", "weights": "pretrained"} | ({"joined": joined} if joined else {})
    bag = vector_bag("p 1", FEATURES[2] * 1e6, recipe)
    bag = dataclasses.replace(bag, trained_on=("case-9",))
    write_stamp(tmp_path / "p 1.h5", bag)
    with h5py.File(tmp_path / "p 1.h5") as file:
        assert (sorted(file), file["feats"].shape, file["feats"].dtype) == (
            ["feats"],
            (1, 4),
            np.float32,
        )
        assert (file.attrs["feat_type"], file.attrs["encoder"]) == (kind, "prism")
    for layout in ("auto", "stamp", "vector"):
        back = read_foreign(tmp_path / "p 1.h5", layout=layout)
        assert is_vector(back.recipe)
        assert (back.recipe["backbone"], back.trained_on) == ("prism", ("case-9",))
        assert np.array_equal(back.features, bag.features)


def test_rows_that_are_no_tiles_are_not_written_as_tiles(tmp_path):
    placeless = made(tmp_path, recipe={"backbone": "b", "weights": "w", "region": "no places"})
    for write, tool in ((write_stamp, "STAMP"), (write_clam, "CLAM")):
        with pytest.raises(
            BagError, match=rf"a\.b: its features have no places, and {tool} would take"
        ):
            write(tmp_path / "out", placeless)
    with pytest.raises(BagError, match="v: one vector, and CLAM would take it for a tile"):
        write_clam(
            tmp_path / "out", vector_bag("v", FEATURES[0], {"backbone": "b", "weights": "w"})
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
@pytest.mark.parametrize("form", ["feats", "embeddings", "npz", "pt"])
def test_a_vector_of_any_form_is_read_as_one(tmp_path, form, shape):
    vector = FEATURES[3].reshape(shape)
    path = tmp_path / f"s.{form if form in ('npz', 'pt') else 'h5'}"
    if form == "npz":
        np.savez(path, whatever=vector)
    elif form == "pt":
        torch.save(torch.from_numpy(vector), path)
    else:
        hdf5(path, {form: vector}, root={"encoder": "chief"} if form == "feats" else {})
    bag = read_foreign(path, layout="vector")
    assert is_vector(bag.recipe)
    assert np.array_equal(bag.features, FEATURES[3:4])
    assert bag.recipe["backbone"] == ("chief" if form == "feats" else "unknown")
    if (shape == (4,) and form != "embeddings") or form == "feats":
        assert is_vector(read_foreign(path).recipe)


def test_tiles_are_not_read_as_a_vector(tmp_path):
    for path in (npz(tmp_path), stamp(tmp_path)):
        with pytest.raises(BagError, match=r"features \(6, 4\) are not the vector of one slide"):
            read_foreign(path, layout="vector")
    with pytest.raises(BagError, match="no vector of a slide"):
        read_foreign(table(tmp_path), layout="vector")


def test_stamps_half_precision_is_not_overrun(tmp_path):
    with pytest.raises(BagError, match=r"70000.*write the layout clam"):
        write_stamp(tmp_path / "x.h5", made(tmp_path, features=FEATURES * 0 + 70_000))
    assert not (tmp_path / "x.h5").exists()


def test_to_clam_and_back(tmp_path):
    bag = made(tmp_path)
    write_clam(tmp_path / "clam", bag)
    tensor = torch.load(tmp_path / "clam" / "pt_files" / "a.b.pt", weights_only=True)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, (N, DIM))
    path = tmp_path / "clam" / "h5_files" / "a.b.h5"
    with h5py.File(path) as file:
        assert sorted(file) == ["coords", "features"]
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int32)
    known = SourceFacts(slide_mpp=bag.mpp_l0)
    with_patches = dataclasses.replace(known, patches=path.parent)
    for back in (
        read_foreign(path, facts=known),
        read_foreign(tmp_path / "clam" / "pt_files" / "a.b.pt", facts=with_patches),
    ):
        assert np.array_equal(back.coords_l0, bag.coords_l0)
        assert np.array_equal(back.features, np.float32(bag.features))
        assert back.side_l0 == pytest.approx(bag.side_l0)


@pytest.mark.parametrize("layout", WRITABLE)
def test_every_layout_that_is_written_is_read_again(tmp_path, layout):
    bag = made(tmp_path)
    write_foreign(tmp_path / "out", bag, layout)
    path = LAYOUTS[layout].path(tmp_path / "out", bag.slide)
    assert detect_layout(path) == layout
    back = read_foreign(path, facts=SourceFacts(slide_mpp=bag.mpp_l0))
    assert np.array_equal(back.coords_l0, bag.coords_l0)


@pytest.mark.parametrize("layout", ["trident", "mil", "conch"])
def test_a_layout_that_is_not_written_is_refused(tmp_path, layout):
    with pytest.raises(BagError, match=f"Bags are written as clam or stamp; got '{layout}'"):
        write_foreign(tmp_path / "out", made(tmp_path), layout)
    assert not (tmp_path / "out").exists()


TARGET = {"method": "macenko"}
SEEN = [
    ({"trained_on": ("case-2",)}, "was trained on 1 cases that would be tested, e.g. case-2"),
    ({"slides": ["s2"], "cases": []}, "normalised to slides of case-2"),
    ({"slides": ["other"], "cases": ["case-2"]}, "normalised to slides of case-2"),
]


def seen_bag(tmp_path, seen, **changes):
    if "trained_on" in seen:
        return made(tmp_path, **seen, **changes)
    recipe = {"backbone": "resnet18", "stain_reference": seen | {"target": TARGET}}
    return made(tmp_path, recipe=recipe, **changes)


@pytest.mark.parametrize("layout", ["stamp", "mil", "mil as trident", "mil as clam"])
@pytest.mark.parametrize(("seen", "refusal"), SEEN)
def test_whom_a_backbone_has_seen_is_not_lost_on_the_way(tmp_path, layout, seen, refusal):
    (tmp_path / "store").mkdir()
    for index in range(4):
        bag = seen_bag(tmp_path, seen, slide=f"s{index}", features=FEATURES + index)
        write = write_stamp if layout == "stamp" else write_bag
        write(tmp_path / "x.h5", bag)
        forced = layout.rpartition(" as ")[2] if " as " in layout else "auto"
        back = read_foreign(tmp_path / "x.h5", layout=forced, facts=MPP, slide=f"s{index}")
        write_bag(tmp_path / "store" / f"s{index}.h5", back)
    rows = [Row(line=i + 2, case=f"case-{i}", slide=f"s{i}", label="ab"[i % 2]) for i in range(4)]
    fold = Fold(repeat=0, index=0, train=("case-0", "case-1"), test=("case-2", "case-3"))
    with pytest.raises(LeakageError, match=refusal):
        check_seen(assemble(rows, tmp_path / "store"), [fold])


@pytest.mark.parametrize("seen", [seen for seen, _ in SEEN])
def test_a_tensor_cannot_say_whom_a_backbone_has_seen(tmp_path, seen):
    with pytest.raises(BagError, match=r"a\.b: .* a \.pt file cannot name.*the layout stamp"):
        write_clam(tmp_path / "clam", seen_bag(tmp_path, seen))
    assert not (tmp_path / "clam").exists()


@pytest.mark.parametrize("note", ["{", "1", '["case-1"]'])
def test_a_garbled_note_of_the_seen_is_refused(tmp_path, note):
    write_stamp(tmp_path / "x.h5", made(tmp_path, trained_on=("case-1",)))
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["sarcomil_seen"] = note
    with pytest.raises(BagError, match="cannot be read"):
        read_foreign(tmp_path / "x.h5", facts=MPP)


def test_random_weights_are_called_random_in_stamps_file_too(tmp_path):
    recipe = {"backbone": "resnet18", "weights": "random, seed 0"}
    write_stamp(tmp_path / "r.h5", made(tmp_path, recipe=recipe))
    back = read_foreign(tmp_path / "r.h5", facts=MPP)
    assert back.recipe["backbone"] == "resnet18, random weights"


def test_hold_out_tiles_do_not_come_back_as_the_sample(tmp_path):
    (tmp_path / "store").mkdir()
    for index in range(4):
        recipe = {
            "backbone": "resnet18",
            "weights": "random, seed 0",
            "held_out": 20 * (index == 3),
        }
        write_stamp(tmp_path / "x.h5", made(tmp_path, recipe=recipe, features=FEATURES + index))
        bag = read_foreign(tmp_path / "x.h5", facts=MPP, slide=f"s{index}")
        write_bag(tmp_path / "store" / f"s{index}.h5", bag)
    assert bag.recipe["backbone"] == "resnet18, random weights, held-out tiles"
    with pytest.raises(CohortError, match=r"made differently .*backbone"):
        assemble(ROWS, tmp_path / "store")
    assert len(assemble(ROWS[:3], tmp_path / "store").cases) == 3


@pytest.mark.parametrize("step", ["os.fsync", "Path.replace"])
@pytest.mark.parametrize("write", [write_stamp, write_clam])
def test_failure_while_writing_leaves_nothing(tmp_path, monkeypatch, write, step):
    def fail(*arguments):
        raise OSError("disk gone")

    bag = made(tmp_path)
    monkeypatch.setattr(f"features.files.atomic.{step}", fail)
    with pytest.raises(OSError, match="disk gone"):
        write(tmp_path / "out" / "s", bag)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


# ------------------------------------------------------------------ real files


@pytest.mark.realdata
def test_a_real_file_in_stamps_names_needs_its_unit(realdata, tmp_path):
    """Its integers step by 512: nothing in it says whether these are pixels or micrometres."""
    path = realdata / "bags" / "stamp-TCGA-AD-6964.h5"
    assert detect_layout(path) == "stamp"
    facts = SourceFacts(slide_mpp=(0.25, 0.25), tile_px=512, tile_l0=512.0)
    with pytest.raises(BagError, match=r"step by 512\)\. Set unit"):
        read_foreign(path, facts=facts)
    bag = read_foreign(path, facts=dataclasses.replace(facts, unit="px"))
    write_bag(tmp_path / "s.h5", bag)
    validate_bag(tmp_path / "s.h5")
    assert (len(bag), bag.dim, conversion_notes(bag)) == (777, 512, ())


@pytest.mark.realdata
def test_a_real_npz_whose_last_row_runs_over_the_edge(realdata, tmp_path):
    path = realdata / "bags" / "CMU-1-Small-Region-resnet50.npz"
    facts = SourceFacts(slide_mpp=(0.499, 0.499), slide_size=(2220, 2967), tile_l0=256.0)
    bag = read_foreign(path, facts=facts)
    write_bag(tmp_path / "s.h5", bag)
    assert (len(bag), bag.dim, bag.tile_px) == (52, 2048, 256)
    [note] = conversion_notes(bag)
    assert "reach over the slide's edge" in note
    with pytest.raises(BagError, match="outside the slide"):
        read_foreign(path, facts=dataclasses.replace(facts, slide_size=(1500, 2967)))


ARRAYS = {"tile_px": 256, "mpp": 0.5, "slide_mpp": 0.25, "encoder": "mine", "case": "P7"}


def test_a_bag_from_arrays_is_that_of_a_file_with_them(tmp_path):
    made = make_bag("P7-s.1", FEATURES, COORDS, **ARRAYS)
    np.savez(tmp_path / "s.npz", features=FEATURES, coords=COORDS)
    facts = SourceFacts(
        slide_mpp=(0.25, 0.25), tile_px=256, target_mpp=0.5, encoder="mine", unit="px"
    )
    read = read_foreign(tmp_path / "s.npz", facts=facts, slide="P7-s.1", case="P7")
    assert (made.slide, made.case, made.side_l0) == ("P7-s.1", "P7", (512.0, 512.0))
    assert (made.recipe, made.data_sha256, made.request_sha256) == (
        read.recipe, read.data_sha256, read.request_sha256,
    )  # fmt: skip
    write_bag(tmp_path / "P7-s.1.h5", made)
    assert read_bag(tmp_path / "P7-s.1.h5").data_sha256 == made.data_sha256


@pytest.mark.parametrize(
    ("features", "coords", "facts", "message"),
    [
        (FEATURES[:4], COORDS, {}, "4 feature vectors for 6 coordinates"),
        (FEATURES[0], COORDS[:1], {}, r"features \(4,\) are not \(tiles, features\)"),
        (FEATURES * np.nan, COORDS, {}, "not finite"),
        (FEATURES, COORDS, {"slide_mpp": 0.0}, "slide_mpp must be a positive number"),
        (FEATURES, COORDS - 5000, {}, "outside the slide"),
    ],
)
def test_arrays_that_make_no_bag_are_refused(features, coords, facts, message):
    with pytest.raises(BagError, match=message):
        make_bag("s", features, coords, **(ARRAYS | facts))
