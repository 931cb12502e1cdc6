"""The folder of a fetched cohort: its files, where they came from, and its table."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.files.atomic import write_atomic
from features.files.parse import parse_json
from features.files.tables import write_table
from features.progress import Notify
from features.summary import listed
from mil.errors import FetchError
from mil.fetch.download import Downloads, RemoteFile, leftover_note
from mil.fetch.space import disk_error
from mil.version import __version__

STATE, MANIFEST, COHORT, LOCK = "fetch.json", "manifest.csv", "cohort.csv", ".fetch.lock"
SCHEMA = "fetch/1"
MANIFEST_COLUMNS = ("file", "case", "slide", "id", "md5", "bytes", "url", "fetched")


@dataclass
class CohortFolder:
    """A folder that one process fills with the files of one source.

    Attributes:
        path: of the folder.
        source: as ``TCGA-SARC``.
        address: of the service.
        settings: the selection, as plain values.
        versions: of files that are there, by place.
        md5s: of those whose checksum the service does not state, by place.
        notes: what a reader should know.
    """

    path: Path
    source: str
    address: str
    settings: Mapping[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    md5s: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _tables: dict[str, list[str]] = field(default_factory=dict)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Let no other process fill it, and read what an earlier one wrote.

        Raises:
            FetchError: another process fills it, it belongs to another source, or no fetch has filled it.
            BagError: the file system has no locks.
            OSError: it cannot be written to.
        """
        refuse_foreign(self.path)
        try:
            with self._lock():
                self._read()
                yield
        except OSError as error:
            full = disk_error(error, Path(error.filename or self.path))
            if full is error:
                raise
            raise full from error

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        from features.bags.store import lock_file

        self.path.mkdir(parents=True, exist_ok=True)
        with lock_file(self.path / LOCK) as claimed:
            if not claimed:
                owner = (self.path / LOCK).read_text(encoding="utf-8").strip()
                raise FetchError(
                    f"{self.path} is being filled by another process ({owner}). Wait for it, or choose "
                    "another folder."
                )
            try:
                yield
            finally:
                (self.path / LOCK).unlink(missing_ok=True)

    def begin(self, files: Sequence[RemoteFile]) -> None:
        """Write down what will be fetched, before it is."""
        places = {file.place for file in files}
        old = sorted(
            place
            for place in self.versions.keys() - places
            if (self.path / place).is_file()
        )  # fmt: skip
        if old:
            self.notes.append(leftover_note([Path(place).name for place in old], COHORT))
        # A file that is there has the version it was fetched in until the new one replaces it.
        for file in files:
            if not (self.path / file.place).is_file():
                self.versions[file.place] = file.version
            self.versions.setdefault(file.place, file.version)
        self._write_state(complete=False)
        self._write_manifest(files)

    def finish(self, files: Sequence[RemoteFile], downloads: Downloads) -> None:
        """Write down what has been fetched."""
        there = {*downloads.new, *downloads.present}
        for file in files:
            if file.place in there:
                self.versions[file.place] = file.version
        self.md5s = {place: md5 for place, md5 in downloads.md5s.items() if place in self.versions}
        self._write_manifest(files)
        self._write_state(complete=not downloads.failed)

    def report(self, notify: Notify | None) -> None:
        """Pass on the notes."""
        for note in self.notes:
            if notify:
                notify(note)
        self.notes.clear()

    def write_table(
        self, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]
    ) -> Path:
        """Write a table; one that somebody has changed stays, and the new one gets another name."""
        text = io.StringIO()
        csv.writer(text).writerows([header, *rows])
        digest = hashlib.sha256(text.getvalue().encode()).hexdigest()
        path = self._free_place(name, digest)
        if path.name != name:
            self.notes.append(
                f"{name} was changed after it was written, and stays as it is. The new table is {path.name}."
            )
        written = self._tables.setdefault(path.name, [])
        if digest not in written:
            written.append(digest)  # before the table: a process may end between both
            self._write_state(complete=False)
        write_table(path, header, rows)
        return path

    def _free_place(self, name: str, digest: str) -> Path:
        """The first name of a table under which nothing lies that somebody has changed."""
        stem = name.removesuffix(".csv")
        more = (f"{stem}-fetched-{number}.csv" for number in itertools.count(2))
        for own in itertools.chain((name, f"{stem}-fetched.csv"), more):
            path = self.path / own
            if not path.exists() or _sha256(path) in (*self._tables.get(own, ()), digest):
                return path
        raise AssertionError("names do not end")

    def _read(self) -> None:
        path = self.path / STATE
        if not path.exists():
            return
        try:
            state = dict(parse_json(path.read_bytes()))
            schema = str(state.get("schema", SCHEMA))
            if schema != SCHEMA:
                raise FetchError(
                    f"{path}: has the form {schema!r}, and this version reads {SCHEMA!r}. It stays as it is: "
                    "pip install -U sarcomil, or choose another folder."
                )
            source, settings = str(state["source"]), dict(state["settings"])
            self.versions = {str(k): str(v) for k, v in dict(state["versions"]).items()}
            self.md5s = {str(k): str(v) for k, v in dict(state.get("md5s", {})).items()}
            self._tables = {str(k): list(map(str, v)) for k, v in dict(state["tables"]).items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FetchError(
                f"{path}: cannot be read ({error!r}). Delete it: files that are there are not fetched again."
            ) from error
        if source != self.source:
            raise FetchError(
                f"{self.path} holds files of {source}. Choose another folder for {self.source}."
            )
        changed = [
            f"{name}={_plain(settings[name])}, now {_plain(value)}"
            for name, value in self.settings.items()
            if name in settings and settings[name] != value
        ]
        if changed:
            self.notes.append(
                f"{self.path} was filled with another selection ({'; '.join(changed)}). Its table has the "
                "new one."
            )

    def _write_state(self, *, complete: bool) -> None:
        state = {
            "schema": SCHEMA,
            "made_by": f"sarcomil {__version__}",
            "source": self.source,
            "service": self.address,
            "settings": dict(self.settings),
            "queried": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": complete,
            "tables": self._tables,
            "versions": dict(sorted(self.versions.items())),
            "md5s": dict(sorted(self.md5s.items())),
        }
        write_atomic(self.path / STATE, json.dumps(state, indent=1) + "\n")

    def _write_manifest(self, files: Sequence[RemoteFile]) -> None:
        """Write where the files came from, these and those of earlier selections that are still there."""
        self._keep_changed_manifest()
        places = {file.place for file in files}
        rows: list[tuple[object, ...]] = [
            row
            for row in _manifest_rows(self.path / MANIFEST)
            if row[0] not in places and (self.path / row[0]).is_file()
        ]
        for file in files:
            path = self.path / file.place
            when = ""
            if path.is_file() and self.versions.get(file.place) == file.version:
                when = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(
                    timespec="seconds"
                )
            md5 = file.md5 or self.md5s.get(file.place, "")
            rows.append(
                (file.place, file.case, file.slide, file.id, md5, file.size, file.url, when)
            )
        rows.sort(key=lambda row: str(row[0]))
        write_table(self.path / MANIFEST, MANIFEST_COLUMNS, rows)

    def _keep_changed_manifest(self) -> None:
        """Move away a manifest that cannot be read: it may be all that says where files came from."""
        path = self.path / MANIFEST
        if not path.is_file() or not path.stat().st_size or _manifest_table(path) is not None:
            return
        names = (f"manifest-changed-{number}.csv" for number in itertools.count(1))
        free = next(name for name in names if not (self.path / name).exists())
        path.rename(self.path / free)
        self.notes.append(
            f"{MANIFEST} was changed so that it has other columns, and is {free} now. The new one says where "
            "the files of this selection came from."
        )


def refuse_foreign(folder: Path) -> None:
    """Refuse a file, and a folder that has files and was not filled by a fetch: they would be taken for its.

    Raises:
        FetchError: naming what is there.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise FetchError(f"{there} is a file, and a folder is needed. Choose another name.")
    if (folder / STATE).is_file() or _manifest_rows(folder / MANIFEST) or not folder.is_dir():
        return
    # A hidden name is no content: the lock and temporary files of a process that was killed, .DS_Store.
    if names := sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")):
        raise FetchError(
            f"{folder} was not created by a fetch and is not empty: {listed(names)}. Choose an "
            "empty or a new "
            "folder."
        )


def _manifest_rows(path: Path) -> list[tuple[str, ...]]:
    """The rows of a manifest that was written here; none where there is no such table."""
    return (_manifest_table(path) if path.is_file() else None) or []


def _manifest_table(path: Path) -> list[tuple[str, ...]] | None:
    """The rows of a manifest, also one that a spreadsheet has saved with a mark at its beginning.

    None where it has other columns.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        header, *rows = list(csv.reader(stream)) or [[]]
    if tuple(header) != MANIFEST_COLUMNS:
        return None
    return [tuple(row) for row in rows if len(row) == len(MANIFEST_COLUMNS)]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(value: object) -> str:
    if value is None or value == []:
        return "all"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
