"""How the answers of a model's fits for a new case are read against those for known cases, out of fold."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from mil.evaluation.predictions import Predictions
    from mil.learning.readout import Readout
    from mil.tasks.task import Task


@dataclass(frozen=True)
class FitAnswer:
    """What the fit of one fold answers for a case.

    Attributes:
        repeat, fold: of a cross-validation; 0 and 0 of a model that was trained on all cases.
        values: by column of a table of predictions.
    """

    repeat: int
    fold: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Reading:
    """The answer for a case.

    Attributes:
        values: by name, as probabilities by ``p_<class>``.
        predicted: the most probable answer in words.
        candidates: the answers that cannot be told apart; one where the case is decided.
    """

    values: Mapping[str, float]
    predicted: str
    candidates: tuple[str, ...]


class Reader(ABC):
    """Reads answers; built from the predictions out of fold, or without any for a model trained on all cases.

    Attributes:
        limit: what its answers are not, in sentences.
        n_cases: known cases whose predictions out of fold it reads against; 0 without any.
    """

    limit: ClassVar[str]
    n_cases: int

    @property
    def simulation(self) -> str:
        """What the candidates were worth in made cohorts, in one sentence; empty if that was not tried."""
        return ""

    @property
    def record(self) -> str:
        """How the known cases fared, each read as a new one, in sentences; empty where that is not known."""
        return ""

    @classmethod
    @abstractmethod
    def of_run(cls, readout: "Readout", predictions: "Predictions | None", model: str) -> Self:
        """The reader of a run's model; ``predictions`` are out of fold, None for a model without any."""

    @classmethod
    @abstractmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The reader as ``to_json`` wrote it."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain values; under ``known`` and ``names``, the fingerprints of the known cases, if there are."""

    def renamed(self, over: Callable[[str], str]) -> Self:
        """The reader with other fingerprints of the known cases.

        Args:
            over: the new fingerprint in place of an old one.
        """
        values = self.to_json()
        if values["known"]:
            values["known"]["names"] = [over(name) for name in values["known"]["names"]]
        return self.from_json(values)

    @property
    @abstractmethod
    def value_names(self) -> tuple[str, ...]:
        """The names of the values of a reading."""

    @property
    def brief_names(self) -> tuple[str, ...]:
        """Those of the values that are shown where there is little room."""
        return self.value_names

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns that every fit must answer, where they depend on the cohort; else empty."""

    @abstractmethod
    def read(self, answers: Sequence[FitAnswer], known: Collection[str] = ()) -> Reading:
        """The answer for a case.

        Args:
            answers: of the fits that have not seen the case.
            known: fingerprints of the known cases that it belongs to: these are left out.
        """

    @abstractmethod
    def promise(self) -> str:
        """What the candidates are worth, in one sentence."""


def reader_class(task: "type[Task] | Task") -> type[Reader]:
    """The reader of a task's answers."""
    module, _, name = task.reader.partition(":")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]
