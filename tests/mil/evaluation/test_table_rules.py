"""Tables of predictions follow the rules of cohort tables, and legitimate names pass."""

import pytest

from mil.errors import PredictionsError
from mil.evaluation.cells import read_text_table
from mil.evaluation.predictions import kind_of
from mil.evaluation.survival.predictions import RiskPredictions
from mil.evaluation.tables import read_any_tables


def classes(tmp_path, names, *, head="case", labels="ab", file="t.csv", further=("", ())):
    """A table of two classes, one row per name."""
    name, cells = further
    lines = [f"{head},label,p_a,p_b{name and ','}{name}"]
    for i, case in enumerate(names):
        cell = f",{cells[i]}" if name else ""
        lines.append(f"{case},{labels[i % len(labels)]},0.{i + 1},0.{9 - i}{cell}")
    path = tmp_path / file
    path.write_text("\n".join(lines) + "\n")
    return path


def follow_up(tmp_path, times, events, head="case,time,event,risk"):
    lines = [
        head,
        *(f"k{i},{t},{e},{i / 8}" for i, (t, e) in enumerate(zip(times, events, strict=True))),
    ]
    path = tmp_path / "s.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["k1", "n.a.", "k3"],
            "row 2 below the header: case is 'n.a.', which means that it is missing",
        ),
        (["k1", "k2", "[Unknown]"], r"row 3 below the header: case is '\[Unknown\]'"),
        (["KS_4", "ks-4", "k3"], "case 'KS_4' and 'ks-4' differ in spelling only"),
        (["9", "7.0", "7"], "case '7.0' and '7' differ in spelling only"),
        (["P04", "P5", "P4"], "case 'P04' and 'P4' differ in spelling only"),
        (["C3N-00498-21", "x", "C3N-00498-23"], "of one patient, C3N-00498, who would count twice"),
        (["TCGA-3B-A9HI-01A", "x", "tcga.3b.a9hi.01Z"], "of one patient, TCGA-3B-A9HI"),
    ],
)
@pytest.mark.parametrize("head", ["case", "Patient ID"])
def test_names_that_hide_a_patient_are_refused(tmp_path, names, message, head):
    with pytest.raises(PredictionsError, match=message):
        read_any_tables([classes(tmp_path, names, head=head)])


def test_one_patient_in_the_tables_of_two_folds_is_refused(tmp_path):
    first = classes(tmp_path, ["k1", "HTA9_1_14"], file="f0.csv")
    second = classes(tmp_path, ["k2", "HTA9_1_15"], file="f1.csv")
    with pytest.raises(PredictionsError, match="of one patient, HTA9-1, who would count twice"):
        read_any_tables([first, second])
    path = classes(tmp_path, ["MMRF_1033_1", "MMRF_1033_2"], head="slide_id")
    with pytest.raises(PredictionsError, match="of one patient, MMRF-1033"):
        read_any_tables([path])


def test_legitimate_names_pass(tmp_path):
    names = ["1-12", "11-2", "Na-2", "TCGA-3B-A9HI", "TCGA-3B-A9HJ", "P4", "P40", "007"]
    predictions, _ = read_any_tables([classes(tmp_path, names)])
    assert predictions.table["case"].tolist() == names
    table = "case,slide,label,p_NA,p_b\nk1,C3L-00101-1,NA,.3,.7\nk1,C3L-00101-2,NA,.4,.6\nk2,x,b,.1,.9\n"
    (tmp_path / "n.csv").write_text(table)
    named, _ = read_any_tables([tmp_path / "n.csv"])
    assert named.table["label"].tolist() == ["NA", "NA", "b"]


@pytest.mark.parametrize("head", ["case", "model,repeat,fold,case,slide"])
def test_missing_labels_are_called_so(tmp_path, head):
    before = "" if head == "case" else "m,0,0,"
    names = [f"{before}k{i}{f',s{i}' * bool(before)}" for i in range(3)]
    path = classes(tmp_path, names, head=head, labels=["a", "b", "[Not Available]"])
    with pytest.raises(
        PredictionsError, match=r"label of case 'k2' is '\[Not Available\]', which means"
    ):
        read_any_tables([path])


@pytest.mark.parametrize(
    ("column", "cells", "n"),
    [("Split", ["train", "test", "train"], 1), ("is_test", ["0", "1", "1"], 2),
     ("cohort", ["UKB-training", "UKB-test", "UKB-test"], 2)],
)  # fmt: skip
def test_rows_that_were_trained_on_are_not_judged(tmp_path, column, cells, n):
    path = classes(tmp_path, ["k1", "k2", "k3"], further=(column, cells))
    with pytest.raises(
        PredictionsError, match=f"column '{column}' says that {n} of 3 rows are for testing"
    ):
        read_any_tables([path])
    ours = [f"m,0,0,k{i},s{i}" for i in range(3)]
    head = "model,repeat,fold,case,slide"
    path = classes(tmp_path, ours, head=head, further=(column, cells))
    with pytest.raises(PredictionsError, match=f"column '{column}' says that {n} of 3"):
        read_any_tables([path])
    for same in ("train", "test"):
        path = classes(tmp_path, ["k1", "k2", "k3"], further=("split", [same] * 3))
        assert len(read_any_tables([path])[0].table) == 3


def test_codes_that_may_tell_rows_that_were_trained_on_are_asked(tmp_path):
    names = ["k1", "k2", "k3"]
    for column in ("subset", "Split"):
        path = classes(tmp_path, names, further=(column, ["1", "2", "1"]))
        with pytest.raises(PredictionsError, match=f"column '{column}' may say by codes .* 1, 2"):
            read_any_tables([path])
    path = classes(tmp_path, names, further=("fold", ["1", "2", "1"]))
    assert read_any_tables([path])[0].table["fold"].tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("head", "events"),
    [
        ("case,time,event,risk", ["alive", "Dead", "alive", "dead"]),
        (
            "Patient ID,OS_MONTHS,OS_STATUS,Risk",
            ["0:LIVING", "1:DECEASED", "0:LIVING", "1:DECEASED"],
        ),
        ("bcr_patient_barcode,OS.time,OS,risk_score", ["0", "1", "0", "1"]),
        ("case,Survival time,Vital Status,risk", ["lebt", "verstorben", "lebend", "tot"]),
    ],
)
def test_follow_up_is_read_as_in_a_cohort_table(tmp_path, head, events):
    path = follow_up(tmp_path, [3, 8.5, 21, 4], events, head)
    assert kind_of(list(read_text_table(path).columns)) is RiskPredictions
    predictions, _ = read_any_tables([path])
    assert predictions.table["event"].tolist() == [0, 1, 0, 1]
    assert predictions.table["time"].tolist() == [3, 8.5, 21, 4]


@pytest.mark.parametrize(
    ("times", "events", "message"),
    [
        ([3, "NA", 5], [0, 1, 1], "time of case 'k1' is 'NA', which means that it is missing"),
        ([3, 4, 5], [0, "unknown", 1], "event of case 'k1' is 'unknown', which means"),
        ([3, 4, 5], [1, 2, 1], "event is '2'. Write 1 where the event happened"),
        ([3, 4, 5], ["dead", "asleep", "dead"], "event is 'asleep'. Write 1"),
        ([3, "soon", 5], [0, 1, 1], "column time must hold numbers; got 'soon', which is none"),
    ],
)
def test_follow_up_that_cannot_be_read_is_named(tmp_path, times, events, message):
    with pytest.raises(PredictionsError, match=message):
        read_any_tables([follow_up(tmp_path, times, events)])


def test_two_kinds_of_follow_up_are_refused(tmp_path):
    path = follow_up(tmp_path, [3, 4], ["1,2", "0,3"], "case,OS_MONTHS,OS_STATUS,OS.time,risk")
    with pytest.raises(PredictionsError, match=r"'OS_MONTHS' and 'OS\.time' both mean time"):
        read_any_tables([path])


@pytest.mark.parametrize(("column", "cells"), [
    ("cohort", ["internal validation", "external validation 1", "external validation 1"]),
    ("set", ["out-of-fold", "test", "test"]), ("group", ["internal", "external", "external"]),
    ("external", ["no", "yes", "yes"]),
])  # fmt: skip
def test_rows_of_which_nothing_says_that_they_were_trained_on_are_judged(tmp_path, column, cells):
    path = classes(tmp_path, ["k1", "k2", "k3"], further=(column, cells))
    predictions, *_ = read_any_tables([path])
    assert len(predictions.table) == 3


@pytest.mark.parametrize(
    ("events", "message"), [("1,0", "some registries write 1 for alive"), ("dead,alive", "")]
)
def test_events_of_a_registry_in_ones_and_zeros_are_refused(tmp_path, events, message):
    cells = events.split(",") * 2
    path = follow_up(tmp_path, [3, 8, 21, 4], cells, "case,OS_MONTHS,vital_status,risk")
    if message:
        with pytest.raises(PredictionsError, match=f"column vital_status: {message}"):
            read_any_tables([path])
    else:
        assert read_any_tables([path])[0].table["event"].tolist() == [1, 0, 1, 0]
