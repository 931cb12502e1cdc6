"""What is read of a case besides its tissue, and what is said where there is nothing to read."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from features.volumes.facts import VolumeFacts
from mil.audit.association import CaseVariable
from mil.audit.predictors import cohort_predictors
from mil.audit.single_predictor import count_correct_alone, predict_alone
from tests.mil.made import cohort_of, folds_of, made_bag, made_cohort


def thumbnail(tissue, glass):
    """A slide whose left half is of one colour and whose right half is of another."""
    pixels = np.empty((60, 80, 3), np.uint8)
    pixels[:, :40], pixels[:, 40:] = tissue, glass
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "jpeg", quality=98)
    return out.getvalue()


def predictors_by_name(cohort):
    return {predictor.name: predictor for predictor in cohort_predictors(cohort)}


def with_bags(**of_case):
    """The made cohort with these facts of bag i: each a function of i."""
    cases = made_cohort((4, 4), slides=1).cases
    return cohort_of(
        [
            replace(
                case, bags=(made_bag(f"{case.name}-s1", **{k: f(i) for k, f in of_case.items()}),)
            )
            for i, case in enumerate(cases)
        ]
    )


def with_columns(**columns):
    cases = made_cohort((4, 4), slides=1).cases
    return cohort_of(
        [
            replace(case, other={name: values[i] for name, values in columns.items()})
            for i, case in enumerate(cases)
        ]
    )


def test_tiles_and_slides_are_counted_over_the_case():
    cohort = made_cohort((4, 4), slides=2)
    by_name = predictors_by_name(cohort)
    assert by_name["tiles (bag size)"].values[:, 0].tolist() == [
        sum(len(bag) for bag in case.bags) for case in cohort.cases
    ]
    assert set(by_name["slides of the case"].values[:, 0]) == {1, 2}


def test_the_area_of_a_slide_is_in_square_millimetres():
    by_name = predictors_by_name(with_bags(size_l0=lambda i: (4000 * (i + 1), 8000)))
    assert by_name["slide area"].values[:, 0].tolist() == [2.0 * (i + 1) for i in range(8)]


def test_stain_and_glass_are_the_optical_density_of_their_own_pixels():
    by_name = predictors_by_name(
        with_bags(thumbnail=lambda i: thumbnail((200 - 5 * i, 100, 160), (240, 242, 250 - i)))
    )
    stain, glass = by_name["mean stain"].values, by_name["background only"].values
    assert stain[0] == pytest.approx(-np.log10(np.array([200, 100, 160]) / 255), abs=0.01)
    assert glass[0] == pytest.approx(-np.log10(np.array([240, 242, 250]) / 255), abs=0.01)
    assert (np.diff(stain[:, 0]) > 0).all()
    assert np.ptp(glass[:, 0]) < 0.01


def test_flags_of_tiles_are_shares_of_the_bag():
    flags = np.array([4, 4, 6, 0, 0, 0], np.uint8)
    by_name = predictors_by_name(
        with_bags(tile_flags=lambda i: flags if i else np.zeros(6, np.uint8))
    )
    assert by_name["pen on tiles"].values[:, 0].tolist() == [0, *[0.5] * 7]
    assert by_name["blurred tiles"].values[:, 0].tolist() == [0, *[pytest.approx(1 / 6)] * 7]
    assert by_name["background tiles"].reason == "the same for all cases (0)"


def test_missing_data_has_a_reason():
    by_name = predictors_by_name(made_cohort((4, 4), slides=1))
    assert by_name["mean stain"].reason == "no data: known for 0 of 8 cases"
    assert by_name["site"].reason == "no data: the table has no column site"
    assert by_name["scanner"].reason == "no data: the table has no column scanner"
    assert by_name["date"].reason == "no data: the table has no column date"
    assert by_name["slide area"].reason == "the same for all cases (100.4)"
    assert by_name["how slides were read"].reason == "no data"


def test_columns_of_the_table_match_in_any_spelling():
    by_name = predictors_by_name(
        with_columns(Scanner_Model=["GT450"] * 4 + ["DP200"] * 4, Year=["2019"] * 4 + ["2021"] * 4)
    )
    assert by_name["scanner"].values[:, 0].tolist() == [1] * 4 + [0] * 4
    assert np.diff(by_name["date"].values[[0, 7], 0]) == 731  # 2020 was a leap year


@pytest.mark.parametrize(
    ("dates", "days"),
    [
        (["2024-03-01", "2024-03-03"] * 4, 2),
        (["01.03.2024", "03.03.2024"] * 4, 2),
        (["13/01/2024", "14/01/2024"] * 4, 1),
        (["01/13/2024", "01/14/2024"] * 4, 1),
        (["2024-03-01", "", *["2024-03-03"] * 6], 2),
        (["2024-03-01", "last May"] * 4, None),
    ],
)
def test_dates_become_days_if_all_are_written_alike(dates, days):
    by_name = predictors_by_name(with_columns(date=dates))["date"]
    if days is None:
        assert "not all written alike" in by_name.reason
    else:
        assert np.nanmax(by_name.values) - np.nanmin(by_name.values) == days


def test_a_blank_is_a_category_with_a_note():
    by_name = predictors_by_name(with_columns(scanner=["A", "A", "A", "A", "B", "B", "", ""]))[
        "scanner"
    ]
    assert len(np.unique(by_name.values)) == 3
    assert by_name.note == "3 kinds, 2 cases blank"


def test_a_kind_for_nearly_every_case_is_not_compared():
    by_name = predictors_by_name(with_columns(scanner=["A", "A", *"BCDEFG"]))["scanner"]
    assert by_name.reason == "7 kinds in 8 cases: too many to compare"


def test_alone_a_fact_is_learnt_from_training_cases_only():
    """A category that only the test case has cannot be known; one that is the label is, in every fold."""
    cohort = made_cohort((6, 6), slides=1)
    names = [case.name for case in cohort.cases]
    truth = np.array([cohort.classes.index(case.label) for case in cohort.cases])
    folds = folds_of(cohort, folds="3", repeats=2)
    label = CaseVariable("site", truth[:, None].astype(float), categorical=True)
    own = CaseVariable("site", np.arange(12.0)[:, None], categorical=True)
    assert count_correct_alone(label, names, truth, folds) == 12
    assert count_correct_alone(own, names, truth, folds) <= 6
    number = CaseVariable("x", np.where(np.arange(12) == 3, np.nan, truth)[:, None].astype(float))
    assert count_correct_alone(number, names, truth, folds) >= 11


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_alone_a_number_is_judged_by_the_regression_of_scikit_learn(n_classes):
    rng = np.random.default_rng(n_classes)
    labels = rng.permutation(np.arange(40) % n_classes)
    cohort = cohort_of(
        [
            replace(case, label="abcde"[k])
            for case, k in zip(made_cohort((20, 20)).cases, labels, strict=True)
        ]
    )
    names = [case.name for case in cohort.cases]
    values = rng.normal(size=(40, 2)) + labels[:, None] / 2
    folds = folds_of(cohort, folds="4")
    [p] = predict_alone(CaseVariable("x", values), names, labels, folds)
    place = {name: i for i, name in enumerate(names)}
    for fold in folds:
        train, test = ([place[name] for name in part] for part in (fold.train, fold.test))
        scaled = (values - values[train].mean(axis=0)) / values[train].std(axis=0)
        model = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaled[train], labels[train])
        assert p[test] == pytest.approx(model.predict_proba(scaled[test]), abs=1e-4)


def test_alone_nothing_is_always_wrong_when_one_case_is_left_out():
    """Of equal classes, its own has fewer left to train; a fit that had seen it would be half right."""
    cohort = made_cohort((5, 5), slides=1)
    names = [case.name for case in cohort.cases]
    truth = np.array([cohort.classes.index(case.label) for case in cohort.cases])
    nothing = CaseVariable("x", np.zeros((10, 1)))
    assert count_correct_alone(nothing, names, truth, folds_of(cohort, folds="loo")) == 0


def volume(i, **scan):
    """Facts of a volume of six slices."""
    return VolumeFacts(
        channels=("CT",) * 3, tile_px=224, columns=3, pixel_mm=1.0, slice_mm=3.0,
        positions_mm=tuple((0.0, 0.0, 3.0 * z) for z in range(6)), coverage=(0.1,) * 6,
        direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1), recipe={}, tumour_ml=10.0 + i,
        scan={"CT": {"slice_thickness_mm": 2.0 + i % 2, "kernel": "B" if i < 4 else "C", **scan}},
    )  # fmt: skip


def test_series_have_rows_of_their_scan_and_none_of_stain_and_pen():
    by_name = predictors_by_name(with_bags(volume=volume))
    assert by_name["tumour volume"].values[:, 0].tolist() == [10.0 + i for i in range(8)]
    assert by_name["CT: slice thickness mm"].values[:, 0].tolist() == [2.0, 3.0] * 4
    assert by_name["CT: kernel"].categorical
    assert by_name["CT: kernel"].values[:, 0].tolist() == [0.0] * 4 + [1.0] * 4
    assert not {name for name in by_name if "stain" in name or "pen" in name or "glass" in name}


def test_a_fact_that_only_some_scans_state_is_said_to_be_known_of_some():
    cohort = with_bags(volume=lambda i: volume(i, **({"kvp": 120.0 + i} if i != 3 else {})))
    assert "known for 7 of 8 cases" in predictors_by_name(cohort)["CT: kvp"].note
