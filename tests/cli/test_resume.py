"""A cross-validation that was cut off goes on only on the folds it has begun."""

import json

import pytest

from cli.learn import CrossvalOptions, run_crossval
from features.bags.bag import write_bag
from mil.data.splits import folds_sha256, read_folds
from mil.errors import RunError
from mil.runs.record import update_run
from mil.runs.run import open_run
from tests.mil.made import made_bag


@pytest.fixture
def study(tmp_path):
    """Twelve cases of three sites."""
    for i in range(12):
        write_bag(tmp_path / "store" / f"s{i}.h5", made_bag(f"s{i}"))
    write_table(tmp_path, lambda i: i % 3)
    return tmp_path


def write_table(folder, site_of):
    rows = [f"c{i},s{i},{'xy'[i // 6]},site-{site_of(i)}" for i in range(12)]
    (folder / "cohort.csv").write_text("\n".join(["case,slide,label,site", *rows]) + "\n")


def asked(study, **given):
    told = {"folds": "site", "models": ("majority",)} | given
    return CrossvalOptions(
        cohort=study / "cohort.csv", store=study / "store", out=study / "run", workers=1, **told
    )


def test_cases_moved_to_another_site_are_another_run(study):
    run_crossval(asked(study))
    run = update_run(open_run(study / "run"), complete=False)
    began = (run.path / "folds.json").read_text()
    write_table(study, lambda i: (i + (i in (0, 1))) % 3)
    with pytest.raises(RunError, match="other settings or data"):
        run_crossval(asked(study))
    assert (run.path / "folds.json").read_text() == began
    run_crossval(asked(study, overwrite=True))
    assert (run.path / "folds.json").read_text() != began


def test_the_fingerprint_of_the_folds_is_that_of_their_file(study):
    run_crossval(asked(study))
    run = json.loads((study / "run" / "run.json").read_text())
    assert run["folds_sha256"] == run["results"]["folds.json"]
    assert run["folds_sha256"] == folds_sha256(read_folds(study / "run" / "folds.json"))
