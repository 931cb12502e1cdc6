"""Options that take one of a few names: the help lists them, a shell completes them, others are refused."""

import pytest
import typer

from cli.convert import ConvertOptions
from cli.explain import ExplainOptions
from cli.learn import CrossvalOptions
from cli.main import app
from cli.options import UsageError, build
from features.bags.layouts import LAYOUTS
from mil.explanation.methods import METHODS
from mil.tasks.names import TASKS


def option(verb, flag):
    command = typer.main.get_command(app).commands[verb]
    return next(parameter for parameter in command.params if flag in parameter.opts)


@pytest.mark.parametrize(
    ("verb", "flag", "names"),
    [
        ("explain", "--method", METHODS),
        ("convert", "--from", ("auto", *LAYOUTS)),
        ("train", "--loss", [loss for row in TASKS.values() for loss in row.losses]),
        ("crossval", "--task", TASKS),
        ("convert", "--unit", ("px", "um", "tile")),
    ],
)
def test_help_lists_the_names_and_a_shell_completes_them(verb, flag, names):
    parameter = option(verb, flag)
    _, _, note = parameter.help.partition("[choices: ")
    listed = note.partition("]")[0].split(", ") if note else parameter.metavar[1:-1].split("|")
    assert set(names) <= set(listed)
    for name in names:
        completed = [item.value for item in parameter.shell_complete(None, name[:2])]
        assert name in completed
        assert all(other.startswith(name[:2]) for other in completed)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ExplainOptions, {"run": "r", "method": "shaply"}, "Did you mean 'shapley'"),
        (ConvertOptions, {"inputs": ["f"], "layout": "tridnt"}, "Did you mean 'trident'"),
        (CrossvalOptions, {"cohort": "c", "store": "s", "loss": "coxx"}, "Did you mean 'cox'"),
    ],
)
def test_a_misspelled_name_is_refused_with_the_nearest(kind, values, message):
    with pytest.raises(UsageError, match=message):
        build(kind, {"out": "o", **values}, None)
