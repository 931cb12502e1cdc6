"""A field of a settings class as a parameter of typer: flag, help, choices, panel of the help, completion."""

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.flags import help_with_flags
from features.choices import choices_of

# The panels of a help, in their order; typer shows the one without a name first, as "Options".
PANELS = (
    "", "Map", "Table", "Task", "Models", "Folds", "Training", "Fine-tuning", "Fine-tuning in each fold",
    "Segmentation in each fold", "Metrics", "Volumes", "Backbone", "Tiles", "Runs", "Files to import",
    "Slides", "Scale", "Annotations", "Stain and colour", "Computing", "Moved files",
    "Transfer",
)  # fmt: skip
MAX_METAVAR = 40  # of choices; the help lists longer ones behind its text
TYPES = {int: "<int>", float: "<number>", Path: "<path>"}


def parameter_of(
    field: "Field[Any]", hint: Any, panel: str, flags: dict[str, str]
) -> inspect.Parameter:
    """A field as typer expects it; the default stays with the class.

    Args:
        field: of a settings class.
        hint: its resolved type hint.
        panel: of the help; empty for the first one.
        flags: of all fields, to be named in the help text.
    """
    help_text = help_with_flags(field.metadata["help"], flags)
    if "argument" in field.metadata:
        info = typer.Argument(
            metavar=field.metadata["argument"], help=help_text, show_default=False
        )
    else:
        info = typer.Option(
            flags[field.name],
            help=help_text + _choices_note(field, hint) + _default_note(field),
            show_default=False,
            rich_help_panel=panel or None,
            metavar=_metavar(field, hint),
            autocompletion=_completion(field, hint),
        )
    kind = _line_type(field, hint)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, info],
    )


def flag_of(field: "Field[Any]") -> str:
    """The option's name on the command line."""
    return str(field.metadata.get("flag") or "--" + field.name.replace("_", "-"))


def flags_of(fields: Iterable["Field[Any]"]) -> dict[str, str]:
    """Flag by the library's name of the parameter; positional arguments have none."""
    return {
        name: flag_of(field)
        for field in fields
        if "argument" not in field.metadata
        for name in (field.name, field.metadata.get("parameter", field.name))
    }


def panel_of(options: type, field: "Field[Any]") -> str:
    """The panel of a field: its own, or that of the class which defines it."""
    owner = next(
        kind for kind in options.__mro__ if field.name in vars(kind).get("__annotations__", {})
    )
    return str(field.metadata.get("panel") or vars(owner).get("PANEL", ""))


def is_required(field: "Field[Any]") -> bool:
    """Whether the option has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def is_tuple(hint: Any) -> bool:
    """Whether the option takes several values."""
    return typing.get_origin(hint) is tuple


def choices_for(field: "Field[Any]", hint: Any) -> tuple[str, ...]:
    """The values that an option takes, of its hint or its metadata; empty where it takes any."""
    return choices_of(hint) or tuple(field.metadata.get("choices", ()))


def item_type(hint: Any) -> Any:
    """``int`` of ``int``, of ``int | None`` and of ``tuple[int, ...]``; ``str`` of a choice."""
    if choices_of(hint):
        return str
    inner = [a for a in typing.get_args(hint) if a is not type(None) and a is not Ellipsis]
    return inner[0] if inner else hint


def _line_type(field: "Field[Any]", hint: Any) -> Any:
    """The type of the option on the command line."""
    item = item_type(hint)
    item = (
        str if item in (int, float) else item
    )  # converted with the settings, whose errors are words
    if not is_tuple(hint):
        return item
    return str if "split" in field.metadata else list[item]  # type: ignore[valid-type]


def _metavar(field: "Field[Any]", hint: Any) -> str:
    """What the help shows before the text: ``[a|b|c]`` unless that is long; nothing for a switch."""
    item = item_type(hint)
    if item is bool:
        return ""
    choices = "|".join(choices_for(field, hint))
    if len(choices) > MAX_METAVAR:
        shown = "<choice>"
    else:
        shown = f"[{choices}]" if choices else TYPES.get(item, "<text>")
    return shown + (",..." if "split" in field.metadata else "")


def _choices_note(field: "Field[Any]", hint: Any) -> str:
    """The choices, where they are too long to be shown before the text."""
    choices = choices_for(field, hint)
    return f" \\[choices: {', '.join(choices)}]" if len("|".join(choices)) > MAX_METAVAR else ""


def _completion(field: "Field[Any]", hint: Any) -> Callable[[str], list[str]] | None:
    """Completes the last of the values that are written with a separator between them."""
    choices = choices_for(field, hint)
    names: Callable[[], Iterable[str]] | None = field.metadata.get("complete")
    if not choices and names is None:
        return None
    separator = field.metadata.get("split")

    def complete(incomplete: str) -> list[str]:
        first, comma, last = incomplete.rpartition(separator) if separator else ("", "", incomplete)
        known = choices or (names() if names else ())
        return [f"{first}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def _default_note(field: "Field[Any]") -> str:
    default = field.default
    if default is MISSING:
        return " \\[required]"
    if default is None or default is False or default in ("", ()):
        return ""
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f" \\[default: {text}]"


def without_types(parameters: Iterable[Any]) -> list[Any]:
    """Parameters of which switches are shown without a type."""
    shown = list(parameters)
    for parameter in shown:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return shown


def _shared(name: str, kind: Any, *flags: str, default: Any, help_text: str) -> inspect.Parameter:
    metavar = "" if kind is bool else TYPES[Path]
    option = typer.Option(*flags, help=help_text, show_default=False, metavar=metavar)
    annotation = Annotated[kind, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


CONFIG = _shared(
    "config",
    Path | None,
    "--config",
    default=None,
    help_text="TOML file with any of these options, or the run.json of a run to repeat.",
)
QUIET = _shared(
    "quiet", bool, "--quiet", default=False, help_text="Print results only, no progress bars."
)
DEBUG = _shared(
    "debug", bool, "--debug", default=False, help_text="Show the traceback of an error."
)
