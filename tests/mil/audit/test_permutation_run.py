"""Shuffles that an earlier call has left are believed only as they were written, wherever the run lies."""

import json

import pytest
from cli.null import _kept, _write

from cli.options import UsageError
from mil.audit.permutation import Shuffle
from mil.runs.run import Run

FOUND = [Shuffle(1, "majority", None, 0.5), Shuffle(1, "mean", 0.25, 0.125)]


def run_at(path, sha256="a"):
    return Run(path, {"results": {"predictions.csv": sha256}})


def test_they_come_back_also_where_the_folder_was_moved(tmp_path):
    assert _kept(tmp_path, run_at(tmp_path / "here")) == []
    _write(tmp_path, FOUND, run_at(tmp_path / "here"))
    assert _kept(tmp_path, run_at(tmp_path / "there")) == FOUND


def test_an_edited_table_changes_nothing(tmp_path):
    _write(tmp_path, FOUND, run_at(tmp_path))
    (tmp_path / "null.csv").write_text("shuffle,model,auc,accuracy\n1,mean,0.99,1\n")
    assert _kept(tmp_path, run_at(tmp_path)) == FOUND


def test_edited_shuffles_are_refused(tmp_path):
    _write(tmp_path, FOUND, run_at(tmp_path))
    held = json.loads((tmp_path / "null.json").read_text())
    held["shuffles"][1][2] = 0.99
    (tmp_path / "null.json").write_text(json.dumps(held))
    with pytest.raises(UsageError, match="not as it was written"):
        _kept(tmp_path, run_at(tmp_path))


def test_shuffles_of_other_predictions_are_refused(tmp_path):
    _write(tmp_path, FOUND, run_at(tmp_path))
    with pytest.raises(UsageError, match="of another run"):
        _kept(tmp_path, run_at(tmp_path, "b"))
