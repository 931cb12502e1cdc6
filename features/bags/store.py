"""A folder of bags that several processes fill: who works on what, and what became of it.

    <store>/<slide>.h5              the bags
    <store>/extract.csv             every slide of every run, with its outcome
    <store>/failures.csv            those that failed, with details; absent if none
    <store>/.extract/<slide>.claim  locked by the process that works on the slide
    <store>/.extract/<slide>.json   the slide's last outcome; the tables are made of these
    <store>/.extract/recipe         locked by all processes that fill the store; says by which recipe
    <store>/.extract/lock           locked for the moment in which what they share is changed

A claim is a lock of the operating system: it ends with its process, however that ends, and a file left
behind means nothing. In the names of these files a slide's ``/`` is ``%2F``.
"""

import contextlib
import csv
import fcntl
import hashlib
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TextIO

from features.errors import BagError
from features.files.atomic import TEMPORARY, atomic_path
from features.slides.slide import file_name

STATUSES = ("done", "skipped", "excluded", "failed")
COLUMNS = (
    "slide", "case", "status", "tiles", "unreadable", "seconds", "tiles_per_s", "tumour_of_tissue",
    "mpp", "mpp_source", "annotation_origin", "reader", "reason", "notes",
)  # fmt: skip
MAX_NAME_BYTES = 180  # bytes; with what a temporary adds, file systems take 255


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one slide.

    Attributes:
        slide: its name.
        status: ``done``, ``skipped`` (a bag answered already), ``excluded`` (by a rule of the recipe) or
            ``failed``.
        n_tiles: in the bag.
        n_unreadable: tiles that could not be decoded and are not in the bag.
        seconds: from opening the slide to the written bag.
        tumour_of_tissue: fraction of the tissue that is annotated; NaN if unknown.
        reason: of an exclusion or a failure, with the remedy.
        details: the traceback of an unforeseen error.
        notes: what a user should know of a slide that was done.
        store: the folder of the bag.
        stages: seconds by stage (open, read, prepare, forward, write), summed over threads.
    """

    slide: str
    status: str
    case: str = ""
    n_tiles: int = 0
    n_unreadable: int = 0
    seconds: float = 0.0
    tumour_of_tissue: float = math.nan
    mpp: float = math.nan
    mpp_source: str = ""
    annotation_origin: str = ""
    reader: str = ""
    reason: str = ""
    details: str = ""
    notes: str = ""
    store: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """A bag store on disk."""

    path: Path

    def bag(self, slide: str) -> Path:
        """Where the slide's bag lies."""
        return self.path / f"{slide}.h5"

    def bags(self) -> list[Path]:
        """The bags there are."""
        return sorted(p for p in self.path.rglob("*.h5") if not p.name.startswith("."))

    @contextlib.contextmanager
    def filling(self, recipe: Mapping[str, Any]) -> Iterator[None]:
        """Fill the store by a recipe; other processes may join, with the same one.

        Raises:
            BagError: another process fills it by another recipe, or the file system has no locks.
        """
        with (self._kept() / "recipe").open("a+", encoding="utf-8") as file:
            with self.alone():
                if _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):  # nobody fills it
                    file.truncate(0)
                    json.dump(recipe, file)
                    file.flush()
                else:
                    file.seek(0)
                    changes = recipe_differences(json.load(file), json.loads(json.dumps(recipe)))
                    if changes:
                        raise BagError(
                            f"{self.path} is being filled by another process with another recipe "
                            f"({changes}). Use another --out, or wait for it."
                        )
                _flock(file, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def claim(self, slide: str) -> Iterator[bool]:
        """Hold the slide for this process; False if another holds it.

        Raises:
            BagError: the folder's file system has no locks.
        """
        path = self._aside(slide, ".claim")
        with lock_file(path) as mine:
            if mine:
                self._sweep(slide)
            yield mine
            if mine:
                path.unlink(missing_ok=True)

    def record(self, outcome: Outcome, *, since: float = math.inf) -> None:
        """Note an outcome; that a slide was there already does not efface who made it after ``since``."""
        path = self._aside(outcome.slide, ".json")
        if outcome.status == "skipped" and (before := _read_outcome(path)):
            if path.stat().st_mtime > since:
                return
            if before.status in ("done", "skipped"):  # how it was made remains on record
                outcome = replace(before, status="skipped")
        _replace_text(path, lambda file: json.dump(asdict(outcome), file))

    def outcomes(self) -> list[Outcome]:
        """The last outcome of every slide, by name."""
        found = [_read_outcome(path) for path in self.path.glob(".extract/*.json")]
        return sorted((outcome for outcome in found if outcome), key=lambda outcome: outcome.slide)

    def write_tables(self) -> None:
        """Write ``extract.csv`` and ``failures.csv`` from the outcomes."""
        everything, failures = self.path / "extract.csv", self.path / "failures.csv"
        with self.alone():  # else what is written last may have been read first
            for path in (everything, failures):
                _remove_temporaries(path)
            outcomes = self.outcomes()
            _write_csv(everything, COLUMNS, [_table_row(outcome) for outcome in outcomes])
            failed = [
                {"slide": o.slide, "reason": o.reason, "details": o.details}
                for o in outcomes
                if o.status == "failed"
            ]
            if failed:
                _write_csv(failures, ("slide", "reason", "details"), failed)
            else:
                failures.unlink(missing_ok=True)

    def _kept(self) -> Path:
        folder = self.path / ".extract"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _aside(self, slide: str, suffix: str) -> Path:
        name = file_name(slide)
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            name = hashlib.sha256(os.fsencode(name)).hexdigest()
        return self._kept() / f"{name}{suffix}"

    def _sweep(self, slide: str) -> None:
        """Remove what writers of this slide left when they were killed."""
        for path in (self.bag(slide), self._aside(slide, ".json")):
            _remove_temporaries(path)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is here."""
        with (self._kept() / "lock").open("a") as file:
            _flock(file, fcntl.LOCK_EX)
            yield


def recipe_differences(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What the first few settings were and would be; empty where nothing differs."""
    changes = [
        f"{key} {held.get(key)} -> {value}"
        for key, value in asked.items()
        if held.get(key) != value
    ]
    return ", ".join(changes[:4])


def _read_outcome(path: Path) -> Outcome | None:
    """A recorded outcome; None where there is none, or a power cut left a part of it."""
    known = {entry.name for entry in fields(Outcome)}
    try:
        held = json.loads(path.read_text())
        return Outcome(**{key: value for key, value in held.items() if key in known})
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def _remove_temporaries(path: Path) -> None:
    """Remove what killed writers of a file left; the caller knows that nobody writes it now."""
    for left in path.parent.glob(f".{glob_escape(path.name)}.*{TEMPORARY}"):
        writer = left.name[len(path.name) + 2 : -len(TEMPORARY)]
        if re.fullmatch(r"[\d.]+", writer):  # else a file of another slide, one called <this>.h5.x
            left.unlink(missing_ok=True)


def glob_escape(name: str) -> str:
    """A name for use in a pattern: its own brackets and stars mean themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Hold a lock on a file; its content says to people who holds it."""
    while True:
        with path.open("a+") as file:
            if not _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield False
                return
            if not _is_same_file(file, path):  # its last holder removed it before we had the lock
                continue
            file.truncate(0)
            file.write(f"{socket.gethostname()} {os.getpid()} {time.strftime('%F %T')}\n")
            file.flush()
            yield True
            return


def _flock(file: TextIO, how: int) -> bool:
    """Lock a file until it is closed; False if another process has it and ``how`` is not to wait."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BagError(
            f"{Path(file.name).parent}: this file system has no locks ({error}), so that two processes "
            "would do the same work. Use a folder on a local disk, or on a share mounted with them."
        ) from error
    return True


def _is_same_file(file: TextIO, path: Path) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _table_row(outcome: Outcome) -> dict[str, str]:
    made = outcome.status in ("done", "skipped") and outcome.seconds
    rate = outcome.n_tiles / outcome.seconds if made else None
    return {
        "slide": outcome.slide,
        "case": outcome.case,
        "status": outcome.status,
        "tiles": str(outcome.n_tiles),
        "unreadable": str(outcome.n_unreadable),
        "seconds": f"{outcome.seconds:.2f}",
        "tiles_per_s": "" if rate is None else f"{rate:.1f}",
        "tumour_of_tissue": _format_number(outcome.tumour_of_tissue, ".3f"),
        "mpp": _format_number(outcome.mpp, ".4f"),
        "mpp_source": outcome.mpp_source,
        "annotation_origin": outcome.annotation_origin,
        "reader": outcome.reader,
        "reason": outcome.reason,
        "notes": outcome.notes,
    }


def _format_number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    def fill(file: TextIO) -> None:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)

    _replace_text(path, fill)


def _replace_text(path: Path, fill: Any) -> None:
    """Write a text file so that a reader sees the old one or the new one.

    Slides may have names that are not UTF-8; those are written with their bytes spelt out.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        fill(file)
