"""What the files other tools write hold, one reader a layout."""

import contextlib
import csv
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features.bags.bag import FORMAT
from features.errors import BagError

UNITS = ("px", "um", "tile")
NATIVE = "mil"
SEEN = "sarcomil_seen"  # root attribute of the HDF5 files written from bags
NEVER_FEATURES = {
    "",
    "index",
    "id",
    "tile",
    "tile_id",
    "slide",
    "slide_id",
    "case",
    "label",
    "class",
}
ALIASES = {
    "features": ("features", "feats", "embeddings", "x"),
    "coords": ("coords", "coordinates", "xy"),
    "x": ("x", "x_l0", "coord_x", "x_coord"),
    "y": ("y", "y_l0", "coord_y", "y_coord"),
}
READ_ERRORS = (
    *(OSError, EOFError, zipfile.BadZipFile, ValueError, ArithmeticError),
    *(LookupError, TypeError, AttributeError, RuntimeError),
)


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What a user knows and a foreign file may not say; None leaves it to the file.

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

    def __post_init__(self) -> None:
        for name in ("slide_mpp", "slide_size", "tile_px", "target_mpp", "tile_l0"):
            value = getattr(self, name)
            if value is not None and not all(0 < v < math.inf for v in np.ravel(value)):
                raise BagError(
                    f"{name} is a positive number; got {value}. Leave out what is unknown."
                )
        if self.unit not in (None, *UNITS):
            raise BagError(f"unit is one of {', '.join(UNITS)}; got {self.unit!r}.")


@dataclass(frozen=True, kw_only=True)
class ForeignBag:
    """What a foreign file says; None where it does not."""

    features: NDArray[Any]
    coords: NDArray[Any]
    unit: str | None = "px"
    centred: bool = False
    tile_px: int | None = None
    side_l0: tuple[float, float] | None = None
    target_mpp: float | None = None
    nominal_mpp: float | None = None
    size_l0: tuple[int, int] | None = None
    encoder: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def detect_layout(path: Path) -> str:
    """The layout of a file, by what is in it: one of ``LAYOUTS``, or ``mil`` for a bag of ours.

    Raises:
        BagError: there is no such file, or it holds no features of a known layout.
    """
    if not path.is_file():
        raise BagError(f"{path}: no such file. Check the path.")
    if h5py.is_hdf5(path):
        return _detect_hdf5_layout(path)
    members = _zip_members(path)
    if any(name.endswith("data.pkl") for name in members) or _starts_with(path, b"\x80\x02"):
        return "slideflow" if path.with_suffix(".index.npz").is_file() else "clam"
    if members and all(name.endswith(".npy") for name in members):
        return "npz"
    with contextlib.suppress(BagError):
        _csv_columns(path)
        return "csv"
    raise BagError(
        f"{path}: not features of {', '.join(LAYOUTS)}. A table of features needs a header with x and y."
    )


def is_bag(path: Path) -> bool:
    """Whether a file is a bag of ours, whatever layout else it could be read as."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with naming_errors(path), h5py.File(path, "r") as file:
        return bool(file.attrs.get("format") == FORMAT)


def read_seen_cases(path: Path) -> dict[str, Any]:
    """Whom backbone and stain were fitted on, if this library wrote the file: ``SEEN``, else empty."""
    if not h5py.is_hdf5(path):
        return {}
    with h5py.File(path, "r") as file:
        return dict(json.loads(file.attrs.get(SEEN, "{}")))


def reconcile(path: Path, what: str, told: Any, given: Any) -> Any:
    """The one that is known; None where neither is.

    Raises:
        BagError: both are, and they differ.
    """
    if told is None or given is None:
        return given if told is None else told
    same = told == given if isinstance(told, str) else np.allclose(told, given, rtol=1e-3, atol=0)
    if not same:
        raise BagError(f"{path}: says {told} where {what} was given as {given}. Give what is true.")
    return told


def _read_trident(path: Path, given: SourceFacts) -> ForeignBag:
    del given
    with h5py.File(path, "r") as file:
        said = _attributes(file)
        return ForeignBag(
            features=_array(file, "features"),
            coords=_array(file, "coords"),
            encoder=said.get("encoder"),
            more={"overlap": int(said.get("overlap", 0))},
            **_tile_geometry(said),
        )


def _read_clam(path: Path, given: SourceFacts) -> ForeignBag:
    said: dict[str, Any] = {}
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            features, coords = _array(file, "features"), _array(file, "coords")
            said = _attributes(file)
    else:
        features, coords = _read_tensor(path), None
    patches = _find_patches(path, given.patches)
    if patches:
        with h5py.File(patches, "r") as file:
            here, said = _array(file, "coords"), _attributes(file)
        if coords is not None and not np.array_equal(coords, here):
            raise BagError(
                f"{path}: its coordinates are not those of {patches}. Pass its own --patches."
            )
        coords = here
    if coords is None:
        raise BagError(
            f"{path}: a tensor without coordinates. Pass --patches, the folder of CLAM's."
        )
    return ForeignBag(features=features, coords=coords, **_tile_geometry(said))


def _read_stamp(path: Path, given: SourceFacts) -> ForeignBag:
    with h5py.File(path, "r") as file:
        said = _attributes(file)
        features = _array(file, "feats" if "feats" in file else "patch_embeddings")
        if said.get("feat_type", "tile") != "tile":
            raise BagError(
                f"{path}: features of a whole {said['feat_type']}. Convert those of tiles."
            )
        coords = _array(file, "coords")
    # STAMP itself guesses the unit of files without one from the step of the grid. A step of 224 or
    # 256 may as well be level-0 pixels, so here the user says it.
    told = "um" if "tile_size_um" in said else said.get("unit")
    unit = told if told in UNITS else None
    side_um = said.get("tile_size_um", said.get("tile_size") if unit == "um" else None)
    tile_px = reconcile(path, "--tile", said.get("tile_size_px"), given.tile_px)
    return ForeignBag(
        features=features,
        coords=coords,
        unit=unit,
        tile_px=None if tile_px is None else int(tile_px),
        target_mpp=float(side_um) / float(tile_px) if side_um and tile_px else None,
        encoder=said.get("extractor"),
        more={"code_hash": str(said["code_hash"])} if "code_hash" in said else {},
    )


def _read_slideflow(path: Path, given: SourceFacts) -> ForeignBag:
    with np.load(path.with_suffix(".index.npz"), allow_pickle=False) as held:
        coords = held["arr_0"]
    config = path.with_name("bags_config.json")
    said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    tile_px, tile_um = (
        reconcile(path, "--tile", said.get("tile_px"), given.tile_px),
        said.get("tile_um"),
    )
    target_mpp = None
    if isinstance(tile_um, str):  # slideflow also takes a magnification, such as "20x"
        target_mpp = 10 / float(tile_um.lower().removesuffix("x"))
    elif tile_um and tile_px:
        target_mpp = tile_um / tile_px
    extractor = said.get("extractor") or {}
    kept = {"extractor": extractor, "normalizer": said.get("normalizer")} if said else {}
    return ForeignBag(
        features=_read_tensor(path),
        coords=coords,
        centred=True,
        tile_px=tile_px,
        target_mpp=target_mpp,
        encoder=str(extractor["class"]).rpartition(".")[2] if extractor.get("class") else None,
        more=kept,
    )


def _read_npz(path: Path, given: SourceFacts) -> ForeignBag:
    with np.load(path, allow_pickle=False) as held:
        features, coords = (
            held[_match_column(path, held.files, what)] for what in ("features", "coords")
        )
        tile_px = int(held["tile_px"]) if "tile_px" in held.files else None
    return ForeignBag(features=features, coords=coords, unit=given.unit or "px", tile_px=tile_px)


def _read_csv(path: Path, given: SourceFacts) -> ForeignBag:
    delimiter, header = _csv_columns(path)
    odd = sorted({name.lower() for name in header} & NEVER_FEATURES)
    if odd:
        raise BagError(f"{path}: column {odd[0]!r} is no feature. Keep x, y and the features only.")
    rows = path.read_text(encoding="utf-8-sig").splitlines()[1:]
    if not any(map(str.strip, rows)):
        raise BagError(f"{path}: the slide has no tiles. There is nothing to learn from it.")
    table = np.loadtxt(rows, delimiter=delimiter, ndmin=2, comments=None, quotechar='"')
    if table.shape[1] != len(header):
        raise BagError(f"{path}: {len(header)} columns in the header, {table.shape[1]} below it.")
    at = [header.index(_match_column(path, header, what)) for what in ("x", "y")]
    features = np.delete(table, at, axis=1)
    return ForeignBag(features=features, coords=table[:, at], unit=given.unit or "px")


READERS: dict[str, Callable[[Path, SourceFacts], ForeignBag]] = {
    "trident": _read_trident,
    "clam": _read_clam,
    "stamp": _read_stamp,
    "slideflow": _read_slideflow,
    "npz": _read_npz,
    "csv": _read_csv,
}
LAYOUTS = tuple(READERS)
TOOLS = {name: name for name in LAYOUTS} | {"trident": "TRIDENT", "clam": "CLAM", "stamp": "STAMP"}


@contextlib.contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Every way a file can be broken, as an error that names it."""
    try:
        yield
    except READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BagError(f"{path}: cannot be read ({reason}). Write or copy it again.") from error


def _detect_hdf5_layout(path: Path) -> str:
    with naming_errors(path), h5py.File(path, "r") as file:
        if file.attrs.get("format") == FORMAT:
            return NATIVE
        if "feats" in file or "patch_embeddings" in file:
            return "stamp"
        if "features" in file:
            return "trident" if "patch_size_level0" in _attributes(file) else "clam"
        raise BagError(
            f"{path}: holds {', '.join(file) or 'nothing'} but no features. Coordinates alone go to "
            "--patches."
        )


def _zip_members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return file.namelist()
    except zipfile.BadZipFile:
        return []


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _attributes(file: Any) -> dict[str, Any]:
    """All attributes, whether on the root or on an array; some tools write None as a string."""
    holders = [file, *(item for item in file.values() if isinstance(item, h5py.Dataset))]
    said = {
        name: value.decode() if isinstance(value, bytes) else value
        for holder in holders
        for name, value in holder.attrs.items()
        if not isinstance(value, h5py.Empty)
    }
    return {name: value for name, value in said.items() if np.ndim(value) or value != "None"}


def _array(file: Any, name: str) -> NDArray[Any]:
    if not isinstance(file.get(name), h5py.Dataset):
        raise BagError(
            f"{file.filename}: no array {name}, it holds {', '.join(file)}. A bag needs features and "
            "coordinates."
        )
    values: NDArray[Any] = file[name][()]
    return values


def _tile_geometry(said: Mapping[str, Any]) -> dict[str, Any]:
    """What attributes in TRIDENT's or CLAM's words say of a slide's tiles."""
    place: dict[str, Any] = {}
    if "patch_size" in said:
        place["tile_px"] = int(said["patch_size"])
        # CLAM: pixels of patch_level, each downsample wide, times what old versions halved them by.
        downsample = said.get("downsample", 1 if said.get("patch_level") == 0 else None)
        if downsample is not None:
            sides = np.ones(2) * downsample * said["patch_size"] * said.get("custom_downsample", 1)
            place["side_l0"] = tuple(sides.tolist())
    if "patch_size_level0" in said:
        place["side_l0"] = (float(said["patch_size_level0"]),) * 2
    if "target_magnification" in said:
        place["target_mpp"] = 10 / float(said["target_magnification"])
    if "level0_magnification" in said:
        place["nominal_mpp"] = 10 / float(said["level0_magnification"])
    if "level0_width" in said and "level0_height" in said:
        place["size_l0"] = (int(said["level0_width"]), int(said["level0_height"]))
    return place


def _find_patches(path: Path, patches: Path | None) -> Path | None:
    """The file of coordinates that belongs to a features file."""
    if patches is None or patches.is_file():
        return patches
    for name in (f"{path.stem}.h5", f"{path.stem}_patches.h5"):
        if (patches / name).is_file():
            return patches / name
    raise BagError(f"{path}: no {path.stem}.h5 or {path.stem}_patches.h5 in --patches {patches}.")


def _read_tensor(path: Path) -> NDArray[Any]:
    """The one tensor of a .pt file; whatever else it holds is refused, and never made."""
    from pickle import UnpicklingError  # only the error: what is no tensor is refused with it

    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise BagError(
            f"{path}: holds Python objects, which may run code when loaded. Save a bare tensor."
        ) from error
    if not isinstance(held, torch.Tensor):
        raise BagError(
            f"{path}: holds a {type(held).__name__}, not a tensor. Save the features alone."
        )
    # numpy has no bfloat16
    values: NDArray[Any] = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    return values


def _match_column(path: Path, names: Sequence[str], what: str) -> str:
    """The one of the names that means ``what``."""
    found = [name for name in names if name.lower() in ALIASES[what]]
    if len(found) != 1:
        raise BagError(
            f"{path}: {len(found) or 'none'} of {', '.join(list(names)[:8])} means {what}. Name one of them "
            f"{ALIASES[what][0]}."
        )
    return found[0]


def _csv_columns(path: Path) -> tuple[str, list[str]]:
    """Delimiter and header of a table with x and y."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(1 << 20)
    except UnicodeDecodeError as error:
        raise BagError(f"{path}: not a text table. Save it as CSV UTF-8.") from error
    delimiter = max(",;\t", key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    for what in ("x", "y"):
        _match_column(path, header, what)
    return delimiter, header
