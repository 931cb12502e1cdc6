"""The clinical model on the command line: which columns it reads is said, and asked for where they lack."""

import csv
import json
import re

import numpy as np
import pytest

from cli.learn import CrossvalOptions, TrainOptions, run_crossval, train
from cli.predict import PredictOptions, predict
from cli.report import ReportOptions, report
from features.bags.bag import write_bag
from mil.errors import CohortError, RunError
from tests.mil.made import made_bag


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Twelve cases of one slide; age tells the class, the block is a name, the code gives most away."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "store").mkdir()
    lines = ["case,slide,label,age,block,code"]
    for i in range(12):
        age = 30 + 30 * (i % 2) + int(rng.integers(8))
        lines.append(f"c{i:02d},s{i:02d},{'xy'[i % 2]},{age},B{i:02d},{i % 2 if i else 1}")
        write_bag(tmp_path / "store" / f"s{i:02d}.h5", made_bag(f"s{i:02d}", n_tiles=20))
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def asked(study, kind, **given):
    return kind(cohort=study / "cohort.csv", store=study / "store", **given)


def test_columns_are_told_of_and_the_report_is_written(study, capsys):
    models = ("majority", "chance", "clinical", "pooled-svm", "quantile-logistic")
    options = asked(study, CrossvalOptions, out=study / "run", models=models, folds="3")
    evaluation = run_crossval(options).evaluation
    printed = " ".join("".join(capsys.readouterr()).split())
    assert "The clinical model reads age, code." in printed
    assert "leaves out block: it says something else of every case" in printed
    assert "Column code says the outcome in other words" in printed
    right = {result.model: result.correct for result in evaluation.models}
    assert right["clinical"] == 11  # of the first case the code says the other class
    facts = json.loads((study / "run" / "run.json").read_text())
    assert facts["clinical"]["c01"].keys() == {"age", "code"}
    report(ReportOptions(run=study / "run"))
    assert "clinical" in (study / "run" / "report.html").read_text()


def test_columns_that_are_the_label_are_refused(study):
    table = (study / "cohort.csv").read_text()
    (study / "cohort.csv").write_text(table.replace("B00,1", "B00,0"))
    options = asked(study, CrossvalOptions, out=study / "run", models=("clinical",), folds="3")
    with pytest.raises(CohortError, match="column code says the outcome in other words"):
        run_crossval(options)


def test_run_goes_on_only_with_the_columns_it_began_with(study):
    options = asked(study, CrossvalOptions, out=study / "run", models=("clinical",), folds="3")
    run_crossval(options)
    info = json.loads((study / "run" / "run.json").read_text())
    (study / "run" / "run.json").write_text(json.dumps(info | {"complete": False}))
    table = (study / "cohort.csv").read_text()
    (study / "cohort.csv").write_text(table.replace("c00,s00,x,3", "c00,s00,x,4"))
    with pytest.raises(RunError, match="other settings or data"):
        run_crossval(options)


def test_model_that_was_trained_asks_for_its_columns(study):
    train(asked(study, TrainOptions, out=study / "m", model="clinical", clinical=("age",)))
    bags = tuple((study / "store" / f"s0{i}.h5") for i in (0, 1))
    with pytest.raises(
        CohortError, match=r"s00: the clinical model reads age.*Give a cohort table"
    ):
        predict(PredictOptions(run=study / "m", inputs=bags))
    predict(PredictOptions(run=study / "m", inputs=bags, cohort=study / "cohort.csv"))
    with (study / "m" / "predict.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["level"] == "slide"]
    assert [row["predicted"] for row in rows] == ["x", "y"]


def test_cases_whose_columns_are_unlike_those_of_training_are_not_answered(study):
    table = (study / "cohort.csv").read_text()
    (study / "cohort.csv").write_text(
        re.sub(r",0$", ",leg", re.sub(r",1$", ",arm", table, flags=re.M), flags=re.M)
    )
    train(asked(study, TrainOptions, out=study / "m", model="clinical", clinical=("age", "code")))
    bags = tuple((study / "store" / f"s0{i}.h5") for i in range(5))
    ages = ["44", "16500", "sixty", "", "47"]
    lines = [f"n{i},s0{i},{age},{'Leg' if i == 4 else 'leg'}" for i, age in enumerate(ages)]
    (study / "new.csv").write_text("\n".join(["case,slide,age,code", *lines]) + "\n")
    predict(PredictOptions(run=study / "m", inputs=bags, cohort=study / "new.csv"))
    with (study / "m" / "predict.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["level"] == "slide"]
    assert [row["outcome"] == "abstained" for row in rows] == [False, True, False, False, True]
    assert rows[1]["reason"].startswith(
        "column age holds '16500', far from those of training cases"
    )
    assert rows[4]["reason"].startswith(
        "column code holds 'Leg', a word that no training case has; "
    )
    assert "Column age holds 'sixty': no number as the model reads them" in rows[2]["notes"]
    assert "no number" not in rows[3]["notes"]


def test_unknown_column_is_refused_before_the_run_is_opened(study):
    options = asked(
        study, CrossvalOptions, out=study / "run", models=("clinical",), clinical=("aeg",)
    )
    with pytest.raises(CohortError, match=r"No clinical column 'aeg'.*age, block, code"):
        run_crossval(options)
    assert not (study / "run").exists()
