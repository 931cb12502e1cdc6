"""Test rows under another name than split are not learnt from; ordinary columns of that look are read."""

import pytest

from mil.data.case import Row
from mil.data.parts import coded_parts
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
        ("set", ["train", "", "train"], ""),
        ("Datensatz", ["Training", "NA", "Training"], "NA"),
        ("anything", ["training", "", ""], ""),
        ("subset", ["training", "training", "replica"], "replica"),
        ("Kohorte", ["Trainingskohorte", "Bestätigungskohorte"], "Bestätigungskohorte"),
        ("cohort", ["training", "confirmation"], "confirmation"),
        ("conjunto", ["treino", "teste"], "teste"),
        ("jeu", ["entrainement", "entrainement", "controle final"], "controle final"),
        ("ensemble", ["apprentissage", "vérification"], "vérification"),
        ("insieme", ["addestramento", "convalida"], "convalida"),
        ("zbiór", ["treningowy", "testowy"], "testowy"),
        ("データセット", ["学習", "検証"], "検証"),
        ("队列", ["训练集", "测试集"], "测试集"),
        ("final_test", ["no", "yes"], "yes"),
        ("exclude_from_training", ["0", "1"], "1"),
        ("not for training", ["nein", "ja"], "ja"),
        ("blinded test set", ["yes", "no"], "yes"),
        ("train_val", ["1", "2", "1"], "2"),
        ("cohort", ["reference", "test"], "test"),
        ("cohort", ["derivation", "verification"], "verification"),
        ("Aufteilung", ["Lernen", "Testen", "Lernen"], "Testen"),
        ("x", ["trainieren", "prüfen"], "prüfen"),
        ("rol", ["entrenar", "validar"], "validar"),
    ],
)  # fmt: skip
def test_a_column_that_tells_test_rows_is_refused(column, cells, tested):
    with pytest.raises(CohortError, match="seems to say which cases are for testing") as error:
        split_train_test(rows_with(column, cells))
    assert f"column {column!r}" in str(error.value)
    assert f"({tested!r} on line {cells.index(tested) + 2})" in str(error.value)
    assert "add a column split with train in each row" in str(error.value)
    assert len(split_train_test(rows_with(column, cells, split="train"))[0]) == len(cells)


@pytest.mark.parametrize(
    ("column", "cells", "left_out"),
    [
        ("excluded", ["no", "yes"], "yes"), ("Included in analysis", ["ja", "nein"], "nein"),
        ("exclude", ["", "x"], "x"),
    ],
)  # fmt: skip
def test_a_column_that_leaves_rows_out_is_refused(column, cells, left_out):
    with pytest.raises(
        CohortError, match=r"seems to say which cases are left out .* Remove their rows"
    ) as error:
        split_train_test(rows_with(column, cells))
    assert f"({left_out!r} on line {cells.index(left_out) + 2})" in str(error.value)
    assert len(split_train_test(rows_with(column, cells, split="train"))[0]) == len(cells)


@pytest.mark.parametrize(
    ("column", "cells", "codes"),
    [
        ("set", ["1", "2", "1", "1"], "1, 2"),
        ("Set", ["0", "1", "2", "0"], "0, 1, 2"),
        ("data split", ["1.0", "0.0", "1.0"], "0, 1"),
        ("split_code", ["1", "3", "2", ""], "1, 2, 3"),
        ("subset", ["A", "A", "B"], "A, B"),
        ("partition", ["set 1", "set 2", "set 2"], "set 1, set 2"),
        ("SET", ["T", "V", "T"], "T, V"),
        ("Teilmenge", ["I", "II", "I"], "I, II"),
        ("jeu de données", ["1", "2", "2"], "1, 2"),
        ("conjunto", ["1", "1", "2"], "1, 2"),
        ("データ区分", ["1", "2", "2"], "1, 2"),
        ("train_val_test", ["0", "1", "2", "0"], "0, 1, 2"),
        ("train/test set", ["1", "2", "9", "1"], ""),
        ("fold", ["0", "1", "-1", "0"], "-1, 0, 1"),
        ("kfold", ["-1", "0", "1", "2"], "-1, 0, 1, 2"),
    ],
)  # fmt: skip
def test_codes_that_may_tell_test_rows_are_asked(column, cells, codes):
    assert ", ".join(coded_parts(column, cells)) == codes
    if codes:
        with pytest.raises(
            CohortError, match="may say by codes which cases are for testing"
        ) as error:
            split_train_test(rows_with(column, cells))
        assert f"column {column!r} may say by codes" in str(error.value)
        assert f"it holds {codes}. Name it split" in str(error.value)
    assert len(split_train_test(rows_with(column, cells, split="train"))[0]) == len(cells)


@pytest.mark.parametrize(
    ("column", "cells"),
    [("cohort", ["1", "2", "1"]), ("Kohorte", ["A", "B", "B"]), ("dataset", ["0", "1", "2", "1"])],
)
def test_codes_that_may_tell_test_rows_and_more_often_something_else_are_noted(
    tmp_path, column, cells
):
    table, notes = tmp_path / "cohort.csv", []
    lines = [f"p{i},s{i},{cell}" for i, cell in enumerate(cells)]
    table.write_text("\n".join([f"case,slide,{column}", *lines]) + "\n")
    assert len(training_rows(table, notes.append)) == len(cells)
    [note] = notes
    assert note.startswith(f"cohort.csv: column {column!r} holds {', '.join(sorted({*cells}))}. If")
    table.write_text(table.read_text().replace(column, "ward"))
    training_rows(table, notes.append)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("set", ["1", "2", "3"]),  # another of each row
        ("set", ["1", "1", ""]),
        ("set", ["1", "2", "3", "4", "5", "1"]),
        ("sets of chromosomes", ["1", "2", "1"]),
        ("gene set score", ["1", "2", "1"]),
        ("mindset", ["1", "2", "1"]),
        ("onset", ["0", "1", "1"]),
        ("split thickness", ["1", "2", "1"]),
        ("folds", ["-1", "1", "1"]),
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
        ("genotype group", ["Val/Met", "Val/Val", "Met/Met"]),
        ("group", ["Val158", "Met158"]),
        ("set", ["Val", "Ile"]),
        ("part", ["ext", "int"]),
        ("use", ["external", "oral"]),
        ("phase", ["development", "adult"]),
        ("group", ["experimental", "test"]),
        ("group", ["training", "control"]),
        ("group", ["evaluation", "surgery"]),
        ("risk group", ["low", "int", "high"]),
        ("injury", ["train", "car", ""]),
        ("excluded nodes", ["yes", "no"]),
        ("excluded", ["no", "no"]),
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


def test_a_split_that_is_empty_beside_train_is_noted(tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text("case,slide,split\np1,a,train\np2,b,\np3,c,\n")
    notes = []
    assert len(training_rows(table, notes.append)) == 3
    [note] = notes
    assert "column split is empty in 2 rows and says train in 1; all of them are trained on" in note
    for words in (("train", "train", "train"), ("", "", ""), ("test", "", "train")):
        rows = [f"p{i},s{i},{word}" for i, word in enumerate(words)]
        table.write_text("\n".join(["case,slide,split", *rows]) + "\n")
        notes.clear()
        training_rows(table, notes.append)
        assert not any("is empty" in note for note in notes)


@pytest.mark.parametrize(
    ("column", "noted"), [("fold", True), ("CV_fold", True), ("Fold id", True), ("folding", False)]
)
def test_folds_of_the_table_are_said_not_to_be_read(tmp_path, column, noted):
    table, notes = tmp_path / "cohort.csv", []
    table.write_text(f"case,slide,{column}\np1,a,0\np2,b,1\np3,c,2\n")
    training_rows(table, notes.append)
    assert notes == [f"cohort.csv: column {column} is not read; folds are drawn anew."] * noted
