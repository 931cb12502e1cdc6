"""The cells of a film show the region's slices of every modality, at one scale and place."""

from dataclasses import replace

import numpy as np
import pytest
from patients import ball

from features.errors import InputError, VolumeError
from features.volumes.cells import make_cells, voxels_sha256
from features.volumes.contours import Mask
from features.volumes.recipe import VolumeRecipe
from features.volumes.volume import Grid, Volume

SHAPE, SPACING = (14, 48, 40), (1.0, 1.0, 3.0)
GRID = Grid(SHAPE, SPACING, (-20.0, -30.0, 100.0), np.eye(3))
INSIDE = ball(SHAPE, (20.0, 24.0, 21.0), 9.0, SPACING)
MASK = Mask(INSIDE, GRID, "GTV")


def volume(values, modality="MR", grid=GRID, frame="1.2"):
    return Volume(values.astype(np.float32), grid, modality, frame)


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    return {
        name: volume(rng.normal(100, 5, SHAPE) + step * INSIDE)
        for name, step in (("A", 60), ("B", 40), ("C", 20))
    }


def recipe(**settings):
    return VolumeRecipe(**{"channels": ("A", "B", "C"), "pixel_mm": 1.0, "tile": 32} | settings)


def test_slices_of_the_region_are_taken_with_their_place_and_share(volumes):
    cells = make_cells(volumes, MASK, recipe())
    z = np.flatnonzero(INSIDE.any(axis=(1, 2)))
    assert [place[2] for place in cells.facts.positions_mm] == [100 + 3.0 * i for i in z]
    assert np.array_equal(cells.inside.sum(axis=(1, 2)), INSIDE[z].sum(axis=(1, 2)))
    assert np.allclose(cells.facts.coverage, INSIDE[z].sum(axis=(1, 2)) / 32**2)
    assert cells.facts.tumour_ml == pytest.approx(INSIDE.sum() * 3 / 1000)
    assert (cells.facts.pixel_mm, cells.facts.slice_mm) == (1.0, 3.0)
    # The middle of the 32 px of a cell lies between voxels, half a pixel beside the ball's centre.
    assert cells.facts.positions_mm[0][:2] == pytest.approx((0.0, -6.0), abs=0.5)


def test_every_channel_shows_its_modality_from_its_lowest_to_its_highest_value(volumes):
    cells = make_cells(volumes, MASK, recipe(margin_mm=0.0))
    box = make_cells(volumes, MASK, recipe(margin_mm=0.0)).pixels
    z = np.flatnonzero(INSIDE.any(axis=(1, 2)))
    ys, xs = (np.flatnonzero(INSIDE.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    for channel, name in enumerate("ABC"):
        own = volumes[name].values[z][:, ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        expected = np.rint(255 * (own - own.min()) / (own.max() - own.min()))
        shown = box[..., channel]
        rows, columns = (np.flatnonzero((shown > 0).any(axis=axes)) for axes in ((0, 2), (0, 1)))
        inner = shown[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inner.shape == own.shape
        assert np.abs(inner.astype(int) - expected).max() <= 1
    assert cells.facts.channels == ("A", "B", "C")


@pytest.mark.parametrize(
    ("slices", "expected"),
    [("region", (4, 11)), ("margin", (2, 13)), ("largest", (7, 8)), ("all", (0, 14))],
)
def test_slices_are_chosen(volumes, slices, expected):
    positions = make_cells(volumes, MASK, recipe(slices=slices, margin_mm=6.0)).facts.positions_mm
    assert [round((place[2] - 100) / 3) for place in positions] == list(range(*expected))


def test_masked_shows_the_region_alone_and_whole_all_of_the_slice(volumes):
    masked = make_cells(volumes, MASK, recipe(show="masked"))
    assert (masked.pixels[~masked.inside] == 0).all()
    assert (masked.pixels[masked.inside] > 0).mean() > 0.99
    whole = make_cells(volumes, MASK, recipe(show="whole", tile=48))
    assert ((whole.pixels > 0).any(axis=(0, 3))).sum() == 48 * 40


def test_fitting_makes_tumours_of_all_sizes_as_wide(volumes):
    widths = []
    for radius in (6.0, 12.0):
        inside = ball(SHAPE, (20.0, 24.0, 21.0), radius, SPACING)
        cells = make_cells(volumes, Mask(inside, GRID, "GTV"), recipe(pixel_mm=0.0, margin_mm=2.0))
        widths.append(cells.inside.any(axis=(0, 1)).sum())
        assert cells.facts.pixel_mm == pytest.approx((2 * radius + 1 + 4) / 32, rel=0.02)
    assert abs(widths[0] - widths[1]) <= 3


def test_neighbours_show_a_slice_between_the_ones_below_and_above(volumes):
    one = make_cells(volumes, MASK, recipe(channels=("A",), windows=("A=80:180",)))
    cells = make_cells(
        volumes, MASK, recipe(channels=("A",), neighbours=True, windows=("A=80:180",))
    )
    assert cells.facts.channels == ("A -1", "A 0", "A +1")
    assert cells.facts.positions_mm == one.facts.positions_mm
    assert np.array_equal(cells.pixels[..., 1], one.pixels[..., 0])
    assert np.array_equal(cells.pixels[1:, ..., 0], one.pixels[:-1, ..., 0])
    assert np.array_equal(cells.pixels[:-1, ..., 2], one.pixels[1:, ..., 0])


def test_one_modality_is_shown_three_times(volumes):
    pixels = make_cells(volumes, MASK, recipe(channels=("B",))).pixels
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_windows_are_fixed_and_z_scores_are_of_the_tissue(volumes):
    fixed = make_cells(volumes, MASK, recipe(windows=("A=100:160",), show="whole", tile=48))
    z = np.flatnonzero(INSIDE.any(axis=(1, 2)))
    expected = np.rint(255 * np.clip((volumes["A"].values[z] - 100) / 60, 0, 1))
    assert np.array_equal(
        np.sort(fixed.pixels[..., 0][:, :, 4:44].ravel()), np.sort(expected.ravel())
    )
    scored = make_cells(volumes, MASK, recipe(scaling="z-score", show="whole", tile=48))
    moved = {name: volume(3 * one.values - 70) for name, one in volumes.items()}
    again = make_cells(moved, MASK, recipe(scaling="z-score", show="whole", tile=48))
    assert np.abs(scored.pixels.astype(int) - again.pixels).max() <= 1


def test_gain_and_offset_of_a_scanner_do_not_show(volumes):
    moved = {name: volume(0.37 * one.values + 12) for name, one in volumes.items()}
    first, second = (make_cells(v, MASK, recipe()).pixels.astype(int) for v in (volumes, moved))
    assert np.abs(first - second).max() <= 1


def test_modalities_of_other_grids_are_shown_at_the_same_place(volumes):
    fine = Grid((28, 96, 80), (0.5, 0.5, 1.5), (-20.25, -30.25, 99.25), np.eye(3))
    bright = volume(
        100.0 * ball(fine.shape, (20.25, 24.25, 21.75), 9.0, fine.spacing_mm), grid=fine
    )
    cells = make_cells(volumes | {"B": bright}, MASK, recipe(windows=("B=0:100",)))
    lit = cells.pixels[..., 1] > 127
    both = (lit & cells.inside).sum()
    assert 2 * both / (lit.sum() + cells.inside.sum()) > 0.95


def test_another_frame_of_reference_is_refused(volumes):
    stranger = volume(volumes["B"].values, frame="1.3")
    with pytest.raises(VolumeError, match="different frames of reference"):
        make_cells(volumes | {"B": stranger}, MASK, recipe())


def test_a_region_wider_than_a_cell_is_said(volumes):
    assert not make_cells(volumes, MASK, recipe()).notes
    [note] = make_cells(volumes, MASK, recipe(pixel_mm=0.5)).notes
    assert note.startswith("the region is 19 mm wide and a slice shows 16 mm: set pixel_mm to 0.59")


def test_an_empty_region_is_refused(volumes):
    with pytest.raises(VolumeError, match="is empty"):
        make_cells(volumes, Mask(np.zeros_like(INSIDE), GRID, "GTV"), recipe())


def test_voxels_tell_a_series_not_its_name(volumes):
    assert voxels_sha256(volumes["A"]) == voxels_sha256(volume(volumes["A"].values, "CT"))
    assert voxels_sha256(volumes["A"]) != voxels_sha256(volumes["B"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"channels": ("A", "B")}, "one modality or three; got A, B"),
        ({"neighbours": True}, "neighbours shows one modality"),
        ({"margin_mm": -1.0}, "margin_mm is in millimetres"),
        ({"pixel_mm": 0.0, "show": "whole"}, "Set pixel_mm"),
        ({"windows": ("A:3",)}, r"MODALITY=LOW:HIGH; got 'A:3'"),
        ({"windows": ("A=5:1",)}, "from low to high"),
        ({"windows": ("D=0:1",)}, "names D, which is not among the modalities"),
        ({"n4": ("X",)}, "names X, which is not among the modalities"),
        ({"tile": 8}, "at least 32"),
        ({"slices": "some"}, "slices"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        recipe(**settings)


def test_what_was_assumed_of_a_series_is_a_note_of_the_cells(volumes):
    part = Grid((9, 48, 40), SPACING, GRID.origin_mm, np.eye(3))
    dose = replace(volume(volumes["B"].values[:9], grid=part), notes=("2 planes interpolated",))
    cells = make_cells(volumes | {"B": dose}, MASK, recipe())
    share = INSIDE[9:].sum() / INSIDE.sum()
    assert cells.notes == (
        "B: 2 planes interpolated",
        f"B: {share:.1%} of the region lies beyond it and is shown as nothing",
        "B: 28.6% of what slices show lies beyond its image and is black",
    )
    assert (cells.pixels[-2:, ..., 1] == 0).all()


def test_a_modality_that_does_not_show_the_region_is_refused(volumes):
    part = Grid((6, 48, 40), SPACING, GRID.origin_mm, np.eye(3))
    other = volume(volumes["B"].values[:6], grid=part)
    with pytest.raises(VolumeError, match=r"B: \d+% of the region lies beyond it"):
        make_cells(volumes | {"B": other}, MASK, recipe())


@pytest.mark.parametrize("modality", ["CT", ""])
@pytest.mark.parametrize("scaling", ["min-max", "z-score"])
def test_what_lies_beyond_an_image_is_black_and_shapes_no_grey(volumes, modality, scaling):
    """A tumour at the edge has the contrast of one in the middle, whatever a file says of its modality."""
    values = volumes["A"].values[:, 12:]  # the ball's edge is 3 mm from that of the image
    near = Grid((14, 36, 40), SPACING, (-20.0, -18.0, 100.0), np.eye(3))
    edge = {"A": volume(values, modality, grid=near)}
    settings = recipe(channels=("A",), scaling=scaling, margin_mm=12.0, tile=48)
    mask = Mask(INSIDE[:, 12:], near, "GTV")
    shown, whole = make_cells(edge, mask, settings), make_cells(volumes, MASK, settings)
    inner = shown.pixels[shown.inside].mean() - whole.pixels[whole.inside].mean()
    assert abs(inner) < 12
    around = ~shown.inside & (shown.pixels[..., 0] > 0)
    if scaling == "min-max":  # of the tissue's z-scores what lies around is below the range
        assert shown.pixels[shown.inside].mean() - shown.pixels[around].mean() > 30
    assert any("beyond its image and is black" in note for note in shown.notes)


def test_two_lesions_give_their_own_slices_and_none_between(volumes):
    two = ball(SHAPE, (20.0, 24.0, 6.0), 5.0, SPACING) | ball(
        SHAPE, (20.0, 24.0, 33.0), 5.0, SPACING
    )
    cells = make_cells(volumes, Mask(two, GRID, "GTV"), recipe())
    assert [round((p[2] - 100) / 3) for p in cells.facts.positions_mm] == [1, 2, 3, 10, 11, 12]
    assert cells.inside.any(axis=(1, 2)).all()
    near = make_cells(volumes, Mask(two, GRID, "GTV"), recipe(channels=("A",), neighbours=True))
    assert near.facts.positions_mm == cells.facts.positions_mm


def test_a_small_tumour_in_a_large_image_needs_no_fine_copy_of_the_body():
    big = Grid((300, 512, 512), (0.98, 0.98, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    values = np.zeros(big.shape, np.float32)
    inside = np.zeros(big.shape, bool)
    inside[100:110, 200:210, 300:310] = True
    values[inside] = 50
    cells = make_cells(
        {"A": Volume(values, big, "CT")},
        Mask(inside, big, "GTV"),
        recipe(channels=("A",), pixel_mm=0.0),
    )
    assert len(cells.pixels) == 10
    x, y, z = cells.facts.positions_mm[0]
    assert (x, y, z) == pytest.approx((304.5 * 0.98, 204.5 * 0.98, 100.0), abs=0.5)


def test_a_window_of_another_unit_is_said(volumes):
    notes = make_cells(volumes, MASK, recipe(windows=("B=5000:6000",))).notes
    assert notes == ("B: 100% of it is black or white; check its window and its unit",)


@pytest.mark.parametrize(
    ("axis", "plane", "spacing"),
    [(1, "coronal", (0.8, 4.0, 0.8)), (2, "sagittal", (4.0, 0.8, 0.8))],
)
def test_slices_of_another_plane_are_said_and_the_audit_gets_their_own_spacing(
    axis, plane, spacing
):
    shape = (40, 14, 48) if axis == 1 else (40, 48, 14)
    grid = Grid(shape, spacing, (0.0, 0.0, 0.0), np.eye(3))
    middle = tuple(n * s / 2 for n, s in zip(shape[::-1], spacing, strict=True))
    inside = ball(shape, middle, 9.0, spacing)
    one = replace(volume(np.random.default_rng(0).normal(size=shape), grid=grid), slice_axis=axis)
    cells = make_cells({"A": one}, Mask(inside, grid, "GTV"), recipe(channels=("A",)))
    assert cells.notes == (
        f"A: acquired in the {plane} plane, 4 mm apart; its transversal slices are interpolated",
    )
    scan = cells.facts.scan["A"]
    assert (scan["plane"], scan["pixel_spacing_mm"], scan["slice_spacing_mm"]) == (plane, 0.8, 4.0)


@pytest.mark.parametrize(
    "settings",
    [{"pixel_mm": 0.0}, {"pixel_mm": 0.75, "slice_mm": 1.0}, {"scaling": "z-score", "n4": ("A",)}],
)
def test_what_float32_rounds_away_of_a_place_changes_no_pixel(volumes, settings):
    """NIfTI keeps steps and places in float32, DICOM in decimals; the cells are equal to the bit."""
    noise = 1e-6 * np.random.default_rng(2).normal(size=(3, 6))
    stored = {}
    for (name, one), error in zip(volumes.items(), noise, strict=True):
        spacing = tuple(np.array(SPACING) * (1 + error[:3] / 10))
        origin = tuple(np.array(GRID.origin_mm) + 20 * error[3:])
        positive = one.with_values(np.maximum(one.values, 0))
        stored[name] = replace(positive, grid=Grid(SHAPE, spacing, origin, np.eye(3)))
    exact = {name: replace(one, grid=GRID) for name, one in stored.items()}
    settings = recipe(**settings)
    first = make_cells(exact, MASK, settings)
    second = make_cells(stored, replace(MASK, grid=stored["A"].grid), settings)
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.inside, second.inside)
