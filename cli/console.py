"""Output in the terminal: progress bars, tables, results, warnings and errors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cli.flags import with_flags
from cli.options import show_progress

if TYPE_CHECKING:
    from mil.evaluation.display import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class _Rate(ProgressColumn):
    """Units per second, once something has been done."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {task.fields['unit']}/s", style="dim")


class Bars:
    """A ``features.progress.Progress`` that draws bars on a terminal and is silent elsewhere."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not (show_progress() and err.is_terminal),
        )
        self._open = 0

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show a bar until the block ends."""
        if self._open == 0:
            self._progress.start()
        self._open += 1
        task = self._progress.add_task(name, total=total, unit=unit)
        try:
            yield lambda count: self._progress.advance(task, count)
        finally:
            self._progress.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._progress.stop()


def say(text: str) -> None:
    """Print a line of results."""
    out.print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a yellow line: nothing failed, but the user should know. Parameters are shown as flags."""
    err.print(Text(with_flags(text), style="yellow"), soft_wrap=True)


def notify(text: str) -> None:
    """Print a notice of a library function."""
    warn(text)


def complain(text: str) -> None:
    """Print a red line: something failed. Parameters are shown as flags."""
    err.print(Text(with_flags(text), style="red"), soft_wrap=True)


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that is never cut, whatever the width; columns after the first are right-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        say("  ".join(cells).rstrip())


def show_tables(tables: "Iterable[Table]") -> None:
    """Print tables of results with their titles and notes, a blank line between them."""
    for index, table in enumerate(tables):
        if index:
            say("")
        if table.title:
            say(table.title)
        show_table(table.header, table.rows)
        for note in table.notes:
            say(note)


def counted(number: int, what: str) -> str:
    """``1 slide``, ``2 slides``."""
    return f"{number} {what}" + ("" if number == 1 else "s")
