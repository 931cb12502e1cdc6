"""The child process of ``features.slides.rehearsal``: reads slides on request, and may die of it.

A request is one line of JSON, with the path of a slide and perhaps tiles to read. The answer is one line of
JSON, ``{"error": "", "size": [width, height]}``, and the overview as that many RGB pixels. Empty lines
before it are signs of life.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from features.errors import FeaturesError, TileError
from features.slides.slide import OVERVIEW_PX, Slide, open_slide

MAX_BYTES = 16 << 30  # of addresses: damaged tags ask for more than any slide needs
FIELD_PX = 256  # side of the fields that are read of every level
ANY_MPP = 1.0  # the overview does not depend on the scale
NOTHING: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)


def serve() -> None:
    """Answer requests until the input ends."""
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin.buffer:
        error, pixels = "", NOTHING
        try:
            pixels = _read(json.loads(line), answers)
        except MemoryError:
            error = "its tags ask for more memory than any slide needs"
        except FeaturesError:
            pixels = NOTHING  # the run itself meets the same error, and reports it
        except Exception as unforeseen:  # noqa: BLE001 - of one slide; it must not end the others
            error = f"it cannot be read ({type(unforeseen).__name__}: {unforeseen})"
        height, width, _ = pixels.shape
        answers.write(json.dumps({"error": error, "size": [width, height]}).encode() + b"\n")
        answers.write(pixels.tobytes())
        answers.flush()


def _read(request: Mapping[str, Any], answers: BinaryIO) -> NDArray[np.uint8]:
    """Read what is requested; the overview."""
    mpp = request.get("slide_mpp", ANY_MPP)
    with open_slide(request["path"], mpp=mpp) as slide:
        if "coords_l0" in request:
            for x, y in request["coords_l0"]:
                with contextlib.suppress(TileError):
                    slide.read(x, y, request["tile_px"], request["mpp"])
                answers.write(b"\n")
                answers.flush()
            return NOTHING
        with contextlib.suppress(FeaturesError):
            _read_fields(slide)
        return np.asarray(slide.thumbnail(OVERVIEW_PX))


def _read_fields(slide: Slide) -> None:
    """Read the first, the middle and the last field of every level."""
    for level in slide.levels:
        for part in (0.0, 0.5, 1.0):
            with contextlib.suppress(TileError):
                slide.read_part(level, part, FIELD_PX)


def _limit_memory() -> None:
    """Make requests for absurd amounts of memory fail, where the system allows it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash here is an answer
