"""`mil backbones`: what can embed tiles, and its weights brought to a machine without a network."""

from dataclasses import dataclass, field
from pathlib import Path

import typer

from cli.app import Group, app
from cli.options import verb, writable, wrong_use

backbones = typer.Typer(
    name="backbones",
    cls=Group,
    help="List backbones and encoders with their weights, and fetch weights for a machine without a network.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(backbones)


@backbones.callback()
def _list_without_verb(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show_backbones()


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """`mil backbones list` has no settings."""


@dataclass(frozen=True, kw_only=True)
class GetOptions:
    """Settings of `mil backbones get`."""

    name: str = field(
        metadata={"argument": "NAME", "help": "A name of `mil backbones`, or any timm name."}
    )
    out: Path = field(metadata={"help": "The .safetensors file to write."})
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace --out if it exists instead of refusing.", "once": True},
    )


@verb(backbones, ListOptions, examples=["mil backbones list"])
def list_(options: ListOptions) -> None:
    """List backbones: features per tile, side, scale, licence, and where the weights are.

    A backbone whose weights are at hand needs no network. Access to gated weights is requested on their page.
    """
    del options
    show_backbones()


def show_backbones() -> None:
    """Print the table of backbones and where their weights are."""
    from cli.console import say, show_table
    from features.backbones.catalogue import list_catalogue

    rows = []
    for row in list_catalogue():
        recipe = row.recipe
        place = f"at hand ({row.place})" if row.at_hand else row.place
        if recipe is None:
            rows.append([row.name, "", "", "", "", place])
            continue
        scale = "/".join(f"{mpp:g}" for mpp in sorted(recipe.mpp)) or "any"
        licence = recipe.licence + (", gated" if recipe.gated else "")
        rows.append([row.name, str(recipe.dim or ""), str(recipe.input_px), scale, licence, place])
    show_table(["name", "features", "side", "mpp", "licence", "weights"], rows)
    say("")
    say(
        "Any timm name works besides, and hf-hub:ORG/NAME or local-dir:FOLDER with timm's config.json."
    )


@verb(
    backbones, GetOptions, examples=["mil backbones get efficientnet-lite0 --out lite0.safetensors"]
)
def get(options: GetOptions) -> None:
    """Write the published weights of a backbone into one file, to be brought to a machine without a network.

    The file says itself of which backbone it is and how images are prepared: `mil extract --backbone NAME
    --weights FILE` takes it.
    """
    from cli.console import say
    from features.backbones.catalogue import fetch_weights
    from features.backbones.registry import resolve_name

    writable(options.out.parent)
    with wrong_use():
        resolve_name(options.name)
    recipe = fetch_weights(options.name, options.out, overwrite=options.overwrite)
    say(f"{options.out}: {recipe.dim} features per tile, licence {recipe.licence}.")
    say(f"Use it with --backbone {options.name} --weights {options.out}")
