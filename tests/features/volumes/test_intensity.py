"""Scales of values come from one volume alone, and rigid registration says how far it may be off."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from features.errors import VolumeError
from features.volumes import intensity
from features.volumes.grid import resample
from features.volumes.intensity import (
    correct_bias,
    otsu_threshold,
    scale_min_max,
    scale_z,
    tissue,
    window,
)
from features.volumes.registration import apply_registration, register_rigid
from features.volumes.volume import Grid, Volume

RNG = np.random.default_rng(7)
GRID = Grid((16, 32, 32), (1.5, 1.5, 2.0), (-20.0, 10.0, 5.0), np.eye(3))


def made(values, modality="MR", **options):
    return Volume(
        np.asarray(values, np.float32), replace(GRID, shape=np.shape(values)), modality, **options
    )


def body():
    """Air round tissue of two kinds."""
    values = np.zeros(GRID.shape)
    values[2:-2, 6:-6, 6:-6] = 400
    values[5:-5, 12:20, 12:20] = 800
    return values + RNG.normal(0, 5, GRID.shape).clip(0)


def test_no_scale_takes_more_than_one_volume():
    for name in ("window", "scale_min_max", "scale_z", "correct_bias"):
        kinds = [
            p.annotation for p in inspect.signature(getattr(intensity, name)).parameters.values()
        ]
        assert sum("Volume" in str(kind) for kind in kinds) == 1


def test_otsu_splits_two_groups_in_the_gap_between_them():
    values = np.concatenate([RNG.normal(100, 8, 4000), RNG.normal(700, 30, 900)]).astype(np.float32)
    assert 140 < otsu_threshold(values) < 590
    best = max(np.linspace(1, 750, 600), key=lambda t: between(values, t))
    assert between(values, otsu_threshold(values)) == pytest.approx(between(values, best), rel=1e-3)


def between(values, threshold):
    """The variance between two groups, by its definition."""
    above = values > threshold
    if above.all() or not above.any():
        return 0.0
    return above.mean() * (1 - above.mean()) * (values[above].mean() - values[~above].mean()) ** 2


def test_z_scores_are_of_the_tissue():
    volume = made(body())
    scaled = scale_z(volume)
    inside = scaled.values[tissue(volume)]
    assert inside.mean() == pytest.approx(0, abs=1e-4)
    assert inside.std() == pytest.approx(1, abs=1e-4)
    more_air = made(np.pad(body(), ((0, 0), (20, 20), (20, 20))))
    assert scale_z(more_air).values[8, 36, 36] == pytest.approx(scaled.values[8, 16, 16], abs=0.2)
    region = np.zeros(GRID.shape, bool)
    region[6:9, 13:18, 13:18] = True
    assert scale_z(volume, region).values[region].mean() == pytest.approx(0, abs=1e-4)


def test_a_gain_and_an_offset_of_the_scanner_vanish():
    values = body()
    for scale in (scale_z, scale_min_max):
        one, other = scale(made(values)), scale(made(3.7 * values))
        assert np.allclose(one.values, other.values, atol=1e-4)


def test_min_max_and_its_quantiles():
    values = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    assert scale_min_max(made(values)).values.min() == 0
    assert scale_min_max(made(values)).values.max() == 1
    values[0, 0, 0] = 1e6  # one outlier, as a metal clip
    assert scale_min_max(made(values)).values.ravel()[999] < 0.01
    robust = scale_min_max(made(values), 0.01, 0.99)
    assert robust.values.ravel()[500] == pytest.approx(0.5, abs=0.02)
    assert (robust.values.min(), robust.values.max()) == (0, 1)


def test_a_window_clips():
    values = np.array([[[-1024, -160, 40, 240, 3000]]], np.float32)
    assert np.allclose(window(made(values, "CT"), -160, 240).values, [[[0, 0, 0.5, 1, 1]]])


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (lambda volume: window(volume, 40, 40), "its lower limit must be below its upper limit"),
        (lambda volume: scale_min_max(volume, 0.9, 0.1), "not in order"),
        (lambda volume: scale_min_max(volume, 0, 1.5), "not in order"),
        (scale_min_max, "All values are 7: there is nothing to scale. Check that the series"),
        (
            lambda volume: scale_min_max(volume.with_values(spikes(volume.values, 1)), 0.1, 0.9),
            "is 7 from quantile 0.1 to 0.9: there is nothing to scale. Take wider quantiles",
        ),
        (scale_z, "All values of the volume are 7"),
        (lambda volume: scale_z(volume, np.ones((4, 4, 4), bool)), "have one value"),
        (lambda volume: correct_bias(replace(volume, modality="CT")), "CT has none"),
        (
            lambda volume: correct_bias(volume.with_values(volume.values - 20)),
            "lowest value is -13",
        ),
    ],
)
def test_scales_that_cannot_be_say_why(scale, words):
    with pytest.raises(VolumeError, match=words):
        scale(made(np.full((4, 4, 4), 7.0)))


def spikes(values, count, height=1e5):
    """Values with a few far above all others."""
    out = values.copy()
    out.ravel()[11 : 11 + 3 * count : 3] = height
    return out


@pytest.mark.parametrize("count", [1, 7])
def test_n4_refuses_to_take_a_few_spikes_for_the_tissue(count):
    values = spikes(body(), count)
    with pytest.raises(VolumeError, match=f"{count} of {values.size} voxels are above Otsu's"):
        correct_bias(made(values))


def test_n4_evens_a_field_that_was_put_on():
    shape = GRID.shape
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    gain = np.exp(0.5 * x + 0.3 * y * z)
    volume = made(body() * gain)
    corrected = correct_bias(volume)
    kind = np.zeros(shape, bool)
    kind[4:-4, 7:11, 7:-7] = True  # of one tissue
    spread = [one.values[kind].std() / one.values[kind].mean() for one in (volume, corrected)]
    assert spread[1] < 0.4 * spread[0]
    assert corrected.notes == ("bias field corrected (N4)",)
    assert np.array_equal(correct_bias(volume).values, corrected.values)


def blobs():
    rng = np.random.default_rng(11)
    values = ndimage.gaussian_filter(rng.normal(size=(24, 48, 48)), 3)
    return (values - values.min()) / np.ptp(values) * 1000


def test_a_known_turn_and_shift_is_undone():
    grid = Grid((24, 48, 48), (1.5, 1.5, 2.0), (-36.0, -36.0, -24.0), np.eye(3))
    fixed = Volume(blobs().astype(np.float32), grid, "MR", "1.2")
    angle = np.radians(4.0)
    true = np.eye(4)
    true[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    true[:3, 3] = (2.5, -1.5, 1.0)
    moving = resample(fixed, grid, moved=np.linalg.inv(true))
    moving = replace(
        moving.with_values(1000 - moving.values), frame_of_reference="1.3", modality="CT"
    )
    registration = register_rigid(fixed, moving)
    places = grid.to_mm(np.array([[6, 6, 6], [40, 10, 12], [24, 24, 12], [12, 40, 18.0]]))
    there = [places @ matrix[:3, :3].T + matrix[:3, 3] for matrix in (registration.matrix, true)]
    assert np.linalg.norm(there[0] - there[1], axis=1).max() < 1.0
    assert registration.residual_mm < 1.0
    placed = apply_registration(registration, moving, fixed)
    assert placed.frame_of_reference == "1.2"
    assert "both directions agree to 0." in placed.notes[-1]
    assert "no measure of the error" in placed.notes[-1]
    inner = (slice(6, -6), slice(12, -12), slice(12, -12))
    assert np.corrcoef(placed.values[inner].ravel(), fixed.values[inner].ravel())[0, 1] < -0.9


def test_a_registration_that_is_off_is_refused_with_its_mm():
    grid = Grid((16, 24, 24), (1.5, 1.5, 2.0), (-18.0, -18.0, -16.0), np.eye(3))
    noise = [
        Volume(RNG.normal(size=grid.shape).astype(np.float32), grid, m, f"1.{m}")
        for m in ("MR", "PT")
    ]
    with pytest.raises(VolumeError, match=r"PT to MR and its inverse differ by \d+\.\d\d mm"):
        register_rigid(*noise, max_residual_mm=0.01)


@pytest.mark.parametrize(("shift_mm", "stays"), [(0.0, True), (18.0, False)])
@pytest.mark.parametrize("frame", ["", "1.2"])
def test_a_volume_that_lies_right_stays_where_its_file_places_it(shift_mm, stays, frame):
    """Where a file names no frame of reference, as NIfTI; two frames that differ say nothing of places."""
    grid = Grid((24, 48, 48), (1.5, 1.5, 2.0), (-36.0, -36.0, -24.0), np.eye(3))
    fixed = Volume(blobs().astype(np.float32), grid, "MR", frame)
    noise = np.random.default_rng(2).normal(0, 60, grid.shape)
    other = replace(grid, origin_mm=(-36.0 + shift_mm, -36.0, -24.0))
    moving = Volume((1000 - fixed.values + noise).astype(np.float32), other, "PT", "")
    registration = register_rigid(fixed, moving)
    assert registration.is_identity == stays
    placed = apply_registration(registration, moving, fixed)
    if stays:
        assert np.array_equal(registration.matrix, np.eye(4))
        assert placed.notes[-1].startswith(
            "left where its file places it: registration would move it by "
        )
    else:
        assert registration.moved_mm == pytest.approx(shift_mm, abs=1)
    named = replace(moving, frame_of_reference="1.9")
    assert not register_rigid(replace(fixed, frame_of_reference="1.2"), named).is_identity
