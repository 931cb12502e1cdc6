"""Whether a slide is like those a model was trained on."""

from dataclasses import replace

import numpy as np
import pytest

from features.reference import MIN_GROUPS, Reference
from mil.errors import RunError
from mil.likeness.reference import (
    SlideReference,
    count_directions,
    describe,
    load_reference,
    save_reference,
)
from tests.mil.made import made_bag

DIM = 40


def tissue(rng, n=30, *, shift=0.0):
    """Features as of tissue: a few directions, and a level of the slide's own."""
    basis = np.random.default_rng(7).normal(size=(6, DIM))
    level = rng.normal(size=6) * 0.5
    rows = (rng.normal(size=(n, 6)) + level) @ basis + 0.05 * rng.normal(size=(n, DIM)) + shift
    return rows.astype(np.float32)


def bags_of(rng, count, **given):
    return [made_bag(f"s{i}", tissue(rng, **given)) for i in range(count)]


def reference_of(bags):
    return SlideReference.of_bags(bags, [f"case of {bag.slide}" for bag in bags])


def test_the_nearest_known_slide_by_hand():
    known = np.array([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0], [10.0, 0.0]], np.float32)
    reference = Reference(known, ("a", "b", "c", "d"))
    spread = np.array([known[:, 0].std(ddof=1), 1e-12])  # the second is floored by half the median
    spread[1] = max(0.5 * np.median([spread[0], 0.0]), 1e-12)
    expected = np.sqrt(np.mean((np.array([16.0, 2.0]) - [10.0, 0.0]) ** 2 / spread**2))
    others = known[:3, 0]
    oddest = np.sqrt(0.5) * 6.0 / others.std(ddof=1)  # d, from c
    assert max(reference.distances) == pytest.approx(oddest, rel=1e-6)
    assert reference.ratio(np.array([16.0, 2.0])) == pytest.approx(expected / oddest, rel=1e-6)


def test_slides_of_one_case_are_not_each_others_neighbours():
    rng = np.random.default_rng(0)
    once = rng.normal(size=(6, 5)).astype(np.float32)
    twice = np.concatenate([once, once + 1e-3])
    names = tuple("abcdef")
    single, double = Reference(once, names), Reference(twice, names * 2)
    assert max(double.distances) == pytest.approx(max(single.distances), rel=0.1)
    assert double.ratio(once[0], ["a"]) > 0.2
    assert double.ratio(once[0]) == pytest.approx(0, abs=1e-6)


def test_few_slides_tell_nothing():
    vectors = np.random.default_rng(0).normal(size=(MIN_GROUPS - 1, 5)).astype(np.float32)
    assert np.isnan(Reference(vectors, tuple("abc")).ratio(vectors[0]))


def test_of_slides_like_the_known_ones_one_in_n_plus_1_is_odder_than_all():
    n, draws = 15, 400
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(draws):
        vectors = rng.normal(size=(n + 1, 12)).astype(np.float32)
        names = tuple(map(str, range(n)))
        ratios.append(Reference(vectors[:n], names).ratio(vectors[n]))
    share = np.mean(np.array(ratios) > 1)
    assert 0.02 < share < 0.11  # 1/16, within four standard errors
    assert np.mean(np.array(ratios) > 1.5) < 0.01


def test_the_descriptor_is_the_mean_and_the_spread_whatever_the_size_of_the_features():
    features = tissue(np.random.default_rng(1), 5000) + 1e4
    both = describe(made_bag("a", features))
    assert both[:DIM] == pytest.approx(features.astype(np.float64).mean(axis=0), rel=1e-6)
    assert both[DIM:] == pytest.approx(features.astype(np.float64).std(axis=0), rel=1e-3)


def test_directions_are_counted():
    rng = np.random.default_rng(2)
    many = rng.normal(size=(2000, 12)).astype(np.float32)
    assert count_directions(made_bag("a", many)) == pytest.approx(12, abs=1)
    plane = (rng.normal(size=(2000, 2)) @ np.linalg.qr(rng.normal(size=(12, 2)))[0].T).astype(
        np.float32
    )
    assert count_directions(made_bag("a", plane)) == pytest.approx(2, abs=0.2)
    assert np.isnan(count_directions(made_bag("a", many[:5])))
    assert np.isnan(count_directions(made_bag("a", np.ones((20, 12), np.float32))))


def test_a_slide_like_the_others_passes_and_others_do_not():
    rng = np.random.default_rng(4)
    reference = reference_of(bags_of(rng, 16))
    fine = reference.compare(made_bag("new", tissue(rng)))
    assert (fine.abstains, fine.unfit) == ("", "")
    foreign = reference.compare(made_bag("new", tissue(rng, shift=20.0)))
    assert foreign.ratio > 1.5
    assert "unlike the training slides" in foreign.abstains
    few = reference.compare(made_bag("new", tissue(rng, 12)))
    assert "too few tiles: 12, where the smallest training slide has 30" in few.abstains
    assert (
        "too few"
        not in reference.compare(made_bag("n", tissue(rng, 12)), same_region=False).abstains
    )


def test_noise_with_the_mean_and_the_spread_of_tissue_is_no_tissue():
    rng = np.random.default_rng(5)
    bags = bags_of(rng, 16, n=60)
    everything = np.concatenate([bag.features for bag in bags])
    noise = rng.normal(everything.mean(axis=0), everything.std(axis=0), (60, DIM))
    likeness = reference_of(bags).compare(made_bag("noise", noise.astype(np.float32)))
    assert "no features of such tissue" in likeness.abstains


def test_tiles_with_flags_and_little_tumour_are_noted():
    rng = np.random.default_rng(6)
    bags = [replace(bag, tumour_of_tissue=0.3 + 0.02 * i) for i, bag in enumerate(bags_of(rng, 8))]
    blurred = np.where(np.arange(30) < 12, 2, 0).astype(np.uint8)
    new = replace(made_bag("new", tissue(rng)), tile_flags=blurred, tumour_of_tissue=0.05)
    notes = " ".join(reference_of(bags).compare(new).notes)
    assert "40% of its tiles are blurred; at most 0% of a training slide's" in notes
    assert "tumour is 5% of its tissue, where it is 30% to 44% in training slides" in notes


def test_the_reference_comes_back_from_its_file(tmp_path):
    reference = reference_of(bags_of(np.random.default_rng(8), 6))
    save_reference(tmp_path / "r.safetensors", reference)
    again = load_reference(tmp_path / "r.safetensors")
    assert again.names == reference.names
    for name, array in reference.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    (tmp_path / "r.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match="not a reference of training slides"):
        load_reference(tmp_path / "r.safetensors")
