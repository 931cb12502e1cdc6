"""The run folder: what was asked, who was tested where, what was predicted, and the models.

run.json           format, command, settings, versions, machine, classes, labels (by case), cases and
                       bags (by slide), recipe, excluded, clinical (by case, where a model reads it),
                       started, finished, complete
folds.json         repeat, index, train, test: names of cases
predictions.csv    one row per model, repeat and slide; of survival as in mil.evaluation.survival.predictions
metrics.json, comparison.json
survival/<model>.png, .svg, .csv   Kaplan-Meier curves, of survival
decision/          of `mil decision`
.lock              held by the process that writes the run; gone with it
models/<model>-r<repeat>-f<fold>.safetensors, or models/<model>.safetensors of `mil train`
explain/, report.html
external/<name>/   of `mil external`: predictions.csv, metrics.json
arms/<arm>/, results.csv     of `mil protocol run`
folds/r<repeat>-f<fold>/  of `mil crossval --finetune per-fold`: tuned/ as of `mil finetune`, store/ of bags
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from features.bags.bag import Bag
from features.bags.store import locked
from features.files.atomic import write_atomic
from mil.data.splits import Fold
from mil.errors import RunError
from mil.version import __version__

FORMAT, FORMAT_VERSION = "mil-run", 1
RESULTS = ("folds.json", "predictions.csv", "metrics.json", "comparison.json")
LOCK = ".lock"
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

_held: dict[Path, contextlib.ExitStack] = {}  # the folders that this process writes


@dataclass(frozen=True)
class Run:
    """An existing run folder.

    Attributes:
        path: the folder.
        info: what run.json holds.
    """

    path: Path
    info: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved settings; running from them repeats the run."""
        settings: Mapping[str, Any] = self.info["settings"]
        return settings

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.info.get("complete"))

    def case_of(self, slide: str, stated: str = "") -> str:
        """The case of a slide: as stated with its bag, else as in the run's table, else empty."""
        cases: Mapping[str, str] = self.info["cases"]
        return stated or cases.get(slide, "")

    def model_path(self, model: str, fold: Fold | None = None) -> Path:
        """Where a model is kept: that of a fold, or the one fitted on all cases."""
        suffix = "" if fold is None else f"-r{fold.repeat}-f{fold.index}"
        return self.path / "models" / f"{model}{suffix}.safetensors"

    def fold_store(self, fold: Fold) -> Path:
        """Where the bags are by the backbone that was fine-tuned in a fold."""
        return self.path / "folds" / f"r{fold.repeat}-f{fold.index}" / "store"


def start_run(
    path: Path,
    command: str,
    settings: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Run:
    """Open a run folder for writing; one that was cut off with the same settings, data and versions goes on.

    Until ``finish_run``, or the end of this process, no other process can open it for writing.

    Args:
        path: the folder.
        command: the verb.
        settings: resolved, enough to repeat the run.
        data: facts of the cohort; a run on other bags or labels is another run.
        overwrite: replace a run instead of refusing.

    Raises:
        RunError: the folder holds a finished run, a run of other settings, data or versions, or other files,
            or another process writes it.
        BagError: the file system has no locks.
    """
    if path.is_file() or (path.is_dir() and _is_foreign(path)):
        raise RunError(f"{path} exists and is not a run folder. Choose another --out.")
    with contextlib.ExitStack() as failing:
        if path.resolve() not in _held:
            _hold(path)
            failing.callback(_release, path)
        run = _started(path, command, settings, data or {}, overwrite=overwrite)
        failing.pop_all()
    return run


def _started(
    path: Path,
    command: str,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    overwrite: bool,
) -> Run:
    """The run of a folder that is held."""
    data = json.loads(json.dumps(data))
    if (path / "run.json").is_file():
        held = open_run(path)
        same = (
            held.info["command"] == command
            and _asked(held.settings) == _asked(settings)
            and all(held.info.get(name) == fact for name, fact in data.items())
            and all(held.info["versions"].get(name) == versions()[name] for name in DECIDING)
        )
        if (held.complete or not same) and not overwrite:
            other = f"a run with other settings or data, or by another {' or '.join(DECIDING)}"
            what = "a finished run" if held.complete else other
            raise RunError(f"{path} holds {what}. Choose another --out, or pass --overwrite.")
        if held.complete or not same:
            _clear(path)
    for left in (path / "models").glob(".*"):
        if _is_temporary(left):
            left.unlink(missing_ok=True)
    run = Run(path, {})
    return update_run(
        run,
        format=FORMAT,
        format_version=FORMAT_VERSION,
        command=command,
        settings=dict(settings),
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
    write_json(run.path / "run.json", info)
    return Run(run.path, info)


def finish_run(run: Run, **facts: Any) -> Run:
    """Add the last facts and fingerprints of the results, and mark the run as complete."""
    models = sorted(f"models/{path.name}" for path in (run.path / "models").glob("*.safetensors"))
    found = {
        name: sha256_of(run.path / name)
        for name in (*RESULTS, *models)
        if (run.path / name).is_file()
    }
    run = update_run(run, **facts, results=found, finished=_now(), complete=True)
    _release(run.path)
    return run


def check_results(run: Run) -> None:
    """Refuse results that are not those the run has written; models are checked where they are read.

    Raises:
        RunError: naming the file.
    """
    for name in run.info.get("results", {}):
        if name in RESULTS:
            written(run, run.path / name)


def written(run: Run, path: Path) -> Path:
    """A file of a run, as the run wrote it.

    Raises:
        RunError: it is not.
    """
    told = run.info.get("results", {}).get(path.relative_to(run.path).as_posix())
    if told and not (path.is_file() and sha256_of(path) == told):
        again = f"run `mil {run.info.get('command', 'crossval')}` again"
        raise RunError(f"{path} is not as the run wrote it. Put it back, or {again}.")
    return path


def check_bag(run: Run, bag: Bag) -> None:
    """Refuse a bag that is not the one the run has read under this name.

    Raises:
        RunError: it has changed.
    """
    if run.info.get("bags", {}).get(bag.slide, bag.data_sha256) != bag.data_sha256:
        raise RunError(
            f"The bag of {bag.slide} has changed since {run.path} was made. Put the old one back, or make "
            "the run again."
        )


def sha256_of(path: Path) -> str:
    """Fingerprint of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def open_run(path: Path) -> Run:
    """Open a run folder for reading.

    Raises:
        RunError: there is none, or it was written by a newer version.
    """
    try:
        info = json.loads((path / "run.json").read_text())
        version = int(info["format_version"]) if info["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a run folder ({error}). Give the --out of a run.") from error
    if version is None or version > FORMAT_VERSION:
        raise RunError(f"{path}: run.json is of another format. Upgrade sarcomil, or run again.")
    return Run(path, info)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that it appears whole; what is not finite is an error, not a NaN in the file."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_atomic(path, text)


def _hold(path: Path) -> None:
    """Let no other process write the folder."""
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as holding:
        if not holding.enter_context(locked(path / LOCK)):
            raise RunError(
                f"{path} is being written by another process ({(path / LOCK).read_text().strip()}). "
                "Wait for it, or choose another --out."
            )
        holding.callback((path / LOCK).unlink, missing_ok=True)
        _held[path.resolve()] = holding.pop_all()


def _release(path: Path) -> None:
    """Let other processes write the folder again."""
    if path.resolve() in _held:
        _held.pop(path.resolve()).close()


def _is_foreign(path: Path) -> bool:
    """Whether a folder holds anything, and that is no run."""
    names = {p.name for p in path.iterdir() if not _is_temporary(p)}
    return bool(names - {LOCK}) and not (path / "run.json").is_file()


def _is_temporary(path: Path) -> bool:
    """Left by a process that was killed while it wrote."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def versions() -> dict[str, str]:
    """Versions of this library and of what its numbers depend on."""
    return {"sarcomil": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in NAMED_VERSIONS
    }


def _clear(path: Path) -> None:
    """Remove what an earlier run has written: beside new numbers, old ones would be believed."""
    for name in (
        "models",
        "explain",
        "bags",
        "folds",
        "external",
        "survival",
        "decision",
        "arms",
        "figures",
    ):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in (
        "predictions.csv", "metrics.json", "comparison.json", "folds.json", "results.csv", "report.html",
        "predict.csv", "weights.safetensors", "classifier.safetensors", "checkpoint.safetensors", "card.json",
        "history.csv",
    ):  # fmt: skip
        (path / name).unlink(missing_ok=True)


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes a run's numbers, as JSON holds it: neither where it goes nor what it replaces."""
    held: dict[str, Any] = json.loads(json.dumps(settings))
    return {name: value for name, value in held.items() if name != "out"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
