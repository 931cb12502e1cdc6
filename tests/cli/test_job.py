"""The whole job on the demo cohort: is the science there, and does nothing get lost?"""

import csv
import json
import time

import numpy as np
import pytest
from scipy.stats import rankdata

from features.bags.bag import read_bag
from features.synthetic import key_tiles
from tests.mil.made import made_cohort
from tests.mil.made_runs import write_cohort
from tests.small_slides import write_small_cohort

pytestmark = pytest.mark.slow


def results(run):
    return {m["model"]: m for m in json.loads((run / "metrics.json").read_text())["models"]}


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tile_auc(key, score):
    """Chance that a key tile outranks another one; ties count half."""
    ranks = rankdata(score)
    return (ranks[key].mean() - (key.sum() + 1) / 2) / (~key).sum()


def test_every_bag_is_made_and_nothing_failed(demo):
    rows = read_csv(demo / "cohort.csv")
    assert len(rows) == 20
    assert {path.stem for path in (demo / "store").glob("*.h5")} == {row["slide"] for row in rows}
    assert not (demo / "store" / "failures.csv").exists()


def test_attention_beats_chance_and_mean_pooling_on_the_demo(demo):
    found = results(demo / "run")
    assert found["abmil"]["accuracy"]["low"] > 0.25
    assert found["abmil"]["correct"] > found["mean"]["correct"]
    assert found["abmil"]["auc"]["value"] > found["mean"]["auc"]["value"]
    assert found["majority"]["correct"] == 5


def test_attention_ranks_the_planted_tiles_first_in_cases_it_has_not_seen(demo):
    from mil.data.splits import read_folds
    from mil.explanation.attention import attention_scores
    from mil.learning.fitted import load_model
    from mil.runs.run import open_run

    run = open_run(demo / "run")
    label_free = []
    for fold in read_folds(demo / "run" / "folds.json"):
        fitted = load_model(run.model_path("abmil", fold))
        assert not set(fitted.trained_on) & set(fold.test)
        for row in read_csv(demo / "cohort.csv"):
            if row["case"] in fold.test:
                bag = read_bag(demo / "store" / f"{row['slide']}.h5")
                regions = demo / "key_regions" / f"{row['slide']}.geojson"
                key = key_tiles(regions, bag.coords_l0, bag.side_l0[0])
                label_free.append(tile_auc(key, attention_scores(fitted, bag).values))
    assert len(label_free) == 20
    assert np.mean(label_free) > 0.8


def test_each_fold_tests_one_case_of_each_subtype(demo):
    label_of = {row["case"]: row["label"] for row in read_csv(demo / "cohort.csv")}
    folds = json.loads((demo / "run" / "folds.json").read_text())
    assert len(folds) == 5
    for fold in folds:
        assert sorted(label_of[case] for case in fold["test"]) == ["DDLPS", "LMS", "MPNST", "SS"]


def test_shuffled_labels_come_out_at_chance(demo, tmp_path):
    """Over three shufflings: 60 predictions at 1 in 4 give 15 right, 6 to 25 in 98 % of trials.

    Cases share their fits, so counts scatter 1.5 times as much as those of independent guesses. Every third
    answer given away would make 30. benchmarks.null_cohorts draws 40 cohorts.
    """
    from mil.data.cohort import assemble
    from mil.data.splits import split_cases
    from mil.data.table import read_table
    from mil.evaluation.classification.evaluate import evaluate
    from mil.learning.crossval import cross_validate
    from mil.settings import FitSettings, SplitSettings

    rows = read_csv(demo / "cohort.csv")
    right = 0.0
    for seed in range(3):
        labels = np.random.default_rng(seed).permutation([row["label"] for row in rows])
        table = tmp_path / f"{seed}.csv"
        lines = [f"{row['case']},{row['slide']},{x}" for row, x in zip(rows, labels, strict=True)]
        table.write_text("\n".join(["case,slide,label", *lines]))
        cohort = assemble(read_table(table), demo / "store")
        names = [case.name for case in cohort.cases]
        folds = split_cases(
            names, [c.label for c in cohort.cases], [""] * 20, SplitSettings(seed=seed)
        )
        settings = FitSettings(seeds=1, epochs=15)
        predictions = cross_validate(cohort, folds, ["abmil"], settings, seed=seed)
        right += evaluate(predictions).models[0].correct
    assert 6 <= right <= 25


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a table and bags of made-up features."""
    folder = tmp_path_factory.mktemp("small")
    write_cohort(folder, made_cohort((5, 5)))
    return folder


def test_a_finished_run_is_not_overwritten_unasked(small, tmp_path, mil):
    run = tmp_path / "run"
    words = ["crossval", "cohort.csv", "store", "--models", "majority", "--out", run]
    mil(*words, cwd=small)
    before = (run / "run.json").read_bytes()
    refused = mil(*words, cwd=small, check=False)
    assert refused.returncode == 1
    assert "finished run" in refused.stderr
    assert (run / "run.json").read_bytes() == before
    mil(*words, "--overwrite", cwd=small)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, mil):
    """Eight small slides, two of each subtype, and their bags."""
    folder = tmp_path_factory.mktemp("embedded")
    write_small_cohort(folder, 2)
    network = ("--backbone", "test_resnet", "--weights", "random")
    words = ["cohort.csv", "--slides", "slides", "--annotations", "annotations", *network]
    mil("extract", *words, "--out", "store", cwd=folder)
    return folder


@pytest.fixture
def few(embedded, tmp_path):
    """A user's folder with them, and no run yet."""
    for name in ("cohort.csv", "slides", "annotations", "store"):
        (tmp_path / name).symlink_to(embedded / name)
    return tmp_path


def test_predicting_a_slide_equals_predicting_its_bag(few, mil):
    study = few
    words = ["cohort.csv", "store", "--model", "mean", "--epochs", "5", "--out", "trained"]
    mil("train", *words, cwd=study)
    mil("predict", "trained", "store/case-02-s1.h5", "--out", "bag.csv", cwd=study)
    mil(
        "predict", "trained", "slides/case-02-s1.tiff", "--annotations", "annotations",
        "--out", "slide.csv", cwd=study,
    )  # fmt: skip
    bag, slide = read_csv(study / "bag.csv"), read_csv(study / "slide.csv")
    assert [row["level"] for row in bag] == ["slide", "case"]
    assert [r["p_SS"] for r in bag] == [r["p_SS"] for r in slide]
    for rows in (bag, slide):
        assert [row["trained_on_it"] for row in rows] == ["yes", "yes"]
        assert [row["case"] for row in rows] == ["case-02", "case-02"]
        assert "label" not in rows[0]
    words = ["trained", "store/case-02-s1.h5", "--method", "attention", "--out", "e"]
    refused = mil("explain", *words, cwd=study, check=False)
    assert refused.returncode == 1
    assert "trained: has no model that suits attention" in refused.stderr


def test_a_slide_of_unknown_case_is_not_called_unseen(few, mil):
    study = few
    (study / "slides2").mkdir()
    (study / "slides2" / "x.tiff").symlink_to((study / "slides" / "case-02-s1.tiff").resolve())
    (study / "slides2" / "x.geojson").symlink_to(
        (study / "annotations" / "case-02-s1.geojson").resolve()
    )
    words = ["slides2/x.tiff", "--annotations", "slides2"]
    lines = (study / "cohort.csv").read_text().splitlines(keepends=True)
    (study / "others.csv").write_text("".join(line for line in lines if "case-02" not in line))
    mil("train", "others.csv", "store", "--epochs", "2", "--out", "trained", cwd=study)
    done = mil("predict", "trained", *words, "--out", "p.csv", cwd=study)
    assert [row["trained_on_it"] for row in read_csv(study / "p.csv")] == ["unknown", "unknown"]
    assert "may have seen it" in done.stderr
    (study / "table.csv").write_text("case,slide\ncase-03,x\n")
    mil("predict", "trained", *words, "--cohort", "table.csv", "--out", "p.csv", cwd=study)
    assert [row["trained_on_it"] for row in read_csv(study / "p.csv")] == ["yes", "yes"]
    printed = mil("explain", "trained", *words, "--out", "e", cwd=study).stdout
    assert "its case is not known: the model may have seen it" in printed


def test_explain_uses_the_fold_that_left_the_case_out(demo, tmp_path, mil):
    folds = json.loads((demo / "run" / "folds.json").read_text())
    slide, drawn = demo / "slides" / "case-03-s1.tiff", ("--annotations", demo / "annotations")
    bag = demo / "store" / "case-04-s1.h5"
    for case, words in (("case-03", (slide, *drawn)), ("case-04", (bag,))):
        [fold] = [fold["index"] for fold in folds if case in fold["test"]]
        printed = mil("explain", demo / "run", *words, "--out", tmp_path).stdout
        assert f"model of fold {fold}, not trained on this case" in printed


def test_a_cross_validation_answers_by_the_fits_that_have_not_seen_the_case(demo, tmp_path, mil):
    bag, out = demo / "store" / "case-01-s1.h5", tmp_path / "p.csv"
    done = mil("predict", demo / "run", bag, "--model", "abmil", "--out", out)
    slide, case = read_csv(out)
    assert [row["trained_on_it"] for row in (slide, case)] == ["out of fold"] * 2
    assert "only fits that were not trained on them answer" in done.stderr


def test_explain_writes_a_table_a_picture_and_tiles_for_qupath(demo):
    base = demo / "explained" / "case-01-s1-abmil-evidence"
    bag = read_bag(demo / "store" / "case-01-s1.h5")
    rows = read_csv(base.with_suffix(".csv"))
    assert len(rows) == len(bag)
    explained = json.loads(base.with_suffix(".json").read_text())["map"]["explained"]
    assert sum(float(row["evidence"]) for row in rows) == pytest.approx(explained, abs=1e-3)
    tiles = json.loads(base.with_suffix(".geojson").read_text())["features"]
    assert [tile["geometry"]["coordinates"][0][0] for tile in tiles] == bag.coords_l0.tolist()
    assert base.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_report_is_one_page_that_says_what_embedded_the_tiles(demo):
    page = (demo / "run" / "report.html").read_text()
    assert "tf_efficientnet_lite0" in page
    assert "weights are random" not in page
    # the slide and its map of every case, and a typical one once more beside its bare slide
    assert page.count("data:image/jpeg;base64,") == 20 + 2
    assert page.count("data:image/png;base64,") == 20 + 1
    for source in ('src="http', "src='http", 'href="http', "@import"):
        assert source not in page


def test_names_from_the_table_are_escaped_in_the_report(small, tmp_path, mil):
    evil, study = "<script>alert(1)</script>", tmp_path
    (study / "store").symlink_to(small / "store")
    names = (small / "cohort.csv").read_text()
    (study / "evil.csv").write_text(names.replace(",class-a", f',"{evil}"'))
    assert evil in (study / "evil.csv").read_text()
    mil("crossval", "evil.csv", "store", "--models", "majority", "--out", "evil", cwd=study)
    mil("report", "evil", cwd=study)
    page = (study / "evil" / "report.html").read_text()
    assert evil not in page
    assert "&lt;script&gt;" in page


def test_an_interrupt_says_that_nothing_is_lost(small, tmp_path, command):
    words = ["crossval", "cohort.csv", "store", "--models", "abmil", "--out", tmp_path / "r"]
    running = command(*words, "--epochs", 5000, cwd=small)
    deadline = time.monotonic() + 120
    while not (tmp_path / "r" / "folds.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    assert running.interrupt() == 130
    assert "Interrupted" in running.stderr
    assert "Traceback" not in running.stderr


def test_no_bar_is_drawn_where_output_is_no_terminal(small, mil, tmp_path):
    words = ["crossval", "cohort.csv", "store", "--models", "majority", "--out", tmp_path / "r"]
    assert mil(*words, cwd=small).stderr == ""
