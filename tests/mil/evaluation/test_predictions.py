import itertools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mil.errors import PredictionsError
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.predictions import concat, kind_of, read_predictions, write_predictions
from mil.evaluation.survival.predictions import RiskPredictions


def test_models_keep_their_order_and_repeats_ascend(make):
    results = make(models=("zeta", "alpha"), repeats=3)
    assert results.models == ("zeta", "alpha")
    assert results.repeats == (0, 1, 2)


def test_case_scores_average_the_slides_of_a_case(predictions):
    scores = predictions.case_scores("votes", 1)
    table = predictions.table
    assert list(scores.case) == sorted(set(table["case"]))
    for i, case in enumerate(scores.case):
        rows = table[(table.model == "votes") & (table.repeat == 1) & (table.case == case)]
        np.testing.assert_allclose(scores.p[i], rows[["p_c0", "p_c1", "p_c2"]].mean())
        assert predictions.classes[scores.truth[i]] == rows["label"].iloc[0]
        assert scores.fold[i] == rows["fold"].iloc[0]
    assert scores.p.shape == (12, 3)
    np.testing.assert_allclose(scores.p.sum(axis=1), 1)


def test_order_of_rows_changes_no_bit(make):
    whole = make(slides=5)
    for seed in range(20):
        table = whole.table.sample(frac=1, random_state=seed)
        mixed = ClassPredictions(table, whole.classes)
        for model in whole.models:
            a, b = whole.case_scores(model, 1), mixed.case_scores(model, 1)
            assert a.case == b.case
            np.testing.assert_array_equal(a.p, b.p)
            np.testing.assert_array_equal(a.truth, b.truth)
            np.testing.assert_array_equal(a.fold, b.fold)


def test_unknown_model_and_repeat_are_named(predictions):
    with pytest.raises(PredictionsError, match=r"No predictions of model 'clam'.*abmil, votes"):
        predictions.case_scores("clam", 0)
    with pytest.raises(PredictionsError, match="in repeat 7"):
        predictions.case_scores("votes", 7)


def swap(column, value, row=0):
    def change(table):
        table = table.astype({column: object}) if isinstance(value, str | int) else table
        table.loc[row, column] = value
        return table

    return change


def other_fold(table):
    at = (table.model == "votes") & (table.case == "case04") & (table.repeat == 0)
    table.loc[at, "fold"] = 9
    return table


def without(model, case, repeat):
    def change(table):
        return table[~((table.model == model) & (table.case == case) & (table.repeat == repeat))]

    return change


def two_labels(table):
    table.loc[table.slide == "case01-1", "label"] = "c1"
    return table


def two_folds(table):
    table.loc[(table.slide == "case01-1") & (table.repeat == 1), "fold"] = 0
    return table


BROKEN = {
    "no column": (lambda t: t.drop(columns=["fold", "case"]), "lack fold, case;"),
    "no p": (lambda t: t.drop(columns=["p_c0", "p_c1", "p_c2"]), "hold no probability"),
    "a p lacks": (lambda t: t.drop(columns="p_c1"), "lack p_c1;"),
    "a p too many": (lambda t: t.assign(p_c9=0.0), "hold p_c9 beside the classes"),
    "column twice": (lambda t: pd.concat([t, t[["case"]]], axis=1), "column case twice"),
    "no row": (lambda t: t.iloc[:0], "hold no row"),
    "case not text": (swap("case", 7), "Column case must hold text; got 7"),
    "label missing": (swap("label", np.nan), "Column label must hold text; got nan"),
    "slide blank": (swap("slide", ""), "Column slide must hold text; got ''"),
    "fold not whole": (lambda t: t.assign(fold=0.5), "Column fold must hold integers; got float64"),
    "unknown label": (swap("label", "lipoma"), "'case00' has the label 'lipoma'"),
    "p not a float": (lambda t: t.assign(p_c0="x"), "Column p_c0 must hold floats; got object"),
    "nan": (swap("p_c0", np.nan, 3), "slide 'case02-0': probabilities must lie in"),
    "below 0": (swap("p_c1", -0.1, 3), "slide 'case02-0': probabilities must lie in"),
    "above 1": (swap("p_c1", 1.1, 3), "slide 'case02-0': probabilities must lie in"),
    "sum": (lambda t: t.assign(p_c0=t.p_c0 * 0.99), "must sum to 1 within 0.001; got 0.9"),
    "row twice": (lambda t: pd.concat([t, t.iloc[[4]]]), "slide 'case03-0' is predicted twice"),
    "two labels": (two_labels, "Case 'case01' has two outcomes (label): c0, c1"),
    "two folds": (two_folds, "Case 'case01' lies in folds 0, 2 of repeat 1"),
    "case lacks": (
        without("votes", "case05", 1),
        "'votes' lacks 1 of 12 cases in repeat 1: case05",
    ),
    "first model lacks": (without("abmil", "case05", 0), "'abmil' lacks 1 of 12 cases in repeat 0"),
    "other fold": (other_fold, "'votes' predicted case case04 in another fold of repeat 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_contradictions_are_refused(predictions, name):
    change, message = BROKEN[name]
    with pytest.raises(PredictionsError, match=re.escape(message)):
        ClassPredictions(change(predictions.table.copy()), predictions.classes)


@pytest.mark.parametrize("classes", [("c0",), ("c0", "c1", "c1")])
def test_classes_are_two_or_more_and_distinct(predictions, classes):
    with pytest.raises(PredictionsError, match="two or more distinct classes"):
        ClassPredictions(predictions.table, classes)


def test_a_model_missing_from_a_whole_repeat_is_named(predictions):
    table = predictions.table
    table = table[~((table.model == "votes") & (table.repeat == 1))]
    with pytest.raises(
        PredictionsError, match=r"'votes' lacks 12 of 12 cases in repeat 1.*and 7 more"
    ):
        ClassPredictions(table, predictions.classes)


def test_rounded_and_single_precision_probabilities_pass(predictions):
    table = predictions.table
    columns = predictions.answer_columns
    ClassPredictions(table.assign(**table[columns].round(4)), predictions.classes)
    ClassPredictions(table.astype(dict.fromkeys(columns, np.float32)), predictions.classes)


def test_concat_puts_models_together(make):
    a, b = make(models=("a",)), make(models=("b",), seed=1)
    both = concat([a, b])
    assert both.models == ("a", "b")
    np.testing.assert_array_equal(both.case_scores("b", 1).p, b.case_scores("b", 1).p)


KEYS = "model,repeat,fold,case,slide"


def rows_with(*answers):
    """A table of two cases, in two folds."""
    return [f"m,0,{i},c{i},c{i}-s1,{answer}" for i, answer in enumerate(answers)]


TABLES = {
    "classes": (f"{KEYS},label,p_a,p_b", rows_with("a,0.7,0.3", "b,0.4,0.6"), ClassPredictions),
    "risks": (f"{KEYS},time,event,risk,s_1,s_2", rows_with("3,1,0.5,0.9,0.5", "5,0,-1,1,0.8"),
              RiskPredictions),
    "grades": (f"{KEYS},grade,g_1,g_2", rows_with("1,0.7,0.3", "2,0.4,0.6"), GradePredictions),
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def read_table(name):
        header, rows, _ = TABLES[name]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
        return read_predictions(tmp_path / f"{name}.csv")

    return read_table


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_a_table_tell_its_kind(read, name):
    header, _, kind = TABLES[name]
    assert kind_of(header.split(",")) is kind
    predictions = read(name)
    assert type(predictions) is kind
    assert predictions.models == ("m",)
    assert kind.expect(predictions) is predictions
    assert set(predictions.outcomes_by_case()) == {"c0", "c1"}


def test_a_class_that_rides_along_with_times_decides_the_kind():
    assert kind_of([*KEYS.split(","), "label", "p_a", "time", "event", "risk"]) is ClassPredictions


def test_a_table_of_no_kind_is_read_as_one_of_classes(tmp_path):
    (tmp_path / "t.csv").write_text(f"{KEYS},score\nm,0,0,c,s,1\n")
    with pytest.raises(PredictionsError, match=r"t\.csv: .*Give one column p_<class> per class"):
        read_predictions(tmp_path / "t.csv")


@pytest.mark.parametrize(("name", "other"), [*itertools.permutations(TABLES, 2)])
def test_kinds_are_not_mixed(read, name, other):
    first, second = read(name), read(other)
    with pytest.raises(PredictionsError, match="cannot join those with"):
        concat([first, second])
    message = f"hold {second.answers}, not {first.answers}"
    with pytest.raises(PredictionsError, match=message):
        type(first).expect(second)


@pytest.mark.parametrize("name", TABLES)
def test_select_keeps_the_kind_and_refuses_unknown_models(read, name):
    predictions = read(name)
    both = concat([predictions, replace(predictions, table=predictions.table.assign(model="n"))])
    assert type(both) is type(predictions)
    assert both.select(["n"]).models == ("n",)
    with pytest.raises(PredictionsError, match="no model 'x' among m, n"):
        both.select(["n", "x"])


def test_concat_refuses_what_does_not_fit(make):
    with pytest.raises(PredictionsError, match="There are no predictions to join"):
        concat([])
    with pytest.raises(
        PredictionsError, match="columns p_c0, p_c1 cannot join those with p_c0, p_c1, p_c2"
    ):
        concat([make(models=("a",)), make(counts=(3, 4), models=("b",))])
    with pytest.raises(PredictionsError, match="is predicted twice"):
        concat([make(models=("a",)), make(models=("a",))])


NASTY = [
    "NA", "007", "1e5", "nan", "None", "true", "-0", "a,b", 'say "x"', "line\nbreak", "cr\rlf\r\n",
    " space ", "Übergröße", "#hash", "1_000", "inf", "'", "\t",
]  # fmt: skip


def test_csv_gives_back_names_and_every_bit(tmp_path, make):
    results = make(counts=(8, 10), repeats=1)
    table = results.table.copy()
    names = dict(zip(sorted(set(table["case"])), NASTY, strict=True))
    table["slide"] = table["slide"].map(lambda name: names[name[:6]] + name[6:])
    table["case"] = table["case"].map(names)
    table["label"] = table["label"].map({"c0": "NA", "c1": "1.0"})
    table = table.rename(columns={"p_c0": "p_NA", "p_c1": "p_1.0"})
    table["p_NA"] = 1 - table["p_1.0"]
    nasty = ClassPredictions(table, ("NA", "1.0"))
    write_predictions(tmp_path / "predictions.csv", nasty)
    back = read_predictions(tmp_path / "predictions.csv")
    assert back.classes == nasty.classes
    pd.testing.assert_frame_equal(back.table, table, check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_csv_of_single_precision_gives_equal_values(tmp_path, predictions):
    table = predictions.table.astype(dict.fromkeys(predictions.answer_columns, np.float32))
    single = ClassPredictions(table, predictions.classes)
    write_predictions(tmp_path / "p.csv", single)
    back = read_predictions(tmp_path / "p.csv").table
    for name in predictions.answer_columns:
        np.testing.assert_array_equal(back[name], table[name].astype(np.float64))


def test_unreadable_files_are_named(tmp_path, predictions):
    path = tmp_path / "p.csv"
    with pytest.raises(PredictionsError, match=r"p\.csv: no such run or table of predictions"):
        read_predictions(path)
    path.write_text("")
    with pytest.raises(PredictionsError, match="cannot be read"):
        read_predictions(path)
    path.write_bytes(b"model,case\n\xff\x81,\x80\n")
    with pytest.raises(PredictionsError, match="cannot be read"):
        read_predictions(path)
    write_predictions(path, predictions)
    text = path.read_text()
    path.write_text(text.replace('"abmil",0,', '"abmil",0.5,', 1))
    with pytest.raises(PredictionsError, match=r"column repeat must hold numbers.*0\.5"):
        read_predictions(path)
    path.write_text("model,repeat,fold,case,slide,label,p_a,p_b\nm,0,0,c,s,a,x,0.5\n")
    with pytest.raises(PredictionsError, match=r"column p_a must hold numbers.*'x'"):
        read_predictions(path)
    path.write_text("model,repeat\nm,0\n")
    with pytest.raises(PredictionsError, match="hold no probability"):
        read_predictions(path)
