"""What identifies a slide, whatever its file and its case are called: its files, and its decoded pixels.

A file that is saved again without loss, or to which bytes are appended, is another file with the same pixels.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import PIXELS
from features.errors import SlideError, TileError
from features.extraction.jobs import SlideJob, identify_files
from features.files.checksum import fingerprint
from features.slides.slide import Slide
from features.tiles.folders import read_images
from features.volumes.film import read_facts

SIDE_PX = 32  # of a square of level 0
GRIDS = (6, 18)  # squares along each axis; the finer grid for slides with little tissue
LEAST_SQUARES = 4  # that show something: glass alone identifies no slide
LEAST_RANGE = 32  # of 255, between the darkest and the lightest pixel of such a square
MOST_IMAGES = 64  # of a slide that is given as tile images


def source_sha256(job: SlideJob) -> str:
    """Fingerprint of a slide's files, as ``Bag.source_sha256``.

    Raises:
        SlideError: a file is missing.
    """
    return fingerprint({"files": identify_files(job)})


def slide_fingerprints(job: SlideJob, slide: Slide | None = None) -> frozenset[str]:
    """All that identifies a slide, as ``Bag.sources``.

    Args:
        job: the slide.
        slide: the same, open; None opens it.

    Raises:
        SlideError: a file is missing or cannot be read.
        ScaleError: its scale is unknown or implausible.
    """
    if job.from_tiles:
        pixels = pixels_of_tiles(job)
    elif slide:
        pixels = (pixels_sha256(slide),)
    else:
        with job.open() as opened:
            pixels = (pixels_sha256(opened),)
    return frozenset({source_sha256(job), *(PIXELS + known for known in pixels if known)})


def pixels_sha256(slide: Slide) -> str:
    """Fingerprint of squares of level 0, spread evenly over the scanned part of a slide.

    It is the same for every file with these pixels, whatever its container, compression without loss, pyramid
    and padding. Pixels that were compressed again with loss have another one.

    Returns:
        A SHA-256; empty where too few squares show anything, or one cannot be read.
    """
    for squares_per_axis in GRIDS:
        try:
            pixels = _fingerprint_of(_squares(slide, squares_per_axis))
        except TileError:
            return ""
        if pixels:
            return pixels
    return ""


def pixels_of_tiles(job: SlideJob) -> tuple[str, ...]:
    """The same of a slide that is given as tiles: of images, or of every modality of a volume.

    Of tile images the pixels decide, not their format. Voxels are those of the series, before they were
    laid out. Fingerprints are empty where they are not known.
    """
    try:
        if job.is_film:
            return read_facts(job.files[0]).sources or ("",)
        return (_fingerprint_of(read_images(job.files, MOST_IMAGES)),)
    except SlideError:
        return ("",)


def _squares(slide: Slide, squares_per_axis: int) -> Iterator[NDArray[np.uint8]]:
    parts = (np.arange(squares_per_axis) + 0.5) / squares_per_axis
    columns, rows = (
        (corner + parts * extent).astype(int)
        for corner, extent in zip(slide.bounds_l0, slide.bounds_size_l0, strict=True)
    )
    for y in rows.tolist():
        for x in columns.tolist():
            yield slide.read_pixels((x, y), (SIDE_PX, SIDE_PX))


def _fingerprint_of(pictures: Iterable[NDArray[np.uint8]]) -> str:
    """Fingerprint of (H, W, 3) pictures in their order; empty where too few show anything."""
    digest, n_shown = hashlib.sha256(), 0
    for picture in pictures:
        digest.update(f"{picture.shape}".encode() + picture.tobytes())
        n_shown += int(np.ptp(picture) >= LEAST_RANGE)
    return digest.hexdigest() if n_shown >= LEAST_SQUARES else ""
