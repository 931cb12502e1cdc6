"""The audit of a run: what it looks at besides the confounders."""

import io
import json
import re
from collections import Counter

import pytest
from PIL import Image
from scipy.stats import binom

from features.bags.bag import write_bag
from mil.audit.consistency import check_published
from mil.audit.published import read_published
from mil.audit.results import TABLE, results_table
from mil.audit.run import audit_run
from mil.audit.sample_size import cases_for_width, fewest_correct, interval_widths, learning_curve
from mil.data.cohort import assemble
from mil.data.splits import write_folds
from mil.data.table import read_table
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.intervals import wilson
from mil.evaluation.predictions import write_predictions
from mil.learning.crossval import cross_validate
from mil.learning.fitted import save_model
from mil.report.audit import draw_certainty, draw_confounders
from mil.runs.record import finish_run, start_run, update_run
from mil.runs.run import open_run
from tests.mil.made import QUICK, folds_of, made_cohort, planted_cohort

MODELS = ("majority", "mean")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cross-validation of three sites, one of them of one class only."""
    folder = tmp_path_factory.mktemp("audit")
    cohort, _ = planted_cohort(n_classes=2, per_class=8)
    lines = ["case,slide,label,site"]
    for i, case in enumerate(cohort.cases):
        bag = case.bags[0]
        write_bag(folder / "store" / f"{bag.slide}.h5", bag)
        lines.append(f"{case.name},{bag.slide},{case.label},{'ABC'[i % 3]}")
    (folder / "cohort.csv").write_text("\n".join(lines))
    cohort = assemble(read_table(folder / "cohort.csv"), folder / "store")
    folds = folds_of(cohort, folds="4", repeats=2)
    settings = {
        "cohort": str(folder / "cohort.csv"), "store": str(folder / "store"), "allow_missing": False,
        "models": MODELS,
    }  # fmt: skip
    bags = {bag.slide: bag.data_sha256 for case in cohort.cases for bag in case.bags}
    run = start_run(folder / "run", "crossval", settings, {"bags": bags, "cases": {}})

    def keep(model, fold, fitter):
        fitted = fitter()
        save_model(run.model_path(model, fold), fitted)
        return fitted

    write_folds(run.path / "folds.json", folds)
    predictions = cross_validate(cohort, folds, MODELS, QUICK, seed=0, fitter=keep)
    write_predictions(run.path / "predictions.csv", predictions)
    return finish_run(run)


@pytest.fixture(scope="module")
def audit(run):
    return audit_run(run)


def test_an_honest_run_has_no_problem_and_its_facts(audit, run):
    assert audit.summary.problems == []
    facts = audit.summary.facts
    assert facts["cases per class"] == "class-0: 8, class-1: 8"
    assert facts["folds"] == "8; each has at least 6 training and 2 test cases of every class"
    assert facts["stored models"] == "16; none of them trained on a case that it was tested on"
    assert facts["duplicates"].startswith("0 pairs")
    assert (
        json.loads(json.dumps(audit.to_json(), allow_nan=False))["confounders"][9]["name"] == "site"
    )


def test_sites_on_both_sides_are_told_with_the_remedy(audit):
    assert (
        "A cross-validation with folds by site would hold out each of the 3 sites."
        in audit.summary.warnings[1]
    )
    assert "In 8 of 8 folds" in audit.summary.warnings[1]
    sites = re.findall(r" ([ABC]) (\S+)/(\d)", audit.summary.facts["sites"])
    assert [(site, int(n)) for site, _, n in sites] == [("A", 6), ("B", 5), ("C", 5)]
    assert sum(float(right) for _, right, _ in sites) == audit.judged.evaluation.best().correct


def test_robustness_index_is_a_fact_and_in_json(audit):
    robustness = audit.to_json()["robustness"]
    assert (robustness["n_cases"], robustness["n_sites"]) == (16, 3)
    assert 0 < robustness["low"] < robustness["value"] < robustness["high"] < 1
    assert audit.summary.facts["robustness index"].startswith(f"{robustness['value']:.2f} (")


def test_a_fit_that_has_seen_its_test_case_is_a_problem(run):
    fold = json.loads((run.path / "folds.json").read_text())[0]
    card = run.path / "models" / "mean-r0-f0.json"
    original = card.read_text()
    fields = json.loads(original)
    fields["trained_on"] = [*fields["trained_on"], fold["test"][0].upper()]
    card.write_text(json.dumps(fields))
    try:
        problems = audit_run(run).summary.problems
    finally:
        card.write_text(original)
    assert problems == ["mean-r0-f0 has seen cases it was tested on. Make the run again."]


def test_a_case_tested_elsewhere_than_the_folds_say_is_a_problem(run):
    folds = json.loads((run.path / "folds.json").read_text())
    original, results = (run.path / "folds.json").read_text(), dict(run.info["results"])
    folds[0]["index"], folds[1]["index"] = 1, 0
    (run.path / "folds.json").write_text(json.dumps(folds))
    update_run(run, results={})
    try:
        _, problem = audit_run(open_run(run.path)).summary.problems
    finally:
        (run.path / "folds.json").write_text(original)
        update_run(run, results=results)
    assert "was not tested in the fold that folds.json says" in problem


def test_its_own_results_pass_the_rules_of_published_tables(run, tmp_path):
    import csv

    from mil.evaluation.predictions import read_predictions

    rows = results_table(read_predictions(run.path / "predictions.csv"))
    assert len(rows) == 2 * 2 * 2
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, TABLE)
        writer.writeheader()
        writer.writerows(rows)
    assert not [
        x for x in check_published(read_published(tmp_path / "results.csv").rows) if x.impossible
    ]


def test_the_pictures_are_pictures(audit):
    for png in (draw_confounders(audit), draw_certainty(audit)):
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.size[0] > 1000


def test_widths_are_wilsons_and_hold_the_cohorts_own_size():
    found = interval_widths(0.7, 37)
    assert [each.n for each in found] == [10, 20, 30, 37, 50, 100, 250, 500]
    for each in found:
        interval = wilson(0.7 * each.n, each.n)
        assert (each.low, each.high) == (interval.low, interval.high)


@pytest.mark.parametrize(("accuracy", "half"), [(0.7, 0.1), (0.9, 0.05), (0.5, 0.2)])
def test_the_cases_needed_are_the_fewest(accuracy, half):
    def width(n):
        found = wilson(accuracy * n, n)
        return found.high - found.low

    n = cases_for_width(accuracy, half)
    assert width(n) <= 2 * half < width(n - 1)


@pytest.mark.parametrize("n", [3, 10, 20, 30, 50, 75, 250])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.84])
def test_the_least_right_is_the_least(n, share):
    pmf = binom.pmf(range(n + 1), n, share)
    slow = [k for k in range(n + 1) if sum(pmf[k:]) <= 0.05]
    assert fewest_correct(n, share) == (slow[0] if slow else None)


def test_four_classes_at_chance_need_9_of_20():
    assert [fewest_correct(n, 0.25) for n in (20, 30, 50, 250)] == [9, 13, 19, 75]


def test_the_learning_curve_tests_the_same_cases_on_nested_parts_of_the_training():
    cohort = made_cohort((8, 8), slides=1)
    folds = folds_of(cohort, folds="4")
    label_of = {case.name: case.label for case in cohort.cases}
    subsets = []

    def score(reduced):
        subsets.append(reduced)
        [result] = evaluate(cross_validate(cohort, reduced, ["majority"], QUICK, seed=0)).models
        return result.metrics["accuracy"]

    points = learning_curve(folds, label_of, score)
    assert [point.train for point in points] == [4, 6, 8, 12]
    for i, fold in enumerate(folds):
        parts = [set(reduced[i].train) for reduced in subsets]
        assert parts[0] < parts[1] < parts[2] < parts[3] == set(fold.train)
        assert {reduced[i].test for reduced in subsets} == {fold.test}
        for part in parts:
            assert len(set(Counter(label_of[name] for name in part).values())) == 1
