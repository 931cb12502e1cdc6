"""Tables as CSV: whole, and in one encoding whatever the locale."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from features.files.atomic import atomic_path


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file that appears whole, as UTF-8; names that are not UTF-8 have their bytes escaped.

    Args:
        path: the file; its folder is made if it does not exist.
        header: names of the columns.
        rows: one value per column.

    Raises:
        OSError: the disk is full or not writable.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
