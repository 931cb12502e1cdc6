"""Drawings in a wrong frame: turned, mirrored, swapped, scaled, moved, or beside the slide."""

import math

import numpy as np
import pytest
import shapely
from making import feature, write_geojson, write_tiff
from scipy import ndimage
from shapely.affinity import affine_transform
from shapely.geometry import box

from features.extraction.check import Workload, summarise_checks
from features.extraction.jobs import SlideJob
from features.extraction.preflight import check_slides
from features.extraction.run import extract_jobs
from features.extraction.survey import survey_slide
from features.recipe import Recipe
from features.regions.drawing import polygonal_parts
from features.regions.masks import coverage, mask_fraction, polygons_from_mask, tissue_mask
from features.regions.placement import block_means, judge_placement, note_reach

SIZE_L0, SCALE, MPP = (4000, 3000), 8, 0.4
TISSUE = shapely.union_all([box(400, 400, 2600, 2000), box(2000, 1600, 3000, 2600)])
TUMOUR = shapely.Polygon([(500, 500), (1700, 450), (2100, 1300), (1500, 1900), (700, 1500)])


def picture(tissue=TISSUE, tumour=TUMOUR, seed=0):
    """Tissue with a darker tumour on glass, one pixel for eight."""
    rng = np.random.default_rng(seed)
    height, width = SIZE_L0[1] // SCALE, SIZE_L0[0] // SCALE
    y, x = np.mgrid[:height, :width] * SCALE + SCALE / 2
    rgb = np.full((height, width, 3), (243, 241, 244), float)
    rgb[shapely.contains_xy(tissue, x, y)] = (222, 150, 190)
    rgb[shapely.contains_xy(tumour, x, y)] = (180, 95, 165)
    rgb += ndimage.gaussian_filter(rng.normal(0, 20, (height, width, 1)), (2, 2, 0))
    return (rgb + rng.normal(0, 3, rgb.shape)).clip(0, 255).astype(np.uint8)


def judge(drawn, overview=None, **scales):
    overview = picture() if overview is None else overview
    mask = tissue_mask(overview)
    on_tissue = polygonal_parts(drawn & polygons_from_mask(mask, SIZE_L0)).area / drawn.area
    scales = scales or {"taken as micrometres": 1 / MPP, "taken as pixels of level 1": 4.0}
    return judge_placement(drawn, on_tissue, overview, mask, scales, SIZE_L0)


WIDTH, HEIGHT = SIZE_L0
WRONG = {
    "turned by 180 degrees": (-1, 0, 0, -1, WIDTH, HEIGHT),
    "mirrored left to right": (-1, 0, 0, 1, WIDTH, 0),
    "mirrored top to bottom": (1, 0, 0, -1, 0, HEIGHT),
    "with x and y swapped": (0, 1, 1, 0, 0, 0),
    "turned clockwise by 90 degrees": (0, 1, -1, 0, 0, WIDTH),
    "turned anticlockwise by 90 degrees": (0, -1, 1, 0, HEIGHT, 0),
    "taken as micrometres": (MPP, 0, 0, MPP, 0, 0),
    "taken as pixels of level 1": (0.25, 0, 0, 0.25, 0, 0),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "drawn",
    [TUMOUR, TUMOUR.buffer(40), TUMOUR.buffer(-40), TISSUE.buffer(30), TISSUE.convex_hull],
    ids=["tumour", "round it", "within it", "tissue", "hull"],
)
def test_a_true_drawing_gets_no_note(drawn, seed):
    assert judge(drawn, picture(seed=seed)).note == ""


@pytest.mark.parametrize("back", WRONG)
@pytest.mark.parametrize("drawn", [TUMOUR, TISSUE], ids=["tumour", "tissue"])
def test_a_drawing_in_a_wrong_frame_is_noticed_with_the_way_back(drawn, back):
    placement = judge(affine_transform(drawn, WRONG[back]))
    assert placement.note
    assert placement.better == back or placement.outside > 0.05


@pytest.mark.parametrize("back", ["turned by 180 degrees", "mirrored left to right"])
def test_the_outline_betrays_a_turned_drawing_where_all_is_tissue(back):
    """By the share of tissue nothing can be seen."""
    tumour = shapely.affinity.scale(TUMOUR, 1.4, 1.4, origin=(0, 0))
    overview = picture(box(0, 0, WIDTH, HEIGHT), tumour)
    tissue = np.ones(overview.shape[:2], dtype=bool)
    turned = affine_transform(tumour, WRONG[back])
    wrong = judge_placement(turned, 1.0, overview, tissue, {}, SIZE_L0)
    assert (wrong.glass, wrong.outside) == (0, 0)
    assert wrong.note.startswith(
        f"The drawing would fit what the slide shows better {back}. Look at"
    )
    assert judge_placement(tumour, 1.0, overview, tissue, {}, SIZE_L0).note == ""


def test_a_moved_drawing_is_noticed_with_the_way_back():
    moved = judge(shapely.affinity.translate(TISSUE, 500, -300))
    right, down = (float(word) for word in moved.better.split() if word[0] in "+-")
    assert abs(right + 500) < 100
    assert abs(down - 300) < 100


def test_the_shares_are_those_of_the_drawn_area():
    placement = judge(box(2000, 400, 6000, 1600))
    assert placement.outside == pytest.approx(0.5)
    assert placement.glass == pytest.approx(0.35, abs=0.01)
    assert "50% of the drawn area lies outside the slide and 35% of the drawn area is glass" in (
        placement.note
    )


@pytest.mark.parametrize("side", [1, 20, 300])
def test_a_small_region_is_judged_by_glass_alone(side):
    assert judge(box(800, 800, 800 + side, 800 + side)).note == ""
    assert "100% of the drawn area is glass" in judge(box(3500, 200, 3500 + side, 200 + side)).note


def test_mask_fraction_is_coverage_where_squares_end_between_pixels():
    rng = np.random.default_rng(0)
    mask = ndimage.binary_opening(rng.random((60, 80)) < 0.7)
    corners = rng.integers(0, 30, (50, 2)) * 20
    fast = mask_fraction(mask, (1600, 1200), corners, (100.0, 60.0))
    area = polygons_from_mask(mask, (1600, 1200))
    assert fast == pytest.approx(coverage(area, *corners.T.astype(float), (100.0, 60.0)), abs=1e-9)


def test_mask_fraction_of_squares_beyond_the_slide_is_a_number():
    corners = np.array([[-50, -50], [1590, 1190], [3000, 3000]])
    fractions = mask_fraction(np.ones((60, 80), bool), (1600, 1200), corners, (100.0, 100.0))
    assert np.array_equal(fractions, [1, 1, 1])


@pytest.fixture
def turned(tmp_path):
    """Tissue on the left half, the drawing on the right one but for a sixth; and a true one."""
    for name, drawn in (("turned", box(440, 100, 900, 700)), ("true", box(60, 100, 520, 700))):
        rgb = np.full((800, 1024, 3), 243, np.uint8)
        rgb[50:750, 40:540] = (200, 90, 160)
        rgb -= np.random.default_rng(0).integers(0, 20, rgb.shape, dtype=np.uint8)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        write_tiff(tmp_path / f"{name}.tiff", [rgb], mpp=0.5)
        ring = [list(corner) for corner in drawn.exterior.coords]
        write_geojson(tmp_path / "annotations" / f"{name}.geojson", feature(ring))
    return tmp_path


def test_a_check_reports_the_shares_and_the_glass_tiles(turned):
    recipe = Recipe(backbone="test_resnet", weights="random", tile=64, mpp=0.5)
    jobs = [
        SlideJob(slide=name, files=(turned / f"{name}.tiff",), annotations=turned / "annotations")
        for name in ("turned", "true")
    ]
    (turned / "pictures").mkdir()
    wrong, right = check_slides(jobs, [recipe], turned / "pictures")
    assert right.notes == ()
    assert right.drawn_glass < 0.02
    assert right.drawn_outside == 0
    assert wrong.drawn_glass == pytest.approx(0.78, abs=0.02)
    assert "78% of the drawn area is glass" in wrong.notes[0]
    assert "tiles are mostly glass. Set drop to background" in wrong.notes[-1]


def drawn_slides(folder, shares):
    """Slides of tissue alone, with drawings that end at these shares of their sides."""
    (folder / "annotations").mkdir()
    jobs = []
    for number, (across, down) in enumerate(shares):
        rng = np.random.default_rng(number)
        rgb = np.full((600, 800, 3), (205, 90, 160), np.uint8) - rng.integers(
            0, 25, (600, 800, 3), dtype=np.uint8
        )
        path = write_tiff(folder / f"s{number}.tiff", [rgb], mpp=0.5)
        ring = [
            [20, 30],
            [800 * across, 30],
            [800 * across, 600 * down],
            [20, 600 * down],
            [20, 30],
        ]
        write_geojson(folder / "annotations" / f"s{number}.geojson", feature(ring))
        jobs.append(SlideJob(slide=path.stem, files=(path,), annotations=folder / "annotations"))
    return jobs


SMALL = [(0.3, 0.5), (0.52, 0.2), (0.41, 0.44)]


@pytest.mark.parametrize(
    ("shares", "noted"),
    [(SMALL, True), (SMALL[:2], False), ([*SMALL, (0.2, 0.7)], False), ([*SMALL, (0.7, 0.2)], False)],
)  # fmt: skip
def test_drawings_that_all_lie_in_the_first_corner_are_noted(tmp_path, shares, noted):
    """They lie on tissue, so that no slide alone gives them away."""
    jobs = drawn_slides(tmp_path, shares)
    recipe = Recipe(backbone="test_resnet", weights="random", tile=32, mpp=0.5, max_tiles=2)
    checks = list(check_slides(jobs, [recipe], tmp_path))
    assert [check.notes for check in checks] == [()] * len(jobs)
    summary = summarise_checks(jobs, checks, Workload(recipe, tmp_path, 100))
    notes = []
    extract_jobs(jobs, recipe, tmp_path / "store", device="cpu", workers=1, notify=notes.append)
    for texts in (summary.warnings, notes):
        remarks = [text for text in texts if "lie within the upper left" in text]
        assert len(remarks) == int(noted)
        assert all(
            text.startswith("All 3 drawings lie within the upper left 52% ") for text in remarks
        )


@pytest.mark.parametrize(
    ("mpp", "levels", "ways"),
    [
        (0.25, [4], {"taken as micrometres or pixels of level 1": 4.0,
                     "taken as pixels at half of the slide's resolution": 2.0}),
        (0.4, [2], {"taken as micrometres": 2.5, "taken as pixels of level 1": 2.0,
                    "taken as pixels at a quarter of the slide's resolution": 4.0}),
    ],
)  # fmt: skip
def test_scales_with_one_factor_are_named_together(tmp_path, mpp, levels, ways):
    [job] = drawn_slides(tmp_path, [(0.9, 0.9)])
    rgb = np.full((600, 800, 3), 200, np.uint8)
    write_tiff(job.files[0], [rgb, *(rgb[::step, ::step].copy() for step in levels)], mpp=mpp)
    with job.open() as slide:
        view = survey_slide(slide, job, Recipe())
    assert view.scales == pytest.approx(ways)


FAR = {"a": 0.9, "b": 0.62, "c": 0.75, "d": 0.71, "e": 0.83, "undrawn": math.nan}


@pytest.mark.parametrize(
    ("reaches", "named"),
    [
        (FAR | {"odd": 0.22}, "odd"),
        (FAR | {"odd": 0.22, "too": 0.3}, "odd, too"),
        (FAR | {"near": 0.31}, ""),
        ({"odd": 0.2, "a": 0.9, "b": 0.9, "c": 0.9, "d": 0.9}, ""),  # four others
        (dict.fromkeys("abcde", 0.5) | {"odd": 0.2, "f": 0.6}, ""),  # the others do not reach far
        (FAR | dict.fromkeys("uvwxyz", 0.2), ""),  # as many near ones as far ones
    ],
)
def test_one_drawing_that_lies_much_nearer_to_the_corner_than_others_is_named(reaches, named):
    notes = note_reach(reaches)
    assert len(notes) == bool(named)
    assert all(note.startswith(f"Drawings of {named} lie within the upper left ") for note in notes)
    assert all("reach to 75%" in note for note in notes)


@pytest.mark.parametrize(
    ("shape", "step"), [((60, 46, 3), 6), ((39, 90, 1), 7), ((9, 8, 2), 1), ((5, 31, 3), 4)]
)
def test_block_means_are_those_of_a_filter(shape, step):
    values = np.random.default_rng(step).random(shape, dtype=np.float32)
    filtered = ndimage.uniform_filter(values, (step, step, 1))
    expected = filtered[step // 2 :: step, step // 2 :: step]
    assert block_means(values, step) == pytest.approx(expected, abs=1e-6)
