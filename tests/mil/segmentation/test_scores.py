"""Scores of a case against counts by hand; unknown cells count nowhere."""

import math

import numpy as np
import pytest

from mil.errors import CohortError
from mil.segmentation.evaluation import SegmentEvaluation, evaluation_tables, mean_interval
from mil.segmentation.folds import case_folds
from mil.segmentation.scores import MaskScores, boundary_distances, score_case
from mil.segmentation.targets import Target


def target(tumour, known=None, tissue=None, full=True):
    tumour = np.asarray(tumour, np.float32)
    everywhere = np.ones(tumour.shape, bool)
    return Target(
        tumour,
        everywhere if known is None else np.asarray(known, bool),
        everywhere if tissue is None else np.asarray(tissue, bool),
        full,
    )


def test_scores_are_those_of_the_counts_over_all_slides_of_a_case():
    tumour = [[1, 1, 1, 0], [0.6, 0.4, 0, 0]]
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)
    scores = score_case("a", "m", [mask, mask[:, ::-1]], [target(tumour), target(tumour)])
    # First slide: 3 hits, 1 missed, 1 false, 3 clear; second, mirrored: 2 hits, 2 missed, 2 false, 2 clear.
    assert scores.dice == pytest.approx(2 * 5 / (2 * 5 + 3 + 3))
    assert scores.iou == pytest.approx(5 / 11)
    assert scores.sensitivity == pytest.approx(5 / 8)
    assert scores.specificity == pytest.approx(5 / 8)
    assert scores.false_mm2 == pytest.approx(3 * 400e-6)


def test_masks_on_unknown_cells_and_glass_change_nothing():
    rng = np.random.default_rng(0)
    tumour, known = rng.random((12, 12)) > 0.5, rng.random((12, 12)) > 0.3
    tissue = np.ones((12, 12), bool)
    tissue[:, :3] = False
    known[:, :3] &= ~tumour[:, :3]
    mask = rng.random((12, 12)) > 0.4
    first = score_case("a", "m", [mask & tissue], [target(tumour, known, tissue)])
    other = np.where(known, mask & tissue, rng.random((12, 12)) > 0.5)
    second = score_case("a", "m", [other], [target(tumour, known, tissue)])
    assert first == second


def test_a_case_without_tumour_has_no_dice():
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    scores = score_case("a", "m", [mask], [target(np.zeros((4, 4)))])
    assert math.isnan(scores.dice)
    assert math.isnan(scores.sensitivity)
    assert math.isnan(scores.boundary_um)
    assert scores.specificity == 0.75
    assert scores.false_mm2 == pytest.approx(4 * 400e-6)


def test_what_is_annotated_in_part_without_anything_else_has_sensitivity_only():
    tumour = np.eye(4)
    scores = score_case("a", "m", [np.ones((4, 4), bool)], [target(tumour, tumour > 0, full=False)])
    assert math.isnan(scores.dice)
    assert scores.sensitivity == 1.0


def test_the_distance_of_outlines_is_that_of_a_shift():
    first, second = np.zeros((2, 30, 30), bool)
    first[5:20, 5:20] = True
    second[5:20, 9:24] = True
    distances = boundary_distances(first, second)
    assert distances.max() == 4 * 20
    assert boundary_distances(first, first).max() == 0
    assert not boundary_distances(first, np.zeros_like(first)).size


def scores_of(dices, method, full=True):
    return [
        MaskScores(case=f"c{i}", method=method, full=full, dice=dice, iou=dice, sensitivity=dice,
                   specificity=0.9, boundary_um=20.0, false_mm2=0.0)
        for i, dice in enumerate(dices)
    ]  # fmt: skip


def test_paired_differences_are_by_case_and_a_segmenter_like_colour_is_called_so():
    good, colour = [0.9, 0.92, 0.94, math.nan], [0.7, 0.75, 0.8, math.nan]
    scores = [
        *scores_of(good, "map"),
        *scores_of(colour, "colour only"),
        *scores_of([0.6] * 3 + [math.nan], "tissue only"),
    ]
    evaluation = SegmentEvaluation(scores, "map")
    pair = evaluation.paired("map", "colour only")
    gains = np.array([0.2, 0.17, 0.14])
    assert pair.mean == pytest.approx(gains.mean())
    assert (pair.better, pair.cases) == (3, 3)
    assert pair.high - pair.mean == pytest.approx(4.303 * gains.std(ddof=1) / 3**0.5, rel=1e-3)
    assert pair.p == 0.25  # 2 of 8 sign flips
    assert evaluation.beats_colour
    assert evaluation.worst("map").case == "c0"
    text = str(evaluation_tables(evaluation))
    assert "Without tumour: 1 case;" in text
    assert "finds more than colour alone" in text
    same = SegmentEvaluation([*scores_of(colour, "map"), *scores[4:]], "map")
    assert "no better than colour alone" in str(evaluation_tables(same))


def test_cases_in_part_are_judged_only_where_no_other_is():
    some = [*scores_of([0.9, 0.8], "map"), *scores_of([0.1, 0.1, 0.1], "map", full=False)[2:]]
    assert [s.dice for s in SegmentEvaluation(some, "map").judged("map")] == [0.9, 0.8]
    partly = scores_of([0.9, 0.8], "map", full=False)
    assert len(SegmentEvaluation(partly, "map").judged("map")) == 2


def test_the_interval_of_a_mean_dice_covers_it_in_95_percent():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        estimate = mean_interval(rng.beta(18, 2, 16))
        inside += estimate.low < 0.9 < estimate.high
    assert 0.92 < inside / 400 < 0.98
    assert mean_interval(np.ones(4)).low is None


def test_folds_hold_whole_cases_and_spread_those_without_tumour():
    drawn = {f"case-{i}": i > 3 for i in range(14)}
    folds = case_folds(drawn, 4, 0)
    assert sorted(name for fold in folds for name in fold.test) == sorted(drawn)
    assert all(not set(fold.test) & set(fold.train) for fold in folds)
    assert max(sum(not drawn[n] for n in fold.test) for fold in folds) <= 2
    assert folds == case_folds(drawn, 4, 0)
    assert folds != case_folds(drawn, 4, 1)
    assert len(case_folds({"a": True, "b": True, "c": False}, 5, 0)) == 2
    with pytest.raises(CohortError, match="takes two at least"):
        case_folds({"a": True, "b": False}, 5, 0)
