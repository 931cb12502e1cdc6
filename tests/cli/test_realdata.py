"""`mil extract` on real files, as a user would run it."""

import csv
import json

import h5py
import pytest

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
RECIPE = ["--backbone", "resnet18", "--weights", "random", "--mpp", "0.5"]


def test_a_real_slide_with_an_annotation_becomes_a_bag_in_tridents_layout(realdata, tmp_path, mil):
    ring = [[300, 300], [1900, 300], [1900, 2600], [300, 2600], [300, 300]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}},
    }
    path = tmp_path / "CMU-1-Small-Region.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    slide = realdata / "slides" / "CMU-1-Small-Region.svs"
    mil("extract", slide, "--annotations", tmp_path, "--out", tmp_path / "store", *RECIPE)
    with h5py.File(tmp_path / "store" / "CMU-1-Small-Region.h5") as bag:
        assert bag["features"].shape == (len(bag["coords"]), 512)
        assert len(bag["coords"]) > 40
        assert bag["coords"].attrs["patch_size"] == 224
        # 224 px at .5 on a slide of .499 micrometres per pixel
        assert bag["coords"].attrs["patch_size_level0"] == round(224 * 0.5 / 0.499)
        assert bag["coords"][:].min() >= 300 - 90  # a tile may reach 40 % over the outline


def test_a_slide_without_mpp_is_refused_with_the_remedy_and_runs_with_it(realdata, tmp_path, mil):
    slide = realdata / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    asked = ["extract", slide, "--out", tmp_path, *RECIPE, "--max-tiles", "20"]
    refused = mil(*asked, check=False)
    assert refused.returncode == 1
    assert "--slide-mpp" in refused.stderr
    assert not list(tmp_path.glob("*.h5"))
    mil(*asked, "--slide-mpp", "0.5")
    assert len(list(tmp_path.glob("*.h5"))) == 1


def test_broken_slides_cost_one_line_each_and_leave_no_bag(realdata, tmp_path, mil):
    bad = sorted((realdata / "slides" / "bad").iterdir())
    good = realdata / "slides" / "CMU-1-Small-Region.svs"
    done = mil("extract", *bad, good, "--out", tmp_path, *RECIPE, check=False)
    assert done.returncode == 1
    assert [path.name for path in tmp_path.glob("*.h5")] == ["CMU-1-Small-Region.h5"]
    with (tmp_path / "failures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["slide"] for row in rows) == ["broken", "unopenable", "unreadable"]
    told = done.stderr.strip().splitlines()
    assert len(told) == 5  # the region, one each, and where the list is


def test_a_folder_of_real_tiles_becomes_a_bag_per_block(realdata, tmp_path, mil):
    tiles = realdata / "tiles" / "osteosarcoma"
    mil(
        "extract", tiles, "--out", tmp_path, "--slide-mpp", "0.5",
        "--backbone", "resnet18", "--weights", "random",
    )  # fmt: skip
    assert len(list(tmp_path.glob("*.h5"))) == 26


def test_a_table_over_a_folder_of_real_tiles_leaves_patients_out(realdata, tmp_path, mil):
    """Blocks as bags, the patient as site: four folds, each of one patient."""
    from benchmarks.osteosarcoma import write_table

    tiles = realdata / "tiles" / "osteosarcoma"
    write_table(tiles, tmp_path / "cohort.csv")
    mil(
        "extract", "cohort.csv", "--slides", tiles, "--out", "store", "--slide-mpp", "0.5",
        "--backbone", "resnet18", "--weights", "random", cwd=tmp_path,
    )  # fmt: skip
    asked = ["crossval", "cohort.csv", "store", "--models", "majority,mean", "--epochs", "3"]
    mil(*asked, "--folds", "site", "--out", "run", cwd=tmp_path)
    folds = json.loads((tmp_path / "run" / "folds.json").read_text())
    patients = [{name.rsplit("-", 1)[0] for name in fold["test"]} for fold in folds]
    assert sorted(map(sorted, patients)) == [["Case-3"], ["Case-4"], ["Case-48-P5"], ["P9"]]
    mil("report", "run", cwd=tmp_path)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "always the most frequent class" in page
