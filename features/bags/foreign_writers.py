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
            f"{bag.slide}: features reach {np.abs(features).max():g}, and float16, the precision of STAMP, "
            "ends at 65504. Use the bag as it is, or write the layout clam."
        )
    extractor = [str(bag.recipe.get("backbone", "unknown"))]
    if str(bag.recipe.get("weights", "")).startswith("random"):
        extractor.append("random weights")
    if bag.recipe.get(
        "held_out"
    ):  # STAMP has no field for it; the tiles must not pass for the sample
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
        BagError: the backbone or the stain was fitted on cases, which a tensor cannot record.
        OSError: the disk is full or not writable; no part of a file is left behind.
    """
    import torch

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
        file["coords"].attrs.update(coords or {})
    return image.getbuffer()
