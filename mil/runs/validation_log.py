"""The log of external validations: which model has been tested on which unseen cases.

A second model that is tested on the same cases could be chosen by its score on them; then they are no longer
unseen cases, so it is refused. Each validation is recorded beside the table, in the bag store and in the run:
a new store, a new table or a copy of the run does not lose the record. The logs are locked from the look for
earlier records until the new one is added, so that of two models tested at the same time one is refused.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from features.files.locks import is_at, lock
from features.files.parse import parse_json
from mil.data.case import Row
from mil.data.cohort import Cohort
from mil.data.names import identity_of, matching
from mil.errors import LeakageError, RunError
from mil.runs.files import sha256_of
from mil.runs.run import Run

LOG = "readings.jsonl"


@dataclass(frozen=True)
class ValidationRecord:
    """One external validation.

    Attributes:
        date: when it was made, UTC.
        model: the model that was tested.
        run: the folder of its cross-validation.
        predictions_sha256: of the cross-validation, by which the model is recognised.
        table, table_sha256: the table of the cases.
        cases: names of the cases.
        bags: fingerprints of their bags.
        task: what the model predicts; empty in records of versions that did not log it.
        outcomes: of the cases, in their order; empty in such records.
    """

    date: str
    model: str
    run: str
    predictions_sha256: str
    table: str
    table_sha256: str
    cases: tuple[str, ...]
    bags: tuple[str, ...]
    task: str = ""
    outcomes: tuple[str, ...] = ()

    def asks_the_same(self, other: "ValidationRecord") -> bool:
        """Whether the scores of two models on these cases could be compared to choose one of the models.

        A diagnosis and a survival of one case are two questions; a class that is read as a grade is one.
        """
        if self.task == other.task or not (self.task and other.task):
            return True
        theirs = dict(zip(map(identity_of, other.cases), other.outcomes, strict=True))
        pairs = zip(map(identity_of, self.cases), self.outcomes, strict=True)
        return all(outcome == theirs[case] for case, outcome in pairs if case in theirs)


def new_record(run: Run, model: str, table: Path, cohort: Cohort) -> ValidationRecord:
    """The record of a validation that is made now."""
    outcomes = {case.name: case.label for case in cohort.cases}
    bags = tuple(bag.data_sha256 for case in cohort.cases for bag in case.bags)
    return _record(run, model, table, outcomes, bags)


def planned_record(run: Run, model: str, table: Path, rows: Sequence[Row]) -> ValidationRecord:
    """The record of a validation whose bags are not made yet.

    Raises:
        CohortError: a column of the outcome is missing or malformed.
    """
    labelled = run.task.label_rows(rows, table.name)
    return _record(run, model, table, {row.case: row.label for row in labelled if row.label}, ())


def _record(
    run: Run, model: str, table: Path, outcomes: Mapping[str, str], bags: tuple[str, ...]
) -> ValidationRecord:
    return ValidationRecord(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        run=str(run.path.absolute()),
        predictions_sha256=run.predictions_sha256,
        table=str(table.absolute()),
        table_sha256=sha256_of(table),
        cases=tuple(outcomes),
        bags=bags,
        task=run.task.name,
        outcomes=tuple(outcomes.values()),
    )


def log_paths(table: Path, store: Path, run: Path) -> tuple[Path, Path, Path]:
    """The logs of these cases: beside the table, in the bag store, and in the run folder."""
    return table.with_name(f"{table.stem}.{LOG}"), store / LOG, run / "external" / LOG


def earlier_records(logs: Sequence[Path], record: ValidationRecord) -> tuple[ValidationRecord, ...]:
    """The records of the same question to any of the same cases in the logs, without duplicates, by date.

    Raises:
        RunError: a log cannot be read: a line that is lost would let a second model in.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(log.open(encoding="utf-8")) for log in logs if log.exists()]
        for file in files:
            _lock(file, shared=True)
        return _concerned(files, record)


def record_validation(
    logs: Sequence[Path], record: ValidationRecord
) -> tuple[ValidationRecord, ...]:
    """Refuse a second model, else add a line to each log, in one go that no other process can get into.

    Earlier lines are never changed.

    Returns:
        The earlier records, as ``earlier_records``; all are of the same model.

    Raises:
        LeakageError: another model has been tested on one of the cases.
        RunError: a log cannot be read or written.
    """
    with _locked(logs) as files:
        earlier = _concerned(files, record)
        check_same_model(earlier, record)
        for file in files:
            file.write(json.dumps(asdict(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return earlier


def check_same_model(earlier: Sequence[ValidationRecord], record: ValidationRecord) -> None:
    """Refuse a second model on cases that another has been tested on.

    Raises:
        LeakageError: naming the first.
    """
    for entry in earlier:
        if (entry.model, entry.predictions_sha256) != (record.model, record.predictions_sha256):
            raise LeakageError(
                f"These cases were used to test {entry.model} of {entry.run} on {entry.date}. Testing a "
                f"second model, here {record.model} of {record.run}, would let you pick the better one, and "
                "its score would be optimistic. Report the first; compare "
                "models by cross-validation, and test this one on cases that no model has been tested on."
            )


@contextmanager
def _locked(logs: Sequence[Path]) -> Iterator[list[TextIO]]:
    """The logs, open and locked for this process alone; one that stays empty is removed again.

    Raises:
        RunError: a log cannot be written.
    """
    paths = sorted({log.resolve() for log in logs})  # every process locks them in one order
    with ExitStack() as stack:
        files: list[TextIO] = []
        try:
            for path in paths:
                files.append(_open_locked(path))
                stack.callback(_close, files[-1], path)
            yield files
        except OSError as error:
            raise RunError(
                f"{error.filename or paths[0]}: cannot be written ({error.strerror}), and no validation is "
                "made without a record. Put the table and the store into a folder that you can write to."
            ) from error


def _open_locked(path: Path) -> TextIO:
    """A log, open and locked; opened again where another process has removed it in the meantime."""
    while True:
        file = path.open("a+", encoding="utf-8")
        _lock(file)
        if is_at(file, path):
            return file
        file.close()


def _close(file: TextIO, path: Path) -> None:
    with file:
        if not os.fstat(file.fileno()).st_size:
            path.unlink()


def _lock(file: TextIO, *, shared: bool = False) -> None:
    """Lock a log until it is closed.

    Raises:
        RunError: there are no locks.
    """
    try:
        lock(file, shared=shared)
    except (ImportError, OSError) as error:
        raise RunError(
            f"{file.name}: this system has no file locks ({error}), so that two models could be tested at "
            "the same time. Put the table, the store and the run on a local disk of Linux, macOS or WSL."
        ) from error


def _concerned(files: Sequence[TextIO], record: ValidationRecord) -> tuple[ValidationRecord, ...]:
    """The records of open logs that a new one must be compared with, by date."""
    logged = {entry for file in files for entry in _read(file)}
    return tuple(
        sorted(
            (
                entry
                for entry in logged
                if (set(entry.bags) & set(record.bags) or matching(entry.cases, record.cases))
                and entry.asks_the_same(record)
            ),
            key=lambda entry: entry.date,
        )
    )


def _read(file: TextIO) -> Iterator[ValidationRecord]:
    """The records of an open log.

    Raises:
        RunError: a line is not one.
    """
    file.seek(0)
    for number, line in enumerate(file.read().splitlines(), start=1):
        try:
            entry = parse_json(line)
            lists = {"cases": tuple(entry["cases"]), "bags": tuple(entry["bags"])}
            outcomes = tuple(entry.get("outcomes", ()))
            yield ValidationRecord(**entry | lists | {"outcomes": outcomes})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                f"{file.name}, line {number}: not a record as it was written ({error}). Put the line back."
            ) from error
