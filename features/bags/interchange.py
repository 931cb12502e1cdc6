"""Make bags from the features that other tools wrote, and files of other tools from bags.

    layout     file                                            coordinates, all in (x, y)
    trident    .h5: features, coords; attrs on coords          level-0 pixels, top-left
    clam       .h5: features, coords, or .pt; with a patches   level-0 pixels, top-left
               file, which alone says how large a tile is
    stamp      .h5: feats (or patch_embeddings), coords        micrometres, top-left
    slideflow  .pt with <slide>.index.npz, bags_config.json    level-0 pixels, centres
    npz        features|feats|embeddings|x, coords|coordinates|xy, perhaps tile_px; in ``unit``
    csv        columns x and y, every other one a feature      in ``unit``
    vector     .h5: features (D,), of a whole slide            none

A bag records the scale of its slide. Most of these files do not, and it is never guessed.

The cases that backbone and stain were fitted on go with a bag: the root attribute ``sarcomil_seen`` of HDF5
files is JSON of ``trained_on`` and ``stain_reference``. A layout that cannot record them refuses such bags.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.arrays import are_all_equal
from features.bags.bag import Bag, read_bag, validate_bag
from features.bags.foreign_readers import (
    ForeignBag,
    SourceFacts,
    naming_errors,
    read_seen_cases,
    reconcile,
)
from features.bags.layouts import LAYOUTS, NATIVE, WRITABLE, detect_layout, is_bag
from features.bags.vectors import vector_bag
from features.errors import BagError
from features.files.checksum import fingerprint
from features.recipe import is_vector
from features.slides.names import slide_name

SCALE_TOLERANCE = 0.01  # relative difference between two statements of one scale that is reported
MAX_COORD_L0 = 2**31  # no slide is that wide; CLAM stores coordinates in 32 bits


def read_foreign(
    path: Path,
    *,
    layout: str = "auto",
    facts: SourceFacts | None = None,
    slide: str = "",
    case: str = "",
) -> Bag:
    """Read one slide's features as another tool wrote them; a bag of this library is returned unchanged.

    Coverage is unknown and set to 1. If the size of the slide is unknown, the slide is taken to end with
    its last tile. ``recipe`` is the same for all slides of one foreign store.

    Args:
        path: the file with the features.
        layout: one of ``LAYOUTS``; ``auto`` detects it from the content.
        facts: what the file does not say. Contradicting the file is an error.
        slide: the bag's name; by default the file's.
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
    facts = facts or SourceFacts()
    with naming_errors(path):
        foreign = LAYOUTS[layout].read(path, facts)
        seen = read_seen_cases(path)
        bag = _build_bag(path, layout, foreign, facts)
    if reference := seen.get("stain_reference"):
        bag = replace(bag, recipe={**bag.recipe, "stain_reference": reference})
    trained_on = tuple(seen.get("trained_on", ()))
    bag = replace(
        bag,
        trained_on=trained_on,
        trained_on_slides=tuple(seen.get("trained_on_slides", ())),
    )
    return _identified(bag, slide or slide_name(path.stem), case)


def make_bag(
    slide: str,
    features: NDArray[Any],
    coords: NDArray[Any],
    *,
    tile_px: int,
    mpp: float,
    slide_mpp: float,
    encoder: str = "unknown",
    case: str = "",
) -> Bag:
    """A bag from arrays: the features of a slide's tiles, and where the tiles lie.

    Bags of one encoder, tile and mpp may be learnt from together, also with files that ``convert`` has read.
    Coverage is set to 1, and the slide is taken to end with its last tile.

    Args:
        slide: its name.
        features: (N, D) numbers; float16 stays, other types become float32.
        coords: (N, 2) top-left corner (x, y) of each tile, in pixels of level 0.
        tile_px: side of a tile in pixels, as the encoder has read it.
        mpp: micrometres per pixel of a tile as it was read.
        slide_mpp: micrometres per pixel of level 0.
        encoder: the network that made the features.
        case: the patient, if known.

    Raises:
        BagError: the arrays do not belong together or are not finite, or a length is not above 0.

    Example:
        import numpy as np

        rng = np.random.default_rng(0)
        corners = np.array([[0, 0], [448, 0], [0, 448]])
        bag = features.make_bag(
            "mine-s1", rng.normal(size=(3, 8)), corners, tile_px=224, mpp=0.5, slide_mpp=0.25, case="mine"
        )
        features.write_bag("mine/mine-s1.h5", bag)
        print(bag.dim, bag.side_l0)
        # 8 (448.0, 448.0)
    """
    facts = SourceFacts(
        slide_mpp=(slide_mpp, slide_mpp),
        tile_px=tile_px,
        target_mpp=mpp,
        unit="px",
        encoder=encoder,
    )
    foreign = ForeignBag(features=np.asarray(features), coords=np.asarray(coords))
    if foreign.features.ndim != 2:
        raise BagError(f"{slide}: features {foreign.features.shape} are not (tiles, features).")
    return _identified(_build_bag(Path(slide), "npz", foreign, facts), slide, case)


def _identified(bag: Bag, slide: str, case: str) -> Bag:
    """The bag under its name, with the fingerprint of what it was made from."""
    bag = replace(bag, slide=slide, case=case)
    geometry = {"side_l0": bag.side_l0, "mpp_l0": bag.mpp_l0, "size_l0": bag.size_l0}
    request = {"recipe": bag.recipe, "data": bag.data_sha256, "case": case, **geometry}
    return replace(bag, request_sha256=fingerprint(request))


def write_foreign(folder: Path, bag: Bag, layout: str) -> None:
    """Write a bag in the layout of another tool.

    Args:
        folder: where the tool's files go.
        bag: of this library.
        layout: one of ``features.bags.layouts.WRITABLE``.

    Raises:
        BagError: the layout is unknown, or cannot hold this bag.
        OSError: the disk is full or not writable.
    """
    write = LAYOUTS[layout].write if layout in LAYOUTS else None
    if write is None:
        raise BagError(f"Bags are written as {' or '.join(WRITABLE)}; got {layout!r}.")
    write(folder, bag)


def conversion_notes(bag: Bag) -> tuple[str, ...]:
    """What users of a converted bag should know, in sentences."""
    if is_vector(bag.recipe):
        return ("One vector for the whole slide: for models that pool, and without maps.",)
    notes = []
    doubled = len(bag) - len(np.unique(bag.coords_l0, axis=0))
    if doubled:
        notes.append(f"{doubled} of {len(bag)} tiles have the coordinates of another tile.")
    if are_all_equal(bag.features):
        notes.append(
            f"All {len(bag)} tiles have the same features: whatever made them saw nothing."
        )
    beyond = (bag.coords_l0 < 0) | (bag.coords_l0 + bag.side_l0 > np.add(bag.size_l0, 1))
    if beyond.any():
        notes.append(f"{beyond.any(axis=1).sum()} of {len(bag)} tiles reach over the slide's edge.")
    if bag.mpp_source == "magnification":
        notes.append(
            "The scale is the nominal one of its magnification. Set slide_mpp to the true one."
        )
    nominal = bag.recipe.get("mpp")
    if nominal and abs(bag.target_mpp / nominal - 1) > SCALE_TOLERANCE:
        notes.append(
            f"Tiles should have {nominal:.4g} micrometres per pixel, but are {bag.side_l0[0]:g} "
            f"level-0 pixels wide, which makes {bag.target_mpp:.4g}."
        )
    return tuple(notes)


def _build_bag(path: Path, layout: str, foreign: ForeignBag, facts: SourceFacts) -> Bag:
    """A bag from the file's content and the user's facts, checked against each other."""
    if foreign.features.ndim == 1:  # of the whole slide
        vector = _check_features(path, foreign.features[None])[0]
        return vector_bag(path.stem, vector, _recipe(path, layout, foreign, facts, vector))
    features = _check_features(path, foreign.features)
    tile_px = reconcile(path, "tile_px", foreign.tile_px, facts.tile_px)
    if not tile_px:
        raise BagError(
            f"{path}: does not say how many pixels wide a tile was read. Set tile_px, e.g. 224; for CLAM, "
            "set patches to the folder of its coordinates."
        )
    mpp, source = _slide_mpp(path, foreign, facts)
    nominal_mpp = reconcile(path, "target_mpp", foreign.target_mpp, facts.target_mpp)
    side = _tile_side(path, foreign, facts, mpp, tile_px * nominal_mpp if nominal_mpp else None)
    target_mpp = side[0] * mpp[0] / tile_px
    coords = _level0_coords(path, foreign, facts, mpp, target_mpp)
    if len(coords) != len(features):
        raise BagError(
            f"{path}: {len(features)} feature vectors for {len(coords)} coordinates. They are not of one "
            "run; extract the slide again."
        )
    if foreign.centred:
        coords -= np.array(side) / 2
    size = reconcile(path, "slide_size", foreign.size_l0, facts.slide_size)
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
            "mpp": nominal_mpp or target_mpp,
            "tile": int(tile_px),
            "region": "converted",
            "coverage": "unknown, set to 1",
            **_recipe(path, layout, foreign, facts, features),
        },
    )


def _recipe(
    path: Path, layout: str, foreign: ForeignBag, facts: SourceFacts, features: NDArray[Any]
) -> dict[str, Any]:
    """What made the features, as far as it is known."""
    return {
        "backbone": reconcile(path, "encoder", foreign.encoder, facts.encoder) or "unknown",
        "weights": f"converted from {LAYOUTS[layout].tool}",
        "precision": f"fp{8 * features.dtype.itemsize}",
        "layout": layout,
        **foreign.recipe,
    }


def _slide_mpp(
    path: Path, foreign: ForeignBag, facts: SourceFacts
) -> tuple[tuple[float, float], str]:
    """Micrometres per level-0 pixel, (x, y), and their source."""
    if facts.slide_mpp:
        return facts.slide_mpp, facts.mpp_source
    if foreign.nominal_mpp:
        return (foreign.nominal_mpp, foreign.nominal_mpp), "magnification"
    raise BagError(
        f"{path}: does not say its slide's micrometres per pixel, without which its lengths have no "
        "scale. Set slide_mpp, e.g. 0.25 for a 40x scan, or set slides to the folder with the slides."
    )


def _tile_side(
    path: Path,
    foreign: ForeignBag,
    facts: SourceFacts,
    mpp: tuple[float, float],
    side_um: float | None,
) -> tuple[float, float]:
    """(width, height) of a tile in level-0 pixels."""
    supplied = (facts.tile_l0, facts.tile_l0) if facts.tile_l0 else None
    side_l0 = reconcile(path, "tile_l0", foreign.side_l0, supplied)
    if side_l0:
        return (float(side_l0[0]), float(side_l0[1]))
    if side_um:
        return (side_um / mpp[0], side_um / mpp[1])
    raise BagError(
        f"{path}: does not say how large a tile is on the slide. Set target_mpp to the scale of the tiles, "
        "or tile_l0 to their side in level-0 pixels; for CLAM, set patches to the folder of its coordinates."
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
            f"{path}: features {raw.shape} are not (tiles, features), nor one vector (features,)."
        )
    with np.errstate(over="ignore"):
        features = values if values.dtype == np.float16 else values.astype(np.float32)
    if not np.isfinite(features).all():
        raise BagError(
            f"{path}: features are not finite (NaN, infinite or beyond float32). Extract the slide again."
        )
    return features


def _level0_coords(
    path: Path,
    foreign: ForeignBag,
    facts: SourceFacts,
    mpp: tuple[float, float],
    target_mpp: float,
) -> NDArray[np.float64]:
    """(N, 2) in level-0 pixels, corners or centres as in the file."""
    raw = foreign.coords
    raw = raw[0] if raw.ndim == 3 and len(raw) == 1 else raw
    if raw.ndim != 2 or raw.shape[1] != 2 or raw.dtype.kind not in "fiu":
        raise BagError(
            f"{path}: coordinates {raw.shape} of {raw.dtype} are not (tiles, 2) numbers."
        )
    unit = reconcile(path, "unit", foreign.unit, facts.unit)
    if unit is None:
        step = np.diff(np.unique(raw[:, 0].astype(float))).min(initial=np.inf)
        raise BagError(
            f"{path}: does not say the unit of its coordinates (they step by {step:g}). Set unit to um, to "
            "px (of level 0) or to tile (pixels of the tiles' scale)."
        )
    unit_um = {"px": np.array(mpp), "um": 1.0, "tile": target_mpp}[unit]
    coords: NDArray[np.float64] = raw.astype(np.float64) * (unit_um / np.array(mpp))
    if not (np.abs(coords) < MAX_COORD_L0).all():
        raise BagError(
            f"{path}: coordinates are not finite or larger than any slide. Extract it again."
        )
    return coords


def _check_inside(
    path: Path, coords: NDArray[np.float64], side: tuple[float, float], size: tuple[int, int] | None
) -> None:
    """Refuse tiles that lie outside the slide: unit, scale or slide are wrong. The edge may be crossed."""
    outside = (coords + side <= 0) | (coords >= (size or (np.inf, np.inf)))
    if outside.any():
        row = int(outside.any(axis=1).argmax())
        raise BagError(
            f"{path}: {outside.any(axis=1).sum()} of {len(coords)} tiles lie outside the slide "
            f"({size or 'of unknown size'}), e.g. at {coords[row].tolist()}. Check its scale and unit."
        )
