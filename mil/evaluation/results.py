"""Results as files: JSON with every number, and a table with one row per number."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from features.files.atomic import write_atomic
from features.files.tables import write_table
from mil.errors import RunError


def results_folder(out: Path | str) -> Path:
    """A folder for results.

    Raises:
        RunError: it is a run, whose own results would be replaced.
    """
    folder = Path(out)
    if (folder / "run.json").exists():
        raise RunError(f"{folder} is a run folder. Choose another folder (out).")
    return folder


def result_paths(folder: Path, name: str) -> tuple[Path, Path]:
    """The files that ``write_results`` writes."""
    return folder / f"{name}.json", folder / f"{name}.csv"


def write_results(
    folder: Path, name: str, content: Mapping[str, object], rows: Sequence[Mapping[str, object]]
) -> None:
    """Write ``<name>.json``, and ``<name>.csv`` in which what a row lacks is empty.

    Args:
        folder: is made if it does not exist.
        name: of both files.
        content: plain values.
        rows: one for each line; their columns may differ.
    """
    of_json, of_csv = result_paths(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(of_json, json.dumps(content, indent=1, allow_nan=False) + "\n")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    write_table(of_csv, columns, ([row.get(column, "") for column in columns] for row in rows))
