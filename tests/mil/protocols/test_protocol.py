"""Protocols say what a source printed, and of every setting who chose it."""

from dataclasses import fields

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_score, recall_score

from features.errors import FeaturesError
from mil.data.case import Row
from mil.errors import CohortError, ProtocolError
from mil.protocols.arm import Arm
from mil.protocols.measures import Split, TilePredictions, slide_predictions, summarise_arm
from mil.protocols.protocol import (
    HELD_OUT,
    KINDS,
    MEASURES,
    load_protocol,
    protocol_names,
    with_changes,
)
from mil.protocols.rerun import _external_split

PRINTED = {
    "usta-phase1": [0.49, 0.41, 0.39, 0.27],
    "usta-phase2": [0.7016, 0.60],
    "usta-phase3": [],
    "usta-phase4": [0.7016, 0.68, 0.60, 0.48],
    "foersch-subtypes": [0.799, 0.97],
    "thiesen-sampler": [0.969, 0.961, 0.929],
    "piffer-metastasis": [
        0.78,
        0.67,
        0.75,
        0.73,
        0.70,
        0.85,
        0.81,
        0.82,
        0.77,
        0.79,
        0.84,
        0.75,
        0.83,
        0.79,
        0.77,
        0.80,
        0.68,
        0.72,
        0.69,
        0.68,
        0.80,
        0.71,
        0.70,
        0.68,
        0.69,
        0.86,
        0.81,
        0.73,
        0.71,
        0.76,
        0.89,
        0.75,
        0.84,
        0.81,
        0.78,
        0.85,
        0.76,
        0.80,
        0.77,
        0.76,
        0.90,
        0.85,
        0.84,
        0.78,
        0.81,
        0.89,
        0.77,
        0.86,
        0.83,
        0.80,
    ],
    "navarro-grading": [0.75, 0.91, 0.40, 0.90, 0.83, 0.76, 0.62, 0.72, 0.74, 0.64],
    "yang-lipoma": [0.950, 0.9211, 0.95, 0.8889],
}


@pytest.mark.parametrize("name", protocol_names())
def test_printed_figures_are_those_of_the_source(name):
    assert [v for arm in load_protocol(name).arms for v in arm.published.values()] == PRINTED[name]


@pytest.mark.parametrize("name", protocol_names())
def test_every_setting_is_either_stated_or_ours(name):
    protocol = load_protocol(name)
    settings = {f"{s}.{n}" for s, values in protocol.settings.items() for n in values}
    explained = [*protocol.from_source, *protocol.chosen_here]
    assert len(set(explained)) == len(explained)
    of_arms = {f"arms.{entry.name}" for entry in fields(Arm)}
    assert settings <= set(explained)
    assert set(explained) <= settings | of_arms


@pytest.mark.parametrize("name", protocol_names())
def test_settings_are_those_of_the_stages_and_pass_them(name):
    protocol = load_protocol(name)
    protocol.check()
    for section, settings in protocol.settings.items():
        known = {entry.name for entry in fields(KINDS[section])} | {HELD_OUT}
        assert set(settings) <= known
    for arm in protocol.arms:
        assert arm.test in ("folds", "tiles", "fields", "external", "ensemble")
        assert arm.test != "fields" or arm.segments
        assert arm.region in ("", "segmented", "tissue")
        assert set(arm.published) <= set(MEASURES)
        assert not arm.start or arm.start in {other.name for other in protocol.arms}
        assert arm.test != "tiles" or protocol.hold_out_tiles
        assert arm.test != "ensemble" or arm.finetune
    assert set(protocol.compare) <= {arm.name for arm in protocol.arms}
    assert {arm.question for arm in protocol.arms} - {""} == set(protocol.questions)


def test_changes_are_made_and_remembered():
    protocol = with_changes(
        load_protocol("usta-phase4"),
        ["extract.max_tiles=20", "split.folds=2", "arms.backbone=resnet18", "arms=40x;16x"],
    )
    assert protocol.settings["extract"]["max_tiles"] == 20
    assert protocol.settings_of("split").folds == "2"
    assert [arm.backbone for arm in protocol.arms] == ["resnet18", "resnet18"]
    assert list(protocol.changed) == ["extract.max_tiles", "split.folds", "arms.backbone", "arms"]
    assert load_protocol("usta-phase4").settings["extract"]["max_tiles"] == 2000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("extract.max_tiles", "is not a change"),
        ("extract.max_tile=3", "Did you mean 'extract.max_tiles'"),
        ("extraxt.max_tiles=3", "is not a setting"),
        ("arms=41x", "No arm '41x'"),
        ("arms=16x", "starts from the weights of 40x"),
    ],
)
def test_what_is_no_change_is_refused(change, words):
    with pytest.raises(ProtocolError, match=words):
        with_changes(load_protocol("usta-phase4"), [change])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("extract.max_tiles=many", "extract.max_tiles must be a whole number; got 'many'"),
        ("fit.epochs=1.5", "fit.epochs must be a whole number; got 1.5"),
        ("fit.seeds=true", "fit.seeds must be a whole number; got True"),
        ("arms.mpp=abc", "arms.mpp must be a number; got 'abc'"),
        (
            "finetune.hold_out_tiles=few",
            "finetune.hold_out_tiles must be a whole number; got 'few'",
        ),
        ("extract.backbone=vgg19", r"Write arms\.backbone=vgg19"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_any_work_with_its_name(change, words):
    with pytest.raises(ProtocolError, match=words):
        with_changes(load_protocol("usta-phase1"), [change])


def test_an_arms_scale_that_cannot_be_is_refused_before_any_work():
    with pytest.raises(FeaturesError, match="mpp is micrometres per pixel"):
        with_changes(load_protocol("usta-phase1"), ["arms.mpp=-1"]).check()


def test_numbers_of_a_list_are_numbers():
    protocol = with_changes(load_protocol("usta-phase2"), ["finetune.hidden=512,256"])
    assert protocol.settings_of("finetune").hidden == (512, 256)


def test_an_unknown_study_names_the_nearest():
    with pytest.raises(ProtocolError, match="Did you mean 'usta-phase"):
        load_protocol("usta-phase")


def tiles_of(rng, classes, per_class, parts):
    """Slides with random probabilities, dealt to parts."""
    slides = []
    for label in classes:
        for i in range(per_class):
            name = f"{label}{i}"
            p = rng.dirichlet(np.ones(len(classes)), size=int(rng.integers(3, 9)))
            slides.append(
                TilePredictions(Split(i % parts, (), ()), name, f"{name}-s1", label, p, len(p))
            )
    return slides


def test_measures_over_tiles_are_the_mean_of_what_scikit_learn_computes_for_the_splits():
    classes = ("a", "b", "c")
    tested = tiles_of(np.random.default_rng(0), classes, 4, 2)
    result = summarise_arm(Arm(name="x", backbone="y", published={}), tested, classes, 1.0)
    by_split = []
    for index in (0, 1):
        members = [slide for slide in tested if slide.split.index == index]
        truth = [slide.label for slide in members for _ in slide.p]
        called = [classes[k] for slide in members for k in slide.p.argmax(axis=1)]
        by_split.append(
            [
                accuracy_score(truth, called),
                precision_score(truth, called, average="macro", zero_division=0),
                recall_score(truth, called, average="macro", zero_division=0),
            ]
        )
    measured = [result.measures[name] for name in ("accuracy", "precision", "recall")]
    assert measured == pytest.approx(np.mean(by_split, axis=0).tolist())
    assert result.n_tiles == sum(len(slide.p) for slide in tested)
    assert result.n_cases == 12


def test_cases_are_judged_by_the_mean_of_their_tiles():
    classes = ("a", "b")
    tested = tiles_of(np.random.default_rng(1), classes, 3, 3)
    table = slide_predictions("x", tested, classes).table
    for (_, row), slide in zip(table.iterrows(), tested, strict=True):
        assert [row["p_a"], row["p_b"]] == pytest.approx(slide.p.mean(axis=0).tolist())


def test_cases_that_have_trained_are_not_judged():
    tested = tiles_of(np.random.default_rng(2), ("a", "b"), 3, 1)
    arm = Arm(name="x", backbone="y", published={}, test="tiles")
    result = summarise_arm(arm, tested, ("a", "b"), 1.0)
    assert result.predictions is None
    assert set(result.measures) == {"accuracy", "precision", "recall"}


def rows(*splits):
    return [
        Row(line=i, case=f"c{i}", slide=f"s{i}", label="ab"[i % 2], split=split)
        for i, split in enumerate(splits)
    ]


def test_an_external_test_is_what_the_table_says():
    split = _external_split(rows("train", "", "test", "External"))
    assert (split.train, split.test) == (("c0", "c1"), ("c2", "c3"))


@pytest.mark.parametrize(
    ("splits", "error", "words"),
    [
        (("train", "train", "val", "test"), CohortError, "split is 'val'"),
        (("train", "train", ""), ProtocolError, "the table marks none"),
        (("train", "test", "test", "test"), ProtocolError, "no case of b to train on"),
    ],
)
def test_a_table_that_cannot_carry_it_is_refused(splits, error, words):
    with pytest.raises(error, match=words):
        _external_split(rows(*splits))
