"""Parameters that a message or help text of the library names, shown as flags of the running verb."""

import re
from collections.abc import Mapping

# Written in one of these ways, a name is a parameter, and not an English word or a part of a path.
_PARAMETER = re.compile(
    r"(?<![\w./'\"`-])(?:"
    r"(?P<assigned>[a-z]\w*)=(?:\.\.\.|(?P<quote>[\"']?)(?P<value>[^\s\"',;()]*[^\s\"',;().])(?P=quote))"
    r"|(?P<compound>[a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?![\w/'\"`=-]|\.\w)"
    r"|(?P<before>(?:[Ss]et|[Pp]ass|and(?= [a-z]+ to \d)) )(?P<called>[a-z]+)(?![\w/'\"`=-]|\.\w)"
    r"|(?<=\()(?P<bracketed>[a-z]+)(?=\))"
    r"|(?:(?<=^)(?P<subject>[a-z]+)(?= (?:is|are|takes) ))"
    r")"
)

NAMES = ("assigned", "compound", "called", "bracketed", "subject")

_running: dict[str, str] = {}
_of_all_verbs: dict[str, str] = {
    "external_validation": "mil external"
}  # a verb, where one is meant


def use_flags(flags: Mapping[str, str]) -> None:
    """Set the flags of the running verb, by the name of the parameter."""
    _running.clear()
    _running.update(flags)


def add_flags(flags: Mapping[str, str]) -> None:
    """Add the flags of a verb, for messages of other verbs."""
    _of_all_verbs.update(flags)


def with_flags(text: str, flags: Mapping[str, str] | None = None) -> str:
    """The text with flags in place of parameters.

    The name of a parameter is replaced where it is written as ``name=value``, has an underscore, follows Set
    or Pass ("Set workers lower."), stands alone in brackets, or is the subject at the start ("epochs is at
    least 1"). Other words that are also names (time, event, model) are left alone. What only another verb
    takes, such as case_from in an audit, is that verb's flag.

    Args:
        text: a message or help text of the library.
        flags: flag by parameter; those of the running verb if not given.

    Example:
        >>> with_flags("Set mpp to 0.5 (early_stopping='never').", {"mpp": "--mpp", "early_stopping": "-e"})
        'Set --mpp to 0.5 (-e never).'
    """
    others = _of_all_verbs if flags is None else {}
    flags = _running if flags is None else flags

    def replace(match: "re.Match[str]") -> str:
        name = next(match[group] for group in NAMES if match[group])
        flag = flags.get(name) or (others.get(name) if match["compound"] else None)
        if flag is None:
            return match[0]
        blank = "" if flag.endswith("=") else " "  # --set split.folds=3
        value = f"{blank}{match['value']}" if match["value"] else ""
        return f"{match['before'] or ''}{flag if value else flag.rstrip('=')}{value}"

    return _PARAMETER.sub(replace, text)
