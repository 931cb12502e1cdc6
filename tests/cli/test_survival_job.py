"""Survival on the command line: from a table with times to a run folder with curves, and what is refused."""

import csv
import io
import json
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import numpy as np
import pytest

from cli.learn import CrossvalOptions, TrainOptions, crossval, train
from cli.options import UsageError
from cli.permute import permute_and_show
from cli.predict import PredictOptions, predict
from cli.report import ReportOptions, run_report
from features.bags.bag import write_bag
from mil.audit.run import audit_run
from mil.errors import CohortError, FitError, RunError
from mil.evaluation.predictions import read_predictions
from mil.evaluation.survival.evaluate import CAVEAT
from mil.runs.run import open_run
from tests.mil.followed import followed_cohort
from tests.mil.report.parsed import Page, check_page


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Thirty cases whose bags tell the risk; the table has times in months, an age, and the status again."""
    folder = tmp_path_factory.mktemp("followed")
    cohort = followed_cohort(30)
    lines = ["case,slide,OS.time,OS,age,vital,days_to_death"]
    for case in cohort.cases:
        dead = case.label == "event"
        for bag in case.bags:
            write_bag(folder / "store" / f"{bag.slide}.h5", bag)
            facts = [f"{case.time:.3f}", int(dead), case.other["age"], "Dead" if dead else "Alive"]
            facts.append(f"{case.time:.3f}" if dead else "NA")
            lines.append(",".join(map(str, [case.name, bag.slide, *facts])))
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def study(followed, tmp_path, monkeypatch):
    """A copy of them, which a test may change and run in."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(followed, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def finished(followed, tmp_path_factory):
    """A finished run for tests that read it, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(followed, folder, dirs_exist_ok=True)
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        crossval(options_of(folder))
    return folder / "run", printed.getvalue()


def options_of(study, **changes):
    settings = {
        "cohort": study / "cohort.csv", "store": study / "store", "out": study / "run",
        "task": "survival", "time": "OS.time", "event": "OS", "time_unit": "months", "folds": "3",
        "epochs": 3, "models": ("majority", "pooled-logistic"),
    }  # fmt: skip
    return CrossvalOptions(**(settings | changes))


def test_run_holds_predictions_numbers_and_curves(finished):
    run, printed = finished
    printed = " ".join(printed.split())
    assert "30 cases" in printed
    assert "months" in printed
    assert "log-rank p Holm" in printed
    assert f"The log-rank p is {CAVEAT}." in printed
    results = {m["model"]: m for m in json.loads((run / "metrics.json").read_text())["models"]}
    assert results["pooled-logistic"]["harrell"]["low"] > 0.5
    assert read_predictions(run / "predictions.csv").models == ("majority", "pooled-logistic")
    svg = (run / "survival" / "pooled-logistic.svg").read_text()
    assert "time in months" in svg
    assert "log-rank p" in svg
    assert CAVEAT in svg
    assert (run / "survival" / "pooled-logistic.png").read_bytes()[:4] == b"\x89PNG"
    rows = read_csv(run / "survival" / "pooled-logistic.csv")
    for group in ("low risk", "high risk"):
        group_rows = [row for row in rows if row["group"] == group]
        lost = sum(int(row["events"]) + int(row["censored"]) for row in group_rows)
        assert lost == int(group_rows[0]["at_risk"])
    facts = json.loads((run / "run.json").read_text())
    assert facts["complete"]
    assert facts["times"]["c000"] > 0
    folds = json.loads((run / "folds.json").read_text())
    events = [sum(facts["labels"][c] == "event" for c in fold["test"]) for fold in folds]
    assert max(events) - min(events) <= 1


def test_run_json_repeats_the_run_and_its_figures(finished, tmp_path):
    from cli.options import build

    run, _ = finished
    crossval(build(CrossvalOptions, {"out": str(tmp_path / "again")}, run / "run.json"))
    for name in ("predictions.csv", "metrics.json", "survival/pooled-logistic.svg"):
        assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize("column", ["vital", "days_to_death"])
def test_columns_that_tell_the_outcome_are_refused(study, column):
    with pytest.raises(CohortError, match=rf"column {column} (tells|has|is)"):
        crossval(options_of(study, models=("clinical",), clinical=("age", column)))
    with pytest.raises(
        CohortError, match=r"Set clinical to the columns that the clinical model reads"
    ):
        crossval(options_of(study, models=("clinical",)))


def test_other_times_are_another_run(study):
    settings = options_of(study, models=("majority",))
    crossval(settings)
    info = json.loads((study / "run" / "run.json").read_text())
    (study / "run" / "run.json").write_text(json.dumps(info | {"complete": False}))
    table = (study / "cohort.csv").read_text().splitlines()
    fields = table[1].split(",")
    fields[2] = "77"
    (study / "cohort.csv").write_text("\n".join([table[0], ",".join(fields), *table[2:]]))
    with pytest.raises(RunError, match="other settings or data"):
        crossval(settings)


def test_fits_of_a_cross_validation_rank_a_case_among_those_they_have_not_seen(
    finished, tmp_path, capsys
):
    run, _ = finished
    table = read_csv(run.parent / "cohort.csv")
    bags = tuple(run.parent / "store" / f"{row['slide']}.h5" for row in table[:6])
    out = tmp_path / "new.csv"
    predict(PredictOptions(run=run, model="pooled-logistic", inputs=bags, out=out))
    printed = capsys.readouterr().out
    assert re.search(r"Out of fold: Harrell C [^\n]*IBS [\d.]+\.\n", printed)
    assert (
        len(re.findall(r" s_\d", printed)) <= 3 < sum(name[:2] == "s_" for name in read_csv(out)[0])
    )
    slides = [row for row in read_csv(out) if row["level"] == "slide"]
    assert {row["trained_on_it"] for row in slides} == {"out of fold"}
    for row in slides:
        rank = float(row["rank"])
        halves = [half for half in row["set"].split(";") if half]
        assert 0 <= rank <= 1
        assert row["outcome"] == ("answered" if len(halves) == 1 else "undecided")
        assert row["predicted"] == (halves[0] if len(halves) == 1 else "")
        if len(halves) == 1:
            assert (row["predicted"] == "high risk") is (rank > 0.5)
        curve = [float(value) for name, value in row.items() if name.startswith("s_")]
        assert curve == sorted(curve, reverse=True)
    page = out.with_suffix(".html").read_text()
    assert "rank among 30 known cases" in page


def test_trained_model_predicts_risks_and_says_whom_it_has_seen(study):
    changes = {
        name: getattr(options_of(study), name)
        for name in ("cohort", "store", "task", "time", "event")
    }
    train(TrainOptions(**changes, model="pooled-logistic", out=study / "m"))
    bags = tuple(sorted((study / "store").glob("*.h5")))
    predict(PredictOptions(run=study / "m", inputs=bags))
    rows = read_csv(study / "m" / "predict.csv")
    cases = [row for row in rows if row["level"] == "case"]
    assert len(cases) == 30
    high = [row["predicted"] == "high risk" for row in cases]
    assert high == [float(row["risk"]) > 0 for row in cases]
    assert sum(high) == 15  # 0 is the median training case
    assert {row["trained_on_it"] for row in rows} == {"yes"}
    slides = [float(r["risk"]) for r in rows if r["level"] == "slide" and r["case"] == "c001"]
    [of_case] = [float(row["risk"]) for row in cases if row["case"] == "c001"]
    assert of_case == pytest.approx(np.mean(slides))


def test_default_models_are_those_that_can_learn_survival(study):
    crossval(
        replace(
            options_of(study, epochs=1, seeds=1),
            models=CrossvalOptions(cohort=study, store=study, out=study).models,
        )
    )
    models = json.loads((study / "run" / "run.json").read_text())["settings"]["models"]
    assert models == ["majority", "pooled-logistic", "mean", "abmil"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("tile-vote",)}, "tile-vote learns classes, not survival times. Use one of"),
        ({"models": ("mean", "ablim")}, "No model 'ablim'"),
    ],
)  # fmt: skip
def test_what_learns_classes_only_is_refused_before_the_run(study, changes, message):
    with pytest.raises(UsageError, match=message):
        crossval(options_of(study, **changes))
    assert not (study / "run").exists()


def test_columns_that_are_missing_are_named(study):
    with pytest.raises(CohortError, match=r"no column 'time'.*Set time to the name of the column"):
        crossval(options_of(study, time="time"))


def test_few_censored_cases_do_not_forbid_folds(study):
    table = (study / "cohort.csv").read_text().splitlines()
    lines = [table[0]]
    for line in table[1:]:
        fields = line.split(",")
        fields[3] = "0" if fields[0] == "c000" else "1"
        lines.append(",".join(fields))
    (study / "cohort.csv").write_text("\n".join(lines))
    crossval(options_of(study, models=("majority",)))
    assert (study / "run" / "metrics.json").exists()


def test_page_tells_what_the_run_has_measured(study, mil):
    """As it is typed: the run ends with the line that makes its page."""
    rows = [line.split(",") for line in (study / "cohort.csv").read_text().splitlines()]
    rows[0].append("label")  # a class rides along, and is not the outcome
    for row in rows[1:]:
        row[0] = row[0].replace("c007", "<script>alert(7)</script>")
        row.append("LMS" if row[0] < "c015" else "SS")
        row[2] = "" if row[0] == "c005" else row[2]
    (study / "cohort.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    done = mil(
        "crossval", "cohort.csv", "store", "--task", "survival", "--time", "OS.time", "--event", "OS",
        "--time-unit", "months", "--models", "majority,pooled-logistic,abmil", "--folds", "3",
        "--epochs", "2", "--clinical", "age", "--allow-missing", "--out", "run", cwd=study,
    )  # fmt: skip
    last = done.stdout.splitlines()[-1]
    assert last == "Run folder: run. Next: mil report run"
    for figure in (study / "run" / "survival").iterdir():
        figure.rename(figure.with_suffix(f"{figure.suffix}.before"))
    (study / "run" / "survival" / "cox.csv.before").rename(study / "run" / "survival" / "cox.csv")
    done = mil(*last.split("Next: mil ")[1].split(), cwd=study)
    assert done.stdout.strip().endswith(f"Report: {study / 'run' / 'report.html'}")
    for name in ("abmil.png", "abmil.svg", "abmil.csv"):  # drawn again, to the same bytes
        drawn = study / "run" / "survival" / name
        assert drawn.read_bytes() == drawn.with_suffix(f"{drawn.suffix}.before").read_bytes()

    source = (study / "run" / "report.html").read_text()
    check_page(source)
    text = Page(source).text()
    results = json.loads((study / "run" / "metrics.json").read_text())
    slides = sum("c005" not in row[0] for row in rows[1:])
    assert f"29 cases, {results['n_events']} events, {slides} slides" in text
    for model in results["models"]:
        c = model["harrell"]
        limits = (
            "every case has the same risk"
            if c["low"] is None
            else f"{c['low']:.2f} to {c['high']:.2f}"
        )
        numbers = f"{model['uno']:.2f} {model['auc']:.2f} {model['ibs']:.3f}"
        assert f"{c['value']:.2f} {limits} {numbers}" in text
        if (statistic := model["groups"]["statistic"]) is not None:
            assert f"expected {statistic:.2f}" in text
    for row in read_csv(study / "run" / "survival" / "cox.csv"):
        ratio, low, high = (float(row[name]) for name in ("hazard_ratio", "low", "high"))
        assert f"{row['term']} {ratio:.2f} {low:.2f} to {high:.2f}" in text
    left_out = sum(row[0] == "c005" for row in rows[1:])
    assert f"{left_out} \N{MULTIPLICATION SIGN} no outcome" in text
    assert "<script" not in source
    assert "evidence for " in text
    assert "label in the table, cases (%)" in text
    follow_up = {row[0]: (row[2], row[3]) for row in rows[1:]}
    for case, (time, dead) in follow_up.items():
        words = "event after" if dead == "1" else "last seen without event after"
        shown = f"{case} {words}: {float(time or 0):g} months"
        assert (shown in text) == (case != "c005"), shown


def test_evaluate_says_of_a_run_and_of_its_table_what_crossval_said(finished, mil, tmp_path):
    (run, printed), study = finished, tmp_path
    done = mil("evaluate", run, "--out", "judged", cwd=study)
    summary, calibration, groups = done.stdout.split("\n\n")
    assert set(summary.splitlines()) <= set(printed.splitlines())
    assert calibration.startswith("Calibration of predicted survival until ")
    assert groups.startswith("Survival until ")
    for name in ("metrics.json", "predictions.csv"):
        assert (study / "judged" / name).read_bytes() == (run / name).read_bytes(), name
    results = json.loads((run / "metrics.json").read_text())
    rows = {(r["model"], r["metric"]): r for r in read_csv(study / "judged" / "metrics.csv")}
    for model in results["models"]:
        name = model["model"]
        assert float(rows[name, "harrell"]["value"]) == model["harrell"]["value"]
        assert rows[name, "harrell"]["low"] == str(model["harrell"]["low"] or "")
        assert float(rows[name, "ibs"]["value"]) == model["ibs"]
        assert rows[name, "groups.p_holm"]["value"] == str(model["groups"]["p_holm"] or "")
    assert float(rows["(guessing)", "ibs"]["value"]) == results["guessing_ibs"]

    table = study / "judged" / "predictions.csv"
    lines = table.read_text().splitlines()
    half = len(lines) // 2  # the models, one after another: a table for each
    assert lines[half].startswith('"majority",')
    assert lines[half + 1].startswith('"pooled-logistic",')
    (study / "one.csv").write_text("\n".join(lines[: half + 1]) + "\n")
    tabbed = [line.replace(",", "\t") for line in (lines[0], *lines[half + 1 :])]
    (study / "two.tsv").write_text("\n".join(tabbed) + "\n")
    again = mil(
        "evaluate", "one.csv", "two.tsv", "--time-unit", "moons", "--out", "tables", cwd=study
    )
    assert "moons." in again.stdout
    judged = json.loads((study / "tables" / "metrics.json").read_text())
    assert judged == results | {"unit": "moons"}
    alone = mil("evaluate", "judged", "--models", "pooled-logistic", cwd=study)
    assert "units of time" in alone.stdout
    assert "majority" not in alone.stdout


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, ["--prevalence", "event=0.3"], "--coverage are for predictions of classes; these hold risks"),
        ({}, ["--models", "dsmil"], "t.csv: No model 'dsmil'. Known: majority"),
        ({",slide,": ",patient,"}, [], "t.csv: columns 'case' and 'patient' both mean case"),
        ({"s_2": "x_2"}, [], "t.csv: Columns s_<time> are of two or more ascending times"),
        ({"risk": "score"}, [], "for survival time, event, risk and s_<time>"),
        ({"majority,0,0": "majority,0,x"}, [], "t.csv: column fold must hold integers"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_judged_say_what_they_lack(tmp_path, mil, change, options, message):
    header = "model,repeat,fold,case,slide,time,event,risk,s_1,s_2"
    rows = [f"majority,0,{i % 2},c{i},c{i},{i + 1},1,{-i},0.9,0.5" for i in range(4)]
    text = "\n".join([header, *rows]) + "\n"
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "t.csv").write_text(text)
    done = mil("evaluate", "t.csv", *options, cwd=tmp_path, check=False)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_unit_of_time_is_not_for_classes(tmp_path, mil):
    columns = "model,repeat,fold,case,slide,label,p_a,p_b,time,event,risk"  # rides along
    rows = [f"m,0,{i % 2},c{i},c{i},{'ab'[i % 2]},0.6,0.4,3,1,2" for i in range(6)]
    (tmp_path / "classes.csv").write_text("\n".join([columns, *rows]) + "\n")
    done = mil("evaluate", "classes.csv", "--time-unit", "days", cwd=tmp_path, check=False)
    assert (
        "--time-unit is for survival; these predictions hold probabilities of classes, got 'days'. Leave "
        "it out." in done.stderr
    )
    assert "6 cases, 6 slides, 2 classes" in mil("evaluate", "classes.csv", cwd=tmp_path).stdout


def test_a_table_that_lies_in_a_run_is_read_as_the_run(study, mil):
    """So that its times have their unit, and results that were changed are refused."""
    crossval(options_of(study, models=("majority",), time_unit="weeks"))
    by_folder = mil("evaluate", "run", cwd=study).stdout
    assert "weeks" in by_folder
    assert mil("evaluate", "run/predictions.csv", cwd=study).stdout == by_folder
    (study / "copy.csv").write_text((study / "run" / "predictions.csv").read_text())
    assert "weeks" not in mil("evaluate", "copy.csv", cwd=study).stdout
    with (study / "run" / "predictions.csv").open("a") as file:
        file.write("\n")
    done = mil("evaluate", "run/predictions.csv", cwd=study, check=False)
    assert "predictions.csv is not as the run wrote it" in " ".join(done.stderr.split())


def test_page_of_other_outcomes_is_refused(study):
    crossval(options_of(study, models=("majority",)))
    table = (study / "cohort.csv").read_text().splitlines()
    fields = table[1].split(",")
    fields[2] = str(float(fields[2]) + 1)
    (study / "cohort.csv").write_text("\n".join([table[0], ",".join(fields), *table[2:]]))
    with pytest.raises(RunError, match="1 cases have another outcome than in the run"):
        run_report(ReportOptions(run=study / "run"))


def test_shuffled_outcomes_leave_nothing_to_order(finished, tmp_path, capsys):
    run, _ = finished
    observed = json.loads((run / "metrics.json").read_text())["models"][1]["harrell"]
    assert permute_and_show(open_run(run), tmp_path / "permuted", 4) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Harrell C" in printed
    assert f"{observed['value']:.2f}" in printed
    rows = read_csv(tmp_path / "permuted" / "permutation.csv")
    assert {row["metric"] for row in rows} == {"harrell"}
    values = [float(row["value"]) for row in rows if row["model"] == "pooled-logistic"]
    assert len(set(values)) == 4  # times and events have moved
    assert max(values) < observed["value"]


def test_a_survival_run_is_audited(finished):
    report = audit_run(open_run(finished[0]))
    assert report.judged.predictions.models == ("majority", "pooled-logistic")
    assert report.confounders
    assert re.fullmatch(r"censored: \d+, event: \d+", report.summary.facts["cases per outcome"])
    assert "class" not in " ".join([*report.summary.facts.values(), *report.summary.warnings])


@pytest.mark.realdata
def test_outcomes_of_tcga_join_bags_made_for_them(realdata, tmp_path, capsys):
    """The 261 patients of the public table; bags planted with each one's own outcome, to be found."""
    from tests.mil.made import made_bag

    rows = read_csv(realdata / "tables" / "tcga-sarc-outcome.csv")
    rng = np.random.default_rng(0)
    lines = ["case,slide,OS.time,OS,label,age_at_initial_pathologic_diagnosis"]
    for row in rows:
        case = row["bcr_patient_barcode"]
        facts = [
            row[name]
            for name in (
                "OS.time",
                "OS",
                "histological_type",
                "age_at_initial_pathologic_diagnosis",
            )
        ]
        lines.append(",".join([case, f"{case}-DX1", facts[0], facts[1], f'"{facts[2]}"', facts[3]]))
        features = rng.normal(size=(12, 8)).astype(np.float32)
        features[:, 0] += (
            1.5 * (facts[1] == "1") - float(facts[0] or 0) / 2000 if facts[0].isdigit() else 0
        )
        write_bag(tmp_path / "store" / f"{case}-DX1.h5", made_bag(f"{case}-DX1", features))
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    crossval(
        CrossvalOptions(
            cohort=tmp_path / "cohort.csv", store=tmp_path / "store", out=tmp_path / "run",
            task="survival", time="OS.time", event="OS", allow_missing=True, folds="3",
            models=("majority", "pooled-logistic", "clinical"),
            clinical=("age_at_initial_pathologic_diagnosis",),
        )
    )  # fmt: skip
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    used = [row for row in rows if row["OS.time"].isdigit() and row["OS"] in ("0", "1")]
    assert (results["n_cases"], results["n_events"]) == (
        len(used),
        sum(r["OS"] == "1" for r in used),
    )
    assert results["n_events"] == 99
    models = {m["model"]: m for m in results["models"]}
    assert models["pooled-logistic"]["harrell"]["low"] > 0.6
    assert models["pooled-logistic"]["groups"]["p"] < 0.001
    assert models["majority"]["harrell"]["value"] == 0.5


def test_columns_that_cannot_be_fitted_leave_the_run_whole(study, capsys, monkeypatch):
    def refused(*_arguments):
        raise FitError("a single event")

    monkeypatch.setattr("mil.tasks.survival.hazards_beside", refused)
    crossval(options_of(study, clinical=("age",)))
    assert (
        "No Cox regression beside the clinical columns: a single event" in capsys.readouterr().out
    )
    assert open_run(study / "run").complete
    assert not (study / "run" / "survival" / "cox.csv").exists()


def test_risk_stands_beside_the_clinical_columns_it_is_given(study, capsys):
    crossval(options_of(study, clinical=("age",)))
    rows = read_csv(study / "run" / "survival" / "cox.csv")
    assert {row["model"] for row in rows} == {"pooled-logistic"}
    assert [r["term"] for r in rows if r["analysis"] == "multivariable"] == [
        "pooled-logistic risk (per SD)",
        "age",
    ]
    assert float(rows[0]["low"]) > 1
    assert "beside the clinical columns" in "".join(capsys.readouterr())
