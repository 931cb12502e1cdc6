"""Read the files of other tools, one function per layout."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features.errors import BagError
from features.files.access import READ_ERRORS, access_problem
from features.files.hdf5 import open_hdf5
from features.files.parse import parse_json

UNITS = ("px", "um", "tile")
SEEN = "sarcomil_seen"  # root attribute of HDF5 files written from bags
ALIASES = {
    "features": ("features", "feats", "embeddings", "x"),
    "coords": ("coords", "coordinates", "xy"),
    "x": ("x", "x_l0", "coord_x", "x_coord"),
    "y": ("y", "y_l0", "coord_y", "y_coord"),
}


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What a user knows of a foreign file; None leaves it to the file.

    Attributes:
        slide_mpp: micrometres per level-0 pixel, (x, y).
        mpp_source: ``given``, or ``file`` where slide_mpp was read from the slide.
        slide_size: (width, height) of the slide in level-0 pixels.
        tile_px: side of a tile as it was read.
        target_mpp: micrometres per pixel of a tile as it was read.
        tile_l0: side of a tile in level-0 pixels.
        unit: of the coordinates: ``px`` of level 0, ``um``, or ``tile``, pixels of the tiles' scale.
        encoder: the network that made the features.
        patches: CLAM's or TRIDENT's file of coordinates, or the folder with one per slide.
        feature_columns: of a table, patterns of columns that are features although their names or values
            look like something else, with ``*`` and ``?``.

    Raises:
        BagError: a length is not positive, or the unit is unknown.
    """

    slide_mpp: tuple[float, float] | None = None
    mpp_source: str = "given"
    slide_size: tuple[int, int] | None = None
    tile_px: int | None = None
    target_mpp: float | None = None
    tile_l0: float | None = None
    unit: str | None = None
    encoder: str | None = None
    patches: Path | None = None
    feature_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("slide_mpp", "slide_size", "tile_px", "target_mpp", "tile_l0"):
            value = getattr(self, name)
            if value is not None and not all(0 < v < math.inf for v in np.ravel(value)):
                raise BagError(
                    f"{name} must be a positive number; got {value}. Leave out what is unknown."
                )
        if self.unit not in (None, *UNITS):
            raise BagError(f"unit is one of {', '.join(UNITS)}; got {self.unit!r}.")


@dataclass(frozen=True, kw_only=True)
class ForeignBag:
    """What a foreign file contains; None where it says nothing.

    Attributes:
        features: (N, D) or (1, N, D); or (D,), the vector of a whole slide, which has no coordinates.
        coords: (N, 2) or (1, N, 2), in ``unit``.
        unit: one of ``UNITS``.
        centred: the coordinates are the centres of the tiles, not their top-left corners.
        tile_px: side of a tile as it was read.
        side_l0: (width, height) of a tile in level-0 pixels.
        target_mpp: micrometres per pixel of a tile as it was read.
        nominal_mpp: micrometres per level-0 pixel by the nominal magnification.
        size_l0: (width, height) of the slide in level-0 pixels.
        encoder: the network that made the features.
        recipe: more settings of the extraction.
    """

    features: NDArray[Any]
    coords: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 2)))
    unit: str | None = "px"
    centred: bool = False
    tile_px: int | None = None
    side_l0: tuple[float, float] | None = None
    target_mpp: float | None = None
    nominal_mpp: float | None = None
    size_l0: tuple[int, int] | None = None
    encoder: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)


def read_seen_cases(path: Path) -> dict[str, Any]:
    """The cases that backbone and stain were fitted on, in a file written from a bag; else empty."""
    if not h5py.is_hdf5(path):
        return {}
    with open_hdf5(path) as file:
        return dict(parse_json(file.attrs.get(SEEN, "{}")))


def reconcile(path: Path, name: str, stored: Any, supplied: Any) -> Any:
    """The value that is known of what the file stores and the user supplies; None if neither is.

    Raises:
        BagError: both are known, and they differ.
    """
    if stored is None or supplied is None:
        return supplied if stored is None else stored
    if isinstance(stored, str):
        same = stored == supplied
    else:
        same = np.allclose(stored, supplied, rtol=1e-3, atol=0)
    if not same:
        raise BagError(
            f"{path}: the file says {name} is {stored}, and {supplied} was given. Leave {name} out, or "
            "correct it."
        )
    return stored


def read_trident(path: Path, facts: SourceFacts) -> ForeignBag:
    """TRIDENT: features and coords, with its attributes on coords."""
    del facts
    with open_hdf5(path) as file:
        attributes = read_attributes(file)
        return ForeignBag(
            features=_array(file, "features"),
            coords=_array(file, "coords"),
            encoder=attributes.get("encoder"),
            recipe={"overlap": int(attributes.get("overlap", 0))},
            **_tile_geometry(attributes),
        )


def read_clam(path: Path, facts: SourceFacts) -> ForeignBag:
    """CLAM: features and coords in HDF5, or a tensor; tile sizes come from its file of patches."""
    attributes: dict[str, Any] = {}
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            features, coords = _array(file, "features"), _array(file, "coords")
            attributes = read_attributes(file)
    else:
        features, coords = _read_tensor(path), None
        if features.ndim == 1:
            return ForeignBag(features=features)
    patches = _find_patches(path, facts.patches)
    if patches:
        with open_hdf5(patches) as file:
            patch_coords, attributes = _array(file, "coords"), read_attributes(file)
        if coords is not None and not np.array_equal(coords, patch_coords):
            raise BagError(
                f"{path}: its coordinates are not those of {patches}. Set patches to the files of this run."
            )
        coords = patch_coords
    if coords is None:
        raise BagError(
            f"{path}: a tensor without coordinates. Set patches to the folder of CLAM's coordinates."
        )
    return ForeignBag(features=features, coords=coords, **_tile_geometry(attributes))


def read_stamp(path: Path, facts: SourceFacts) -> ForeignBag:
    """STAMP: feats and coords in micrometres."""
    with open_hdf5(path) as file:
        attributes = read_attributes(file)
        features = _array(file, "feats" if "feats" in file else "patch_embeddings")
        if (kind := attributes.get("feat_type", "tile")) != "tile":
            if features.size != features.shape[-1]:
                raise BagError(
                    f"{path}: says it is the vector of a {kind}, and has features {features.shape}. Convert "
                    "the files of tiles."
                )
            encoder = attributes.get("encoder", attributes.get("extractor"))
            return ForeignBag(features=features.reshape(-1), encoder=encoder)
        coords = _array(file, "coords")
    # STAMP guesses the unit of files without one from the step of the grid. A step of 224 or 256 may as
    # well be level-0 pixels, so the user has to supply it.
    unit = "um" if "tile_size_um" in attributes else attributes.get("unit")
    unit = unit if unit in UNITS else None
    side_um = attributes.get("tile_size_um", attributes.get("tile_size") if unit == "um" else None)
    tile_px = reconcile(path, "tile_px", attributes.get("tile_size_px"), facts.tile_px)
    return ForeignBag(
        features=features,
        coords=coords,
        unit=unit,
        tile_px=None if tile_px is None else int(tile_px),
        target_mpp=float(side_um) / float(tile_px) if side_um and tile_px else None,
        encoder=attributes.get("extractor"),
        recipe={"code_hash": str(attributes["code_hash"])} if "code_hash" in attributes else {},
    )


def read_vector(path: Path, facts: SourceFacts) -> ForeignBag:
    """The vector of a whole slide, (D,) or (1, D): in HDF5, as slide encoders write it, npz, or a tensor."""
    del facts
    encoder = None
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            name = next((name for name in ALIASES["features"] if name in file), "features")
            features = _array(file, name)
            attributes = {**file.attrs, **file[name].attrs}
        encoder = attributes.get("encoder", attributes.get("extractor"))
    elif path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            one = len(arrays.files) == 1
            features = arrays[
                arrays.files[0] if one else match_column(path, arrays.files, "features")
            ]
    elif path.suffix.lower() in (".pt", ".pth"):
        features = _read_tensor(path)
    else:
        raise BagError(f"{path}: no vector of a slide. Write it as HDF5, .npz or a tensor (.pt).")
    if features.ndim == 0 or features.size != features.shape[-1]:
        raise BagError(
            f"{path}: features {features.shape} are not the vector of one slide, (D,) or (1, D). Set "
            "layout to that of a file of tiles, or to auto."
        )
    return ForeignBag(features=features.reshape(-1), encoder=encoder and str(encoder))


def is_npz_vector(path: Path) -> bool:
    """Whether an npz file has one array alone, the vector of a slide."""
    with np.load(path, allow_pickle=False) as arrays:
        return len(arrays.files) == 1 and arrays[arrays.files[0]].ndim == 1


def read_slideflow(path: Path, facts: SourceFacts) -> ForeignBag:
    """slideflow: a tensor, centres in an index file, settings in bags_config.json."""
    with np.load(path.with_suffix(".index.npz"), allow_pickle=False) as index:
        coords = index["arr_0"]
    file = path.with_name("bags_config.json")
    config = parse_json(file.read_text(encoding="utf-8")) if file.is_file() else {}
    tile_px = reconcile(path, "tile_px", config.get("tile_px"), facts.tile_px)
    tile_um = config.get("tile_um")
    target_mpp = None
    if isinstance(tile_um, str):  # slideflow also takes a magnification, such as "20x"
        target_mpp = 10 / float(tile_um.lower().removesuffix("x"))
    elif tile_um and tile_px:
        target_mpp = tile_um / tile_px
    extractor = config.get("extractor") or {}
    settings = {"extractor": extractor, "normalizer": config.get("normalizer")} if config else {}
    return ForeignBag(
        features=_read_tensor(path),
        coords=coords,
        centred=True,
        tile_px=tile_px,
        target_mpp=target_mpp,
        encoder=str(extractor["class"]).rpartition(".")[2] if extractor.get("class") else None,
        recipe=settings,
    )


def read_npz(path: Path, facts: SourceFacts) -> ForeignBag:
    """An npz file: features and coords under one of their usual names."""
    with np.load(path, allow_pickle=False) as arrays:
        features, coords = (
            arrays[match_column(path, arrays.files, meaning)] for meaning in ("features", "coords")
        )
        tile_px = int(arrays["tile_px"]) if "tile_px" in arrays.files else None
    return ForeignBag(features=features, coords=coords, unit=facts.unit or "px", tile_px=tile_px)


@contextlib.contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Turn every error of a broken file into a BagError that names the file."""
    try:
        yield
    except READ_ERRORS as error:
        if problem := access_problem(error):
            raise BagError(f"{path} {problem}") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BagError(f"{path}: cannot be read ({reason}). Write or copy it again.") from error


def read_attributes(file: Any) -> dict[str, Any]:
    """All attributes of the root and of the arrays; some tools write None as a string."""
    holders = [file, *(item for item in file.values() if isinstance(item, h5py.Dataset))]
    attributes = {
        name: value.decode() if isinstance(value, bytes) else value
        for holder in holders
        for name, value in holder.attrs.items()
        if not isinstance(value, h5py.Empty)
    }
    return {name: value for name, value in attributes.items() if np.ndim(value) or value != "None"}


def _array(file: Any, name: str) -> NDArray[Any]:
    if not isinstance(file.get(name), h5py.Dataset):
        raise BagError(
            f"{file.filename}: no array {name}, it contains {', '.join(file)}. A bag needs features and "
            "coordinates."
        )
    values: NDArray[Any] = file[name][()]
    return values


def _tile_geometry(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Tile size, scale and slide size from the attributes of TRIDENT or CLAM."""
    geometry: dict[str, Any] = {}
    if "patch_size" in attributes:
        geometry["tile_px"] = int(attributes["patch_size"])
        # CLAM: pixels of patch_level, each downsample wide, times what old versions halved them by.
        downsample = attributes.get("downsample", 1 if attributes.get("patch_level") == 0 else None)
        if downsample is not None:
            sides = (
                np.ones(2)
                * downsample
                * attributes["patch_size"]
                * attributes.get("custom_downsample", 1)
            )
            geometry["side_l0"] = tuple(sides.tolist())
    if "patch_size_level0" in attributes:
        geometry["side_l0"] = (float(attributes["patch_size_level0"]),) * 2
    if "target_magnification" in attributes:
        geometry["target_mpp"] = 10 / float(attributes["target_magnification"])
    if "level0_magnification" in attributes:
        geometry["nominal_mpp"] = 10 / float(attributes["level0_magnification"])
    if "level0_width" in attributes and "level0_height" in attributes:
        geometry["size_l0"] = (int(attributes["level0_width"]), int(attributes["level0_height"]))
    return geometry


def _find_patches(path: Path, patches: Path | None) -> Path | None:
    """The file of coordinates of a features file; None if the user gave none."""
    if patches is None or patches.is_file():
        return patches
    for name in (f"{path.stem}.h5", f"{path.stem}_patches.h5"):
        if (patches / name).is_file():
            return patches / name
    raise BagError(
        f"{path}: no {path.stem}.h5 or {path.stem}_patches.h5 in patches {patches}. Give the folder of its "
        "coordinates."
    )


def _read_tensor(path: Path) -> NDArray[Any]:
    """The tensor of a .pt file; any other object is refused and never created."""
    from pickle import UnpicklingError  # only the error, raised for whatever is no tensor

    import torch

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise BagError(
            f"{path}: contains Python objects, which may run code when loaded. Save a bare tensor."
        ) from error
    if not isinstance(tensor, torch.Tensor):
        raise BagError(
            f"{path}: contains a {type(tensor).__name__}, not a tensor. Save the features alone."
        )
    # numpy has no bfloat16
    values: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return values


def match_column(path: Path, names: Sequence[str], meaning: str) -> str:
    """The only one of the names that stands for features, coords, x or y."""
    matches = [name for name in names if name.lower() in ALIASES[meaning]]
    if len(matches) != 1:
        alone = ", or leave the features alone in the file if they have no places"
        raise BagError(
            f"{path}: {len(matches) or 'none'} of {', '.join(list(names)[:8])} means {meaning}. Name one of "
            f"them {ALIASES[meaning][0]}{alone if meaning == 'coords' and path.suffix == '.npz' else ''}."
        )
    return matches[0]
