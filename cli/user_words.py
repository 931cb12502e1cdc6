"""Words of the user, which a message repeats: they are no parameters, whatever they look like."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from features.errors import SarcomilError

TABLES = (".csv", ".tsv", ".txt", ".xlsx")
BETWEEN_PARTS = re.compile(r"[/\\,;:\s]+")


def words_of(values: Iterable[object]) -> frozenset[str]:
    """The words in values of a command line, and in the tables that these name.

    Args:
        values: texts, numbers, paths and sequences of them; of ``key=value``, the value counts.
    """
    texts = list(_texts(values))
    words = {word for text in texts for word in _words(text.rpartition("=")[2])}
    for path in dict.fromkeys(table for text in texts for table in _tables(Path(text))):
        words.update(word for cell in _cells(path) for word in _words(cell))
    return frozenset(words)


def _texts(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _texts(value)
        elif isinstance(value, str | Path):
            yield str(value)


def _words(text: str) -> Iterator[str]:
    """Whole parts of a path or a list, and parts of names if they have an underscore."""
    for part in BETWEEN_PARTS.split(text):
        yield from (word for word in re.findall(r"\w+", part) if word == part or "_" in word)


def _tables(path: Path) -> Iterator[Path]:
    """The table that a path is; of a run folder, its predictions and its cohort."""
    with contextlib.suppress(OSError):
        if path.suffix.lower() in TABLES and path.is_file():
            yield path
        elif (path / "run.json").is_file():
            yield path / "predictions.csv"
            yield from _cohort_of(path)


def _cohort_of(run: Path) -> Sequence[Path]:
    from mil.runs.run import open_run

    try:
        return [open_run(run).settings.cohort]
    except (SarcomilError, OSError):
        return []


def _cells(path: Path) -> Iterable[str]:
    """Names of columns and cells; of a damaged table, its text."""
    from mil.data.sheet import read_sheet

    try:
        sheet = read_sheet(path)
    except (SarcomilError, OSError):
        with contextlib.suppress(OSError):
            return path.read_text(encoding="utf-8", errors="replace").splitlines()
        return ()
    return [*sheet.header, *(cell for _, line in sheet.lines for cell in line.values())]
