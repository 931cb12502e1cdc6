"""`mil evaluate` and `mil compare`, as they are typed."""

import csv
import json

import pandas as pd
import pytest

from cli.evaluate import EvaluateOptions, evaluate
from cli.options import UsageError
from features.errors import AnnotationError
from mil.errors import FitError, PredictionsError, RunError
from mil.settings import FitSettings
from tests.mil.evaluation.conftest import made_up


@pytest.fixture
def tables(tmp_path):
    """A table of ours, and one of CLAM's over the same cases and labels."""
    found = made_up(counts=(6, 7), slides=1, repeats=2)
    found.table.to_csv(tmp_path / "ours.csv", index=False)
    rows = found.table[(found.table["model"] == "abmil") & (found.table["repeat"] == 0)]
    clam = pd.DataFrame(
        {
            "slide_id": rows["slide"],
            "Y": rows["label"].str[1:].astype(float),
            "p_0": rows["p_c0"].round(4),
            "p_1": 1 - rows["p_c0"].round(4),
        }
    )
    clam.to_csv(tmp_path / "clam.csv", index=False)
    rows[["case", "slide", "label"]].to_csv(tmp_path / "cohort.csv", index=False)
    return tmp_path


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate_prints_and_writes_every_number(tables, mil):
    done = mil(
        "evaluate", "ours.csv", "--models", "abmil", "--interval", "wilson-cc", "--prevalence", "c1=0.1",
        "--out", "judged", cwd=tables,
    )  # fmt: skip
    for said in (
        "macro F1",
        "average precision of c1",
        "p guessing",
        "sensitivity",
        "PPV there",
        "Over 2 repeats",
        "13 cases",
    ):
        assert said in done.stdout
    told = json.loads((tables / "judged" / "metrics.json").read_text())
    assert [model["model"] for model in told["models"]] == ["abmil"]
    second = told["models"][0]["per_class"][1]
    assert second["at_prevalence"]["prevalence"] == 0.1
    assert second["sensitivity"]["method"] == "Wilson with continuity correction"
    flat = {(row["class"], row["metric"]): row for row in rows(tables / "judged" / "metrics.csv")}
    for name in ("sensitivity", "ppv", "auc", "average_precision"):
        assert float(flat["c1", name]["value"]) == second[name]["value"]
    assert float(flat["c1", "ppv at 0.1"]["low"]) == second["at_prevalence"]["ppv"]["low"]
    assert float(flat["", "mcc"]["high"]) == told["models"][0]["mcc"]["high"]
    again = mil("evaluate", "judged", cwd=tables)  # what it leaves can be read again
    assert "abmil" in again.stdout


def test_compare_takes_another_tools_table(tables, mil):
    done = mil(
        "compare", "ours.csv", "clam.csv", "--classes", "c0,c1", "--cohort", "cohort.csv", "--out", "out",
        cwd=tables,
    )  # fmt: skip
    assert (
        "With 13 cases a true difference in accuracy of 15 percentage points is found in"
        in done.stdout
    )
    told = json.loads((tables / "out" / "comparison.json").read_text())
    assert [(t["first"], t["second"]) for t in told["pairs"]] == [
        ("ours.csv: abmil", "clam.csv: model"),
        ("ours.csv: votes", "clam.csv: model"),
    ]
    assert told["says"] in done.stdout
    flat = rows(tables / "out" / "comparison.csv")
    assert float(flat[1]["auc_p"]) == told["pairs"][1]["auc"]["p"]


def test_other_cases_are_refused(tables, mil):
    table = pd.read_csv(tables / "ours.csv")
    table[table["case"] != "case03"].to_csv(tables / "fewer.csv", index=False)
    done = mil("compare", "ours.csv", "fewer.csv", cwd=tables, check=False)
    assert done.returncode == 1
    assert "fewer.csv lacks 1 of the 13 cases of ours.csv, e.g. case03" in done.stderr


def test_what_cannot_be_done_is_refused(tables):
    (tables / "run").mkdir()
    (tables / "run" / "run.json").write_text("{}")
    table = tables / "ours.csv"
    with pytest.raises(UsageError, match="is a run folder"):
        evaluate(EvaluateOptions(inputs=(table,), out=tables / "run"))
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(EvaluateOptions(inputs=(tables / "run",)))
    with pytest.raises(
        UsageError, match=r"No model .dsmil.\. Did you mean .abmil.\? Known: abmil, votes"
    ):
        evaluate(EvaluateOptions(inputs=(table,), models=("dsmil",)))
    with pytest.raises(PredictionsError, match="between 0 and 1"):
        EvaluateOptions(inputs=(table,), prevalence=("c1=30",))
    with pytest.raises(PredictionsError, match="interval is exact, wilson or wilson-cc"):
        EvaluateOptions(inputs=(table,), interval="wald")
    with pytest.raises(RunError, match=r"prevalence: No class 'MFS'\. Known: c0, c1"):
        evaluate(EvaluateOptions(inputs=(table,), prevalence=("MFS=0.3",)))


def test_a_run_that_was_changed_is_refused(tables):
    run = tables / "changed"
    run.mkdir()
    (tables / "ours.csv").rename(run / "predictions.csv")
    told = {"format": "mil-run", "format_version": 1, "results": {"predictions.csv": "other"}}
    (run / "run.json").write_text(json.dumps(told))
    with pytest.raises(RunError, match="is not as the run wrote it"):
        evaluate(EvaluateOptions(inputs=(run,)))


def test_a_run_that_is_not_there_is_named_once(tmp_path):
    with pytest.raises(PredictionsError) as caught:
        evaluate(EvaluateOptions(inputs=(tmp_path / "runn",)))
    assert (
        str(caught.value)
        == f"{tmp_path / 'runn'}: no such run or table of predictions. Check the path."
    )


def test_regions_that_are_not_there_are_spoken_of_as_regions(tmp_path):
    from mil.explanation.known import known_tiles
    from tests.mil.made import made_bag

    with pytest.raises(AnnotationError, match=r"^regions is .*nope: no such folder"):
        known_tiles(tmp_path / "nope", made_bag("s1"))
    with pytest.raises(
        AnnotationError, match=r"^s1: no regions in .*from QuPath as s1\.geojson\.$"
    ):
        known_tiles(tmp_path, made_bag("s1"))


def test_the_loss_of_another_task_is_named_with_it():
    with pytest.raises(
        FitError, match=r"loss is cox, which belongs to the task survival; .*set task to surv"
    ):
        FitSettings(loss="cox")
