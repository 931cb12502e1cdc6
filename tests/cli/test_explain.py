"""`mil explain` leaves its files where it was told to."""

import pytest
import tifffile

from cli.explain import ExplainOptions, run_explain
from cli.options import UsageError
from features.bags import write_bag
from mil.errors import RunError
from mil.fitted import save_fitted
from mil.runs import finish_run, start_run
from mil.training import fit
from tests.features.making import noise, write_tiff
from tests.mil.made import QUICK, made_bag, made_cohort


@pytest.fixture
def trained(tmp_path):
    """A run of `mil train` on made-up bags."""
    cohort = made_cohort()
    data = {"recipe": dict(cohort.recipe), "cases": {}}
    run = start_run(tmp_path / "trained", "train", {"model": "abmil"}, data)
    run.model_path("abmil").parent.mkdir()
    fitted = fit("abmil", cohort.cases, (), cohort.classes, QUICK, seed=0)
    save_fitted(run.model_path("abmil"), fitted)
    return finish_run(run).path


def test_slide_in_a_folder_is_explained_inside_out_and_beside_its_namesake(trained, tmp_path):
    for slide in ("site-1/a", "site-2/a"):
        path = tmp_path / "store" / f"{slide}.h5"
        write_bag(path, made_bag(slide))
        run_explain(ExplainOptions(run=trained, input=path, out=tmp_path / "out"))
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert left == {
        f"site-{site}%2Fa-abmil-attention.{suffix}"
        for site in (1, 2)
        for suffix in ("csv", "geojson", "png")
    }


def test_a_model_that_another_fit_has_replaced_is_not_explained(trained, tmp_path):
    cohort = made_cohort(seed=1)
    other = fit("abmil", cohort.cases, (), cohort.classes, QUICK, seed=1)
    save_fitted(trained / "models" / "abmil.safetensors", other)
    path = tmp_path / "a.h5"
    write_bag(path, made_bag("a"))
    with pytest.raises(RunError, match="not as the run wrote it"):
        run_explain(ExplainOptions(run=trained, input=path, out=tmp_path / "out"))


def test_the_map_is_painted_on_the_slide_of_the_bag_or_the_folder_is_asked_for(trained, tmp_path):
    bag = made_bag("a", size_l0=(2700, 900))
    write_bag(tmp_path / "a.h5", bag)
    asked = {"run": trained, "input": tmp_path / "a.h5", "out": tmp_path / "out", "ome_tiff": True}
    with pytest.raises(UsageError, match="give --slides, a folder that holds a"):
        run_explain(ExplainOptions(**asked))
    (tmp_path / "slides").mkdir()
    write_tiff(tmp_path / "slides" / "a.tiff", [noise(900, 2700)])
    *_, path = run_explain(ExplainOptions(**asked, slides=tmp_path / "slides"))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].shape == (225, 675, 3)  # of 0.25 micrometres per pixel, at 1
