"""Figures of matplotlib and tables as files; the same figure gives the same bytes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from features.files.atomic import atomic_path
from features.files.tables import write_table

DPI = 150
# Okabe & Ito 2008, distinguishable without colour vision; the page's own palette follows the same.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7176", "#b8a800")
DASHES = ("-", "--", ":", "-.")
INK, ACCENT, ALARM, PALE = "#5b6770", "#0b6e8a", "#b3261e", "#d5dadd"


def png_bytes(figure: Figure, *, dpi: float = DPI) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    _lay_out(figure, dpi)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, stem: Path, *, dpi: int = DPI) -> list[Path]:
    """Write ``stem``.png and ``stem``.svg; returns the two paths."""
    paths = []
    _lay_out(figure, dpi)
    with rc_context({"svg.hashsalt": "mil", "svg.fonttype": "none"}):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            path = stem.with_name(f"{stem.name}.{kind}")
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
            paths.append(path)
    return paths


def _lay_out(figure: Figure, dpi: float) -> None:
    """Settle where everything lies; ``savefig`` draws the whole figure for that, and for every file again."""
    figure.set_dpi(dpi)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table whole; one without a row has no header either."""
    columns = list(rows[0]) if rows else []
    write_table(path, columns, ([row[name] for name in columns] for row in rows))


def plain_text(name: object) -> str:
    """A name as it is, also where matplotlib would read mathematics in it."""
    return str(name).replace("$", r"\$")
