"""Predictions as other tools write them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mil.errors import PredictionsError
from mil.evaluation import judge
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.decision_curves import decide
from mil.evaluation.predictions import concat, write_predictions
from mil.evaluation.tables import SlideLabel, read_any_tables, read_tables

LABELS = ["LMS", "SS", "LMS", "SS", "SS", "LMS"]
P = np.array([0.9, 0.2, 0.7, 0.6, 0.1, 0.4])  # of LMS


def written(path, table, sep=","):
    table.to_csv(path, index=False, sep=sep)
    return path


def ours(path):
    rows = pd.DataFrame(
        {
            "case": [f"p{i}" for i in range(6)],
            "slide": [f"s{i}" for i in range(6)],
            "label": LABELS,
            "p_LMS": P,
            "p_SS": 1 - P,
        }
    )
    return written(path, rows)


def stamp(path, rows=slice(None)):
    table = pd.DataFrame(
        {
            "PATIENT": [f"p{i}" for i in range(6)],
            "subtype": LABELS,
            "pred": np.where(P > 0.5, "LMS", "SS"),
            "subtype_LMS": P,
            "subtype_SS": 1 - P,
            "loss": 0.5,
        }
    )
    return written(path, table.iloc[rows])


def clam(path):
    table = pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(6)],
            "Y": [float(name == "SS") for name in LABELS],
            "Y_hat": (P < 0.5).astype(float),
            "p_0": P,
            "p_1": 1 - P,
        }
    )
    return written(path, table)


def slideflow(path):
    table = pd.DataFrame(
        {
            "slide": [f"s{i}" for i in range(6)],
            "y_true": [int(name == "SS") for name in LABELS],
            "y_pred0": P,
            "y_pred1": 1 - P,
        }
    )
    return written(path, table)


NAMES = ("LMS", "SS")


@pytest.mark.parametrize(
    ("made", "classes"),
    [(ours, ()), (stamp, ()), (clam, NAMES), (slideflow, NAMES)],
    ids=["ours", "stamp", "clam", "slideflow"],
)
def test_every_tools_table_gives_the_same_numbers(made, classes, tmp_path):
    found, _ = read_tables([made(tmp_path / "predictions.csv")], classes=classes)
    assert found.classes == NAMES
    scores = found.case_scores("model", 0)
    np.testing.assert_allclose(scores.p[:, 0], P)
    assert [found.classes[k] for k in scores.truth] == LABELS
    assert evaluate(found).models[0].correct == 4


def test_numbered_classes_keep_their_numbers_without_names(tmp_path):
    found, notes = read_tables([clam(tmp_path / "fold_0.csv")])
    assert found.classes == ("0", "1")
    assert set(found.table["label"]) == {"0", "1"}
    assert "each is taken as a case of its own" in notes[0]


def test_slides_find_their_cases_in_the_cohort_table(tmp_path):
    labels = {f"s{i}": SlideLabel(f"case{i // 2}", "LMS" if i < 2 else "SS") for i in range(6)}
    table = pd.read_csv(clam(tmp_path / "fold_0.csv")).drop(columns="Y")
    found, notes = read_tables([written(tmp_path / "p.csv", table)], labels, NAMES)
    assert notes == ()
    scores = found.case_scores("model", 0)
    assert scores.case == ("case0", "case1", "case2")
    np.testing.assert_allclose(scores.p[:, 0], P.reshape(3, 2).mean(axis=1))
    assert scores.truth.tolist() == [0, 1, 1]
    del labels["s5"]
    with pytest.raises(PredictionsError, match=r"no slide 's5'\. Add its row"):
        read_tables([tmp_path / "p.csv"], labels, NAMES)


@pytest.mark.parametrize(("made", "classes"), [(ours, ()), (stamp, ()), (clam, NAMES)])
def test_labels_that_are_not_the_cohort_tables_are_refused(made, classes, tmp_path):
    path = made(tmp_path / "p.csv")
    labels = {f"s{i}": SlideLabel(f"p{i}", name) for i, name in enumerate(LABELS)}
    assert read_tables([path], labels, classes)[1] == ()
    labels["s5"] = SlideLabel("p5", "")  # a case whose label nobody knows contradicts none
    read_tables([path], labels, classes)
    labels["s3"] = SlideLabel("p3", "MFS")
    with pytest.raises(
        PredictionsError, match=r"Case p3 is SS in .*p\.csv and MFS in the cohort table\. Correct"
    ):
        read_tables([path], labels, classes)
    labels["s4"] = SlideLabel("p4", "LMS")
    with pytest.raises(PredictionsError, match=r"Case p3 is SS .* table, and 1 more differ"):
        read_tables([path], labels, classes)


def test_labels_of_a_run_of_ours_are_compared_with_the_cohort_tables(make, tmp_path):
    predictions = make()
    write_predictions(tmp_path / "predictions.csv", predictions)
    first = predictions.table.iloc[0]
    other = next(name for name in predictions.classes if name != first["label"])
    labels = {first["slide"]: SlideLabel(first["case"], other)}
    with pytest.raises(PredictionsError, match=f"Case {first['case']} is {first['label']} in"):
        read_tables([tmp_path / "predictions.csv"], labels)


def test_numbered_classes_are_not_compared_with_names(tmp_path):
    labels = {f"s{i}": SlideLabel(f"p{i}", "LMS") for i in range(6)}
    found, notes = read_tables([clam(tmp_path / "p.csv")], labels)
    assert found.table["label"].tolist() == ["0", "1", "0", "1", "1", "0"]
    assert "name them (classes=...) to have both compared" in notes[0]


def test_table_of_mil_predict_is_read_by_its_slides(tmp_path):
    """The rows of its cases, which name no slide, say nothing more."""
    slides = pd.DataFrame(
        {
            "level": "slide",
            "case": "p0",
            "slide": ["a", "b"],
            "p_LMS": [0.9, 0.5],
            "p_SS": [0.1, 0.5],
        }
    )
    cases = pd.DataFrame(
        {"level": "case", "case": "p0", "slide": "", "p_LMS": [0.7], "p_SS": [0.3]}
    )
    path = written(tmp_path / "predict.csv", pd.concat([slides, cases]))
    labels = {name: SlideLabel("p0", "LMS") for name in "ab"}
    found, _ = read_tables([path], labels)
    assert found.table["slide"].tolist() == ["a", "b"]
    assert found.case_scores("model", 0).p.tolist() == [[pytest.approx(0.7), pytest.approx(0.3)]]


def test_tables_of_folds_are_put_together(tmp_path):
    parts = [stamp(tmp_path / f"{i}.csv", slice(2 * i, 2 * i + 2)) for i in range(3)]
    found, _ = read_tables(parts)
    assert found.table["fold"].tolist() == [0, 0, 1, 1, 2, 2]
    assert evaluate(found).n_cases == 6
    with pytest.raises(PredictionsError, match="predicted twice"):
        read_tables([parts[0], parts[0]])
    with pytest.raises(PredictionsError, match=r"has the classes 0, 1; .* has LMS, SS"):
        read_tables([parts[0], clam(tmp_path / "clam.csv")])


def test_our_own_table_comes_back_as_it_was(make, tmp_path):
    predictions = make()
    write_predictions(tmp_path / "predictions.csv", predictions)
    found, notes = read_tables([tmp_path / "predictions.csv"])
    pd.testing.assert_frame_equal(found.table, predictions.table)
    assert notes == ()


@pytest.mark.parametrize("sep", ["\t", ";"])
def test_tabs_and_semicolons_and_names_that_look_like_numbers(sep, make, tmp_path):
    table = pd.read_csv(ours(tmp_path / "a.csv")).assign(case=[f"00{i}" for i in range(6)])
    found, _ = read_tables([written(tmp_path / "b.csv", table, sep)])
    assert found.case_scores("model", 0).case[0] == "000"
    predictions = make()
    whole, notes = read_tables([written(tmp_path / "c.csv", predictions.table, sep)])
    pd.testing.assert_frame_equal(whole.table, predictions.table)
    assert notes == ()


def test_numbers_with_commas_are_read_and_others_named(tmp_path):
    path = ours(tmp_path / "a.csv")
    plain, _ = read_tables([path])
    pd.read_csv(path, dtype={"case": str}).to_csv(
        tmp_path / "b.csv", sep=";", decimal=",", index=False
    )
    commas, _ = read_tables([tmp_path / "b.csv"])
    pd.testing.assert_frame_equal(commas.table, plain.table)
    table = pd.read_csv(path).assign(p_LMS="half")
    with pytest.raises(PredictionsError, match=r"p_LMS must hold numbers; got .*'half'"):
        read_tables([written(tmp_path / "c.csv", table, ";")])


@pytest.mark.parametrize("name", ["{}.h5", "{}.svs", "/features/h5_files/{}.h5"])
def test_slides_are_found_whatever_file_they_are_named_after(name, tmp_path):
    labels = {f"s{i}": SlideLabel(f"case{i}", LABELS[i]) for i in range(6)}
    table = pd.read_csv(clam(tmp_path / "a.csv")).drop(columns="Y")
    table["slide_id"] = table["slide_id"].map(name.format)
    found, _ = read_tables([written(tmp_path / "b.csv", table)], labels, NAMES)
    assert found.table["slide"].tolist() == list(labels)
    assert found.case_scores("model", 0).case == tuple(f"case{i}" for i in range(6))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns=["case", "slide"]), "names no case"),
        (lambda t: t.drop(columns="label"), "has no label"),
        (lambda t: t.drop(columns=["p_LMS"]), "no probability of two or more classes"),
        (lambda t: t.assign(p_SS="high"), "p_SS must hold numbers"),
        (lambda t: t.assign(patient=t["case"]), "columns 'case' and 'patient' both mean case"),
        (lambda t: t.assign(label="MFS"), "'MFS', which is none of the classes"),
        (lambda t: t.assign(p_SS=0.9), "must sum to 1"),
        (lambda t: t.assign(fold="first"), "fold must hold integers"),
        (lambda t: t.iloc[:0], "hold no row|must hold"),
    ],
)
def test_what_cannot_be_understood_is_named(change, said, tmp_path):
    path = written(tmp_path / "b.csv", change(pd.read_csv(ours(tmp_path / "a.csv"))))
    with pytest.raises(PredictionsError, match=said):
        read_tables([path])


def test_table_of_survival_is_called_so(tmp_path):
    header = "model,repeat,fold,case,slide,time,event,risk,s_10,s_20"
    (tmp_path / "p.csv").write_text(f"{header}\nm,0,0,a,a1,3,1,0.5,0.9,0.8\n")
    with pytest.raises(
        PredictionsError, match=r"holds risks and follow-up, no probabilities of classes"
    ):
        read_tables([tmp_path / "p.csv"])


def test_names_for_classes_that_are_not_numbered_are_refused(tmp_path):
    with pytest.raises(PredictionsError, match="classes=a,b,c names classes"):
        read_tables([clam(tmp_path / "c.csv")], classes=("a", "b", "c"))
    with pytest.raises(
        PredictionsError, match="classes=DDLPS,SS names classes that are numbered from 0"
    ):
        read_tables([ours(tmp_path / "o.csv")], classes=("DDLPS", "SS"))
    assert read_tables([ours(tmp_path / "o.csv")], classes=NAMES[::-1])[0].classes == NAMES
    with pytest.raises(PredictionsError, match=r"none\.csv: no such run or table of predictions"):
        read_tables([tmp_path / "none.csv"])


SURVIVAL = {"time": [5.0, 9.0, 12.0, 3.0], "event": [1, 0, 1, 1], "risk": [0.4, -0.2, -0.5, 1.0]}
CURVE = {"s_4": [0.8, 0.9, 0.95, 0.5], "s_8": [0.5, 0.7, 0.9, 0.2]}


@pytest.mark.parametrize("name", ["case", "Patient", "case_id"])
def test_survival_of_another_tool_needs_its_cases_follow_up_risks_and_curve_only(name, tmp_path):
    path = tmp_path / "theirs.csv"
    pd.DataFrame({name: list("wxyz"), **SURVIVAL, **CURVE}).to_csv(path, index=False)
    predictions, notes = read_any_tables([path])
    assert notes == ()
    assert predictions.models == ("model",)
    risks = predictions.mean_risks("model")
    assert risks.case == tuple("wxyz")
    np.testing.assert_array_equal(risks.risk, SURVIVAL["risk"])
    np.testing.assert_array_equal(risks.survival[:, 1], CURVE["s_8"])
    assert judge.evaluate(predictions)["model"].metrics["harrell"].value == 1.0


def test_grades_of_several_folds_and_slides_of_a_case_are_put_together(tmp_path):
    paths = []
    for fold, cases in enumerate((["a", "a", "b"], ["c", "d"])):
        p = np.linspace(0.2, 0.8, len(cases))
        slides = [f"{case}{n}" for n, case in enumerate(cases)]
        table = {"patient": cases, "slide_id": slides, "grade": "G1", "g_G1": p, "g_G2": 1 - p}
        paths.append(tmp_path / f"fold{fold}.csv")
        pd.DataFrame(table).to_csv(paths[-1], index=False)
    predictions, _ = read_any_tables(paths)
    assert predictions.table["fold"].tolist() == [0, 0, 0, 1, 1]
    scores = predictions.case_scores("model", 0)
    assert scores.case == ("a", "b", "c", "d")
    assert scores.p[0, 0] == pytest.approx(0.35)


def test_survival_by_slides_alone_says_what_it_takes_them_for(tmp_path):
    path = tmp_path / "slides.csv"
    pd.DataFrame({"slide": list("wxyz"), **SURVIVAL, **CURVE}).to_csv(path, index=False)
    _, [note] = read_any_tables([path])
    assert "each is taken as a case of its own" in note


def test_survival_of_risks_alone_is_judged_by_its_ranks_and_says_what_is_missing(tmp_path):
    path = tmp_path / "risks.csv"
    pd.DataFrame({"case": list("wxyz"), **SURVIVAL}).to_csv(path, index=False)
    predictions, _ = read_any_tables([path])
    evaluation = judge.evaluate(predictions)
    metrics = evaluation["model"].metrics
    assert metrics["harrell"].value == 1.0
    assert metrics["ibs"].value is None
    assert "s_<time>" in metrics["ibs"].note
    assert evaluation["model"].calibration is None
    text = "\n".join(map(str, evaluation.tables()))
    assert "nan" not in text
    json.dumps(evaluation.to_json(), allow_nan=False)
    assert all("calibration" not in row["metric"] for row in evaluation.rows())
    doubled = concat([predictions, replace(predictions, table=predictions.table.assign(model="b"))])
    [pair] = judge.compare(doubled).pairs
    assert pair.n == 4
    with pytest.raises(PredictionsError, match="hold risks and no survival"):
        decide(predictions, np.array([0.2]), horizon=4.0)


@pytest.mark.parametrize(
    ("case", "slide", "label"),
    [
        ("Case ID", "Slide ID", "Label"),
        ("Patient ID", "file-name", "True Label"),
        ("patient.id", "SLIDE", "y_true"),
    ],
)
def test_headers_are_read_however_they_are_spaced(tmp_path, case, slide, label):
    table = pd.read_csv(ours(tmp_path / "ours.csv")).rename(
        columns={"case": case, "slide": slide, "label": label}
    )
    found, _ = read_tables([written(tmp_path / "other.csv", table)])
    expected, _ = read_tables([tmp_path / "ours.csv"])
    pd.testing.assert_frame_equal(found.table, expected.table)
