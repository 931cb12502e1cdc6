"""A specimen that was scanned twice is recognised whatever changed; other specimens are not."""

from dataclasses import replace

import numpy as np
import pytest

from features.extraction import check
from features.extraction.check import Workload, summarise_checks
from features.extraction.jobs import SlideJob
from features.extraction.slide_check import ScaleCheck, SlideCheck
from features.recipe import Recipe
from features.slides.second_scans import SecondScan, find_second_scans, is_comparable
from features.slides.structure import scale_of
from features.summary import Summary
from tests.features.specimens import (
    OTHER_STAIN,
    SIDE,
    UM,
    blurred,
    moved,
    opened,
    saved,
    scaled,
    specimen,
    stained,
    structure,
    tilted,
)

OTHER = stained(specimen(100))
OTHERS = [structure(stained(specimen(100 + n))) for n in range(6)]
AMOUNTS = specimen(1)
ORIGINAL = stained(AMOUNTS)
FIRST = structure(ORIGINAL)
CHANGES = {
    "as it is": ORIGINAL,
    "other stain": stained(AMOUNTS, OTHER_STAIN),
    "half the eosin": stained(AMOUNTS * [[[1.0]], [[0.5]]]),
    "moved": moved(ORIGINAL, 23, 14),
    "turned by 270": np.rot90(ORIGINAL, 3),
    "mirrored": ORIGINAL[:, ::-1],
    "larger": scaled(ORIGINAL, 1.02),
    "tilted": tilted(ORIGINAL, 2.5),
    "blurred": blurred(ORIGINAL, 2),
    "saved at 25": opened(saved(ORIGINAL, 25)),
    "cut in half": ORIGINAL[:, : SIDE // 2],
    "all": np.rot90(
        opened(saved(blurred(scaled(moved(stained(AMOUNTS, OTHER_STAIN), 9, 17), 0.97), 1), 30))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_second_scan_is_recognised_among_other_slides(change):
    scans = [FIRST, *OTHERS, structure(np.ascontiguousarray(CHANGES[change]))]
    [pair] = find_second_scans(scans, range(len(scans)))
    assert (pair.first, pair.second) == (0, 7)
    assert pair.matches > 0.8 * pair.compared
    assert pair.chance < 1e-6


@pytest.mark.parametrize(
    ("change", "turn", "mirrored", "scale", "shift"),
    [
        ("as it is", 0, False, 1, (0, 0)),
        ("moved", 0, False, 1, (23, 14)),
        ("turned by 270", 90, False, 1, (0, 0)),
        ("mirrored", 0, True, 1, (0, 0)),
        ("larger", 0, False, 1.02, (0, 0)),
        ("tilted", -2.5, False, 1, (0, 0)),
        ("all", -90, False, 0.97, (9, 17)),
    ],
)
def test_how_the_second_scan_lies_is_known(change, turn, mirrored, scale, shift):
    both = [FIRST, structure(np.ascontiguousarray(CHANGES[change]))]
    [pair] = find_second_scans(both, "ab")
    assert abs((pair.turn - turn + 180) % 360 - 180) < 0.5
    assert pair.mirrored == mirrored
    assert pair.scale == pytest.approx(scale, abs=0.006)
    assert pair.shift_um == pytest.approx(np.multiply(shift, UM), abs=1.5 * UM)


def test_a_mirrored_and_turned_scan_at_another_scale_of_the_scanner():
    both = [FIRST, structure(scaled(np.rot90(ORIGINAL)[:, ::-1], 0.5), 2 * UM)]
    for scans in (both, both[::-1]):
        [pair] = find_second_scans(scans, "ab")
        assert (pair.first, pair.second) == (0, 1)
        assert pair.mirrored
        assert round(pair.turn) == 90
        assert pair.scale == pytest.approx(1, abs=0.006)


def test_other_specimens_of_one_shape_are_not_taken_for_one():
    scans = [structure(stained(specimen(200 + n))) for n in range(12)]
    assert find_second_scans(scans, range(12)) == []


def test_tissue_without_structure_proves_nothing():
    rng = np.random.default_rng(0)
    scans = []
    for _ in range(6):  # noise, and the blocks of 8 pixels that compression leaves
        amounts = np.zeros((2, SIDE, SIDE))
        amounts[:, 30:290, 30:290] = rng.normal(0.3, 0.004, (2, 260, 260))
        scans.append(structure(opened(saved(stained(amounts), 85))))
    assert find_second_scans(scans, range(6)) == []


def test_slides_of_one_group_are_not_compared():
    both = [FIRST, structure(CHANGES["moved"])]
    assert find_second_scans(both, ["case", "case"]) == []


def test_slides_without_tissue_or_with_too_little_of_it_are_not_comparable():
    glass = np.full((SIDE, SIDE, 3), 243, np.uint8)
    small = glass.copy()
    small[140:180, 140:190] = ORIGINAL[140:180, 140:190]
    assert structure(glass) is None
    assert not is_comparable(None)
    assert not is_comparable(structure(small))
    assert is_comparable(FIRST)
    assert find_second_scans([None, structure(small), structure(small)], "abc") == []


def test_a_structure_is_small_and_on_the_ladder():
    for um in (0.7, 5, 31):
        made = structure(ORIGINAL, um)
        assert made.um_per_px == scale_of(made.step) >= um / 2**0.25
        assert max(made.grey.shape) <= 257
        assert made.grey.dtype == made.tissue.dtype == np.uint8


def checked(slide, picture, case="", identity=()):
    return SlideCheck(
        slide=slide,
        case=case,
        scales=(ScaleCheck(mpp=0.5, status="ready"),),
        identity=identity or (slide,),
        structure=None if picture is None else structure(np.ascontiguousarray(picture)),
    )


def summary_of(tmp_path, *checks):
    jobs = [SlideJob(slide=c.slide, files=(tmp_path / c.slide,)) for c in checks]
    return summarise_checks(jobs, checks, Workload(Recipe(), tmp_path, 1.0))


def test_a_check_names_second_scans_with_the_remedy(tmp_path):
    first = checked("one", ORIGINAL, "P1")
    again = checked("two", CHANGES["turned by 270"], "P2")
    [warning] = summary_of(tmp_path, first, again).warnings
    assert warning.startswith(
        "one (case P1) and two (case P2) look like two scans of one specimen: "
    )
    assert (
        "same arrangement (turned by 90°). If it is one patient's, give both the same case"
        in warning
    )
    for silent in (replace(again, case="P1"), replace(again, identity=first.identity)):
        warnings = summary_of(tmp_path, first, silent).warnings
        assert not any("two scans" in text for text in warnings)


def test_a_check_says_which_slides_it_could_not_compare(tmp_path):
    facts = summary_of(tmp_path, checked("one", ORIGINAL), checked("bad", None)).facts
    assert facts["second scans"].startswith("not known for 1 of 2 slides")
    assert facts["second scans"].endswith(": bad")
    facts = summary_of(tmp_path, checked("one", ORIGINAL), checked("two", OTHER)).facts
    assert "second scans" not in facts


def test_pairs_of_one_specimen_are_one_remark(monkeypatch):
    """Four scans of one specimen are six pairs, and another specimen is seen twice."""
    pairs = [(0, 1), (0, 2), (1, 2), (2, 3), (4, 5)]
    scan = SecondScan(
        first=0, second=0, turn=0, mirrored=False, scale=1, shift_um=(0, 0), um_per_px=8, matches=9,
        compared=9, chance=0,
    )  # fmt: skip
    scans = [replace(scan, first=first, second=second) for first, second in pairs]
    monkeypatch.setattr(check, "find_second_scans", lambda *_: scans)
    checks = [
        SlideCheck(slide=f"s{n}", case=f"c{n}", scales=(), identity=(str(n),)) for n in range(6)
    ]
    summary = Summary()
    check._summarise_second_scans(summary, checks)
    many, two = summary.warnings
    assert many.startswith(
        "4 slides look like scans of one specimen, in 4 pairs: s0 (case c0), s1 (case c1), s2 (case c2)"
    )
    assert many.endswith(
        "give all the same case: else a model is tested on what it was trained on."
    )
    assert two.startswith(
        "s4 (case c4) and s5 (case c5) look like two scans of one specimen: 9 of 9"
    )
