"""Table 1, errors, limitations and the figures as files."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import Table2x2

from mil.audit.sample_size import cases_for_width
from mil.evaluation.comparison import compare_models
from mil.report.class_figures import write_class_figures
from mil.report.diagnosis_sections import DiagnosisSections
from mil.report.failures import failures
from mil.report.table_one import table_one

RNG = np.random.default_rng(3)
COHORT = pd.DataFrame(
    {
        "case": [f"c{i}" for i in range(40)],
        "label": ["a", "b"] * 20,
        "tiles": RNG.integers(50, 900, 40),
        "age": [*RNG.integers(20, 90, 38).astype(str), "", ""],
        "sex": RNG.choice(["f", "m"], 40),
        "grade": RNG.choice(["1", "2", "3"], 40),
        "ward": RNG.choice(["x", "y", "z"], 40),
        "patient": [f"p{i}" for i in range(40)],
        "country": "NO",
    }
)
VARIABLES = {variable.name: variable for variable in table_one(COHORT, ("a", "b"))}


def parts(name, kind=float):
    known = COHORT[COHORT[name] != ""]
    return [known.loc[known["label"] == label, name].astype(kind).to_numpy() for label in "ab"]


def test_columns_that_say_nothing_or_name_the_case_are_left_out():
    assert list(VARIABLES) == ["tiles", "age", "sex", "grade", "ward"]


@pytest.mark.parametrize("name", ["tiles", "age"])
def test_numbers_are_described_and_tested_as_by_hand(name):
    first, second = parts(name)
    variable = VARIABLES[name]
    assert variable.p == pytest.approx(stats.mannwhitneyu(first, second).pvalue)
    pooled = np.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / 2)
    assert variable.smd == pytest.approx(abs(np.mean(first) - np.mean(second)) / pooled)
    assert variable.missing == (2 if name == "age" else 0)
    assert variable.levels[0][1][1].startswith(f"{np.median(first):.4g} (")


def test_words_are_counted_and_tested_as_by_hand():
    variable = VARIABLES["sex"]
    first, second = parts("sex", str)
    counts = np.array([[np.sum(part == level) for part in (first, second)] for level in "fm"])
    assert [texts[1].split(" ")[0] for _, texts in variable.levels] == [
        str(n) for n in counts[:, 0]
    ]
    assert variable.p == pytest.approx(stats.fisher_exact(counts).pvalue)
    p, q = np.mean(first == "m"), np.mean(second == "m")
    assert variable.smd == pytest.approx(abs(p - q) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2))
    assert (variable.p < 0.05) == (Table2x2(counts).log_oddsratio_pvalue() < 0.05)


def test_three_levels_of_two_classes_have_the_distance_of_yang_and_dalton():
    first, second = parts("ward", str)
    p, q = (np.array([np.mean(part == level) for level in "xyz"]) for part in (first, second))

    def covariance(p):
        return np.array([
            [p[i] * (1 - p[i]) if i == j else -p[i] * p[j] for j in (1, 2)] for i in (1, 2)
        ])  # fmt: skip

    middle = (covariance(p) + covariance(q)) / 2
    distance = np.sqrt((p - q)[1:] @ np.linalg.inv(middle) @ (p - q)[1:])
    assert VARIABLES["ward"].smd == pytest.approx(distance)


def test_p_of_a_drawn_fisher_is_near_that_of_all_tables():
    counts = pd.crosstab(COHORT["ward"], COHORT["label"]).to_numpy()
    n = 20_000
    drawn = [RNG.permutation(COHORT["label"].to_numpy()) for _ in range(n)]
    chi = [
        stats.contingency.crosstab(COHORT["ward"].to_numpy(), label).count for label in drawn[:2000]
    ]
    p_of = [stats.chi2_contingency(table).pvalue for table in [counts, *chi]]
    share = np.mean(np.array(p_of[1:]) <= p_of[0] + 1e-12)
    assert VARIABLES["ward"].p == pytest.approx(share, abs=0.08)


def test_p_is_even_where_nothing_differs():
    p = [
        table_one(
            pd.DataFrame(
                {"case": range(24), "label": ["a", "b", "c"] * 8, "x": rng.normal(size=24)}
            ),
            ("a", "b", "c"),
        )[0].p
        for rng in map(np.random.default_rng, range(300))
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.04)


def test_a_column_of_two_numbers_is_counted():
    cohort = COHORT.assign(event=RNG.integers(0, 2, 40))
    variable = {v.name: v for v in table_one(cohort, ("a", "b"))}["event"]
    assert [level for level, _ in variable.levels] == ["0", "1"]


def test_a_class_without_a_value_breaks_nothing():
    cohort = COHORT.assign(late=np.where(COHORT["label"] == "a", "", COHORT["age"]))
    variable = {v.name: v for v in table_one(cohort, ("a", "b"))}["late"]
    assert variable.p is None
    assert variable.smd is None
    assert variable.levels[0][1][1] == "\N{EN DASH}"


def test_errors_are_those_of_the_table(make):
    report = make(repeats=2)
    model = DiagnosisSections(report).lead.model
    errors = failures(report.predictions, model, report.facts.cohort)
    p = np.mean([report.predictions.case_scores(model, r).p for r in (0, 1)], axis=0)
    truth = report.predictions.case_scores(model, 0).truth
    assert sum(n for _, _, n in errors.confusions) == np.sum(p.argmax(axis=1) != truth)
    assert all(a != b for a, b, _ in errors.confusions)
    assert all(share >= 0.8 for *_, share in errors.sure)
    every = [
        {case for case, (right) in zip(s.case, s.p.argmax(axis=1) == s.truth, strict=True) if right}
        for name in report.predictions.models
        for s in [report.predictions.case_scores(name, 0)]
    ]
    assert not set(errors.by_all) & set.intersection(*every)
    assert {v.name for v in errors.against} <= set(report.facts.cohort.columns)


def limitations(report):
    return " ".join(DiagnosisSections(report).limitations())


def test_limitations_carry_the_numbers_of_the_run(make):
    report = make()
    report.facts.cohort.drop(columns="site", inplace=True)
    lead = DiagnosisSections(report).lead
    text = limitations(report)
    low, high = lead.metrics["accuracy"].low, lead.metrics["accuracy"].high
    assert f"between {100 * low:.0f} and {100 * high:.0f} %" in text
    assert "names no site" in text
    assert str(compare_models(report.predictions).power) in text
    assert "drawn once" in text
    assert "drawn once" not in limitations(make(repeats=2))
    assert "All cases come from one site" in limitations(make())


def test_cases_needed_are_those_of_the_audit(make):
    report = make()
    lead = DiagnosisSections(report).lead
    assert f"would take about {cases_for_width(lead.correct / lead.n, 0.1)} cases" in limitations(
        report
    )


def test_each_figure_is_a_picture_twice_and_its_numbers(make, tmp_path):
    report = make()
    written = write_class_figures(tmp_path / "figures", report.evaluation, report.predictions)
    names = {path.stem for path in written}
    assert names == {"accuracy", "roc", "confusion", "reliability"}
    for name in names:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "figures" / f"{name}.svg").read_text()
    table = pd.read_csv(tmp_path / "figures" / "accuracy.csv")
    assert table["right"].tolist() == [result.correct for result in report.evaluation.models]
    matrix = pd.read_csv(tmp_path / "figures" / "confusion.csv")
    assert matrix["cases"].sum() == 3 * report.evaluation.n_cases
    area = pd.read_csv(tmp_path / "figures" / "roc.csv")
    for (_, _), part in area.groupby(["model", "class"]):
        assert np.trapezoid(part["tpr"], part["fpr"]) == pytest.approx(part["auc"].iloc[0])


def test_names_of_models_and_classes_are_no_mathematics(make, tmp_path):
    report = make(classes=("a$b", "$x^2$", "<i>c", "d"), models=("m$1$", "n_2"))
    written = write_class_figures(tmp_path, report.evaluation, report.predictions)
    assert len(written) == 12
