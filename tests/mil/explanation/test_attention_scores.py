"""Attention as scores of tiles, and the files that carry them."""

import csv
import json
import uuid

import numpy as np
import pytest
from shapely.geometry import box, shape

from mil.errors import FitError
from mil.explanation.attention import attention_scores
from mil.explanation.scores import TileScores, write_csv, write_geojson
from mil.heads.attention import AttentionPooling
from mil.heads.head import HeadSettings
from mil.heads.registry import head_class
from mil.heads.table import MODELS
from mil.learning.fitted import FittedModel, run_head
from mil.learning.readout import ClassReadout
from mil.learning.training import fit_model
from tests.mil.made import QUICK, RECIPE, made_bag, made_cohort

COHORT = made_cohort((3, 3))


@pytest.fixture(scope="module")
def abmil():
    return fit_model("abmil", COHORT.cases, (), COHORT.classes, QUICK, seed=0)


def scores_of(values=(0.5, 0.3, 0.2), **changes):
    values = np.array(values)
    return TileScores(
        bag=made_bag("s1", n_tiles=len(values), **changes),
        method="attention",
        model="abmil",
        values=values,
        relative=values * len(values),
    )


@pytest.mark.parametrize("model", ["abmil", "gated-abmil"])
@pytest.mark.parametrize("n_tiles", [1, 2, 100])
def test_attention_sums_to_one(model, n_tiles):
    fitted = fit_model(model, COHORT.cases, (), COHORT.classes, QUICK, seed=0)
    scores = attention_scores(fitted, made_bag("s", n_tiles=n_tiles))
    assert scores.values.sum() == pytest.approx(1, abs=1e-6)
    assert scores.relative.mean() == pytest.approx(1, abs=1e-6)
    assert scores.values.shape == scores.relative.shape == (n_tiles,)


def test_values_are_the_heads_own(abmil):
    bag = made_bag("s", n_tiles=12)
    scores = attention_scores(abmil, bag)
    np.testing.assert_array_equal(scores.values, run_head(abmil, bag).attention[0, 0].double())
    np.testing.assert_array_equal(scores.relative, scores.values * 12)
    assert (scores.method, scores.model, scores.bag) == ("attention", "abmil", bag)


class MapPerClass(AttentionPooling):
    """Two maps: all weight on the first tile, and all on the last; says class 1 of positive bags."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        attention = features.new_zeros(len(features), 2, features.shape[1])
        attention[:, 0, 0] = attention[:, 1, -1] = 1
        positive = features.mean(dim=(1, 2)).sign().unsqueeze(1)
        changes = {"attention": attention, "logits": positive * features.new_tensor([[-1, 1]])}
        return type(output)(**{**vars(output), **changes})


@pytest.mark.parametrize(("sign", "lit"), [(-1, 0), (1, 3)])
def test_of_several_maps_that_of_the_predicted_class_is_shown(sign, lit):
    head = MapPerClass(HeadSettings(dim=5, n_outputs=2)).eval()
    bag = made_bag("s", np.full((4, 5), sign, dtype=np.float32))
    fitted = FittedModel(
        model="maps", head=head, readout=ClassReadout(("a", "b")), recipe=RECIPE,
        recipe_sha256=bag.recipe_sha256,
        trained_on=(), settings=QUICK, seed=0,
    )  # fmt: skip
    assert np.flatnonzero(attention_scores(fitted, bag).values).tolist() == [lit]


@pytest.mark.parametrize(
    "model", [name for name in MODELS if not head_class(name).learns_attention]
)
def test_model_without_learnt_attention_is_refused_with_the_remedy(model):
    fitted = fit_model(model, COHORT.cases, (), COHORT.classes, QUICK, seed=0)
    with pytest.raises(FitError, match=f"{model} learns no attention.*e.g. abmil"):
        attention_scores(fitted, made_bag("s"))


def test_baselines_and_plain_pooling_learn_no_attention():
    assert {"majority", "tile-vote", "mean", "max"} <= {
        name for name in MODELS if not head_class(name).learns_attention
    }


def test_bag_of_another_recipe_is_refused(abmil):
    with pytest.raises(FitError, match="does not suit"):
        attention_scores(abmil, made_bag("s", recipe=RECIPE | {"mpp": 1}))


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_has_one_row_per_tile_in_their_order(tmp_path, abmil):
    scores = attention_scores(abmil, made_bag("s", n_tiles=17))
    write_csv(tmp_path / "s.csv", scores)
    rows = read_csv(tmp_path / "s.csv")
    places = [(int(row["x_l0"]), int(row["y_l0"])) for row in rows]
    assert places == [tuple(xy) for xy in scores.bag.coords_l0.tolist()]
    np.testing.assert_allclose([float(row["attention"]) for row in rows], scores.values, rtol=1e-7)
    relative = [float(row["attention_relative"]) for row in rows]
    np.testing.assert_allclose(relative, scores.relative, rtol=1e-5)


def test_row_of_the_table_is_what_it_says(tmp_path):
    coords = np.array([[10, 20], [458, 20]])
    coverage = np.array([0.61234567, 1], dtype=np.float32)
    scores = scores_of((0.25, 0.75), coords_l0=coords, coverage=coverage, side_l0=(448.0, 447.128))
    write_csv(tmp_path / "s.csv", scores)
    assert (tmp_path / "s.csv").read_text() == (
        "slide,x_l0,y_l0,width_l0,height_l0,coverage,class,attention,attention_relative\n"
        "s1,10,20,448.0,447.13,0.6123,,0.25,0.5\n"
        "s1,458,20,448.0,447.13,1.0,,0.75,1.5\n"
    )


def test_attention_of_many_tiles_is_not_rounded_to_nothing(tmp_path):
    write_csv(tmp_path / "s.csv", scores_of((1 - 1e-9, 1e-9)))
    assert float(read_csv(tmp_path / "s.csv")[1]["attention"]) == 1e-9


@pytest.fixture
def geojson(tmp_path, abmil):
    """The scores of 17 tiles whose sides are no whole numbers, and the features of their file."""
    scores = attention_scores(abmil, made_bag("s", n_tiles=17, side_l0=(447.1234, 448.5678)))
    write_geojson(tmp_path / "s.geojson", scores)
    return scores, json.loads((tmp_path / "s.geojson").read_text())


def test_collection_holds_one_feature_per_tile_and_no_crs(geojson):
    scores, collection = geojson
    assert set(collection) == {"type", "features"}
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == len(scores.values)


def test_polygons_are_valid_and_lie_on_the_tiles(geojson):
    scores, collection = geojson
    width, height = scores.bag.side_l0
    for feature, (x, y) in zip(collection["features"], scores.bag.coords_l0, strict=True):
        polygon = shape(feature["geometry"])
        assert polygon.is_valid
        tile = box(x, y, x + width, y + height)
        assert polygon.symmetric_difference(tile).area < 0.02 * (width + height)


def test_rings_are_closed_and_rounded_to_two_decimals(geojson):
    for feature in geojson[1]["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        assert len(ring) == 5
        assert ring[0] == ring[-1]
        assert all(value == round(value, 2) for corner in ring for value in corner)


def test_features_are_tiles_with_their_measurements(geojson):
    scores, collection = geojson
    for i, feature in enumerate(collection["features"]):
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "tile"
        assert feature["properties"]["measurements"] == {
            "attention": pytest.approx(scores.values[i], rel=1e-5),
            "attention relative": pytest.approx(scores.relative[i], rel=1e-5),
            "coverage": pytest.approx(scores.bag.coverage[i], abs=1e-4),
        }


def test_ids_are_unique_uuids(geojson):
    ids = [feature["id"] for feature in geojson[1]["features"]]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(name)) == name for name in ids)


def test_file_is_repeatable(tmp_path):
    for name in ("a", "b"):
        write_geojson(tmp_path / name, scores_of())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_ids_differ_from_model_to_model(tmp_path):
    from dataclasses import replace

    ids = set()
    for model in ("abmil", "gated-abmil"):
        write_geojson(tmp_path / model, replace(scores_of(), model=model))
        features = json.loads((tmp_path / model).read_text())["features"]
        ids |= {feature["id"] for feature in features}
    assert len(ids) == 6


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_no_number_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_geojson(tmp_path / "s.geojson", scores_of((0.5, value)))
    assert not (tmp_path / "s.geojson").exists()
