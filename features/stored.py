"""Settings and facts as values again: out of JSON, TOML and the command line, refused in one wording."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from features.arguments import describe_mismatch
from features.choices import choice_problem

T = TypeVar("T")


def as_tuples(value: Any) -> Any:
    """Lists of JSON and TOML, and lists in them, as tuples; other values as they are."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def part_of_stored(kind: type[T], stored: Mapping[str, Any]) -> T:
    """A dataclass from those of its fields that are stored among others; None stands for the default.

    Args:
        kind: of the dataclass.
        stored: values of JSON, also those of other classes.
    """
    names = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    values = {name: as_tuples(stored[name]) for name in names if name in stored}
    return kind(**{n: v for n, v in values.items() if v is not None or names[n] is None})


def all_of_stored(
    kind: type[T], stored: Mapping[str, Any], error: type[Exception] = ValueError
) -> T:
    """A dataclass from all that is stored of it.

    Args:
        kind: of the dataclass.
        stored: values of JSON.
        error: that is raised.

    Raises:
        Exception: of the given kind: a value is stored that the dataclass does not have, or one is missing.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in stored if name not in known]
    if unknown:
        raise error(
            f"{unknown[0]} is not known to this version. Upgrade sarcomil, or make the file again."
        )
    try:
        return kind(**{name: as_tuples(value) for name, value in stored.items()})
    except TypeError as problem:
        raise error(f"{problem}. Make the file again.") from problem


def check_version(source: object, version: int, known: int, error: type[Exception]) -> None:
    """Refuse what a newer version has written.

    Args:
        source: of the file.
        version: of its format.
        known: the newest that can be read.
        error: that is raised.

    Raises:
        Exception: of the given kind.
    """
    if version > known:
        raise error(f"{source}: written by a newer version. Upgrade sarcomil.")


def typed_value(
    name: str,
    value: Any,
    hint: Any,
    error: type[Exception],
    *,
    choices: Sequence[str] = (),
    default: Any = None,
) -> Any:
    """A value of TOML or of the command line with the type of a setting.

    Args:
        name: of the setting.
        value: as it was written.
        hint: the type.
        error: that is raised.
        choices: the values that it takes; any if empty.
        default: of the setting.

    Raises:
        Exception: of the given kind: the value has another type, or is none of the choices.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if isinstance(value, bool) and not _takes_truth(hint):
        raise error(describe_mismatch(name, value, hint, typed=False))
    if choices and (problem := choice_problem(name, value, choices, default)):
        raise error(problem)
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(coerce_numbers_to_str=True))
        return adapter.validate_python(value)
    except ValidationError as mismatch:
        raise error(describe_mismatch(name, value, hint, typed=False)) from mismatch


def _takes_truth(hint: Any) -> bool:
    """Whether a type is that of a switch, or of one that may be left open."""
    return bool(hint is bool or bool in getattr(hint, "__args__", ()))
