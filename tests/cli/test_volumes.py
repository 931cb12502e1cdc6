"""CT and MRI from a folder of patients to a report, by the command."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from features.bags.bag import read_bag
from mil.data.volumes import read_volume_table
from mil.errors import CohortError
from mil.runs.run import open_run
from mil.view.gallery import Gallery
from tests.features.volumes.patients import patient

TINY = ("--backbone", "test_resnet", "--weights", "random", "--tile", "32")


def run(*words, code=0):
    done = CliRunner().invoke(app, ["volumes", *map(str, words)], env={"COLUMNS": "200"})
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Eight patients; tumours of the second label are brighter in T1, and of one size."""
    folder = tmp_path_factory.mktemp("study")
    rows = []
    for i in range(8):
        patient(folder / "patients" / f"p{i}", seed=i, shape=(14, 48, 40), radius=6.0 + i % 4)
        rows.append([f"P{i}", "ab"[i % 2], 40 + i])
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["patient", "label", "age"], *rows])
    run("table", folder / "patients", "--out", folder / "volumes.csv")
    run("extract", folder / "volumes.csv", "--channels", "CT,T1,PET", "--out", folder / "store",
        "--cases", folder / "cases.csv", *TINY)  # fmt: skip
    return folder


def test_every_patient_has_a_bag_and_a_row_to_learn_from(study):
    rows = list(csv.DictReader((study / "store" / "cohort.csv").read_text().splitlines()))
    assert [(row["case"], row["label"], row["age"]) for row in rows[:2]] == [
        ("p0", "a", "40"),
        ("p1", "b", "41"),
    ]
    for row in rows:
        bag = read_bag(study / "store" / f"{row['slide']}.h5")
        assert bag.case == row["case"]
        assert float(row["tumour_ml"]) == pytest.approx(bag.volume.tumour_ml, abs=0.01)
        assert len(bag) == len(bag.volume)


def test_a_second_run_embeds_nothing(study):
    before = {path: path.read_bytes() for path in (study / "store").glob("*.h5")}
    printed = run("extract", study / "volumes.csv", "--channels", "CT,T1,PET", "--out", study / "store",
               "--cases", study / "cases.csv", *TINY)  # fmt: skip
    assert "8 were laid out before" in printed
    assert {path: path.read_bytes() for path in (study / "store").glob("*.h5")} == before


def test_the_run_is_learnt_reported_explained_and_audited(study, mil):
    mil("crossval", "store/cohort.csv", "store", "--models", "clinical,mean", "--clinical", "tumour_ml",
        "--folds", 2, "--seeds", 1, "--epochs", 3, "--out", "run", cwd=study)  # fmt: skip
    mil("report", "run", cwd=study)
    page = (study / "run" / "report.html").read_text()
    assert "volume.margin_mm" in page
    for word in ("min_tumour_of_tissue", "stain_reference", ">stain<", ">mpp<", "max_tiles"):
        assert word not in page
    printed = mil(
        "explain", "run", "store/p0.h5", "--model", "mean", "--out", "map", cwd=study
    ).stdout
    assert "than random orders of slices" in " ".join(printed.split())
    assert "predict the effect of every slice" in " ".join(printed.split())
    assert "tile" not in printed
    header = next(csv.reader((study / "map" / "p0-mean-evidence.csv").read_text().splitlines()))
    assert header[-3:] == ["x_mm", "y_mm", "z_mm"]
    mil("explain", "run", "store/p0.h5", "--model", "mean", "--method", "grad-cam", "--slides",
        "store/films", "--out", "cam", cwd=study)  # fmt: skip
    mil("view", "run", "--slides", "store/films", "--check", cwd=study)
    shown = Gallery(open_run(study / "run"), {}).slide(0)
    places = read_bag(study / "store" / f"{shown['slide']}.h5").positions_mm
    assert (shown["part"], shown["positions"]) == ("slice", places.tolist())
    printed = mil("audit", "run", "--out", "audited", cwd=study).stdout
    assert "tumour volume" in printed
    assert "stain" not in printed


def test_a_film_laid_out_otherwise_is_not_shown_as_the_bags(study, tmp_path, mil):
    words = ("--channels", "CT,T1,PET", "--cases", study / "cases.csv", *TINY)
    mil(
        "volumes",
        "extract",
        study / "volumes.csv",
        *words,
        "--pixel-mm",
        1.5,
        "--out",
        tmp_path / "s",
    )
    store, run = study / "store", tmp_path / "run"
    mil("crossval", store / "cohort.csv", store, "--models", "mean", "--folds", 2, "--seeds", 1,
        "--epochs", 1, "--out", run)  # fmt: skip
    for more in (
        ("explain", run, store / "p0.h5", "--method", "grad-cam", "--out", tmp_path / "m"),
        ("view", run, "--check"),
    ):
        done = mil(*more, "--slides", tmp_path / "s" / "films", check=False)
        assert done.returncode == 1
        assert "in another way, than the film that its bag was made of" in done.stderr
    card = mil("package", run, "--out", tmp_path / "pk")
    assert card.returncode == 0
    text = (tmp_path / "pk" / "CARD.md").read_text()
    assert "slices of CT, T1, PET (red, green, blue), 32 px wide, laid out with allow []" in text
    assert "None micrometres" not in text
    refused = (
        "volumes",
        "extract",
        study / "volumes.csv",
        *words,
        "--pixel-mm",
        3,
        "--out",
        tmp_path / "s",
    )
    done = mil(*refused, check=False)
    assert "volume" not in done.stdout
    assert "--pixel-mm 1.5 -> 3.0" in done.stderr


def test_a_store_is_filled_for_every_choice_of_modalities(study, tmp_path):
    run("extract", study / "volumes.csv", "--channels-all", 1, "--out", tmp_path, *TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CT", "PET", "T1"]
    first = [read_bag(tmp_path / name / "p0.h5") for name in ("CT", "T1")]
    assert not np.array_equal(*(np.asarray(bag.features) for bag in first))
    assert np.array_equal(first[0].positions_mm, first[1].positions_mm)


def test_a_bad_volume_is_named_and_ends_with_1(study, tmp_path):
    table = (study / "volumes.csv").read_text().replace("p3/T1_image", "p3/T1_gone")
    (study / "broken.csv").write_text(table)
    printed = run(
        "extract", study / "broken.csv", "--channels", "T1", "--out", tmp_path / "s", *TINY, code=1
    )
    assert "p3: " in printed
    assert "T1_gone" in printed
    assert "1 of 8 volumes failed" in printed
    assert len(list((tmp_path / "s").glob("*.h5"))) == 7


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ((), "--channels CT,T1,PET, or --channels-all 3"),
        (("--channels", "CT", "--channels-all", "1"), "--channels CT,T1,PET, or --channels-all 3"),
        (("--channels", "CT,T1"), "one modality or three"),
        (("--channels-all", "2"), "--channels-all must be 1 or 3; got 2"),
        (("--channels", "CT", "--show", "some"), "some"),
    ],
)
def test_wrong_use_ends_with_the_remedy(study, tmp_path, words, printed, mil):
    done = mil("volumes", "extract", study / "volumes.csv", *words, "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert printed in done.stderr


@pytest.mark.parametrize(
    ("table", "printed"),
    [
        ("case,path\na,b\n", "no column modality"),
        ("case,modality,path\na,CT,\n", "line 2: path is empty"),
        ("case,modality,path\na,CT,x\na,CT,y\n", "two series named CT"),
        (
            "case,modality,path,label\na,CT,x,1\na,T1,y,2\n",
            "label of a is '2', and '1' in a row above",
        ),
        ("case,patient,modality,path\na,b,CT,x\n", "both mean case"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path, table, printed, mil):
    (tmp_path / "t.csv").write_text(table)
    words = ("volumes", "extract", tmp_path / "t.csv", "--channels", "CT", "--out", tmp_path / "s")
    done = mil(*words, check=False)
    assert done.returncode == 1
    assert printed in done.stderr


def test_a_model_answers_for_films_and_bags_and_refuses_what_was_laid_out_otherwise(
    study, tmp_path, mil
):
    """By fits that have not seen the case: films carry the voxels that training bags are known by."""
    run = tmp_path / "run"
    mil("crossval", study / "store" / "cohort.csv", study / "store", "--models", "mean", "--folds", 2,
        "--seeds", 1, "--epochs", 2, "--out", run)  # fmt: skip
    film = tmp_path / "renamed.film.tiff"
    film.write_bytes((study / "store" / "films" / "p0.film.tiff").read_bytes())
    printed = mil("predict", run, film, study / "store" / "p1.h5", "--out", tmp_path / "new.csv")
    assert "No pictures" not in printed.stdout + printed.stderr
    rows = {r["slide"]: r for r in csv.DictReader((tmp_path / "new.csv").read_text().splitlines())}
    assert {"renamed", "p1"} <= set(rows)
    assert all(row["outcome"] != "failed" for row in rows.values()), rows
    assert (rows["renamed"]["trained_on_it"], rows["renamed"]["mask"]) == ("out of fold", "volume")
    run_words = ("--channels", "CT,T1,PET", "--pixel-mm", "2", "--out", tmp_path / "other", *TINY)
    mil("volumes", "extract", study / "volumes.csv", *run_words)
    done = mil(
        "predict", run, tmp_path / "other" / "p1.h5", "--out", tmp_path / "n.csv", check=False
    )
    assert "volume.pixel_mm 0.0 -> 2.0" in done.stdout + done.stderr
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"x")
    mil("predict", run, slide, film, "--out", tmp_path / "n.csv", check=False)
    rows = {r["slide"]: r for r in csv.DictReader((tmp_path / "n.csv").read_text().splitlines())}
    assert rows["a"]["outcome"] == "failed"
    assert "a.svs is none of a series laid out" in rows["a"]["reason"]
    assert rows["renamed"]["outcome"] != "failed"


def test_contours_are_judged_and_the_mask_that_was_trained_on_is_named(study, tmp_path):
    tiny = ("--field-mm", 48, "--width", 2, "--steps", 2, "--folds", 2)
    printed = run(
        "contour", study / "volumes.csv", "--modality", "T1", "--out", tmp_path / "run", *tiny
    )
    assert "U-Net of three slices minus best window of values" in printed
    assert "Trained on: mask.nii.gz, label 1 (8 volumes)" in printed
    again = run(
        "contour", study / "volumes.csv", "--apply", tmp_path / "run", "--out", tmp_path / "applied"
    )
    assert "Contoured: 8 volumes" in again
    assert (tmp_path / "applied" / "volumes.csv").is_file()


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (("--modality", "T1", "--folds", "1"), "--folds must be at least 2; got 1."),
        (("--modality", "T1", "--window", "9"), "--window is '9'. Write it as -160:240."),
        ((), "--modality is missing: the modality of the table that is contoured, e.g. CT."),
        (("--apply", "run", "--pixel-mm", "3"), "--pixel-mm is a setting of training"),
        (("--apply", "run", "--folds", "3"), "--folds is a setting of training"),
    ],
)
def test_wrong_use_of_contour_names_the_flag(study, tmp_path, mil, words, printed):
    table, out = study / "volumes.csv", tmp_path / "run"
    done = mil("volumes", "contour", table, "--out", out, *words, check=False)
    assert done.returncode == 2
    assert printed in done.stderr


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("slide", "column slide is written"), ("Slide ID", "column Slide ID is written"),
        ("filename", "column filename is written"), ("Tumour ml", "column Tumour ml is written"),
        ("label,Label", "columns 'label' and 'Label' both mean label"),
        ("T stage,t_stage", "columns 'T stage' and 't_stage' both mean tstage"),
    ],
)  # fmt: skip
def test_columns_that_the_cohort_cannot_hold_are_refused_in_both_tables(
    study, tmp_path, column, words
):
    value = ",".join("x" for _ in column.split(","))
    cases = tmp_path / "cases.csv"
    cases.write_text(f"case,{column}\n" + "".join(f"p{i},{value}\n" for i in range(8)))
    with pytest.raises(CohortError, match=words):
        read_volume_table(study / "volumes.csv", cases=cases)
    head, *rows = (study / "volumes.csv").read_text().splitlines()
    table = tmp_path / "series.csv"
    table.write_text("\n".join([f"{head},{column}", *(f"{row},{value}" for row in rows)]))
    with pytest.raises(CohortError, match=words):
        read_volume_table(table)


def test_a_column_of_cases_is_that_of_the_series_however_it_is_spelt(study, tmp_path):
    head, *rows = (study / "volumes.csv").read_text().splitlines()
    table = tmp_path / "series.csv"
    table.write_text("\n".join([f"{head},T Stage", *(f"{row},2" for row in rows)]))
    cases = tmp_path / "cases.csv"
    cases.write_text("case,t_stage,age\n" + "".join(f"p{i},2,5{i}\n" for i in range(8)))
    cells = read_volume_table(table, cases=cases).cells
    assert {key: cells["p3"][key] for key in ("T Stage", "age")} == {"T Stage": "2", "age": "53"}
    assert "t_stage" not in cells["p3"]
    cases.write_text("case,t_stage\n" + "".join(f"p{i},{i}\n" for i in range(8)))
    with pytest.raises(CohortError, match="T Stage of p0 is '0', and '2' in the table of series"):
        read_volume_table(table, cases=cases)


def test_cases_of_another_table_are_joined_or_refused_and_none_is_lost(study, tmp_path, mil):
    words = (
        "volumes",
        "extract",
        study / "volumes.csv",
        "--channels",
        "T1",
        "--out",
        tmp_path / "s",
        *TINY,
    )
    (tmp_path / "few.csv").write_text("case,label\np0,a\nx7,b\n")
    done = mil(*words, "--cases", tmp_path / "few.csv", check=False)
    assert "no row of 7 of 8 cases, p1, p2" in done.stderr
    head, *rows = (study / "volumes.csv").read_text().splitlines()
    table = [f"{head},label", *(f"{row},a" for row in rows)]
    (study / "labelled.csv").write_text("\n".join(table) + "\n")
    (tmp_path / "all.csv").write_text("case,label\n" + "".join(f"p{i},b\n" for i in range(8)))
    more = (
        "volumes",
        "extract",
        study / "labelled.csv",
        *words[3:],
        "--cases",
        tmp_path / "all.csv",
    )
    assert "label of p0 is 'b', and 'a'" in mil(*more, check=False).stderr
    first, last = study / "first.csv", study / "last.csv"
    first.write_text("\n".join([table[0], *table[1:4]]) + "\n")
    last.write_text("\n".join([table[0], *table[4:7]]) + "\n")
    for part in (first, last):
        mil("volumes", "extract", part, *words[3:])
    rows = csv.DictReader((tmp_path / "s" / "cohort.csv").read_text().splitlines())
    assert [(row["case"], row["label"]) for row in rows] == [("p0", "a"), ("p1", "a")]
