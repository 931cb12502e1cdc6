"""Fit a segmenter to some slides and apply it to others, with the cells that have been read once."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.backbones.registry import Backbone, load_backbone
from features.lowpower.colour_map import ColourMap
from features.lowpower.descriptor import Descriptor
from features.lowpower.feature_map import CellMap, FeatureMap, default_backbone
from features.lowpower.segmenter import (
    LEAST_CELLS,
    CellHead,
    Segmenter,
    SegmenterCard,
    map_probability,
)  # fmt: skip
from features.lowpower.tumour_map import smooth_over_tissue
from features.progress import Progress, Silent
from mil.segmentation.fit import Sample, fit_linear, sample_cells
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import DrawnSlide, ReadSlide, read_slide
from mil.segmentation.unet_training import train_unet

MAP, UNET, BOTH, COLOUR, TISSUE = "map", "unet", "both", "colour only", "tissue only"
Probability = NDArray[np.float32]


@dataclass
class Learner:
    """What all fits have in common: the frozen map, and the cells of the slides.

    Attributes:
        settings: of training.
        folder: that keeps the cells' vectors.
        backbone: that the segmenter starts from.
    """

    settings: SegmentSettings
    folder: Path
    backbone: Backbone = field(init=False)
    _samples: dict[tuple[str, str], Sample] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.settings.weights == "auto" and self.settings.backbone == SegmentSettings.backbone:
            self.backbone = default_backbone()
        else:
            weights = self.settings.weights if self.settings.weights != "auto" else "pretrained"
            self.backbone = load_backbone(self.settings.backbone, weights, seed=self.settings.seed)
        self._frozen = FeatureMap(self.backbone)

    @property
    def has_map(self) -> bool:
        """Whether a linear head on the frozen map is part of the segmenter."""
        return self.settings.kind in ("map", "both")

    @property
    def has_unet(self) -> bool:
        """Whether a U-Net is."""
        return self.settings.kind in ("unet", "both")

    def read(
        self, slides: Sequence[DrawnSlide], progress: Progress | None = None
    ) -> list[ReadSlide]:
        """The slides with their cells; what was read before is read from the folder.

        Raises:
            SlideError, AnnotationError: a slide or its annotation cannot be read.
        """
        frozen = self._frozen if self.has_map else None
        return _read_all(slides, frozen, self.folder, self.settings, progress)

    def fit(
        self, slides: Sequence[ReadSlide], advance: Callable[[int], None] = lambda _steps: None
    ) -> Segmenter:
        """Fit a segmenter, and a head on colour alone, to the annotations of some slides.

        Args:
            slides: of the training cases.
            advance: called with the steps of the U-Net.

        Raises:
            FitError: they have no tumour, or no tissue without.
        """
        return Segmenter(
            card=self._card(slides),
            maps=self._frozen if self.has_map else None,
            linear=fit_linear(self._sample(slides, MAP), self.settings) if self.has_map else None,
            unet=train_unet(slides, self.backbone, self.settings, advance)
            if self.has_unet
            else None,
            colour=fit_linear(self._sample(slides, COLOUR), self.settings),
        )

    def _sample(self, slides: Sequence[ReadSlide], name: str) -> list[Sample]:
        for slide in slides:
            if (slide.name, name) not in self._samples:
                self._samples[slide.name, name] = sample_cells(slide, name, self.settings)
        return [self._samples[slide.name, name] for slide in slides]

    def _card(self, slides: Sequence[ReadSlide]) -> SegmenterCard:
        return SegmenterCard(
            kind=self.settings.kind,
            classes=self.settings.classes,
            threshold=self.settings.threshold,
            network=self.backbone.recipe,
            weights=self.backbone.weights,
            weights_sha256=self.backbone.weights_sha256,
            trained_on=tuple(sorted({*self.backbone.trained_on, *(s.case for s in slides)})),
            trained_on_slides=tuple(
                sorted({*self.backbone.trained_on_slides, *(x for s in slides for x in s.sources)})
            ),
            settings=json.loads(json.dumps(asdict(self.settings))),
        )


def with_reference(segmenter: Segmenter, slides: Sequence[ReadSlide]) -> Segmenter:
    """The segmenter with what it marks as tumour on the slides that it learnt from, where they have any.

    Args:
        segmenter: fitted.
        slides: that it was fitted to.
    """
    if segmenter.linear is None:
        return segmenter
    cases, descriptors = [], []
    for slide in slides:
        tumour = _describe(segmenter.linear, segmenter.card.threshold, slide)
        if slide.target.positive.any() and tumour.count >= LEAST_CELLS:
            cases.append(slide.case)
            descriptors.append(tumour.values())
    if not descriptors:
        return segmenter
    card = replace(segmenter.card, reference_cases=tuple(cases))
    return replace(segmenter, card=card, descriptors=np.stack(descriptors))


def _describe(linear: CellHead, threshold: float, slide: ReadSlide) -> Descriptor:
    """The cells of a slide that a linear head calls tumour."""
    cells = slide.cells[MAP]
    vectors = cells.vectors[slide.grid.tissue.flat[cells.numbers]]
    tumour = Descriptor(vectors.shape[1])
    tumour.add(vectors[linear(vectors) >= threshold])
    return tumour


def tumour_ratio(segmenter: Segmenter, slide: ReadSlide) -> float:
    """How far what is called tumour on a slide is from what was learnt; see ``TumourMap.ratio``."""
    if segmenter.linear is None or segmenter.reference is None:
        return math.nan
    tumour = _describe(segmenter.linear, segmenter.card.threshold, slide)
    return segmenter.reference.ratio(tumour.values()) if tumour.count >= LEAST_CELLS else math.nan


def read_for(
    segmenter: Segmenter,
    slides: Sequence[DrawnSlide],
    folder: Path,
    settings: SegmentSettings,
    progress: Progress | None = None,
) -> list[ReadSlide]:
    """The slides with the cells that a segmenter reads.

    Raises:
        SlideError, AnnotationError: a slide or its annotation cannot be read.
    """
    return _read_all(slides, segmenter.maps, folder, settings, progress)


def _read_all(
    slides: Sequence[DrawnSlide],
    frozen: FeatureMap | None,
    folder: Path,
    settings: SegmentSettings,
    progress: Progress | None,
) -> list[ReadSlide]:
    maps: dict[str, CellMap] = {COLOUR: ColourMap()}
    if frozen:
        maps[MAP] = frozen
    read = []
    with (progress or Silent()).task("slides at 4x", len(slides), "slides") as advance:
        for slide in slides:
            read.append(read_slide(slide, maps, folder, settings))
            advance(1)
    return read


def probabilities(segmenter: Segmenter, slide: ReadSlide) -> dict[str, Probability]:
    """The probability of tumour by each part of a segmenter, by their mean, and by colour alone.

    Args:
        segmenter: as ``Learner.fit`` gives it.
        slide: with its cells.

    Returns:
        (rows, columns) each, smoothed, by the name of the method.
    """
    by_method = {}
    for name, head in ((MAP, segmenter.linear), (COLOUR, segmenter.colour)):
        if head:
            cells = slide.cells[name]
            values = np.zeros(slide.grid.tissue.size, dtype=np.float32)
            values[cells.numbers] = head(cells.vectors)
            by_method[name] = smooth_over_tissue(
                values.reshape(slide.grid.shape), slide.grid.tissue
            )
    if segmenter.unet:
        with slide.opened() as opened:
            by_method[UNET] = map_probability(
                opened, slide.grid, segmenter.unet, lambda features: features[..., 0]
            )
    if segmenter.linear and segmenter.unet:
        mean = (by_method[MAP] + by_method[UNET]) / 2
        by_method[BOTH] = np.asarray(mean, dtype=np.float32)
    return by_method
