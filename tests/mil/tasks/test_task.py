"""A task comes back from the settings of a run, and reads the outcome that it writes."""

import json

import pytest

from mil.data.case import Case, Row
from mil.errors import CohortError
from mil.runs.settings import RunSettings
from mil.tasks.diagnosis import Diagnosis
from mil.tasks.grade import Grade
from mil.tasks.names import DEFAULT_TASK, TASKS
from mil.tasks.registry import task_class, task_from
from mil.tasks.survival import Survival
from tests.mil.made import made_bag

EXAMPLES = [
    Diagnosis(),
    Survival(),
    Survival(time="OS.time", event="OS", time_unit="months"),
    Grade(),
    Grade(grade="FNCLCC", grade_order=("low", "intermediate", "high")),
]


@pytest.mark.parametrize("task", EXAMPLES)
def test_a_task_comes_back_from_its_settings(task):
    stored = json.loads(json.dumps(task.to_settings()))
    assert type(task).from_settings(stored) == task
    # A run stores the fields of all tasks; those of others are not read.
    stored |= {"task": task.name, "epochs": 3}
    assert task_from(stored) == task
    assert RunSettings(stored).task == task


@pytest.mark.parametrize("name", TASKS)
def test_settings_that_lack_a_field_take_its_default(name):
    kind = task_class(name)
    assert kind.from_settings({}) == kind()
    assert kind.from_settings({"time": None, "grade_order": None}) == kind()


def test_runs_of_earlier_versions_are_diagnoses():
    assert task_from({"epochs": 3}) == Diagnosis()
    assert task_class() is task_class(DEFAULT_TASK) is Diagnosis


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_found_under_its_own_name(name):
    assert task_class(name).name == name


def test_a_name_that_is_no_task_is_refused_with_the_nearest():
    with pytest.raises(CohortError, match=r"No task 'survial'\. Did you mean 'survival'\?"):
        task_class("survial")
    with pytest.raises(CohortError, match="Known tasks: diagnosis, survival, grade"):
        task_from({"task": "regression"})


@pytest.mark.parametrize("task", [*EXAMPLES, Grade(grade="label")])
def test_an_outcome_is_read_where_it_was_written(task):
    """As shuffled outcomes reach the folds of a run that extracts and fine-tunes again."""
    cells = {
        "time": "1",
        "event": "0",
        "OS.time": "1",
        "OS": "0",
        "grade": "1",
        "FNCLCC": "low",
        "age": "5",
    }
    row = Row(line=2, case="c", slide="s", label="1", other=cells)
    [before] = task.label_rows([row], "the table")
    label = {"survival": "event", "grade": "high" if task.to_settings().get("grade_order") else "3"}
    time = 7.25 if task.name == "survival" else None
    outcome = Case(name="c", label=label.get(task.name, "x"), bags=(made_bag("s"),), time=time)
    [after] = task.label_rows([task.write_outcome(row, outcome)], "the table")
    assert (after.label, after.time) == (outcome.label, outcome.time)
    assert (before.label, before.time) != (after.label, after.time)
    assert dict(after.other) == dict(before.other)
