"""Arguments of public functions and values of settings, checked against their type hints.

A wrong type would raise an error deep inside, of an attribute that the caller has never heard of. Here it is
refused at the door, with what was passed and how to get what is taken.
"""

import collections.abc
import functools
import importlib
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from features.errors import ArgumentError

# How to get an object of a class, by its name.
REMEDIES = {
    "Bag": "Read it with read_bag(path).",
    "Cohort": "Load it with load_cohort(table, store).",
    "FittedModel": "Load it with load_model(path), or fit one.",
    "Predictions": "Read them with read_predictions(path), or take open_run(path).predictions().",
    "Recipe": "Write Recipe(backbone=..., mpp=...).",
    "FitSettings": "Write FitSettings(epochs=...).",
    "JudgeSettings": "Write JudgeSettings(interval=...).",
    "Run": "Open it with open_run(path).",
    "Fold": "Draw folds with split_cases.",
}
_PLAIN: dict[Any, tuple[Any, str, str]] = {  # what is taken, in words, and several of them
    bool: (bool, "True or False", "True or False"),
    int: (numbers.Integral, "a whole number", "whole numbers"),
    float: (numbers.Real, "a number", "numbers"),
    str: (str, "a text", "texts"),
    Path: (os.PathLike, "a path", "paths"),
}
_UNKNOWN = object()


class _PublicNames(dict[str, Any]):
    """Names of hints that are imported for type checkers alone; found in the package that offers them."""

    def __init__(self, package: str) -> None:
        super().__init__()
        self.package = package

    def __missing__(self, name: str) -> Any:
        module = importlib.import_module(self.package)
        if name in getattr(module, "__all__", ()):
            return getattr(module, name)
        raise KeyError(name)


@functools.cache
def checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, which refuses arguments of other types than its hints; always the same object.

    Args:
        function: with hints, some of which may be text: of classes that its package offers.
        name: under which its package offers it.
    """
    signature = inspect.signature(function)
    package = function.__module__.partition(".")[0]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = _bind(signature, name, args, kwargs)
        for parameter, value in bound.items():
            hint = _resolve(signature.parameters[parameter].annotation, function, package)
            if typing.get_origin(hint) is typing.Unpack:
                _check_options(name, value, typing.get_args(hint)[0])
            elif hint is not _UNKNOWN and not matches(value, hint):
                raise ArgumentError(describe_mismatch(f"{name}: {parameter}", value, hint))
        return function(*args, **kwargs)

    call.__module__, call.__qualname__ = package, name  # where it is found again when it is pickled
    return call


def _bind(
    signature: inspect.Signature, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Values by parameter."""
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        named = [one for one in signature.parameters.values() if one.name != "self"]
        parameters = ", ".join(map(_shown, named))
        raise ArgumentError(f"{name}: {error}. Call it as {name}({parameters}).") from None


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"**{parameter.name}"
    positional = (
        parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
    )
    return parameter.name if positional else f"{parameter.name}=..."


def _check_options(name: str, options: Mapping[str, Any], kind: Any) -> None:
    """Refuse options that are none of a typed dictionary, and values of another type."""
    hints = typing.get_type_hints(kind, None, _PublicNames(kind.__module__.partition(".")[0]))
    for option, value in options.items():
        if option not in hints:
            raise ArgumentError(f"{name} has no option {option!r}. It takes {', '.join(hints)}.")
        if value is not None and not matches(value, hints[option]):
            raise ArgumentError(describe_mismatch(f"{name}: {option}", value, hints[option]))


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; hints that cannot be checked match everything.

    Numbers of numpy are numbers, and whatever can be looped over is a sequence.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is None or hint is type(None):
        return hint is Any or value is None
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, part) for part in parts)
    if hint in _PLAIN:
        boolean = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # numpy's
        return boolean if hint is bool else isinstance(value, _PLAIN[hint][0]) and not boolean
    if origin is type:
        return isinstance(value, type)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Iterable) and origin.__module__ != "numpy":
        return _all_match(value, parts)
    kind = origin or hint
    if kind in (Callable, collections.abc.Callable):
        return callable(value)
    if not isinstance(kind, type) or kind.__module__ == "numpy":
        return True
    return getattr(kind, "_is_protocol", False) or isinstance(value, kind)


def _all_match(value: Any, parts: tuple[Any, ...]) -> bool:
    """Whether the entries of a sequence are of a type; one text stands for a sequence of texts."""
    first = parts[0] if parts else Any
    if isinstance(value, str):
        return matches(value, first)
    if not isinstance(value, Iterable):
        return False
    return not isinstance(value, list | tuple) or all(matches(entry, first) for entry in value)


def describe_mismatch(name: str, value: Any, hint: Any, *, typed: bool = True) -> str:
    """What a parameter takes, what was passed, and how to get what it takes.

    Args:
        name: of the parameter.
        value: that was passed.
        hint: its type.
        typed: whether the type of the value is named, which is of no use where all values are text.
    """
    shown = repr(value)
    shown = f"{shown[:57]}..." if len(shown) > 60 else shown
    kind = type(value).__name__
    what = f"{shown}, {_article(kind)} {kind}" if typed and value is not None else shown
    words = _words(hint) if typed else _words(hint).removesuffix(" or None")
    words = words if typed else words.replace("a tuple of", "a list of")
    remedies = [remedy for name_, remedy in REMEDIES.items() if name_ in _class_names(hint)]
    return f"{name} must be {words}; got {what}. {' '.join(remedies)}".rstrip()


def _words(hint: Any) -> str:
    """A type in words."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = dict.fromkeys(_words(part) for part in parts if part not in (None, type(None)))
        return " or ".join(words) + " or None" * (type(None) in parts)
    if hint in _PLAIN:
        return _PLAIN[hint][1]
    if origin is type:
        return "a class"
    if hint is os.PathLike or origin is os.PathLike:
        return "a path"
    if isinstance(origin, type) and issubclass(origin, Iterable) and parts:
        entry = parts[0]
        several = _PLAIN[entry][2] if entry in _PLAIN else _words(entry).removeprefix("a ")
        return f"{'a tuple' if origin is tuple else 'a list'} of {several}"
    name = getattr(hint, "__name__", str(hint))
    return f"{_article(name)} {name}"


def _article(name: str) -> str:
    return "an" if name[:1].lower() in "aeiou" else "a"


def _class_names(hint: Any) -> set[str]:
    names = {getattr(hint, "__name__", "")}
    return names.union(*(_class_names(part) for part in typing.get_args(hint)))


def _resolve(hint: Any, function: Callable[..., Any], package: str) -> Any:
    """A hint as an object; what names a class that only type checkers import is not known."""
    if hint is inspect.Parameter.empty:
        return _UNKNOWN
    if not isinstance(hint, str):
        return hint
    holder = types.SimpleNamespace(__annotations__={"value": hint})
    known = inspect.unwrap(function).__globals__
    try:
        return typing.get_type_hints(holder, known, _PublicNames(package))["value"]
    except (NameError, AttributeError, TypeError):
        return _UNKNOWN
