"""Evaluation and comparison of predictions of any kind."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mil.evaluation.display import Table
from mil.evaluation.intervals import Estimate
from mil.evaluation.predictions import Predictions, write_predictions
from mil.evaluation.results import results_folder, write_results

if TYPE_CHECKING:
    from mil.settings import JudgeSettings


class ModelEvaluation(Protocol):
    """What the evaluation of one model offers."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def metrics(self) -> Mapping[str, Estimate]:
        """Estimates with their limits, by the name of the metric."""


class PairComparison(Protocol):
    """What the test of two models offers."""

    @property
    def first(self) -> str:
        """Name of a model."""

    @property
    def second(self) -> str:
        """Name of the model that it is compared with."""

    @property
    def n(self) -> int:
        """Cases."""

    @property
    def p(self) -> float | None:
        """P value of the task's own test; None where it is undefined."""

    @property
    def p_holm(self) -> float | None:
        """The same, adjusted over all pairs tested together."""

    def to_json(self) -> Mapping[str, object]:
        """Plain numbers, text, lists and dicts."""


class Evaluation(Protocol):
    """What every evaluation offers, whatever was predicted; ``evaluation["abmil"]`` is that of one model.

    Example:
        evaluation = mil.evaluate(mil.read_predictions("run/predictions.csv"))
        evaluation["abmil"].metrics["auc"].value
    """

    @property
    def models(self) -> Sequence[ModelEvaluation]:
        """One result per model, in the order of the table."""

    def __getitem__(self, model: str, /) -> ModelEvaluation:
        """The result of a model."""

    def best(self) -> ModelEvaluation:
        """The result of the best model."""

    def ranked(self) -> Sequence[ModelEvaluation]:
        """The results, the best first, by the measure that the task names."""

    @property
    def n_cases(self) -> int:
        """Cases."""

    @property
    def n_slides(self) -> int:
        """Distinct slides."""

    @property
    def repeats(self) -> tuple[int, ...]:
        """Repeats of the cross-validation."""

    def to_json(self) -> dict[str, object]:
        """Plain numbers, text, lists and dicts; None for what is undefined."""

    def rows(self) -> list[dict[str, object]]:
        """Every number with its limits, one row each."""

    def tables(self) -> Sequence[Table]:
        """For a terminal; the first has one row per model."""


class Comparison(Protocol):
    """What every comparison of models offers."""

    @property
    def pairs(self) -> Sequence[PairComparison]:
        """One test per pair of models."""

    def rows(self) -> list[dict[str, object]]:
        """One flat row per pair."""

    def tables(self) -> Sequence[Table]:
        """For a terminal."""

    def to_json(self) -> Mapping[str, object]:
        """Plain numbers, text, lists and dicts."""


def evaluate(
    predictions: Predictions,
    settings: "JudgeSettings | None" = None,
    *,
    models: Sequence[str] = (),
    out: Path | str | None = None,
) -> Evaluation:
    """Judge every model over the cases of a table.

    Args:
        predictions: out of fold; the slides of a case are averaged.
        settings: intervals, prevalence, coverage; the defaults if not given.
        models: to judge; all if empty.
        out: folder for metrics.json, metrics.csv and predictions.csv; nothing is written if not given.

    Raises:
        PredictionsError: there is no such model, or a setting does not suit what was predicted.
        RunError: ``out`` is a run folder.

    Example:
        evaluation = mil.evaluate(mil.read_predictions("run/predictions.csv"), out="judged")
        for result in evaluation.models:
            print(result.model, result.metrics["accuracy"].value)
    """
    folder = None if out is None else results_folder(out)
    if models:
        predictions = predictions.select(models)
    judged: Evaluation = _resolve(predictions.evaluator)(predictions, settings)
    if folder:
        write_predictions(folder / "predictions.csv", predictions)
        write_results(folder, "metrics", judged.to_json(), judged.rows())
    return judged


def compare(
    first: Predictions,
    second: Predictions | None = None,
    *,
    names: tuple[str, str] = ("A", "B"),
    models: Sequence[str] = (),
    out: Path | str | None = None,
) -> Comparison:
    """Test models against each other over the same cases: those of one table, or of two.

    With a second table, models of the same name are paired; where no name is in both, every model of the
    first is paired with every model of the second. Folds and repeats may differ.

    Args:
        first: out of fold.
        second: another table of the same kind; without it, the models of the first are paired.
        names: names of the two tables in results and messages.
        models: to compare; all if empty.
        out: folder for comparison.json and comparison.csv; nothing is written if not given.

    Raises:
        PredictionsError: there is no such model, or the tables are of different kinds, or differ in cases or
            outcomes.
        RunError: ``out`` is a run folder.

    Example:
        predictions = mil.read_predictions("run/predictions.csv")
        for row in mil.compare(predictions, out="compared").rows():
            print(row["first"], row["second"], row)
        later = mil.read_predictions("run/predictions.csv")
        print(mil.compare(predictions, later, names=("earlier", "later"), models=["abmil"]).rows())
    """
    folder = None if out is None else results_folder(out)
    tables = [table for table in (first, second) if table is not None]
    if models:
        tables = [table.select(models) for table in tables]
    compared: Comparison
    if len(tables) > 1:
        compared = compare_tables(tables[0], tables[1], names)
    else:
        compared = _resolve(first.comparer)(tables[0])
    if folder:
        write_results(folder, "comparison", compared.to_json(), compared.rows())
    return compared


def compare_tables(
    first: Predictions, second: Predictions, names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Test the models of one table against those of another over the same cases.

    Models of the same name are paired; where no name is in both tables, every model of the first is paired
    with every model of the second. Folds and repeats may differ.

    Args:
        first: a table.
        second: another of the same kind.
        names: names of the tables in results and messages.

    Raises:
        PredictionsError: the tables are of different kinds, or differ in cases or outcomes.
    """
    compared: Comparison = _resolve(first.table_comparer)(
        first, type(first).expect(second, names[1]), names
    )
    return compared


def _resolve(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
