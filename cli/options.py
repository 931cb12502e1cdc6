"""The settings class of a verb defines its command line and its TOML file: one field, one option.

Order of precedence: command line, then --config, then the default of the class.
"""

import contextlib
import dataclasses
import inspect
import os
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import Field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import typer
import typer.core

from cli.flags import add_flags, use_flags, use_values
from cli.parameters import (
    CONFIG,
    DEBUG,
    PANELS,
    QUIET,
    choices_for,
    flag_of,
    flags_of,
    is_required,
    is_tuple,
    panel_of,
    parameter_of,
    without_types,
)
from features.choices import suggest
from features.errors import SarcomilError
from features.files.parse import parse_json, parse_toml
from features.stored import typed_value

T = TypeVar("T")


class UsageError(Exception):
    """The command line or its --config file is wrong."""


def verb(
    app: typer.Typer, options: type[T], *, examples: Sequence[str]
) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
    """Register a function as a command whose options are the fields of a dataclass.

    The function's name is the command's, its docstring the help. A field whose hint is a Literal is a choice.
    A class's ``PANEL`` names the panel of the help that shows its fields. ``metadata`` of a field may have
    ``help``; ``flag``, another name of the option; ``argument``, the metavar of a positional argument;
    ``split``, a character between the items of one option; ``once``, True where a run's settings leave it
    out; ``more_help``, a function whose text is added when the help is shown; ``panel``; ``choices``, and
    ``complete``, a function that lists names, for completion in a shell; ``parameter``, the library's name.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    flags = flags_of(fields.values())
    add_flags(flags)

    def register(function: Callable[[T], None]) -> Callable[[T], None]:
        name = function.__name__.rstrip("_").replace("_", "-")
        group = "" if app.info.name == "mil" else f"{app.info.name} "
        hints = typing.get_type_hints(options)
        panels = {name: panel_of(options, field) for name, field in fields.items()}
        order = sorted(fields.values(), key=lambda field: PANELS.index(panels[field.name]))
        parameters = [
            *(parameter_of(field, hints[field.name], panels[field.name], flags) for field in order),
            *(CONFIG, QUIET, DEBUG),
        ]

        def command(**values: Any) -> None:
            config, _debug = values.pop("config"), values.pop("debug")
            del _debug  # read by main, which alone decides how errors look
            show_progress(wanted=not values.pop("quiet"))
            use_flags(flags)
            from_line = {name: value for name, value in values.items() if value not in (None, [])}
            function(build(options, from_line, config, f"{group}{name}"))

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        shown = {
            "more_help": {
                n: f.metadata["more_help"] for n, f in fields.items() if "more_help" in f.metadata
            },
            "required": {name for name, field in fields.items() if is_required(field)},
            "examples": tuple(examples),
        }
        help_text = flowing(inspect.getdoc(function) or "")
        app.command(name, cls=type("Command", (_Command,), shown), help=help_text)(command)
        return function

    return register


def flowing(text: str) -> str:
    """Paragraphs as one line each, which a terminal of any width wraps."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


class _Argument(typer.core.TyperArgument):
    """A positional argument that is shown as it is called, in brackets only where it can be left out."""

    in_brackets = False

    def display_type_rich(self, ctx: Any) -> str:
        """Nothing: its name says what it is."""
        del ctx
        return ""

    def _usage_display_name(self) -> str:
        name = self.display_name_raw
        return f"[{name}]" if self.in_brackets else name


class _Command(typer.core.TyperCommand):
    """A command whose help is completed when it is shown, as that takes time or the width of the terminal."""

    more_help: ClassVar[Mapping[str, Callable[[], str]]] = {}
    required: ClassVar[Set[str]] = frozenset()
    examples: ClassVar[Sequence[str]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if isinstance(parameter, typer.core.TyperArgument):
                parameter.__class__ = _Argument
                parameter.in_brackets = parameter.name not in self.required  # type: ignore[attr-defined]

    def get_params(self, ctx: Any) -> Any:
        """The parameters, switches without a type."""
        return without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Complete the help, then show it."""
        for parameter in self.params:
            if parameter.name in self.more_help and isinstance(parameter, typer.core.TyperOption):
                parameter.help = f"{parameter.help}{self.more_help[parameter.name]()}"
        width = shutil.get_terminal_size().columns
        lines = [line for example in self.examples for line in wrap_command(example, width - 2)]
        self.epilog = "\n".join(["Examples:", "", *lines])
        super().format_help(ctx, formatter)


def wrap_command(command: str, width: int) -> list[str]:
    """A command on lines of a width that a shell reads as one."""
    lines = textwrap.wrap(
        command, width - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return (
        [*(f"{line} \\" for line in lines[:-1]), lines[-1]] if len(command) > width else [command]
    )


def build(
    options: type[T], from_line: Mapping[str, Any], config: Path | None, command: str = ""
) -> T:
    """The settings from the values of the command line and of a file.

    Args:
        options: class of the settings.
        from_line: values by name of the field.
        config: the file.
        command: whose help a message names.

    Raises:
        UsageError: an unknown key, a value of the wrong type, or a missing one.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(options)
    values = {}
    chosen = {**_read_config(config, fields), **from_line}
    use_values(chosen.values())
    for name, value in chosen.items():
        values[name] = _typed(fields[name], value, hints[name])
    missing = [
        field for field in fields.values() if is_required(field) and field.name not in values
    ]
    if missing:
        raise UsageError(_missing_message(missing, command))
    with wrong_use():
        return options(**values)


def _missing_message(missing: "Sequence[Field[Any]]", command: str) -> str:
    """What a command line lacks; of a single thing also what it is."""
    names = [str(field.metadata.get("argument") or flag_of(field)) for field in missing]
    see = f"See `mil {command} --help`." if command else "See --help."
    if len(names) > 1:
        return f"{', '.join(names[:-1])} and {names[-1]} are missing. {see}"
    text = str(missing[0].metadata["help"])
    if not text.startswith(("CSV", "TOML")):
        text = text[0].lower() + text[1:]
    return f"{names[0]} is missing: {text.rstrip('.')}. {see}"


@contextlib.contextmanager
def wrong_use(kind: type[SarcomilError] = SarcomilError) -> Iterator[None]:
    """Turn an error of a settings class or a registry, before any work was done, into one of usage."""
    try:
        yield
    except kind as error:
        raise UsageError(str(error)) from error


def check_columns(options: Any) -> None:
    """Refuse options that say where the outcome of another task is.

    Raises:
        UsageError: naming the option.
    """
    from mil.tasks.names import changed_columns, foreign_setting

    if problem := foreign_setting(options.task, changed_columns(options)):
        raise UsageError(problem)


def writable(out: Path) -> Path:
    """Refuse an output folder that cannot be written to, before any work is done."""
    if out.is_file():
        raise UsageError(f"--out {out} is a file. Name a folder.")
    if (above := _closed_to_us(out)) is not None:
        raise UsageError(f"--out {out}: {above} cannot be written to. Choose another folder.")
    return out


def writable_run(run: Path, part: str = "") -> None:
    """Refuse to write into a run folder, or a part of it, that is read-only or another's, before any work."""
    if run.is_dir() and (folder := _closed_to_us(run / part)) is not None:
        raise UsageError(
            f"The run {run}: {folder} cannot be written to. Ask its owner for leave to write, or work on a "
            "copy of the run in a folder of your own."
        )


def _closed_to_us(path: Path) -> Path | None:
    """The folder that a path would be made in, or the path itself, if nothing can be written there."""
    above = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return None if above.is_dir() and os.access(above, os.W_OK | os.X_OK) else above


def part_of(whole: Any, kind: type[T]) -> T:
    """The settings of one stage, out of those of a verb."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(whole, name) for name in names})


def plain(options: Any) -> dict[str, Any]:
    """Settings as values of JSON, with absolute paths so that the file works from anywhere.

    Fields marked ``once``, such as the permission to overwrite, are left out: repeating a run must not repeat
    them.
    """
    return {
        field.name: _plain(getattr(options, field.name))
        for field in dataclasses.fields(options)
        if not field.metadata.get("once")
    }


_shows_progress = True


def show_progress(*, wanted: bool | None = None) -> bool:
    """Whether progress bars are drawn; set by --quiet."""
    global _shows_progress  # noqa: PLW0603 - one process, one command line
    if wanted is not None:
        _shows_progress = wanted
    return _shows_progress


def _read_config(path: Path | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a TOML file, or the settings of a run.json."""
    if path is None:
        return {}
    try:
        if path.suffix == ".json":
            content = parse_json(path.read_text(encoding="utf-8"))
            content = content.get("settings", content) if isinstance(content, dict) else None
        else:
            content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: no settings. Give a TOML file or a run.json.")
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in fields:
            hint = suggest(name, fields) or f" Known: {', '.join(fields)}."
            raise UsageError(f"--config {path}: unknown key {key!r}.{hint}")
        if value is not None:
            values[name] = value
    return values


def _typed(field: "Field[Any]", value: Any, hint: Any) -> Any:
    """A value of the command line or of a file with the type of its field.

    Raises:
        UsageError: it has another type, or is not one of the field's choices.
    """
    name = field.name
    if is_tuple(hint) and isinstance(value, str):
        separator = field.metadata.get("split")
        value = [part.strip() for part in value.split(separator)] if separator else [value]
    if is_tuple(hint) and isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]  # mpp = 0.5 in a TOML file
    choices = choices_for(field, hint)
    return typed_value(name, value, hint, UsageError, choices=choices, default=field.default)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
