"""Training that starts from the weights of a head that was trained on other cases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mil.data.splits import split_cases
from mil.errors import FitError, LeakageError
from mil.heads.ensemble import members_of
from mil.learning.crossval import cross_validate
from mil.learning.fitted import load_model, predict
from mil.learning.head_weights import note_start
from mil.learning.training import fit_model
from mil.runs.external import check_unseen
from mil.settings import FitSettings, SplitSettings
from tests.mil.made import RECIPE, cohort_of, made_case

SETTINGS = FitSettings(seeds=2, epochs=4, width=8)


def cohort(prefix, classes="AB", n=4, recipe=RECIPE, seed=0, dim=5):
    rng = np.random.default_rng(seed)
    return cohort_of(
        [
            made_case(
                f"{prefix}{label}{i}",
                label,
                rng.normal(size=(6, dim)).astype(np.float32) + 2 * k,
                recipe=recipe,
                source_sha256=f"file {prefix}{label}{i}",
            )
            for k, label in enumerate(classes)
            for i in range(n)
        ]
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model of other cases, on disk."""
    old = cohort("old")
    fitted = fit_model("abmil", old.cases, [], old.classes, SETTINGS, seed=1)
    path = tmp_path_factory.mktemp("start") / "abmil.safetensors"
    fitted.save(path)
    return path


def fit(cases, model="abmil", classes=("A", "B"), **settings):
    return fit_model(model, cases, [], classes, replace(SETTINGS, **settings), seed=3)


def test_weights_and_scale_are_taken_over_by_every_seed(start):
    new = cohort("new", seed=9)
    # a learning rate this small leaves what it begins with
    fitted = fit(new.cases, head_weights=str(start), epochs=1, learning_rate=1e-12, weight_decay=0)
    for ours, theirs in zip(
        members_of(fitted.head), members_of(load_model(start).head), strict=True
    ):
        for name, weight in theirs.state_dict().items():
            assert torch.allclose(ours.state_dict()[name], weight, atol=1e-6), name
    fresh = fit(new.cases, epochs=1, learning_rate=1e-12, weight_decay=0)
    weights = [members_of(of.head)[0].embed[0].weight for of in (fitted, fresh)]
    assert not torch.allclose(*weights, atol=1e-3)


def test_another_number_of_classes_begins_with_a_new_classifier(start):
    new = cohort("new", "ABC", seed=9)
    fitted = fit(
        new.cases, classes=("A", "B", "C"), head_weights=str(start), epochs=1, learning_rate=1e-12
    )
    ours, theirs = members_of(fitted.head)[1], members_of(load_model(start).head)[1]
    assert torch.allclose(ours.embed[0].weight, theirs.embed[0].weight, atol=1e-6)
    assert ours.classify.weight.shape == (3, 8)


def probabilities(fitted, study):
    return {case.name: predict(fitted, bag) for case in study.cases for bag in case.bags}


NO_STEP = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0}


@pytest.mark.parametrize(
    "model", ["abmil", "clam-mb", "clam-sb", "dsmil", "additive-abmil", "transmil", "dtfd", "max"]
)
def test_answers_are_taken_over_by_the_names_of_classes_whatever_their_order(tmp_path, model):
    """The same cases with the same classes in another order: the start answers as it did."""
    study = cohort("old", "ABC")
    first = fit_model(model, study.cases, [], study.classes, SETTINGS, seed=1)
    first.save(tmp_path / "start.safetensors")
    again = fit(
        study.cases,
        model,
        ("C", "A", "B"),
        head_weights=str(tmp_path / "start.safetensors"),
        **NO_STEP,
    )
    before, after = probabilities(first, study), probabilities(again, study)
    for case, answer in before.items():
        for name, value in answer.items():
            assert after[case][name] == pytest.approx(value, abs=1e-4), (case, name)


@pytest.mark.parametrize(("classes", "rows"), [("BD", {0: 1}), ("XY", {}), ("ZAB", {1: 0, 2: 1})])
def test_a_class_that_the_start_does_not_know_begins_anew(start, classes, rows):
    new = cohort("new", classes, seed=9)
    fitted = fit(new.cases, classes=tuple(classes), head_weights=str(start), **NO_STEP)
    fresh = fit(new.cases, classes=tuple(classes), **NO_STEP)
    for ours, theirs, begun in zip(
        *(members_of(of) for of in (fitted.head, load_model(start).head, fresh.head)), strict=True
    ):
        for place in range(len(classes)):
            expected = theirs if place in rows else begun
            row = rows.get(place, place)
            for weights, of in ((ours.classify.weight, expected.classify.weight),
                                (ours.classify.bias, expected.classify.bias)):  # fmt: skip
                assert torch.allclose(weights[place], of[row], atol=1e-6), place
        assert torch.allclose(ours.embed[0].weight, theirs.embed[0].weight, atol=1e-6)


def test_names_of_one_spelling_are_one_class(start):
    assert note_start(str(start), ("a", " B"), RECIPE) == []
    assert note_start(str(start), ("A", "B"), RECIPE) == []
    assert note_start("", ("C", "D"), RECIPE) == []


def test_what_begins_anew_and_bags_of_another_scale_are_remarked_on(start):
    [partly] = note_start(str(start), ("B", "C", "D"), RECIPE)
    assert partly == (
        "head_weights: its model answers A, B. What it learnt of B is taken over by name; the rest "
        "(C, D) begins anew."
    )
    [none] = note_start(str(start), ("lms", "ss"), RECIPE)
    assert (
        "answers A, B, none of which is an outcome of this table. Its last layer begins anew"
        in none
    )
    [scale] = note_start(str(start), ("A", "B"), RECIPE | {"mpp": 0.7, "tile": 300})
    mpp, tile = (RECIPE.get(key, "unknown") for key in ("mpp", "tile"))
    assert f"made otherwise (mpp {mpp}, here 0.7; tile {tile}, here 300)" in scale


def test_the_model_has_seen_what_its_start_has_seen(start, tmp_path):
    new = cohort("new", seed=9)
    fitted = fit(new.cases, head_weights=str(start))
    assert {"oldA0", "oldB3", "newA1"} <= set(fitted.trained_on)
    assert {"file oldA0", "file newB2"} <= set(fitted.trained_on_slides)
    fitted.save(tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors")
    assert again.trained_on_slides == fitted.trained_on_slides
    assert "oldA0" not in fit(new.cases, "mean", head_weights=str(start)).trained_on


def renamed(cases):
    return cohort_of([replace(case, name=f"pt-{case.name}") for case in cases])


@pytest.mark.parametrize("rename", [False, True], ids=["by name", "by slide"])
def test_a_case_that_the_start_has_seen_is_not_tested(start, rename):
    mixed = [*cohort("new", seed=9).cases, *cohort("old").cases[:1]]
    study = renamed(mixed) if rename else cohort_of(mixed)
    folds = split_cases(study.names, study.labels, [""] * 9, SplitSettings(folds="2"))
    with pytest.raises(LeakageError, match=r"head_weights.*has seen 1 cases.*oldA0"):
        cross_validate(
            study, folds, ["abmil"], replace(SETTINGS, head_weights=str(start)), seed=0, workers=1
        )
    cross_validate(study, folds, ["mean"], SETTINGS, seed=0, workers=1)


def test_external_cases_that_the_start_has_seen_are_refused(start):
    class Run:
        labels = {}
        bags = {}

    fitted = fit(cohort("new", seed=9).cases, head_weights=str(start))
    external = renamed(cohort("old").cases)
    with pytest.raises(LeakageError, match="8 of 8 cases were used"):
        check_unseen(Run(), [fitted], external)
    check_unseen(Run(), [fitted], cohort("unseen", seed=4))


def test_what_does_not_suit_is_refused_with_the_remedy(start, tmp_path):
    new = cohort("new", seed=9)
    folds = split_cases(new.names, new.labels, [""] * 8, SplitSettings(folds="2"))

    def run(study, models=("abmil",), path=start, **settings):
        asked = replace(SETTINGS, head_weights=str(path), **settings)
        return cross_validate(study, folds, list(models), asked, seed=0, workers=1)

    with pytest.raises(FitError, match=r"of abmil, and mean is trained. Add abmil"):
        run(new, ["mean"])
    other = cohort("new", recipe=RECIPE | {"backbone": "another"}, seed=9)
    with pytest.raises(FitError, match=r"features of toy .*the bags are of another"):
        run(other)
    with pytest.raises(
        FitError, match=r"width 8 for 5 features; the head to train has width 16.*Set width to 8"
    ):
        run(new, width=16)
    with pytest.raises(FitError, match="no such file"):
        run(new, path=tmp_path / "none.safetensors")
    save_file({"embed.0.weight": torch.zeros(8, 5)}, tmp_path / "bare.safetensors")
    with pytest.raises(FitError, match="no card that says what it is and which cases it has seen"):
        run(new, path=tmp_path / "bare.safetensors")
