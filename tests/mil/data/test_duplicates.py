"""The same tissue under two cases is told; other tissue is not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from features.volumes.facts import VolumeFacts
from mil.data.case import Case
from mil.data.duplicates import lookalikes
from mil.errors import LeakageError, RunError
from mil.runs.external import check_second_scans
from tests.features.specimens import OTHER_STAIN, UM, saved, specimen, stained
from tests.features.specimens import SIDE as PICTURE_PX
from tests.mil.made import cohort_of, made_bag, made_cohort, planted_cohort

SIDE = 448  # level-0 pixels of a tile, at 0.25 micrometres per pixel


def tissue(seed, *, side=14, dim=16):
    """A field of features that changes smoothly over a slide, on a grid of half tiles."""
    rng = np.random.default_rng(seed)
    own = 0.3 * rng.normal(size=dim)  # what staining does to all its tiles
    coarse = rng.normal(size=(2 * side + 1, 2 * side + 1, dim))
    near = coarse + np.roll(coarse, 1, 0) + np.roll(coarse, 1, 1) + np.roll(coarse, (1, 1), (0, 1))
    return own + near / 2


def scan(name, field, *, left=0, top=0, width=None, step=2, scale=1.0, noise=0.0, seed=0, mpp=0.25):
    """A bag of a part of the field: moved by half tiles, cropped, of another scanner."""
    height, breadth = field.shape[:2]
    rows, columns = np.meshgrid(
        np.arange(top, height - 1, step),
        np.arange(left, (width or breadth) - 1, step),
        indexing="ij",
    )
    features = field[rows.ravel(), columns.ravel()]
    features = features + noise * np.random.default_rng(seed).normal(size=features.shape)
    side = SIDE * 0.25 / mpp
    at = np.stack([columns.ravel() - left, rows.ravel() - top], axis=1) * side / step
    return made_bag(
        name,
        (scale * features).astype(np.float32),
        coords_l0=np.rint(at).astype(np.int64),
        coverage=np.ones(len(features), np.float32),
        side_l0=(side, side),
        mpp_l0=(mpp, mpp),
    )


def cohort_with(*bags, others=6):
    cases = [
        Case(name=f"case-{bag.slide}", label="ab"[i % 2], bags=(bag,)) for i, bag in enumerate(bags)
    ]
    cases += [
        Case(name=f"other-{i}", label="ab"[i % 2], bags=(scan(f"o{i}", tissue(100 + i)),))
        for i in range(others)
    ]
    return cohort_of(cases)


@pytest.mark.parametrize(
    "again",
    [
        {},
        {"noise": 0.3, "seed": 1},  # saved again
        {"noise": 0.3, "seed": 1, "mpp": 0.5},  # on another scanner
        {"left": 6, "top": 4, "noise": 0.2},  # a crop
        {"width": 13},  # half of it
    ],
)
def test_a_second_scan_under_another_case_is_told(again):
    field = tissue(1)
    [pair] = lookalikes(cohort_with(scan("one", field), scan("two", field, **again))).pairs
    assert {pair.first, pair.second} == {("case-one", "one"), ("case-two", "two")}
    assert pair.matches > 0.7 * pair.compared
    assert "one patient" in str(pair)


def test_one_patients_own_slides_may_be_alike():
    field = tissue(1)
    cohort = cohort_with(scan("one", field))
    first = cohort.cases[0]
    both = replace(first, bags=(*first.bags, scan("two", field, noise=0.1)))
    assert lookalikes(replace(cohort, cases=(both, *cohort.cases[1:]))).pairs == ()


def test_other_tissue_raises_no_alarm():
    for seed in range(5):
        assert lookalikes(made_cohort((12, 12), n_tiles=60, seed=seed)).pairs == ()
        assert lookalikes(planted_cohort(seed=seed)[0]).pairs == ()
        fields = [scan(f"s{i}", tissue(1000 * seed + i), noise=0.1) for i in range(12)]
        assert lookalikes(cohort_with(*fields)).pairs == ()


def test_tiles_that_all_look_alike_or_lie_nowhere_prove_nothing():
    rng = np.random.default_rng(0)
    blank = [made_bag(f"b{i}", np.ones((50, 16), np.float32)) for i in range(4)]
    nowhere = [
        made_bag(f"n{i}", rng.normal(size=(50, 16)).astype(np.float32),
                 coords_l0=np.zeros((50, 2), np.int64)) for i in range(4)
    ]  # fmt: skip
    for bags in (blank, nowhere):
        assert lookalikes(cohort_with(*bags)).pairs == ()


def test_the_cohort_of_the_demo_raises_no_alarm(demo, mil):
    from mil.data.cohort import assemble
    from mil.data.table import read_table

    assert lookalikes(assemble(read_table(demo / "cohort.csv"), demo / "store")).pairs == ()


def bag_of(name, picture, **facts):
    file = b"" if picture is None else saved(np.ascontiguousarray(picture))
    size = 8 * PICTURE_PX  # the picture is an eighth of the slide
    return made_bag(name, thumbnail=file, size_l0=(size, size), mpp_l0=(UM / 8,) * 2, **facts)


def cohort_of_bags(*bags, duplicates=()):
    cases = [
        Case(name=f"case-{bag.slide}", label="ab"[n % 2], bags=(bag,)) for n, bag in enumerate(bags)
    ]
    return replace(cohort_of(cases), duplicates=duplicates)


def test_a_cohort_names_two_cases_with_one_specimen():
    others = [bag_of(f"o{n}", stained(specimen(300 + n))) for n in range(3)]
    pair = (
        bag_of("one", stained(specimen(1))),
        bag_of("two", stained(specimen(1), OTHER_STAIN)[:, ::-1]),
    )
    [alike] = lookalikes(cohort_of_bags(*pair, *others)).pairs
    assert {alike.first, alike.second} == {("case-one", "one"), ("case-two", "two")}
    assert "look like two scans of one specimen" in str(alike)
    assert "(mirrored). If they come from one patient, give them the same case" in str(alike)
    counted = cohort_of_bags(*pair, *others, duplicates=(("one", "two"),))
    assert lookalikes(counted).pairs == ()


def test_bags_without_a_picture_are_not_known():
    bags = [
        bag_of("one", stained(specimen(1))),
        bag_of("two", None),
        bag_of("three", stained(specimen(2))),
    ]
    alike = lookalikes(cohort_of_bags(*bags))
    assert alike.pairs == ()
    assert alike.unknown == ("two",)


def test_an_external_slide_that_shows_a_specimen_of_the_run_is_refused():
    trained = cohort_of_bags(bag_of("one", stained(specimen(1))), bag_of("o", stained(specimen(4))))
    again = bag_of("two", stained(specimen(1), OTHER_STAIN)[::-1])
    tested = cohort_of_bags(again, bag_of("three", stained(specimen(3))))
    run = SimpleNamespace(cohort=lambda: trained)
    with pytest.raises(
        LeakageError, match=r"^Slides one \(case case-one\) and two \(case case-two\) look"
    ):
        check_second_scans(run, tested, print)
    check_second_scans(run, cohort_of_bags(bag_of("three", stained(specimen(3)))), print)


def test_a_run_whose_slides_are_gone_cannot_be_compared():
    def gone():
        raise RunError("store: no such folder.")

    notes = []
    check_second_scans(
        SimpleNamespace(cohort=gone), cohort_of_bags(bag_of("a", None)), notes.append
    )
    assert notes == [
        "Not known whether these slides show specimens of the run's own slides: store: no such folder."
    ]


def series(name, sources):
    """A bag of twelve slices, from head to foot, of series with these voxels."""
    volume = VolumeFacts(
        channels=("CT",) * 3, tile_px=224, columns=4, pixel_mm=1.0, slice_mm=3.0,
        positions_mm=tuple((0.0, 0.0, 3.0 * z) for z in range(12)), coverage=(0.1,) * 12,
        direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1), scan={}, recipe={},
    )  # fmt: skip
    bag = scan(name, tissue(int(name[-1])), width=6)
    return replace(bag, volume=volume, source_sha256=name, merged_sources=sources)


def test_volumes_are_compared_by_their_voxels():
    """Slices of every patient lie head to foot and look alike; one series under two cases is named."""
    cases = [
        Case(name=f"c{i}", label="ab"[i % 2], bags=(series(f"v{i}", sources),))
        for i, sources in enumerate((("pixels-x",), ("pixels-y",), ("pixels-z", "pixels-x"), ()))
    ]
    [pair] = lookalikes(cohort_of(cases)).pairs
    assert str(pair).startswith("v0 (case c0) and v2 (case c2) show one series")
    assert not lookalikes(cohort_of(cases)).unknown
    together = [*cases[:2], replace(cases[2], name="c0"), cases[3]]
    assert not lookalikes(SimpleNamespace(cases=together, duplicates=())).pairs


@pytest.mark.parametrize(("changed", "named"), [(1, True), (20, True), (30, False)])
def test_a_series_with_changed_voxels_is_known_by_its_other_slices(changed, named):
    """All slices but one are equal where one voxel is another; two patients share black slices alone."""
    first, other, third = (series(f"v{i}", (f"pixels-{i}",)) for i in range(3))
    features = np.array(first.features)
    features[3 : 3 + changed] += 0.125
    black = np.array(third.features)
    black[2:40] = features[41]
    cases = [
        Case(name=f"c{i}", label="ab"[i % 2], bags=(bag,))
        for i, bag in enumerate(
            (first, replace(other, features=features), replace(third, features=black))
        )
    ]
    pairs = lookalikes(cohort_of(cases)).pairs
    assert [str(pair).partition(". ")[0] for pair in pairs] == [
        f"v0 (case c0) and v1 (case c1) show one series: {42 - changed} of 42 slices are equal"
    ] * named
