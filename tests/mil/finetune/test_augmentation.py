"""How tiles vary: each part is what its name says, seeded, and off is off."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy import ndimage

from mil.errors import FitError
from mil.finetune.augmentation import (
    COARSE,
    Variations,
    draw_variations,
    jitter_colours,
    turn_tile,
    vary_tiles,
)
from mil.finetune.settings import Augmentation, FinetuneSettings

MANY = 4000


def drawn(*parts, n=MANY, seed=0, **settings):
    chosen = FinetuneSettings(augment=parts, **settings)
    return draw_variations(n, chosen, np.random.default_rng(seed))


def picture(side=48, n=1):
    """Smooth blots, so that interpolation loses little."""
    noise = np.random.default_rng(5).uniform(0, 255, (n, side, side, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3, 0), mode="mirror")
    low, high = smooth.min(), smooth.max()
    return ((smooth - low) / (high - low) * 255).round().astype(np.uint8)


def shown(tiles, **variations):
    plain = Variations.none(len(tiles))
    values = {"turns": plain.turns, "factors": plain.factors} | variations
    return vary_tiles(torch.from_numpy(tiles), Variations(**values)).numpy()


@pytest.mark.parametrize(
    ("parts", "turns"),
    [
        (("off",), {0}),
        (("flips",), {0, 4, 6, 2}),
        (("turns",), {0, 1, 2, 3}),
        (("turns", "flips"), set(range(8))),
        (("zoom", "crop"), {0}),
    ],
)
def test_a_tile_lies_in_the_ways_that_are_named_each_as_often(parts, turns):
    values, counts = np.unique(drawn(*parts).turns, return_counts=True)
    assert set(values.tolist()) == turns
    assert counts.min() > 0.8 * MANY / len(turns)
    tile = picture(4)[0]
    mirrored = {turn_tile(tile, turn).tobytes() for turn in (0, 2, 4, 6)}
    by_hand = (tile, tile[::-1], tile[:, ::-1], tile[::-1, ::-1])
    assert mirrored == {way.tobytes() for way in by_hand}


def test_off_leaves_every_tile_as_it_is():
    none = drawn("off")
    assert (none.factors == 1).all()
    assert none.affine is None
    assert none.bends is None
    tiles = picture(n=3)
    assert np.array_equal(shown(tiles), tiles)
    assert np.array_equal(vary_tiles(torch.from_numpy(tiles), Variations.none(3)).numpy(), tiles)


def test_colours_vary_only_where_they_are_named():
    assert np.ptp(drawn("colour", jitter=0.3).factors) == pytest.approx(0.6, abs=0.01)
    assert (drawn("flips", "rotation").factors == 1).all()


def test_the_default_draws_what_it_has_always_drawn():
    variations = draw_variations(9, FinetuneSettings(), np.random.default_rng([3, 0, 7]))
    rng = np.random.default_rng([3, 0, 7])
    assert np.array_equal(variations.turns, rng.integers(8, size=9))
    assert np.array_equal(variations.factors, 1 + 0.1 * rng.uniform(-1, 1, size=(9, 3)))


def test_draws_follow_the_seed_and_some_of_them_are_those_of_some_tiles():
    everything = FinetuneSettings(augment=get_args(Augmentation)[1:])
    one, again, other = (
        draw_variations(6, everything, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    for name in ("turns", "factors", "affine", "bends"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    tiles = torch.from_numpy(picture(n=6))
    rows = np.array([4, 1])
    assert torch.equal(vary_tiles(tiles, one)[rows], vary_tiles(tiles[rows], one.of(rows)))


def test_a_rotation_by_a_quarter_turns_the_picture():
    tiles = picture()
    quarter = np.array([[[0.0, -1, 0], [1, 0, 0]]])
    assert np.array_equal(shown(tiles, affine=quarter)[0], np.rot90(tiles[0]))
    angles = np.rad2deg(np.arctan2(*drawn("rotation", rotation_degrees=30.0).affine[:, 1::-1, 0].T))
    assert np.abs(angles).max() == pytest.approx(30, abs=0.1)
    assert abs(angles.mean()) < 1
    linear = drawn("rotation").affine[:, :, :2]
    assert linear @ linear.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(2), (MANY, 1, 1)))


def test_any_angle_is_what_scipy_makes_of_it():
    tiles, angle = picture(), np.deg2rad(25)
    cos, sin = np.cos(angle), np.sin(angle)
    ours = shown(tiles, affine=np.array([[[cos, -sin, 0], [sin, cos, 0]]]))[0, 10:-10, 10:-10]
    same = [
        ndimage.rotate(tiles[0].astype(float), sign * 25, reshape=False, order=1, mode="reflect")
        for sign in (1, -1)
    ]
    assert min(np.abs(ours - theirs[10:-10, 10:-10]).max() for theirs in same) < 1.5


def test_a_zoom_by_two_shows_the_middle_twice_as_large():
    tiles = picture()
    ours = shown(tiles, affine=np.eye(2, 3)[None] / 2)[0].astype(float)
    blocks = ours.reshape(24, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(blocks - tiles[0, 12:-12, 12:-12]).max() < 12
    scale = 1 / drawn("zoom", zoom_by=0.5).affine[:, 0, 0]
    assert (scale.min(), scale.max()) == (
        pytest.approx(1 / 1.5, abs=0.01),
        pytest.approx(1.5, abs=0.01),
    )
    assert np.median(scale) == pytest.approx(1, abs=0.02)


def test_a_crop_lies_within_the_tile_and_goes_everywhere():
    affine = drawn("crop", crop_to=0.6).affine
    side, shift = affine[:, 0, 0], affine[:, :, 2]
    assert (np.abs(shift) + side[:, None]).max() <= 1
    assert side.min() == pytest.approx(0.6, abs=0.01)
    assert side.max() == pytest.approx(1, abs=0.01)
    assert np.abs(shift.mean(axis=0)).max() < 0.02
    assert np.ptp(shift, axis=0).min() > 0.7


def test_parts_are_put_together_as_one_map():
    """Whatever the parts, a crop reads within what a rotated and scaled tile shows."""
    together = drawn("rotation", "zoom", "crop", n=5, seed=3).affine
    alone = drawn("rotation", n=5, seed=3).affine  # the same first draws
    ratio = np.linalg.inv(alone[:, :, :2]) @ together[:, :, :2]
    assert ratio[:, 0, 1] == pytest.approx(0, abs=1e-12)
    assert ratio[:, 0, 0] == pytest.approx(ratio[:, 1, 1])


def test_a_deformation_is_smooth_and_of_the_size_that_is_set():
    bends = drawn("elastic", elastic_by=0.05).bends
    assert bends.std() / 2 == pytest.approx(0.05, rel=0.02)
    tiles = picture()
    still = np.zeros((1, 2, COARSE, COARSE))
    assert np.abs(shown(tiles, bends=still).astype(int) - tiles).max() <= 1
    aside = still.copy()
    aside[:, 0] = 2 * 4 / 48  # four pixels, all alike
    assert np.abs(shown(tiles, bends=aside)[0, :, :-4].astype(int) - tiles[0, :, 4:]).max() <= 1
    bent = shown(tiles, bends=drawn("elastic", n=1).bends)
    assert 0 < np.abs(bent.astype(float) - tiles).mean() < 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augment": ()}, "augment is empty. Set it to off"),
        ({"augment": ("off", "flips")}, r"augment is off and flips at once\. Remove off"),
        ({"augment": ("flips", "flips")}, "part of augment 'flips' is named twice"),
        ({"augment": ("flip",)}, r"got 'flip'\. Did you mean 'flips'"),
        (
            {"augment": ("off",), "jitter": 0.2},
            r"jitter=0.2 belongs to augment=colour .* with augment=off",
        ),
        ({"zoom_by": 0.5}, r"Leave out zoom_by, or set augment to zoom"),
        ({"rotation_degrees": 15.0}, "rotation_degrees=15 belongs to augment=rotation"),
        ({"elastic_by": 0.1, "augment": ("zoom",)}, "elastic_by=0.1 belongs"),
        ({"crop_to": 0.5}, "crop_to=0.5 belongs"),
        ({"momentum": 0.5}, r"momentum=0.5 belongs to optimizer=sgdm .* with optimizer=adamw"),
        ({"optimizer": "sgd"}, r"Did you mean 'sgdm'"),
        ({"optimizer": "sgdm", "momentum": 1.0}, "momentum must be a fraction"),
        ({"crop_to": 1.0, "augment": ("crop",)}, "crop_to must be in"),
        ({"zoom_by": 0.0, "augment": ("zoom",)}, "zoom_by must be in"),
        (
            {"rotation_degrees": 181.0, "augment": ("rotation",)},
            "rotation_degrees must be an angle",
        ),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"patience": -1}, "patience must be 0 or more"),
        ({"schedule": "cos"}, "schedule is cosine or constant"),
    ],
)
def test_misuse_is_refused_with_a_remedy(settings, words):
    with pytest.raises(FitError, match=words):
        FinetuneSettings(**settings)


def test_settings_of_a_part_are_taken_where_it_is_named():
    settings = FinetuneSettings(
        augment=("zoom", "crop"),
        zoom_by=0.5,
        crop_to=0.5,
        optimizer="sgdm",
        momentum=0.5,
        jitter=0.0,
    )
    assert settings.augments
    assert settings.decay == 0
    assert FinetuneSettings().decay == 0.05
    assert FinetuneSettings(weight_decay=0.0).decay == 0
    assert not FinetuneSettings(augment=("off",)).augments
    assert not FinetuneSettings(augment=("colour",), jitter=0.0).augments
    assert FinetuneSettings(augment=("flips",), jitter=0.0).augments


def test_jitter_is_its_definition():
    tiles = torch.randint(0, 256, (3, 4, 4, 3), dtype=torch.uint8)
    assert torch.equal(jitter_colours(tiles, torch.ones(3, 3)), tiles)
    factors = torch.tensor([[0.5, 1, 1], [1, 0.0, 1], [1, 1, 0.0]])
    darker, flat, grey = jitter_colours(tiles, factors)
    assert torch.equal(darker, (tiles[0].float() / 2).round().to(torch.uint8))
    assert (flat == tiles[1].float().mean().round()).all()
    assert (grey == tiles[2].float().mean(dim=2, keepdim=True).round()).all()
