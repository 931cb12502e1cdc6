"""Stain normalisation: render a slide as if it had been stained like the reference.

The statistics of a slide are fitted once on a sample of all its tiles; fitted per tile, they would follow
the tissue instead of the stain. The reference is fitted once on named slides and stores their cases, so
that a cross-validation knows which cases it has seen.

``macenko``: M. Macenko et al., A method for normalizing histology slides for quantitative analysis,
ISBI 2009. ``reinhard``: E. Reinhard et al., Color transfer between images, IEEE Computer Graphics and
Applications 21(5), 2001.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.choices import suggest
from features.errors import FeaturesError
from features.files.atomic import write_atomic
from features.files.checksum import fingerprint
from features.files.parse import parse_json
from features.stored import check_version
from features.tiles.quality import COLOURED, OPAQUE

METHODS = ("macenko", "reinhard")
FORMAT, FORMAT_VERSION = "mil-stain", 1

WHITE = 255
MIN_DENSITY = 0.15  # beta of Macenko et al.: a pixel that absorbs less in every channel is glass
TAIL = 1  # alpha of Macenko et al., in per cent: the robust minimum and maximum
MIN_PIXELS, MAX_PIXELS = 8000, 250_000  # a sixth of one 224 px tile; more do not move the tails
MIN_ANGLE = 10.0  # degrees between two stains: real H&E has 15 to 50, cartilage without eosin 6

DENSITY = -np.log10(np.maximum(np.arange(256), 1) / WHITE)  # eq. 1 of Macenko et al.
# 1 where a pixel's darkest channel counts as stained, falling to 0 for white.
STAINED = np.minimum(DENSITY / MIN_DENSITY, 1).astype(np.float32)
# Reinhard et al., eq. 4 and 6.
LMS_FROM_RGB = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
)
LAB_FROM_LMS = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])


@dataclass(frozen=True)
class Stain:
    """The stain of one slide or of the reference.

    Attributes:
        method: one of ``METHODS``.
        values: two triples. ``macenko``: optical density (R, G, B) of strong haematoxylin and of strong
            eosin, in this order. ``reinhard``: mean and standard deviation of l, alpha and beta, in natural
            logarithms.

    Raises:
        FeaturesError: the method is unknown, or the values are not 2 x 3 finite numbers.
    """

    method: str
    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        _check_method(self.method)
        try:
            valid = np.shape(self.values) == (2, 3) and bool(np.isfinite(self.values).all())
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise FeaturesError(
                f"A stain has 2 x 3 finite numbers; got {self.values!r}. Fit it again."
            )

    def to_json(self) -> dict[str, Any]:
        """As plain values that ``from_json`` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Stain":
        """The stain that ``to_json`` wrote.

        Raises:
            FeaturesError: the document is not a stain.
        """
        try:
            return cls(str(document["method"]), _triples(document["values"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FeaturesError(
                f"Not a stain: {document!r} ({error!r}). Give method and values as they were written."
            ) from error


@dataclass(frozen=True)
class StainReference:
    """The stain to which all slides are normalised, and where it comes from.

    Attributes:
        target: its statistics.
        slides: the slides on which it was fitted.
        cases: their cases, on which a model that used it must not be tested; empty if unknown.
        sources: fingerprints of the slides, as ``Bag.sources``; empty if unknown.

    Raises:
        FeaturesError: no slide is named.
    """

    target: Stain
    slides: tuple[str, ...]
    cases: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.slides:
            raise FeaturesError(
                "A stain reference needs at least one slide; got none. Name the slides of its fit."
            )

    def to_json(self) -> dict[str, Any]:
        """Its fields; without sources where they are unknown, so that older references stay the same."""
        return {name: value for name, value in asdict(self).items() if value or name != "sources"}

    @property
    def sha256(self) -> str:
        """Fingerprint of all that is in it."""
        return fingerprint(self.to_json())


def fit_stain(method: str, tiles: NDArray[np.uint8]) -> Stain:
    """Fit the stain of a sample of tiles.

    Args:
        method: one of ``METHODS``.
        tiles: (B, H, W, 3) RGB, a sample of one slide (or of the reference slides); 20 to 100 will do.

    Raises:
        FeaturesError: the method is unknown, there is too little stained tissue, or it has one colour only.
    """
    _check_method(method)
    pixels = _stained_pixels(tiles)
    if len(pixels) < MIN_PIXELS:
        raise FeaturesError(
            f"{len(pixels)} stained pixels in {len(tiles)} tiles; {MIN_PIXELS} are needed to measure a "
            "stain. Take more tiles, or leave stain normalisation off for slides that are not H&E."
        )
    fit = _fit_macenko if method == "macenko" else _fit_reinhard
    return Stain(method, _triples(fit(pixels[:: 1 + len(pixels) // MAX_PIXELS])))


def normalise(tiles: NDArray[np.uint8], source: Stain, target: Stain) -> NDArray[np.uint8]:
    """Render tiles stained like ``source`` as if they were stained like ``target``.

    White stays white with both methods. Safe to call from several threads.

    Args:
        tiles: (B, H, W, 3) RGB.
        source: the stain of the slide the tiles come from.
        target: the stain of the reference.

    Returns:
        (B, H, W, 3), a new array.

    Raises:
        FeaturesError: the two were fitted with different methods.
    """
    if source.method != target.method:
        raise FeaturesError(
            f"The slide's stain was fitted with {source.method}, the reference's with {target.method}. "
            "Fit both with the same method."
        )
    transfer = _transfer_macenko if source.method == "macenko" else _transfer_reinhard
    result = np.empty_like(tiles)
    # Tile by tile, so that the arrays stay in the processor's cache.
    for tile, normalised in zip(tiles, result, strict=True):
        normalised[:] = transfer(tile, np.array(source.values), np.array(target.values))
    return result


def save_reference(path: Path, reference: StainReference) -> None:
    """Write a reference as JSON, atomically."""
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **reference.to_json()}
    write_atomic(path, json.dumps(document, indent=1) + "\n")


def load_reference(path: Path) -> StainReference:
    """Read a reference that ``save_reference`` wrote.

    Raises:
        FeaturesError: the file is missing, is not a stain reference, or was written by a newer version.
    """
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"not {FORMAT}")
        version = int(document["format_version"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    check_version(path, version, FORMAT_VERSION, FeaturesError)
    try:
        slides, cases = document["slides"], document["cases"]
        if not (isinstance(slides, list) and isinstance(cases, list)):
            raise ValueError(f"slides and cases are lists; got {slides!r} and {cases!r}")
        target = Stain.from_json(document["target"])
        sources = tuple(map(str, document.get("sources", ())))
        return StainReference(target, tuple(map(str, slides)), tuple(map(str, cases)), sources)
    except (KeyError, TypeError, ValueError, FeaturesError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FeaturesError:
    return FeaturesError(
        f"{path}: cannot be read as a stain reference ({type(error).__name__}: {error}). "
        "Fit the reference again."
    )


def _triples(rows: Iterable[Iterable[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in rows)


def _check_method(method: str) -> None:
    if method not in METHODS:
        hint = suggest(method, METHODS)
        raise FeaturesError(f"No stain method {method!r}.{hint} Known: {', '.join(METHODS)}.")


def _stained_pixels(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(P, 3) pixels whose colour comes from the stain: no glass, grey, black or ink."""
    red, green, blue = np.moveaxis(tiles, -1, 0)
    low = np.minimum(np.minimum(red, green), blue)
    spread = np.maximum(np.maximum(red, green), blue) - low
    stained = (DENSITY[low] >= MIN_DENSITY) & (low >= OPAQUE) & (spread >= COLOURED)
    return np.asarray(tiles[stained])


def _fit_macenko(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(2, 3) optical density of strong haematoxylin and strong eosin: the steps of Algorithm 1."""
    density = DENSITY[pixels]
    # The axes of the SVD of the densities, not centred: the plane of two stains contains the origin.
    _, axes = np.linalg.eigh(density.T @ density)
    plane = axes[:, :0:-1] * np.where(axes[:, :0:-1].sum(axis=0) < 0, -1, 1)
    along, across = (density @ plane).T
    angles = np.percentile(np.arctan2(across, along), (TAIL, 100 - TAIL))
    angle = np.degrees(angles[1] - angles[0])
    if angle < MIN_ANGLE:
        raise FeaturesError(
            f"The tissue has one colour only: its two stains are {angle:.1f} degrees apart. Take more "
            "tiles, use reinhard, or leave stain normalisation off for this slide."
        )
    stains = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T
    # Haematoxylin is blue, eosin pink: the one that absorbs more red is haematoxylin.
    stains = stains[np.argsort(-stains[:, 0])]
    amounts = density @ np.linalg.pinv(stains)  # eq. 3
    return np.asarray(stains * np.percentile(amounts, 100 - TAIL, axis=0)[:, None])


def _transfer_macenko(
    tile: NDArray[np.uint8], source: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Replace the source's stains by the target's in the same amounts: a 3 x 3 matrix on densities.

    As in the paper, colours that are no mixture of two stains are lost: red cells, ink, tinted glass.
    """
    matrix = (-np.log(10) * np.linalg.pinv(source) @ target).astype(np.float32)
    logarithm = DENSITY.astype(np.float32)[tile] @ matrix
    return _to_uint8(WHITE * np.exp(np.minimum(logarithm, 0)))


def _log_lms(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., 3) logarithms of the cone responses (eq. 4 and 5); black counts as 1 of 255."""
    lms = pixels.astype(np.float32) @ LMS_FROM_RGB.T.astype(np.float32)
    return np.asarray(np.log(np.maximum(lms, 1)))


def _fit_reinhard(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(2, 3) mean and standard deviation of l, alpha and beta over stained pixels."""
    lab = _log_lms(pixels).astype(np.float64) @ LAB_FROM_LMS.T
    mean, deviation = lab.mean(axis=0), lab.std(axis=0)
    if deviation.min() < 1e-4:
        raise FeaturesError(
            f"The tissue has one colour only (standard deviations {deviation.round(6).tolist()}). "
            "Take more tiles, or leave stain normalisation off for this slide."
        )
    return np.stack([mean, deviation])


def _transfer_reinhard(
    tile: NDArray[np.uint8], source: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Shift and scale l, alpha and beta (eq. 10 and 11) of stained pixels.

    The paper changes every pixel, glass included. Here the change fades out from stained to white.
    """
    back = np.linalg.inv(LAB_FROM_LMS)
    matrix = back @ np.diag(target[1] / source[1]) @ LAB_FROM_LMS
    shift = back @ (target[0] - target[1] / source[1] * source[0])
    logarithm = _log_lms(tile) @ matrix.T.astype(np.float32) + shift.astype(np.float32)
    lms = np.exp(
        np.minimum(logarithm, np.log(np.float32(WHITE)))
    )  # no response exceeds that of white
    rgb = lms @ np.linalg.inv(LMS_FROM_RGB).T.astype(np.float32)
    low = np.minimum(np.minimum(tile[..., 0], tile[..., 1]), tile[..., 2])
    return _to_uint8(tile + STAINED[low][..., None] * (rgb - tile))


def _to_uint8(rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(rgb + 0.5, 0, WHITE), np.uint8)
