"""Every verb that writes says that it cannot, and where, before it reads anything."""

import os

import pytest

from cli.main import main
from cli.options import UsageError, writable
from mil.answers.package import places
from mil.runs.moved import write_moved
from tests.verbs import VERBS

OUT = ("--out", "new/deep")
TABLE = ("none.csv", "none")
# None of these inputs exists: a verb that read them first would say so.
WRITERS = {
    "fetch tcga-sarc": [OUT],
    "fetch gdc": [("--project", "none", *OUT)],
    "fetch idc": [("none", *OUT)],
    "check": [(*TABLE[:1], "--slides", "none", *OUT), ("none", "--null", "3", *OUT)],
    "extract": [("none.csv", "--slides", "none", *OUT)],
    "convert": [("none", "--from", "npz", *OUT)],
    "join": [("none", "none", "--by", "tile", *OUT)],
    "crossval": [(*TABLE, *OUT)],
    "train": [(*TABLE, "--model", "mean", *OUT)],
    "finetune": [("none.csv", "--slides", "none", *OUT)],
    "segment train": [("none.csv", "--slides", "none", "--annotations", "none", *OUT)],
    "segment apply": [("none.safetensors", "none.tiff", *OUT)],
    "segment evaluate": [
        ("none.safetensors", "none.csv", "--slides", "none", "--annotations", "none", *OUT)
    ],
    "ladder": [("none.csv", "--slides", "none", "--mpp", "1,2", *OUT)],
    "nomogram": [("none.csv", "--clinical", "age", *OUT)],
    "learning-curve": [(*TABLE, "--models", "knn", *OUT)],
    "permute": [("none", "--times", "2", *OUT)],
    "audit": [("none", *OUT)],
    "concepts": [("none", *OUT)],
    "protocol run": [("usta-phase1", "none.csv", "--slides", "none", *OUT)],
    "package": [("none", *OUT)],
    "evaluate": [("none.csv", *OUT)],
    "compare": [("none.csv", *OUT)],
    "explain": [("none", "none.h5", *OUT)],
    "demo": [OUT],
    "backbones get": [("resnet50v2", "--out", "new/deep/w.safetensors")],
    "volumes table": [("none", "--out", "new/deep/volumes.csv")],
    "volumes extract": [("none.csv", "--channels", "T1", *OUT)],
    "volumes contour": [("none.csv", "--modality", "T1", *OUT)],
    "volumes radiomics": [("none.csv", *OUT)],
    "predict": [("none", "none.h5", "--out", "new/deep/p.csv"), ("run", "none.h5")],
    "report": [("none", "--out", "new/deep/report.html"), ("run",)],
    "decision": [("none", "--positive", "a", *OUT), ("run", "--positive", "a")],
    "external": [("run", *TABLE, "--model", "mean")],
}
READERS = {"backbones list", "card", "doctor", "protocol list", "protocol show", "view"}


def test_every_verb_writes_or_does_not():
    assert sorted(VERBS) == sorted({*WRITERS, *READERS})


@pytest.mark.parametrize(
    ("verb", "arguments"), [(verb, call) for verb, calls in WRITERS.items() for call in calls]
)
def test_a_place_that_cannot_be_written_is_named_first(
    verb, arguments, tmp_path, monkeypatch, capsys
):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.main._silence_warnings", lambda: None)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setattr("sys.argv", ["mil", *verb.split(), *arguments])
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(SystemExit) as end:
        main()
    text = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2, text
    closed = tmp_path / "run" if "run" in arguments[:1] else tmp_path
    assert f"{closed} cannot be written to." in text.replace("- ", "-")
    remedy = "work on a copy of the run" if "run" in arguments[:1] else "Choose another folder."
    assert remedy in text
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_a_folder_that_cannot_be_entered_is_no_place_to_write(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.X_OK)
    with pytest.raises(UsageError, match="cannot be written to"):
        writable(tmp_path / "a" / "b")


def test_a_run_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    """Its bags of new slides stand beside the answers; where its store is now is not remembered."""
    out = tmp_path / "new.csv"
    assert places(tmp_path / "run", out) == (out, tmp_path / "new-bags")
    (tmp_path / "run").mkdir()
    assert places(tmp_path / "run", out) == (out, tmp_path / "run" / "bags")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("mil.runs.moved.write_json", refuse)
    write_moved(tmp_path / "run", {"store": tmp_path})
