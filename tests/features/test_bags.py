import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.bags import bag as bags
from features.bags.arrays import compact
from features.bags.bag import Bag, read_bag, read_request, validate_bag, write_bag
from features.errors import BagError
from features.files import atomic as whole
from features.files.checksum import fingerprint

RECIPE = {"backbone": "resnet18.tv_in1k", "precision": "fp32", "weights": "random", "tile": 224}


def bag(n=7, dim=5, dtype=np.float32, **changes):
    rng = np.random.default_rng(n)
    made = Bag(
        slide="case.1 Ö",
        features=rng.normal(size=(n, dim)).astype(dtype),
        coords_l0=rng.integers(0, 200_000, (n, 2)),
        coverage=rng.random(n).astype(np.float32),
        side_l0=(443.2132, 446.5),
        size_l0=(103_041, 99_001),
        mpp_l0=(0.2527, 0.2508),
        mpp_source="file",
        tile_px=224,
        target_mpp=0.5,
        recipe=RECIPE,
        request_sha256="asked",
        annotation_sha256="drawn",
        case="P-1",
        trained_on=("P-7", "P-8"),
        thumbnail=b"\xff\xd8jpeg\x00",
        tile_flags=rng.integers(0, 8, n).astype(np.uint8),
        n_failed=2,
        tumour_of_tissue=0.75,
        annotation_origin="bounds",
        reader="openslide",
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def path(tmp_path):
    write_bag(tmp_path / "s.h5", bag())
    return tmp_path / "s.h5"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("n", [1, 7, 300])
def test_round_trip_is_bit_for_bit(tmp_path, n, dtype):
    made = bag(n, dtype=dtype)
    write_bag(tmp_path / "s.h5", made)
    read = read_bag(tmp_path / "s.h5")
    for field in dataclasses.fields(Bag):
        before, after = getattr(made, field.name), getattr(read, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype, field.name
            assert before.tobytes() == after.tobytes(), field.name
        else:
            assert before == after, field.name


def test_writing_twice_gives_the_same_bytes(tmp_path, path):
    write_bag(tmp_path / "t.h5", bag())
    assert (tmp_path / "t.h5").read_bytes() == path.read_bytes()


def test_features_stay_on_disk_until_touched(path):
    assert isinstance(read_bag(path).features, np.memmap)


def test_trident_reads_it(path):
    with h5py.File(path) as file:
        assert np.array_equal(file["features"][:], bag().features)
        assert file["features"].attrs["encoder"] == "resnet18.tv_in1k"
        assert np.array_equal(file["coords"][:], bag().coords_l0)
        attrs = dict(file["coords"].attrs)
    expected = {
        "patch_size": 224,
        "patch_size_level0": 443,
        "level0_magnification": 39.57,
        "target_magnification": 20.0,
        "overlap": 0,
        "name": "case.1 Ö",
        "savetodir": "",
        "level0_width": 103_041,
        "level0_height": 99_001,
        "level0_mpp_x": 0.2527,
        "level0_mpp_y": 0.2508,
        "mpp_source": "file",
        "target_mpp": 0.5,
    }
    assert expected.items() <= attrs.items()
    assert attrs["patch_size_level0_exact"].tolist() == [443.2132, 446.5]


def test_clam_reads_it(path):
    with h5py.File(path) as file:
        features, coords = file["features"][:], file["coords"][:]
    assert (features.shape, coords.shape) == ((7, 5), (7, 2))
    assert coords.dtype == np.int64


def test_stamp_cannot_take_pixels_for_micrometres(path):
    with h5py.File(path) as file:
        assert "feats" not in file
        assert "unit" not in file.attrs


@pytest.mark.parametrize("name", ["features", "coords", "coverage", "tile_flags"])
def test_arrays_are_contiguous_and_uncompressed(path, name):
    with h5py.File(path) as file:
        assert file[name].chunks is None
        assert file[name].compression is None


def test_root_says_what_the_bag_is(path):
    with h5py.File(path) as file:
        root = dict(file.attrs)
    assert (root["format"], root["format_version"], root["complete"]) == ("mil-bag", 1, 1)
    assert (root["slide"], root["case"], root["n_tiles"]) == ("case.1 Ö", "P-1", 7)
    assert json.loads(root["recipe"]) == RECIPE
    assert root["recipe_sha256"] == fingerprint(RECIPE)


def test_fingerprint_does_not_depend_on_order_but_on_every_value():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"a": 1, "b": 3})


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([[0.5, 1.25], [3.0, -2.0]], np.float16),  # exact
        ([[0.1, 0.2], [1e-9, 7.3]], np.float16),  # one tiny value among usual ones
        ([[0.0, 0.0]], np.float16),
        ([[65504.0, 1.0]], np.float16),  # the largest there is
        ([[65520.0, 1.0]], np.float32),  # rounds to infinity
        ([[70000.0, 1.0]], np.float32),
        ([[1e20, 1.0]], np.float32),  # its square is infinite in float32
        ([[1e-6, 3e-7]], np.float32),  # too few digits left
        ([[1e-9, 1e-9]], np.float32),  # nothing left
    ],
)
def test_half_precision_only_where_it_keeps_the_features(values, dtype):
    features = np.array(values, np.float32)
    kept = compact(features)
    assert kept.dtype == dtype
    if dtype is np.float32:
        assert np.array_equal(kept, features)
    else:
        error = np.linalg.norm(kept.astype(float) - features)
        assert error <= 1e-3 * np.linalg.norm(features.astype(float))


@pytest.mark.parametrize(
    "change",
    [
        {"features": np.zeros((7, 5), np.float32) * np.nan},
        {"features": np.full((7, 5), np.inf, np.float32)},
        {"features": np.zeros((6, 5), np.float32)},
        {"features": np.zeros(7, np.float32)},
        {"coords_l0": np.zeros((6, 2), int)},
        {"coords_l0": np.zeros((7, 3), int)},
        {"coverage": np.zeros(6, np.float32)},
        {
            "features": np.zeros((0, 5), np.float32),
            "coords_l0": np.zeros((0, 2), int),
            "coverage": np.zeros(0, np.float32),
        },
    ],
)
def test_arrays_that_do_not_belong_together_are_not_written(tmp_path, change):
    with pytest.raises(BagError):
        write_bag(tmp_path / "s.h5", bag(**change))
    assert list(tmp_path.iterdir()) == []


def assert_broken(path):
    for action in (read_bag, validate_bag):
        with pytest.raises(BagError, match=r"s\.h5") as caught:
            action(path)
        assert "xtract" in str(caught.value)
    assert read_request(path) is None


def test_missing_bag_is_refused(tmp_path):
    assert_broken(tmp_path / "s.h5")


@pytest.mark.parametrize("content", [b"", b"hello" * 300, b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_is_not_hdf5_is_refused(path, content):
    path.write_bytes(content)
    assert_broken(path)


def test_zeroed_file_is_refused(path):
    path.write_bytes(bytes(path.stat().st_size))
    assert_broken(path)


def test_cut_file_is_refused_at_every_length(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert_broken(path)
    path.write_bytes(whole[:-1])
    assert_broken(path)


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


@pytest.mark.parametrize("attribute", ["complete", "format", "format_version", "n_tiles"])
def test_bag_without_its_seal_is_refused(path, attribute):
    edit(path, lambda file: file.attrs.__delitem__(attribute))
    assert_broken(path)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("trained_on", "[]"),
        ("case", "another"),
        ("recipe", "{}"),
        ("source_sha256", "0"),
        ("data_sha256", "0"),
        ("facts_sha256", "0"),
    ],
)
def test_a_bag_whose_facts_were_edited_is_refused(path, attribute, value):
    edit(path, lambda file: file.attrs.__setitem__(attribute, value))
    with pytest.raises(
        BagError, match=r"has changed since it was written\. Extract the slide again"
    ):
        read_bag(path)


def test_a_bag_from_before_facts_were_sealed_is_read(path):
    edit(path, lambda file: file.attrs.__delitem__("facts_sha256"))
    assert read_bag(path).slide == bag().slide
    validate_bag(path)


def test_other_hdf5_file_is_refused(path):
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros((3, 2))
        file["coords"] = np.zeros((3, 2))
    assert_broken(path)


def test_bag_of_a_newer_version_is_refused(path):
    edit(path, lambda file: file.attrs.update(format_version=2))
    with pytest.raises(BagError, match="Upgrade sarcomil"):
        read_bag(path)
    assert read_request(path) is None


@pytest.mark.parametrize("name", ["features", "coords", "coverage", "tile_flags"])
def test_missing_array_is_refused(path, name):
    edit(path, lambda file: file.__delitem__(name))
    assert_broken(path)


@pytest.mark.parametrize("name", ["features", "coords", "coverage", "tile_flags"])
def test_wrong_number_of_rows_is_refused(path, name):
    def shorten(file):
        rows = file[name][:-1]
        attrs = dict(file[name].attrs)
        del file[name]
        file[name] = rows
        file[name].attrs.update(attrs)

    edit(path, shorten)
    assert_broken(path)


def test_features_that_are_not_finite_do_not_validate(path):
    edit(path, lambda file: file["features"].__setitem__((2, 3), np.nan))
    with pytest.raises(BagError, match="not finite"):
        validate_bag(path)
    assert read_request(path) is None


def test_damage_to_the_files_structure_is_seen(path):
    """Files written before HDF5 1.10's checksums let some of these pass, or end the process."""
    whole = path.read_bytes()
    with h5py.File(path) as file:
        header = file["coords"].id.get_offset()
    for at in range(0, 48):  # the superblock
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        assert_broken(path)
    assert header > 48


def test_request_of_a_complete_bag_is_what_it_answers(path):
    assert read_request(path) == "asked"


def test_chunked_bag_of_another_tool_is_read(path):
    def chunk(file):
        rows = file["features"][:]
        del file["features"]
        file.create_dataset("features", data=rows, chunks=(1, 5), compression="gzip")

    edit(path, chunk)
    assert np.array_equal(read_bag(path).features, bag().features)


def raising(error):
    def raise_error(*args, **kwargs):
        raise error

    return raise_error


STEPS = [
    (bags, "_fill_hdf5", OSError("no memory")),
    (whole.os, "fsync", OSError("disk gone")),
    (bags, "validate_bag", BagError("not whole")),
    (Path, "replace", OSError("read-only")),
    (whole.os, "fsync", KeyboardInterrupt()),
]


@pytest.mark.parametrize(("owner", "step", "error"), STEPS)
def test_failure_at_any_step_leaves_nothing(tmp_path, monkeypatch, owner, step, error):
    monkeypatch.setattr(owner, step, raising(error))
    with pytest.raises(type(error)):
        write_bag(tmp_path / "s.h5", bag())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("owner", "step", "error"), STEPS)
def test_failure_at_any_step_leaves_the_old_bag(path, monkeypatch, owner, step, error):
    before = path.read_bytes()
    monkeypatch.setattr(owner, step, raising(error))
    with pytest.raises(type(error)):
        write_bag(path, bag(9))
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_new_bag_takes_the_place_of_the_old(path):
    write_bag(path, bag(9))
    assert len(read_bag(path)) == 9


def run(folder, code):
    """Write a bag in a process of its own, which ``code`` has prepared."""
    script = "import os, resource, signal\nfrom test_bags import *\n" + textwrap.dedent(code)
    script += "\nwrite_bag(Path('s.h5'), bag(2000, 100))\n"
    places = [Path(__file__).parent, Path(__file__).parents[2]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


KILL = "lambda *args: os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    "prepare",
    [f"whole.os.fsync = {KILL}", f"bags.validate_bag = {KILL}", f"Path.replace = {KILL}"],
)
def test_killed_while_writing_leaves_nothing_that_counts(tmp_path, prepare):
    done = run(tmp_path, prepare)
    assert done.returncode == -9, done.stderr
    assert list(tmp_path.glob("*.h5")) == []
    assert read_request(tmp_path / "s.h5") is None
    write_bag(tmp_path / "s.h5", bag())
    assert read_request(tmp_path / "s.h5") == "asked"


@pytest.mark.parametrize("limit", [0, 1, 100, 2_000, 50_000, 400_000, 799_999, 815_000, 830_000])
def test_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, limit):
    done = run(tmp_path, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "OSError: [Errno 27] File too large"
    assert "Exception ignored" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_big_bag_is_written_in_little_memory(tmp_path):
    """40 MB of features that are made as they are asked for cost less than half of that."""
    code = """
    class Made:
        shape, ndim, dtype = (20_000, 500), 2, np.dtype(np.float32)
        def __len__(self):
            return 20_000
        def __getitem__(self, part):
            return np.ones((len(range(20_000)[part]), 500), np.float32)
        def astype(self, dtype):
            return self
    made = dataclasses.replace(bag(20_000, 1), features=Made())
    write_bag(Path('small.h5'), bag())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compact(made.features)
    write_bag(Path('big.h5'), made)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = run(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) < 20_000
    assert (read_bag(tmp_path / "big.h5").features == 1).all()


def test_enough_room_is_enough(tmp_path):
    done = run(tmp_path, "resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, 900_000))")
    assert done.returncode == 0, done.stderr
    assert len(read_bag(tmp_path / "s.h5")) == 2000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission"):
        write_bag(tmp_path / "s.h5", bag())
    tmp_path.chmod(0o700)
