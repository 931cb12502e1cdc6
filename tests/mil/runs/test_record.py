"""A run folder is started once, goes on where it was cut off, and is never overwritten unasked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features.bags.store import lock_file
from mil.data.splits import Fold
from mil.errors import RunError
from mil.runs import record
from mil.runs.facts import verified
from mil.runs.files import FORMAT, write_json
from mil.runs.record import finish_run, start_run, update_run, versions
from mil.runs.run import Run, open_run

SETTINGS = {"models": ["abmil"], "folds": "5", "seed": 0, "out": "/a", "overwrite": False}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "run"


DATA = {"labels": {"a": "x"}, "bags": {"s": "made so"}, "classes": ("x", "y")}


def start(path, *, overwrite=False, command="crossval", data=DATA, **changes):
    return start_run(path, command, SETTINGS | changes, data, overwrite=overwrite)


def with_model(run):
    model = run.model_path("abmil")
    model.parent.mkdir()
    model.write_text("weights")
    return model


def test_run_json_holds_settings_versions_and_machine(path):
    info = start(path).info
    assert (info["format"], info["format_version"], info["command"]) == (FORMAT, 1, "crossval")
    assert info["settings"] == SETTINGS
    assert info["versions"] == versions()
    assert info["machine"]["cores"] == os.cpu_count()


def test_file_holds_what_the_run_says(path):
    run = update_run(start(path), classes=["a", "b"])
    assert json.loads((path / "run.json").read_text()) == run.info
    assert open_run(path) == run


def test_run_is_complete_only_when_finished(path):
    run = start(path)
    assert not run.complete
    assert not open_run(path).complete
    finish_run(run)
    assert open_run(path).complete


def test_last_facts_are_written(path):
    finish_run(update_run(start(path), classes=["a"]), n=3)
    info = open_run(path).info
    assert (info["classes"], info["n"]) == (["a"], 3)
    assert info["started"] <= info["finished"]


def test_settings_come_back(path):
    start(path)
    assert open_run(path).settings.stored == SETTINGS


def test_update_leaves_the_former_value_alone(path):
    run = start(path)
    before = dict(run.info)
    update_run(run, complete=True)
    assert run.info == before


def test_finished_run_is_refused(path):
    finish_run(start(path))
    with pytest.raises(
        RunError, match=r"holds a finished run. Choose another folder, or set overwrite"
    ):
        start(path)


def test_refused_run_is_left_as_it_was(path):
    model = with_model(finish_run(start(path)))
    before = (path / "run.json").read_text()
    with pytest.raises(RunError):
        start(path, seed=1)
    assert (path / "run.json").read_text() == before
    assert model.exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_finished_run_is_overwritten_with_its_models(path, seed):
    model = with_model(finish_run(start(path)))
    assert not start(path, overwrite=True, seed=seed).complete
    assert not model.exists()


def test_interrupted_run_goes_on_with_its_models(path):
    model = with_model(start(path))
    assert not start(path).complete
    assert model.exists()


@pytest.mark.parametrize("changes", [{"out": "/b"}, {"overwrite": True}])
def test_place_and_permission_are_no_settings_of_a_run(path, changes):
    model = with_model(start(path))
    start(path, **changes)
    assert model.exists()


def test_interrupted_run_goes_on_also_where_it_might_be_replaced(path):
    model = with_model(start(path))
    start(path, overwrite=True)
    assert model.exists()


@pytest.mark.parametrize("changes", [{"seed": 1}, {"models": ["abmil", "mean"]}, {"epochs": 3}])
def test_interrupted_run_with_other_settings_is_refused(path, changes):
    with_model(start(path))
    with pytest.raises(RunError, match="holds a run with other settings"):
        start(path, **changes)


@pytest.mark.parametrize(
    "changes", [{"labels": {"a": "y"}}, {"bags": {"s": "made again"}}, {"classes": ("x", "z")}]
)
def test_interrupted_run_on_other_data_is_refused(path, changes):
    with_model(start(path))
    with pytest.raises(RunError, match="other settings or data"):
        start(path, data=DATA | changes)


@pytest.mark.parametrize("name", ["sarcomil", "torch"])
def test_interrupted_run_by_another_version_is_refused_or_replaced(path, name):
    run = start(path)
    model = with_model(update_run(run, versions=versions() | {name: "0.0"}))
    with pytest.raises(RunError, match="or by another sarcomil or torch"):
        start(path)
    assert start(path, overwrite=True).info["versions"] == versions()
    assert not model.exists()


def test_interrupted_run_by_another_library_that_decides_nothing_goes_on(path):
    model = with_model(update_run(start(path), versions=versions() | {"openslide-bin": "0.0"}))
    start(path)
    assert model.exists()


@pytest.mark.parametrize("changes", [{"seed": 1}, {"data": DATA | {"labels": {"a": "y"}}}])
def test_a_run_that_has_computed_nothing_is_begun_anew_with_other_settings(path, changes):
    run = start(path)
    (path / "folds.json").write_text("{}")
    (path / "models").mkdir()
    (path / "models" / ".abmil.tmp").write_text("half")
    again = start(path, **changes)
    assert again.info["started"] >= run.info["started"]
    assert again.settings.stored.get("seed") == changes.get("seed", 0)
    assert not (path / "folds.json").exists()
    (path / "folds" / "r0f0").mkdir(parents=True)
    (path / "folds" / "r0f0" / "card.json").write_text("{}")
    with pytest.raises(RunError, match="holds a run with other settings"):
        start(path, seed=2)


def test_interrupted_run_of_another_command_is_refused(path):
    with_model(start(path))
    with pytest.raises(RunError, match="other settings"):
        start(path, command="train")


def test_interrupted_run_with_other_settings_is_overwritten_with_its_models(path):
    model = with_model(start(path))
    assert start(path, overwrite=True, seed=1).settings.seed == 1
    assert not model.exists()


def test_tuples_and_lists_of_settings_are_the_same(path):
    start(path, models=("abmil",))
    start(path, models=["abmil"])


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_with_other_files_is_refused(path, overwrite):
    path.mkdir(parents=True)
    (path / "thesis.docx").write_text("years of work")
    with pytest.raises(RunError, match="exists and is not a run folder"):
        start(path, overwrite=overwrite)
    assert [p.name for p in path.iterdir()] == ["thesis.docx"]


def test_file_in_the_place_of_a_folder_is_refused(path):
    path.parent.mkdir()
    path.write_text("a file")
    with pytest.raises(RunError, match="exists and is not a run folder"):
        start(path, overwrite=True)


def test_empty_folder_is_taken(path):
    path.mkdir(parents=True)
    start(path)
    assert (path / "run.json").is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"format": "mil-run"}'])
def test_folder_whose_run_file_is_none_is_refused(path, text):
    path.mkdir(parents=True)
    (path / "run.json").write_text(text)
    with pytest.raises(RunError, match="not a run folder"):
        open_run(path)


def test_missing_run_is_refused(path):
    with pytest.raises(RunError, match=r"there is no such folder\. Name the folder of a run"):
        open_run(path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"format": "mil-bag"}, r"of another format\. Name the folder of a run"),
        ({"format_version": 2}, r"written by a newer version\. Upgrade sarcomil"),
        ({"format": None}, r"of another format\. Name the folder of a run"),
    ],
)
def test_run_of_another_format_is_refused(path, facts, message):
    update_run(start(path), **facts)
    with pytest.raises(RunError, match=message):
        open_run(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan")])
def test_number_that_is_none_is_refused_and_nothing_is_left(tmp_path, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "metrics.json", {"deep": [{"auc": value}]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.float32("nan"), np.int64(3), Path("x"), object()])
def test_value_that_json_does_not_hold_is_refused_rather_than_guessed(tmp_path, value):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "metrics.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_json_that_fails_leaves_the_former_file(tmp_path):
    write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"n": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}


def test_file_is_never_seen_half_written(path, monkeypatch):
    """At the moment of replacement the old file is whole and the new one is whole beside it."""
    run = start(path)
    seen = []
    replace = Path.replace

    def watched(self, target):
        seen.append((json.loads(Path(target).read_text()), json.loads(self.read_text())))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    update_run(run, complete=True)
    old, new = seen[0]
    assert (old["complete"], new["complete"]) == (False, True)
    assert {p.name for p in path.iterdir()} == {"run.json", ".lock"}


def test_crash_while_writing_leaves_the_former_file(path, monkeypatch):
    run = start(path)
    before = (path / "run.json").read_text()

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:20])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        update_run(run, complete=True)
    assert (path / "run.json").read_text() == before


def test_models_of_folds_have_names_of_their_own(path):
    run = Run(path, {})
    folds = [Fold(repeat=r, index=i, train=(), test=()) for r in range(2) for i in range(2)]
    names = [run.model_path("tile-vote", fold).name for fold in (None, *folds)]
    assert names == [
        "tile-vote.safetensors",
        *(f"tile-vote-r{r}-f{i}.safetensors" for r in range(2) for i in range(2)),
    ]


def test_versions_name_this_library_and_what_it_stands_on():
    names = versions()
    assert {"sarcomil", "python", *record.NAMED_VERSIONS} == set(names)
    assert all(names.values())


def test_what_an_overwritten_run_has_written_goes_with_it(path):
    run = start(path)
    for name in ("predictions.csv", "metrics.json", "report.html", "results.csv"):
        (path / name).write_text("old")
    for name in ("arms", "explain", "figures"):
        (path / name).mkdir()
        (path / name / "kept").write_text("old")
    finish_run(run)
    start(path, overwrite=True)
    assert {p.name for p in path.iterdir()} == {"run.json", ".lock"}


def test_a_start_cut_off_while_writing_is_no_run(path):
    path.mkdir(parents=True)
    (path / ".run.json.tmp").write_text("{")
    assert not start(path).complete


@pytest.mark.parametrize("name", ["folds.json", "predictions.csv"])
def test_results_edited_after_the_run_are_refused(path, name):
    run = start(path)
    (path / name).write_text("as written")
    run = finish_run(run)
    run.check_results()
    (path / name).write_text("as wished")
    with pytest.raises(RunError, match=f"{name} is not as the run wrote it"):
        open_run(path).check_results()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_process_writes_is_refused_and_left_alone(path, overwrite):
    started = with_model(start(path))
    record._release(path)  # this process goes on as another one
    fitting = started.with_name(".abmil.safetensors.7.7.tmp")
    fitting.write_text("half")
    before = (path / "run.json").read_text()
    with (
        lock_file(path / ".lock"),
        pytest.raises(
            RunError, match=rf"written by another process \(.* {os.getpid()} .*Wait for it"
        ),
    ):
        start(path, overwrite=overwrite, seed=1)
    assert (path / "run.json").read_text() == before
    assert fitting.exists()
    assert started.exists()
    start(path)


def test_a_folder_that_another_process_has_just_opened_is_refused(path):
    path.mkdir(parents=True)
    with lock_file(path / ".lock"), pytest.raises(RunError, match="written by another process"):
        start(path)
    assert [p.name for p in path.iterdir()] == [".lock"]


def test_a_run_is_locked_until_it_is_finished(path):
    run = start(path)
    with lock_file(path / ".lock") as free:
        assert not free
    finish_run(run)
    assert [p.name for p in path.iterdir()] == ["run.json"]


def test_a_start_that_is_refused_holds_nothing(path):
    finish_run(start(path))
    with pytest.raises(RunError, match="finished run"):
        start(path)
    assert [p.name for p in path.iterdir()] == ["run.json"]


def test_a_model_put_in_place_of_the_runs_own_is_refused(path):
    run = start(path)
    model = with_model(run)
    run = finish_run(run)
    assert verified(run, model) == model
    model.write_text("of another run")
    with pytest.raises(RunError, match=r"abmil.safetensors is not as .*make the run again"):
        verified(open_run(path), model)


def test_a_model_removed_to_save_space_spoils_no_result(path):
    run = start(path)
    with_model(run)
    run = finish_run(run)
    run.model_path("abmil").unlink()
    run.check_results()


def test_a_slides_case_is_the_one_stated_or_that_of_the_table(path):
    run = start(path, data=DATA | {"cases": {"s1": "c1"}})
    assert run.case_of("s1") == "c1"
    assert run.case_of("s1", "c9") == "c1"
    assert run.case_of("s2", "c9") == "c9"
    assert run.case_of("s2") == ""


AS_ON_WINDOWS = """
import errno, fcntl, sys, types
from pathlib import Path

def locking(handle, mode, n_bytes):
    assert n_bytes == 1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error

windows = types.SimpleNamespace(LK_LOCK=1, LK_NBLCK=2, locking=locking)
sys.modules["msvcrt"], sys.modules["fcntl"] = windows, None
from mil.errors import RunError
from mil.runs.record import finish_run, start_run
folder = Path(sys.argv[1])
run = finish_run(start_run(folder / "mine", "train", {}))
print(run.complete, sorted(path.name for path in (folder / "mine").iterdir()))
del sys.modules["msvcrt"]
for name in ("other", "free"):
    sys.modules["msvcrt"] = windows if name == "other" else None
    try:
        start_run(folder / name, "train", {})
    except RunError as error:
        print(name, error)
"""


def test_a_run_is_written_by_one_process_where_only_windows_locks_are(tmp_path):
    """By a stand-in for them; without any, what is missing is said with a remedy."""
    (tmp_path / "other").mkdir()
    with lock_file(tmp_path / "other" / ".lock"):
        done = subprocess.run(
            [sys.executable, "-c", AS_ON_WINDOWS, str(tmp_path)], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    own, other, free = done.stdout.splitlines()
    assert own == "True ['run.json']"
    assert "other is being written by another process" in other
    assert "no file locks" in free
    assert "Work on Linux, macOS or WSL." in free
