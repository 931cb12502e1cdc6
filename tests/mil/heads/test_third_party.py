"""Heads of other packages and of one's own program: on the command line, in workers, on a cluster."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mil
from features.bags.bag import read_bag, write_bag
from mil.errors import FitError, UnknownModel
from mil.evaluation.predictions import read_predictions
from mil.heads import registry
from mil.heads.attention import AttentionPooling
from mil.heads.registry import (
    check_names,
    head_class,
    installed_heads,
    loadable_models,
    model_name,
    model_names,
    register_head,
)
from mil.learning.crossval import cross_validate
from mil.learning.fitted import load_model
from mil.runs.cross_validation import check_models
from mil.runs.run import open_run
from mil.tasks.registry import task_from
from mil.view.layers import list_layers
from tests.mil.made import made_bag, probabilities

HEAD = """
    from torch import nn
    from mil.heads.head import Head, HeadOutput
    from mil.heads.layers import masked_softmax, uniform_scores

    class Deep(Head):
        def __init__(self, settings):
            super().__init__(settings)
            self.embed = nn.Linear(settings.dim, settings.width)
            self.classify = nn.Linear(settings.width, settings.n_outputs)

        def pool(self, features, mask, coords):
            scores = uniform_scores(mask)
            attention = masked_softmax(scores, mask)
            embedding = (attention @ self.embed(features)).squeeze(1)
            return HeadOutput(logits=self.classify(embedding), attention=attention, scores=scores,
                              embedding=embedding)
"""
SCRIPT = (
    textwrap.dedent(HEAD)
    + """
from cli.main import main
from mil.heads.registry import register_head
from mil.learning.crossval import cross_validate
from tests.mil.made import QUICK, folds_of, made_cohort

if __name__ == "__main__":
    register_head("own", Deep)
    cohort = made_cohort((4, 4))
    folds = folds_of(cohort, folds="2")
    serial = cross_validate(cohort, folds, ["own"], QUICK, seed=0, workers=1)
    for engine in ("loky", "ray"):
        parallel = cross_validate(cohort, folds, ["own"], QUICK, seed=0, workers=2, engine=engine)
        assert parallel.table.equals(serial.table), engine
    main()
"""
)


def install(folder, package, entry_points, source=HEAD):
    """What pip writes for a package of one module with entry points."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("")
    (folder / package / "heads.py").write_text(textwrap.dedent(source))
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    rows = [f"{name} = {reference}" for name, reference in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[sarcomil.heads]", *rows, ""]))


@pytest.fixture
def on_path(monkeypatch):
    """Makes a folder of packages part of this program, and forgets it afterwards."""

    def add(folder):
        monkeypatch.syspath_prepend(str(folder))
        registry.installed_heads.cache_clear()

    yield add
    monkeypatch.undo()
    registry.installed_heads.cache_clear()


@pytest.fixture
def session(monkeypatch):
    """The registered heads of a program that has just started."""
    monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site-packages")
    install(folder, "deepmil", {"deep": "deepmil.heads:Deep"})
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "store").mkdir()
    rows = ["case,slide,label"]
    for number in range(8):
        rng = np.random.default_rng(number)
        features = (rng.normal(size=(20, 6)) + number % 2).astype(np.float16)
        write_bag(folder / "store" / f"s{number}.h5", made_bag(f"s{number}", features))
        rows.append(f"c{number},s{number},{'ab'[number % 2]}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


def paths_with(packages):
    return os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", str(Path.cwd()))])


def command(packages, *arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths_with(packages), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def crossval(table, out, *options):
    return (
        "crossval", table, table.parent / "store", "--models", "deep,mean", "--folds", "2", "--epochs", "3",
        "--seeds", "1", "--out", out, *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(packages, table, tmp_path_factory, mil):
    """The folder of a run in two workers."""
    out = tmp_path_factory.mktemp("workers") / "run"
    mil(*crossval(table, out, "--workers", "2"), env={"PYTHONPATH": paths_with(packages)})
    return out


def test_installed_head_runs_from_the_command_line(packages, finished, on_path):
    on_path(packages)
    run = open_run(finished)
    serial = cross_validate(
        run.cohort(), run.folds, ["deep", "mean"], run.settings.fit, seed=run.settings.split.seed
    )
    stored = read_predictions(finished / "predictions.csv").table
    assert set(stored["model"]) == {"deep", "mean"}
    pd.testing.assert_frame_equal(stored, serial.table, check_exact=True)


def test_run_whose_package_is_gone_is_still_read(finished, table, tmp_path):
    run = mil.open_run(shutil.copytree(finished, tmp_path / "run"))
    assert loadable_models(run.models) == ["mean"]
    page = " ".join(run.write_report().read_text().split())
    assert "deep cannot be loaded here, so the page shows none of its maps. No model" in page
    explanation = run.explain("s0")
    assert repr(explanation).startswith(f"Explanation({explanation.method.name} of s0: ")
    assert len(repr(explanation)) < 400
    assert {layer.model for layer in list_layers(run.models, run.settings.fit)} == {"mean"}
    with pytest.raises(UnknownModel, match="No model 'deep'"):
        run.explain("s0", model="deep")


@pytest.mark.slow
def test_heads_of_a_script_and_of_a_package_run_on_a_cluster(packages, table, finished, tmp_path):
    """The class of the script's is in no module that a worker could import. One cluster serves both."""
    pytest.importorskip("ray")
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = crossval(table, tmp_path / "run", "--engine", "ray")
    result = command(packages, tmp_path / "script.py", *arguments)
    assert result.returncode == 0, result.stderr
    predictions = tmp_path / "run" / "predictions.csv"
    assert predictions.read_bytes() == (finished / "predictions.csv").read_bytes()


def test_help_lists_installed_heads_and_what_is_wrong_with_them(packages, tmp_path):
    heads = {
        "lost": "nowhere.heads:Deep",
        "abmil": "brokenmil.heads:Deep",
        "moved": "brokenmil.models:Deep",
        "renamed": "brokenmil.heads:Shallow",
        "number": "brokenmil.heads:NUMBER",
        "helper": "brokenmil.heads:helper",
        "made": "brokenmil.heads:MADE",
    }
    further = "\nNUMBER = 3\nMADE = type('Made', (Deep,), {})\ndef helper():\n    pass\n"
    install(tmp_path, "brokenmil", heads, textwrap.dedent(HEAD) + further)
    install(tmp_path, "needymil", {"needy": "needymil.heads:Deep"}, "import nothing.at_all\n")
    install(tmp_path, "typomil", {"typo": "typomil.heads:Deep"}, "class Deep(:\n")
    result = command(f"{tmp_path}{os.pathsep}{packages}", "-m", "cli", "crossval", "--help")
    words = " ".join(result.stdout.replace("│", " ").split())
    assert "Installed: deep (deepmil), made (brokenmil). Warning" in words
    for text in (
        "moved (brokenmil) cannot be used: there is no module 'brokenmil.models'",
        "renamed (brokenmil) cannot be used: module 'brokenmil.heads' has no Shallow",
        "number (brokenmil) cannot be used: NUMBER is not a class",
        "helper (brokenmil) cannot be used: helper is not a class",
        "needy (needymil) cannot be used: its module needs 'nothing', which is not installed",
        "typo (typomil) cannot be used: module 'typomil.heads' cannot be read",
    ):
        assert f"Warning: {text}" in words
    assert "lost (brokenmil) cannot be used: there is no module 'nowhere'" in words
    builtin = "mil.heads.attention:AttentionPooling"
    assert f"abmil (brokenmil) cannot be used: its name is that of the built-in {builtin}" in words


def test_help_imports_neither_torch_nor_the_package(packages):
    code = (
        "import sys; from cli.main import app; from typer.testing import CliRunner; "
        "assert 'deepmil' in CliRunner().invoke(app, ['crossval', '--help']).output; "
        "assert not {'torch', 'deepmil'} & {*sys.modules}"
    )
    result = command(packages, "-c", code)
    assert result.returncode == 0, result.stderr


def test_saved_model_of_an_installed_head_is_loaded(packages, table, finished, on_path):
    on_path(packages)
    fitted = load_model(next((finished / "models").glob("deep*.safetensors")))
    assert type(fitted.head).__module__ == "deepmil.heads"
    assert sum(probabilities(fitted, read_bag(table.parent / "store" / "s0.h5"))) == pytest.approx(
        1
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('no licence')", "OSError: no licence"),
        ("Other = 1", "AttributeError: .*Deep"),
        ("class Deep: pass", "not a subclass of mil.heads.head.Head"),
    ],
)
def test_broken_package_is_named_when_its_head_is_requested(tmp_path, on_path, source, reason):
    package = f"broken{abs(hash(source))}"
    install(tmp_path, package, {"broken": f"{package}.heads:Deep"}, source)
    on_path(tmp_path)
    check_names(["mean", "abmil"])
    for request in (lambda: head_class("broken"), lambda: check_names(["mean", "broken"])):
        with pytest.raises(
            FitError, match=rf"'broken' of the installed package {package}.*{reason}"
        ):
            request()


def test_name_of_two_packages_is_an_error(tmp_path, on_path):
    install(tmp_path, "onemil", {"deep": "onemil.heads:Deep"})
    install(tmp_path, "twomil", {"deep": "twomil.heads:Deep", "mean": "twomil.heads:Deep"})
    on_path(tmp_path)
    assert {head.name: bool(head.problem) for head in installed_heads()} == {
        "deep": True,
        "mean": True,
    }
    with pytest.raises(FitError, match=r"'deep' of the installed package onemil.*head of twomil"):
        head_class("deep")
    assert head_class("max").__name__ == "MaxPooling"


@pytest.mark.parametrize("name", ["mean", "abmil", "majority", "pooled-svm"])
def test_a_package_cannot_block_a_built_in_model(tmp_path, on_path, name):
    install(tmp_path, "rivalmil", {name: "nowhere.heads:Deep", "tile-vote": "rivalmil.heads:Deep"})
    on_path(tmp_path)
    check_names(["max", name])
    assert head_class(name).__module__.startswith("mil.")
    notes = []
    check_models(task_from({}), ["max", name], 0, notes.append)
    assert [note.partition("(")[0] for note in notes] == [
        f"The installed package rivalmil also has a model '{name}' "
    ]


def test_every_misspelt_model_is_named():
    with pytest.raises(UnknownModel) as caught:
        check_names(["abmli", "max", "tile-vot", "qqq"])
    assert str(caught.value).startswith(
        "No model 'abmli' or 'tile-vot' or 'qqq'. Did you mean 'abmil' and 'tile-vote'? Known: mean, max, "
    )


def test_a_head_of_ones_own_must_be_installed_and_is_then_suggested(packages, on_path):
    for request in (lambda: check_names(["mean", "depe"]), lambda: head_class("depe")):
        with pytest.raises(UnknownModel) as caught:
            request()
        assert str(caught.value).startswith("No model 'depe'. Known: mean, ")
        assert str(caught.value).endswith(
            ", knn. A head of your own is known once its package is installed in this environment."
        )
    on_path(packages)
    with pytest.raises(
        UnknownModel, match=r"No model 'depe'\. Did you mean 'deep'\?.*, knn, deep\."
    ):
        check_names(["mean", "depe"])


class Deep(AttentionPooling):
    pass


def test_registered_head_has_a_name(session):
    register_head("deep", Deep)
    assert head_class("deep") is Deep
    assert model_names()[-1] == "deep"
    assert model_name(Deep) == "deep"
    register_head("deep", type("Deep", (Deep,), {"__module__": __name__}))  # defined once more
    assert head_class("deep") is not Deep


def test_taken_name_is_refused(session, packages, on_path):
    on_path(packages)
    for name in ("majority", "deep"):
        with pytest.raises(FitError, match=f"Two models are named '{name}'"):
            register_head(name, Deep)
    register_head("deeper", Deep)
    with pytest.raises(FitError, match="Two models are named 'deeper'"):
        register_head("deeper", AttentionPooling)


@pytest.mark.parametrize("name", ["", "a,b", " a"])
def test_name_that_cannot_be_listed_is_refused(session, name):
    with pytest.raises(FitError, match="without commas"):
        register_head(name, Deep)


def test_what_is_no_head_is_refused(session):
    with pytest.raises(FitError, match=r"subclass of mil\.heads\.head\.Head; got <class 'int'>"):
        register_head("number", int)


def test_classes_stand_for_their_names(session, packages, on_path):
    on_path(packages)
    assert model_name("anything") == "anything"
    assert model_name(AttentionPooling) == "abmil"
    assert model_name(head_class("deep")) == "deep"

    class Shallow(Deep):
        pass

    assert model_name(Shallow) == "Shallow"
    assert head_class("Shallow") is Shallow
