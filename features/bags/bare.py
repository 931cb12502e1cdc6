"""Features without places: many bags in one file, as the benchmarks of multiple-instance learning have them.

An npz file has the features (n, D) under one of their usual names and, under one of ``INDEX``, the bag that
each row belongs to; without these it is one bag, of the file's name. A table has a column of ``INDEX``; every
other column is a feature, but for those of ``OUTCOMES``, which are left out; one that may be none is refused.
The rows of a bag keep their order. They have no places, which the recipe states as ``region: no places``; the
coordinates of such a bag only number its rows.
"""

import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.bags.feature_tables import read_features, read_header, read_table
from features.bags.foreign_readers import ALIASES, SourceFacts, is_npz_vector, naming_errors
from features.columns.missing_words import MISSING_WORDS
from features.errors import BagError
from features.files.checksum import fingerprint
from features.recipe import NO_PLACES
from features.slides.names import slide_name

SHORTENED = re.compile(r"\d[.,]\d+e[+-]?\d+", re.IGNORECASE)  # 1.23E+10 of a long number
NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
INDEX = ("bag", "bags", "bag_id", "bag_index", "bag_ids", "slide", "slide_id")
OUTCOMES = ("y", "label", "labels", "class", "target", "bag_label", "instance_label", "y_inst")
UNNAMED = "arr_0"  # numpy's name of a single array
_PLACES = {*ALIASES["coords"], "x_l0", "y_l0", "coord_x", "coord_y", "x_coord", "y_coord"}


def is_bare(path: Path) -> bool:
    """Whether a file has features without places: with a bag index, or as the only array of an npz file."""
    names = {name.lower() for name in _names(path)}
    if path.suffix.lower() == ".npz" and _is_one_bag(names):
        with naming_errors(path):
            return not is_npz_vector(path)
    in_table = path.suffix.lower() == ".csv" and {"x", "y"} <= names
    return bool(names & set(INDEX)) and not names & _PLACES and not in_table


def _is_one_bag(names: Collection[str]) -> bool:
    """Whether arrays of these names are the features of one bag, beside its outcomes."""
    arrays = set(names) - set(OUTCOMES)
    return len(arrays) == 1 and arrays <= {*ALIASES["features"], UNNAMED}


def read_bare(path: Path, facts: SourceFacts | None = None) -> dict[str, Bag]:
    """The bags of a file by their names: those of the file's index, numbers with the file's name before them.

    Args:
        path: an npz file or a table.
        facts: what the file does not say: what made the features, and which columns are features.

    Raises:
        BagError: the file cannot be read, its index does not go with its features, or a column may be none.
    """
    facts = facts or SourceFacts()
    with naming_errors(path):
        if path.suffix.lower() == ".npz":
            (features, index), columns = _read_npz(path), ""
        else:
            features, index, columns = _read_csv(path, facts)
    if features.ndim != 2 or index.shape != features.shape[:1] or not len(features):
        raise BagError(
            f"{path}: features {features.shape} and the bag index {index.shape} have different lengths. "
            "Give (n, D) features and the bag of each of the n rows."
        )
    if features.dtype.kind not in "fiub" or not np.isfinite(features).all():
        raise BagError(
            f"{path}: its features are not all finite numbers. Correct or remove such rows."
        )
    recipe = {
        "backbone": facts.encoder or "unknown",
        "weights": "converted from features without places",
        "precision": "fp32",
        "region": NO_PLACES,
        "layout": "bare",
        **({"columns": columns} if columns else {}),
    }
    return dict(_bags(path, features.astype(np.float32), index, recipe))


def _bags(
    path: Path, features: NDArray[np.float32], index: NDArray[Any], recipe: dict[str, Any]
) -> Iterator[tuple[str, Bag]]:
    values, bag_of = np.unique(index, return_inverse=True)
    for number, name in enumerate(_bag_names(path, values)):
        rows = features[bag_of == number]
        side = int(np.ceil(np.sqrt(len(rows))))
        places = np.arange(len(rows))
        bag = Bag(
            slide=name,
            features=rows,
            coords_l0=np.stack([places % side, places // side], axis=1).astype(np.int64),
            coverage=np.ones(len(rows), np.float32),
            side_l0=(1.0, 1.0),
            size_l0=(side, side),
            mpp_l0=(1.0, 1.0),
            mpp_source="given",
            tile_px=1,
            target_mpp=1.0,
            recipe=recipe,
        )
        request = fingerprint({"recipe": recipe, "data": bag.data_sha256})
        yield name, replace(bag, request_sha256=request)


def _bag_names(path: Path, values: NDArray[Any]) -> list[str]:
    if values.dtype.kind in "iu" or (
        values.dtype.kind == "f" and (values == np.round(values)).all()
    ):
        digits = len(str(int(values.max())))
        return [f"{path.stem}-{int(value):0{digits}d}" for value in values]
    if values.dtype.kind == "f":
        odd = next(float(value) for value in values if value != np.round(value))
        raise BagError(
            f"{path}: the bag index holds {odd:g}. It numbers or names bags: write whole numbers or "
            "names."
        )
    return _checked_names(path, values)


def _checked_names(path: Path, values: NDArray[Any]) -> list[str]:
    """Names of bags as a table of cases spells slides: without the ending of a slide's file.

    Raises:
        BagError: one is missing, leads out of the store, was shortened by a spreadsheet, or is another in
            other letters.
    """
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    written = [str(value) for value in values]
    for name in written:
        parts = name.replace("\\", "/").split("/")
        if name.strip().casefold() in MISSING_WORDS or any(part.startswith(".") for part in parts):
            raise BagError(
                f"{path}: {name!r} names a bag. Write the name of the slide in every row, or remove rows "
                "without one."
            )
        if SHORTENED.fullmatch(name):
            raise BagError(
                f"{path}: {name!r} was shortened by a spreadsheet, so that several bags may have become one. "
                "Export the table again with this column as text."
            )
    _refuse_twins(path, written, [name.strip().casefold() for name in written])
    names = [slide_name(name.strip()) for name in written]
    _refuse_twins(path, written, names)
    return names


def _refuse_twins(path: Path, written: Sequence[str], seen_as: Sequence[Any]) -> None:
    """Refuse two names of bags that are seen as one.

    Raises:
        BagError: naming both.
    """
    first: dict[Any, str] = {}
    for name, seen in zip(written, seen_as, strict=True):
        if (twin := first.setdefault(seen, name)) != name:
            raise BagError(
                f"{path}: {twin!r} and {name!r} differ in spelling only. Write the name of a bag alike in "
                "all of its rows, or make the difference plain."
            )


def _names(path: Path) -> Sequence[str]:
    """The names of the arrays or columns of a file; none if it is no such file."""
    if path.suffix.lower() == ".npz" and zipfile.is_zipfile(path):
        with naming_errors(path), zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    if path.suffix.lower() == ".csv":
        with naming_errors(path):
            return read_header(path)[1]
    return []


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        named = {name.lower(): name for name in arrays.files}
        usual = (*ALIASES["features"], UNNAMED)
        features = next((named[name] for name in usual if name in named), None)
        if features is None:
            raise BagError(
                f"{path}: none of {', '.join(arrays.files)} means features. Name one of them features."
            )
        values = np.asarray(arrays[features])
        if _is_one_bag(named):
            return values, np.full(len(np.atleast_1d(values)), path.stem)
        index = next(named[name] for name in INDEX if name in named)
        return values, np.asarray(arrays[index])


def _read_csv(path: Path, facts: SourceFacts) -> tuple[NDArray[np.float64], NDArray[Any], str]:
    """Features, the bag of each row, and the names of the columns of features."""
    table = read_table(path)
    lower = [name.lower() for name in table.header]
    at = next(lower.index(name) for name in INDEX if name in lower)
    named = [any(fnmatchcase(name, one) for one in facts.feature_columns) for name in table.header]
    others = {
        i for i, name in enumerate(lower) if name in (*INDEX, *OUTCOMES, "") and not named[i]
    } | {at}
    names = table.cells(at)
    _, bag_of = np.unique(names, return_inverse=True)
    features, columns = read_features(table, others, facts, bag_of)
    if not all(NUMBER.fullmatch(name) for name in names):
        return features, np.array(names), columns
    return features, np.array([float(name.replace(",", ".")) for name in names]), columns
