"""The ``mil`` command: its verbs, and how an error ends it."""

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import typer
import typer.main

from cli.app import app
from cli.flags import use_values
from cli.options import UsageError
from features.errors import SarcomilError, UnknownName

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130

PANELS = {  # of `mil --help`, in the order in which data travels
    "Prepare": ("fetch", "check", "segment", "extract", "volumes", "convert", "join", "finetune"),
    "Learn": ("crossval", "train", "predict", "package", "card", "protocol"),
    "Judge": ("evaluate", "compare", "learning-curve", "ladder", "permute", "audit", "external"),
    "Look": ("report", "explain", "concepts", "view", "decision", "nomogram"),
    "Manage": ("demo", "doctor", "backbones"),
}
FILES = {  # of the commands whose file has another name
    "crossval": "learn",
    "train": "learn",
    "learning-curve": "learning_curve",
    "card": "package",
}

ALL_CORES = frozenset(
    {"finetune", "crossval", "segment", "volumes", "protocol", "doctor"}
)  # train networks


def _enter_commands() -> None:
    """Enter the commands of all files, in the order and the panels of help."""
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    for name in panels:
        importlib.import_module(f"cli.{FILES.get(name, name)}")
    app.registered_commands.sort(key=lambda command: list(panels).index(str(command.name)))
    for command in app.registered_commands:
        command.rich_help_panel = panels[str(command.name)]
    for group in app.registered_groups:
        group.rich_help_panel = panels[str(group.typer_instance and group.typer_instance.info.name)]


_enter_commands()


# Typer carries a click of its own; this is the base of what it raises for wrong use.
_TyperUsageError: type[Exception] = typer.BadParameter.__bases__[0]


@functools.cache
def command() -> Callable[..., Any]:
    """The command with all its verbs, which is put together once."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line; end the process with 0, 1 (work failed), 2 (wrong use)."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arguments = sys.argv[1:] or ["--help"]
    limit_threads(arguments[0])
    use_values(arguments)
    if not sys.warnoptions and "--debug" not in arguments:
        _silence_warnings()
    try:
        status = command()(arguments, prog_name="mil", standalone_mode=False)
    except (UsageError, _TyperUsageError) as error:
        _fail(_usage_message(error), WRONG_USE)
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except SarcomilError as error:
        if "--debug" in arguments:
            raise
        _fail(str(error), WRONG_USE if isinstance(error, UnknownName) else FAILED)
    except Exception as error:
        if "--debug" in arguments:
            raise
        _fail(_unexpected_message(error), FAILED)
    if status == INTERRUPTED:  # also what typer makes of a KeyboardInterrupt
        _fail("Interrupted. Finished work is kept; the same command continues from there.", status)
    sys.exit(status if isinstance(status, int) else 0)


def limit_threads(command: str) -> None:
    """Let each operation of numerical libraries take one core, unless the environment says otherwise.

    Threads that share a short operation wait for each other, on a busy machine most of the time
    (``benchmarks/busy.py``). Slides, tiles and fits are worked on side by side instead. Where networks are
    trained, an operation takes all cores, and a thread that waits sleeps.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if command not in ALL_CORES:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def _silence_warnings() -> None:
    """Keep what libraries tell their developers from the terminal, here and in worker processes."""
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"


def _usage_message(error: Exception) -> str:
    """The error of the command line, and where its help is."""
    format_message = getattr(error, "format_message", None)
    text = (format_message() if format_message else str(error)).replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    if not context:
        return text
    stop = "" if text.endswith((".", "?")) else "."
    return f"{text}{stop} See `{context.command_path} --help`."


def _unexpected_message(error: Exception) -> str:
    """One line for an error that the library does not raise itself."""
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        return f"{path}{reason}. Look for a missing folder, missing permissions or a full disk."
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _fail(text: str, status: int) -> NoReturn:
    from cli.console import complain

    complain(text)
    sys.exit(status)


if __name__ == "__main__":  # python -m cli.main
    main()
