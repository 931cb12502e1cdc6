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

Whom its backbone and its stain have seen goes with a bag: as the root attribute ``sarcomil_seen``, JSON of
``trained_on`` and ``stain_reference``, into HDF5. A layout with files that cannot say so refuses such bags.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag, fingerprint, read_bag, validate_bag
from features.bags.layouts import (
    LAYOUTS,
    NATIVE,
    READERS,
    SEEN,
    TOOLS,
    ForeignBag,
    SourceFacts,
    detect_layout,
    is_bag,
    naming_errors,
    read_seen_cases,
    reconcile,
)
from features.errors import BagError
from features.files.atomic import write_atomic
from features.slides.slide import slide_name

SCALE_TOLERANCE = 0.01  # relative difference between two statements of one scale that is reported
MAX_COORD_L0 = 2**31  # no slide is that wide; CLAM stores coordinates in 32 bits


def read_foreign(
    path: Path,
    *,
    layout: str = "auto",
    given: SourceFacts | None = None,
    slide: str = "",
    case: str = "",
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
    layout = detect_layout(path) if layout == "auto" or is_bag(path) else layout
    if layout == NATIVE:
        validate_bag(path)
        return read_bag(path)
    if layout not in LAYOUTS:
        raise BagError(f"No layout {layout!r}. Known: auto, {', '.join(LAYOUTS)}.")
    given = given or SourceFacts()
    with naming_errors(path):
        found = READERS[layout](path, given)
        seen = read_seen_cases(path)
    bag = _build_bag(path, layout, found, given)
    if stained := seen.get("stain_reference"):
        bag = replace(bag, recipe={**bag.recipe, "stain_reference": stained})
    trained_on = tuple(seen.get("trained_on", ()))
    bag = replace(bag, slide=slide or slide_name(path.stem), case=case, trained_on=trained_on)
    places = {"side_l0": bag.side_l0, "mpp_l0": bag.mpp_l0, "size_l0": bag.size_l0}
    asked = {"recipe": bag.recipe, "data": bag.data_sha256, "case": case, **places}
    return replace(bag, request_sha256=fingerprint(asked))


def conversion_notes(bag: Bag) -> tuple[str, ...]:
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
    if nominal and abs(bag.target_mpp / nominal - 1) > SCALE_TOLERANCE:
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
    seen = _seen_cases(bag)
    attributes = {
        **({SEEN: json.dumps(seen)} if seen else {}),
        "stamp_version": "2.0.0",  # STAMP refuses files of versions newer than itself
        "extractor": ", ".join(extractor),
        "unit": "um",
        "tile_size_um": bag.side_l0[0] * bag.mpp_l0[0],
        "tile_size_px": bag.tile_px,
        "feat_type": "tile",
    }
    coords_um = (bag.coords_l0 * bag.mpp_l0).astype(np.float32)
    write_atomic(path, _hdf5_image({"feats": feats, "coords": coords_um}, root=attributes))


def write_clam(folder: Path, bag: Bag) -> None:
    """Write ``pt_files/<slide>.pt``, a float32 tensor (N, D), and ``h5_files/<slide>.h5`` for CLAM.

    The attributes of CLAM's patches file are put on ``coords``, so that the tile size is not lost.

    Raises:
        BagError: the backbone or the stain has seen cases, which a tensor cannot tell.
        OSError: the disk is full or not writable; no part of a file is left behind.
    """
    import torch

    if _seen_cases(bag):
        raise BagError(
            f"{bag.slide}: its backbone or stain was fitted on cases that a .pt file cannot name, so they "
            "could be tested unnoticed. Use --to stamp, or bags of a backbone and stain fitted on none."
        )
    features = np.asarray(bag.features).astype(np.float32)
    image = io.BytesIO()
    torch.save(torch.from_numpy(features), image)
    write_atomic(folder / "pt_files" / f"{bag.slide}.pt", image.getbuffer())
    place = {
        "patch_size": bag.tile_px,
        "patch_level": 0,
        "downsample": [side / bag.tile_px for side in bag.side_l0],
        "level_dim": bag.size_l0,
        "name": bag.slide,
    }
    held = {"features": features, "coords": bag.coords_l0.astype(np.int32)}
    write_atomic(folder / "h5_files" / f"{bag.slide}.h5", _hdf5_image(held, coords=place))


# ----------------------------------------------------------------------------- from file to bag


def _build_bag(path: Path, layout: str, found: ForeignBag, given: SourceFacts) -> Bag:
    """What was found and given, checked against each other and put into one frame."""
    features = _check_features(path, found.features)
    tile_px = reconcile(path, "--tile", found.tile_px, given.tile_px)
    if not tile_px:
        raise BagError(
            f"{path}: does not say how many pixels wide a tile was read. Pass --tile, e.g. 224; for CLAM, "
            "--patches, the folder of its coordinates."
        )
    mpp, source = _slide_mpp(path, found, given)
    told_mpp = reconcile(path, "--mpp", found.target_mpp, given.target_mpp)
    side = _tile_side(path, found, given, mpp, tile_px * told_mpp if told_mpp else None)
    target_mpp = side[0] * mpp[0] / tile_px
    coords = _level0_coords(path, found, given, mpp, target_mpp)
    if len(coords) != len(features):
        raise BagError(
            f"{path}: {len(features)} feature vectors for {len(coords)} coordinates. They are not of one "
            "run; extract the slide again."
        )
    if found.centred:
        coords -= np.array(side) / 2
    size = reconcile(path, "the slide's size", found.size_l0, given.slide_size)
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
            "backbone": reconcile(path, "--encoder", found.encoder, given.encoder) or "unknown",
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


def _slide_mpp(
    path: Path, found: ForeignBag, given: SourceFacts
) -> tuple[tuple[float, float], str]:
    """Micrometres per level-0 pixel, (x, y), and where they are from."""
    if given.slide_mpp:
        return given.slide_mpp, given.mpp_source
    if found.nominal_mpp:
        return (found.nominal_mpp, found.nominal_mpp), "magnification"
    raise BagError(
        f"{path}: does not say its slide's micrometres per pixel, without which its lengths have no "
        "scale. Pass --slide-mpp, e.g. 0.25 for a 40x scan, or --slides, the folder with the slides."
    )


def _tile_side(
    path: Path,
    found: ForeignBag,
    given: SourceFacts,
    mpp: tuple[float, float],
    side_um: float | None,
) -> tuple[float, float]:
    """(width, height) of a tile in level-0 pixels."""
    given_l0 = (given.tile_l0, given.tile_l0) if given.tile_l0 else None
    told_l0 = reconcile(path, "--tile-l0", found.side_l0, given_l0)
    if told_l0:
        return (float(told_l0[0]), float(told_l0[1]))
    if side_um:
        return (side_um / mpp[0], side_um / mpp[1])
    raise BagError(
        f"{path}: does not say how large a tile is on the slide. Pass --mpp, the scale of the tiles, or "
        "--tile-l0, their side in level-0 pixels; for CLAM, --patches, the folder of its coordinates."
    )


def _check_features(path: Path, raw: NDArray[Any]) -> Any:
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


def _level0_coords(
    path: Path, found: ForeignBag, given: SourceFacts, mpp: tuple[float, float], target_mpp: float
) -> NDArray[np.float64]:
    """(N, 2) in level-0 pixels, corners or centres as found."""
    raw = found.coords[0] if found.coords.ndim == 3 and len(found.coords) == 1 else found.coords
    if raw.ndim != 2 or raw.shape[1] != 2 or raw.dtype.kind not in "fiu":
        raise BagError(
            f"{path}: coordinates {raw.shape} of {raw.dtype} are not (tiles, 2) numbers."
        )
    unit = reconcile(path, "--unit", found.unit, given.unit)
    if unit is None:
        step = np.diff(np.unique(raw[:, 0].astype(float))).min(initial=np.inf)
        raise BagError(
            f"{path}: does not say what its coordinates are in (they step by {step:g}). Pass --unit um, "
            "px (of level 0) or tile (pixels of the tiles' scale)."
        )
    unit_um = {"px": np.array(mpp), "um": 1.0, "tile": target_mpp}[unit]
    coords: NDArray[np.float64] = raw.astype(np.float64) * (unit_um / np.array(mpp))
    if not (np.abs(coords) < MAX_COORD_L0).all():
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


# ----------------------------------------------------------------------------- parts of files


# ----------------------------------------------------------------------------- writing


def _seen_cases(bag: Bag) -> dict[str, Any]:
    """Whom the backbone and the stain were fitted on; empty where on nobody."""
    told = {"trained_on": bag.trained_on, "stain_reference": bag.recipe.get("stain_reference")}
    return {name: value for name, value in told.items() if value}


def _hdf5_image(
    arrays: Mapping[str, NDArray[Any]],
    *,
    root: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> memoryview:
    """An HDF5 file in memory: a full disk cannot leave half of it."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        file.attrs.update(root or {})
        file["coords"].attrs.update(coords or {})
    return image.getbuffer()
