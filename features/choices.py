"""Values that must be one of a few known names: the check, and the name that a misspelled one may mean."""

import typing
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from itertools import takewhile
from typing import Any

from features.arguments import describe_mismatch, matches
from features.errors import SarcomilError


def closest(name: str, known: Iterable[str], limit: int = 1) -> list[str]:
    """The known names most like a misspelled one, whatever its capitals, the most similar first; none if all
    differ much.

    A name of which the other is the beginning comes first; of names that are equally similar, those with the
    longest beginning in common.
    """
    name = str(name).casefold()
    spellings: dict[str, list[str]] = {}
    for one in known:
        spellings.setdefault(one.casefold(), []).append(one)
    close = get_close_matches(name, list(spellings), len(spellings) or 1)
    close.sort(key=lambda one: _likeness(name, one), reverse=True)
    return [one for spelling in close for one in spellings[spelling]][:limit]


def _likeness(name: str, other: str) -> tuple[bool, float, int]:
    """How alike two names are; the first part that differs decides."""
    ratio = SequenceMatcher(a=other, b=name).ratio()
    begins = name != "" and (other.startswith(name) or name.startswith(other))
    alike = (one == another for one, another in zip(name, other, strict=False))
    return begins, round(ratio, 9), sum(1 for _ in takewhile(bool, alike))


def suggest(name: str, known: Iterable[str], limit: int = 1) -> str:
    """A sentence, after a blank, with the known names closest to a misspelled one; empty if none is close.

    Example:
        >>> suggest("abmi", ["mean", "abmil"])
        " Did you mean 'abmil'?"
    """
    close = closest(name, known, limit)
    return did_you_mean(map(repr, close))


def did_you_mean(names: Iterable[str], conjunction: str = "or") -> str:
    """The sentence, after a blank, that names what may be meant; empty without names."""
    joined = f" {conjunction} ".join(dict.fromkeys(names))
    return f" Did you mean {joined}?" if joined else ""


def twice_problem(kind: str, names: Sequence[str]) -> str:
    """What is wrong with names of which one comes twice; empty if none does.

    Example:
        >>> twice_problem("model", ["mean", "abmil", "mean"])
        "The model 'mean' is named twice. Name it once."
    """
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    return f"The {kind} {twice[0]!r} is named twice. Name it once." if twice else ""


def unknown_problem(kind: str, names: Iterable[str], known: Sequence[str]) -> str:
    """What is wrong with names that are none of the known ones; empty if each is one.

    Example:
        >>> unknown_problem("model", ["abmi", "mean", "men"], ["mean", "abmil"])
        "No model 'abmi' or 'men'. Did you mean 'abmil' and 'mean'? Known: mean, abmil."
    """
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if not unknown:
        return ""
    hint = did_you_mean((repr(match) for name in unknown for match in closest(name, known)), "and")
    listed = f" Known: {', '.join(known)}." if known else ""
    return f"No {kind} {' or '.join(map(repr, unknown))}.{hint}{listed}"


def choices_of(hint: Any) -> tuple[str, ...]:
    """The values that a type hint allows: those of its Literal, alone, in a tuple or beside None; else none.

    Example:
        >>> choices_of(typing.Literal["auto", "never"] | None)
        ('auto', 'never')
    """
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return next((choices for part in typing.get_args(hint) if (choices := choices_of(part))), ())


def choice_problem(name: str, value: Any, choices: Sequence[str], default: Any = "") -> str:
    """What is wrong with the value of a setting that has choices; empty if nothing is.

    Args:
        name: of the setting.
        value: one value, or a tuple or list of them; None is allowed.
        choices: the allowed values.
        default: the remedy where no choice is close.

    Example:
        >>> choice_problem("precision", "pf32", ("auto", "fp32"))
        "precision is auto or fp32; got 'pf32'. Did you mean 'fp32'?"
    """
    values = value if isinstance(value, tuple | list) else (value,)
    wrong = [entry for entry in values if entry not in choices and entry is not None]
    if not wrong:
        return ""
    *first, last = choices
    allowed = f"{', '.join(first)} or {last}" if first else last
    remedy = suggest(str(wrong[0]), choices)
    if not remedy and default and isinstance(default, str):
        remedy = f" Use {default}."
    elif not remedy and default in ((), None):
        remedy = " Choose one of them."
    return f"{name} is {allowed}; got {wrong[0]!r}.{remedy}"


def check_choices(settings: Any, error: type[SarcomilError]) -> None:
    """Refuse a dataclass in which a value is not of its field's type, or none that its Literal hint allows.

    Raises:
        SarcomilError: of the given kind; the message lists the choices and names the closest.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(field.default, tuple) and isinstance(value, str):
            raise error(f"{field.name} is a tuple of names; got {value!r}. Write ({value!r},).")
    hints = _hints(settings.__class__)
    for field in fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        if not choices_of(hint) and not matches(value, hint):
            raise error(describe_mismatch(field.name, value, hint))
    for field, choices in _choice_fields(settings.__class__):
        value = getattr(settings, field.name)
        if problem := choice_problem(field.name, value, choices, field.default):
            raise error(problem)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@cache
def _choice_fields(kind: type) -> tuple[tuple["Field[Any]", tuple[str, ...]], ...]:
    """The fields with a Literal hint, and their choices."""
    hints = _hints(kind)
    pairs = ((field, choices_of(hints[field.name])) for field in fields(kind))
    return tuple((field, choices) for field, choices in pairs if choices)
