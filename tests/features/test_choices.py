"""Values that must be one of a few names, and the nearest name of a misspelled one."""

from dataclasses import dataclass
from typing import Literal

import pytest

from features.choices import (
    check_choices,
    choice_problem,
    choices_of,
    closest,
    did_you_mean,
    suggest,
    twice_problem,
)
from features.errors import FeaturesError


@dataclass(frozen=True)
class Settings:
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    drop: tuple[Literal["blur", "pen"], ...] = ()
    to: Literal["stamp", "clam"] | None = None
    name: str = "any"


def test_choices_of_hints():
    assert choices_of(Literal["a", "b"]) == ("a", "b")
    assert choices_of(tuple[Literal["a"], ...]) == ("a",)
    assert choices_of(Literal["a"] | None) == ("a",)
    assert choices_of(str) == choices_of(tuple[str, ...]) == choices_of(int | None) == ()


def test_allowed_values_pass():
    check_choices(Settings(), FeaturesError)
    check_choices(Settings(precision="bf16", drop=("pen", "blur"), to="clam"), FeaturesError)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"precision": "pf32"},
            "precision is auto, fp32 or bf16; got 'pf32'. Did you mean 'fp32'?",
        ),
        ({"precision": "x"}, "precision is auto, fp32 or bf16; got 'x'. Use auto."),
        ({"drop": ("pen", "blurr")}, "drop is blur or pen; got 'blurr'. Did you mean 'blur'?"),
        ({"drop": ("dust",)}, "drop is blur or pen; got 'dust'. Choose one of them."),
        ({"to": "x"}, "to is stamp or clam; got 'x'. Choose one of them."),
        ({"precision": None}, None),
    ],
)
def test_a_wrong_value_is_refused_with_the_choices(values, message):
    if message is None:
        check_choices(Settings(**values), FeaturesError)
        return
    with pytest.raises(FeaturesError) as caught:
        check_choices(Settings(**values), FeaturesError)
    assert str(caught.value) == message


def test_one_choice_is_named_alone():
    assert choice_problem("loss", "cox", ("cumulative",)) == "loss is cumulative; got 'cox'."
    assert choice_problem("unit", "mm", ("px", "um"), None).endswith(
        "got 'mm'. Choose one of them."
    )


def test_the_closest_names_come_first():
    known = ["resnet18", "resnet50", "vit"]
    assert closest("resnet5O", known, 2) == ["resnet50", "resnet18"]
    assert suggest("resnet5O", known, 2) == " Did you mean 'resnet50' or 'resnet18'?"
    assert suggest("zzz", known) == ""


@pytest.mark.parametrize(
    ("name", "known", "nearest"),
    [
        ("case-01", [f"case-{i:02d}-s1" for i in range(30)][::-1], "case-01-s1"),
        ("Case-10", ["case-01-s1", "case-10-s1", "case-11-s1"], "case-10-s1"),
        ("tx17-b", ["tx71", "tx17"], "tx17"),
        ("slide-12", ["slide-21", "slide-13"], "slide-13"),  # equally similar: the longer beginning
        ("mean2", ["median", "mean"], "mean"),
        ("tumor", ["rumor", "tumour"], "tumour"),
    ],
)
def test_a_common_beginning_wins(name, known, nearest):
    assert closest(name, known) == closest(name, known[::-1]) == [nearest]


def test_nothing_is_close_to_an_empty_name():
    assert closest("", ["a", "b"]) == closest("a", []) == []


def test_a_name_that_comes_twice_is_reported():
    assert (
        twice_problem("metric", ["b", "a", "b", "a"])
        == "The metric 'b' is named twice. Name it once."
    )
    assert twice_problem("metric", ["b", "a"]) == ""


def test_the_sentence_names_each_once():
    assert did_you_mean(["a", "b", "a"]) == " Did you mean a or b?"
    assert did_you_mean([]) == ""


def test_a_string_is_no_tuple_of_names():
    from features.errors import FeaturesError
    from features.recipe import Recipe
    from mil.errors import FitError
    from mil.settings import FitSettings

    with pytest.raises(
        FeaturesError, match=r"classes is a tuple of names; got 'Tumor'. Write \('Tumor',\)"
    ):
        Recipe(classes="Tumor")
    with pytest.raises(FeaturesError, match="drop is a tuple of names; got 'blur'"):
        Recipe(drop="blur")
    with pytest.raises(FitError, match="clinical is a tuple"):
        FitSettings(clinical="age")


@pytest.mark.parametrize(
    ("name", "known", "close"),
    [("TRANSMIL", ["TransMIL", "mean"], ["TransMIL"]), ("Ddlps", ["LMS", "DDLPS"], ["DDLPS"]),
     ("resNet5O", ["ResNet50", "resnet50"], ["ResNet50"]), ("XYZ", ["abc"], [])],
)  # fmt: skip
def test_capitals_do_not_count_among_close_names(name, known, close):
    assert closest(name, known) == close
