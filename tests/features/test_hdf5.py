"""HDF5 files that refer to data elsewhere, and files that the system does not let be read."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_bags import bag

from features.bags.bag import read_bag, read_request, validate_bag, write_bag
from features.bags.foreign_readers import SourceFacts
from features.bags.interchange import read_foreign
from features.bags.layouts import detect_layout, is_bag
from features.errors import BagError
from features.files.access import access_problem

FACTS = SourceFacts(slide_mpp=(0.5, 0.5), tile_px=224, target_mpp=0.5)


def move_away(file, name, way):
    """Replace a dataset by one of the same numbers that lie somewhere else."""
    values, attributes = file[name][:], dict(file[name].attrs)
    folder = Path(file.filename).parent
    del file[name]
    if way == "external link":
        with h5py.File(f"{folder}/other.bin", "a") as other:
            other[name] = values
            other[name].attrs.update(attributes)
        file[name] = h5py.ExternalLink("other.bin", f"/{name}")
        return
    if way == "link to a group elsewhere":
        with h5py.File(f"{folder}/other.bin", "a") as other:
            other[f"deep/{name}"] = values
        file["aside"] = h5py.ExternalLink("other.bin", "/deep")
        file[name] = h5py.SoftLink(f"/aside/{name}")
        return
    if way == "raw file":
        values.tofile(f"{folder}/raw.bin")
        place = [(f"{folder}/raw.bin", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, values.shape, values.dtype, external=place)
    else:
        with h5py.File(f"{folder}/other.bin", "a") as other:
            other[name] = values
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[...] = h5py.VirtualSource(f"{folder}/other.bin", name, values.shape)
        file.create_virtual_dataset(name, layout)
    file[name].attrs.update(attributes)


WAYS = ("external link", "link to a group elsewhere", "raw file", "virtual")
READERS = (
    read_bag,
    validate_bag,
    is_bag,
    detect_layout,
    lambda path: read_foreign(path, layout="trident", facts=FACTS),
)


@pytest.mark.parametrize("name", ["features", "coords", "coverage", "tile_flags", "thumbnail"])
@pytest.mark.parametrize("way", WAYS)
def test_data_in_another_file_are_refused_by_every_reader(tmp_path, name, way):
    path = tmp_path / "a.h5"
    write_bag(path, bag())
    with h5py.File(path, "r+") as file:
        move_away(file, name, way)
    for read in READERS:
        with pytest.raises(BagError, match=r"outside of the file\. .*copy them into it"):
            read(path)
    assert read_request(path) is None


@pytest.mark.parametrize("name", ["features", "feats", "coords"])
@pytest.mark.parametrize("way", WAYS)
def test_data_of_another_tool_in_another_file_are_refused(tmp_path, name, way):
    path = tmp_path / "a.h5"
    other = "feats" if name == "feats" else "features"
    with h5py.File(path, "w") as file:
        file[other], file["coords"] = np.ones((3, 4), np.float32), np.zeros((3, 2), np.int64)
        move_away(file, name, way)
    with pytest.raises(BagError, match=r"outside of the file"):
        read_foreign(path, facts=FACTS)


@pytest.mark.parametrize("target", ["/a", "/b", "/nowhere", "/coords/x"])
def test_links_in_a_circle_or_to_nothing_are_refused(tmp_path, target):
    path = tmp_path / "a.h5"
    write_bag(path, bag())
    with h5py.File(path, "r+") as file:
        file["a"], file["b"] = h5py.SoftLink(target), h5py.SoftLink("/a")
    with pytest.raises(BagError, match="a link that leads nowhere or in a circle"):
        read_bag(path)


def test_links_within_the_file_are_followed_and_groups_in_a_circle_end(tmp_path):
    path = tmp_path / "a.h5"
    write_bag(path, bag())
    with h5py.File(path, "r+") as file:
        file["moved"] = file["features"]
        del file["features"]
        file["features"] = h5py.SoftLink("/moved")
        file.create_group("g")["again"] = file["/"]
    assert np.array_equal(read_bag(path).features, bag().features)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EAGAIN, errno.EWOULDBLOCK])
def test_a_file_system_without_locks_does_not_matter(tmp_path, monkeypatch, number):
    path = tmp_path / "a.h5"
    write_bag(path, bag())
    opened = h5py.File

    def refusing(name, mode="r", **options):
        if options.get("locking") is not False and not hasattr(name, "read"):
            raise OSError(number, "unable to lock file")
        return opened(name, mode, **options)

    monkeypatch.setattr(h5py, "File", refusing)
    validate_bag(path)
    assert len(read_bag(path)) == len(bag())
    assert detect_layout(path) == "mil"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EBUSY, "is in use by another program"),
        (errno.EAGAIN, "is in use by another program"),
        (errno.ENOLCK, "lies on a file system without locks"),
        (errno.EACCES, "may not be read by this user"),
        (errno.EIO, "its disk or share did not answer"),
        (errno.ESTALE, "its disk or share did not answer"),
        (errno.EMFILE, "too many files are open"),
    ],
)
def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch, number, sentence):
    path, table = tmp_path / "a.h5", tmp_path / "a.csv"
    write_bag(path, bag())
    table.write_text("x,y,f0\n0,0,1\n")

    def refuse(name, *_, **__):
        raise OSError(number, os.strerror(number), str(name))

    monkeypatch.setattr(h5py, "File", refuse)
    for read in (read_bag, validate_bag, lambda p: read_foreign(p, layout="trident", facts=FACTS)):
        with pytest.raises(BagError, match=sentence) as caught:
            read(path)
        assert "a.h5" in str(caught.value)
        assert "again." not in str(caught.value).replace("try again.", "").lower()
    monkeypatch.setattr("pathlib.Path.open", refuse)
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(BagError, match=sentence):
        read_foreign(table, layout="csv", facts=FACTS)


def test_a_damaged_file_is_no_matter_of_access():
    assert access_problem(OSError("file signature not found")) == ""
    assert access_problem(ValueError("x")) == ""
    assert "no longer there" in access_problem(FileNotFoundError(errno.ENOENT, "gone"))
