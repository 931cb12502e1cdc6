"""Folds are of whole cases, even, repeatable, and refuse what they cannot carry."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.data.splits import (
    Fold,
    inner_split,
    read_folds,
    site_warning,
    split_cases,
    write_folds,
)
from mil.errors import CohortError, LeakageError, RunError
from mil.settings import SplitSettings
from tests.mil.made import folds_of, made_cohort


def names_and_labels(counts):
    labels = [f"class-{k}" for k, count in enumerate(counts) for _ in range(count)]
    return [f"case{i:02d}" for i in range(len(labels))], labels


def split(counts=(5, 5, 5, 5), sites=None, **options):
    names, labels = names_and_labels(counts)
    return split_cases(names, labels, sites or [""] * len(names), SplitSettings(**options))


cohorts = st.lists(st.integers(3, 9), min_size=2, max_size=5)
seeds = st.integers(0, 2**31)


@settings(max_examples=40)
@given(counts=cohorts, folds=st.sampled_from(["2", "3", "loo"]), seed=seeds)
def test_every_case_is_tested_exactly_once(counts, folds, seed):
    tested = Counter(name for fold in split(counts, folds=folds, seed=seed) for name in fold.test)
    assert tested == Counter(names_and_labels(counts)[0])


@settings(max_examples=40)
@given(counts=cohorts, folds=st.sampled_from(["2", "3", "loo"]), seed=seeds)
def test_every_case_either_trains_or_is_tested(counts, folds, seed):
    names = names_and_labels(counts)[0]
    for fold in split(counts, folds=folds, seed=seed):
        assert sorted(fold.train + fold.test) == names


@settings(max_examples=40)
@given(counts=cohorts, seed=seeds)
def test_classes_are_spread_evenly(counts, seed):
    names, labels = names_and_labels(counts)
    label_of = dict(zip(names, labels, strict=True))
    for fold in split(counts, folds="3", seed=seed):
        counted = Counter(label_of[name] for name in fold.test)
        for k, count in enumerate(counts):
            assert count // 3 <= counted[f"class-{k}"] <= -(-count // 3)


@pytest.mark.parametrize("seed", range(50))
def test_five_cases_per_class_and_five_folds_test_one_of_each(seed):
    names, labels = names_and_labels((5, 5, 5, 5))
    label_of = dict(zip(names, labels, strict=True))
    for fold in split(seed=seed, repeats=2):
        assert Counter(label_of[name] for name in fold.test) == Counter(set(labels))


def test_repeats_and_folds_are_numbered_from_zero():
    numbers = [(fold.repeat, fold.index) for fold in split(folds="5", repeats=2)]
    assert numbers == [(repeat, index) for repeat in range(2) for index in range(5)]


def test_each_repeat_tests_every_case():
    folds = split(repeats=3)
    for repeat in range(3):
        tested = [name for fold in folds if fold.repeat == repeat for name in fold.test]
        assert sorted(tested) == names_and_labels((5, 5, 5, 5))[0]


def test_repeats_differ():
    tests = {
        frozenset(fold.test for fold in split(repeats=6) if fold.repeat == r) for r in range(6)
    }
    assert len(tests) == 6


def test_a_seed_repeats():
    assert split(seed=7, repeats=2) == split(seed=7, repeats=2)


def test_another_seed_differs():
    assert split(seed=7) != split(seed=8)


def test_repeats_of_one_seed_are_not_those_of_the_next():
    first, second = (
        {tuple(f.test for f in split(seed=s, repeats=3) if f.repeat == r) for r in range(3)}
        for s in (0, 1)
    )
    assert not first & second


def test_order_of_the_table_is_kept_within_a_part():
    for fold in split():
        assert list(fold.train) == sorted(fold.train)
        assert list(fold.test) == sorted(fold.test)


def test_all_slides_of_a_case_stand_on_one_side():
    cohort = made_cohort((4, 4), slides=3)
    owner = {bag.slide: case.name for case in cohort.cases for bag in case.bags}
    for fold in folds_of(cohort, folds="4"):
        train = {bag.slide for case in cohort.named(fold.train) for bag in case.bags}
        test = {bag.slide for case in cohort.named(fold.test) for bag in case.bags}
        assert train | test == set(owner)
        assert not train & test
        assert not {owner[slide] for slide in train} & {owner[slide] for slide in test}


def test_leave_one_out_tests_one_case_at_a_time():
    assert [fold.test for fold in split((2, 3), folds="loo")] == [
        (name,) for name in names_and_labels((2, 3))[0]
    ]


def test_site_folds_leave_one_site_out_at_a_time():
    sites = ["b", "a", "b", "a", "c", "c", "a", "b"]
    folds = split((4, 4), sites, folds="site")
    assert [fold.test for fold in folds] == [
        ("case01", "case03", "case06"),
        ("case00", "case02", "case07"),
        ("case04", "case05"),
    ]


def test_case_without_a_site_is_named():
    with pytest.raises(CohortError, match=r"1 of 4 cases have no site, e\.g\. 'case02'"):
        split((2, 2), ["a", "b", "", "a"], folds="site")


def test_one_site_is_no_split():
    with pytest.raises(CohortError, match=r"one site only. Use folds=5"):
        split((2, 2), ["a"] * 4, folds="site")


def test_site_that_holds_all_cases_of_a_class_is_refused():
    with pytest.raises(CohortError, match=r"without any case of class class-0\. Use other"):
        split((2, 4), ["a", "a", "b", "b", "c", "c"], folds="site")


def test_too_few_cases_name_the_folds_that_are_possible():
    with pytest.raises(
        CohortError,
        match=r"5 folds need 5 .* only 3 of 'class-0', 4 of 'class-2'\. Use folds=3, merge each",
    ):
        split((3, 6, 4))


def test_a_task_names_its_labels():
    names, labels = names_and_labels((6, 2))
    with pytest.raises(CohortError) as caught:
        split_cases(names, labels, [""] * 8, SplitSettings(folds="4"), group="grade")
    assert str(caught.value) == (
        "4 folds need 4 cases of every grade, but the cohort has only 2 of 'class-1'. Use folds=2, merge it "
        "with another grade, or add cases."
    )


def test_folds_that_are_proposed_are_possible():
    assert len(split((3, 6, 4), folds="3")) == 3


@pytest.mark.parametrize("folds", ["2", "5", "loo"])
def test_class_of_one_case_is_refused_with_a_remedy(folds):
    with pytest.raises(
        CohortError, match=r"only 1 of 'class-1'\. Merge it with another class, or add"
    ):
        split((6, 1), folds=folds)


@pytest.mark.parametrize(
    "options",
    [
        {"folds": "1"},
        {"folds": "0"},
        {"folds": "-3"},
        {"folds": "2.5"},
        {"folds": "all"},
        {"repeats": 0},
        {"seed": -1},
        {"folds": "loo", "repeats": 2},
        {"folds": "site", "repeats": 2},
    ],
)
def test_settings_that_make_no_split_are_refused_at_birth(options):
    with pytest.raises(CohortError, match="Use "):
        SplitSettings(**options)


def test_fold_with_a_case_on_both_sides_is_leakage():
    with pytest.raises(LeakageError, match=r"Repeat 1, fold 2: b, c would train and be tested"):
        Fold(repeat=1, index=2, train=("a", "b", "c"), test=("c", "b"))


def test_folds_come_back_as_they_were_written(tmp_path):
    folds = split(repeats=2)
    write_folds(tmp_path / "folds.json", folds)
    assert read_folds(tmp_path / "folds.json") == folds


def test_names_outside_ascii_come_back_as_they_were_written(tmp_path):
    folds = (Fold(repeat=0, index=0, train=("Müller", "患者"), test=("Å\n,'",)),)
    write_folds(tmp_path / "folds.json", folds)
    assert read_folds(tmp_path / "folds.json") == folds


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[3]", '[{"repeat": 0}]', '{"repeat": 0}', '[{"repeat": "x"}]', "null"]
)
def test_file_that_holds_no_folds_is_refused(tmp_path, text):
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(RunError, match="not a file of folds"):
        read_folds(tmp_path / "folds.json")


def test_missing_file_of_folds_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a file of folds"):
        read_folds(tmp_path / "folds.json")


def test_leak_written_into_the_file_is_refused(tmp_path):
    fold = {"repeat": 0, "index": 0, "train": ["a"], "test": ["a"]}
    (tmp_path / "folds.json").write_text(json.dumps([fold]))
    with pytest.raises(LeakageError):
        read_folds(tmp_path / "folds.json")


@settings(max_examples=60)
@given(counts=st.lists(st.integers(2, 40), min_size=2, max_size=5), seed=seeds)
def test_inner_split_divides_the_cases(counts, seed):
    names, labels = names_and_labels(counts)
    train, valid = inner_split(names, labels, seed)
    assert sorted(train + valid) == sorted(names)


@settings(max_examples=60)
@given(counts=st.lists(st.integers(2, 40), min_size=2, max_size=5), seed=seeds)
def test_inner_split_sets_a_fifth_of_every_class_aside(counts, seed):
    names, labels = names_and_labels(counts)
    _, valid = inner_split(names, labels, seed)
    counted = Counter(dict(zip(names, labels, strict=True))[name] for name in valid)
    for k, count in enumerate(counts):
        assert max(1, count // 5) <= counted[f"class-{k}"] <= -(-count // 5)


def test_inner_split_repeats_with_its_seed():
    names, labels = names_and_labels((20, 20))
    assert inner_split(names, labels, 3) == inner_split(names, labels, 3)
    assert inner_split(names, labels, 3) != inner_split(names, labels, 4)


def test_inner_split_of_a_class_with_one_case_is_refused():
    names, labels = names_and_labels((9, 1))
    with pytest.raises(CohortError, match="two training cases with every label; class-1 has 1"):
        inner_split(names, labels, 0)


@pytest.mark.parametrize(
    ("per_site", "together"),
    [
        ([(7, 1), (1, 7)], True),
        ([(9, 0), (1, 6), (0, 8)], True),
        ([(4, 4), (5, 5)], False),
        ([(6, 2), (7, 3)], False),
    ],
)
def test_sites_that_go_with_classes_are_named(per_site, together):
    labels, sites = [], []
    for number, counts in enumerate(per_site):
        labels += ["A"] * counts[0] + ["B"] * counts[1]
        sites += [f"site {number}"] * sum(counts)
    names = [f"case{i:02d}" for i in range(len(labels))]
    folds = split_cases(names, labels, sites, SplitSettings(folds="site"))
    warning = site_warning(folds, dict(zip(names, labels, strict=True)))
    usual = 0  # who is of the most frequent class elsewhere, by a loop
    for label, site in zip(labels, sites, strict=True):
        elsewhere = Counter(x for x, at in zip(labels, sites, strict=True) if at != site)
        usual += elsewhere[label] == max(elsewhere.values())
    assert bool(warning) == together
    if together:
        assert f"together: {usual} of {len(names)} cases" in warning
