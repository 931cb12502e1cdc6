"""What was fetched, or would be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from features.progress import Notify, Progress
from features.summary import format_bytes
from mil.fetch.download import Downloads, RemoteFile


class FetchOptions(TypedDict, total=False):
    """How files are fetched, apart from which.

    Attributes:
        dry_run: choose and count, and neither fetch nor write anything.
        server: address of a mirror of the service.
        parallel: files fetched at once.
        retries: failed requests in a row, without a byte more, before a file is given up.
        wait_s: seconds before the first retry; doubled each time, up to a minute.
        timeout_s: seconds without a byte after which a connection counts as cut.
        verify: read the files that are there already and compare their checksums.
        progress: shows megabytes.
        notify: called with what a reader should know.
    """

    dry_run: bool
    server: str
    parallel: int
    retries: int
    wait_s: float
    timeout_s: float
    verify: bool
    progress: Progress | None
    notify: Notify | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A label or a modality, and what there is of it.

    Attributes:
        name: of the label or modality.
        n_available: cases that have it.
        n_cases, n_files, n_bytes: that are fetched. Of series, files are series.
    """

    name: str
    n_available: int
    n_cases: int
    n_files: int
    n_bytes: int


@dataclass(frozen=True, kw_only=True, repr=False)
class FetchedCohort:
    """A cohort that was fetched, or would be.

    Attributes:
        source: the project or collection.
        out: the folder.
        parts: by label or by modality.
        spellings: label and number of cases by the spelling that the service has; empty label if it has none.
        left_out: what is not fetched, counted by reason.
        files: that make up the cohort; empty of series in a dry run, whose files are not listed then.
        n_bytes: of all files.
        bytes_there: of those that were there before.
        downloads: what became of the files; None of a dry run.
        table: the cohort table; None of a dry run, or where there are no slides.
        licence: terms of use that the service states, and the references to cite.
    """

    source: str
    out: Path
    parts: tuple[Part, ...]
    spellings: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    files: tuple[RemoteFile, ...] = ()
    n_bytes: int = 0
    bytes_there: int = 0
    downloads: Downloads | None = None
    table: Path | None = None
    licence: str = ""

    def __repr__(self) -> str:
        """What it holds, in a line."""
        parts = ", ".join(f"{part.name} {part.n_cases}" for part in self.parts)
        done = "" if self.downloads else ", not fetched"
        return f"FetchedCohort({self.source}: cases {parts}; {format_bytes(self.n_bytes)}{done})"

    @property
    def failed(self) -> tuple[str, ...]:
        """Why files could not be fetched."""
        return tuple(self.downloads.failed.values()) if self.downloads else ()


def bytes_there(files: tuple[RemoteFile, ...], folder: Path) -> int:
    """Bytes of the files that are there already, or of their beginnings."""
    total = 0
    for file in files:
        path, part = folder / file.place, file.part(folder)
        there = path if path.is_file() else part
        total += min(there.stat().st_size, file.size) if there.is_file() else 0
    return total
