"""Masks that a network has drawn: on their image's grid again, and never taken for a person's."""

from dataclasses import replace

import numpy as np
import pytest

from features.errors import AnnotationError
from features.volumes.cells import make_cells
from features.volumes.facts import VolumeFacts
from features.volumes.image_files import read_image_file
from features.volumes.predicted import MaskCard, card_path, read_card, write_predicted
from features.volumes.recipe import VolumeRecipe
from features.volumes.region_maps import read_region_map
from features.volumes.volume import Grid, Volume
from tests.features.volumes.patients import save

CARD = MaskCard(trained_on=("a", "b"), trained_on_slides=("pixels-1",), facts={"seed": 3})
TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def oblique(shape=(6, 9, 8)):
    """A volume whose axes are turned in plane, of steps that float32 does not hold."""
    grid = Grid(shape, (0.7, 0.9, 3.3), (-11.3, 20.7, 512.1), TURN)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Volume(values, grid)


def test_a_mask_comes_back_voxel_by_voxel_with_what_its_network_has_seen(tmp_path):
    volume = oblique()
    values = volume.values > 0.5
    write_predicted(tmp_path / "m.nii.gz", values, volume.grid, CARD)
    mask = read_region_map(tmp_path / "m.nii.gz", volume)
    assert np.array_equal(mask.values, values)
    assert mask.trained_on == ("a", "b")
    assert mask.trained_on_slides == ("pixels-1",)
    assert mask.notes == ("drawn by a network trained on other cases (2)",)


def test_a_film_of_it_remembers_and_one_of_a_drawing_has_nothing_to_remember(tmp_path):
    volume = oblique()
    write_predicted(tmp_path / "m.nii.gz", volume.values > 0.5, volume.grid, CARD)
    mask = read_region_map(tmp_path / "m.nii.gz", volume)
    recipe = VolumeRecipe(channels=("CT",), tile=32)
    facts = make_cells({"CT": volume}, mask, recipe).facts
    assert VolumeFacts.from_json(facts.to_json()).trained_on == ("a", "b")
    drawn = replace(mask, trained_on=(), trained_on_slides=())
    assert make_cells({"CT": volume}, drawn, recipe).facts.trained_on == ()


def test_a_mask_without_the_file_beside_it_is_refused(tmp_path):
    volume = oblique()
    for name in ("m", "n"):
        card = replace(CARD, trained_on=(name,))
        write_predicted(tmp_path / f"{name}.nii.gz", volume.values > 0.5, volume.grid, card)
    card_path(tmp_path / "m.nii.gz").write_bytes(card_path(tmp_path / "n.nii.gz").read_bytes())
    with pytest.raises(
        AnnotationError, match=r"m.trained.json belongs to another map than m.nii.gz"
    ):
        read_region_map(tmp_path / "m.nii.gz", volume)
    card_path(tmp_path / "m.nii.gz").write_text("{}")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_region_map(tmp_path / "m.nii.gz", volume)
    card_path(tmp_path / "m.nii.gz").unlink()
    with pytest.raises(AnnotationError, match=r"m.trained.json, which names .* is not beside it"):
        read_region_map(tmp_path / "m.nii.gz", volume)


def test_a_mask_that_a_person_has_corrected_and_saved_under_its_name_still_remembers(tmp_path):
    volume = oblique()
    path = tmp_path / "m.nii"
    write_predicted(tmp_path / "m.nii.gz", volume.values > 0.5, volume.grid, CARD)
    save(
        path, (read_image_file(tmp_path / "m.nii.gz").values > 0).astype(np.uint8)
    )  # another header
    assert read_card(path) == CARD
    assert read_card(save(tmp_path / "drawn.nii.gz", np.ones((2, 2, 2), np.uint8))) is None
