"""Whatever is in a file, its reader returns something or raises an error of the library that names it."""

import json

import h5py
import numpy as np
import pytest
import torch
from test_bags import bag

from features.bags.bag import FACTS_SHA256, read_bag, write_bag
from features.bags.convert import convert
from features.bags.foreign_readers import SourceFacts
from features.bags.interchange import read_foreign
from features.errors import AnnotationError, BagError
from features.regions.annotations import read_annotations

FACTS = SourceFacts(slide_mpp=(0.5, 0.5), tile_px=8, target_mpp=0.5, unit="px")
ODD = (
    *(float("inf"), float("nan"), "", "[" * 9000, "1" * 400, "1e999"),
    *([1], [[1, 2], [3, 4]], h5py.Empty("f")),
)
PLACES = {
    "/": ("format_version", "recipe", "trained_on", "n_failed", "n_tiles", "tumour_of_tissue"),
    "coords": ("patch_size", "patch_size_level0_exact", "level0_width", "target_mpp", "bounds"),
}
ODD_NAMES = [f"{number}" for number in range(len(ODD))]


@pytest.mark.parametrize("odd", ODD, ids=ODD_NAMES)
def test_odd_attributes_of_a_bag_never_raise_anything_else(tmp_path, odd):
    """With the seal of its record removed, as in bags of the first versions."""
    path = tmp_path / "a.h5"
    write_bag(path, bag())
    with h5py.File(path, "r+") as file:
        del file.attrs[FACTS_SHA256]
    whole = path.read_bytes()
    for place, name in ((place, name) for place, names in PLACES.items() for name in names):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            file[place].attrs[name] = odd
        refused_by_name(path, BagError, read_bag)


def refused_by_name(path, kind, read):
    """Read; an error of the library has to name the file, and there is to be no other."""
    problem = ""
    try:
        read(path)
    except kind as error:
        problem = str(error)
    assert not problem or path.name in problem


def damaged(path, rng, times):
    """The file with a few bytes changed, cut, or zeroed."""
    whole = path.read_bytes()
    for _ in range(times):
        raw = bytearray(whole)
        kind = rng.integers(3)
        if kind == 0:
            for place in rng.integers(0, len(raw), 4):
                raw[place] = rng.integers(256)
        elif kind == 1:
            del raw[rng.integers(len(raw)) :]
        else:
            start = int(rng.integers(len(raw)))
            raw[start : start + 64] = bytes(len(raw[start : start + 64]))
        path.write_bytes(raw)
        yield


def make(folder, kind):
    rng = np.random.default_rng(0)
    features, coords = rng.normal(size=(6, 4)).astype(np.float32), np.arange(12).reshape(6, 2) * 8
    path = folder / f"a.{kind}"
    if kind == "npz":
        np.savez_compressed(path, features=features, coords=coords)
    elif kind == "pt":
        torch.save(torch.from_numpy(features), path)
        np.savez(folder / "a.index.npz", coords)
    elif kind == "csv":
        rows = np.hstack([coords, features]).tolist()
        lines = [",".join(map(str, row)) for row in rows]
        path.write_text("\n".join(["x,y,a,b,c,d", *lines]))
    else:
        with h5py.File(path, "w") as file:
            file["features"], file["coords"] = features, coords
            file["coords"].attrs["patch_size"] = 8
    return path


@pytest.mark.parametrize("kind", ["npz", "pt", "csv", "h5"])
def test_a_damaged_file_of_features_is_read_or_refused_by_name(tmp_path, kind):
    path = make(tmp_path, kind)
    for _ in damaged(path, np.random.default_rng(1), 25):
        refused_by_name(path, BagError, lambda path: read_foreign(path, facts=FACTS))


@pytest.mark.parametrize(
    "odd", ["1" * 400, "1e999", "[" * 9000, '"x"', "null", "{}", "[]", "[[[]]]", "NaN"]
)
@pytest.mark.parametrize("key", ["coordinates", "geometry", "properties", "type", "features"])
def test_odd_values_in_geojson_are_read_or_refused_by_name(tmp_path, odd, key):
    square = [[[0, 0], [9, 0], [9, 9], [0, 0]]]
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": square},
    }
    whole = json.dumps({"type": "FeatureCollection", "features": [feature]})
    holder = {"coordinates": square, "geometry": feature["geometry"], "features": [feature]}
    old = json.dumps(holder.get(key, {} if key == "properties" else "Feature"))
    path = tmp_path / "a.geojson"
    path.write_text(whole.replace(f'"{key}": {old}', f'"{key}": {odd}'))
    refused_by_name(path, AnnotationError, read_annotations)


def test_hidden_names_and_links_that_lead_nowhere_stop_no_other(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    make(source, "npz")
    (source / "b.npz").symlink_to(source / "gone.npz")
    (source / "c.npz").symlink_to(source / "c.npz")
    (source / ".hidden.npz").write_bytes(b"x")
    result = convert(source, tmp_path / "out", facts=FACTS)
    assert result.n_done == 1
    assert len(result.failures) == 2
    assert all("no such file" in reason for reason in result.failures)
