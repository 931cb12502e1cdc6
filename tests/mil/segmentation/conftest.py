"""Six small slides at 2.5 micrometres whose tumour differs from its surroundings by structure, not colour."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from features.extraction.jobs import JobSettings
from mil.segmentation.learner import Learner
from mil.segmentation.run import SegmentInput
from mil.segmentation.settings import SegmentSettings
from tests.features.making import box_ring, feature, write_geojson, write_tiff

SIDE = 400  # px; 50 x 50 cells of 20 micrometres; 260 of glass on two sides
TISSUE = (24, 296)
TUMOUR = (88, 216)  # along x; rows 64 to 256
HOLE = (128, 168)


def draw_slide(number, tumour=True):
    """Tissue of one mean colour: fine dots in the tumour, broad stripes elsewhere."""
    rng = np.random.default_rng(number)
    picture = np.full((SIDE, SIDE, 3), 255.0)
    rows, columns = np.indices((SIDE, SIDE))
    stripes = np.where((rows // 8) % 2, 190, 130)
    dots = np.where((rows // 2 + columns // 2) % 2, 190, 130)
    inside = (columns >= TUMOUR[0]) & (columns < TUMOUR[1]) & (rows >= 64) & (rows < 256)
    inside &= ~((columns >= HOLE[0]) & (columns < HOLE[1]) & (rows >= 128) & (rows < 168))
    grey = np.where(inside & tumour, dots, stripes) + rng.normal(0, 6, (SIDE, SIDE))
    tissue = np.s_[TISSUE[0] : TISSUE[1], TISSUE[0] : TISSUE[1]]
    picture[tissue] = (grey[..., None] * [1.15, 0.6, 1.0])[tissue]
    return picture.clip(0, 255).astype(np.uint8)


@dataclass
class Study:
    """Where the made slides are."""

    folder: Path
    source: SegmentInput
    settings: SegmentSettings


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Five cases with tumour, one of them annotated in part, and one without."""
    folder = tmp_path_factory.mktemp("segmentation")
    for name in ("slides", "annotations"):
        (folder / name).mkdir()
    lines = ["case,slide,annotated"]
    for number in range(1, 7):
        name, normal = f"case-{number}", number == 6
        write_tiff(folder / "slides" / f"{name}.tiff", [draw_slide(number, not normal)], mpp=2.5)
        outline = box_ring(TUMOUR[0], 64, TUMOUR[1], 256)
        hole = box_ring(HOLE[0], 128, HOLE[1], 168)
        drawn = feature(outline, hole)
        if normal:
            drawn = feature(
                box_ring(TISSUE[0], TISSUE[0], TISSUE[1], TISSUE[1]), classification="Normal"
            )
        folds = feature(box_ring(40, 40, 60, 60), classification="Ignore*")
        write_geojson(folder / "annotations" / f"{name}.geojson", drawn, folds)
        lines.append(f"{name},{name},{'partial' if number == 5 else 'full'}")
    (folder / "segmentation.csv").write_text("\n".join(lines) + "\n")
    source = SegmentInput(
        table=folder / "segmentation.csv",
        slides=folder / "slides",
        jobs=JobSettings(annotations=folder / "annotations"),
    )
    return Study(folder, source, SegmentSettings(cells=400))


@pytest.fixture(scope="session")
def learner(study, tmp_path_factory):
    return Learner(study.settings, tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="session")
def slides(study, learner):
    """The six slides, read."""
    return learner.read(study.source.read(lambda _note: None))


@pytest.fixture(scope="session")
def segmenter(learner, slides):
    """Fitted to all six."""
    return learner.fit(slides)
