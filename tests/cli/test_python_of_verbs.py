"""Everything that a verb does can be done from Python: the public function of every verb."""

import ast
import importlib
import inspect

import pytest

import mil
from cli.main import FILES
from tests.verbs import VERBS

# Verb to what does the same from Python, in the order of calls. ``demo`` is the whole job on drawn slides.
FROM_PYTHON = {
    "fetch tcga-sarc": "fetch_gdc",
    "fetch gdc": "fetch_gdc",
    "fetch idc": "fetch_idc",
    "check": "check_cohort",
    "segment train": "train_segmenter",
    "segment apply": "apply_segmenter",
    "segment evaluate": "evaluate_segmenter",
    "extract": "extract",
    "volumes table": "list_series",
    "volumes extract": "extract_volumes",
    "volumes contour": "contour_volumes apply_contours",
    "volumes radiomics": "radiomics_bags",
    "convert": "convert export",
    "join": "join",
    "finetune": "finetune_backbone",
    "crossval": "finetune_per_fold segment_per_fold cross_validate",
    "train": "train",
    "predict": "predict_slides",
    "package": "Run.package",
    "card": "read_card",
    "protocol list": "list_protocols load_protocol",
    "protocol show": "load_protocol",
    "protocol run": "run_protocol",
    "evaluate": "read_predictions evaluate Run.evaluate",
    "compare": "read_predictions compare Run.compare",
    "learning-curve": "learning_curve",
    "ladder": "compare_scales",
    "permute": "permute",
    "audit": "Run.audit audit_table",
    "external": "external_validation",
    "report": "Run.write_report",
    "explain": "Run.explain Run.write_map Run.compare_methods",
    "concepts": "Run.concepts",
    "view": "Run.view",
    "decision": "Run.decision_curves",
    "nomogram": "nomogram",
    "demo": "draw_cohort extract cross_validate Run.explain Run.write_report",
    "doctor": "check_machine",
    "backbones list": "list_backbones list_catalogue",
    "backbones get": "fetch_weights",
}
# Arguments of public functions that are no plain values: what is learnt or read, by classes that are public.
OBJECTS = {name: getattr(mil, name) for name in mil.__all__ if isinstance(getattr(mil, name), type)}


def public(name):
    """A public function, or a method of a public class."""
    owner, _, method = name.rpartition(".")
    return getattr(getattr(mil, owner) if owner else mil, method)


def test_every_verb_has_its_function():
    assert sorted(FROM_PYTHON) == sorted(VERBS)


@pytest.mark.parametrize("verb", FROM_PYTHON)
def test_the_functions_are_public_typed_and_have_an_example(verb):
    for name in FROM_PYTHON[verb].split():
        function = inspect.unwrap(public(name))
        assert name.split(".")[0] in mil.__all__
        assert "Example:" in function.__doc__, name
        assert inspect.signature(function).return_annotation is not inspect.Signature.empty, name


# Read or started by the door alone: none of these is needed from Python.
AT_THE_DOOR = {"NewRun", "Computing", "Plan", "Study", "StoredCases", "SegmentInput", "JobSettings"}


def words_of(annotation):
    """The names in a type hint."""
    return {
        node.id
        for text in [annotation if isinstance(annotation, str) else str(annotation)]
        for node in ast.walk(ast.parse(text.replace("<", "").replace(">", ""), mode="eval"))
        if isinstance(node, ast.Name)
    }


@pytest.mark.parametrize("verb", FROM_PYTHON)
def test_no_function_takes_an_object_of_a_run_folder(verb):
    for name in FROM_PYTHON[verb].split():
        for parameter in inspect.signature(inspect.unwrap(public(name))).parameters.values():
            if isinstance(parameter.annotation, str):
                assert not words_of(parameter.annotation) & AT_THE_DOOR, f"{name}: {parameter}"


def functions_called(verb):
    """The names of the public interface that the file of a verb imports or calls."""
    group = verb.split()[0]
    module = importlib.import_module(f"cli.{FILES.get(group, group)}")
    tree = ast.parse(inspect.getsource(module))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


# These join what the public functions do from parts of their own.
ITS_OWN_WAY = {
    "crossval",
    "train",
    "learning-curve",
    "extract",
    "predict",
    "demo",
}


@pytest.mark.parametrize("verb", [verb for verb in FROM_PYTHON if verb not in ITS_OWN_WAY])
def test_the_verb_calls_it(verb):
    names = {name.rpartition(".")[2] for name in FROM_PYTHON[verb].split()}
    aliases = {"list_methods", "protocol_names"}
    assert names & (functions_called(verb) | aliases), verb
