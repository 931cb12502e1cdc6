"""The log of external validations: which model has been tested on which unseen cases.

A second model that is tested on the same cases could be chosen by its score on them; then they are no longer
unseen cases, so it is refused. Each validation is recorded beside the table, in the bag store and in the run:
a new store, a new table or a copy of the run does not lose the record.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mil.data.cohort import Cohort
from mil.data.names import matching
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
    """

    date: str
    model: str
    run: str
    predictions_sha256: str
    table: str
    table_sha256: str
    cases: tuple[str, ...]
    bags: tuple[str, ...]


def new_record(run: Run, model: str, table: Path, cohort: Cohort) -> ValidationRecord:
    """The record of a validation that is made now."""
    return ValidationRecord(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        run=str(run.path.absolute()),
        predictions_sha256=run.predictions_sha256,
        table=str(table.absolute()),
        table_sha256=sha256_of(table),
        cases=tuple(case.name for case in cohort.cases),
        bags=tuple(bag.data_sha256 for case in cohort.cases for bag in case.bags),
    )


def log_paths(table: Path, store: Path, run: Path) -> tuple[Path, Path, Path]:
    """The logs of these cases: beside the table, in the bag store, and in the run folder."""
    return table.with_name(f"{table.stem}.{LOG}"), store / LOG, run / "external" / LOG


def earlier_records(logs: Sequence[Path], record: ValidationRecord) -> tuple[ValidationRecord, ...]:
    """The records of any of the same cases in the logs, without duplicates, by date.

    Raises:
        RunError: a log cannot be read: a line that is lost would let a second model in.
    """
    logged = {entry for log in logs for entry in _read(log)}
    return tuple(
        sorted(
            (
                entry
                for entry in logged
                if set(entry.bags) & set(record.bags) or matching(entry.cases, record.cases)
            ),
            key=lambda entry: entry.date,
        )
    )


def check_same_model(earlier: Sequence[ValidationRecord], record: ValidationRecord) -> None:
    """Refuse a second model on cases that another has been tested on.

    Raises:
        LeakageError: naming the first.
    """
    for entry in earlier:
        if (entry.model, entry.predictions_sha256) != (record.model, record.predictions_sha256):
            raise LeakageError(
                f"These cases were used to test {entry.model} of {entry.run} on {entry.date}. A second "
                f"model, here {record.model} of {record.run}, could be chosen by its score on them, and "
                "the better of two scores is not what unseen cases will give. Report the first; compare "
                "models by cross-validation, and test this one on cases that no model has been tested on."
            )


def append_record(logs: Sequence[Path], record: ValidationRecord) -> None:
    """Add a line to each log; earlier lines are never changed.

    Raises:
        RunError: a log cannot be written.
    """
    for log in logs:
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        except OSError as error:
            raise RunError(
                f"{log}: cannot be written ({error.strerror}), and no validation is made without a record. "
                "Put the table and the store into a folder that you can write to."
            ) from error


def _read(log: Path) -> Iterator[ValidationRecord]:
    if not log.exists():
        return
    for number, line in enumerate(log.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            lists = {"cases": tuple(entry["cases"]), "bags": tuple(entry["bags"])}
            yield ValidationRecord(**entry | lists)
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{log}, line {number}: not a record as it was written ({error}). Put the line back."
            ) from error
