"""Messages of the library name parameters; the command line shows their flags."""

import pytest

from cli.flags import add_flags, use_flags, with_flags

FLAGS = {
    name: "--" + name.replace("_", "-")
    for name in (
        "min_coverage", "workers", "mpp", "tile", "time", "event", "model", "slides", "out", "overwrite",
        "early_stopping", "learning_rate", "epochs", "cohort", "train",
    )
} | {"classes": "--class"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Set min_coverage lower.", "Set --min-coverage lower."),
        ("Use a smaller learning_rate.", "Use a smaller --learning-rate."),
        ("or set overwrite to start again.", "or set --overwrite to start again."),
        ("Set tile to 224 and mpp to 0.5.", "Set --tile to 224 and --mpp to 0.5."),
        ("Give the table (cohort=...).", "Give the table (--cohort)."),
        ("Pass early_stopping='never'.", "Pass --early-stopping never."),
        ("Use mpp=0.5, or tile=112.", "Use --mpp 0.5, or --tile 112."),
        ("epochs is at least 1; got 0.", "--epochs is at least 1; got 0."),
        ("Set classes to Tumor.", "Set --class to Tumor."),
        ("Set train to all.", "Set --train to all."),
    ],
)
def test_a_parameter_in_a_message_becomes_its_flag(text, expected):
    assert with_flags(text, FLAGS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The time until the event is not a number in row 3.",
        "The model has seen the slides; leave out the model.",
        "Slides lie out of the cohort.",
        "/data/min_coverage/case.svs: no such file.",
        "No column 'early_stopping' in cohort.csv.",
        "data/time=3/cohort.csv is empty.",
        "min_coverage.csv: cannot be read.",
        "extract.mpp=0.5 changes every arm.",
        "A test set of slides, with time and event to come.",
        "seed_number is not known.",
        "slide-min_coverage: a name.",
    ],
)
def test_other_words_stay(text):
    assert with_flags(text, FLAGS) == text


def test_the_flags_are_those_of_the_running_verb():
    use_flags({"mpp": "--mpp"})
    try:
        assert with_flags("Set mpp and then set tile.") == "Set --mpp and then set tile."
    finally:
        use_flags({})


def test_a_parameter_of_another_verb_is_its_flag_if_it_cannot_be_a_word():
    add_flags({"case_from": "--case-from", "model": "--model"})
    use_flags({"curve": "--curve"})
    try:
        text = "set case_from to a pattern, name a model (curve), model=abmil (other)"
        assert with_flags(text) == (
            "set --case-from to a pattern, name a model (--curve), model=abmil (other)"
        )
    finally:
        use_flags({})


def test_a_function_that_another_verb_is_for_is_that_verb():
    text = "embedded by every backbone (external_validation)."
    assert with_flags(text) == "embedded by every backbone (mil external)."
