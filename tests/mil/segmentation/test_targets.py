"""What a drawing says of every cell."""

import numpy as np
import pytest
import shapely

from features.errors import AnnotationError, AnnotationMissing
from features.extraction.jobs import JobSettings
from features.lowpower.feature_map import lay_cells
from features.regions.annotations import read_annotations
from features.slides.slide import open_slide
from mil.errors import CohortError
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import check_negatives, drawn_slides, note_drawings
from mil.segmentation.targets import make_target
from tests.features.making import box_ring, feature, write_geojson, write_tiff
from tests.mil.segmentation.conftest import draw_slide

CELL = 8  # px at 2.5 micrometres


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory):
    return write_tiff(tmp_path_factory.mktemp("slide") / "a.tiff", [draw_slide(0)], mpp=2.5)


def target_of(slide_file, tmp_path, *drawn, full=False):
    file = write_geojson(tmp_path / "a.geojson", *drawn)
    with open_slide(slide_file) as slide:
        grid = lay_cells(slide)
        return make_target(slide, grid, read_annotations(file), SegmentSettings(), full=full)


def test_a_cell_has_the_exact_fraction_that_is_tumour(slide_file, tmp_path):
    rng = np.random.default_rng(0)
    corners = rng.uniform(60, 250, (9, 2))
    hull = shapely.convex_hull(shapely.MultiPoint(corners))
    ring = [list(point) for point in hull.exterior.coords]
    target = target_of(slide_file, tmp_path, feature(ring), full=True)
    for row, column in rng.integers(0, 40, (200, 2)):
        box = shapely.box(CELL * column, CELL * row, CELL * column + CELL, CELL * row + CELL)
        share = box.intersection(hull).area / CELL**2
        assert target.tumour[row, column] == pytest.approx(share, abs=1e-6)


def test_in_full_all_else_is_no_tumour_and_in_part_only_glass_holes_and_other_classes(
    slide_file, tmp_path
):
    drawn = (
        feature(box_ring(80, 80, 160, 160), box_ring(104, 104, 136, 136)),
        feature(box_ring(200, 80, 240, 120), classification="Stroma"),
        feature(box_ring(200, 200, 232, 232), classification="Ignore*"),
        feature(box_ring(200, 240, 232, 264), classification="Vessel"),
    )
    full, partial = (target_of(slide_file, tmp_path, *drawn, full=f) for f in (True, False))
    places = {  # row, column: tumour, known in full, known in part
        "tumour": (11, 11, True, True, True),
        "hole": (14, 14, False, True, True),
        "glass": (1, 1, False, True, True),
        "stroma": (12, 27, False, True, True),
        "ignored": (26, 26, False, False, False),
        "another class": (31, 26, False, True, False),
        "nothing drawn": (6, 6, False, True, False),
    }
    for what, (row, column, tumour, in_full, in_part) in places.items():
        assert bool(full.positive[row, column]) == tumour, what
        assert bool(full.known[row, column]) == in_full, what
        assert bool(partial.known[row, column]) == in_part, what
        if in_full:
            assert bool(full.negative[row, column]) == (not tumour), what
    assert (full.sure & (full.tumour > 0.05) & (full.tumour < 0.95)).sum() == 0


def test_what_is_drawn_as_both_and_glass_inside_tumour_are_unknown(slide_file, tmp_path):
    drawn = (
        feature(box_ring(0, 80, 160, 160)),  # columns 0 to 2 are glass
        feature(box_ring(120, 80, 200, 160), classification="Normal"),
    )
    for full in (True, False):
        target = target_of(slide_file, tmp_path, *drawn, full=full)
        assert not target.known[12, 1]
        assert not target.known[12, 17]
        assert target.positive[12, 8]
        assert target.negative[12, 22]


def test_a_border_between_tumour_and_stroma_is_known(slide_file, tmp_path):
    drawn = (
        feature(box_ring(80, 80, 124, 160)),
        feature(box_ring(124, 80, 200, 160), classification="Normal"),
    )
    target = target_of(slide_file, tmp_path, *drawn)
    assert target.tumour[12, 15] == 0.5
    assert target.known[12, 15]
    assert not target.sure[12, 15]


def test_classes_that_mean_nothing_are_listed(slide_file, tmp_path):
    drawn = feature(box_ring(80, 80, 124, 160), classification="Tumour")
    with pytest.raises(AnnotationError, match=r"Tumour x1.*Did you mean 'Tumour'\?"):
        target_of(slide_file, tmp_path, drawn)


def test_a_study_in_which_nothing_is_no_tumour_is_refused(study, learner, slides, tmp_path):
    """All in part, without holes and negative classes: glass alone would teach that tissue is tumour."""
    folder = tmp_path / "annotations"
    folder.mkdir()
    for number in (1, 2):
        write_geojson(folder / f"case-{number}.geojson", feature(box_ring(88, 64, 216, 256)))
    table = tmp_path / "t.csv"
    table.write_text("case,slide\ncase-1,case-1\ncase-2,case-2\n")
    notes = []
    source = type(study.source)(
        table=table, slides=study.source.slides, jobs=JobSettings(annotations=folder)
    )
    read = learner.read(source.read(notes.append))
    assert "No slide has full in the column annotated" in notes[0]
    with pytest.raises(CohortError, match="three patches of 150 micrometres of class Normal"):
        check_negatives(read)
    check_negatives([*read, slides[5]])
    with pytest.raises(CohortError, match="No slide has drawn tumour"):
        check_negatives([slides[5]])


def test_another_word_and_a_missing_drawing_are_refused(study, tmp_path):
    table = tmp_path / "t.csv"

    def read(text):
        table.write_text(text)
        source = type(study.source)(table=table, slides=study.source.slides, jobs=study.source.jobs)
        return source.read(lambda _note: None)

    with pytest.raises(CohortError, match="Line 3: annotated is 'yes'"):
        read("case,slide,annotated\nc1,case-1,full\nc2,case-2,yes\n")
    assert [s.full for s in read("case,slide,annotated\nc1,case-1,Full \nc2,case-2,\n")] == [
        True,
        False,
    ]
    (tmp_path / "empty").mkdir()
    rows = study.source.read(lambda _note: None)
    assert len(rows) == 6
    from mil.data.table import read_table

    with pytest.raises(AnnotationMissing, match="6 of 6 slides have no annotation"):
        drawn_slides(
            read_table(study.source.table),
            study.source.slides,
            JobSettings(annotations=tmp_path / "empty"),
            print,
        )


def test_drawings_in_another_frame_and_classes_that_none_has_are_told(study, learner, tmp_path):
    """Before a segmenter learns from them, as before tiles are taken."""
    for number in (1, 2):
        ring = box_ring(88, 64, 216, 256) if number == 1 else box_ring(200, 230, 420, 420)
        write_geojson(tmp_path / f"case-{number}.geojson", feature(ring))
    table = tmp_path / "t.csv"
    table.write_text("case,slide,annotated\ncase-1,case-1,full\ncase-2,case-2,full\n")
    source = type(study.source)(
        table=table, slides=study.source.slides, jobs=JobSettings(annotations=tmp_path)
    )
    notes = note_drawings(learner.read(source.read(print)), ["Ignore*", "Fold"])
    assert len(notes) == 2
    assert notes[0].startswith("case-2: ")
    assert "lies outside the slide" in notes[0]
    assert "Class 'Fold', which is to be excluded, is in none of the annotations" in notes[1]
