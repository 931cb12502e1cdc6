"""The robustness index beside croma, beside its definition, and on stores whose mixing is known."""

import warnings
from dataclasses import replace

import croma
import numpy as np
import pandas as pd
import pytest

from features.summary import Summary
from mil.audit.robustness import comparable, jackknife, robustness_index, sample_tiles
from mil.audit.run import _add_robustness
from mil.tasks.grade import Grade
from tests.mil.made import cohort_of, made_case


def made_sites(class_shift, site_shift, *, n_cases=12, n_tiles=9, n_sites=2, seed=0, spread=0.3):
    """Cases of two classes at every site; tiles moved along an axis of the class and one of the site."""
    rng = np.random.default_rng(seed)
    axes = np.eye(10)
    cases = []
    for i in range(n_cases):
        label, site = i % 2, i // 2 % n_sites
        own = spread * rng.normal(size=10) + class_shift * axes[label] + site_shift * axes[2 + site]
        tiles = own + rng.normal(size=(n_tiles, 10))
        half = n_tiles // 2 if i % 3 else n_tiles
        slides = [part.astype(np.float32) for part in (tiles[:half], tiles[half:]) if len(part)]
        case = made_case(f"case-{i:02d}", f"class-{label}", *slides)
        cases.append(replace(case, site=f"site-{site}"))
    return cohort_of(cases)


def tiles_of(cohort):
    """(features (T, D), table of tiles) as croma takes them."""
    rows = [
        {
            "sample_id": f"{bag.slide}-{i}", "image_path": "none", "group_id": case.name,
            "label": case.label, "center": case.site, "dataset": "made",
        }
        for case in cohort.cases for bag in case.bags for i in range(len(bag))
    ]  # fmt: skip
    features = np.concatenate([bag.features for bag in cohort.bags]).astype(np.float64)
    return features, pd.DataFrame(rows)


def referee(cohort, k):
    features, manifest = tiles_of(cohort)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some tiles have neighbours of neither kind
        result = croma.RI.compute(features, manifest, confounder_column="center", k_candidates=[k])
    return result.value


@pytest.mark.parametrize(
    ("class_shift", "site_shift", "low", "high"),
    [(6, 0, 0.95, 1.0), (0, 6, 0.0, 0.05), (2, 2, 0.3, 0.7)],
    ids=["class only", "site only", "both"],
)
@pytest.mark.parametrize("k", [3, 10])
def test_index_of_known_mixing_is_that_of_croma(class_shift, site_shift, low, high, k):
    cohort = made_sites(class_shift, site_shift)
    found = robustness_index(cohort, neighbours=k)
    assert found.value == pytest.approx(referee(cohort, k), abs=1e-12)
    assert low <= found.value <= high
    assert found.low <= found.value <= found.high
    assert (found.n_cases, found.n_sites, found.n_tiles) == (12, 2, 108)


def test_the_index_of_grades_speaks_of_grades():
    cohort = made_sites(0, 3)
    graded = robustness_index(replace(cohort, task=Grade()))
    assert graded.value == robustness_index(cohort).value
    assert "either grade or site, the share that is of the same grade" in graded.text
    assert "others of their grade" in graded.warning


@pytest.mark.parametrize("seed", range(3))
def test_index_of_cases_of_unequal_size_is_the_slow_one(seed):
    """Three sites, one of a single class, cases of different length: only some cases count."""
    full = made_sites(2, 2, n_sites=3, n_cases=14, seed=seed)
    rng = np.random.default_rng(seed)
    cases = []
    for case in full.cases:
        if case.site == "site-2" and case.label == "class-1":
            continue
        bag = case.bags[0]
        kept = bag.features[: rng.integers(3, len(bag) + 1)]
        cases.append(replace(made_case(case.name, case.label, kept), site=case.site))
    cohort = cohort_of(cases)
    counts = comparable(cohort.cases)
    assert 0 < counts.sum() < len(cases)
    agree, differ = [], []
    for case, counted in zip(cohort.cases, counts, strict=True):
        others = [other for other in cohort.cases if other.name != case.name]
        pool = [(tile, other) for other in others for tile in other.bags[0].features]
        kinds = []
        for tile in case.bags[0].features:

            def likeness(entry, tile=tile):
                return entry[0] @ tile / np.linalg.norm(entry[0]) / np.linalg.norm(tile)

            near = sorted(pool, key=likeness, reverse=True)[:4]
            kinds += [(o.label == case.label, o.site == case.site) for _, o in near]
        if counted:
            n_tiles = len(case.bags[0])
            agree.append(kinds.count((True, False)) / n_tiles)
            differ.append(kinds.count((False, True)) / n_tiles)
    found = robustness_index(cohort, neighbours=4)
    assert found.value == pytest.approx(sum(agree) / (sum(agree) + sum(differ)))
    assert found.n_cases == counts.sum()


def test_random_neighbours_are_those_of_features_without_any_order():
    cohorts = [
        made_sites(0, 0, n_sites=3, n_cases=18, n_tiles=6, spread=0, seed=s) for s in range(20)
    ]
    found = [robustness_index(cohort, neighbours=5) for cohort in cohorts]
    assert len({each.chance for each in found}) == 1
    # 5 of the 17 others have the same class at another site, in thirds of sites of 6 cases each.
    assert found[0].chance == pytest.approx(6 / (6 + 3))
    assert np.mean([each.value for each in found]) == pytest.approx(6 / 9, abs=0.03)


def test_limits_come_from_leaving_out_each_case_on_both_sides():
    rng = np.random.default_rng(3)
    agree, differ = rng.integers(0, 30, size=(2, 8, 8)).astype(float)
    for counts in (agree, differ):
        np.fill_diagonal(counts, 0)
    value, low, high = jackknife(agree, differ)
    logits = []
    for i in range(8):
        rest = np.delete(np.arange(8), i)
        inside = np.ix_(rest, rest)
        logits.append(np.log((agree[inside].sum() + 0.5) / (differ[inside].sum() + 0.5)))
    error = np.sqrt(7 / 8 * np.sum((logits - np.mean(logits)) ** 2))
    centre = np.log((agree.sum() + 0.5) / (differ.sum() + 0.5))
    expected = 1 / (1 + np.exp(-(centre + 2.364624 * error * np.array([-1, 1]))))
    np.testing.assert_allclose([low, high], expected, atol=1e-6)
    assert value == agree.sum() / (agree.sum() + differ.sum())


def test_limits_cover_the_expected_index():
    """Of 60 cohorts; a binomial of .95 has 52 or more with a probability of .99."""
    found = [
        robustness_index(made_sites(1, 1, n_tiles=6, spread=0.5, seed=s), neighbours=5)
        for s in range(60)
    ]
    expected = np.mean([each.value for each in found])
    assert sum(each.low <= expected <= each.high for each in found) >= 52


def test_sample_is_of_each_case_and_follows_the_seed():
    cohort = made_sites(1, 1, n_tiles=9)
    vectors, owner = sample_tiles(cohort.cases, 4, 0)
    assert np.bincount(owner).tolist() == [4] * 12
    features, manifest = tiles_of(cohort)
    places = [np.flatnonzero(np.isclose(features / np.linalg.norm(features, axis=1)[:, None], v).all(1))
              for v in vectors]  # fmt: skip
    assert [manifest["group_id"][int(p[0])] for p in places] == [
        cohort.cases[number].name for number in owner
    ]
    assert len({int(p[0]) for p in places}) == 48
    first, again, other = (robustness_index(cohort, tiles_per_case=4, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert first.n_tiles == 48


def with_sites(cohort, site_of):
    return replace(cohort, cases=tuple(replace(c, site=site_of(c)) for c in cohort.cases))


@pytest.mark.parametrize(
    ("site_of", "reason"),
    [
        (lambda _: "", "the table has no column site"),
        (lambda _: "A", "all cases are of one site"),
        (lambda case: case.label, "sites and classes are confounded"),
        (lambda case: case.name, "sites and classes are confounded"),
    ],
)
def test_where_there_is_nothing_to_compare_it_is_not_defined(site_of, reason):
    found = robustness_index(with_sites(made_sites(1, 1), site_of))
    assert (found.value, found.low, found.warning) == (None, None, "")
    assert reason in found.text
    assert found.text.startswith("not defined: ")


def test_cases_without_a_site_are_left_out():
    cohort = made_sites(2, 2)
    blank = with_sites(cohort, lambda case: "" if case.name > "case-07" else case.site)
    few = cohort_of(cohort.cases[:8])
    assert robustness_index(blank) == robustness_index(few)


def test_features_of_the_site_are_a_warning_and_those_of_the_class_are_none():
    for shifts, warned in (((0, 6), True), ((6, 0), False)):
        summary = Summary()
        found = robustness_index(made_sites(*shifts))
        _add_robustness(summary, found)
        assert summary.facts["robustness index"] == found.text
        assert bool(summary.warnings) == warned
    assert "jackknife over cases" in found.text
    assert "12 cases, 2 sites, 108 tiles" in found.text
