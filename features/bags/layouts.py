"""The table of the layouts that other tools store features in: how each is read, written and recognised.

Adding a layout is one row of ``LAYOUTS``, its reader in ``foreign_readers`` and, if bags can be written in
it, its writer in ``foreign_writers``.
"""

import contextlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from features.bags.bag import FORMAT, Bag
from features.bags.feature_tables import read_csv, read_csv_header
from features.bags.foreign_readers import (
    ForeignBag,
    SourceFacts,
    is_npz_vector,
    naming_errors,
    read_attributes,
    read_clam,
    read_npz,
    read_slideflow,
    read_stamp,
    read_trident,
    read_vector,
)
from features.bags.foreign_writers import write_clam, write_stamp
from features.errors import BagError
from features.files.access import READ_ERRORS
from features.files.hdf5 import open_hdf5

NATIVE = "mil"


@dataclass(frozen=True)
class Layout:
    """How one tool stores the features of a slide.

    Attributes:
        tool: its name as it writes it.
        read: the features of one file.
        write: puts a bag into a folder; None if bags cannot be written in this layout.
        written: the file of a slide in that folder; of several, the one that is written last.
    """

    tool: str
    read: Callable[[Path, SourceFacts], ForeignBag]
    write: Callable[[Path, Bag], None] | None = None
    written: str = "{slide}.h5"

    def path(self, folder: Path, slide: str) -> Path:
        """The file that shows that a slide has been written into a folder."""
        return folder / self.written.format(slide=slide)


def _write_stamp_file(folder: Path, bag: Bag) -> None:
    write_stamp(folder / f"{bag.slide}.h5", bag)


LAYOUTS = {
    "trident": Layout("TRIDENT", read_trident),
    "clam": Layout("CLAM", read_clam, write_clam, "h5_files/{slide}.h5"),
    "stamp": Layout("STAMP", read_stamp, _write_stamp_file),
    "slideflow": Layout("slideflow", read_slideflow),
    "npz": Layout("npz", read_npz),
    "csv": Layout("csv", read_csv),
    "vector": Layout("a slide encoder", read_vector),
}
WRITABLE = tuple(name for name, layout in LAYOUTS.items() if layout.write)


def detect_layout(path: Path) -> str:
    """The layout of a file by its content: one of ``LAYOUTS``, or ``mil`` for a bag of this library.

    Raises:
        BagError: there is no such file, or it has no features of a known layout.
    """
    with naming_errors(path):
        if not path.is_file():
            raise BagError(f"{path}: no such file. Check the path.")
        if h5py.is_hdf5(path):
            return _detect_hdf5_layout(path)
        members = _zip_members(path)
        if any(name.endswith("data.pkl") for name in members) or _starts_with(path, b"\x80\x02"):
            return "slideflow" if path.with_suffix(".index.npz").is_file() else "clam"
        if members and all(name.endswith(".npy") for name in members):
            return "vector" if is_npz_vector(path) else "npz"
        with contextlib.suppress(BagError):
            read_csv_header(path)
            return "csv"
    raise BagError(
        f"{path}: not features of {', '.join(LAYOUTS)}. A table of features needs a header with x and y."
    )


def is_bag(path: Path) -> bool:
    """Whether a file is a bag of this library, even if it could be read as another layout too."""
    with naming_errors(path):
        if not path.is_file() or not h5py.is_hdf5(path):
            return False
        with open_hdf5(path) as file:
            return bool(file.attrs.get("format") == FORMAT)


def _detect_hdf5_layout(path: Path) -> str:
    with open_hdf5(path) as file:
        if file.attrs.get("format") == FORMAT:
            return NATIVE
        stated = "feat_type" in read_attributes(file)
        for name in ("features", "feats"):
            shape = file[name].shape if name in file and not stated else (0, 0)
            if len(shape) == 1 or (shape[0] == 1 and "coords" not in file):
                return "vector"
        if "feats" in file or "patch_embeddings" in file:
            return "stamp"
        if "features" in file:
            return "trident" if "patch_size_level0" in read_attributes(file) else "clam"
        raise BagError(
            f"{path}: contains {', '.join(file) or 'nothing'} but no features. A file of coordinates alone "
            "belongs into patches, beside a file of features."
        )


def _zip_members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return file.namelist()
    except READ_ERRORS:
        return []


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
