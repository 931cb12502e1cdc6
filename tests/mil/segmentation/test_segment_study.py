"""Segmenters from Python: the same files as those of the command, and what cannot be is refused."""

import csv
import json

import numpy as np
import pytest

import mil
from cli.options import build, plain
from cli.segment import TrainOptions
from features.progress import Silent
from mil.segmentation.settings import SegmentSettings

QUICK = mil.SegmentSettings(weights="random", cells=100)


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """Trained on the first four cases of the study; the last two are kept for testing."""
    folder = tmp_path_factory.mktemp("python")
    lines = (study.folder / "segmentation.csv").read_text().splitlines()
    rows = [f"{line},{'test' if number > 3 else ''}" for number, line in enumerate(lines[1:])]
    (folder / "drawn.csv").write_text("\n".join([f"{lines[0]},split", *rows]) + "\n")
    notes = []
    done = mil.train_segmenter(
        folder / "drawn.csv", out=folder / "run", settings=QUICK, folds=2, notify=notes.append,
        progress=Silent(), **places(study),
    )  # fmt: skip
    assert any("are random: it has never seen a picture" in note for note in notes), notes
    return folder, done


def places(study):
    return {"slides": study.folder / "slides", "annotations": study.folder / "annotations"}


def test_a_run_folder_says_what_that_of_the_command_would(study, trained):
    folder, done = trained
    assert done.path == folder / "run" / "segmenter.safetensors"
    assert len(done.segmenter.card.trained_on) == 4
    assert {scores.case for scores in done.evaluation.scores} == set(done.segmenter.card.trained_on)
    values = {"cohort": str(folder / "drawn.csv"), "out": str(folder / "run"), "folds": "2"}
    values |= {name: str(path) for name, path in places(study).items()}
    values |= {"weights": "random", "cells": 100}
    stored = json.loads((folder / "run" / "run.json").read_text())["settings"]
    assert stored == plain(build(TrainOptions, values, None))
    again = build(TrainOptions, {"out": "elsewhere"}, folder / "run" / "run.json")
    assert (again.folds, again.cells) == ("2", 100)


def test_a_finished_run_is_replaced_only_if_asked(study, trained):
    folder, done = trained
    other = SegmentSettings(weights="random", cells=80)
    with pytest.raises(mil.RunError, match="run"):
        mil.train_segmenter(
            folder / "drawn.csv", out=folder / "run", settings=other, folds=0, **places(study)
        )
    assert done.path.is_file()


def test_it_is_judged_on_kept_cases_and_refused_on_its_own(study, trained, tmp_path):
    folder, done = trained
    judged = mil.evaluate_segmenter(
        done.path, folder / "drawn.csv", out=tmp_path / "judged", **places(study)
    )
    assert {scores.case for scores in judged.scores} == {"case-5", "case-6"}
    with (tmp_path / "judged" / "scores.csv").open(newline="") as file:
        assert {row["case"] for row in csv.DictReader(file)} == {"case-5", "case-6"}
    assert [path.name for path in (tmp_path / "judged").iterdir()] == ["scores.csv"]
    again = mil.evaluate_segmenter(done.path, folder / "drawn.csv", **places(study))
    for one, two in zip(judged.scores, again.scores, strict=True):
        np.testing.assert_equal(one, two)
    with pytest.raises(mil.LeakageError, match="was trained on 4 of these cases"):
        mil.evaluate_segmenter(done.path, study.folder / "segmentation.csv", **places(study))


def test_one_slide_or_several_are_outlined(study, trained, tmp_path):
    _, done = trained
    slides = study.folder / "slides"
    [one] = mil.apply_segmenter(done.path, slides / "case-1.tiff", out=tmp_path / "one")
    assert (one.slide, one.status, one.trained_on_it) == ("case-1", "done", True)
    (tmp_path / "broken.tiff").write_bytes(b"nothing")
    several = mil.apply_segmenter(
        str(done.path),
        [slides / "case-5.tiff", str(tmp_path / "broken.tiff")],
        out=tmp_path / "new",
    )
    assert [(slide.status, slide.trained_on_it) for slide in several] == [
        ("done", False),
        ("failed", False),
    ]
    assert "broken" in several[1].reason
    assert (tmp_path / "new" / "case-5.geojson").is_file()
    with pytest.raises(mil.SarcomilError, match="no such file"):
        mil.apply_segmenter(tmp_path / "none.safetensors", slides / "case-5.tiff", out=tmp_path)
