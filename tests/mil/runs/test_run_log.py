"""A store remembers the cross-validations of its cases, and a run says which of them it is."""

import json
from dataclasses import replace

import pytest

from mil.data.cohort import load_cohort
from mil.runs.cross_validation import Plan, StoredCases, run_cross_validation
from mil.runs.record import NewRun
from mil.runs.run_log import LOG, describe_runs, runs_on
from mil.settings import FitSettings, SplitSettings
from tests.mil.made import made_cohort
from tests.mil.made_runs import write_cohort

FIT = FitSettings(epochs=1, seeds=1, width=4)


@pytest.fixture
def cohort(tmp_path):
    write_cohort(tmp_path, made_cohort((4, 4), n_tiles=4))
    return load_cohort(tmp_path / "cohort.csv", tmp_path / "store")


def run_of(cohort, out, seed):
    plan = Plan(models=("mean",), fit=FIT, split=SplitSettings(folds="2", seed=seed))
    return run_cross_validation(StoredCases(cohort), plan, NewRun(path=out)).run


def test_of_several_runs_on_the_same_cases_a_reader_is_told(cohort, tmp_path):
    first = run_of(cohort, tmp_path / "a", 0)
    assert describe_runs(first, cohort) == ""
    runs = [first, *(run_of(cohort, tmp_path / f"s{seed}", seed) for seed in (1, 2))]
    run_of(cohort, tmp_path / "again", 0)  # the same predictions are the same run
    logged = runs_on(cohort)
    assert [record.predictions_sha256 for record in logged] == [r.predictions_sha256 for r in runs]
    scores = dict(zip((r.predictions_sha256 for r in runs), (0.5, 0.9, 0.7), strict=True))
    log = cohort.store / LOG
    records = [json.loads(line) for line in log.read_text().splitlines()]
    changed = [record | {"score": scores[record["predictions_sha256"]]} for record in records]
    log.write_text("".join(json.dumps(record) + "\n" for record in changed))
    for number, (run, words) in enumerate(
        zip(
            runs,
            (
                "(0.50; the others 0.70 to 0.90) it is number 3 of 3",
                "(0.90; the others 0.50 to 0.70) it is the best of 3",
                "(0.70; the others 0.50 to 0.90) it is number 2 of 3",
            ),
            strict=True,
        ),
        start=1,
    ):
        text = describe_runs(run, cohort)
        assert text.startswith(f"This is run {number} of 3 on these cases that the bag store")
        assert words in text


def test_runs_on_other_cases_or_questions_do_not_count(cohort, tmp_path):
    run = run_of(cohort, tmp_path / "a", 0)
    run_of(cohort, tmp_path / "b", 1)
    assert len(runs_on(cohort)) == 2
    others = [
        replace(case, bags=tuple(replace(bag, source_sha256=f"x{case.name}") for bag in case.bags))
        for case in cohort.cases
    ]
    assert runs_on(replace(cohort, cases=tuple(others))) == ()
    mixed = replace(cohort, cases=(*others[:4], *cohort.cases[4:]))
    assert len(runs_on(mixed)) == 2
    log = cohort.store / LOG
    log.write_text(log.read_text() + "{half a line\n")
    assert len(runs_on(cohort)) == 2
    log.unlink()
    assert describe_runs(run, cohort) == ""
