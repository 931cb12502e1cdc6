"""`mil convert`: every file is converted, or named with the reason; nothing is replaced unasked."""

import json
import shutil
import typing

import h5py
import numpy as np
import pytest
import torch

from cli.convert import ConvertOptions, grouped
from features.bags.bag import Bag, read_bag, read_request, write_bag
from features.bags.foreign_readers import UNITS
from features.bags.foreign_writers import write_clam, write_stamp
from features.bags.layouts import LAYOUTS, WRITABLE
from features.choices import choices_of
from tests.features.making import stained, write_tiff

RECIPE = {"backbone": "resnet18", "weights": "random", "precision": "fp32", "region": "tissue"}


def bag(slide, seed, n=9):
    rng = np.random.default_rng(seed)
    return Bag(
        slide=slide,
        features=rng.normal(size=(n, 5)).astype(np.float32),
        coords_l0=np.array([[448 * i, 896] for i in range(n)]),
        coverage=np.ones(n, np.float32),
        side_l0=(448.0, 448.0),
        size_l0=(5000, 4000),
        mpp_l0=(0.25, 0.25),
        mpp_source="file",
        tile_px=224,
        target_mpp=0.5,
        recipe=RECIPE,
        request_sha256="asked",
    )


@pytest.fixture
def folder(tmp_path):
    """Three bags in a store."""
    for index, name in enumerate(("a", "b.c", "d")):
        write_bag(tmp_path / "store" / f"{name}.h5", bag(name, index))
    return tmp_path


def to_stamp(folder):
    for path in (folder / "store").iterdir():
        write_stamp(folder / "stamp" / path.name, read_bag(path))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_store_goes_to_stamp_and_back(folder, mil):
    done = mil("convert", "store", "--to", "stamp", "--out", "stamp", cwd=folder)
    assert "3 slides converted, 27 tiles, 5 features each. Files: stamp" in done.stdout
    assert files(folder / "stamp") == ["a.h5", "b.c.h5", "d.h5"]
    done = mil("convert", "stamp", "--out", "back", "--slide-mpp", "0.25", cwd=folder)
    assert "3 slides converted, 27 tiles, 5 features each" in done.stdout
    assert "coverage unknown and set to 1" in done.stdout
    back, ours = (read_bag(folder / name / "b.c.h5") for name in ("back", "store"))
    assert np.array_equal(back.coords_l0, ours.coords_l0)
    assert np.array_equal(back.features, np.float16(ours.features))
    assert (back.slide, back.side_l0) == ("b.c", ours.side_l0)
    assert back.recipe["backbone"] == "resnet18, random weights"


def test_a_store_goes_to_clam_and_back_from_either_kind_of_file(folder, mil):
    mil("convert", "store", "--to", "clam", "--out", "clam", cwd=folder)
    assert files(folder / "clam") == sorted(
        f"{kind}_files/{name}.{kind}" for kind in ("h5", "pt") for name in ("a", "b.c", "d")
    )
    mil("convert", "clam/h5_files", "--out", "one", "--slide-mpp", "0.25", cwd=folder)
    told = ["--patches", "clam/h5_files", "--slide-mpp", "0.25"]
    mil("convert", "clam/pt_files", "--out", "two", *told, cwd=folder)
    for name in ("a", "b.c", "d"):
        one, two = (read_bag(folder / store / f"{name}.h5") for store in ("one", "two"))
        assert one.request_sha256 == two.request_sha256
        assert one.data_sha256 == read_bag(folder / "store" / f"{name}.h5").data_sha256


def test_a_second_run_keeps_what_is_there_and_overwrite_replaces_it(folder, mil):
    export = ["convert", "store", "--to", "stamp", "--out", "stamp"]
    take_in = ["convert", "stamp", "--out", "back", "--slide-mpp", "0.25"]
    for arguments in (export, take_in):
        mil(*arguments, cwd=folder)
        written = folder / arguments[-1 if arguments is export else 3] / "d.h5"
        stamp = written.stat().st_mtime_ns
        assert "0 slides converted; 3 were there already" in mil(*arguments, cwd=folder).stdout
        assert written.stat().st_mtime_ns == stamp
        written.unlink()
        assert "1 slide converted" in mil(*arguments, cwd=folder).stdout
        assert "3 slides converted" in mil(*arguments, "--overwrite", cwd=folder).stdout


def test_another_bag_in_the_place_is_not_replaced(folder, mil):
    to_stamp(folder)
    take_in = ["convert", "stamp", "--out", "back", "--slide-mpp", "0.25"]
    mil(*take_in, cwd=folder)
    before = (folder / "back" / "a.h5").read_bytes()
    with h5py.File(folder / "stamp" / "a.h5", "r+") as file:
        file["feats"][0] = 7
    done = mil(*take_in, cwd=folder, check=False)
    assert done.returncode == 1
    assert "back/a.h5 has other content. Set --overwrite" in done.stderr
    assert "1 of 3 files failed" in done.stderr
    assert (folder / "back" / "a.h5").read_bytes() == before
    mil(*take_in, "--overwrite", cwd=folder)
    assert (read_bag(folder / "back" / "a.h5").features[0] == 7).all()


def test_a_file_of_another_kind_in_the_place_is_not_replaced(folder, mil):
    to_stamp(folder)
    (folder / "back").mkdir()
    (folder / "back" / "d.h5").write_bytes(b"mine")
    arguments = ["convert", "stamp/d.h5", "--out", "back", "--slide-mpp", "0.25"]
    assert "d.h5 has other content" in mil(*arguments, cwd=folder, check=False).stderr
    assert (folder / "back" / "d.h5").read_bytes() == b"mine"


def test_bags_of_another_recipe_do_not_enter_a_store(folder, mil):
    to_stamp(folder)
    take_in = ["convert", "stamp/a.h5", "--slide-mpp", "0.25"]
    mil(*take_in, "--out", "back", cwd=folder)
    with h5py.File(folder / "stamp" / "d.h5", "r+") as file:
        file.attrs["extractor"] = "uni"
    for inputs in ("stamp/d.h5", "stamp"):
        arguments = ["convert", inputs, "--out", "back", "--slide-mpp", "0.25"]
        done = mil(*arguments, cwd=folder, check=False)
        assert done.returncode == 1
        assert "its recipe differs from bag a of the store (backbone)" in done.stderr
    assert files(folder / "back") == ["a.h5", "b.c.h5"]


def test_every_bad_file_is_named_and_costs_no_other(folder, mil):
    to_stamp(folder)
    place = folder / "stamp"
    with h5py.File(place / "empty.h5", "w") as file:
        file.update({"feats": np.zeros((0, 5)), "coords": np.zeros((0, 2))})
        file.attrs.update(unit="um", tile_size_um=112.0, tile_size_px=224)
    (place / "cut.h5").write_bytes((place / "a.h5").read_bytes()[:900])
    (place / "notes.csv").write_text("who,what\n")
    arguments = ["convert", "stamp", "absent.h5", "--out", "back", "--slide-mpp", "0.25"]
    done = mil(*arguments, cwd=folder, check=False)
    assert done.returncode == 1
    assert "3 slides converted" in done.stdout
    told = done.stderr.strip().splitlines()
    assert len(told) == 5
    for name in (
        "empty.h5: the slide has no tiles",
        "cut.h5",
        "notes.csv",
        "absent.h5: no such file",
    ):
        assert any(name in line for line in told), name
    assert told[-1] == "4 of 7 files failed."
    assert files(folder / "back") == ["a.h5", "b.c.h5", "d.h5"]


def test_scale_of_a_slide_below_the_folder_is_taken_and_of_two_namesakes_is_not(folder, mil):
    to_stamp(folder)
    for number, name in enumerate(("a", "d")):
        place = folder / "slides" / f"site-{number}" / f"{name}.tiff"
        place.parent.mkdir(parents=True)
        write_tiff(place, [stained(1200, 5000)], mpp=0.25)
    (folder / "slides" / "d.tiff").symlink_to(place)
    arguments = ["convert", "stamp/a.h5", "stamp/d.h5", "--out", "back", "--slides", "slides"]
    done = mil(*arguments, cwd=folder, check=False)
    assert read_bag(folder / "back" / "a.h5").size_l0 == (5000, 1200)
    assert "d: slides/d.tiff and slides/site-1/d.tiff have this name" in done.stderr
    assert not (folder / "back" / "d.h5").exists()


def test_a_missing_scale_is_one_line_with_the_remedy(folder, mil):
    to_stamp(folder)
    done = mil("convert", "stamp/a.h5", "--out", "back", cwd=folder, check=False)
    assert done.returncode == 1
    assert "Set --slide-mpp, e.g. 0.25" in done.stderr
    assert not (folder / "back").exists()


def test_a_bag_is_copied_and_said_to_be_one(folder, mil):
    done = mil("convert", "store/a.h5", "--out", "copy", cwd=folder)
    assert "a: A bag already, copied unchanged." in done.stdout
    assert read_request(folder / "copy" / "a.h5") == "asked"
    write_bag(folder / "store" / "a.h5", bag("a", 99))  # other features, the same request
    again = mil("convert", "store/a.h5", "--out", "copy", cwd=folder, check=False)
    assert "copy/a.h5 has other content" in again.stderr


def test_what_is_no_bag_is_not_exported(folder, mil):
    to_stamp(folder)
    done = mil("convert", "stamp/a.h5", "--to", "clam", "--out", "x", cwd=folder, check=False)
    assert done.returncode == 1
    assert "a stamp file, not a bag" in done.stderr


def test_remarks_are_said_once_for_all_slides(folder, mil):
    for name in ("a", "b.c", "d"):
        write_clam(folder / "clam", read_bag(folder / "store" / f"{name}.h5"))
    for path in (folder / "clam" / "h5_files").iterdir():
        with h5py.File(path, "r+") as file:
            file["coords"].attrs.update(
                patch_size_level0=448, level0_magnification=40, target_magnification=20
            )
    done = mil("convert", "clam/h5_files", "--out", "back", cwd=folder)
    [line] = [line for line in done.stdout.splitlines() if "nominal" in line]
    assert line.strip().startswith("a and 2 more:")


def test_the_choices_are_those_of_the_library():
    hints = typing.get_type_hints(ConvertOptions)
    assert choices_of(hints["layout"]) == ("auto", *LAYOUTS)
    assert sorted(choices_of(hints["to"])) == sorted(WRITABLE)
    assert choices_of(hints["unit"]) == UNITS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["store", "--out", "x", "--to", "trident"],
            "--to is stamp or clam; got 'trident'. Choose one of them.",
        ),
        (["store", "--out", "x", "--from", "stmp"], "got 'stmp'. Did you mean 'stamp'?"),
        (["store", "--out", "x", "--to", "stamp", "--slide-mpp", "0.5"], "leave out"),
        (["store", "--out", "x", "--slide-mpp", "0"], "--slide-mpp must be a positive number"),
        (
            ["store", "--out", "x", "--unit", "mm"],
            "--unit is px, um or tile; got 'mm'. Choose one of them.",
        ),
        (["store", "--out", "x", "--slides", "absent"], "no such folder"),
        (["store", "--out", "store/../store"], "holds the files to convert"),
        (["empty", "--out", "x"], "holds no .h5"),
        (["store", "twin", "--out", "x"], "are both slide a"),
    ],
)
def test_wrong_use_is_one_line_and_ends_with_2(folder, mil, arguments, message):
    (folder / "empty").mkdir()
    (folder / "twin").mkdir()
    shutil.copy(folder / "store" / "a.h5", folder / "twin" / "a.svs.h5")
    before = files(folder)
    done = mil("convert", *arguments, cwd=folder, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert files(folder) == before


@pytest.mark.realdata
def test_real_files_with_the_slides_own_scale_and_size(realdata, tmp_path, mil):
    path = realdata / "bags" / "CMU-1-Small-Region-resnet50.npz"
    shutil.copy(path, tmp_path / "CMU-1-Small-Region.npz")
    arguments = ["--tile-l0", "256", "--encoder", "resnet50"]
    slides = ["--slides", realdata / "slides"]
    npz = "CMU-1-Small-Region.npz"
    done = mil("convert", npz, "--out", "store", *arguments, *slides, cwd=tmp_path)
    assert "reach over the slide's edge" in done.stdout
    bag = read_bag(tmp_path / "store" / "CMU-1-Small-Region.h5")
    assert (bag.size_l0, bag.mpp_source, bag.mpp_l0) == ((2220, 2967), "file", (0.499, 0.499))
    stamp = realdata / "bags" / "stamp-TCGA-AD-6964.h5"
    done = mil("convert", stamp, "--out", "other", *slides, check=False, cwd=tmp_path)
    assert "no such slide in the folder of slides" in done.stderr


def test_slideflows_folder_is_read_with_its_config(tmp_path, mil):
    (tmp_path / "bags").mkdir()
    torch.save(torch.ones(3, 2), tmp_path / "bags" / "s.pt")
    np.savez(tmp_path / "bags" / "s.index.npz", np.array([[512, 512], [1024, 512], [1536, 512]]))
    told = {"extractor": {"class": "a.b.ctranspath"}, "tile_px": 256, "tile_um": 128}
    (tmp_path / "bags" / "bags_config.json").write_text(json.dumps(told))
    mil("convert", "bags", "--out", "store", "--slide-mpp", "0.25", cwd=tmp_path)
    assert read_bag(tmp_path / "store" / "s.h5").coords_l0[0].tolist() == [256, 256]


def test_one_reason_for_many_files_is_one_line():
    reasons = [f"store/{n}.npz: no coordinates. Set them." for n in range(200)] + ["b.csv: no x."]
    assert grouped(reasons) == [
        "store/0.npz: no coordinates. Set them. (and 199 more files)",
        "b.csv: no x.",
    ]
    assert grouped(reasons[:2]) == ["store/0.npz: no coordinates. Set them. (and one more file)"]


def test_messages_name_the_options_for_tiles_and_their_scale(tmp_path, mil):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["feats"] = np.ones((3, 4), np.float16)
        file["coords"] = np.arange(6, dtype=np.float32).reshape(3, 2)
        file.attrs.update({"unit": "um", "extractor": "uni"})
    for options, missing in (
        ((), "Set --tile, e.g. 224"),
        (("--tile", "64"), "Set --mpp to the scale"),
    ):
        done = mil(
            "convert",
            "s.h5",
            "--out",
            "o",
            "--slide-mpp",
            "0.5",
            *options,
            cwd=tmp_path,
            check=False,
        )
        assert missing in " ".join(done.stderr.split())


def test_columns_that_became_features_are_printed_and_others_refused(tmp_path, mil):
    rows = [
        f"{bag},{i % 2},{i * 0.37 % 1:.3f},{i * 0.61 % 1:.3f}" for i, bag in enumerate("aaabbbccc")
    ]
    (tmp_path / "t.csv").write_text("\n".join(["slide,cancer,hue,size", *rows]))
    done = mil("convert", "t.csv", "--out", "store", cwd=tmp_path, check=False)
    assert done.returncode == 1
    reason = " ".join(done.stderr.split())
    assert "column 'cancer' (an outcome, by its name) is no feature" in reason
    assert "if it is one, set --feature-columns to its name" in reason
    take = ["convert", "t.csv", "--out", "store", "--feature-columns", "can*"]
    done = mil(*take, cwd=tmp_path)
    assert "3 slides converted, 9 tiles, 3 features each" in done.stdout
    assert "Features are the columns cancer, hue, size." in done.stdout


def test_vectors_are_counted_as_vectors(tmp_path, mil):
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", np.arange(7.0) + 1)
    done = mil("convert", "a.npz", "b.npz", "--out", "store", cwd=tmp_path)
    assert "2 slides converted, 2 vectors, 7 features each. Bags: store" in done.stdout
    assert "tiles" not in done.stdout
    assert "coverage" not in done.stdout
    assert read_bag(tmp_path / "store" / "b.h5").recipe["region"] == "vector"
