"""A run folder as it is written, by one process at a time: started, continued, finished."""

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from features.bags.store import lock_file
from features.errors import BagError
from mil.errors import RunError
from mil.runs.files import (
    FOLDS,
    FORMAT,
    FORMAT_VERSION,
    LOCK,
    MOVED,
    REFERENCE,
    RESULTS,
    RUN,
    sha256_of,
    write_json,
)
from mil.runs.moved import relative_places
from mil.runs.run import Run, open_run
from mil.tasks.names import TASKS
from mil.version import __version__

DECIDING = ("sarcomil", "torch")  # fits of different versions of these are not put into one run
NAMED_VERSIONS = (
    "torch",
    "timm",
    "openslide-python",
    "openslide-bin",
    "numpy",
    "scikit-learn",
    "h5py",
)

_locks: dict[Path, contextlib.ExitStack] = {}  # the folders that this process writes


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A run folder that is to be written.

    Attributes:
        path: the folder.
        settings: resolved, enough to repeat the run, as JSON can hold them.
        overwrite: replace a finished run instead of refusing.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    def start(self, command: str, data: Mapping[str, Any] | None = None) -> Run:
        """Open the folder for writing; see ``start_run``."""
        return start_run(self.path, command, self.settings, data, overwrite=self.overwrite)


def start_run(
    path: Path,
    command: str,
    settings: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Run:
    """Open a run folder for writing; an interrupted run of the same settings, data and versions goes on.

    A run that was begun with others and has computed nothing is begun anew.

    Until ``finish_run``, or the end of this process, no other process can open it for writing.

    Args:
        path: the folder.
        command: the kind of run: ``crossval``, ``train``, ``finetune``, ``segment``,
            ``protocol`` or ``learning-curve``.
        settings: resolved, enough to repeat the run.
        data: facts about the cohort; a run on other bags or labels is another run.
        overwrite: replace a run instead of refusing.

    Raises:
        RunError: the folder holds a finished run, results of other settings, data or versions, or other
            files, another process writes it, or the file system has no locks.
    """
    if path.is_file() or (path.is_dir() and _is_foreign(path)):
        raise RunError(f"{path} exists and is not a run folder. Choose another folder.")
    with contextlib.ExitStack() as failing:
        if path.resolve() not in _locks:
            _lock(path)
            failing.callback(_release, path)
        run = _write_start(path, command, settings, data or {}, overwrite=overwrite)
        failing.pop_all()
    return run


def _write_start(
    path: Path,
    command: str,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    overwrite: bool,
) -> Run:
    """Write run.json into a folder that this process has locked, removing what another run has left."""
    data = json.loads(json.dumps(data))
    if (path / RUN).is_file():
        existing = open_run(path)
        same = (
            existing.command == command
            and _deciding(existing.settings.stored) == _deciding(settings)
            and all(existing.info.get(name) == fact for name, fact in data.items())
            and all(existing.versions.get(name) == versions()[name] for name in DECIDING)
        )
        if (existing.complete or (not same and _holds_work(path))) and not overwrite:
            other = f"a run with other settings or data, or by another {' or '.join(DECIDING)}"
            content = "a finished run" if existing.complete else other
            raise RunError(f"{path} holds {content}. Choose another folder, or set overwrite.")
        if existing.complete or not same:
            _clear(path)
    for leftover in (path / "models").glob(".*"):
        if _is_temporary(leftover):
            leftover.unlink(missing_ok=True)
    return update_run(
        Run(path, {}),
        format=FORMAT,
        format_version=FORMAT_VERSION,
        command=command,
        settings=dict(settings),
        places=relative_places(settings, path),
        versions=versions(),
        machine={
            "system": platform.platform(terse=True),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        **data,
        started=_now(),
        complete=False,
    )


def update_run(run: Run, **facts: Any) -> Run:
    """Add facts to run.json; the file is replaced whole."""
    info = {**run.info, **facts}
    write_json(run.path / RUN, info)
    return Run(run.path, info, run.moved)


def finish_run(run: Run, **facts: Any) -> Run:
    """Add the last facts and fingerprints of the results, and mark the run as complete."""
    models = sorted(f"models/{path.name}" for path in (run.path / "models").glob("*.safetensors"))
    checksums = {
        name: sha256_of(run.path / name)
        for name in (*RESULTS, *models)
        if (run.path / name).is_file()
    }
    run = update_run(run, **facts, results=checksums, finished=_now(), complete=True)
    _release(run.path)
    return run


def _lock(path: Path) -> None:
    """Let no other process write the folder.

    Raises:
        RunError: another process writes it, or there are no locks.
    """
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            alone = stack.enter_context(lock_file(path / LOCK))
        except BagError as error:
            raise RunError(f"{error}") from error
        if not alone:
            owner = (path / LOCK).read_text(encoding="utf-8").strip()
            raise RunError(
                f"{path} is being written by another process ({owner}). "
                "Wait for it, or choose another folder."
            )
        stack.callback(_remove, path / LOCK)
        _locks[path.resolve()] = stack.pop_all()


def _remove(lock: Path) -> None:
    """Remove a lock's file, or empty it: Windows removes no open file."""
    try:
        lock.unlink(missing_ok=True)
    except PermissionError:
        os.truncate(lock, 0)


def _release(path: Path) -> None:
    """Let other processes write the folder again."""
    if path.resolve() in _locks:
        _locks.pop(path.resolve()).close()


def _is_foreign(path: Path) -> bool:
    """Whether a folder holds files, but no run."""
    names = {p.name for p in path.iterdir() if not _is_temporary(p)}
    return bool(names - {LOCK}) and not (path / RUN).is_file()


def _holds_work(path: Path) -> bool:
    """Whether a run that has begun has computed anything, so that it may not be begun anew unasked."""
    begun = {RUN, FOLDS, LOCK}
    files = (file for file in path.rglob("*") if file.is_file() and not _is_temporary(file))
    return any(file.relative_to(path).as_posix() not in begun for file in files)


def _is_temporary(path: Path) -> bool:
    """Whether a file was left by a process that was killed while it wrote."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def versions() -> dict[str, str]:
    """Versions of this library and of what its numbers depend on."""
    return {"sarcomil": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in NAMED_VERSIONS
    }


def _clear(path: Path) -> None:
    """Remove the files of an earlier run, so that none of its numbers stands beside the new ones."""
    for name in (
        "models",
        "explain",
        "bags",
        "folds",
        "external",
        *(row.folder for row in TASKS.values() if row.folder),
        "decision",
        "arms",
        "draws",
        "frozen",
        "figures",
        "maps",
    ):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in (
        "predictions.csv", "metrics.json", "comparison.json", "folds.json", "results.csv", "report.html",
        "predict.csv", "weights.safetensors", "classifier.safetensors", "checkpoint.safetensors", "card.json",
        "history.csv", "draws.csv", "summary.csv", "learning-curve.png", "learning-curve.svg", MOVED,
        "segmenter.safetensors", "scores.csv", "evaluation.json",
        REFERENCE,
    ):  # fmt: skip
        (path / name).unlink(missing_ok=True)


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that shape a run's numbers, as JSON holds them: all but where it is written."""
    stored: dict[str, Any] = json.loads(json.dumps(settings))
    return {name: value for name, value in stored.items() if name != "out"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
