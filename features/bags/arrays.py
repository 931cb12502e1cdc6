"""The arrays of a bag, of any size: read in chunks, fingerprinted, and rounded where that changes little."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 8 << 20
SEVERAL = 3  # rows that are not equal by chance
FLOAT16_ERROR = 1e-3  # largest relative rounding error at which half precision is used


def chunks(features: Any) -> Iterator[NDArray[np.floating]]:
    """Features in chunks, so that a bag of any size needs little memory."""
    rows = max(1, CHUNK_BYTES // max(1, 4 * features.shape[-1]))
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows])


def are_all_equal(features: Any) -> bool:
    """Whether several rows of features are one and the same, as of a network that sees nothing.

    Args:
        features: (N, D); where the last row is not the first, no more than these are read.
    """
    first = np.asarray(features[:1])
    if len(features) < SEVERAL or not np.array_equal(features[-1:], first):
        return False
    return all(bool((rows == first).all()) for rows in chunks(features))


def hash_arrays(
    features: Iterable[NDArray[np.floating]],
    coords: NDArray[np.int64],
    coverage: NDArray[np.float32],
) -> str:
    """SHA-256 of the arrays that learning reads, of features in chunks."""
    digest = hashlib.sha256()
    for values in itertools.chain(features, (coords, coverage)):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def compact(features: Any) -> Any:
    """Half precision if that changes the features by at most 0.1 %, else unchanged."""
    error = norm = 0.0
    for chunk in chunks(features):
        with np.errstate(over="ignore"):
            half = chunk.astype(np.float16)
        if not np.isfinite(half).all():
            return features
        error += float(np.square(half.astype(np.float64) - chunk).sum())
        norm += float(np.square(chunk.astype(np.float64)).sum())
    return features.astype(np.float16) if error <= FLOAT16_ERROR**2 * norm else features
