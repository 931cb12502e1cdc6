"""The public interface of ``features``: its names, loaded on first use, with exact types."""

import ast
import importlib
import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from making import stained, write_tiff

import features
from features.bags.bag import read_bag
from features.recipe import Recipe

NAMES = [
    "BackboneEntry", "Bag", "Extraction", "ExtractionOptions", "FeaturesError", "Recipe", "SarcomilError",
    "Slide", "SourceFacts", "convert", "export", "extract", "join", "list_backbones", "load_backbone",
    "make_bag", "open_slide", "read_annotations", "read_bag", "validate_bag", "write_bag",
]  # fmt: skip


def typed_names():
    """name -> "module:attribute", as type checkers see it."""
    tree = ast.parse(Path(features.__file__).read_text())
    return {
        alias.asname: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("features.")
        for alias in node.names
    }


def test_the_names_are_pinned_and_typed_as_they_are_loaded():
    assert features.__all__ == NAMES
    assert typed_names() == features._SOURCES
    assert set(NAMES) <= set(dir(features))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_the_object_of_its_module_and_documented(name):
    module, _, attribute = typed_names()[name].partition(":")
    value = getattr(features, name)
    plain = (
        inspect.unwrap(value) if inspect.isfunction(value) else value
    )  # arguments are checked around it
    assert plain is getattr(importlib.import_module(module), attribute)
    assert value.__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'features' has no attribute 'read_bags'"):
        features.read_bags  # noqa: B018


def test_import_loads_only_what_is_used():
    code = (
        "import sys, features; heavy = ('torch', 'numpy', 'h5py', 'openslide', 'shapely')\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
        "features.Recipe(); features.list_backbones()\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
        "features.read_bag; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_slides_become_bags_from_python(tmp_path, monkeypatch):
    (tmp_path / "slides").mkdir()
    for name in "ab":
        write_tiff(tmp_path / "slides" / f"{name}.tiff", [stained()], mpp=0.5)
    (tmp_path / "slides" / "bad.tiff").write_bytes(b"no slide")
    recipe = Recipe(backbone="test_resnet", weights="random", mpp=0.5, tile=32, max_tiles=4)
    notes = []
    result = features.extract(
        tmp_path / "slides", tmp_path / "store", recipe=recipe, workers=1, notify=notes.append
    )
    assert {o.slide: o.status for o in result.outcomes} == {
        "a": "done",
        "b": "done",
        "bad": "failed",
    }
    assert [o.slide for o in result.failed] == ["bad"]
    assert notes == ["Without annotations, every tile of tissue is used, tumour or not."]
    with pytest.raises(features.FeaturesError, match="no such weights file"):
        features.extract(
            tmp_path / "slides", tmp_path / "other", recipe=replace(recipe, weights="no.pth"),
            notify=pytest.fail,
        )  # fmt: skip
    assert len(read_bag(Path(result) / "a.h5")) == 4
    assert result.stage_seconds["forward"] > 0
    again = features.extract(tmp_path / "slides", result, recipe=recipe, workers=1)
    assert len(again.with_status("skipped")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": []}, "There is no slide, or no recipe"),
        ({"recipe": [Recipe(mpp=0.5), Recipe(mpp=0.5)]}, "a scale is repeated"),
        ({"engine": "spark"}, "engine is local or ray; got 'spark'"),
        ({"annotations": "nowhere"}, "annotations is nowhere: no such folder"),
        ({"annotations": ".", "coordinates": "."}, "leave out annotations"),
        ({"slides": "."}, "holds neither slides nor tile images"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_work(
    tmp_path, monkeypatch, slide_file, changes, message
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    arguments = {"slides": slide_file, "out": tmp_path / "store", "recipe": Recipe()} | changes
    with pytest.raises(features.FeaturesError, match=message):
        features.extract(**arguments)
    assert not (tmp_path / "store").exists()


def test_bags_are_converted_from_python_and_back(tmp_path):
    from features.bags.convert import export
    from features.bags.foreign_readers import SourceFacts

    write_tiff(tmp_path / "a.tiff", [stained()], mpp=0.5)
    recipe = Recipe(backbone="test_resnet", weights="random", mpp=0.5, tile=32, max_tiles=4)
    store = features.extract(tmp_path / "a.tiff", tmp_path / "store", recipe=recipe, workers=1)
    exported = export(store, tmp_path / "clam", "clam")
    assert (exported.n_done, exported.n_tiles, exported.failures) == (1, 4, [])
    facts = SourceFacts(slide_mpp=(0.5, 0.5))
    back = features.convert(tmp_path / "clam" / "h5_files", tmp_path / "back", facts=facts)
    assert (back.n_done, back.failures) == (1, [])
    one, two = (read_bag(tmp_path / folder / "a.h5") for folder in ("store", "back"))
    assert one.coords_l0.tolist() == two.coords_l0.tolist()
