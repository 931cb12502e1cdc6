"""Overlap and distances of masks against SimpleITK, and what is not defined."""

import math

import numpy as np
import pytest
from scipy import ndimage

from features.volumes.surfaces import dice, hausdorff95_mm, hausdorff_mm

import SimpleITK as sitk  # isort: skip

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.9, 3.3), (2.5, 0.4, 1.1)]


def image(mask, spacing):
    made = sitk.GetImageFromArray(mask.astype(np.uint8))
    made.SetSpacing(spacing)
    return made


def random_masks(seed):
    """Two masks of blobs, or of single voxels, on a grid of unequal sides."""
    rng = np.random.default_rng(seed)
    noise = [rng.normal(size=(9, 14, 11)) for _ in range(2)]
    smooth = [ndimage.gaussian_filter(n, 1.5) if seed % 2 else n for n in noise]
    return [s > np.quantile(s, q) for s, q in zip(smooth, rng.uniform(0.6, 0.95, 2), strict=True)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(6))
def test_dice_and_hausdorff_are_those_of_simpleitk(seed, spacing):
    first, second = random_masks(seed)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(image(first, spacing), image(second, spacing))
    assert dice(first, second) == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-12)
    distance = sitk.HausdorffDistanceImageFilter()  # of sets: here of the surfaces
    distance.Execute(
        *(sitk.LabelContour(image(np.pad(m, 1), spacing), False) for m in (first, second))
    )
    assert hausdorff_mm(first, second, spacing) == pytest.approx(
        distance.GetHausdorffDistance(), rel=1e-5
    )


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_distance_of_separate_boxes_is_that_of_the_filled_boxes(spacing):
    """Where SimpleITK, which measures filled sets, means the same."""
    first, second = (np.zeros((12, 15, 13), bool) for _ in range(2))
    first[1:4, 2:6, 1:4], second[6:11, 7:14, 5:12] = True, True
    distance = sitk.HausdorffDistanceImageFilter()
    distance.Execute(image(first, spacing), image(second, spacing))
    assert hausdorff_mm(first, second, spacing) == pytest.approx(
        distance.GetHausdorffDistance(), rel=1e-5
    )


@pytest.mark.parametrize("seed", range(40))
def test_95_percent_of_surfaces_are_never_further_apart_than_all(seed):
    """Nested masks and holes included, which a distance of filled sets does not see."""
    rng = np.random.default_rng(seed)
    first, second = random_masks(seed)
    if seed % 3 == 0:
        second = ndimage.binary_dilation(first, iterations=2)
    if seed % 4 == 0:
        second = second & ~ndimage.binary_erosion(second)
    spacing = rng.uniform(0.3, 5, 3)
    assert hausdorff95_mm(first, second, spacing) <= hausdorff_mm(first, second, spacing) + 1e-9


def test_a_hole_that_one_mask_lacks_is_as_far_as_its_wall_from_the_surface():
    full = np.zeros((11, 11, 11), bool)
    full[1:10, 1:10, 1:10] = True
    hollow = full.copy()
    hollow[4:7, 4:7, 4:7] = False
    assert hausdorff_mm(full, hollow, (1, 1, 1)) == 2
    assert hausdorff95_mm(full, hollow, (1, 1, 1)) <= 2


def surface_distances(first, second, spacing):
    """Of every voxel of the first surface to the second surface, by SimpleITK."""
    one, other = (sitk.LabelContour(image(np.pad(m, 1), spacing), False) for m in (first, second))
    away = sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True)
    values = np.maximum(sitk.GetArrayFromImage(away), 0)
    return values[sitk.GetArrayFromImage(one) > 0]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(6))
def test_the_95_percent_distance_is_that_of_simpleitks_surfaces(seed, spacing):
    first, second = random_masks(seed)
    ways = [surface_distances(first, second, spacing), surface_distances(second, first, spacing)]
    expected = max(np.percentile(way, 95) for way in ways)
    assert hausdorff95_mm(first, second, spacing) == pytest.approx(expected, rel=1e-5)


def test_distances_are_millimetres_along_each_axis():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    for axis, step in enumerate((3.3, 0.9, 0.7)):  # of z, y and x
        other = np.roll(mask, 2, axis=axis)
        assert hausdorff_mm(mask, other, (0.7, 0.9, 3.3)) == pytest.approx(2 * step)
        assert hausdorff95_mm(mask, other, (0.7, 0.9, 3.3)) == pytest.approx(2 * step)


@pytest.mark.parametrize("measure", [hausdorff_mm, hausdorff95_mm])
def test_a_distance_to_nothing_is_undefined_and_not_0(measure):
    full, empty = np.ones((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    for pair in ((full, empty), (empty, full), (empty, empty)):
        assert math.isnan(measure(*pair, (1, 1, 1)))
    assert measure(full, full, (1, 1, 1)) == 0


def test_continuous_dice_is_dice_on_masks_and_counts_confidence():
    first, second = random_masks(1)
    assert dice(first.astype(np.float32), second) == dice(first, second)
    drawn = np.array([True, True, False, False])
    # 2 (1 + .5) / (1 + .5 + .25 + 2)
    assert dice(np.array([1, 0.5, 0.25, 0]), drawn) == pytest.approx(3 / 3.75)
    assert math.isnan(dice(np.zeros(3), np.zeros(3)))
    assert dice(np.zeros(4), drawn) == 0
