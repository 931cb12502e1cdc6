"""Fit a linear head to the cells of annotated slides: seconds, and the same every time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.lowpower.segmenter import CellHead
from features.threads import one_thread
from mil.errors import FitError
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import ReadSlide

GLASS_SHARE = 0.2  # at most, of a slide's cells without tumour
MAX_ITERATIONS = 1000
Sample = tuple[NDArray[np.float32], NDArray[np.bool_]]


def sample_cells(slide: ReadSlide, name: str, settings: SegmentSettings) -> Sample:
    """Cells of a slide that lie on one side of an outline, half of them tumour if there are enough.

    Which cells follows from the seed and the slide's name, not from the fold or from other slides.

    Args:
        slide: with its cells.
        name: of the map.
        settings: largest number of cells, and the seed.

    Returns:
        (n, C) vectors, and whether each is tumour.
    """
    rng = np.random.default_rng([settings.seed, *slide.name.encode()])
    cells, target = slide.cells[name], slide.target
    sure, tumour, tissue = (
        mask.ravel()[cells.numbers] for mask in (target.sure, target.positive, target.tissue)
    )
    half = settings.cells // 2

    def draw(kind: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
        rows = np.flatnonzero(sure & kind)
        return rng.permutation(rows)[:most]

    positive = draw(tumour, half)
    clear = draw(~tumour & tissue, half)
    glass = draw(~tumour & ~tissue, round(half * GLASS_SHARE))
    negative = np.concatenate([clear[: half - len(glass)], glass])
    rows = np.sort(np.concatenate([positive, negative]))
    return np.asarray(cells.vectors[rows], dtype=np.float32), tumour[rows]


def fit_linear(samples: Sequence[Sample], settings: SegmentSettings) -> CellHead:
    """Logistic regression with a ridge penalty on standardised vectors.

    Args:
        samples: of the training slides.
        settings: strength of the penalty.

    Raises:
        FitError: the slides have no drawn tumour, or nothing that is known to be none.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to load

    vectors = np.concatenate([vectors for vectors, _ in samples])
    labels = np.concatenate([labels for _, labels in samples])
    if len(np.unique(labels)) < 2:
        lacking = "tumour" if not labels.any() else "tissue without tumour"
        raise FitError(
            f"The training slides have no {lacking}. Use fewer folds, or annotate more slides."
        )
    centre, spread = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    spread = np.maximum(spread, 1e-6)
    model = LogisticRegression(C=settings.ridge, max_iter=MAX_ITERATIONS)
    with one_thread():
        model.fit((vectors - centre) / spread, labels)
    weight = model.coef_[0] / spread
    bias = float(model.intercept_[0] - weight @ centre)
    return CellHead(np.ascontiguousarray(weight, dtype=np.float32), bias)
