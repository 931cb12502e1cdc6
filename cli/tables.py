"""Tables of predictions on the command line: how they are read and written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.options import UsageError, writable
from cli.runs import MOVED_STORE
from features.choices import twice_problem, unknown_problem
from mil.data.reading import AS_WRITTEN, TableReading

if TYPE_CHECKING:
    from mil.evaluation.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class TableOptions(TableReading):
    """How tables are read, and where the results are written."""

    cohort: Path | None = field(
        default=None,
        metadata={
            "help": "Table with case, slide and label, for predictions that name slides only; of a run, "
            "where "
            "its table is now, if it has moved."
        },
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
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


def read_inputs(
    paths: Sequence[Path],
    *,
    store: Path | None = None,
    cohort: Path | None = None,
    classes: Sequence[str] = (),
    models: Sequence[str] = (),
    reading: TableReading = AS_WRITTEN,
) -> "Predictions":
    """The predictions of runs and tables of any kind; a table of classes may be another tool's.

    Args:
        paths: run folders, or tables of predictions; one that lies in a run is read as the run.
        store: where the bag store of the runs is now.
        cohort: of runs, where their table is now; else the cases and labels of slides.
        classes: names of the classes that a table calls 0, 1, ...
        models: to choose; all if empty.
        reading: what the names and words of ``cohort`` mean.

    Raises:
        UsageError: a model is unknown, or an option does not go with the input.
    """
    from mil.runs.run import open_run

    folders = [folder for folder in map(_folder_of, paths) if (folder / "run.json").is_file()]
    if store and not folders:
        raise UsageError(f"--store belongs to a run; {paths[0]} is a table. Leave it out.")
    runs = [open_run(folder, store=store, cohort=cohort) for folder in folders]
    for run in runs:
        run.check_results()
    predictions = _read_tables(
        [table_of(path) for path in paths], None if runs else cohort, classes, reading
    )
    for run in runs:
        predictions = run.task.adopt(predictions)
    _check_models(models, predictions, table_of(paths[0]))
    return predictions.select(models) if models else predictions


def _folder_of(path: Path) -> Path:
    """The run that a path is, or whose predictions it is."""
    return path.parent if path.name == "predictions.csv" else path


def table_of(path: Path) -> Path:
    """A table of predictions; of a run, its predictions.csv."""
    return path / "predictions.csv" if path.is_dir() else path


def _check_models(requested: Sequence[str], predictions: "Predictions", table: Path) -> None:
    """Refuse models that are not in the table."""
    if problem := unknown_problem("model", requested, predictions.models):
        raise UsageError(f"{table}: {problem}")
    if problem := twice_problem("model", requested):
        raise UsageError(problem)


def _read_tables(
    tables: Sequence[Path], cohort: Path | None, classes: Sequence[str], reading: TableReading
) -> "Predictions":
    """The predictions of tables of any kind and tool."""
    from cli.console import warn
    from mil.api.judging import read_predictions
    from mil.evaluation.cells import read_text_table
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.predictions import kind_of

    kind = kind_of(list(read_text_table(tables[0]).columns))
    if (classes or cohort) and kind is not ClassPredictions:
        raise UsageError(
            f"--classes and --cohort are for predictions of classes; {tables[0]} holds none. Leave them out."
        )
    return read_predictions(
        tables,
        cohort=cohort,
        classes=classes,
        notify=warn,
        **reading.words(),
    )


def say_results(folder: Path, name: str) -> None:
    """Print where results were written."""
    from cli.console import say
    from mil.evaluation.results import result_paths

    say(f"Numbers: {', '.join(map(str, result_paths(folder, name)))}")
