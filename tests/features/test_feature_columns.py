"""Columns of a table of features that are none are refused, by their names and by their values."""

import numpy as np
import pytest

from features.bags.bag import read_bag
from features.bags.convert import convert
from features.bags.foreign_readers import SourceFacts
from features.columns.features import doubtful_columns, name_columns, numbered_columns

RNG = np.random.default_rng(3)
BAGS = np.repeat(["p", "q", "r", "s"], [6, 4, 5, 5])
VALUES = RNG.normal(size=(20, 3))
HAND_MADE = ("area", "perimeter", "Texture_Contrast_3_45", "tumour_area_mm2", "gradient_y", "mode")


def write_table(path, columns, index="bag"):
    rows = [",".join([index, *columns])]
    cells = [BAGS, *columns.values()]
    rows += [",".join(map(str, row)) for row in zip(*cells, strict=True)]
    path.write_text("\n".join(rows) + "\n")
    return path


def hand_made(**columns):
    return {f"{name}": VALUES[:, i % 3] + i for i, name in enumerate(HAND_MADE)} | columns


@pytest.mark.parametrize("name", [
    "Outcome", "vital_status", "OS.time", "DaysToDeath", "Diagnose", "subtipo", "WHO grade", "grado",
    "dx_code", "Therapieansprechen_status", "label_binary", "y_bag", "isMalignant", "TUMOR", "keytile",
    "Rezidiv", "ned", "event_5y", "alive", "Subject", "PatientNumber", "Age_at_diagnosis", "Geschlecht",
    "hospital_code",
    "scanner", "cv_fold", "is_valid", "trainOrTest", "kohorte", "subset", "tile_no", "patch_idx", "nr",
    "uuid", "block_id", "x_um", "Centroid Y", "coords_x", "étiquette", "Entität", "prediction",
    "lebt", "生存",
])  # fmt: skip
def test_a_column_is_no_feature_by_its_name(name):
    assert list(doubtful_columns([*HAND_MADE, name])) == [name]
    assert list(doubtful_columns([name, *HAND_MADE], trusted=[f"{name[:3]}*"])) == []


@pytest.mark.parametrize("stem", ["f", "feat_", "X", "PC", "dim-", "data_", "v", "layer4.", ""])
def test_numbered_columns_are_features_whatever_stands_before_the_number(stem):
    names = [f"{stem}{i}" for i in range(4, 12)]
    assert doubtful_columns(names) == {}
    assert numbered_columns(names) == {*names}
    assert doubtful_columns([*names, "sarcomatoid"]) == {
        "sarcomatoid": "not numbered as the others are"
    }


@pytest.mark.parametrize("stem", ["y", "label_", "outcome", "fold_", "OS_", "patient", "grade"])
def test_numbered_outcomes_are_none(stem):
    names = [f"{stem}{i}" for i in range(1, 5)]
    assert [*doubtful_columns(names)] == names


def test_values_show_what_a_column_is():
    numbers = {bag: number for number, bag in enumerate("pqrs")}
    bag_of = np.array([numbers[bag] for bag in BAGS])
    columns = {
        "ddlps": bag_of % 2,
        "thickness": bag_of**2,
        "a": np.arange(20) + 7,
        "b": np.concatenate([np.arange((bag_of == bag).sum()) for bag in range(4)]),
        "blank": np.zeros(20),
        "sparse": (bag_of == 2) * 1.0,
        "varying": VALUES[:, 0],
    }
    doubtful = doubtful_columns([*columns], np.stack([*columns.values()], axis=1), bag_of)
    assert doubtful == {
        "ddlps": "the same in all rows of a bag",
        "thickness": "the same in all rows of a bag",
        "a": "a count of the rows",
        "b": "a count of the rows",
    }
    shuffled = RNG.permutation(20)
    shuffled_columns = np.stack([*columns.values()], axis=1)[shuffled]
    again = doubtful_columns([*columns], shuffled_columns, bag_of[shuffled])
    assert [*again] == ["ddlps", "thickness"]


def test_a_table_with_a_column_of_the_outcome_is_refused_and_features_are_named(tmp_path):
    of_bags = np.isin(BAGS, ["p", "r"]).astype(int)
    table = write_table(tmp_path / "t.csv", hand_made(response=of_bags, necrosis=of_bags))
    [failure] = convert(table, tmp_path / "store").failures
    assert failure == (
        f"{table}: column 'response' (an outcome, by its name) is no feature. Remove it from the "
        "table or, if it is one, set feature_columns to its name."
    )
    facts = SourceFacts(feature_columns=("resp*",))
    [failure] = convert(table, tmp_path / "store", facts=facts).failures
    assert "column 'necrosis' (the same in all rows of a bag) is no feature" in failure
    assert not list((tmp_path / "store").glob("*.h5"))
    facts = SourceFacts(feature_columns=("response", "necrosis"))
    result = convert(table, tmp_path / "store", facts=facts)
    assert (result.n_done, result.dims) == (4, {8})
    assert result.columns == ", ".join([*HAND_MADE, "response", "necrosis"])
    assert read_bag(tmp_path / "store" / "q.h5").recipe["columns"] == result.columns


def test_columns_with_places_are_judged_likewise(tmp_path):
    facts = SourceFacts(slide_mpp=(0.5, 0.5), tile_px=64, target_mpp=0.5)
    header = "x,y,mean_hue,Diagnosis,Follow-up"
    (tmp_path / "a.csv").write_text(f"{header}\n0,0,.5,1,30\n64,0,.25,1,30\n")
    [failure] = convert(tmp_path / "a.csv", tmp_path / "store", facts=facts).failures
    assert (
        "columns 'Diagnosis' (an outcome, by its name), 'Follow-up' (an outcome, by its name) are no "
        "features. Remove them from the table, or set feature_columns to the names of those that are "
        "features."
    ) in failure


def test_tables_whose_columns_have_another_order_are_not_put_together(tmp_path):
    for name, header in (("a", "x,y,hue,size"), ("b", "x,y,size,hue")):
        (tmp_path / f"{name}.csv").write_text(f"{header}\n0,0,.5,1\n64,0,.25,2\n")
    facts = SourceFacts(slide_mpp=(0.5, 0.5), tile_px=64, target_mpp=0.5)
    result = convert(tmp_path, tmp_path / "store", facts=facts)
    assert result.n_done == 1
    assert "its recipe differs from bag a of the store (columns)" in result.failures[0]


def test_long_lists_of_columns_are_short():
    names = [f"f{i}" for i in range(9, 1030)]
    assert name_columns([*names, "area", "g1", "g2", "g4"]) == "f9 to f1029, area, g1, g2, g4"
    text = name_columns([f"{i}th_{'long' * 5}" for i in range(500)])
    assert len(text) < 1600
    assert text.endswith("499th_longlonglonglonglong (500 columns)")


@pytest.mark.parametrize(
    "name", ["is_mpnst", "Disease state", "pN", "pred_class", "prob_cancer", "HUVOS"]
)
def test_what_others_say_of_a_case_is_no_feature(name):
    assert doubtful_columns([name, "area", "probe_count", "mean_grey"]).keys() == {name}


def test_a_numbered_column_that_is_one_value_in_each_bag_is_none():
    values = np.random.default_rng(0).normal(size=(24, 4))
    bags = np.repeat(np.arange(6), 4)
    names = ["f1", "f2", "f3", "f4"]
    assert doubtful_columns(names, values, bags) == {}
    values[:, 2] = np.repeat([1, 0, 0, 1, 0, 1], 4)
    assert doubtful_columns(names, values, bags).keys() == {"f3"}
    values[:, 2] = 0  # a dead channel of a network tells nothing
    assert doubtful_columns(names, values, bags) == {}


def test_names_of_radiomics_are_features_and_others_beside_them_are_none():
    own = [
        "original_glcm_Id",
        "original_shape_Flatness",
        "square_glcm_Id",
        "original_ngtdm_Strength",
    ]
    assert doubtful_columns(own) == {}
    assert doubtful_columns([*own, "befund"]) == {
        "befund": "no feature of pyradiomics, as the others are"
    }
    assert doubtful_columns([*own, "befund"], trusted=["be*"]) == {}
    assert set(doubtful_columns(["area", "original_glcm_Id", "Id"])) == {"Id"}


def test_a_label_among_measurements_is_found_where_a_bag_is_one_row():
    rng = np.random.default_rng(4)
    values, bags = np.c_[rng.normal(size=(14, 3)), np.arange(14) % 3], np.arange(14)
    names = ["area", "perimeter", "texture", "kappa"]
    assert list(doubtful_columns(names, values, bags)) == ["kappa"]
    assert doubtful_columns(names, values, bags, trusted=["kap?a"]) == {}
    assert doubtful_columns(names, values[:8], bags[:8]) == {}  # too few
    assert doubtful_columns(names, values, bags // 2) == {}  # a count of cells varies in a bag
    counts = np.c_[values[:, :3], rng.integers(0, 4, (14, 2))]
    assert doubtful_columns([*names, "lobes"], counts, bags) == {}


@pytest.mark.parametrize(
    ("codes", "one_row", "doubted"),
    [
        ([7, 9] * 6, True, True),
        ([7, 9, 9, 11] * 3, True, True),
        ([7] + [9] * 11, True, False),  # a class of one
        ([7.5, 9] * 6, True, False),
        ([7, 9] * 6, False, False),
        ([5, 0, 11, 3, 8, 1, 10, 2, 9, 4, 7, 6], True, False),
    ],
)
def test_the_one_column_of_codes_among_measurements_may_be_a_label(codes, one_row, doubted):
    measured = np.random.default_rng(3).normal(size=(12, 3))
    values = np.column_stack([measured, codes])
    bags = np.arange(12) if one_row else np.arange(12) // 2
    doubts = doubtful_columns(["wide", "long", "deep", "zeta"], values, bags)
    assert ("zeta" in doubts) == doubted
    assert not doubtful_columns(["wide", "long", "deep", "zeta"], values, bags, trusted=["z*"])
