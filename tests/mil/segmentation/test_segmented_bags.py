"""Bags of what a segmenter marks as tumour: extracted, or selected from bags of tissue, and never leaking."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import shapely

from features.bags.bag import read_bag, write_bag
from features.bags.select import select_tiles
from features.errors import BagError, InputError
from features.extraction.jobs import JobSettings, jobs_of_paths
from features.extraction.run import extract_jobs
from features.lowpower import slide_maps
from features.lowpower.segmenter import (
    Segmenter,
    load_segmenter,
    read_segmenter_card,
    save_segmenter,
)
from features.lowpower.slide_maps import maps_kept
from features.recipe import Recipe
from features.regions.annotations import read_annotations
from mil.answers.gather import _extract_and_outline
from mil.answers.new_inputs import NewInputs
from mil.data.cohort import load_cohort
from mil.data.splits import Fold
from mil.errors import LeakageError
from mil.learning.crossval import check_seen
from mil.segmentation.application import apply_segmenter

RECIPE = Recipe(backbone="test_resnet", weights="random", tile=32, mpp=2.5, precision="fp32")


@pytest.fixture(scope="module")
def stores(study, segmenter, learner, slides, tmp_path_factory):
    """Stores of all six slides: tissue, annotations, and by segmenters of all and of two cases."""
    folder = tmp_path_factory.mktemp("stores")
    save_segmenter(folder / "all.safetensors", segmenter)
    save_segmenter(folder / "two.safetensors", learner.fit([slides[0], slides[5]]))
    regions = {
        "tissue": JobSettings(),
        "drawn": JobSettings(annotations=study.folder / "annotations"),
        "all": JobSettings(segmenter=folder / "all.safetensors"),
        "two": JobSettings(segmenter=folder / "two.safetensors"),
    }
    for name, settings in regions.items():
        files = sorted((study.folder / "slides").glob("*.tiff"))[:3]
        result = extract_jobs(jobs_of_paths(files, settings), RECIPE, folder / name, workers=1)
        assert not result.failed, result.failed
    return folder


def test_tiles_are_those_in_the_tumour_and_the_bag_says_by_what(stores, slides):
    card, sha256 = read_segmenter_card(stores / "all.safetensors")
    bag, drawn = (read_bag(stores / name / "case-1.h5") for name in ("all", "drawn"))
    assert bag.recipe["region"] == "segmented"
    assert bag.recipe["segmenter_sha256"] == sha256
    assert bag.recipe["min_coverage"] == 0.6
    assert bag.recipe["classes"] == []
    assert bag.trained_on == card.trained_on
    assert bag.trained_on_slides == card.trained_on_slides
    assert 0.3 < bag.tumour_of_tissue < 0.45
    places = [{tuple(xy) for xy in b.coords_l0.tolist()} for b in (bag, drawn)]
    assert len(places[0] & places[1]) > 0.8 * len(places[0] | places[1])
    assert "segmenter_sha256" not in drawn.recipe


def test_another_segmenter_makes_another_recipe(stores, study):
    settings = JobSettings(segmenter=stores / "two.safetensors")
    jobs = jobs_of_paths([study.folder / "slides" / "case-1.tiff"], settings)
    with pytest.raises(BagError, match=r"bags of another recipe .*segmenter_sha256"):
        extract_jobs(jobs, RECIPE, stores / "all", workers=1)


def test_a_slide_without_tumour_fails_by_itself(stores, study, tmp_path):
    settings = JobSettings(segmenter=stores / "all.safetensors")
    files = [study.folder / "slides" / f"case-{number}.tiff" for number in (6, 1)]
    result = extract_jobs(jobs_of_paths(files, settings), RECIPE, tmp_path / "store", workers=1)
    assert {o.slide: o.status for o in result.outcomes} == {"case-6": "failed", "case-1": "done"}
    assert (
        "60% what the segmenter marks as tumour. Look at what it finds" in result.failed[0].reason
    )


@pytest.mark.parametrize("other", [{"annotations": "a"}, {"coordinates": "b"}])
def test_a_segmenter_goes_with_no_other_region(stores, study, tmp_path, other):
    (tmp_path / "a").mkdir()
    settings = JobSettings(
        segmenter=stores / "all.safetensors", **{k: tmp_path / v for k, v in other.items()}
    )
    with pytest.raises(InputError, match="segmenter finds the tumour"):
        jobs_of_paths([study.folder / "slides" / "case-1.tiff"], settings)


def table_of(stores):
    table = stores / "cohort.csv"
    rows = [f"case-{n},case-{n},{'ab'[n % 2]}" for n in range(1, 4)]
    table.write_text("\n".join(["case,slide,label", *rows]) + "\n")
    return table


def test_cases_that_a_segmenter_has_seen_are_not_tested(stores):
    """The guard that knows backbones knows segmenters, by the name of the case and by the slide."""
    names = tuple(f"case-{n}" for n in range(1, 4))
    cohort = load_cohort(table_of(stores), stores / "all")
    folds = [Fold(repeat=0, index=0, train=names[1:], test=names[:1])]
    with pytest.raises(
        LeakageError, match="The backbone or the segmenter of these bags was trained on 1"
    ):
        check_seen(cohort, folds)
    cohort = load_cohort(table_of(stores), stores / "two")
    with pytest.raises(LeakageError, match="case-1"):
        check_seen(cohort, folds)
    check_seen(cohort, [Fold(repeat=0, index=0, train=names[:2], test=names[2:])])
    renamed = replace(
        cohort, cases=tuple(replace(case, name=f"x-{case.name}") for case in cohort.cases)
    )
    fold = Fold(repeat=0, index=0, train=("x-case-2",), test=("x-case-1",))
    with pytest.raises(LeakageError, match="x-case-1"):
        check_seen(renamed, [fold])


def test_selecting_tiles_gives_what_extraction_gives(stores, study, tmp_path):
    for number in range(1, 4):
        tissue, drawn = (
            read_bag(stores / name / f"case-{number}.h5") for name in ("tissue", "drawn")
        )
        file = study.folder / "annotations" / f"case-{number}.geojson"
        drawing = read_annotations(file)
        region = drawing.region(["Tumor"]) - drawing.union(["Ignore*"])
        chosen = select_tiles(tissue, region, {"region": "annotations"}, trained_on=("z", "a"))
        np.testing.assert_array_equal(chosen.coords_l0, drawn.coords_l0)
        np.testing.assert_allclose(chosen.coverage, drawn.coverage, atol=1e-6)
        np.testing.assert_allclose(chosen.features, drawn.features, rtol=2e-3, atol=1e-4)
        assert len(chosen) < len(tissue)
        assert chosen.recipe == tissue.recipe | {"region": "annotations"}
        assert chosen.trained_on == ("a", "z")
        write_bag(tmp_path / "a.h5", chosen)
        assert read_bag(tmp_path / "a.h5").recipe_sha256 == chosen.recipe_sha256


def test_selecting_refuses_bags_of_other_regions_and_empty_regions(stores):
    tissue, drawn = (read_bag(stores / name / "case-1.h5") for name in ("tissue", "drawn"))
    nowhere = shapely.box(0, 0, 10, 10)
    with pytest.raises(BagError, match="taken from annotations, so those of another region"):
        select_tiles(drawn, nowhere, {})
    with pytest.raises(BagError, match=r"none of its \d+ tiles is 60% inside the region"):
        select_tiles(tissue, nowhere, {})


def test_regions_that_a_segmenter_drew_are_named_when_they_are_taken_for_annotations(
    stores, study, segmenter, tmp_path
):
    jobs = jobs_of_paths([study.folder / "slides" / "case-1.tiff"])
    apply_segmenter(segmenter, jobs, tmp_path / "drawn")
    settings = JobSettings(annotations=tmp_path / "drawn")
    notes = []
    result = extract_jobs(
        jobs_of_paths([study.folder / "slides" / "case-1.tiff"], settings),
        RECIPE, tmp_path / "store", workers=1, notify=notes.append,
    )  # fmt: skip
    assert any(note.startswith("A segmenter drew regions of case-1.") for note in notes)
    [done] = result.outcomes
    drawn, segmented = (read_bag(p / "case-1.h5") for p in (tmp_path / "store", stores / "all"))
    np.testing.assert_array_equal(drawn.coords_l0, segmented.coords_l0)
    np.testing.assert_allclose(drawn.coverage, segmented.coverage, atol=1e-5)
    assert done.status == "done"


def test_new_slides_are_segmented_once_for_their_tiles_and_their_outlines(
    stores, study, monkeypatch, tmp_path
):
    """The bags are those of an extraction alone, and the outlines those of the segmenter alone."""
    files = sorted((study.folder / "slides").glob("*.tiff"))[:2]
    file, read = stores / "all.safetensors", []
    alone = load_segmenter(file)
    apply_segmenter(alone, jobs_of_paths(files), tmp_path / "alone")
    find = Segmenter.tumour_map
    monkeypatch.setattr(Segmenter, "tumour_map", lambda *args: read.append(args[1]) or find(*args))
    recipe = read_bag(stores / "all" / "case-1.h5").recipe
    predictor = SimpleNamespace(recipe=recipe, backbone=None, embeds=False)
    new = NewInputs(inputs=tuple(files), segmenter=file)
    failed, outlined = _extract_and_outline(
        predictor, jobs_of_paths(files), tmp_path / "bags", tmp_path / "new", new, None
    )
    assert failed == {}
    assert [one.slide for one in outlined] == [path.stem for path in files]
    assert sorted(slide.path for slide in read) == files
    for path in files:
        bag, before = (read_bag(p / f"{path.stem}.h5") for p in (tmp_path / "bags", stores / "all"))
        np.testing.assert_array_equal(bag.coords_l0, before.coords_l0)
        outlines = [(tmp_path / p / f"{path.stem}.geojson").read_bytes() for p in ("new", "alone")]
        assert outlines[0] == outlines[1]
    with maps_kept():  # nothing is left of the last block
        assert slide_maps._KEPT.maps == {}
    assert slide_maps._KEPT.blocks == 0
