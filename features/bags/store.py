"""A folder of bags that several processes fill: claims on slides, outcomes and tables.

    <store>/<slide>.h5              the bags
    <store>/extract.csv             every slide of every run, with its outcome
    <store>/failures.csv            those that failed, with details; absent if none
    <store>/.extract/<slide>.claim  locked by the process that works on the slide
    <store>/.extract/<slide>.json   the slide's last outcome; the tables are made of these
    <store>/.extract/recipe         their recipe; locked, shared, by all processes that fill the store
    <store>/.extract/lock           locked while a process changes what they share

A claim is a lock of the operating system: it ends with its process, even a killed one, and a file left
behind means nothing. In the names of these files a slide's ``/`` is ``%2F``.

The package filelock offers no lock that several processes of one recipe can share, and falls back to files
that outlive a killed process where the system has no locks; so those of the system are taken,
in ``features.files.locks``, and imported only then: on Windows, whose locks cannot be shared, stores are read
but not filled.
"""

import contextlib
import csv
import hashlib
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from features.errors import BagError
from features.files.atomic import TEMPORARY, atomic_path
from features.files.locks import is_at, lock
from features.files.parse import parse_json
from features.slides.names import file_name
from features.stored import part_of_stored

COLUMNS = (
    "slide", "case", "status", "tiles", "unreadable", "seconds", "tiles_per_s", "tumour_of_tissue",
    "drawn_glass", "drawn_outside", "mpp", "mpp_source", "annotation_origin", "reader", "reason", "notes",
)  # fmt: skip
MAX_NAME_BYTES = 180  # file systems take 255, of which a temporary name adds some


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of extracting one slide.

    Attributes:
        slide: its name.
        status: ``done``, ``skipped`` (the bag existed), ``excluded`` (by a rule of the recipe) or ``failed``.
        case: if known.
        n_tiles: tiles in the bag.
        n_unreadable: tiles that could not be decoded and are not in the bag.
        seconds: from opening the slide to the written bag.
        tumour_of_tissue: fraction of the tissue that is annotated; NaN if unknown.
        drawn_glass: fraction of the drawn area that is glass; NaN if unknown.
        drawn_outside: fraction of the drawn area that lies outside the slide; NaN if unknown.
        drawn_reach: how far the whole drawing reaches, as a fraction of the slide's sides; NaN if unknown.
        mpp: micrometres per level-0 pixel, along x.
        mpp_source: where ``mpp`` comes from.
        annotation_origin: the frame of the annotation, ``level0`` or ``bounds``; empty if none.
        reader: what decoded the tiles.
        reason: why the slide was excluded or failed, with the remedy.
        details: the traceback of an unforeseen error.
        empty: whether it failed because no tile of it meets the recipe.
        blank: whether that is because no tissue is found on it.
        notes: remarks on a slide that was done.
        store: the folder of the bag.
        classes: number of annotations of the slide by class.
        stages: seconds by stage (open, read, prepare, forward, write), summed over threads.
    """

    slide: str
    status: str
    case: str = ""
    n_tiles: int = 0
    n_unreadable: int = 0
    seconds: float = 0.0
    tumour_of_tissue: float = math.nan
    drawn_glass: float = math.nan
    drawn_outside: float = math.nan
    drawn_reach: float = math.nan
    mpp: float = math.nan
    mpp_source: str = ""
    annotation_origin: str = ""
    reader: str = ""
    reason: str = ""
    details: str = ""
    empty: bool = False
    blank: bool = False
    notes: str = ""
    store: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """A bag store on disk."""

    path: Path

    def bag(self, slide: str) -> Path:
        """The path of a slide's bag."""
        return self.path / f"{slide}.h5"

    def bags(self) -> list[Path]:
        """The paths of all bags."""
        return sorted(p for p in self.path.rglob("*.h5") if not p.name.startswith("."))

    @contextlib.contextmanager
    def filling(self, recipe: Mapping[str, Any]) -> Iterator[None]:
        """Register this process as filling the store; others may join with the same recipe.

        Raises:
            BagError: another process fills the store with another recipe, or the file system has no locks.
        """
        with (self._folder() / "recipe").open("a+", encoding="utf-8") as file:
            with self.exclusive():
                if _flock(file, wait=False):  # no other process fills the store
                    file.truncate(0)
                    json.dump(recipe, file)
                    file.flush()
                else:
                    file.seek(0)
                    changes = recipe_differences(json.load(file), json.loads(json.dumps(recipe)))
                    if changes:
                        raise BagError(
                            f"{self.path} is being filled by another process with another recipe "
                            f"({changes}). Set out to another folder, or wait for that process."
                        )
                _flock(file, shared=True)
            yield

    @contextlib.contextmanager
    def claim(self, slide: str) -> Iterator[bool]:
        """Claim the slide for this process; yields False if another process has it.

        Raises:
            BagError: the folder's file system has no locks.
        """
        path = self._aside(slide, ".claim")
        with lock_file(path) as claimed:
            if not claimed:
                yield False
                return
            self._sweep(slide)
            try:
                yield True
            finally:  # only a process that died leaves its claim behind
                path.unlink(missing_ok=True)

    def died_at(self, slide: str) -> bool:
        """Whether a process died while it worked on a slide that this process has claimed."""
        return self._aside(slide, ".claim").read_text(encoding="utf-8").count("\n") > 1

    def record(self, outcome: Outcome, *, since: float = math.inf) -> None:
        """Record an outcome; one that was skipped does not replace an outcome recorded after ``since``."""
        path = self._aside(outcome.slide, ".json")
        if outcome.status == "skipped" and (before := _read_outcome(path)):
            if path.stat().st_mtime > since:
                return
            if before.status in ("done", "skipped"):  # the record of how it was made stays
                outcome = replace(before, status="skipped")
        _replace_text(path, lambda file: json.dump(asdict(outcome), file))

    def outcomes(self) -> list[Outcome]:
        """The last outcome of every slide, by name."""
        outcomes = [_read_outcome(path) for path in self.path.glob(".extract/*.json")]
        return sorted(
            (outcome for outcome in outcomes if outcome), key=lambda outcome: outcome.slide
        )

    def write_tables(self) -> None:
        """Write ``extract.csv`` and ``failures.csv`` from the outcomes."""
        everything, failures = self.path / "extract.csv", self.path / "failures.csv"
        with self.exclusive():  # else an older state could be written last
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

    def _folder(self) -> Path:
        folder = self.path / ".extract"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _aside(self, slide: str, suffix: str) -> Path:
        name = file_name(slide)
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            name = hashlib.sha256(os.fsencode(name)).hexdigest()
        return self._folder() / f"{name}{suffix}"

    def _sweep(self, slide: str) -> None:
        """Remove the temporary files of killed writers of this slide."""
        for path in (self.bag(slide), self._aside(slide, ".json")):
            _remove_temporaries(path)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other process changes what all share, and keep others out."""
        with (self._folder() / "lock").open("a", encoding="utf-8") as file:
            _flock(file)
            yield


def missing_store(path: Path) -> str:
    """What is wrong with a folder that should be a bag store; empty if it holds a bag."""
    if not path.is_dir():
        return f"{path}: no such bag store. Check the path, or extract the slides into it first."
    if not any(bag.name[0] != "." for bag in path.glob("*.h5")):
        return f"{path}: holds no bag (.h5). Check the path, or extract the slides into it first."
    return ""


def recipe_differences(stored: Mapping[str, Any], requested: Mapping[str, Any]) -> str:
    """The first few settings that differ, as ``tile 224 -> 256``; empty if none does."""
    old, new = dict(_flat(stored)), dict(_flat(requested))
    changes = [
        f"{key} {_stated(old.get(key))} -> {_stated(value)}"
        for key, value in new.items()
        if old.get(key) != value
    ]
    return ", ".join(changes[:4])


def _stated(value: Any) -> Any:
    return "not stated" if value is None else value


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by name; those of a part as ``volume.pixel_mm``."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _read_outcome(path: Path) -> Outcome | None:
    """A recorded outcome; None if there is none, or a power cut left a part of it."""
    try:
        return part_of_stored(Outcome, parse_json(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def _remove_temporaries(path: Path) -> None:
    """Remove the temporary files of killed writers of a file that no process writes now."""
    for temporary in path.parent.glob(f".{glob_escape(path.name)}.*{TEMPORARY}"):
        writer = temporary.name[len(path.name) + 2 : -len(TEMPORARY)]
        if re.fullmatch(r"[\d.]+", writer):  # else it belongs to another slide, called <this>.h5.x
            temporary.unlink(missing_ok=True)


def glob_escape(name: str) -> str:
    """Escape a name for use in a glob pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Lock a file for this process; yields False if another process has the lock.

    The file names the host, the process and the time of the lock, for people to read; a second line names a
    holder that ended without removing it.

    Raises:
        BagError: the file system has no locks.
    """
    while True:
        with path.open("a+", encoding="utf-8") as file:
            if not _flock(file, wait=False):
                yield False
                return
            if not is_at(file, path):
                continue
            file.seek(0)
            left_behind = f"after {file.readline().strip()} died\n" if path.stat().st_size else ""
            file.truncate(0)
            own = f"{socket.gethostname()} {os.getpid()} {time.strftime('%F %T')}\n"
            file.write(own + left_behind)
            file.flush()
            yield True
            return


def _flock(file: TextIO, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock a file until it is closed; False if ``wait`` is off and another process has the lock."""
    try:
        return lock(file, shared=shared, wait=wait)
    except ImportError as error:
        raise BagError(
            f"{Path(file.name).parent}: this operating system has no file locks that end with their process "
            "and can be shared, so that a folder cannot be filled. Work on Linux, macOS or WSL."
        ) from error
    except OSError as error:
        raise BagError(
            f"{Path(file.name).parent}: this file system has no locks ({error}), so that two processes "
            "would do the same work. Use a folder on a local disk, or on a share mounted with locks."
        ) from error


def _table_row(outcome: Outcome) -> dict[str, str]:
    has_bag = outcome.status in ("done", "skipped") and outcome.seconds
    rate = outcome.n_tiles / outcome.seconds if has_bag else None
    return {
        "slide": outcome.slide,
        "case": outcome.case,
        "status": outcome.status,
        "tiles": str(outcome.n_tiles),
        "unreadable": str(outcome.n_unreadable),
        "seconds": f"{outcome.seconds:.2f}",
        "tiles_per_s": "" if rate is None else f"{rate:.1f}",
        "tumour_of_tissue": _format_number(outcome.tumour_of_tissue, ".3f"),
        "drawn_glass": _format_number(outcome.drawn_glass, ".3f"),
        "drawn_outside": _format_number(outcome.drawn_outside, ".3f"),
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

    Slide names that are not UTF-8 are written with their bytes escaped.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        fill(file)
