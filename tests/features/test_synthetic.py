from __future__ import annotations

import csv
import json
from itertools import pairwise

import numpy as np
import openslide
import pytest
import shapely
from shapely.geometry import shape
from shapely.ops import unary_union

from features.errors import FeaturesError
from features.synthetic import SUBTYPES, CohortSpec, key_tiles, write_cohort
from features.synthetic.cohort import _labels, _plan, draw_slide
from features.synthetic.drawing import _PATTERNS

SMALL = CohortSpec(cases_per_class=1, side_px=1536)
NORMAL = ("normal-1", "normal-2")  # slides without tumour


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    seen = []
    assert write_cohort(folder, SMALL, progress=seen.append) == folder / "cohort.csv"
    assert seen == [1] * SMALL.n_slides == [1] * 6
    return folder


def rows(folder):
    with (folder / "cohort.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def named(path):
    """Class name and geometry of each feature."""
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert all(feature["properties"]["objectType"] == "annotation" for feature in features)
    return [(f["properties"]["classification"]["name"], shape(f["geometry"])) for f in features]


def test_each_subtype_has_one_of_three_grades(cohort):
    grade_of = {row["label"]: set() for row in rows(cohort)}
    for row in rows(cohort):
        grade_of[row["label"]].add(row["grade"])
    grades = {"DDLPS": {"1"}, "LMS": {"2"}, "SS": {"2"}, "MPNST": {"3"}}
    assert grade_of == {label: grades[label] for label in grade_of}
    assert len(grade_of) > 1


def test_table_lists_every_slide_with_its_label(cohort):
    table = rows(cohort)
    assert [row["slide"] for row in table] == [f"{row['case']}-s1" for row in table]
    assert sorted(row["label"] for row in table) == sorted(SUBTYPES)
    for kind, ending in (
        ("slides", "tiff"),
        ("annotations", "geojson"),
        ("key_regions", "geojson"),
    ):
        assert {path.name for path in (cohort / kind).iterdir()} == {
            f"{slide}.{ending}" for slide in [*(row["slide"] for row in table), *NORMAL]
        }


def test_segmentation_lists_every_slide_and_how_much_of_its_tumour_is_drawn(cohort):
    with (cohort / "segmentation.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["slide"] for row in table] == [*(row["slide"] for row in rows(cohort)), *NORMAL]
    assert [row["annotated"] for row in table] == [
        "full",
        "full",
        "partial",
        "full",
        "full",
        "full",
    ]
    assert [row["case"] for row in table[-2:]] == list(NORMAL)
    assert [row["split"] for row in table[-2:]] == ["train", "test"]
    with (cohort / "split.csv").open(newline="", encoding="utf-8") as file:
        split = {row["case"]: row["split"] for row in csv.DictReader(file)}
    assert {row["case"]: row["split"] for row in table[:-2]} == split


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_cases_are_not_sorted_by_label(per_class):
    for seed in range(50):
        labels = _labels(CohortSpec(cases_per_class=per_class, seed=seed))
        assert sorted(labels) == sorted(SUBTYPES * per_class)
        assert labels != sorted(labels)


def test_openslide_reads_three_levels_at_a_quarter_micrometre(cohort):
    for path in (cohort / "slides").iterdir():
        with openslide.OpenSlide(path) as slide:
            assert slide.level_dimensions == ((1536, 1536), (384, 384), (96, 96))
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
            assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25)
            corner = np.asarray(slide.read_region((0, 0), 0, (16, 16)))[..., :3]
            assert corner.min() > 215, "the corner is glass"
            middle = np.asarray(slide.read_region((600, 600), 0, (300, 300)))[..., :3]
            red, green, blue = middle.reshape(-1, 3).mean(0)
            assert green < min(red, blue), "tissue is pink to purple"


def test_annotations_hold_a_hole_a_multipolygon_and_an_ignored_fold(cohort):
    for index, row in enumerate(rows(cohort)):
        path = cohort / "annotations" / f"{row['slide']}.geojson"
        regions = named(path)
        assert all(geometry.is_valid for _, geometry in regions)
        tumours = [geometry for name, geometry in regions if name == "Tumor"]
        assert [geometry.geom_type for geometry in tumours] == ["Polygon", "MultiPolygon"][
            : len(tumours)
        ]
        assert len(tumours[0].interiors) == 1
        plan = _plan(SMALL, index)
        if index == 2:  # the satellites are there, and are not drawn
            assert len(tumours) == 1
            tumours.append(plan.satellites)
        assert not tumours[0].intersects(tumours[1])
        (fold,) = (geometry for name, geometry in regions if name == "Ignore*")
        tumour = unary_union(tumours)
        assert fold.intersection(tumour).area > 0.5 * fold.area
        assert 0.35 < tumour.difference(fold).area / 1536**2 < 0.5

        keys = [geometry for name, geometry in named(cohort / "key_regions" / path.name)]
        assert sum(key.area for key in keys) == pytest.approx(
            SMALL.key_fraction * tumour.area, rel=1e-3
        )
        assert all(key.is_valid and tumour.difference(fold).contains(key) for key in keys)


def test_slides_without_tumour_have_normal_tissue_and_no_key(cohort):
    for slide in NORMAL:
        names = [name for name, _ in named(cohort / "annotations" / f"{slide}.geojson")]
        assert names == ["Normal", "Ignore*"]
        assert named(cohort / "key_regions" / f"{slide}.geojson") == []


def test_one_satellite_of_some_slides_is_a_piece_of_its_own():
    pieces = [
        len(getattr(_plan(SMALL, index).tissue, "geoms", [0])) for index in range(SMALL.n_cases)
    ]
    assert pieces == [1, 2, 1, 1]


def test_coordinates_have_two_decimals_and_ids_are_unique(cohort):
    ids = []
    for path in [*(cohort / "annotations").iterdir(), *(cohort / "key_regions").iterdir()]:
        for feature in json.loads(path.read_text(encoding="utf-8"))["features"]:
            ids.append(feature["id"])
            xy = shapely.get_coordinates(shape(feature["geometry"]))
            np.testing.assert_array_equal(xy, xy.round(2))
            assert 0 < xy.min() < xy.max() < 1536
    assert len(set(ids)) == len(ids)


def test_the_same_seed_writes_the_same_cohort(cohort, tmp_path):
    write_cohort(tmp_path, SMALL)
    for path in cohort.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(cohort)).read_bytes(), path.name


def test_another_seed_draws_another_slide():
    other = CohortSpec(cases_per_class=1, side_px=1536, seed=1)
    here, there = (draw_slide(spec, 0, "LMS") for spec in (SMALL, other))
    assert np.mean(here != there) > 0.3
    assert _plan(SMALL, 0) != _plan(other, 0)


def test_the_label_never_leaves_the_key_regions():
    drawn = {label: draw_slide(SMALL, 2, label) for label in SUBTYPES}
    inside = unary_union(_plan(SMALL, 2).keys)
    y, x = np.mgrid[:1536, :1536] + 0.5
    outside = ~shapely.contains_xy(inside.buffer(1), x, y)
    for one, two in pairwise(SUBTYPES):
        differs = (drawn[one] != drawn[two]).any(-1)
        assert not differs[outside].any()
        assert differs[~outside].mean() > 0.7


def test_key_tiles_counts_exact_area(tmp_path):
    ring = [[100, 100], [300, 100], [300, 300], [100, 300], [100, 100]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path = tmp_path / "key.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    coords_l0 = np.array([[100, 100], [0, 100], [50, 100], [49, 100], [50, 50], [400, 400]])
    # a tile of 100 px holds 100, 0, 50, 49, 25 and 0 % of the square
    expected = [True, False, True, False, False, False]
    assert key_tiles(path, coords_l0, 100.0).tolist() == expected
    assert key_tiles(path, np.empty((0, 2)), 100.0).shape == (0,)


def test_slides_of_every_size_can_be_planned():
    for side, fraction in ((1280, 0.3), (1536, 0.15), (4096, 0.3)):
        for index in range(20):
            plan = _plan(CohortSpec(side_px=side, key_fraction=fraction), index)
            assert not plan.tumour.intersects(plan.satellites)
            assert min(plan.tissue.bounds) >= 0
            assert max(plan.tissue.bounds) <= side


@pytest.mark.parametrize("subtype", _PATTERNS)
def test_patterns_fill_regions_of_every_size(subtype):
    for side in (40, 130, 290):
        for seed in range(6):
            pattern = _PATTERNS[subtype](side, np.random.default_rng(seed))
            assert pattern.shape[1] >= side
            assert pattern.shape[2] >= side
            assert pattern.any()


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("cases_per_class", 0, "at least 1; got 0"),
        ("side_px", 512, "got 512"),
        ("key_fraction", 20, "use 0.2"),
        ("key_fraction", 0.0, "use 0.2"),
        ("seed", -1, "0 or more.*Use 0"),
    ],
)
def test_nonsense_is_refused_with_the_remedy(field, value, remedy):
    with pytest.raises(FeaturesError, match=remedy):
        CohortSpec(**{field: value})
