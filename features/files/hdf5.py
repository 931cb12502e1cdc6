"""HDF5 files: read without locks, and only if all their data lie in them."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from features.errors import BagError


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    No lock is taken: files of features are written whole and then renamed, and many shares have no locks.
    A file that refers to data elsewhere is refused: it would show the numbers of another file, which may
    have changed or be any file of the machine.

    Raises:
        BagError: a part of it lies in another file, or a link in it leads nowhere.
        OSError: it is no HDF5 file, is damaged, or cannot be reached.
    """
    with h5py.File(path, "r", locking=False) as file:
        _check_self_contained(path, file)
        yield file


@contextlib.contextmanager
def create_hdf5(path: Path) -> Iterator[Any]:
    """Create an HDF5 file to be filled.

    Raises:
        OSError: the disk is full; only after HDF5 has closed the file.
    """
    with _DeferredErrors(path, "w+b") as target, contextlib.ExitStack() as closing:
        closing.callback(target.raise_error)
        # From 1.10 on, HDF5 stores checksums of its own structure, so that a damaged file is refused.
        yield closing.enter_context(h5py.File(target, "w", libver=("v110", "v110")))


def _check_self_contained(path: Path, file: Any) -> None:
    groups, seen = [file], {_address(file)}
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                _refuse(path, name, f"is a link to {link.filename}")
            try:
                item = group[name]
            except (KeyError, OSError, RuntimeError) as error:
                raise BagError(
                    f"{path}: its {name} is a link that leads nowhere or in a circle. Write the file again, "
                    "with the data themselves in it."
                ) from error
            if isinstance(item, h5py.Dataset):
                _check_stored_here(path, name, item)
            elif isinstance(item, h5py.Group) and _address(item) not in seen:
                seen.add(_address(item))
                groups.append(item)


def _check_stored_here(path: Path, name: str, dataset: Any) -> None:
    if dataset.external:
        _refuse(path, name, f"is stored in {dataset.external[0][0]}")
    if dataset.is_virtual:
        sources = sorted({source.file_name for source in dataset.virtual_sources()})
        _refuse(path, name, f"is put together from {', '.join(sources) or 'other datasets'}")


def _refuse(path: Path, name: str, where: str) -> None:
    raise BagError(
        f"{path}: its dataset {name} {where}, outside of the file. Only data in the file itself are read: "
        "copy them into it, or extract the slide again."
    )


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


class _DeferredErrors(io.FileIO):
    """A file for HDF5 to write to; a failed write is reported only after HDF5 has closed it.

    HDF5 does not handle a full disk well: an error while it writes may end the process.
    """

    error: OSError | None = None

    def raise_error(self) -> None:
        """Raise the first error of writing, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        """Write all of it, or store the error."""
        unwritten = memoryview(data).cast("B")
        while unwritten and self.error is None:
            try:
                unwritten = unwritten[super().write(unwritten) :]
            except OSError as error:
                self.error = error
        return len(memoryview(data).cast("B"))

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or store the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0
