"""What `mil check` says of a cohort before a night is spent on it."""

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.check import CheckOptions, run_check
from features.extraction import picture
from features.summary import Summary
from mil.audit.feasibility import summarise_cases
from mil.data.table import read_table, training_rows
from mil.errors import CohortError
from mil.finetune.config import FinetuneConfig, label_slides
from mil.tasks.diagnosis import Diagnosis
from tests.small_slides import write_small_cohort

REPO = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Four small slides, two cases of each of two subtypes; of either one is set aside in split.csv."""
    folder = tmp_path_factory.mktemp("drawn")
    table = write_small_cohort(folder, labels=("LMS", "SS", "LMS", "SS"))
    rows = [line.split(",")[:3] for line in table.read_text().splitlines()[1:]]
    split = {label: case for case, _, label in rows}
    lines = [
        f"{case},{slide},{label},{'test' if split[label] == case else 'train'}\n"
        for case, slide, label in rows
    ]
    (folder / "split.csv").write_text("case,slide,label,split\n" + "".join(lines))
    return folder


@pytest.fixture
def study(drawn, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(picture, "PANEL_PX", 200)


ARGUMENTS = ["cohort.csv", "--slides", "slides", "--annotations", "annotations", "--out", "checked"]


def rows_of(study):
    with (study / "checked" / "check.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def checked(study, capsys, **changes):
    """The verb within this process: status, what was printed, what was complained of."""
    options = {
        "inputs": (study / "cohort.csv",),
        "slides": study / "slides",
        "annotations": study / "annotations",
        "out": study / "checked",
        "folds": "2",
    }
    problems = run_check(CheckOptions(**options | changes))
    printed = capsys.readouterr()
    return problems, printed.out, printed.err


def rewrite(study, change):
    path = study / "cohort.csv"
    path.write_text("".join(change(line) for line in path.read_text().splitlines(keepends=True)))


def test_a_sound_cohort_ends_with_0_and_leaves_table_page_and_pictures(study, mil):
    done = mil("check", *ARGUMENTS, "--folds", "2", "--mpp", "0.25,0.5", cwd=study)
    assert not done.stderr.strip(), done.stderr
    rows = rows_of(study)
    assert len(rows) == 8  # a row per slide and scale
    assert {row["status"] for row in rows} == {"ready"}
    assert rows[0]["label"]
    assert int(rows[0]["tiles_drawn"]) > int(rows[1]["tiles_drawn"]) > 0
    page = (study / "checked" / "index.html").read_text()
    assert "4 of 4 slides are ready" in page
    for row in rows:
        assert (study / "checked" / row["picture"]).is_file()
        assert f'src="{row["picture"]}"' in page
    assert not re.search(r"https?://|<script", page)
    assert "4 cases, an accuracy of .70 has a 95 % interval from .27 to .94" in done.stdout


def test_no_torch_is_loaded(study):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli", "check", *ARGUMENTS],
        cwd=study, env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "openslide" in loaded, "importtime out nothing"
    assert not loaded & {"torch", "timm"}


def test_a_slide_that_would_fail_ends_with_1_and_stands_first_on_the_page(study, mil):
    (study / "slides" / "case-03-s1.tiff").write_bytes(b"no slide")
    (study / "annotations" / "case-04-s1.geojson").unlink()
    done = mil("check", *ARGUMENTS, "--folds", "2", cwd=study, check=False)
    assert done.returncode == 1
    assert "case-03-s1.tiff: not a slide OpenSlide can open" in done.stderr
    assert "case-04-s1: no annotation in annotations" in done.stderr
    assert "2 ready, 2 would fail" in done.stdout
    order = re.findall(r"<h3>(.*?)</h3>", (study / "checked" / "index.html").read_text())
    assert order[:3] == ["case-03-s1", "case-04-s1", "case-01-s1"]
    assert [row["status"] for row in rows_of(study)].count("failed") == 2


def test_a_slide_excluded_by_rule_is_a_warning(study, capsys):
    problems, out, err = checked(study, capsys, min_tumour_of_tissue=0.99)
    assert problems == 0
    assert "4 excluded by rule" in out
    assert err.count("less than --min-tumour-of-tissue 0.99") == 4


def test_one_slide_under_two_names_is_a_problem(study, capsys):
    shutil.copy(study / "slides" / "case-01-s1.tiff", study / "slides" / "case-02-s1.tiff")
    problems, _, err = checked(study, capsys)
    assert problems == 1
    assert "case-01-s1, case-02-s1 are one and the same slide" in err


def test_names_that_differ_in_letter_case_only_are_a_problem(study, capsys):
    for folder, suffix in (("slides", "tiff"), ("annotations", "geojson")):
        place = study / folder
        (place / f"case-01-s1.{suffix}").rename(place / f"CASE-02-S1.{suffix}")
    rewrite(study, lambda line: line.replace("case-01-s1", "CASE-02-S1"))
    problems, _, err = checked(study, capsys)
    assert problems == 1
    assert "CASE-02-S1, case-02-s1 are equal names, or differ in letter case only" in err


def test_what_the_table_and_the_folder_do_not_share_is_named(study, capsys):
    rewrite(study, lambda line: line.replace("case-03-s1", "gone"))
    problems, _, err = checked(study, capsys, annotations=None)
    assert problems == 1
    assert "gone: no such file" in err
    assert "No row of the table names case-03-s1.tiff" in err


def test_missing_labels_and_small_classes_are_warned_of(study, capsys):
    rewrite(study, lambda line: re.sub("(case-01,case-01-s1),[^,]*", r"\1,", line))
    problems, out, err = checked(study, capsys)
    assert problems == 0
    assert "folds: folds=2: not possible; folds=loo: " in out
    assert "No label: case-01-s1." in err
    assert "Fewer than 2 usable cases: " in err
    assert "folds=2 is not possible" in err
    assert "3 have the label and a slide that is ready" in out


@pytest.mark.parametrize(
    ("folds", "out"),
    [
        ("5", "folds=5: not possible; folds=2: 2 folds with 2 test cases each"),
        ("loo", "folds=loo: 4 folds with 1 test case each"),
        ("site", "folds=site: not possible"),
    ],
)
def test_folds_are_tried(drawn, folds, out):
    summary, rows = Summary(), read_table(drawn / "cohort.csv")
    summarise_cases(summary, rows, {row.slide for row in rows}, folds, Diagnosis())
    assert out in summary.facts["folds"]


def test_mixed_scales_are_warned_of(study, capsys):
    def add_mpp(line):
        value = "mpp" if line.startswith("case,") else "0.5" if line.startswith("case-01") else ""
        return f"{line.rstrip()},{value}\n"

    rewrite(study, add_mpp)
    _, _, err = checked(study, capsys, mpp=(0.5,))
    assert "several micrometres per pixel, 0.5 (1), 0.25 (3)" in err


def test_time_and_bytes_follow_from_what_is_told(study, capsys):
    _, slow, _ = checked(study, capsys, tiles_per_second=0.001)
    _, fast, _ = checked(study, capsys, tiles_per_second=1000.0, backbone="unheard-of")
    tiles = sum(int(row["tiles_drawn"]) for row in rows_of(study))
    assert f"time: {round(tiles / 0.001) // 3600} h" in slow
    assert "time: under a minute at 1000 tiles/s, the assumed rate" in fast
    assert "2048 features of resnetv2_50" in slow
    assert "2048 features, as those of unheard-of are not known" in fast


def test_a_full_disk_is_told_beforehand(study, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    problems, _, err = checked(study, capsys)
    assert problems == 1
    assert "and 0.0 MB are free" in err


@pytest.mark.parametrize(("free", "problems"), [(105_000_000, 0), (99_000_000, 1)])
def test_some_of_the_disk_is_kept_free(study, capsys, monkeypatch, free, problems):
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, free)
    )
    status, _, err = checked(study, capsys)
    assert status == problems
    assert ("of which 100.0 MB are kept free" in err) == bool(problems)


def test_slides_without_a_table_are_checked_too(study, capsys):
    slide = study / "slides" / "case-01-s1.tiff"
    problems, out, err = checked(study, capsys, inputs=(slide,), slides=None, annotations=None)
    assert (problems, err) == (0, "")
    assert "slides: 1 ready" in out
    assert "cases" not in out


def test_names_cannot_break_the_page(study, capsys):
    odd = "a b#<i>&%41"
    (study / "slides" / "case-01-s1.tiff").rename(study / "slides" / f"{odd}.tiff")
    rewrite(study, lambda line: line.replace("case-01-s1", odd))
    checked(study, capsys, annotations=None)
    page = (study / "checked" / "index.html").read_text()
    assert "<i>" not in page
    # A % of the name is spelt out in the name of the file, and again in the address.
    assert 'src="a%20b%23%3Ci%3E%26%252541.png"' in page
    assert (study / "checked" / "a b#<i>&%2541.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["--tiles-per-second", "0"], "--tiles-per-second must be above 0"),
        (["--folds", "1"], "folds must be at least 2"),
        (["--mpp", "0.5,0.5"], "a scale is given twice"),
    ],
)
def test_wrong_use_ends_with_2(drawn, tmp_path, mil, arguments, out):
    done = mil("check", *ARGUMENTS[:-1], tmp_path / "x", *arguments, cwd=drawn, check=False)
    assert done.returncode == 2
    assert out in done.stderr
    assert not (tmp_path / "x").exists()


def test_an_interrupted_check_leaves_what_it_wrote(study, command):
    for number in range(60):  # enough to be caught at it
        for folder, suffix in (("slides", "tiff"), ("annotations", "geojson")):
            source = study / folder / f"case-01-s1.{suffix}"
            (study / folder / f"more-{number}.{suffix}").hardlink_to(source)
    with (study / "cohort.csv").open("a") as file:
        file.writelines(f"more-{number},more-{number},LMS,9,1\n" for number in range(60))
    running = command("check", *ARGUMENTS, cwd=study)
    table = study / "checked" / "check.csv"
    while running.process.is_alive() and not (table.is_file() and len(rows_of(study)) > 2):
        time.sleep(0.02)
    assert running.interrupt() == 130
    assert running.stderr.startswith("Interrupted.")
    rows = rows_of(study)
    assert 2 < len(rows) < 64
    assert all((study / "checked" / row["picture"]).is_file() for row in rows)


@pytest.mark.realdata
def test_a_table_of_real_slides(realdata, tmp_path, capsys):
    names = ["CMU-1-Small-Region", "TCGA-CR-7395-01A-01-TS1", "bad/broken", "blank"]
    lines = [f"{number},{name},{'ab'[number % 2]}\n" for number, name in enumerate(names)]
    (tmp_path / "cohort.csv").write_text("case,slide,label\n" + "".join(lines))
    problems, out, err = checked(
        tmp_path, capsys, slides=realdata / "slides", annotations=None, mpp=(0.5, 1.0)
    )
    assert problems >= 3
    assert "1 ready, 3 would fail" in out
    assert "the file gives no micrometres per pixel. Set" in err
    assert "names bad/unopenable.tiff, bad/unreadable.svs, fluorescence-DAPI.ndpi" in err


def test_cases_kept_aside_are_told_and_not_counted(study, capsys):
    _, out, _ = checked(study, capsys, inputs=(study / "split.csv",))
    assert "kept aside: 2 cases with split=test" in out
    assert "cases: 2, of which 2 have the label" in out


def test_column_split_is_read_alike_by_all_that_learn(study, capsys, tmp_path):
    table = tmp_path / "cohort.csv"
    text = (study / "split.csv").read_text()
    table.write_text(text.replace("split", "Split", 1).replace(",test", ",External"))
    _, out, _ = checked(study, capsys, inputs=(table,))
    assert "kept aside: 2 cases with split=test" in out
    config = FinetuneConfig.from_settings({"slides": str(study / "slides")})

    def labelled():
        return label_slides(config.read_jobs(table), read_table(table))

    learnt = {row.slide for row in training_rows(table)}
    assert learnt == {slide.job.slide for slide in labelled()}
    assert len(learnt) == 2
    table.write_text(text.replace(",test", ",validation", 1))
    for read in (
        lambda: checked(study, capsys, inputs=(table,)),
        labelled,
        lambda: training_rows(table),
    ):
        with pytest.raises(CohortError, match="split is 'validation'"):
            read()
