"""The command itself, which the files of verbs enter theirs into."""

from typing import Annotated, Any

import typer
import typer.core

from cli.parameters import without_types
from mil.version import __version__


class Group(typer.core.TyperGroup):
    """Commands under one name."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, switches without a type."""
        return without_types(super().get_params(ctx))


app = typer.Typer(
    name="mil",
    cls=Group,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"sarcomil {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Slide-level diagnosis from few cases: tumour tiles to bags, attention MIL, honest numbers.

    Try `mil demo` first. With slides of your own: `mil check`, `mil extract`, `mil crossval`, `mil report`.
    """
