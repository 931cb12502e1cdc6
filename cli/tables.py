"""Tables of predictions on the command line: how they are read and written."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.options import UsageError, writable
from features.choices import suggest

if TYPE_CHECKING:
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How tables are read, and where the results are written."""

    cohort: Path | None = field(
        default=None,
        metadata={
            "help": "Table with case, slide and label, for predictions that name slides only."
        },
    )
    classes: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Names of the classes that a table calls 0, 1, ..., separated by commas.",
            "split": ",",
        },
    )
    models: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Only these models, separated by commas; all if not given.",
            "split": ",",
        },
    )
    out: Path | None = field(
        default=None, metadata={"help": "Folder for the numbers as JSON and CSV."}
    )


def check_out(out: Path | None) -> None:
    """Refuse a folder that cannot be written to, or is a run."""
    if out and writable(out) and (out / "run.json").exists():
        raise UsageError(f"--out {out} is a run folder. Choose another.")


def tables_of(paths: Sequence[Path]) -> list[Path]:
    """The tables of predictions; of a run, its unchanged predictions.csv."""
    from mil.runs.run import open_run

    for path in paths:
        if (path / "run.json").is_file():
            open_run(path).check_results()
    return [path / "predictions.csv" if path.is_dir() else path for path in paths]


def check_models(requested: Sequence[str], predictions: "Predictions", table: Path) -> None:
    """Refuse a model that is not in the table."""
    if unknown := [name for name in requested if name not in predictions.models]:
        hint = suggest(unknown[0], predictions.models)
        known = ", ".join(predictions.models)
        raise UsageError(f"{table} has no model {unknown[0]!r}; it has {known}.{hint}")


def read_class_predictions(tables: Sequence[Path], options: TableOptions) -> "ClassPredictions":
    """The predictions of tables with classes, of any tool."""
    from cli.console import warn
    from mil.data.table import read_table
    from mil.evaluation.tables import SlideLabel, read_tables

    labels = {}
    if options.cohort:
        labels = {row.slide: SlideLabel(row.case, row.label) for row in read_table(options.cohort)}
    predictions, notes = read_tables(tables, labels, options.classes)
    for note in notes:
        warn(note)
    check_models(options.models, predictions, tables[0])
    return predictions.select(options.models) if options.models else predictions


def read_predictions_of(tables: Sequence[Path], options: TableOptions) -> "Predictions":
    """The predictions of tables of any kind; those of classes may be another tool's."""
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.predictions import concat, kind_of, read_predictions, read_text_table

    if kind_of(list(read_text_table(tables[0]).columns)) is ClassPredictions:
        return read_class_predictions(tables, options)
    if options.classes or options.cohort:
        raise UsageError(
            f"--classes and --cohort are for predictions of classes; {tables[0]} holds none. Leave them out."
        )
    predictions = concat([read_predictions(table) for table in tables])
    check_models(options.models, predictions, tables[0])
    return predictions.select(options.models) if options.models else predictions


def write_results(
    out: Path, name: str, content: Mapping[str, object], rows: Sequence[Mapping[str, object]]
) -> None:
    """Write ``<name>.json`` and ``<name>.csv`` and print their paths."""
    from cli.console import say
    from mil.runs.files import write_json

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", content)
    write_rows(out / f"{name}.csv", rows)
    say(f"Numbers: {out / f'{name}.json'}, {out / f'{name}.csv'}")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV that appears whole; what a row lacks stays empty."""
    from features.files.atomic import atomic_path

    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
