"""Write bags as the files of other tools, one function per layout."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.bags.foreign_readers import SEEN
from features.errors import BagError
from features.files.atomic import write_atomic
from features.recipe import NO_PLACES, is_vector


def write_stamp(path: Path, bag: Bag) -> None:
    """Write a bag as STAMP's tile features: feats float16 (N, D), coords float32 (N, 2) micrometres.

    The vector of a slide or case becomes what STAMP's slide encoders write: feats float32 (1, D).

    Raises:
        BagError: a feature is too large for float16, the only precision STAMP knows, or the rows have no
            places.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    _check_places(bag, "STAMP")
    if is_vector(bag.recipe):
        _write_stamp_vector(path, bag)
        return
    features = np.asarray(bag.features)
    with np.errstate(over="ignore"):
        feats = features.astype(np.float16)
    if not np.isfinite(feats).all():
        raise BagError(
            f"{bag.slide}: features reach {np.abs(features).max():g}, and float16, the precision of STAMP, "
            "ends at 65504. Use the bag as it is, or write the layout clam."
        )
    attributes = {
        **_stamp_origin(bag),
        "extractor": _stamp_extractor(bag),
        "unit": "um",
        "tile_size_um": bag.side_l0[0] * bag.mpp_l0[0],
        "tile_size_px": bag.tile_px,
        "feat_type": "tile",
    }
    coords_um = (bag.coords_l0 * bag.mpp_l0).astype(np.float32)
    write_atomic(path, _hdf5_image({"feats": feats, "coords": coords_um}, root=attributes))


def _write_stamp_vector(path: Path, bag: Bag) -> None:
    attributes = {
        **_stamp_origin(bag),
        "encoder": _stamp_extractor(bag),
        "precision": "torch.float32",
        "feat_type": "patient" if bag.recipe.get("joined") == "case" else "slide",
    }
    feats = np.asarray(bag.features).astype(np.float32)
    write_atomic(path, _hdf5_image({"feats": feats}, root=attributes))


def _stamp_origin(bag: Bag) -> dict[str, Any]:
    """STAMP refuses files of versions newer than itself."""
    seen = _seen_cases(bag)
    return {**({SEEN: json.dumps(seen)} if seen else {}), "stamp_version": "2.0.0"}


def _stamp_extractor(bag: Bag) -> str:
    """The name of the backbone, with what STAMP has no field for and must not be lost."""
    extractor = [str(bag.recipe.get("backbone", "unknown"))]
    if str(bag.recipe.get("weights", "")).startswith("random"):
        extractor.append("random weights")
    if bag.recipe.get("held_out"):  # the tiles must not pass for the sample
        extractor.append("held-out tiles")
    return ", ".join(extractor)


def _check_places(bag: Bag, tool: str) -> None:
    """Refuse rows without places, whose numbers would be taken for places on a slide.

    Raises:
        BagError: naming the tool.
    """
    if bag.recipe.get("region") == NO_PLACES:
        raise BagError(
            f"{bag.slide}: its features have no places, and {tool} would take their numbers for places on a "
            "slide. Use the bag as it is: HDF5 with the array features."
        )


def write_clam(folder: Path, bag: Bag) -> None:
    """Write ``pt_files/<slide>.pt``, a float32 tensor (N, D), and ``h5_files/<slide>.h5`` for CLAM.

    The attributes of CLAM's patches file are put on ``coords``, so that the tile size is not lost.

    Raises:
        BagError: the backbone or the stain was fitted on cases, which a tensor cannot record; or the rows
            are no tiles.
        OSError: the disk is full or not writable; no part of a file is left behind.
    """
    import torch

    _check_places(bag, "CLAM")
    if is_vector(bag.recipe):
        raise BagError(
            f"{bag.slide}: one vector, and CLAM would take it for a tile. Write the layout stamp, or use the "
            "bag as it is: HDF5 with the array features."
        )
    if _seen_cases(bag):
        raise BagError(
            f"{bag.slide}: its backbone or stain was fitted on cases that a .pt file cannot name, so they "
            "could be tested unnoticed. Write the layout stamp, or extract bags with a backbone and stain "
            "fitted on none."
        )
    features = np.asarray(bag.features).astype(np.float32)
    image = io.BytesIO()
    torch.save(torch.from_numpy(features), image)
    write_atomic(folder / "pt_files" / f"{bag.slide}.pt", image.getbuffer())
    patch_attributes = {
        "patch_size": bag.tile_px,
        "patch_level": 0,
        "downsample": [side / bag.tile_px for side in bag.side_l0],
        "level_dim": bag.size_l0,
        "name": bag.slide,
    }
    arrays = {"features": features, "coords": bag.coords_l0.astype(np.int32)}
    write_atomic(
        folder / "h5_files" / f"{bag.slide}.h5", _hdf5_image(arrays, coords=patch_attributes)
    )


def _seen_cases(bag: Bag) -> dict[str, Any]:
    """The cases that the backbone and the stain were fitted on; empty if there are none."""
    fitted = {
        "trained_on": bag.trained_on,
        "trained_on_slides": bag.trained_on_slides,
        "stain_reference": bag.recipe.get("stain_reference"),
    }
    return {name: value for name, value in fitted.items() if value}


def _hdf5_image(
    arrays: Mapping[str, NDArray[Any]],
    *,
    root: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> memoryview:
    """An HDF5 file in memory, so that a full disk cannot leave half of it."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        file.attrs.update(root or {})
        if coords:
            file["coords"].attrs.update(coords)
    return image.getbuffer()
