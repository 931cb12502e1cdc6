"""Commands, options and names of Python within the manual's sentences and tables exist as written."""

import re
import shlex

import pytest
import typer

import mil
from cli import options
from cli.main import command
from tests.manual import REPO, TEXTS
from tests.verbs import VERBS

GROUPS = {verb.split()[0] for verb in VERBS if " " in verb}
EXAMPLES = {"VERB": "check", "N": "1"}  # of placeholders
WRONG_USE = (options.UsageError, typer.BadParameter.__bases__[0])


def pieces(text):
    """What stands between backticks in sentences and tables, on one line each."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", prose)]


PIECES = sorted({piece for text in TEXTS.values() for piece in pieces(text)})
COMMANDS = [piece for piece in PIECES if re.match(r"mil [^-]", piece)]
OF_ALL = {"mil --install-completion"}  # it would do something at once
OPTIONS = [piece for piece in PIECES if re.match(r"--[a-z]", piece)]
NAMES = sorted(
    {name for piece in PIECES for name in re.findall(r"^mil\.([a-zA-Z_]\w*(?:\.\w+)*)", piece)}
)


class Parsed(Exception):
    """A command line was read to its end."""


def verbs_with(option):
    """The commands that have an option, by their names."""
    found = []
    for verb in VERBS:
        entered = command()
        for name in verb.split():
            entered = entered.commands[name]
        if any(option in parameter.opts for parameter in entered.params):
            found.append(verb)
    return found


@pytest.fixture
def problem(monkeypatch):
    """What is wrong with the words of a command, which is not run: problem(words) -> text, or empty."""
    true_build = options.build

    def build(*arguments):
        true_build(*arguments)
        raise Parsed

    def read(words):
        try:
            command()([EXAMPLES.get(word, word) for word in words], standalone_mode=False)
        except Parsed:
            return ""
        except WRONG_USE as error:
            return str(error)
        return ""

    monkeypatch.setattr(options, "build", build)
    return read


def is_of_a_file(problem):
    """Whether the words are right and a file of the example is not there."""
    return "no such folder" in problem or "No such file" in problem


def is_left_out(problem):
    """Whether the words are right and too few, as where a sentence is about an option alone."""
    return bool(re.search(r"(is|are) missing[:.]|requires an argument", problem))


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_within_a_sentence_can_be_called(problem, line):
    words = shlex.split(line.replace(" ...", ""))[1:]
    if words in ([group] for group in GROUPS):
        return
    n_names = 2 if words[0] in GROUPS else 1
    whole = words[n_names:] and not words[n_names].startswith("-")
    whole = whole and "..." not in line and not re.search(r"\b[A-Z]+\b", line)
    wrong = problem(words)
    assert not wrong or is_of_a_file(wrong) or (not whole and is_left_out(wrong)), wrong


@pytest.mark.parametrize("line", OPTIONS)
def test_an_option_within_a_sentence_is_one_of_a_command(problem, line):
    words = shlex.split(line)
    verbs = verbs_with(words[0])
    wrong = [problem([*verb.split(), *words]) for verb in verbs]
    assert any(not one or is_of_a_file(one) or is_left_out(one) for one in wrong), wrong


def test_options_of_the_command_itself_exist():
    flags = {option for parameter in command().params for option in parameter.opts}
    assert {piece for piece in PIECES if piece.startswith("mil -")} == OF_ALL
    assert {line.removeprefix("mil ") for line in OF_ALL} <= flags


def test_what_is_wrong_in_a_sentence_would_be_noticed(problem):
    assert "No such command" in problem(["cross-val"])
    assert "No such option" in problem(["predict", "--abstain"])
    assert "task is diagnosis, survival or grade; got 'subtype'" in problem(
        ["crossval", "--task", "subtype"]
    )
    assert "epochs must be a whole number" in problem(["crossval", "--epochs", "many"])
    assert is_left_out(problem(["crossval"]))
    assert is_left_out(problem(["crossval", "--models"]))
    assert not verbs_with("--abstain")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_words_names_its_own_help(problem, verb):
    """Of a command in a group both names."""
    wrong = problem(verb.split())
    assert re.findall(r"See `(.*?)`", wrong) == [f"mil {verb} --help"] * bool(wrong)


def test_commands_of_groups_were_asked_without_words(problem):
    assert {"fetch idc", "segment train"} <= {verb for verb in VERBS if problem(verb.split())}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_python_within_a_sentence_exists(name):
    value = mil
    for part in name.split("."):
        value = getattr(value, part)


def test_files_that_a_sentence_names_exist():
    named = {one for piece in PIECES for one in re.findall(r"^benchmarks/\w+\.py$", piece)}
    modules = {
        one for piece in PIECES for one in re.findall(r"^python -m (benchmarks\.\w+)", piece)
    }
    named |= {f"{one.replace('.', '/')}.py" for one in modules}
    assert named
    assert [name for name in sorted(named) if not (REPO / name).is_file()] == []


def test_sentences_of_all_kinds_were_read():
    assert "mil external run-tuned hospital.csv hospital-bags" in " ".join(COMMANDS)
    assert "--optimizer" in OPTIONS
    assert "check_head" in " ".join(NAMES)
