"""An ensemble whose members have each fine-tuned a backbone of their own, on cases of another hospital."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lessons import COLOURS, QUICK, RECIPE, images
from PIL import Image
from scipy.special import softmax

from features.backbones.registry import load_backbone
from features.bags.bag import read_bag
from features.errors import InputError
from features.extraction.embed import preprocess
from mil.answers.run_predictor import predictor_of_run
from mil.data.cohort import assemble
from mil.data.table import read_table
from mil.errors import FitError, LeakageError, RunError
from mil.finetune.config import FinetuneConfig
from mil.heads.batches import collate
from mil.runs import fold_bags
from mil.runs.cross_validation import Computing, Plan
from mil.runs.external import external_validation, predict_ensemble
from mil.runs.fold_bags import ExternalSlides
from mil.runs.record import NewRun
from mil.runs.run import Run
from mil.settings import FitSettings, SplitSettings
from mil.study import Study
from mil.tasks.diagnosis import Diagnosis

pytestmark = pytest.mark.slow

MODELS = ("tile-vote-logits", "abmil", "majority")
SETTINGS = replace(QUICK, epochs=2, learning_rate=3e-3, batch_tiles=16)
GREEN = (60, 190, 60)
NEW = [  # case, slide, label, tiles, colour
    ("x1", "x1-a", "red", 5, (190, 95, 95)),
    ("x1", "x1-b", "red", 3, COLOURS["red"]),
    ("x2", "x2-a", "blue", 4, COLOURS["blue"]),
    ("x3", "x3-a", "blue", 4, GREEN),
]


def write_table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("case", "slide", "label"), *rows])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of two folds, twice, and the tiles and table of another hospital."""
    folder = tmp_path_factory.mktemp("hospitals")
    rng = np.random.default_rng(4)
    rows = [(f"{label}-{i}", f"{label}-{i}", label) for i in range(5) for label in COLOURS]
    for _, slide, label in rows:
        colour = np.array(COLOURS[label]) + rng.integers(-15, 16, 3)
        images(folder / "tiles", slide, tuple(colour), n_tiles=4)
    study = Study(
        table=write_table(folder / "cohort.csv", rows),
        task=Diagnosis(),
        tuning=FinetuneConfig(
            slides=folder / "tiles", recipe=RECIPE, settings=SETTINGS, slide_mpp=0.5, device="cpu",
            workers=1,
        ),
    )  # fmt: skip
    plan = Plan(
        models=MODELS, fit=FitSettings(epochs=5, seeds=2), split=SplitSettings(folds="2", repeats=2)
    )
    study.cross_validate(plan, NewRun(path=folder / "run"), Computing())
    for _, slide, _, n_tiles, colour in NEW:
        images(folder / "new", slide, colour, n_tiles=n_tiles, seed=8)
    write_table(folder / "other.csv", [row[:3] for row in NEW])
    return folder


def slides_in(folder, **changes):
    values = {"slide_mpp": 0.5, "device": "cpu", "workers": 1} | changes
    return ExternalSlides(folder=folder, **values)


@pytest.fixture
def run(place, tmp_path):
    """A copy, so that every test has logs of its own."""
    shutil.copy(place / "other.csv", tmp_path / "other.csv")
    path = shutil.copytree(place / "run", tmp_path / "run")
    return Run(path, json.loads((path / "run.json").read_text()))


@pytest.fixture(scope="module")
def store(place):
    """The bags of the other hospital by the four backbones."""
    path = shutil.copytree(place / "run", place / "embedding")
    run = Run(path, json.loads((path / "run.json").read_text()))
    shutil.copy(place / "other.csv", place / "embedded.csv")
    external_validation(
        run, "majority", place / "embedded.csv", place / "store", slides=slides_in(place / "new")
    )
    (place / "store" / "readings.jsonl").unlink()
    return place / "store"


@torch.inference_mode()
def by_tile(run, store, case, model):
    """Logits of all tiles of a case by all networks: the twin's one list."""
    logits = []
    for fold in run.folds:
        for head in run.load(model, fold).head.members:
            for slide in [row[1] for row in NEW if row[0] == case]:
                bag = read_bag(store / fold.name / f"{slide}.h5")
                logits.extend(head(*collate([bag.features])).tile_logits[0].numpy())
    return np.array(logits, dtype=np.float64)


def test_all_tiles_of_all_networks_have_one_mean_before_the_softmax(place, run, store, tmp_path):
    copied = shutil.copytree(store, tmp_path / "store")
    validation = external_validation(run, "tile-vote-logits", tmp_path / "other.csv", copied)
    assert validation.n_members == 4
    table = validation.predictions.table
    for case in ("x1", "x2", "x3"):
        logits = by_tile(run, store, case, "tile-vote-logits")
        expected = softmax(logits.mean(axis=0))
        rows = table[table["case"] == case][["p_blue", "p_red"]].to_numpy()
        assert rows == pytest.approx(np.tile(expected, (len(rows), 1)), abs=1e-6)
        assert np.abs(softmax(logits, axis=1).mean(axis=0) - expected).max() > 1e-5
    for row in read_table(place / "other.csv"):
        for fold in run.folds:
            check_features(place, run, fold, store / fold.name, row.slide)


@torch.inference_mode()
def check_features(place, run, fold, folder, slide):
    """Each bag holds what its own fold's backbone gives for the tiles."""
    backbone = load_backbone(
        "test_resnet", str(run.path / "folds" / fold.name / "tuned/weights.safetensors")
    )
    bag = read_bag(folder / f"{slide}.h5")
    files = [place / "new" / f"{slide}-{x}-{y}.png" for x, y in bag.coords_l0]
    tiles = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in files]))
    features = backbone.module(preprocess(tiles, backbone)).numpy()
    assert np.asarray(bag.features) == pytest.approx(features, rel=2e-3, abs=2e-3)
    assert set(bag.trained_on) == set(fold.train)


@torch.inference_mode()
def test_attention_models_average_networks_and_slides_to_the_last_bit(run, store, place):
    rows, members = read_table(place / "other.csv"), run.fits("abmil")
    cohorts = [assemble(rows, store / fold.name) for fold in run.folds]
    table = predict_ensemble(members, *cohorts).table
    for case in ("x1", "x2"):
        logits = []
        for slide in [row[1] for row in NEW if row[0] == case]:
            bags = [read_bag(store / fold.name / f"{slide}.h5") for fold in run.folds]
            heads = [run.load("abmil", fold).head.members for fold in run.folds]
            pairs = [(head, bag) for own, bag in zip(heads, bags, strict=True) for head in own]
            assert len(pairs) == 8  # two seeds in four folds
            outputs = [head(*collate([bag.features])).logits[0].double() for head, bag in pairs]
            logits.append(np.mean([output.numpy() for output in outputs], axis=0))
        expected = softmax(np.mean(logits, axis=0))
        got = table[table["case"] == case][["p_blue", "p_red"]].to_numpy()[0]
        assert got == pytest.approx(expected, abs=1e-12)


def test_one_sure_network_is_not_outvoted_by_probabilities(run, store, place):
    """A made case: the mean of logits and the mean of probabilities disagree on the class."""
    rows, members = read_table(place / "other.csv"), list(run.fits("tile-vote-logits"))[:3]
    cohorts = [assemble(rows, store / fold.name) for fold in run.folds[:3]]
    biases = ([6.0, 0.0], [0.0, 1.0], [0.0, 1.0])
    for member, bias in zip(members, biases, strict=True):
        for head in member.head.members:
            last = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)][-1]
            torch.nn.init.zeros_(last.weight)
            last.bias.data = torch.tensor(bias)
    table = predict_ensemble(members, *cohorts).table
    assert table["p_blue"].to_numpy() == pytest.approx(softmax([2.0, 2 / 3])[0])
    assert np.mean([softmax(bias)[0] for bias in biases]) < 0.52 < table["p_blue"].min()


def test_bags_by_an_interrupted_run_are_not_made_again(place, run, tmp_path, monkeypatch):
    from features.extraction import extract as extraction

    store, calls, real = tmp_path / "store", [], extraction.extract

    def cut(jobs, recipe, folder, **keywords):
        calls.append(folder.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(jobs, recipe, folder, **keywords)

    arguments = (run, "abmil", tmp_path / "other.csv", store)
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "extract", cut)
        with pytest.raises(KeyboardInterrupt):
            external_validation(*arguments, slides=slides_in(place / "new"))
    assert calls == ["r0-f0", "r0-f1", "r1-f0"]
    made = {path: path.stat().st_mtime_ns for path in store.rglob("*.h5")}
    assert len(made) == 2 * len(NEW)
    whole = external_validation(*arguments, slides=slides_in(place / "new"))
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert len(list(store.rglob("*.h5"))) == 4 * len(NEW)
    again = external_validation(*arguments)  # without slides: the bags are there
    assert again.predictions.table.equals(whole.predictions.table)
    with pytest.raises(LeakageError, match="used to test abmil"):
        external_validation(run, "tile-vote-logits", tmp_path / "other.csv", store)
    shutil.rmtree(store)
    with pytest.raises(LeakageError, match="used to test abmil"):
        external_validation(
            run, "tile-vote-logits", tmp_path / "other.csv", store, slides=slides_in(place / "new")
        )
    assert not store.exists()  # nothing was embedded for a model that is refused


def test_a_slide_unlike_those_of_the_run_is_named_by_all_backbones(place, run, store, tmp_path):
    copied, notes = shutil.copytree(store, tmp_path / "store"), []
    validation = external_validation(
        run, "abmil", tmp_path / "other.csv", copied, notify=notes.append
    )
    ratios = {slide: found.ratio for slide, found in validation.unlike.items()}
    assert ratios["x3-a"] == max(ratios.values()) > 1.5
    assert ratios["x2-a"] < 1.5
    assert any(note.startswith("x3-a: unlike the training slides") for note in notes)
    shutil.rmtree(run.path / "folds" / "r1-f1" / "store")
    without = external_validation(run, "abmil", tmp_path / "other.csv", copied, notify=notes.append)
    assert without.unlike == {}
    assert any(note.startswith("Not known whether new slides are like") for note in notes)


@pytest.mark.parametrize("way", ["name", "file", "pixels"])
def test_cases_of_the_run_are_refused_before_a_slide_is_embedded(place, run, tmp_path, way):
    case, slide = ("red-2", "x9-a") if way == "name" else ("y1", "x9-a")
    images(tmp_path / "new", slide, COLOURS["red"], n_tiles=2)
    if way != "name":
        shutil.rmtree(tmp_path / "new")
        (tmp_path / "new").mkdir()
        for path in (place / "tiles").glob("red-2-*.png"):
            copy = tmp_path / "new" / path.name.replace("red-2", slide)
            if way == "file":
                shutil.copy(path, copy)
            else:
                Image.open(path).save(copy.with_suffix(".bmp"))
    table = write_table(tmp_path / "seen.csv", [(case, slide, "red")])
    with pytest.raises(
        LeakageError, match=f"1 of 1 cases were used to train this run, e.g. {case}"
    ):
        external_validation(
            run, "abmil", table, tmp_path / "store", slides=slides_in(tmp_path / "new")
        )
    assert not (tmp_path / "store").exists()


def test_bags_of_the_run_are_refused_in_a_store_that_was_made_by_hand(place, run, tmp_path):
    """Renamed training slides whose bags lie in a folder for each fold are found by their content."""
    table = write_table(tmp_path / "seen.csv", [("y1", "red-2", "red"), ("y2", "blue-1", "blue")])
    for fold in run.folds:
        folder = tmp_path / "store" / fold.name
        folder.mkdir(parents=True)
        for slide in ("red-2", "blue-1"):
            shutil.copy(run.fold_store(fold) / f"{slide}.h5", folder)
    with pytest.raises(LeakageError, match="2 of 2 cases were used to train this run"):
        external_validation(run, "abmil", table, tmp_path / "store")


def test_what_cannot_be_read_is_refused_with_a_remedy(place, run, store, tmp_path):
    table = tmp_path / "other.csv"
    with pytest.raises(RunError, match=r"each of its 4 fits needs .* no folder r0-f0\. Set slides"):
        external_validation(run, "abmil", table, tmp_path / "none")
    tissue = slides_in(place / "new", annotations=tmp_path)
    with pytest.raises(InputError, match="annotations"):
        external_validation(run, "abmil", table, tmp_path / "none", slides=tissue)
    copied = shutil.copytree(store, tmp_path / "store")
    shutil.rmtree(copied / "r0-f1")
    shutil.copytree(copied / "r0-f0", copied / "r0-f1")
    with pytest.raises(FitError, match=r"x1-a: the bag does not suit model abmil \(weights_sha256"):
        external_validation(run, "abmil", table, copied)
    (run.path / "folds" / "r0-f1" / "tuned" / "weights.safetensors").unlink()
    with pytest.raises(FitError, match=r"r0-f1/tuned/weights.safetensors is not there.*run again"):
        external_validation(
            run, "abmil", table, tmp_path / "another", slides=slides_in(place / "new")
        )
    with pytest.raises(
        RunError, match=r"backbone in each fold on folders of tiles.*\(external_validation\)"
    ):
        predictor_of_run(run, "abmil")


def test_slides_that_cannot_be_embedded_end_the_run_or_are_left_out(place, run, tmp_path):
    folder = shutil.copytree(place / "new", tmp_path / "new")
    for path in folder.glob("x2-a-*"):
        path.write_bytes(b"no image")
    arguments = (run, "majority", tmp_path / "other.csv", tmp_path / "store")
    with pytest.raises(FitError, match="x2-a"):
        external_validation(*arguments, slides=slides_in(folder))
    notes = []
    validation = external_validation(
        *arguments, slides=slides_in(folder), allow_missing=True, notify=notes.append
    )
    assert set(validation.predictions.table["case"]) == {"x1", "x3"}
    assert any("x2-a" in note for note in notes)


def test_progress_names_the_backbone(place, run, tmp_path):
    names = []

    class Watched(fold_bags.Silent):
        def task(self, name, total, unit):
            names.append(name)
            return super().task(name, total, unit)

    slides = slides_in(place / "new", progress=Watched())
    external_validation(run, "majority", tmp_path / "other.csv", tmp_path / "store", slides=slides)
    assert {name.split(":")[0] for name in names} == {f"backbone {n}/4" for n in (1, 2, 3, 4)}


def test_the_command_embeds_the_slides_of_the_other_hospital(place, run, tmp_path, mil):
    options = ["--slides", place / "new", "--slide-mpp", "0.5", "--device", "cpu", "--workers", "1"]
    command = ["external", run.path, tmp_path / "other.csv", tmp_path / "store", "--model", "abmil"]
    refused = mil(*command, "--slide-mpp", "0.5", check=False)
    assert refused.returncode == 2
    assert "Give --slides" in refused.stderr
    done = mil(*command, *options)
    assert "abmil, the mean of 4 fits, on cases none of them has seen" in done.stdout
    assert (run.path / "external" / "other" / "predictions.csv").is_file()
    assert sorted(path.name for path in (tmp_path / "store").iterdir() if path.is_dir()) == [
        "r0-f0", "r0-f1", "r1-f0", "r1-f1",
    ]  # fmt: skip


def test_the_inner_part_and_the_epoch_of_each_fold_are_in_the_run(place):
    tuned = json.loads((place / "run" / "run.json").read_text())["tuned"]
    assert sorted(tuned) == ["r0-f0", "r0-f1", "r1-f0", "r1-f1"]
    assert tuned["r1-f0"] == {"epochs_run": 2, "kept_epoch": 2, "chosen_by": []}
