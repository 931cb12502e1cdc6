"""One settings class is the command line, the TOML file and run.json."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli.options import UsageError, build, plain


@dataclass(frozen=True, kw_only=True)
class Options:
    table: Path = field(metadata={"argument": "TABLE", "help": "A table."})
    rate: float = field(default=0.5, metadata={"help": "A rate."})
    folds: str = field(default="5", metadata={"help": "Folds."})
    models: tuple[str, ...] = field(default=("a", "b"), metadata={"help": "M.", "split": ","})
    classes: tuple[str, ...] = field(default=("Tumor",), metadata={"help": "C.", "flag": "--class"})
    mpp: float | None = field(default=None, metadata={"help": "Scale."})
    scales: tuple[float, ...] = field(default=(), metadata={"help": "S.", "split": ","})
    overwrite: bool = field(default=False, metadata={"help": "Overwrite."})


def toml(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_the_class():
    assert build(Options, {"table": "t.csv"}, None) == Options(table=Path("t.csv"))


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    config = toml(tmp_path, 'table = "file.csv"\nrate = 0.25\nmodels = ["x"]\nfolds = 4\n')
    built = build(Options, {"rate": 0.75}, config)
    assert built == Options(table=Path("file.csv"), rate=0.75, models=("x",), folds="4")


def test_a_file_may_write_a_key_with_dashes_or_a_list_as_one_string(tmp_path):
    built = build(Options, {"table": "t"}, toml(tmp_path, 'models = "x, y"\nclasses = "A,B"\n'))
    assert built.models == ("x", "y")
    assert built.classes == ("A,B",)  # only what splits on a comma on the command line splits here


def test_a_file_may_write_one_number_where_several_may_be(tmp_path):
    built = build(Options, {"table": "t"}, toml(tmp_path, "scales = 0.5"))
    assert built.scales == (0.5,)


def test_an_unknown_key_is_an_error_with_the_nearest_name(tmp_path):
    with pytest.raises(UsageError, match=r"unknown key 'modles'.*Did you mean 'models'"):
        build(Options, {"table": "t"}, toml(tmp_path, 'modles = "a"'))


@pytest.mark.parametrize(
    "text", ["rate = 'fast'", "overwrite = 'perhaps'", "models = 3.5e", "mpp = []"]
)
def test_a_value_of_the_wrong_type_is_an_error(tmp_path, text):
    with pytest.raises(UsageError):
        build(Options, {"table": "t"}, toml(tmp_path, text))


def test_a_missing_argument_is_named_with_its_help():
    with pytest.raises(UsageError, match=r"^TABLE is missing: a table\. See --help\.$"):
        build(Options, {}, None)


def test_plain_settings_build_the_same_settings_again(tmp_path):
    import json

    built = build(Options, {"table": tmp_path / "t.csv", "mpp": 0.5, "models": "x,y"}, None)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"settings": plain(built), "format": "mil-run"}))
    assert build(Options, {}, path) == built
