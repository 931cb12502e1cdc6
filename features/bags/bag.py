"""The bag of one slide: its HDF5 layout, atomic writing and validated reading.

One HDF5 file per slide; TRIDENT, CLAM, Patho-Bench and torchmil readers open it unchanged.

    /features   (N, D) float16 or float32, contiguous  attrs encoder, name, savetodir, precision,
                                                       weights, weights_sha256
    /coords     (N, 2) int64, top-left, level 0        attrs patch_size, patch_size_level0,
                                                       patch_size_level0_exact, level0_magnification,
                                                       target_magnification, overlap, name, savetodir,
                                                       level0_width, level0_height, level0_mpp_x,
                                                       level0_mpp_y, mpp_source, target_mpp, bounds
    /coverage   (N,) float32, fraction of the tile inside the region
    /tile_flags (N,) uint8, flags of features.tiles.quality: 1 background, 2 blur, 4 pen
    /thumbnail  (bytes,) uint8, a JPEG of the whole slide, so that maps need no slide
    /volume     (bytes,) uint8, of slices of CT or MRI only: JSON of features.volumes.facts.VolumeFacts
    /           attrs format, format_version, slide, case, recipe, recipe_sha256, request_sha256,
                annotation_sha256, annotation_origin, trained_on, data_sha256, source_sha256, pixels_sha256,
                n_tiles, n_failed, tumour_of_tissue (NaN if unknown), reader, versions, merged_sources (of
                several slides only), volume_sha256 (of volumes only), complete (written last)
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.arrays import chunks, hash_arrays
from features.bags.record import FACTS_SHA256, making_versions, record_checksum
from features.errors import BagError
from features.files.access import READ_ERRORS, access_problem
from features.files.atomic import atomic_path
from features.files.checksum import fingerprint
from features.files.file_map import map_dataset
from features.files.hdf5 import create_hdf5, open_hdf5
from features.stored import check_version
from features.volumes.facts import VolumeFacts

FORMAT, FORMAT_VERSION = "mil-bag", 1
AXES = {"features": 2, "coords": 2, "coverage": 1, "tile_flags": 1}
Parts = Mapping[str, Any]  # of an open file, by name
PIXELS = "pixels-"  # begins fingerprints of decoded pixels, among those of files


@dataclass(frozen=True, kw_only=True)
class Bag:
    """The embedded tiles of one slide.

    Attributes:
        slide: its name.
        features: (N, D) float16 or float32: an array, or an object that returns one for a slice.
        coords_l0: (N, 2) int64, top-left (x, y) in level-0 pixels.
        coverage: (N,) float32, fraction of each tile inside the region.
        side_l0: (width, height) of a tile in level-0 pixels, not rounded.
        size_l0: (width, height) of the slide in level-0 pixels.
        mpp_l0: micrometres per level-0 pixel, (x, y).
        mpp_source: ``table``, ``option``, ``file``, ``given``, or ``magnification`` (nominal).
        tile_px: side of a tile as it was read.
        target_mpp: micrometres per pixel of a tile as it was read.
        recipe: all settings that shape features and are the same for all slides of a store.
        request_sha256: fingerprint of the recipe and of this slide's own inputs.
        annotation_sha256: of the annotation file; empty if tissue was used.
        source_sha256: fingerprint of the slide's files; equal for one slide under two names.
        pixels_sha256: fingerprint of its decoded pixels; equal for one slide in two files. Empty if unknown.
        case: if known at extraction.
        trained_on: cases the backbone, or a segmenter that chose the tiles, was trained on.
        trained_on_slides: fingerprints of their slides, as ``sources``; empty if not known.
        bounds_l0: (x, y) of the corner of the scanned area in level 0, the origin of QuPath's coordinates.
        thumbnail: JPEG bytes of the whole slide, or empty.
        tile_flags: (N,) uint8 of ``features.tiles.quality``; None stands for zeros.
        n_failed: tiles that could not be decoded and are not in the bag.
        tumour_of_tissue: fraction of the tissue inside the annotation; NaN if unknown.
        annotation_origin: the frame of the annotation, ``level0`` or ``bounds``; empty if none.
        reader: what decoded the tiles.
        merged_sources: fingerprints of further slides whose features are in the bag.
        volume: where its tiles lie in the patient, and the scan, if they are slices of CT or MRI.
    """

    slide: str
    features: NDArray[np.float16] | NDArray[np.float32] = field(repr=False)
    coords_l0: NDArray[np.int64] = field(repr=False)
    coverage: NDArray[np.float32] = field(repr=False)
    side_l0: tuple[float, float]
    size_l0: tuple[int, int]
    mpp_l0: tuple[float, float]
    mpp_source: str
    tile_px: int
    target_mpp: float
    recipe: Mapping[str, Any] = field(repr=False)
    request_sha256: str = ""
    annotation_sha256: str = ""
    source_sha256: str = ""
    pixels_sha256: str = ""
    case: str = ""
    trained_on: tuple[str, ...] = ()
    trained_on_slides: tuple[str, ...] = ()
    bounds_l0: tuple[int, int] = (0, 0)
    thumbnail: bytes = field(default=b"", repr=False)
    tile_flags: NDArray[np.uint8] | None = field(default=None, repr=False)
    n_failed: int = 0
    tumour_of_tissue: float = math.nan
    annotation_origin: str = ""
    reader: str = ""
    merged_sources: tuple[str, ...] = ()
    volume: VolumeFacts | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return int(self.features.shape[1])

    @cached_property
    def data_sha256(self) -> str:
        """Fingerprint of the arrays that learning reads: features, coordinates and coverage."""
        return hash_arrays(chunks(self.features), self.coords_l0, self.coverage)

    @property
    def sources(self) -> frozenset[str]:
        """Fingerprints of all slides whose features are in the bag, of files and of pixels, where known."""
        pixels = PIXELS + self.pixels_sha256 if self.pixels_sha256 else ""
        return frozenset({self.source_sha256, pixels, *self.merged_sources} - {""})

    @property
    def positions_mm(self) -> NDArray[np.float64] | None:
        """(N, 3) centres of its tiles in the patient (LPS), if they are slices of CT or MRI."""
        return self.volume.positions_of(self.coords_l0) if self.volume else None

    @property
    def recipe_sha256(self) -> str:
        """Fingerprint of the recipe: equal for all bags that may be used together."""
        return fingerprint(self.recipe)


def recipe_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The keys, sorted, whose values differ between two recipes."""
    return [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]


def write_bag(path: Path | str, bag: Bag) -> None:
    """Write a bag atomically: it appears complete or not at all.

    The file is written under a temporary name, validated, and then renamed. Features are copied in chunks.

    Raises:
        BagError: the arrays do not belong together or are not finite.
        OSError: the disk is full or not writable; nothing is left behind.

    Example:
        bag = features.read_bag("store/case-01-s1.h5")
        features.write_bag("copy/case-01-s1.h5", bag)
    """
    _check_arrays(bag)
    with atomic_path(Path(path)) as temporary:
        with create_hdf5(temporary) as file:
            _fill_hdf5(file, bag)
        validate_bag(temporary)


def read_bag(path: Path | str) -> Bag:
    """Read a bag; features stay on disk, mapped into memory, until they are used.

    Raises:
        BagError: the file is missing, is no bag, is incomplete, or its arrays differ in length.

    Example:
        bag = features.read_bag("store/case-01-s1.h5")
        print(bag.features.shape, bag.coords_l0.shape)  # (N, D), (N, 2)
    """
    path = Path(path)
    with _open_bag(path) as (arrays, root):
        return _bag_in(path, arrays, root)


def read_intact_bag(path: Path) -> Bag:
    """``validate_bag`` and ``read_bag`` in one."""
    with _open_bag(path) as (arrays, root):
        _check_data(path, arrays, root)
        return _bag_in(path, arrays, root)


def _bag_in(path: Path, arrays: Parts, root: Parts) -> Bag:
    """The bag of an open file with these arrays and attributes."""
    coords = arrays["coords"]
    geometry = dict(coords.attrs)
    side_l0 = geometry["patch_size_level0_exact"]
    return Bag(
        slide=str(root["slide"]),
        features=map_dataset(path, arrays["features"]),
        coords_l0=coords[:],
        coverage=arrays["coverage"][:],
        side_l0=(float(side_l0[0]), float(side_l0[1])),
        size_l0=(int(geometry["level0_width"]), int(geometry["level0_height"])),
        mpp_l0=(float(geometry["level0_mpp_x"]), float(geometry["level0_mpp_y"])),
        mpp_source=str(geometry["mpp_source"]),
        tile_px=int(geometry["patch_size"]),
        target_mpp=float(geometry["target_mpp"]),
        recipe=dict(json.loads(root["recipe"])),
        request_sha256=str(root["request_sha256"]),
        annotation_sha256=str(root["annotation_sha256"]),
        source_sha256=str(root["source_sha256"]),
        pixels_sha256=str(root.get("pixels_sha256", "")),
        case=str(root["case"]),
        trained_on=tuple(json.loads(root["trained_on"])),
        trained_on_slides=tuple(json.loads(root.get("trained_on_slides", "[]"))),
        bounds_l0=(int(geometry["bounds"][0]), int(geometry["bounds"][1])),
        thumbnail=arrays["thumbnail"][:].tobytes(),
        tile_flags=arrays["tile_flags"][:],
        n_failed=int(root["n_failed"]),
        tumour_of_tissue=float(root.get("tumour_of_tissue", math.nan)),
        annotation_origin=str(root.get("annotation_origin", "")),
        reader=str(root.get("reader", "")),
        merged_sources=tuple(json.loads(root.get("merged_sources", "[]"))),
        volume=_read_volume(path, arrays, root),
    )


def validate_bag(path: Path) -> None:
    """Check that a bag is complete and unchanged.

    Raises:
        BagError: it is not.
    """
    with _open_bag(path) as (arrays, root):
        _check_data(path, arrays, root)


def read_request(path: Path) -> str | None:
    """The fingerprint of the request that a bag was made for; None if there is no complete bag."""
    try:
        with _open_bag(path) as (arrays, root):
            _check_data(path, arrays, root)
            return str(root["request_sha256"])
    except BagError:
        return None


@contextlib.contextmanager
def _open_bag(path: Path) -> Any:
    """A complete bag's arrays and attributes, opened once; errors of a broken file become a BagError."""
    try:
        if not path.is_file():
            raise BagError(f"{path}: no such bag. Extract the slide first.")
        with open_hdf5(path) as file:
            root, arrays = dict(file.attrs), dict(file)
            _check_record(path, arrays, root)
            yield arrays, root
    except READ_ERRORS as error:
        if reason := access_problem(error):
            raise BagError(f"{path} {reason}") from error
        raise BagError(
            f"{path}: cannot be read as a bag ({error}). Extract the slide again."
        ) from error


def _check_record(path: Path, arrays: Parts, root: Parts) -> None:
    """Refuse a file whose root does not describe a complete bag, or whose arrays do not belong together."""
    if root.get("format") != FORMAT or root.get("complete") != 1:
        raise BagError(f"{path}: not a complete {FORMAT} file. Extract the slide again.")
    check_version(path, root["format_version"], FORMAT_VERSION, BagError)
    facts_sha256 = record_checksum(root)
    if root.get(FACTS_SHA256, facts_sha256) != facts_sha256:
        raise BagError(
            f"{path}: its record of slide, recipe and cases that its backbone was trained on has "
            "changed since it was written. Extract the slide again."
        )
    shapes = {name: arrays[name].shape for name in AXES}
    rows = {name: shape[0] for name, shape in shapes.items()}
    if set(rows.values()) != {root["n_tiles"]}:
        raise BagError(
            f"{path}: its record names {root['n_tiles']} tiles, its arrays have {rows}. "
            "Extract the slide again."
        )
    axes = {name: len(shape) for name, shape in shapes.items()}
    if axes != AXES or shapes["coords"][1] != 2:
        raise BagError(
            f"{path}: its arrays have {axes} axes and not {AXES}. Extract the slide again."
        )


def _check_data(path: Path, arrays: Parts, root: Parts) -> None:
    """Refuse features that are not finite, and arrays that are not those that were written."""
    features = arrays["features"]
    if not all(np.isfinite(chunk).all() for chunk in chunks(features)):
        raise BagError(f"{path}: features are not finite. Extract the slide again.")
    data_sha256 = hash_arrays(chunks(features), arrays["coords"][:], arrays["coverage"][:])
    if data_sha256 != root["data_sha256"]:
        raise BagError(
            f"{path}: its data have changed since it was written. Extract the slide again."
        )


def _read_volume(path: Path, arrays: Parts, root: Parts) -> VolumeFacts | None:
    """The facts of the volume that the tiles are slices of."""
    if "volume_sha256" not in root:
        return None
    text = arrays["volume"][:].tobytes()
    if hashlib.sha256(text).hexdigest() != root["volume_sha256"]:
        raise BagError(
            f"{path}: its positions have changed since it was written. Extract it again."
        )
    return VolumeFacts.from_json(text.decode())


def _check_arrays(bag: Bag) -> None:
    n_tiles = len(bag.features)
    matching = bag.coords_l0.shape == (n_tiles, 2) and bag.coverage.shape == (n_tiles,)
    matching &= bag.tile_flags is None or bag.tile_flags.shape == (n_tiles,)
    if bag.features.ndim != 2 or not matching or n_tiles == 0:
        raise BagError(
            f"{bag.slide}: features {bag.features.shape}, coords {bag.coords_l0.shape} and coverage "
            f"{bag.coverage.shape} have different lengths. Give (N, D), (N, 2) and (N,) with N >= 1."
        )
    if not all(np.isfinite(chunk).all() for chunk in chunks(bag.features)):
        raise BagError(
            f"{bag.slide}: features are not finite. Set precision to fp32, or use other weights."
        )


def _fill_hdf5(file: Any, bag: Bag) -> None:
    """Write a bag into an empty HDF5 file; ``complete`` is written last."""
    features = file.create_dataset("features", bag.features.shape, bag.features.dtype)
    start = 0
    for chunk in chunks(bag.features):
        features[start : start + len(chunk)] = chunk
        start += len(chunk)
    features.attrs.update(
        encoder=str(bag.recipe.get("backbone", "")),
        name=bag.slide,
        savetodir="",  # TRIDENT's field; a path of this machine is useless in a shared file
        precision=str(bag.recipe.get("precision", "")),
        weights=str(bag.recipe.get("weights", "")),
        weights_sha256=str(bag.recipe.get("weights_sha256", "")),
    )
    coords = file.create_dataset("coords", data=bag.coords_l0.astype(np.int64))
    coords.attrs.update(
        patch_size=bag.tile_px,
        patch_size_level0=round(bag.side_l0[0]),
        patch_size_level0_exact=bag.side_l0,
        level0_magnification=round(10 / bag.mpp_l0[0], 2),
        target_magnification=round(10 / bag.target_mpp, 2),
        overlap=0,
        name=bag.slide,
        savetodir="",
        level0_width=bag.size_l0[0],
        level0_height=bag.size_l0[1],
        level0_mpp_x=bag.mpp_l0[0],
        level0_mpp_y=bag.mpp_l0[1],
        mpp_source=bag.mpp_source,
        target_mpp=bag.target_mpp,
        bounds=bag.bounds_l0,
    )
    file.create_dataset("coverage", data=bag.coverage.astype(np.float32))
    flags = np.zeros(len(bag), dtype=np.uint8) if bag.tile_flags is None else bag.tile_flags
    file.create_dataset("tile_flags", data=flags)
    file.create_dataset("thumbnail", data=np.frombuffer(bag.thumbnail, dtype=np.uint8))
    file.attrs.update(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        slide=bag.slide,
        case=bag.case,
        recipe=json.dumps(bag.recipe, sort_keys=True),
        recipe_sha256=bag.recipe_sha256,
        request_sha256=bag.request_sha256,
        annotation_sha256=bag.annotation_sha256,
        trained_on=json.dumps(bag.trained_on),
        trained_on_slides=json.dumps(bag.trained_on_slides),
        n_tiles=len(bag),
        n_failed=bag.n_failed,
        tumour_of_tissue=bag.tumour_of_tissue,
        annotation_origin=bag.annotation_origin,
        reader=bag.reader,
        data_sha256=bag.data_sha256,
        source_sha256=bag.source_sha256,
        pixels_sha256=bag.pixels_sha256,
        versions=making_versions(),
    )
    if bag.volume:
        text = bag.volume.to_json().encode()
        file.create_dataset("volume", data=np.frombuffer(text, dtype=np.uint8))
        file.attrs["volume_sha256"] = hashlib.sha256(text).hexdigest()
    if bag.merged_sources:
        file.attrs["merged_sources"] = json.dumps(bag.merged_sources)
    file.attrs[FACTS_SHA256] = record_checksum(file.attrs)
    file.attrs["complete"] = 1
