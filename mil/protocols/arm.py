"""One thing that a study tried."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing the study tried.

    Attributes:
        name: as the study calls it.
        backbone: name of the backbone, as a recipe names it.
        mpp: micrometres per pixel, where they differ from the study's.
        scales: several of them, whose features are joined tile by tile; each is a store of its own.
        channels: what slices of volumes show: one modality, or three.
        parts: several such choices, whose features are joined case by case; each is a store of its own.
        model: the head or baseline that reads whole bags; empty for a classifier of single tiles.
        question: one of the study's; empty for the labels of the table.
        finetune: whether the backbone is trained; else it is frozen and a classifier is trained on it.
        start: the arm whose weights it starts from; empty for the weights of the recipe.
        test: ``folds``, ``tiles`` or ``fields`` (others of the cases trained on), ``external``
            (split=test), or ``ensemble`` (the networks of all folds together, on split=test).
        segmenter: the kind of segmenter that is trained; it is judged itself where there is no ``region``.
        region: what tiles are taken from: ``segmented``, masks of each fold, or ``tissue``; empty for the
            annotations.
        published: the printed figure of each measure.
    """

    name: str
    backbone: str
    mpp: float | None = None
    scales: tuple[float, ...] = ()
    channels: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    model: str = ""
    question: str = ""
    finetune: bool = False
    start: str = ""
    test: str = "folds"
    segmenter: str = ""
    region: str = ""
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def segments(self) -> bool:
        """Whether a segmenter is judged, and no diagnosis."""
        return bool(self.segmenter) and not self.region

    @property
    def shows(self) -> tuple[tuple[str, ...], ...]:
        """The modalities of each of its stores; none for slides."""
        return self.parts or ((self.channels,) if self.channels else ())


# What a user may change of all arms at once: its type, what arms have it, and whether one has.
ARM_SETTINGS: Mapping[str, tuple[Any, str, Callable[[Arm], bool]]] = {
    "backbone": (str, "a backbone", lambda _arm: True),
    "mpp": (float, "one scale", lambda arm: not arm.scales and not arm.shows),
    "scales": (tuple[float, ...], "several scales", lambda arm: bool(arm.scales)),
    "channels": (
        tuple[str, ...],
        "slices of one choice of modalities",
        lambda arm: bool(arm.channels),
    ),
    "parts": (
        tuple[tuple[str, ...], ...],
        "several choices of modalities",
        lambda arm: bool(arm.parts),
    ),
}
