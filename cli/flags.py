"""Parameters that a message or a help text of the library names, shown as flags of the running verb."""

import re
from collections.abc import Iterable, Mapping
from functools import cache

from cli.user_words import words_of

_NAME_ENDS = r"(?![\w/'\"`=-]|\.\w)"
# Marked so, a name is a parameter in a help text and in a message.
_MARKED = (
    r"(?P<assigned>[a-z]\w*)=(?:\.\.\.|(?P<quote>[\"']?)(?P<value>[^\s\"',;()]*[^\s\"',;().])(?P=quote))"
    rf"|(?P<compound>[a-z][a-z0-9]*(?:_[a-z0-9]+)+){_NAME_ENDS}"
)
# Only in a message: as what an instruction is about, one or a list of them, or as the subject of the message.
_INSTRUCTED = (
    r"(?P<before>(?:[Ss]et|[Pp]ass|[Ll]eave out|and(?= [a-z]+ to (?:\d|…))) )"
    rf"(?P<called>[a-z]\w*{_NAME_ENDS}"
    rf"(?:(?:, (?:and |or )?| and | or )(?!set |pass |leave )[a-z]\w*{_NAME_ENDS})*)"
    r"|(?<=[Ll]eave )(?P<left>[a-z]+)(?= (?:unset|empty|out)\b)"
    r"|(?<=\()(?P<bracketed>[a-z]+)(?=\))"
    r"|(?<=^)(?P<subjects>[a-z]+(?:, [a-z]+)* and [a-z]+)(?= (?:are|belong) )"
    r"|(?:(?<=^)(?P<subject>[a-z]+)"
    r"(?= (?:is|are|takes|names|shows|says|must|belongs|and \w+ go|(?:[\w.…-]+ )?needs) ))"
)
_NOT_INSIDE = r"(?<![\w./'\"`-])"  # another word, a quotation or a path
_IN_HELP = re.compile(f"{_NOT_INSIDE}(?:{_MARKED})")
_IN_MESSAGE = re.compile(f"{_NOT_INSIDE}(?:{_MARKED}|{_INSTRUCTED})")

LISTS = ("called", "subjects")
NAMES = ("assigned", "compound", "left", "bracketed", "subject")
INSTRUCTIONS = ("assigned", "left", "bracketed")  # only a parameter is written so

OF_ALL_VERBS: dict[str, str] = {  # flag by parameter, and a verb where one is meant
    "external_validation": "mil external",
    "predict_slides": "mil predict",
}
_running: dict[str, str] = {}
_values: list[object] = []  # of the command line


def use_flags(flags: Mapping[str, str]) -> None:
    """Set the flags of the running verb, by the name of the parameter."""
    _running.clear()
    _running.update(flags)


def use_values(values: Iterable[object]) -> None:
    """Set the values of the running command line, whose words are the user's own."""
    _values[:] = values
    _users_words.cache_clear()


def add_flags(flags: Mapping[str, str]) -> None:
    """Add the flags of a verb, for messages of other verbs."""
    OF_ALL_VERBS.update(flags)


def with_flags(text: str, flags: Mapping[str, str] | None = None) -> str:
    """A message with flags in place of parameters.

    The name of a parameter is replaced where it is written as ``name=value``, has an underscore, follows Set,
    Pass or Leave ("Set workers lower.", "Leave out slides and annotations."), stands alone in brackets, or
    is a subject at the start ("epochs must be at least 1", "interval and coverage are about classes"). Other
    words that are also names (time, event, model) are left alone. What only another verb takes, such as
    case_from in an audit, is that verb's flag. A word of the user, out of the command line or a table there,
    stays as it is unless it is plainly an instruction.

    Args:
        text: a message of the library.
        flags: flag by parameter; those of the running verb if not given.

    Example:
        >>> with_flags("Set mpp to 0.5 (early_stopping='never').", {"mpp": "--mpp", "early_stopping": "-e"})
        'Set --mpp to 0.5 (-e never).'
    """
    running = flags is None
    others = OF_ALL_VERBS if running else {}
    flags = _running if flags is None else flags

    def replace(match: "re.Match[str]") -> str:
        if listed := next((match[group] for group in LISTS if match[group]), ""):
            return (match["before"] or "") + _list_with_flags(listed, flags, others)
        name = next(match[group] for group in NAMES if match[group])
        flag = flags.get(name) or (others.get(name) if "_" in name else None)
        instructs = any(match[group] for group in INSTRUCTIONS)
        if flag is None or (running and not instructs and name in _users_words()):
            return match[0]
        return _with_value(flag, match["value"])

    return _IN_MESSAGE.sub(replace, text)


def help_with_flags(text: str, flags: Mapping[str, str]) -> str:
    """A help text with flags in place of the parameters that are marked: ``name=value``, or an underscore.

    Prose is left alone ("Leave out slides with less tumour"): help texts describe and give no instructions.
    """

    def replace(match: "re.Match[str]") -> str:
        flag = flags.get(match["assigned"] or match["compound"])
        return match[0] if flag is None else _with_value(flag, match["value"])

    return _IN_HELP.sub(replace, text)


def _list_with_flags(names: str, flags: Mapping[str, str], others: Mapping[str, str]) -> str:
    """Names with commas, *and* or *or* between them as flags, up to the first that is none.

    In a list that starts with a flag of the running verb, a flag of another verb is shown as one too.
    """
    parts = re.split(r"(\W+(?:(?:and|or) )?)", names)
    shown: list[str] = []
    for index, name in enumerate(parts[::2]):
        flag = flags.get(name) or (others.get(name) if shown or "_" in name else None)
        if flag is None:
            return "".join([*shown, *parts[2 * index :]])
        shown += [flag.rstrip("="), *parts[2 * index + 1 : 2 * index + 2]]
    return "".join(shown)


def _with_value(flag: str, value: str | None) -> str:
    """``--mpp 0.5``; ``--set split.folds=3`` of a flag that ends so."""
    if not value:
        return flag.rstrip("=")
    return f"{flag}{value}" if flag.endswith("=") else f"{flag} {value}"


@cache
def _users_words() -> frozenset[str]:
    return words_of(_values)
