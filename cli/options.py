"""A verb's settings class is its command line and its TOML file: one field, one option.

Order of precedence: command line, then --config, then the class's default.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import typer
import typer.core

from features.errors import SarcomilError

T = TypeVar("T")


class UsageError(Exception):
    """The command line or its --config file asks for something that cannot be."""


def verb(
    app: typer.Typer, options: type[T], *, examples: Sequence[str]
) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
    """Enter a function as a command whose options are the fields of a dataclass.

    The function's name is the command's, its docstring the help. ``metadata`` of a field may hold
    ``help``, ``flag`` (another option name), ``argument`` (a metavar: positional), ``split`` (a
    character between the items of one option), ``once`` (not kept with a run's settings), ``more_help`` (a
    function whose text follows the help, called when the help is shown).
    """

    def enter(function: Callable[[T], None]) -> Callable[[T], None]:
        hints = typing.get_type_hints(options)
        parameters = [_parameter(field, hints[field.name]) for field in dataclasses.fields(options)]  # type: ignore[arg-type]
        parameters += [_CONFIG, _QUIET, _DEBUG]

        def command(**given: Any) -> None:
            config, _debug = given.pop("config"), given.pop("debug")
            del _debug  # read by main, which alone decides how errors look
            progress_is_wanted(wanted=not given.pop("quiet"))
            said = {name: value for name, value in given.items() if value not in (None, [])}
            function(build(options, said, config))

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        epilog = "\n\n".join(["Examples:", *(f"  {example}" for example in examples)])
        name = function.__name__.rstrip("_").replace("_", "-")
        more = {
            f.name: f.metadata["more_help"]
            for f in dataclasses.fields(options)  # type: ignore[arg-type]
            if "more_help" in f.metadata
        }
        shown = type("Command", (_Command,), {"more_help": more})
        app.command(name, cls=shown, help=inspect.getdoc(function), epilog=epilog)(command)
        return function

    return enter


class _Command(typer.core.TyperCommand):
    """A command with options whose help is completed when it is shown, as it takes time to learn."""

    more_help: ClassVar[Mapping[str, Callable[[], str]]] = {}

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Complete the help, then show it."""
        for parameter in self.params:
            if parameter.name in self.more_help and isinstance(parameter, typer.core.TyperOption):
                parameter.help = f"{parameter.help}{self.more_help[parameter.name]()}"
        super().format_help(ctx, formatter)


def build(options: type[T], said: Mapping[str, Any], config: Path | None) -> T:
    """The settings from what was said on the command line and in a file.

    Raises:
        UsageError: an unknown key, a value of the wrong type, or a missing one.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(options)
    values = {}
    for name, value in {**_read_config(config, fields), **said}.items():
        values[name] = _typed(name, value, hints[name], fields[name].metadata)
    missing = [
        field
        for field in fields.values()
        if field.name not in values
        and field.default is MISSING
        and field.default_factory is MISSING
    ]
    if missing:
        field = missing[0]
        what = field.metadata.get("argument") or _flag(field)
        raise UsageError(f"{what} is missing. {field.metadata['help']} See --help.")
    with wrong_use():
        return options(**values)


@contextlib.contextmanager
def wrong_use(kind: type[SarcomilError] = SarcomilError) -> Iterator[None]:
    """What a settings class or a registry refuses was asked for wrongly, before any work was done."""
    try:
        yield
    except kind as error:
        raise UsageError(str(error)) from error


def writable(out: Path) -> Path:
    """Refuse a place that cannot be written to before the work, not after it."""
    if out.is_file():
        raise UsageError(f"--out {out} is a file. Name a folder.")
    above = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UsageError(f"--out {out}: {above} cannot be written to. Choose another folder.")
    return out


def part_of(whole: Any, kind: type[T]) -> T:
    """The settings of one stage out of a verb's."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(whole, name) for name in names})


def plain(options: Any) -> dict[str, Any]:
    """Settings as JSON holds them, paths made absolute so that the file works from anywhere.

    A permission given ``once`` (to overwrite) is not among them: repeating a run must not repeat it.
    """
    return {
        field.name: _plain(getattr(options, field.name))
        for field in dataclasses.fields(options)
        if not field.metadata.get("once")
    }


_wanted = True


def progress_is_wanted(*, wanted: bool | None = None) -> bool:
    """Whether bars are drawn; set by --quiet."""
    global _wanted  # noqa: PLW0603 - one process, one command line
    if wanted is not None:
        _wanted = wanted
    return _wanted


def _parameter(field: "Field[Any]", hint: Any) -> inspect.Parameter:
    """A dataclass field as typer wants it; the default stays with the class."""
    item = _item_type(hint)
    helped = field.metadata["help"]
    many = _is_tuple(hint) and "split" not in field.metadata
    kind = list[item] if many else str if _is_tuple(hint) else item  # type: ignore[valid-type]
    if "argument" in field.metadata:
        info = typer.Argument(metavar=field.metadata["argument"], help=helped, show_default=False)
    else:
        flags = [_flag(field)]
        info = typer.Option(*flags, help=helped + _default_note(field), show_default=False)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, info],
    )


def _flag(field: "Field[Any]") -> str:
    return str(field.metadata.get("flag") or "--" + field.name.replace("_", "-"))


def _default_note(field: "Field[Any]") -> str:
    default = field.default
    if default is MISSING:
        return " \\[required]"
    if default is None or default is False or default in ("", ()):
        return ""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f" \\[default: {shown}]"


def _read_config(path: Path | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a TOML file, or the settings of a run.json."""
    if path is None:
        return {}
    try:
        if path.suffix == ".json":
            held = json.loads(path.read_text())
            held = held.get("settings", held) if isinstance(held, dict) else None
        else:
            held = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: cannot be read ({error}).") from error
    if not isinstance(held, dict):
        raise UsageError(f"--config {path}: holds no settings. Give a TOML file or a run.json.")
    found = {}
    for key, value in held.items():
        name = key.replace("-", "_")
        if name not in fields:
            near = get_close_matches(name, fields, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(fields)}."
            raise UsageError(f"--config {path}: unknown key {key!r}.{hint}")
        if value is not None:
            found[name] = value
    return found


def _typed(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if _is_tuple(hint) and isinstance(value, str):
        separator = metadata.get("split")
        value = [part.strip() for part in value.split(separator)] if separator else [value]
    if isinstance(value, bool) and _item_type(hint) is not bool:
        raise UsageError(f"{name} is {value!r}: not a {_item_type(hint).__name__}.")
    if _is_tuple(hint) and isinstance(value, int | float):
        value = [value]  # mpp = 0.5 in a TOML file
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(coerce_numbers_to_str=True))
        return adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise UsageError(f"{name} is {value!r}: {problem}.") from error


def _is_tuple(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple


def _item_type(hint: Any) -> Any:
    """``int`` of ``int``, of ``int | None`` and of ``tuple[int, ...]``; choices stay whole."""
    if typing.get_origin(hint) is Literal:
        return hint
    inner = [a for a in typing.get_args(hint) if a is not type(None) and a is not Ellipsis]
    return inner[0] if inner else hint


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _shared(name: str, kind: Any, *flags: str, default: Any, help_text: str) -> inspect.Parameter:
    option = typer.Option(*flags, help=help_text, show_default=False)
    annotation = Annotated[kind, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


_CONFIG = _shared(
    "config",
    Path | None,
    "--config",
    default=None,
    help_text="TOML file with any of these options, or the run.json of a run to repeat.",
)
_QUIET = _shared(
    "quiet", bool, "--quiet", default=False, help_text="Print no progress, only results."
)
_DEBUG = _shared(
    "debug", bool, "--debug", default=False, help_text="Show the traceback of an error."
)
