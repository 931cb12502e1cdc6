"""The contract of every task."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

from features.stored import part_of_stored
from mil.data.case import Case, Row
from mil.errors import CohortError

if TYPE_CHECKING:
    from pathlib import Path

    from mil.data.encoding import ColumnEncoding
    from mil.evaluation.predictions import Predictions
    from mil.evaluation.regression.models import Regression, Truth
    from mil.heads.head import Outcome
    from mil.learning.objective import Objective
    from mil.learning.readout import Readout
    from mil.settings import FitSettings
    from mil.tasks.tile_objective import TileObjective

Fields = dict[str, object]


class Task(ABC):
    """A question about a case; concrete tasks are frozen dataclasses whose fields are columns and units.

    Attributes:
        name: in ``mil.tasks.registry``.
        outcome: what the table must state of a case.
        group: what the label of a case is called, as ``class``.
        default_models: models that are compared when none are named.
        head_outcome: how logits are read, as ``mil.heads.head.HeadSettings.outcome``.
        null_metric: (metric, its value for a model that knows nothing), for the permutation test.
        null_label: that metric's name for people.
        page: class with the sections of its page, ``module:name``.
        case_answers: function that lists predictions case by case for the viewer, ``module:name``.
        reader: class that reads the answers for new cases, ``module:name``.
        audit: class of its judged runs in an audit, ``module:name``.
        quantity: class of the number that maps divide among tiles, ``module:name``.
        has_classes: whether labels are classes that other facts of a case may tell apart.
        has_learning_curve: whether training cases are drawn class by class and the AUC is followed.
    """

    name: ClassVar[str]
    outcome: ClassVar[str]
    group: ClassVar[str]
    default_models: ClassVar[tuple[str, ...]]
    head_outcome: "ClassVar[Outcome]"
    null_metric: ClassVar[tuple[str, float]]
    null_label: ClassVar[str]
    page: ClassVar[str]
    audit: ClassVar[str]
    case_answers: ClassVar[str]
    reader: ClassVar[str]
    quantity: ClassVar[str] = "mil.explanation.quantity:Quantity"
    has_classes: ClassVar[bool] = True
    has_learning_curve: ClassVar[bool] = False

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The task with those of its fields that the settings hold."""
        return part_of_stored(cls, settings)

    def to_settings(self) -> dict[str, Any]:
        """Its fields, as ``from_settings`` reads them."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    # The table

    @abstractmethod
    def label_rows(self, rows: Sequence[Row], source: str) -> tuple[Row, ...]:
        """Rows with the outcome in ``label`` (and ``time``); a row without one has an empty label.

        Raises:
            CohortError: a column is missing or malformed; the message names ``source``.
        """

    @abstractmethod
    def write_outcome(self, row: Row, case: Case) -> Row:
        """The row of a table with the outcome of a case, where ``label_rows`` reads it."""

    @abstractmethod
    def order_classes(self, labels: Sequence[str], source: str) -> tuple[str, ...]:
        """The distinct labels of the cases in their order.

        Raises:
            CohortError: nothing can be learnt from these labels.
        """

    @abstractmethod
    def strata(self, labels: Sequence[str], folds: str) -> list[str]:
        """By what cases with these labels are stratified when they are divided into folds."""

    # Learning

    @abstractmethod
    def check_models(self, names: Sequence[str]) -> None:
        """Refuse models that cannot learn this outcome, before any work is done.

        Raises:
            FitError: naming the model, and models that can.
        """

    @abstractmethod
    def objective(
        self,
        train: Sequence[Case],
        valid: Sequence[Case],
        classes: Sequence[str],
        settings: "FitSettings",
        encoding: "ColumnEncoding | None",
        *,
        by_steps: bool,
    ) -> "Objective":
        """What one fit minimises.

        Args:
            train: cases to learn from.
            valid: further training cases to choose the epoch by; may be empty.
            classes: of the cohort.
            settings: how to train.
            encoding: how clinical columns become a row, for models that read those instead of tiles.
            by_steps: whether the model is trained by gradient steps.

        Raises:
            FitError: the training cases lack an outcome that every fit needs.
        """

    @abstractmethod
    def tile_objective(self, train: Sequence[Case]) -> "TileObjective":
        """What fine-tuning minimises over single tiles, whose targets are the outcomes of their cases.

        Args:
            train: cases to learn from; their bags are not read.

        Raises:
            FitError, CohortError: the training cases lack an outcome that fine-tuning needs.
        """

    @classmethod
    @abstractmethod
    def readout_from_json(cls, outputs: Sequence[str], card: Mapping[str, Any] | None) -> "Readout":
        """The readout of a model's card, as its ``to_json`` wrote it."""

    # Predictions

    @abstractmethod
    def answer_columns(self, cases: Sequence[Case], classes: Sequence[str]) -> tuple[str, ...]:
        """The columns of a table of predictions that hold what a model answers."""

    @abstractmethod
    def outcome_fields(self, case: Case) -> Fields:
        """The columns of a table of predictions that hold what became of a case."""

    @abstractmethod
    def make_predictions(
        self, rows: Sequence[Fields], cases: Sequence[Case], classes: Sequence[str]
    ) -> "Predictions":
        """The table of predictions with these rows."""

    def adopt(self, predictions: "Predictions") -> "Predictions":
        """Predictions of this task read from a file, with what only the task knows, as units."""
        return predictions

    def write_extras(
        self,
        folder: "Path",
        predictions: "Predictions",
        columns: Mapping[str, Mapping[str, str]],
    ) -> tuple[str, ...]:
        """Files of a run beside its predictions; returns what a reader should know of them.

        Args:
            folder: of the run.
            predictions: out of fold.
            columns: clinical columns by case, where models read them; else empty.
        """
        del folder, predictions, columns
        return ()

    @classmethod
    @abstractmethod
    def describe_guessing(cls, result: Mapping[str, Any]) -> str:
        """How a model compares with chance, if chance explains its result; else empty.

        Args:
            result: of the model, as metrics.json of a run holds it.
        """

    # Clinical columns beside a model's score: for tasks that have a regression. The others refuse.

    def check_combinable(self, classes: Sequence[str]) -> None:
        """Refuse a cohort whose outcome no regression here takes.

        Raises:
            CohortError: saying which it takes; by default that there is none for this task.
        """
        del classes
        raise self._lacks_regression()

    def _lacks_regression(self) -> CohortError:
        return CohortError(
            "Clinical columns and a model's score are combined for two classes or for survival, not for "
            f"{self.group}s. Combine no model."
        )

    def regression_truth(self, cases: Sequence[Case | Row], classes: Sequence[str]) -> "Truth":
        """The outcomes as a regression on columns takes them.

        Raises:
            CohortError: there is no regression for this task.
        """
        del cases, classes
        raise self._lacks_regression()

    @abstractmethod
    def regression_score(self, answer: Mapping[str, float], positive: str = "") -> float:
        """A model's answer for a case as one number for a regression: a risk, or the log odds of a class.

        Args:
            answer: by column of a table of predictions.
            positive: the class; the second of two if not given.
        """

    def name_probability(
        self, labels: Collection[str], positive: str | None, horizon: float | None
    ) -> tuple[tuple[str, str], str]:
        """What the probability of a regression is of.

        Args:
            labels: of the cases.
            positive: the class; the second of two if not given.
            horizon: the time until which an event counts.

        Returns:
            the two labels that the regression tells apart, the second with this probability; and the second
            in words. Every other label counts as the first.

        Raises:
            CohortError: a setting is missing, or is one of another outcome; or there is no regression for
                this task.
        """
        del labels, positive, horizon
        raise self._lacks_regression()

    def regression_answers(
        self,
        regression: "Regression",
        train: Mapping[str, Sequence[str]],
        test: Mapping[str, Sequence[str]],
        columns: Sequence[str],
    ) -> list[Fields]:
        """What a regression on columns answers for test cases, as ``answer_columns`` names it.

        Raises:
            CohortError: there is no regression for this task.
        """
        del regression, train, test, columns
        raise self._lacks_regression()


def limit_beyond_chance(
    name: str, estimate: Mapping[str, float | None] | None, chance: float
) -> str:
    """An estimate in words unless its lower limit lies above chance; else empty.

    Args:
        name: of the metric.
        estimate: its ``value`` and limit ``low``, where they are defined; None where it was not measured.
        chance: the metric of a model that knows nothing.
    """
    if estimate is None:
        return ""
    value, low = estimate["value"], estimate["low"]
    if low is not None and low > chance:
        return ""
    interval = "" if low is None else f", 95 % interval from {low:.2f}"
    return f"{name} {'undefined' if value is None else f'{value:.2f}'}{interval}"
