"""The clinical model reads the table as its training cases taught it to, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import write_bag
from mil.data.cohort import assemble
from mil.data.encoding import (
    Column,
    ColumnEncoding,
    clinical_columns,
    describe_revealing,
    fit_encoding,
    readable,
    revealing_columns,
)
from mil.data.table import read_table
from mil.errors import CohortError, FitError
from mil.learning.crossval import cross_validate, fit_fold
from mil.learning.fitted import load_model, save_model
from mil.learning.training import fit_model
from mil.runs.clinical import clinical_facts
from tests.mil.made import QUICK, cohort_of, folds_of, made_bag, made_case, probabilities


def told(*columns, labels="abab"):
    """Cases of one tile each, with these columns."""
    return [
        replace(made_case(f"c{i}", labels[i % len(labels)], np.ones((2, 3))), other=dict(other))
        for i, other in enumerate(columns)
    ]


def of_column(*values, name="x"):
    return told(*({name: value} for value in values))


def rows(encoding, cases):
    return np.concatenate([encoding.row(case.name, case.other) for case in cases])


def test_numbers_are_standardised_and_a_missing_one_is_the_median():
    cases = of_column("1", "2", "6", "", "-3.5e0")
    encoding = fit_encoding(cases, ())
    (column,) = encoding.columns
    assert column.middle == 1.5
    assert column.spread == pytest.approx(np.std([1, 2, 6, -3.5]))
    expected = (np.array([1, 2, 6, 1.5, -3.5]) - 1.5) / column.spread
    np.testing.assert_allclose(rows(encoding, cases)[:, 0], expected, rtol=1e-6)
    assert rows(encoding, cases)[:, 1].tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "nan", "?", "Unknown"])
def test_words_for_missing_leave_numbers_numbers(missing):
    encoding = fit_encoding(of_column("1", missing, "3"), ())
    assert encoding.row("z", {"x": missing}).tolist() == [[0, 1]]


@pytest.mark.parametrize("strange", ["old", "1 cm", "inf"])
def test_what_is_no_number_is_missing_where_numbers_were_learnt(strange):
    encoding = fit_encoding(of_column("1", "2", "3"), ())
    assert encoding.row("z", {"x": strange}).tolist() == [[0, 1]]


def test_every_word_has_a_number_and_an_unseen_one_has_none():
    encoding = fit_encoding(of_column("leg", "arm", "leg", "", "trunk", "arm"), ())
    assert encoding.columns == (Column(name="x", categories=("arm", "leg", "trunk")),)
    assert encoding.row("z", {"x": "leg"}).tolist() == [[0, 1, 0]]
    assert encoding.row("z", {"x": "head"}).tolist() == [[0, 0, 0]]
    assert encoding.row("z", {"x": ""}).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("values", [["5", "5", "5"], ["", "", ""], ["m", "m", "m"]])
def test_constant_column_is_left_out_by_name(values):
    cases = [
        replace(case, other={**case.other, "age": str(i)})
        for i, case in enumerate(of_column(*values))
    ]
    encoding = fit_encoding(cases, ())
    assert encoding.left_out == (("x", "says the same of every case"),)
    assert [column.name for column in encoding.columns] == ["age"]


def test_identifier_is_left_out_but_numbers_that_all_differ_are_not():
    cases = told(*({"block": f"B/{i}", "age": str(40 + i)} for i in range(5)))
    encoding = fit_encoding(cases, ())
    assert encoding.left_out == (("block", "says something else of every case"),)
    assert [column.name for column in encoding.columns] == ["age"]


def test_columns_of_the_study_are_not_read_unless_asked_for():
    cases = told(*({"age": str(i), "Time": str(i), "event": "1"} for i in range(4)))
    assert clinical_columns(cases, ()) == ("age",)
    assert clinical_columns(cases, ("Time",)) == ("Time",)


def test_table_without_a_usable_column_is_refused_with_the_reason():
    with pytest.raises(FitError, match=r"no column.*\(x: says the same of every case\).*age"):
        readable(of_column("5", "5"), ())
    with pytest.raises(FitError, match=r"no column the clinical model could read\. Add"):
        readable(told({}, {}), ())


def test_unknown_column_is_refused_with_those_there_are():
    with pytest.raises(CohortError, match=r"No clinical column 'aeg'.*it has age, sex"):
        clinical_columns(told({"age": "1", "sex": "m"}), ("aeg",))


def test_row_of_the_encoding_comes_back_from_json():
    encoding = fit_encoding(
        told(*({"age": str(i), "sex": "fm"[i % 2], "k": "1"} for i in range(5))), ()
    )
    assert ColumnEncoding.from_json(encoding.to_json()) == encoding


def test_column_that_is_the_label_in_other_words_is_found():
    cases = told(*({"code": "12"[i % 2], "sex": "fm"[i % 3 % 2], "id": str(i)} for i in range(6)))
    assert revealing_columns(cases, ("code", "sex", "id")) == ("code",)


def test_column_that_nearly_names_the_label_is_told():
    cases = [
        replace(case, other={"dx": "other" if i == 0 else f"{case.label}-{i % 2}", "age": str(i)})
        for i, case in enumerate(told(*[{} for _ in range(20)], labels="ab"))
    ]
    assert revealing_columns(cases, ("dx", "age")) == ("dx",)


def two_slides(tmp_path, second="61"):
    table = tmp_path / "cohort.csv"
    lines = ["case,slide,label,age,sex", "a,a-1,x,60,f", f"a,a-2,x,{second},f", "b,b-1,y,40,m"]
    table.write_text("\n".join(lines) + "\n")
    for slide in ("a-1", "a-2", "b-1"):
        write_bag(tmp_path / f"{slide}.h5", made_bag(slide))
    return assemble(read_table(table), tmp_path)


def test_case_whose_slides_differ_in_a_clinical_column_is_refused(tmp_path):
    cohort = two_slides(tmp_path)
    with pytest.raises(
        CohortError,
        match=r"Slides of case 'a' differ in 'age'.*set clinical to the columns",
    ):
        fit_model("clinical", cohort.cases, (), cohort.classes, QUICK, seed=0)
    only_sex = replace(QUICK, clinical=("sex",))
    fitted = fit_model("clinical", cohort.cases, (), cohort.classes, only_sex, seed=0)
    assert [column.name for column in fitted.encoding.columns] == ["sex"]


def test_slides_that_agree_are_one_case(tmp_path):
    assert two_slides(tmp_path, "60").cases[0].differing == ()


def test_other_models_do_not_mind_slides_that_differ(tmp_path):
    cohort = two_slides(tmp_path)
    fit_model("majority", cohort.cases, (), cohort.classes, QUICK, seed=0)


def clinical_cohort(n=20, seed=0):
    """Age tells the class, sex does not; tiles tell nothing."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        bags = rng.normal(size=(1 + i % 2, 4, 3)).astype(np.float32)
        other = {"age": f"{rng.normal(40 + 15 * (i % 2), 5):.0f}", "sex": rng.choice(["f", "m"])}
        cases.append(replace(made_case(f"c{i:02d}", "ab"[i % 2], *bags), other=other))
    return cohort_of(cases)


def test_clinical_signal_is_found():
    """By guessing, 17 of 20 or more happen once in 800 cohorts."""
    cohort = clinical_cohort()
    predictions = cross_validate(cohort, folds_of(cohort), ["clinical"], QUICK, seed=0)
    scores = predictions.case_scores("clinical", 0)
    assert (scores.p.argmax(axis=1) == scores.truth).sum() >= 17


def test_tiles_say_nothing_to_the_clinical_model():
    cohort = clinical_cohort()
    fitted = fit_model("clinical", cohort.cases, (), cohort.classes, QUICK, seed=0)
    case = cohort.cases[1]
    first, second = (probabilities(fitted, bag, case.other) for bag in case.bags)
    assert first == second


def test_number_of_slides_moves_nothing():
    cohort = clinical_cohort()
    single = cohort_of([replace(case, bags=case.bags[:1]) for case in cohort.cases])
    p = []
    for each in (cohort, single):
        fitted = fit_model("clinical", each.cases, (), each.classes, QUICK, seed=0)
        p.append([probabilities(fitted, case.bags[0], case.other)[0] for case in each.cases])
    np.testing.assert_allclose(p[0], p[1], atol=1e-3)


def test_tested_case_moves_nothing_in_the_encoding():
    cohort = clinical_cohort()
    fold = folds_of(cohort)[0]

    def spoilt(case):
        absurd = {"age": "1000000", "sex": "other"}
        return replace(case, other=absurd) if case.name in fold.test else case

    other = replace(cohort, cases=tuple(map(spoilt, cohort.cases)))
    first, second = (fit_fold(each, "clinical", fold, QUICK, 0) for each in (cohort, other))
    assert first.encoding == second.encoding
    for name, value in first.head.state_dict().items():
        assert value.equal(second.head.state_dict()[name])


def test_encoding_is_kept_with_the_model_and_guarded(tmp_path):
    cohort = clinical_cohort()
    fitted = fit_model("clinical", cohort.cases, (), cohort.classes, QUICK, seed=0)
    path = tmp_path / "clinical.safetensors"
    save_model(path, fitted)
    case = cohort.cases[0]
    loaded = load_model(path)
    assert loaded.encoding == fitted.encoding
    assert probabilities(loaded, case.bags[0], case.other) == probabilities(
        fitted, case.bags[0], case.other
    )
    raw = path.read_bytes()
    middle = f'\\"middle\\": {fitted.encoding.columns[0].middle}'.encode()
    assert raw.count(middle) == 1
    path.write_bytes(raw.replace(middle, middle[:-1] + (b"1" if middle[-1:] != b"1" else b"2")))
    with pytest.raises(FitError, match="changed after saving"):
        load_model(path)


def test_columns_are_checked_before_any_fit():
    cohort = clinical_cohort()

    def fail(*_parts):
        raise AssertionError("a fit was started")

    settings = replace(QUICK, clinical=("size",))
    with pytest.raises(CohortError, match="No clinical column 'size'"):
        cross_validate(
            cohort, folds_of(cohort), ["majority", "clinical"], settings, seed=0, fitter=fail
        )


def test_model_without_epochs_gives_no_case_up_to_early_stopping():
    cohort = clinical_cohort()
    always = replace(QUICK, early_stopping="always")
    fold = folds_of(cohort)[0]
    for model in ("clinical", "pooled-logistic"):
        plain, stopping = (fit_fold(cohort, model, fold, each, 0) for each in (QUICK, always))
        for name, value in plain.head.state_dict().items():
            assert value.equal(stopping.head.state_dict()[name])


def test_what_is_known_only_afterwards_is_not_read_by_default_and_said():
    labels = "ab" * 5
    cases = told(
        *(
            {"age": str(40 + 7 * i % 10), "Lokalrezidiv": "ja"[: 1 + i % 3 % 2], "status": "x"}
            for i in range(10)
        ),
        labels=labels,
    )
    assert clinical_columns(cases, ()) == ("age", "status")
    notes = []
    clinical_facts(cohort_of(cases), ["clinical"], (), notes.append)
    assert "The clinical model leaves out Lokalrezidiv: known only from the follow-up." in notes
    notes.clear()
    clinical_facts(cohort_of(cases), ["clinical"], ("Lokalrezidiv", "age"), notes.append)
    assert not any("leaves out Lokalrezidiv" in note for note in notes)


def test_a_remark_on_a_revealing_column_speaks_of_the_outcome_there_is():
    cases = told(*({"x": "12"[i % 2]} for i in range(6)))
    assert "knows the outcome already" in describe_revealing("x", cases)
    followed = [replace(case, time=3.0) for case in cases]
    assert "tells the time, or the event of nine cases in ten" in describe_revealing("x", followed)
