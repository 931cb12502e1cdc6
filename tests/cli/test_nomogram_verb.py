"""`mil nomogram` from a table and from a run, of classes and of survival."""

import csv
import shutil

import pytest

from cli.learn import CrossvalOptions, crossval
from cli.nomogram import NomogramOptions, nomogram
from cli.options import UsageError
from features.bags.bag import write_bag
from mil.errors import CohortError, RunError
from tests.mil.followed import followed_cohort


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Bags of thirty cases and their table, with a label, a time and two further columns."""
    folder = tmp_path_factory.mktemp("followed")
    lines = ["case,slide,label,time,event,age,sex"]
    for i, case in enumerate(followed_cohort(30, n_tiles=6).cases):
        facts = [
            f"{case.time:.1f}",
            int(case.label == "event"),
            40 + (7 * i) % 30,
            "fm"[i // 2 % 2],
        ]
        for bag in case.bags:
            write_bag(folder / "store" / f"{bag.slide}.h5", bag)
            lines.append(",".join(map(str, [case.name, bag.slide, "xyy"[i % 3], *facts])))
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def study(followed, tmp_path):
    """A copy, which a test may change and run in."""
    return shutil.copytree(followed, tmp_path, dirs_exist_ok=True)


def columns(folder):
    with (folder / "nomogram.csv").open(newline="") as file:
        return {row["column"] for row in csv.DictReader(file)}


def test_columns_of_the_table(study):
    out = study / "n"
    nomogram(NomogramOptions(cohort=study / "cohort.csv", clinical=("age", "sex"), out=out))
    assert columns(out) == {"age", "sex", "(probability)"}
    assert "Probability of y; fitted on 30 cases" in (out / "nomogram.svg").read_text()


@pytest.mark.parametrize("task", ["diagnosis", "survival"])
def test_score_out_of_fold_stands_beside_them(study, task):
    given = {"cohort": study / "cohort.csv", "task": task}
    models = ("pooled-logistic",)
    crossval(
        CrossvalOptions(**given, store=study / "store", out=study / "r", models=models, folds="3")
    )
    horizon = 500.0 if task == "survival" else None
    options = NomogramOptions(
        **given,
        clinical=("age",),
        run=study / "r",
        model=models[0],
        horizon=horizon,
        out=study / "n",
    )
    nomogram(options)
    assert columns(study / "n") == {"age", "pooled-logistic score", "(probability)"}
    other = "survival" if task == "diagnosis" else "diagnosis"
    with pytest.raises(RunError, match="is a run of"):
        nomogram(
            NomogramOptions(
                cohort=study / "cohort.csv", task=other, run=study / "r", model=models[0],
                horizon=500.0 if other == "survival" else None, out=study / "n",
            )
        )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Name columns with --clinical"),
        ({"clinical": ("age",), "task": "survival"}, "Set horizon to the time, in days"),
        ({"clinical": ("age",), "horizon": 3.0}, "horizon is a time until an event"),
        (
            {"clinical": ("age",), "task": "survival", "horizon": 3.0, "positive": "x"},
            "positive names a class",
        ),
        ({"clinical": ("age",), "model": "abmil"}, "--run RUN and --model NAME go together"),
        (
            {"clinical": ("age",), "task": "both"},
            "No task 'both'.* Known tasks: diagnosis, survival, grade",
        ),
        ({"clinical": ("aeg",)}, "No column 'aeg'"),
        (
            {"clinical": ("age",), "positive": "z"},
            "Set positive to .* one of x, y; got 'z'",
        ),
    ],
)
def test_what_was_asked_wrongly_is_said(study, given, said):
    with pytest.raises((UsageError, CohortError), match=said):
        nomogram(NomogramOptions(cohort=study / "cohort.csv", out=study / "n", **given))


def test_fact_in_which_slides_differ_is_refused(study):
    table = (study / "cohort.csv").read_text().splitlines()
    row = next(i for i, line in enumerate(table) if line.startswith("c001,") and "s2" in line)
    table[row] = table[row].removesuffix("f").removesuffix("m") + "other"
    (study / "cohort.csv").write_text("\n".join(table))
    with pytest.raises(CohortError, match="slides of case 'c001' differ in 'sex'"):
        nomogram(NomogramOptions(cohort=study / "cohort.csv", clinical=("sex",), out=study / "n"))


def rewritten(study, column, told):
    """The table with a further column, by the row's label."""
    head, *lines = (study / "cohort.csv").read_text().splitlines()
    lines = [f"{line},{told(line.split(','))}" for line in lines]
    (study / "cohort.csv").write_text("\n".join([f"{head},{column}", *lines]) + "\n")


def test_cases_kept_for_external_are_not_fitted(study, capsys):
    rewritten(study, "split", lambda row: "test" if row[0] < "c010" else "")
    nomogram(NomogramOptions(cohort=study / "cohort.csv", clinical=("age",), out=study / "n"))
    assert "Probability of y; fitted on 20 cases" in (study / "n" / "nomogram.svg").read_text()
    text = capsys.readouterr().err
    assert "10 cases of cohort.csv with split=test: kept for external validation" in text


def test_column_that_is_the_label_in_other_words_is_refused(study):
    rewritten(study, "grade", lambda row: "high" if row[2] == "y" else "low")
    with pytest.raises(CohortError, match="column grade says the outcome in other words"):
        nomogram(NomogramOptions(cohort=study / "cohort.csv", clinical=("Grade",), out=study / "n"))


def test_column_that_nearly_is_the_label_is_told_of(study, capsys):
    rewritten(study, "grade", lambda row: "high" if row[2] == "y" and row[0] != "c001" else "low")
    options = NomogramOptions(
        cohort=study / "cohort.csv", clinical=("grade", "sex"), out=study / "n"
    )
    nomogram(options)
    said = capsys.readouterr()
    assert "Column grade says the outcome in other words" in " ".join((said.out + said.err).split())
    assert "Column sex" not in said.out + said.err


@pytest.mark.parametrize(("told", "unit"), [(None, "months"), ("weeks", "weeks")])
def test_time_counts_what_the_run_says_unless_told(study, told, unit):
    given = {"cohort": study / "cohort.csv", "task": "survival"}
    crossval(
        CrossvalOptions(
            **given, store=study / "store", out=study / "r", models=("majority",), folds="3",
            time_unit="months",
        )
    )  # fmt: skip
    options = NomogramOptions(
        **given, clinical=("age",), run=study / "r", model="majority", horizon=500.0, time_unit=told,
        out=study / "n",
    )  # fmt: skip
    nomogram(options)
    svg = (study / "n" / "nomogram.svg").read_text()
    assert f"Probability of the event until 500 {unit}; fitted on 30 cases" in svg


def test_task_and_columns_are_those_of_the_run(study):
    table = (study / "cohort.csv").read_text()
    (study / "cohort.csv").write_text(table.replace(",time,event", ",months,dead", 1))
    crossval(
        CrossvalOptions(
            cohort=study / "cohort.csv", store=study / "store", out=study / "r", folds="3",
            models=("pooled-logistic",), task="survival", time="months", event="dead", time_unit="months",
        )
    )  # fmt: skip
    nomogram(
        NomogramOptions(
            cohort=study / "cohort.csv", run=study / "r", model="pooled-logistic", horizon=500.0,
            out=study / "n",
        )
    )  # fmt: skip
    assert columns(study / "n") == {"pooled-logistic score", "(probability)"}


def test_grades_are_refused(study):
    table = (study / "cohort.csv").read_text().replace(",x,", ",1,").replace(",y,", ",2,")
    (study / "cohort.csv").write_text(table)
    options = NomogramOptions(
        cohort=study / "cohort.csv", task="grade", clinical=("age",), out=study / "n"
    )
    with pytest.raises(CohortError, match="grade"):
        nomogram(options)
