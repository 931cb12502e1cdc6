"""Help lines and messages as the command shows them: a flag where a parameter is meant, and only there."""

import re
import runpy
from pathlib import Path

import pytest
import typer

from cli.flags import OF_ALL_VERBS, help_with_flags, with_flags
from cli.main import app

REPO = Path(__file__).parents[2]
# After a flag, such a word shows that the noun was meant: "--slides with less", "--weights of the run".
PROSE = re.compile(r"--[a-z]+ (?:with|that|than|which|whose|of|in|inside|at|from|images|columns) ")
FLAG = r"--[a-z][\w-]*(?: [\w.…-]+)?"
JOINT = r"(?:, (?:and |or )?| and | or )"
WORD = r"(?<![\w-])(?P<word>[a-z]+(?:_[a-z]+)*)(?![\w-])"


def help_lines():
    """The text of every verb and every option."""
    commands = [("mil", typer.main.get_command(app))]
    while commands:
        name, command = commands.pop()
        commands += [
            (f"{name} {part}", sub) for part, sub in getattr(command, "commands", {}).items()
        ]
        yield command.help
        yield from (p.help for p in command.params if getattr(p, "help", ""))


def messages():
    """The messages of all packages with the flags of all verbs."""
    page = runpy.run_path(str(REPO / "docs" / "make_messages.py"))["write_page"]()
    return [line.removeprefix("- ") for line in page.splitlines() if line.startswith("- ")]


TEXTS = {"help": list(help_lines()), "messages": messages()}


def taken_for_flags(text, flags):
    """Words of prose that are shown as a flag, and parameters that stay words beside a flag."""
    wrong = [match[0] for match in PROSE.finditer(text)]
    for pattern in (f"{FLAG}{JOINT}{WORD}(?! --)", f"{WORD}{JOINT}(?=--)"):
        wrong += [match[0] for match in re.finditer(pattern, text) if match["word"] in flags]
    return wrong


@pytest.mark.parametrize("kind", TEXTS)
def test_no_word_is_taken_for_a_flag_and_no_parameter_beside_a_flag_for_a_word(kind):
    assert len(TEXTS[kind]) > 500
    wrong = {text: taken_for_flags(text, OF_ALL_VERBS) for text in TEXTS[kind]}
    assert not {text: words for text, words in wrong.items() if words}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_parameter_is_never_shown_as_python_writes_it(kind):
    flags = {name: flag for name, flag in OF_ALL_VERBS.items() if "_" in name}
    names = "|".join(map(re.escape, flags))
    pattern = rf"(?<![\w./'\"`-])(?:{names})(?![\w/'\"`.-])|\b[a-z_]+=(?:\.\.\.|True|None)"
    assert not [text for text in TEXTS[kind] if re.search(pattern, text)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Leave out masks with less.", "Leave out masks with less."),
        ("Set masks lower, pass masks.", "Set masks lower, pass masks."),
        ("A set for masks (masks).", "A set for masks (masks)."),
        ("masks is a folder.", "masks is a folder."),
        ("With masks=none and mask_side, ...", "With --masks none and --mask-side, ..."),
        ("masks=all: of every slide.", "--masks all: of every slide."),
    ],
)
def test_a_help_text_has_flags_where_a_parameter_is_marked_alone(text, shown):
    assert help_with_flags(text, {"masks": "--masks", "mask_side": "--mask-side"}) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Set masks, rings and side_px first.", "Set --masks, --rings and --side-px first."),
        ("Leave out masks or rings.", "Leave out --masks or --rings."),
        ("Leave out masks, rings, and side_px.", "Leave out --masks, --rings, and --side-px."),
        ("leave out masks and the rings.", "leave out --masks and the rings."),
        ("Set masks to 3, or set rings to 4.", "Set --masks to 3, or set --rings to 4."),
        ("Leave out masks, or set rings.", "Leave out --masks, or set --rings."),
        ("Leave out words and masks.", "Leave out words and masks."),
    ],
)
def test_an_instruction_names_all_parameters_of_a_list_or_none(text, shown):
    assert (
        with_flags(text, {"masks": "--masks", "rings": "--rings", "side_px": "--side-px"}) == shown
    )
