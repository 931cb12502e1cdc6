"""Settings out of JSON, TOML and the command line: one room, one wording."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from features.backbones.network_recipe import NetworkRecipe
from features.stored import all_of_stored, as_tuples, check_version, part_of_stored, typed_value

REPO = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Dose:
    """Made settings."""

    name: str
    steps: tuple[int, ...] = (1, 2)
    rate: float = 0.5
    unit: str | None = None


def test_a_part_leaves_what_is_not_its_own_and_takes_defaults_for_none():
    stored = {"name": "a", "steps": [3, 4], "rate": None, "unit": None, "other": [1]}
    assert part_of_stored(Dose, stored) == Dose(name="a", steps=(3, 4))


def test_lists_in_lists_become_tuples():
    assert as_tuples([[1, 2], "a", [[3]]]) == ((1, 2), "a", ((3,),))
    assert as_tuples({"a": [1]}) == {"a": [1]}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"name": "a", "speed": 3}, "speed is not known to this version. Upgrade sarcomil"),
        ({"steps": [1]}, "missing 1 required keyword-only argument: 'name'. Make the file again"),
    ],
)
def test_a_whole_refuses_what_it_does_not_know_and_what_it_lacks(stored, message):
    with pytest.raises(KeyError, match=message):
        all_of_stored(Dose, stored, KeyError)
    assert all_of_stored(Dose, {"name": "b", "steps": []}) == Dose(name="b", steps=())


def test_an_unknown_key_of_a_weights_file_is_refused():
    with pytest.raises(ValueError, match="contrast is not known to this version"):
        NetworkRecipe.from_json('{"name": "resnet18", "contrast": 2}')


def test_a_newer_version_is_refused_and_an_older_is_not():
    check_version("a.h5", 2, 2, OSError)
    with pytest.raises(OSError, match=r"^a\.h5: written by a newer version\. Upgrade sarcomil\.$"):
        check_version("a.h5", 3, 2, OSError)


@pytest.mark.parametrize(
    ("value", "hint", "typed"),
    [
        ("3", int, 3),
        (7, str, "7"),
        (["1", 2], tuple[int, ...], (1, 2)),
        (True, bool, True),
        (False, bool | None, False),
        ("fast", Literal["fast", "slow"], "fast"),
    ],
)
def test_a_value_gets_the_type_of_its_setting(value, hint, typed):
    assert typed_value("n", value, hint, OSError) == typed


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "n must be a whole number; got True"),
        (True, tuple[int, ...], "n must be a list of whole numbers; got True"),
        ("x", float, "n must be a number; got 'x'"),
    ],
)
def test_a_value_of_another_type_is_refused(value, hint, message):
    with pytest.raises(OSError, match=message):
        typed_value("n", value, hint, OSError)


def test_a_value_that_is_no_choice_is_refused_with_the_nearest():
    with pytest.raises(OSError, match=r"n is fast or slow; got 'sloww'\. Did you mean 'slow'"):
        typed_value("n", "sloww", str, OSError, choices=("fast", "slow"))


REBUILT = re.compile(r"tuple\(\w+\) if isinstance\(\w+, list\)|TypeAdapter\(")


def test_settings_are_rebuilt_in_one_room():
    files = [
        path.relative_to(REPO).as_posix()
        for package in ("features", "mil", "cli")
        for path in sorted((REPO / package).rglob("*.py"))
        if REBUILT.search(path.read_text(encoding="utf-8"))
    ]
    assert files == ["features/stored.py"]
