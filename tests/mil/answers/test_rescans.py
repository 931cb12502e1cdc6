"""A training slide that was scanned again, or saved with loss, is answered by fits that have not seen it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mil.answers.card import card_of_run
from mil.answers.gather import NewSlides
from mil.answers.package import read_package, write_package
from mil.answers.predict import predict_slides
from mil.answers.run_predictor import NO_PICTURES, predictor_of_run
from mil.errors import RunError
from mil.likeness.hidden import COST, hidden
from mil.likeness.reference import load_reference, save_reference
from mil.likeness.rescans import pack_structures, unpack_structures
from mil.runs.record import finish_run
from mil.runs.run import open_run
from tests.features.specimens import OTHER_STAIN, SIDE, UM, saved, specimen, stained
from tests.mil.made import made_bag, made_cohort
from tests.mil.made_runs import make_run


def pictured(bag, picture, *, quality=90):
    """A bag of a slide that looks like this; its own size does not matter."""
    height, width = picture.shape[:2]
    return replace(
        bag,
        thumbnail=saved(picture, quality),
        size_l0=(int(width * UM / 0.25), int(height * UM / 0.25)),
        mpp_l0=(0.25, 0.25),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two repeats of two folds over ten cases whose slides have pictures."""
    cohort = made_cohort((5, 5), n_tiles=12, seed=3)
    cases = tuple(
        replace(case, bags=tuple(pictured(bag, stained(specimen(40 + i))) for bag in case.bags))
        for i, case in enumerate(cohort.cases)
    )
    return make_run(tmp_path_factory.mktemp("rescans"), replace(cohort, cases=cases), ("abmil",))


@pytest.fixture(scope="module")
def predictor(run):
    return predictor_of_run(run, "abmil")


@pytest.fixture(autouse=True)
def _cheap_fingerprints(monkeypatch):
    monkeypatch.setitem(COST, "n", 2)


def new_slides(*bags):
    return NewSlides(
        names=tuple(bag.slide for bag in bags), bags={bag.slide: bag for bag in bags},
        unusable={}, masks={}, paths={},
    )  # fmt: skip


CHANGES = {
    "saved again with loss": lambda amounts: (stained(amounts), 30),
    "cropped": lambda amounts: (stained(amounts)[: SIDE * 4 // 5, SIDE // 6 :], 90),
    "another scanner": lambda amounts: (np.rot90(stained(amounts, OTHER_STAIN), 3), 75),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_scan_of_a_training_slide_is_named_and_answered_out_of_fold(run, predictor, change):
    slide, case = "a2-s1", "a2"
    picture, quality = CHANGES[change](specimen(42))
    again = pictured(made_bag("again", n_tiles=12, seed=50), picture, quality=quality)
    other = pictured(made_bag("other", n_tiles=12, seed=51), stained(specimen(99)))
    answers = predict_slides(predictor, new_slides(again, other))
    row, fresh = answers.slides
    assert (row.trained_on, fresh.trained_on) == ("out of fold", "unknown")
    [note] = row.notes
    assert note.startswith(f"It looks like a second scan of training slide {slide} (case {case}): ")
    assert fresh.notes == ()
    relation = answers.relations["again"]
    assert relation.known == {hidden(case)}
    assert all(case not in fit.model.trained_on for fit in relation.fits)
    assert len(relation.fits) == 2  # of two repeats
    assert len(answers.relations["other"].fits) == 4


def test_a_slide_that_is_known_by_its_file_gets_no_second_remark(run, predictor):
    [row] = predict_slides(predictor, new_slides(run.bag(next(iter(run.cases))))).slides
    assert (row.trained_on, row.notes) == ("out of fold", ())


def test_a_package_recognises_it_and_names_nobody(run, predictor, tmp_path):
    write_package(predictor, card_of_run(run, predictor), tmp_path / "packed")
    packed = read_package(tmp_path / "packed")
    again = pictured(made_bag("again", n_tiles=12), np.fliplr(stained(specimen(44), OTHER_STAIN)))
    [row] = predict_slides(packed, new_slides(again)).slides
    assert row.trained_on == "out of fold"
    assert row.notes[0].startswith("It looks like a second scan of a training slide: ")
    assert "(mirrored)" in row.notes[0]


def test_pictures_of_training_slides_come_back_as_they_were(predictor, tmp_path):
    known = (None, *predictor.reference.structures, None)
    back = unpack_structures(*pack_structures(known))
    assert (back[0], back[-1], len(back)) == (None, None, len(known))
    for one, two in zip(known[1:-1], back[1:-1], strict=True):
        assert np.array_equal(one.grey, two.grey)
        assert np.array_equal(one.tissue, two.tissue)
        assert (one.step, one.corner_um, one.size_um) == (two.step, two.corner_um, two.size_um)
    pixels, facts = pack_structures(known)
    with pytest.raises(ValueError, match="another size"):
        unpack_structures(np.append(pixels, np.uint8(0)), facts)


def test_a_reference_of_earlier_versions_is_read_and_says_what_it_cannot_do(
    run, predictor, tmp_path
):
    old = replace(predictor.reference, structures=())
    save_reference(tmp_path / "r.safetensors", old)
    assert load_reference(tmp_path / "r.safetensors").structures == ()
    shutil.copytree(run.path, tmp_path / "run")
    save_reference(tmp_path / "run" / "reference.safetensors", old)
    earlier = predictor_of_run(finish_run(open_run(tmp_path / "run")), "abmil")
    assert earlier.notes == (NO_PICTURES,)
    again = pictured(made_bag("again", n_tiles=12), stained(specimen(44)))
    assert predict_slides(earlier, new_slides(again)).slides[0].trained_on == "unknown"
    damaged = (tmp_path / "r.safetensors").read_bytes()[:-20]
    (tmp_path / "r.safetensors").write_bytes(damaged)
    with pytest.raises(RunError, match="not a reference of training slides"):
        load_reference(tmp_path / "r.safetensors")
