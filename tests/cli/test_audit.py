"""`mil audit`, as it is typed."""

import csv
import json
import shutil
from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parent.parent / "mil" / "evaluation" / "published"


def test_a_published_table_that_cannot_be_ends_with_1(mil, tmp_path):
    done = mil("audit", PUBLISHED / "metastasis.csv", "--out", tmp_path / "audited", check=False)
    assert done.returncode == 1
    assert done.stderr.count("IMPOSSIBLE") == 10
    assert "10 of 10 rows cannot be true of any cases." in done.stdout
    findings = json.loads((tmp_path / "audited" / "audit.json").read_text())["findings"]
    with (tmp_path / "audited" / "audit.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [each["text"] for each in findings]
    page = (tmp_path / "audited" / "index.html").read_text()
    assert "Dose-T2w-CE" in page
    assert "http:" not in page


def test_a_table_that_can_be_ends_with_0_and_writes_nothing(mil, tmp_path):
    (tmp_path / "table.csv").write_text("model,accuracy,n,<b>kappa\n<i>a,.8,20,.6\n")
    done = mil("audit", tmp_path / "table.csv", cwd=tmp_path)
    assert "1 row, none impossible" in done.stdout
    assert "No rule reads column <b>kappa." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    mil("audit", tmp_path / "table.csv", "--out", tmp_path / "audited")
    assert (tmp_path / "audited" / "index.html").exists()


def test_a_curve_of_a_table_and_a_file_that_is_none_are_refused(mil, tmp_path):
    done = mil("audit", PUBLISHED / "grading.csv", "--curve", "mean", check=False)
    assert (done.returncode, "nothing to learn from" in done.stderr) == (2, True)
    done = mil("audit", tmp_path / "absent.csv", check=False)
    assert (done.returncode, "there is no such table" in done.stderr) == (1, True)
    done = mil("audit", tmp_path, check=False)
    assert (done.returncode, "not a run folder" in done.stderr) == (1, True)


@pytest.mark.slow
def test_a_site_that_is_the_label_is_found_in_a_run(study, mil):
    with (study / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (study / "cohort.csv").unlink()  # a link to the demo's own
    with (study / "cohort.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "site"])
        writer.writeheader()
        writer.writerows(row | {"site": f"of {row['label']}"} for row in rows)
    mil(
        "crossval",
        "cohort.csv",
        "store",
        "--models",
        "majority,mean",
        "--epochs",
        2,
        "--seeds",
        1,
        "--out",
        "run",
        cwd=study,
    )
    before = {path: path.read_bytes() for path in (study / "run").rglob("*") if path.is_file()}
    done = mil("audit", "run", "--out", "audited", "--curve", "majority", cwd=study, check=False)
    assert done.returncode == 1
    assert "site predicts the outcome: macro AUC 1.00" in done.stderr
    assert "A cross-validation that holds out whole sites is not possible" in done.stderr
    assert "learning curve: accuracy of majority: " in done.stdout
    told = json.loads((study / "audited" / "audit.json").read_text())
    assert [each["name"] for each in told["confounders"] if each["found"]] == ["site"]
    assert len(told["learning_curve"]["points"]) == 4
    page = (study / "audited" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert before == {
        path: path.read_bytes() for path in (study / "run").rglob("*") if path.is_file()
    }
    mil("audit", "audited/results.csv", cwd=study)
    shutil.rmtree(study / "run" / "models")
    done = mil("audit", "run", cwd=study, check=False)
    assert "stored models: 0" in done.stdout
