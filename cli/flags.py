"""Parameters that a message or help text of the library names, shown as flags of the running verb."""

import re
from collections.abc import Iterable, Mapping
from functools import cache

from cli.user_words import words_of

# Written in one of these ways, a name is a parameter, and not an English word or a part of a path.
_PARAMETER = re.compile(
    r"(?<![\w./'\"`-])(?:"
    r"(?P<assigned>[a-z]\w*)=(?:\.\.\.|(?P<quote>[\"']?)(?P<value>[^\s\"',;()]*[^\s\"',;().])(?P=quote))"
    r"|(?P<compound>[a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?![\w/'\"`=-]|\.\w)"
    r"|(?P<before>(?:[Ss]et|[Pp]ass|[Ll]eave out|and(?= [a-z]+ to \d)) )"
    r"(?P<called>[a-z]\w*)(?![\w/'\"`=-]|\.\w)"
    r"|(?<=[Ll]eave )(?P<left>[a-z]+)(?= (?:unset|empty|out)\b)"
    r"|(?<=\()(?P<bracketed>[a-z]+)(?=\))"
    r"|(?<=^)(?P<subjects>[a-z]+(?:, [a-z]+)* and [a-z]+)(?= (?:are|belong) )"
    r"|(?:(?<=^)(?P<subject>[a-z]+)"
    r"(?= (?:is|are|takes|names|shows|says|must|belongs|and \w+ go|(?:[\w.-]+ )?needs) ))"
    r")"
)

NAMES = ("assigned", "compound", "called", "left", "bracketed", "subject")

INSTRUCTIONS = ("assigned", "called", "left", "bracketed")  # only a parameter is written so

_running: dict[str, str] = {}
_values: list[object] = []  # of the command line
_of_all_verbs: dict[str, str] = {
    "external_validation": "mil external"
}  # a verb, where one is meant


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
    _of_all_verbs.update(flags)


def with_flags(text: str, flags: Mapping[str, str] | None = None) -> str:
    """The text with flags in place of parameters.

    The name of a parameter is replaced where it is written as ``name=value``, has an underscore, follows Set,
    Pass or Leave ("Set workers lower."), stands alone in brackets, or is a subject at the start ("epochs
    must be at least 1", "interval and coverage are about classes"). Other words that are also names (time,
    event, model) are left alone. What only another verb takes, such as case_from in an audit, is that
    verb's flag. A word of the user, out of the command line or a table there, stays as it is unless it is
    plainly an instruction.

    Args:
        text: a message or help text of the library.
        flags: flag by parameter; those of the running verb if not given.

    Example:
        >>> with_flags("Set mpp to 0.5 (early_stopping='never').", {"mpp": "--mpp", "early_stopping": "-e"})
        'Set --mpp to 0.5 (-e never).'
    """
    running = flags is None
    others = _of_all_verbs if running else {}
    flags = _running if flags is None else flags

    def replace(match: "re.Match[str]") -> str:
        if match["subjects"]:
            names = re.split(r"(\W+|\band\b)", match[0])
            return "".join(flags.get(name, name) for name in names)
        name = next(match[group] for group in NAMES if match[group])
        flag = flags.get(name) or (others.get(name) if "_" in name else None)
        instructs = any(match[group] for group in INSTRUCTIONS)
        if flag is None or (running and not instructs and name in _users_words()):
            return match[0]
        blank = "" if flag.endswith("=") else " "  # --set split.folds=3
        value = f"{blank}{match['value']}" if match["value"] else ""
        return f"{match['before'] or ''}{flag if value else flag.rstrip('=')}{value}"

    return _PARAMETER.sub(replace, text)


@cache
def _users_words() -> frozenset[str]:
    return words_of(_values)
