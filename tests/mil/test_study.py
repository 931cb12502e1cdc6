"""A study refuses what does not go together before any file is read."""

from pathlib import Path

import pytest

from features.errors import InputError
from mil.study import Study
from mil.tasks.diagnosis import Diagnosis

TABLE = Path("cohort.csv")


@pytest.mark.parametrize("name", ["allow_missing", "allow_duplicates"])
@pytest.mark.parametrize("made", ["tuning", "segmenting"])
def test_bags_of_each_fold_need_every_row_once(made, name):
    store = None if made == "tuning" else Path("store")
    study = {"table": TABLE, "task": Diagnosis(), "store": store, made: object()}
    Study(**study)
    with pytest.raises(InputError, match=rf"every row of the table is needed.*Leave out {name}, "):
        Study(**study, **{name: True})


def test_bags_of_a_store_may_be_missing():
    assert Study(table=TABLE, task=Diagnosis(), store=Path("s"), allow_missing=True).allow_missing
