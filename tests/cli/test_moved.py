"""A store and a table that have moved are named once on the command line."""

import shutil

from tests.mil.made import made_cohort
from tests.mil.made_runs import make_run


def test_a_study_is_moved_whole_and_no_place_is_named(mil, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    make_run(old, made_cohort((3, 3)), ["majority", "mean"])
    shutil.move(old, new)
    mil("report", "run", cwd=new)
    mil("evaluate", "run", cwd=new)
    assert (new / "run" / "moved.json").is_file()


def test_a_run_is_reported_after_its_store_and_its_table_have_moved(mil, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    make_run(old, made_cohort((3, 3)), ["majority", "mean"])
    new.mkdir()
    for name in ("run", "store", "cohort.csv"):
        shutil.move(old / name, new / name)
    shutil.move(new / "store", new / "bags")
    shutil.move(new / "cohort.csv", new / "table.csv")
    failed = mil("report", "run", cwd=new, check=False)
    assert failed.returncode == 1
    assert "If they have moved, give their new places (--cohort, --store)." in failed.stderr
    refused = mil("report", "run", "--cohort", "table.csv", "--store", ".", cwd=new, check=False)
    assert "is not the bag store of run" in refused.stderr
    other = ("decision", "evaluate", "compare", "permute")
    for verb in other:
        out = () if verb == "decision" else ("--out", f"{verb}-out")
        refused = mil(verb, "run", *out, "--store", "run", cwd=new, check=False)
        assert "run is not the bag store of run" in refused.stderr, refused.stderr
    mil("report", "run", "--cohort", "table.csv", "--store", "bags", cwd=new)
    mil("report", "run", cwd=new)
    mil("audit", "run", cwd=new, check=False)
