"""Ordered grades on the command line: from a cross-validation to its page, audit and external validation."""

import json

import numpy as np
import pandas as pd
import pytest

from features.bags.bag import write_bag
from tests.mil.made import made_case


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Forty-two cases whose key tiles grow with the grade; six of them are kept for external validation."""
    folder = tmp_path_factory.mktemp("grades")
    rng = np.random.default_rng(0)
    lines = ["case,slide,label,grade,split"]
    for i in range(42):
        grade = i % 3
        features = rng.normal(size=(24, 8)).astype(np.float32)
        features[: 8 * grade, 0] += 4
        name = f"c{i:02d}"
        for bag in made_case(name, "sarcoma", features).bags:
            write_bag(folder / "store" / f"{bag.slide}.h5", bag)
            lines.append(f"{name},{bag.slide},sarcoma,G{grade + 1},{'test' if i < 6 else ''}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_run_of_grades_goes_all_the_way(study, mil):
    quick = ("--task", "grade", "--epochs", "3", "--seeds", "1", "--folds", "3", "--quiet")
    learn = ("crossval", "cohort.csv", "store", *quick)
    mil(*learn, "--models", "majority,pooled-logistic,abmil", "--out", "run", cwd=study)
    mil(*learn, "--models", "abmil", "--seed", "1", "--out", "again", cwd=study)
    table = pd.read_csv(study / "run" / "predictions.csv")
    assert [name for name in table.columns if name.startswith("g_")] == ["g_G1", "g_G2", "g_G3"]
    metrics = json.loads((study / "run" / "metrics.json").read_text())
    by_model = {result["model"]: result for result in metrics["models"]}
    for name in ("quadratic_kappa", "mae"):
        estimate = by_model["pooled-logistic"][name]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert by_model["pooled-logistic"]["quadratic_kappa"]["value"] > 0.5
    assert len(json.loads((study / "run" / "comparison.json").read_text())["pairs"]) == 3
    mil("compare", "run", "again", "--out", "compared", cwd=study)
    [pair] = json.loads((study / "compared" / "comparison.json").read_text())["pairs"]
    assert (pair["first"], pair["second"]) == ("run: abmil", "again: abmil")
    mil("report", "run", "--quiet", cwd=study)
    page = (study / "run" / "report.html").read_text()
    assert page.index(">G1<") < page.index(">G2<") < page.index(">G3<")
    assert "quadratic kappa" in page
    mil("audit", "run", "--out", "audited", "--quiet", cwd=study, check=False)
    facts = json.loads((study / "audited" / "audit.json").read_text())["facts"]
    assert "has a quadratic kappa of" in facts["interval"]
    assert facts["cases per grade"].startswith("G1: ")
    assert "cases of every grade" in facts["folds"]
    assert "class" not in (study / "audited" / "index.html").read_text().split("</style>")[
        1
    ].replace('class="', "")
    mil("external", "run", "cohort.csv", "store", "--model", "pooled-logistic", cwd=study)
    unseen = pd.read_csv(study / "run" / "external" / "cohort" / "predictions.csv")
    assert len(unseen) == 6
    assert set(unseen["grade"]) == {"G1", "G2", "G3"}


def test_a_run_of_grades_is_explained_permuted_and_predicts(study, mil, tmp_path):
    quick = ("--task", "grade", "--epochs", "2", "--seeds", "1", "--folds", "3", "--quiet")
    models = ("--models", "majority,abmil")
    table, store = study / "cohort.csv", study / "store"
    mil("crossval", table, store, *quick, *models, "--out", tmp_path / "run")
    slide = pd.read_csv(tmp_path / "run" / "predictions.csv")["slide"][0]
    bag = store / f"{slide}.h5"
    mil("explain", tmp_path / "run", bag, "--method", "evidence", "--out", tmp_path / "explained")
    [scores] = (tmp_path / "explained").glob("*.csv")
    scores = tmp_path / "explained" / f"{slide}-abmil-evidence.csv"
    assert len(pd.read_csv(scores)) == 24
    shuffles = ("--times", "2", "--quiet", "--out", tmp_path / "permuted")
    mil("permute", tmp_path / "run", *shuffles)
    permuted = json.loads((tmp_path / "permuted" / "permutation.json").read_text())
    assert permuted["metric"] == "somers_d"
    mil("predict", tmp_path / "run", bag, "--model", "abmil", "--out", tmp_path / "new.csv")
    [answer, _] = pd.read_csv(tmp_path / "new.csv").to_dict("records")
    assert answer["trained_on_it"] == "out of fold"
    grades = ("G1", "G2", "G3")
    first, *_, last = [grades.index(name) for name in answer["set"].split(";") * 2]
    assert answer["set"] == ";".join(grades[first : last + 1])
    train = ("train", table, store, *quick[:6], "--model", "abmil", "--quiet")
    mil(*train, "--out", tmp_path / "trained")
    mil("predict", tmp_path / "trained", bag, "--out", tmp_path / "predicted.csv")
    predicted = pd.read_csv(tmp_path / "predicted.csv")
    shares = predicted[["g_G1", "g_G2", "g_G3"]].sum(axis=1)
    assert shares.to_numpy() == pytest.approx(np.ones(len(predicted)), abs=1e-4)
