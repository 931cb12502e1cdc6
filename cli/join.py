"""`mil join`: the features of two scales, encoders or modalities side by side."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli.app import app
from cli.options import verb, writable, wrong_use
from features.errors import InputError

if TYPE_CHECKING:
    from features.bags.join import Joined


@dataclass(frozen=True, kw_only=True)
class JoinOptions:
    """Settings of `mil join`."""

    stores: tuple[Path, ...] = field(
        metadata={"argument": "STORE STORE...", "help": "Two or more bag stores."}
    )
    out: Path = field(metadata={"help": "The bag store to write."})
    by: Literal["tile", "slide", "case"] = field(
        default="tile",
        metadata={
            "help": "`tile` puts beside each tile of the first store the tile of each other store that holds "
            "its centre; `slide` and `case` put the mean vectors of slides or cases side by side."
        },
    )
    cohort: Path | None = field(
        default=None,
        metadata={
            "help": "With --by case: the table that says which case a slide is of, if the bags do not."
        },
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace other bags in --out instead of refusing.", "once": True},
    )


@verb(
    app,
    JoinOptions,
    examples=[
        "mil join store store-16x --by tile --out joined",
        "mil join store store-16x --by case --cohort cohort.csv --out joined-cases",
    ],
)
def join(options: JoinOptions) -> None:
    """Join the features of two scales, encoders or modalities into one store, which every model reads.

    Bags joined by tile keep the tiles of the first store, and maps are drawn on these. Bags joined by slide
    or by case are one row, for models that pool. What the backbone of any part has seen in training, the
    joined bags have seen.
    """
    from cli.console import Bars
    from features.bags.join import join as join_stores
    from mil.data.table import read_table

    writable(options.out)
    rows = read_table(options.cohort) if options.cohort else ()
    with wrong_use(InputError):
        result = join_stores(
            options.stores,
            options.out,
            by=options.by,
            cases={row.slide: row.case for row in rows} if rows else None,
            overwrite=options.overwrite,
            progress=Bars(),
        )
    show_joined(result)
    if result.failures:
        raise SystemExit(1)


def show_joined(result: "Joined") -> None:
    """Print counts, remarks and failures."""
    from cli.console import complain, counted, say

    kind = "cases" if result.by == "case" else "slides"
    existing = f"; {result.n_existing} were there already" if result.n_existing else ""
    rows = f", {result.n_tiles} tiles" if result.by == "tile" else ""
    size = f"{rows}, {' + '.join(map(str, result.dims))} features each" if result.dims else ""
    say(f"{counted(result.n_done, kind[:-1])} joined{size}{existing}. Bags: {result.out}")
    if result.n_alone:
        say(
            f"  {counted(result.n_alone, 'tile')} left out: no tile of another store holds the centre"
        )
    for text, names in result.notes.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"  {names[0]}{more}: {text}")
    if result.by == "case" and result.dims:
        say("  In the table of a cross-validation, name the case in the column slide too.")
    for reason in result.failures:
        complain(reason)
    if result.failures:
        complain(f"{len(result.failures)} {kind} could not be joined.")
