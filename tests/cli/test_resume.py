"""A cross-validation that was cut off goes on only on the folds it has begun."""

import json
from dataclasses import replace

import pytest

from cli.learn import CrossvalOptions, run_crossval
from features.bags.bag import write_bag
from features.recipe import VECTOR
from mil.data.splits import folds_sha256, read_folds
from mil.errors import CohortError, FitError, LeakageError, RunError
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


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"head_weights": "absent.safetensors", "models": ("abmil",)}, FitError),
     ({"models": ("abmil",)}, FitError), ({"models": ("clinical",), "clinical": ("nothing",)}, CohortError),
     ({"models": ("mean",)}, LeakageError)],
)  # fmt: skip
def test_what_is_refused_leaves_nothing_in_the_way_of_the_next_try(study, wrong, error):
    if error is LeakageError:
        for i in range(12):
            seen = made_bag(f"s{i}", trained_on=("c3",))
            write_bag(study / "store" / f"s{i}.h5", seen)
    elif "head_weights" not in wrong:
        for i in range(12):
            vector = made_bag(f"s{i}")
            write_bag(
                study / "store" / f"s{i}.h5",
                replace(vector, recipe=vector.recipe | {"region": VECTOR}),
            )
    with pytest.raises(error):
        run_crossval(asked(study, **wrong))
    assert not (study / "run").exists()
    for i in range(12):
        write_bag(study / "store" / f"s{i}.h5", made_bag(f"s{i}"))
    run_crossval(asked(study))
    assert open_run(study / "run").complete
