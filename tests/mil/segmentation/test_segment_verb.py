"""`mil segment` on the command line: trained, judged on rows kept for testing, applied."""

import pytest
from typer.testing import CliRunner

from cli.main import app
from features.errors import FeaturesError
from mil.errors import LeakageError


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """(folder, output, options of slides) of a segmenter of four cases; two are kept for testing."""
    folder = tmp_path_factory.mktemp("verb")
    rows = [f"case-{n},case-{n},full,{'test' if n in (2, 6) else ''}" for n in range(1, 7)]
    (folder / "t.csv").write_text("\n".join(["case,slide,annotated,split", *rows]) + "\n")
    drawn = ("--slides", study.source.slides, "--annotations", study.source.jobs.annotations)
    arguments = ("--folds", "2", "--cells", "200", "--out", folder / "run")
    done = run("segment", "train", folder / "t.csv", *drawn, *arguments)
    assert done.exit_code == 0, done.output
    return folder, done.output, drawn


def test_training_prints_the_table_and_where_the_segmenter_is(trained):
    folder, output, _ = trained
    assert "2 cases of t.csv with split=test: kept for external validation." in output
    lines = {line.split("  ")[0] for line in output.splitlines()}
    assert {"linear head on the map", "colour only", "tissue only"} <= lines
    assert "linear head on the map minus colour only" in output
    assert "The segmenter finds more than colour alone." in output
    assert f"fitted to all 4 cases: {folder / 'run' / 'segmenter.safetensors'}" in output


def test_judging_takes_the_rows_kept_for_testing(trained):
    folder, _, drawn = trained
    file = folder / "run" / "segmenter.safetensors"
    done = run("segment", "evaluate", file, folder / "t.csv", *drawn, "--out", folder / "judged")
    assert done.exit_code == 0, done.output
    assert "Dice is the mean over 1 case with tumour" in done.output
    assert "Without tumour: 1 case" in done.output
    scores = (folder / "judged" / "scores.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in scores[1:]} == {"case-2", "case-6"}
    (folder / "all.csv").write_text((folder / "t.csv").read_text().replace("test", ""))
    done = run("segment", "evaluate", file, folder / "all.csv", *drawn, "--out", folder / "j")
    assert isinstance(done.exception, LeakageError)


def test_applying_prints_a_line_per_slide_and_fails_if_one_does(trained, study):
    folder, _, _ = trained
    file = folder / "run" / "segmenter.safetensors"
    slides = [study.source.slides / f"case-{n}.tiff" for n in (1, 2)]
    done = run("segment", "apply", file, *slides, "--out", folder / "out")
    assert done.exit_code == 0, done.output
    assert "2 slides segmented, 0 failed" in done.output
    assert ["learnt from it" in line for line in done.output.splitlines()[1:3]] == [True, False]
    (folder / "broken.tiff").write_bytes(b"nothing")
    done = run("segment", "apply", file, slides[0], folder / "broken.tiff", "--out", folder / "out")
    assert done.exit_code == 1
    assert "1 slide segmented, 1 failed" in done.output


def test_a_slide_in_the_segmenters_place_is_named(trained, study):
    folder, _, _ = trained
    slide = study.source.slides / "case-1.tiff"
    done = run("segment", "apply", slide, folder / "run" / "segmenter.safetensors", "--out", folder)
    assert isinstance(done.exception, FeaturesError)
    assert "case-1.tiff: cannot be read as a segmenter" in str(done.exception)
    done = run("segment", "apply", slide, "--out", folder)
    assert "Name a segmenter, then the slides" in str(done.exception)
    done = run("segment", "train", folder / "t.csv", "--folds", "1", "--slides", folder,
               "--annotations", folder, "--out", folder / "x")  # fmt: skip
    assert "--folds must be at least 2, or none; got '1'" in str(done.exception)
