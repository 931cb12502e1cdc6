"""Test rows under another name than split are not learnt from; ordinary columns of that look are read."""

import pytest

from mil.data.case import Row
from mil.data.table import rows_to_judge, split_train_test, training_rows
from mil.errors import CohortError


def rows_with(column, cells, **fixed):
    return [
        Row(line=i + 2, case=f"p{i}", slide=f"s{i}", label="ab"[i % 2], other={column: cell}, **fixed)
        for i, cell in enumerate(cells)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "cells", "tested"),
    [
        ("set", ["Training set", "Training set", "Test set"], "Test set"),
        ("Group", ["train", "test", "NA", "train"], "test"),
        ("remark", ["Trainingskohorte", "Testkohorte", "", "[Unknown]"], "Testkohorte"),
        ("partition", ["train", "hold out"], "hold out"),
        ("x", ["held-out", "", ""], "held-out"),
        ("fold", ["1", "2", "3", "test"], "test"),
        ("CV Fold", ["fold 1", "fold 2", "Test"], "Test"),
        ("subset", ["internal", "internal", "external"], "external"),
        ("cohort", ["TCGA-train", "TCGA-test"], "TCGA-test"),
        ("cohort", ["discovery", "validation"], "validation"),
        ("cohort", ["Bonn", "Graz", "External validation"], "External validation"),
        ("cohort", ["Graz (internal)", "Linz (external)"], "Linz (external)"),
        ("DataSet", ["trainSet1", "trainSet2", "testSet1"], "testSet1"),
        ("origin", ["development", "external", "development"], "external"),
        ("Verwendung", ["Training", "Validierung", "Test"], "Test"),
        ("Kollektiv", ["Lernkollektiv", "Testkollektiv"], "Testkollektiv"),
        ("set", ["TR", "TE", "TR"], "TE"),
        ("role", ["train", "evaluation"], "evaluation"),
        ("fold", ["1", "2", "ext"], "ext"),
        ("path", ["d/train/a.svs", "d/train/b.svs", "d/test/c.svs"], "d/test/c.svs"),
        ("is_test", ["0", "1", "0"], "1"),
        ("isTest", ["FALSE", "TRUE"], "TRUE"),
        ("Test set?", ["", "x", ""], "x"),
        ("hold_out", ["no", "yes"], "yes"),
        ("external", ["nein", "ja", "nein"], "ja"),
        ("used for validation", ["n", "y"], "y"),
        ("in_train", ["True", "False", "NA"], "False"),
        ("train", ["x", "", "x"], ""),
        ("reserved", ["yes", "no", "no"], "yes"),
    ],
)  # fmt: skip
def test_a_column_that_tells_test_rows_is_refused(column, cells, tested):
    with pytest.raises(CohortError, match="seems to say which cases are for testing") as error:
        split_train_test(rows_with(column, cells))
    assert f"column {column!r}" in str(error.value)
    assert f"({tested!r} on line {cells.index(tested) + 2})" in str(error.value)
    assert len(split_train_test(rows_with(column, cells, split="train"))[0]) == len(cells)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("fold", ["1", "2", "3"]),
        ("split_seed", ["0", "1", "0"]),
        ("cohort", ["Bonn", "Testaccio", "St. Valentin", "TCGA"]),
        ("group", ["doxorubicin", "placebo", "doxorubicin"]),
        ("group", ["test", "control", "test"]),
        ("arm", ["external beam", "proton", "none"]),
        ("group", ["external beam radiotherapy", "surgery"]),
        ("hemipelvectomy", ["internal", "external", ""]),
        ("referral", ["external", "internal"]),
        ("FISH test", ["1", "0", "1"]),
        ("test", ["positive", "negative"]),
        ("group", ["PCR test positive", "PCR test negative"]),
        ("is_valid", ["TRUE", "FALSE"]),
        ("independent", ["yes", "no"]),
        ("is_test", ["0", "0", "0"]),
        ("in_train", ["1", "1"]),
        ("train", ["NA", "", "NA"]),
        ("set", ["training", "training"]),
        ("TR", ["1", "0"]),
        ("sample set", ["TS", "DX", "BS"]),
        ("evaluation", ["central", "local"]),
        ("remark", ["blood test", "training for a marathon", "seen twice", "left leg", "none", "right"]),
        ("Validation_Status", ["Valid", "Untested"]),
        ("slide folder", ["a/1", "test/b"]),
        ("partition coefficient", ["0.1", "2"]),
    ],
)  # fmt: skip
def test_an_ordinary_column_is_read(column, cells):
    training, test = split_train_test(rows_with(column, cells))
    assert (len(training), test) == (len(cells), ())


def test_folders_and_sites_tell_as_well(tmp_path):
    table = tmp_path / "cohort.csv"
    lines = ["case,slide,label", "p1,/d/train/a.svs,x", "p2,/d/train/b.svs,y", "p3,/d/test/c.svs,x"]
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(CohortError, match=r"column 'slide' .*'/d/test/c.svs' on line 4"):
        training_rows(table)
    table.write_text("\n".join([lines[0], "p1,test/a.svs,x", "p2,test/b.svs,y"]) + "\n")
    assert len(training_rows(table)) == 2
    sites = [
        Row(line=2, case="p", slide="s", site="A train"),
        Row(line=3, case="q", slide="t", site="A test"),
    ]
    with pytest.raises(CohortError, match="column 'site'"):
        split_train_test(sites)


def test_a_table_of_test_rows_alone_can_be_judged():
    rows = rows_with("cohort", ["external validation"] * 3)
    assert len(rows_to_judge(rows)) == 3
    with pytest.raises(CohortError, match="for testing"):
        split_train_test(rows)
    with pytest.raises(CohortError, match="for testing"):
        rows_to_judge(rows_with("cohort", ["external validation", "training"]))
