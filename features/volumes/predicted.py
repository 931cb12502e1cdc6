"""Label maps that a network has drawn: they carry the names of the cases that it has learnt from.

The names stand in a file beside the map; the map's own header refers to it, so that a map without its file is
not taken for one that a person has drawn.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import AnnotationError
from features.files.atomic import write_atomic
from features.volumes.image_files import SUFFIXES, read_description, write_image_file
from features.volumes.volume import Grid

MARK = "sarcomil predicted mask "  # begins the description of a map
ENDING = ".trained.json"


@dataclass(frozen=True, kw_only=True)
class MaskCard:
    """What is known of a map that a network has drawn.

    Attributes:
        trained_on: cases whose masks the network has seen.
        trained_on_slides: fingerprints of the voxels of their images, as ``Bag.sources``.
        facts: how it was trained.
    """

    trained_on: tuple[str, ...]
    trained_on_slides: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def card_path(mask: Path) -> Path:
    """The file beside a map."""
    endings = [one for one in SUFFIXES if mask.name.lower().endswith(one)]
    ending = max(endings, key=len, default="")
    return mask.with_name(mask.name[: len(mask.name) - len(ending)] + ENDING)


def write_predicted(path: Path, values: NDArray[np.bool_], grid: Grid, card: MaskCard) -> None:
    """Write a map of 0 and 1, and the file beside it.

    Args:
        path: ``<name>.nii.gz``.
        values: (z, y, x) True inside.
        grid: of the image.
        card: of the network.

    Raises:
        OSError: the disk is full or not writable.
    """
    text = card.to_json()
    write_atomic(card_path(path), text)
    write_image_file(path, values.astype(np.uint8), grid, MARK + _fingerprint(text))


def read_card(mask: Path) -> MaskCard | None:
    """What a network has learnt from that has drawn a map; None if nothing says that one has.

    Raises:
        AnnotationError: the file beside the map is missing, damaged or another's.
    """
    path, mark = card_path(mask), read_description(mask)
    predicted = mark.startswith(MARK)
    if not path.is_file():
        if predicted:
            raise AnnotationError(
                f"{mask.name} was drawn by a network, and {path.name}, which names the cases that it has "
                "learnt from, is not beside it. Copy both."
            )
        return None
    text = path.read_text(encoding="utf-8")
    try:
        values = json.loads(text)
        card = MaskCard(
            trained_on=tuple(values["trained_on"]),
            trained_on_slides=tuple(values["trained_on_slides"]),
            facts=values["facts"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AnnotationError(f"{path} cannot be read ({error}). Copy it again.") from error
    if predicted and mark != MARK + _fingerprint(text):
        raise AnnotationError(
            f"{path.name} belongs to another map than {mask.name}: copy the one that was written with it."
        )
    return card


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
