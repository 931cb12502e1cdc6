"""Bags from the features other tools wrote, and theirs from bags.

    layout     file                                            coordinates, all in (x, y)
    trident    .h5: features, coords; attrs on coords          level-0 pixels, top-left
    clam       .h5: features, coords, or .pt; with a patches   level-0 pixels, top-left
               file, which alone says how large a tile is
    stamp      .h5: feats (or patch_embeddings), coords        micrometres, top-left
    slideflow  .pt with <slide>.index.npz, bags_config.json    level-0 pixels, centres
    npz        features|feats|embeddings|x, coords|coordinates|xy, perhaps tile_px; as --unit says
    csv        columns x and y, every other one a feature      as --unit says

A bag knows the scale of its slide; most of these files do not, and nothing here guesses it.
"""

import contextlib
import csv
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError  # the error of torch.load, which here unpickles no objects
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features.bags import FORMAT, Bag, fingerprint, read_bag, validate_bag
from features.errors import BagError
from features.slides import slide_name
from features.whole import whole

UNITS = ("px", "um", "tile")
OURS = "mil"
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
NOTABLE = 0.01  # relative difference between two statements of one scale that is reported
BROKEN = (
    *(OSError, EOFError, zipfile.BadZipFile, ValueError, ArithmeticError),
    *(LookupError, TypeError, AttributeError, RuntimeError),
)
FARTHEST_L0 = 2**31  # no slide is that wide; CLAM stores coordinates in 32 bits


@dataclass(frozen=True, kw_only=True)
class Given:
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
class _Found:
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


def recognise(path: Path) -> str:
    """The layout of a file, by what is in it: one of ``LAYOUTS``, or ``mil`` for a bag of ours.

    Raises:
        BagError: there is no such file, or it holds no features of a known layout.
    """
    if not path.is_file():
        raise BagError(f"{path}: no such file. Check the path.")
    if h5py.is_hdf5(path):
        return _recognise_hdf5(path)
    members = _members(path)
    if any(name.endswith("data.pkl") for name in members) or _begins(path, b"\x80\x02"):
        return "slideflow" if path.with_suffix(".index.npz").is_file() else "clam"
    if members and all(name.endswith(".npy") for name in members):
        return "npz"
    with contextlib.suppress(BagError):
        _csv_columns(path)
        return "csv"
    raise BagError(
        f"{path}: not features of {', '.join(LAYOUTS)}. A table of features needs a header with x and y."
    )


def read_foreign(
    path: Path, *, layout: str = "auto", given: Given | None = None, slide: str = "", case: str = ""
) -> Bag:
    """Read one slide's features as another tool wrote them; a bag of ours is returned as it is.

    Coverage is not known and set to 1. Where nothing says how large the slide is, it is taken to end
    with its last tile. ``recipe`` is the same for all slides of one foreign store.

    Args:
        path: the file with the features.
        layout: one of ``LAYOUTS``; ``auto`` looks into the file.
        given: what the file does not say. Contradicting it is an error.
        slide: the bag's name; the file's where not given.
        case: if known.

    Raises:
        BagError: the file cannot be read, does not say enough, or its numbers cannot be true.
    """
    layout = recognise(path) if layout == "auto" else layout
    if layout == OURS:
        validate_bag(path)
        return read_bag(path)
    if layout not in LAYOUTS:
        raise BagError(f"No layout {layout!r}. Known: auto, {', '.join(LAYOUTS)}.")
    given = given or Given()
    with _named(path):
        found = _READERS[layout](path, given)
    bag = _bag(path, layout, found, given)
    bag = replace(bag, slide=slide or slide_name(path.stem), case=case)
    places = {"side_l0": bag.side_l0, "mpp_l0": bag.mpp_l0, "size_l0": bag.size_l0}
    asked = {"recipe": bag.recipe, "data": bag.data_sha256, "case": case, **places}
    return replace(bag, request_sha256=fingerprint(asked))


def remarks(bag: Bag) -> tuple[str, ...]:
    """What whoever uses a converted bag should know, in sentences."""
    found = []
    doubled = len(bag) - len(np.unique(bag.coords_l0, axis=0))
    if doubled:
        found.append(f"{doubled} of {len(bag)} tiles lie on another one's coordinates.")
    over = ((bag.coords_l0 < 0) | (bag.coords_l0 + bag.side_l0 > np.add(bag.size_l0, 1))).any(
        axis=1
    )
    if over.any():
        found.append(f"{over.sum()} of {len(bag)} tiles reach over the slide's edge.")
    if bag.mpp_source == "magnification":
        found.append(
            "The scale is the nominal one of its magnification. --slide-mpp gives the true one."
        )
    nominal = bag.recipe.get("mpp")
    if nominal and abs(bag.target_mpp / nominal - 1) > NOTABLE:
        found.append(
            f"Tiles are said to be {nominal:.4g} micrometres per pixel, but lie {bag.side_l0[0]:g} "
            f"level-0 pixels wide, which makes {bag.target_mpp:.4g}."
        )
    return tuple(found)


def write_stamp(path: Path, bag: Bag) -> None:
    """Write a bag as STAMP's tile features: feats float16 (N, D), coords float32 (N, 2) micrometres.

    Raises:
        BagError: a feature is too large for float16, the only precision STAMP knows.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    features = np.asarray(bag.features)
    with np.errstate(over="ignore"):
        feats = features.astype(np.float16)
    if not np.isfinite(feats).all():
        raise BagError(
            f"{bag.slide}: features reach {np.abs(features).max():g}, and float16, which STAMP stores, "
            "ends at 65504. Use the bag as it is, or --to clam."
        )
    extractor = [str(bag.recipe.get("backbone", "unknown"))]
    if str(bag.recipe.get("weights", "")).startswith("random"):
        extractor.append("random weights")
    if bag.recipe.get(
        "held_out"
    ):  # STAMP has no word for it, and it must not be taken for the sample
        extractor.append("held-out tiles")
    attributes = {
        "stamp_version": "2.0.0",  # STAMP refuses files of versions newer than itself
        "extractor": ", ".join(extractor),
        "unit": "um",
        "tile_size_um": bag.side_l0[0] * bag.mpp_l0[0],
        "tile_size_px": bag.tile_px,
        "feat_type": "tile",
    }
    coords_um = (bag.coords_l0 * bag.mpp_l0).astype(np.float32)
    _write_whole(path, _hdf5({"feats": feats, "coords": coords_um}, root=attributes))


def write_clam(folder: Path, bag: Bag) -> None:
    """Write ``pt_files/<slide>.pt``, a float32 tensor (N, D), and ``h5_files/<slide>.h5`` for CLAM.

    The attributes of CLAM's patches file are put on ``coords``, so that the tile size is not lost.

    Raises:
        OSError: the disk is full or not writable; no part of a file is left behind.
    """
    import torch

    features = np.asarray(bag.features).astype(np.float32)
    image = io.BytesIO()
    torch.save(torch.from_numpy(features), image)
    _write_whole(folder / "pt_files" / f"{bag.slide}.pt", image)
    place = {
        "patch_size": bag.tile_px,
        "patch_level": 0,
        "downsample": [side / bag.tile_px for side in bag.side_l0],
        "level_dim": bag.size_l0,
        "name": bag.slide,
    }
    held = {"features": features, "coords": bag.coords_l0.astype(np.int32)}
    _write_whole(folder / "h5_files" / f"{bag.slide}.h5", _hdf5(held, coords=place))


# ----------------------------------------------------------------------------- from file to bag


def _bag(path: Path, layout: str, found: _Found, given: Given) -> Bag:
    """What was found and given, checked against each other and put into one frame."""
    features = _features(path, found.features)
    tile_px = _agreed(path, "--tile", found.tile_px, given.tile_px)
    if not tile_px:
        raise BagError(
            f"{path}: does not say how many pixels wide a tile was read. Pass --tile, e.g. 224; for CLAM, "
            "--patches, the folder of its coordinates."
        )
    mpp, source = _scale(path, found, given)
    told_mpp = _agreed(path, "--mpp", found.target_mpp, given.target_mpp)
    side = _side(path, found, given, mpp, tile_px * told_mpp if told_mpp else None)
    target_mpp = side[0] * mpp[0] / tile_px
    coords = _coords(path, found, given, mpp, target_mpp)
    if len(coords) != len(features):
        raise BagError(
            f"{path}: {len(features)} feature vectors for {len(coords)} coordinates. They are not of one "
            "run; extract the slide again."
        )
    if found.centred:
        coords -= np.array(side) / 2
    size = _agreed(path, "the slide's size", found.size_l0, given.slide_size)
    _check_inside(path, coords, side, size)
    end = np.ceil((coords + side).max(axis=0))
    return Bag(
        slide=path.stem,
        features=features,
        coords_l0=np.round(coords).astype(np.int64),
        coverage=np.ones(len(features), np.float32),
        side_l0=side,
        size_l0=size or (int(end[0]), int(end[1])),
        mpp_l0=mpp,
        mpp_source=source,
        tile_px=int(tile_px),
        target_mpp=target_mpp,
        recipe={
            "backbone": _agreed(path, "--encoder", found.encoder, given.encoder) or "unknown",
            "weights": f"converted from {TOOLS[layout]}",
            "precision": f"fp{8 * features.dtype.itemsize}",
            "mpp": told_mpp or target_mpp,
            "tile": int(tile_px),
            "region": "converted",
            "coverage": "unknown, set to 1",
            "layout": layout,
            **found.more,
        },
    )


def _agreed(path: Path, what: str, told: Any, given: Any) -> Any:
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


def _scale(path: Path, found: _Found, given: Given) -> tuple[tuple[float, float], str]:
    """Micrometres per level-0 pixel, (x, y), and where they are from."""
    if given.slide_mpp:
        return given.slide_mpp, given.mpp_source
    if found.nominal_mpp:
        return (found.nominal_mpp, found.nominal_mpp), "magnification"
    raise BagError(
        f"{path}: does not say its slide's micrometres per pixel, without which its lengths have no "
        "scale. Pass --slide-mpp, e.g. 0.25 for a 40x scan, or --slides, the folder with the slides."
    )


def _side(
    path: Path, found: _Found, given: Given, mpp: tuple[float, float], side_um: float | None
) -> tuple[float, float]:
    """(width, height) of a tile in level-0 pixels."""
    given_l0 = (given.tile_l0, given.tile_l0) if given.tile_l0 else None
    told_l0 = _agreed(path, "--tile-l0", found.side_l0, given_l0)
    if told_l0:
        return (float(told_l0[0]), float(told_l0[1]))
    if side_um:
        return (side_um / mpp[0], side_um / mpp[1])
    raise BagError(
        f"{path}: does not say how large a tile is on the slide. Pass --mpp, the scale of the tiles, or "
        "--tile-l0, their side in level-0 pixels; for CLAM, --patches, the folder of its coordinates."
    )


def _features(path: Path, raw: NDArray[Any]) -> Any:
    """(N, D) float16 or float32, finite."""
    if raw.dtype.kind not in "fiu":
        raise BagError(f"{path}: features of type {raw.dtype}. Give floating-point numbers.")
    values = raw[0] if raw.ndim == 3 and len(raw) == 1 else raw  # (1, N, D) of old torch files
    if values.size == 0:
        raise BagError(
            f"{path}: the slide has no tiles {raw.shape}. There is nothing to learn from it."
        )
    if values.ndim != 2:
        raise BagError(
            f"{path}: features {raw.shape} are not (tiles, features). Vectors of whole slides are no bags."
        )
    with np.errstate(over="ignore"):
        kept = values if values.dtype == np.float16 else values.astype(np.float32)
    if not np.isfinite(kept).all():
        raise BagError(
            f"{path}: features are not finite (NaN, infinite or beyond float32). Extract the slide again."
        )
    return kept


def _coords(
    path: Path, found: _Found, given: Given, mpp: tuple[float, float], target_mpp: float
) -> NDArray[np.float64]:
    """(N, 2) in level-0 pixels, corners or centres as found."""
    raw = found.coords[0] if found.coords.ndim == 3 and len(found.coords) == 1 else found.coords
    if raw.ndim != 2 or raw.shape[1] != 2 or raw.dtype.kind not in "fiu":
        raise BagError(
            f"{path}: coordinates {raw.shape} of {raw.dtype} are not (tiles, 2) numbers."
        )
    unit = _agreed(path, "--unit", found.unit, given.unit)
    if unit is None:
        step = np.diff(np.unique(raw[:, 0].astype(float))).min(initial=np.inf)
        raise BagError(
            f"{path}: does not say what its coordinates are in (they step by {step:g}). Pass --unit um, "
            "px (of level 0) or tile (pixels of the tiles' scale)."
        )
    unit_um = {"px": np.array(mpp), "um": 1.0, "tile": target_mpp}[unit]
    coords: NDArray[np.float64] = raw.astype(np.float64) * (unit_um / np.array(mpp))
    if not (np.abs(coords) < FARTHEST_L0).all():
        raise BagError(
            f"{path}: coordinates are not finite or beyond every slide. Extract it again."
        )
    return coords


def _check_inside(
    path: Path, coords: NDArray[np.float64], side: tuple[float, float], size: tuple[int, int] | None
) -> None:
    """A tile may reach over the edge, but not lie outside: then unit, scale or slide are wrong."""
    outside = (coords + side <= 0) | (coords >= (size or (np.inf, np.inf)))
    if outside.any():
        row = int(outside.any(axis=1).argmax())
        raise BagError(
            f"{path}: {outside.any(axis=1).sum()} of {len(coords)} tiles lie outside the slide "
            f"({size or 'of unknown size'}), e.g. at {coords[row].tolist()}. Check its scale and unit."
        )


# ----------------------------------------------------------------------------- one reader a layout


def _read_trident(path: Path, given: Given) -> _Found:
    del given
    with h5py.File(path, "r") as file:
        said = _attributes(file)
        return _Found(
            features=_array(file, "features"),
            coords=_array(file, "coords"),
            encoder=said.get("encoder"),
            more={"overlap": int(said.get("overlap", 0))},
            **_place(said),
        )


def _read_clam(path: Path, given: Given) -> _Found:
    said: dict[str, Any] = {}
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            features, coords = _array(file, "features"), _array(file, "coords")
            said = _attributes(file)
    else:
        features, coords = _tensor(path), None
    patches = _patches(path, given.patches)
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
    return _Found(features=features, coords=coords, **_place(said))


def _read_stamp(path: Path, given: Given) -> _Found:
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
    tile_px = _agreed(path, "--tile", said.get("tile_size_px"), given.tile_px)
    return _Found(
        features=features,
        coords=coords,
        unit=unit,
        tile_px=None if tile_px is None else int(tile_px),
        target_mpp=float(side_um) / float(tile_px) if side_um and tile_px else None,
        encoder=said.get("extractor"),
        more={"code_hash": str(said["code_hash"])} if "code_hash" in said else {},
    )


def _read_slideflow(path: Path, given: Given) -> _Found:
    with np.load(path.with_suffix(".index.npz"), allow_pickle=False) as held:
        coords = held["arr_0"]
    config = path.with_name("bags_config.json")
    said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    tile_px, tile_um = (
        _agreed(path, "--tile", said.get("tile_px"), given.tile_px),
        said.get("tile_um"),
    )
    target_mpp = None
    if isinstance(tile_um, str):  # slideflow also takes a magnification, such as "20x"
        target_mpp = 10 / float(tile_um.lower().removesuffix("x"))
    elif tile_um and tile_px:
        target_mpp = tile_um / tile_px
    extractor = said.get("extractor") or {}
    kept = {"extractor": extractor, "normalizer": said.get("normalizer")} if said else {}
    return _Found(
        features=_tensor(path),
        coords=coords,
        centred=True,
        tile_px=tile_px,
        target_mpp=target_mpp,
        encoder=str(extractor["class"]).rpartition(".")[2] if extractor.get("class") else None,
        more=kept,
    )


def _read_npz(path: Path, given: Given) -> _Found:
    with np.load(path, allow_pickle=False) as held:
        features, coords = (held[_alias(path, held.files, what)] for what in ("features", "coords"))
        tile_px = int(held["tile_px"]) if "tile_px" in held.files else None
    return _Found(features=features, coords=coords, unit=given.unit or "px", tile_px=tile_px)


def _read_csv(path: Path, given: Given) -> _Found:
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
    at = [header.index(_alias(path, header, what)) for what in ("x", "y")]
    features = np.delete(table, at, axis=1)
    return _Found(features=features, coords=table[:, at], unit=given.unit or "px")


_READERS: dict[str, Callable[[Path, Given], _Found]] = {
    "trident": _read_trident,
    "clam": _read_clam,
    "stamp": _read_stamp,
    "slideflow": _read_slideflow,
    "npz": _read_npz,
    "csv": _read_csv,
}
LAYOUTS = tuple(_READERS)
TOOLS = {name: name for name in LAYOUTS} | {"trident": "TRIDENT", "clam": "CLAM", "stamp": "STAMP"}


# ----------------------------------------------------------------------------- parts of files


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Every way a file can be broken, as an error that names it."""
    try:
        yield
    except UnpicklingError as error:
        raise BagError(
            f"{path}: holds Python objects, which may run code when loaded. Save a bare tensor."
        ) from error
    except BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BagError(f"{path}: cannot be read ({reason}). Write or copy it again.") from error


def _recognise_hdf5(path: Path) -> str:
    with _named(path), h5py.File(path, "r") as file:
        if file.attrs.get("format") == FORMAT:
            return OURS
        if "feats" in file or "patch_embeddings" in file:
            return "stamp"
        if "features" in file:
            return "trident" if "patch_size_level0" in _attributes(file) else "clam"
        raise BagError(
            f"{path}: holds {', '.join(file) or 'nothing'} but no features. Coordinates alone go to "
            "--patches."
        )


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return file.namelist()
    except zipfile.BadZipFile:
        return []


def _begins(path: Path, magic: bytes) -> bool:
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


def _place(said: Mapping[str, Any]) -> dict[str, Any]:
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


def _patches(path: Path, patches: Path | None) -> Path | None:
    """The file of coordinates that belongs to a features file."""
    if patches is None or patches.is_file():
        return patches
    for name in (f"{path.stem}.h5", f"{path.stem}_patches.h5"):
        if (patches / name).is_file():
            return patches / name
    raise BagError(f"{path}: no {path.stem}.h5 or {path.stem}_patches.h5 in --patches {patches}.")


def _tensor(path: Path) -> NDArray[Any]:
    import torch

    held = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(held, torch.Tensor):
        raise BagError(
            f"{path}: holds a {type(held).__name__}, not a tensor. Save the features alone."
        )
    # numpy has no bfloat16
    values: NDArray[Any] = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    return values


def _alias(path: Path, names: Sequence[str], what: str) -> str:
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
        _alias(path, header, what)
    return delimiter, header


# ----------------------------------------------------------------------------- writing


def _hdf5(
    arrays: Mapping[str, NDArray[Any]],
    *,
    root: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> io.BytesIO:
    """An HDF5 file in memory: a full disk cannot leave half of it."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        file.attrs.update(root or {})
        file["coords"].attrs.update(coords or {})
    return image


def _write_whole(path: Path, image: io.BytesIO) -> None:
    with whole(path) as temporary:
        temporary.write_bytes(image.getbuffer())
