"""Messages of the library name parameters; the command line shows their flags."""

import json

import pytest

from cli.flags import add_flags, use_flags, use_values, with_flags
from mil.runs.files import FORMAT, FORMAT_VERSION

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
        ("epochs must be at least 1; got 0.", "--epochs must be at least 1; got 0."),
        ("Set classes to Tumor.", "Set --class to Tumor."),
        ("Leave out epochs.", "Leave out --epochs."),
        ("or leave slides unset to use all.", "or leave --slides unset to use all."),
        (
            "mpp 3 needs a slide, or leave out model.",
            "--mpp 3 needs a slide, or leave out --model.",
        ),
        ("event names a column.", "--event names a column."),
        ("tile and min_coverage go together.", "--tile and --min-coverage go together."),
        ("Set train to all.", "Set --train to all."),
        (
            "tile, mpp and epochs are for slides; time, event and mpp are.",
            "--tile, --mpp and --epochs are for slides; time, event and mpp are.",
        ),
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
        "Leave the slides out of the cohort, or leave out the slides.",
        "time passes, and the event needs a date.",
        "workers of the hospital are named.",
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


@pytest.fixture
def values():
    """Sets the values of the command line, for one test."""
    use_flags(FLAGS)
    yield use_values
    use_flags({})
    use_values(())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["out/learning_rate"], "out/x exists: learning_rate is no folder."),
        ([("a", "mean,early_stopping")], "No model early_stopping or a; there is mean."),
        (["--name=min_coverage"], "min_coverage exists and is not a run folder."),
        (["epochs"], "epochs is no folder."),
        (["slides/min_coverage.svs"], "min_coverage and learn have one name."),
    ],
)
def test_a_word_of_the_command_line_is_no_parameter(values, given, text):
    values(given)
    assert with_flags(text) == text
    values(())
    assert with_flags(text) != text


def test_an_instruction_names_a_parameter_whatever_the_words_of_the_command_line(values):
    values(["min_coverage", "runs/epochs", "learning_rate.csv", "cohort"])
    text = "Set min_coverage lower, pass epochs=3, or set learning_rate (cohort)."
    assert with_flags(text) == (
        "Set --min-coverage lower, pass --epochs 3, or set --learning-rate (--cohort)."
    )


TABLE = "case,slide,early_stopping,head\na,min_coverage-1,learning_rate,1\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cohort.csv", TABLE.encode()),
        ("cohort.TSV", TABLE.replace(",", "\t").encode()),
        ("cohort.txt", (TABLE + "one,more,line,of,five\n").encode()),  # refused, but read
        ("cohort.csv", TABLE.encode("utf-16")),
    ],
)
def test_columns_and_cells_of_a_table_are_no_parameters(values, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    values([tmp_path / name])
    text = (
        "it has case, early_stopping and learning_rate, but no overwrite_all; see min_coverage-1."
    )
    assert with_flags(text) == text


def test_columns_of_the_cohort_of_a_run_are_no_parameters(values, tmp_path, monkeypatch):
    cohort = tmp_path / "cohort.csv"
    cohort.write_text(TABLE)
    run = tmp_path / "run"
    run.mkdir()
    (run / "predictions.csv").write_text("case,model,p_min_coverage\na,mean,1\n")
    settings = {"cohort": str(cohort)}
    info = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": settings}
    (run / "run.json").write_text(json.dumps(info))
    values([run])
    assert with_flags("it has early_stopping, epochs=3.") == "it has early_stopping, --epochs 3."


def test_a_table_that_cannot_be_read_changes_no_message(values, tmp_path):
    (tmp_path / "cohort.xlsx").write_bytes(b"PK\x03\x04, a damaged workbook")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    values([tmp_path / "cohort.xlsx", tmp_path / "run", tmp_path / "none.csv", 3, None])
    assert with_flags("Use min_coverage.") == "Use --min-coverage."
