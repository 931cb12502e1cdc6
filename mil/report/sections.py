"""The sections of one task on a page, and the sentences that all tasks share."""

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from features.summary import join_names
from mil.audit.confounders import Confounder
from mil.data.cohort import Cohort
from mil.evaluation.judge import Evaluation
from mil.evaluation.survival.hazards import Hazard
from mil.heads.table import MODELS
from mil.report.cards import CaseCard
from mil.report.facts import Facts

FEWEST_SHOWN, CARDS_SHOWN = 3, 30  # cases that are not folded away
REFERENCES = ("majority", "chance")  # what a model must beat: they learn nothing from the tiles
THRESHOLDS = np.linspace(0.05, 0.5, 46)

PredictionsT = TypeVar("PredictionsT")
EvaluationT = TypeVar("EvaluationT")
ComparisonT = TypeVar("ComparisonT")
ReportT = TypeVar("ReportT", bound="Report[Any, Any, Any]")


@dataclass(frozen=True, kw_only=True)
class Report(Generic[PredictionsT, EvaluationT, ComparisonT]):
    """Everything that the page of a run shows.

    Attributes:
        page: the sections of its task, as ``module:class``.
        facts: of the run, whatever its task.
        predictions: out of fold.
        evaluation: of these predictions.
        comparison: of the models on the same cases.
        confounders: facts of the cases, besides the tissue, that might predict the outcome.
        hazards: Cox regressions by model, of its risk beside columns of the table; may be empty.
    """

    page: str
    facts: Facts
    predictions: PredictionsT
    evaluation: EvaluationT
    comparison: ComparisonT
    confounders: tuple[Confounder, ...] = ()
    hazards: Mapping[str, tuple[Hazard, ...]] = field(default_factory=dict)


class Sections(ABC, Generic[ReportT]):
    """The sections of one task; each task has one subclass and one template.

    Attributes:
        template: extends ``report/run.html``.
        folder: where the page's figures are written, beside the page.
    """

    template: ClassVar[str]
    folder: ClassVar[str]

    def __init__(self, report: ReportT) -> None:
        self.report = report

    @staticmethod
    @abstractmethod
    def warnings(cohort: Cohort, evaluation: Any) -> list[str]:
        """What a reader must know of these cases before any number."""

    @classmethod
    def read_hazards(cls, run: Path) -> dict[str, tuple[Hazard, ...]]:
        """Cox regressions that the run wrote beside its predictions, by model; none for most tasks."""
        del run
        return {}

    @property
    @abstractmethod
    def lead(self) -> Any:
        """The result of the best model; it has a name, ``model``."""

    @property
    @abstractmethod
    def beats_guessing(self) -> bool:
        """Whether the interval of the best model, out of fold, excludes what needs no model."""

    def verdict(self) -> str:
        """Whether the best model does better than guessing: the first sentence of the page."""
        model = self.lead.model
        if self.beats_guessing:
            return f"On cases it had not seen, {model} does better than guessing."
        return f"These cases do not show that {model} does better than guessing."

    @property
    @abstractmethod
    def groups(self) -> tuple[str, ...]:
        """The labels of the cases, in their order."""

    @abstractmethod
    def headline(self) -> tuple[str, ...]:
        """The result in plain sentences, with what flatters it."""

    @abstractmethod
    def limitations(self) -> tuple[str, ...]:
        """What the data cannot show: sentences that a paper on this run owes its readers."""

    @abstractmethod
    def values(self) -> dict[str, object]:
        """What the template needs beside the facts, the headline and the limitations."""

    @abstractmethod
    def write_figures(self, folder: Path) -> list[Path]:
        """Write the figures of the page as files for a paper; returns their paths."""


def model_order(evaluation: Evaluation) -> list[int]:
    """Places of the models: the best, the others by the same measure, then those that learn nothing."""
    best, *others = (result.model for result in evaluation.ranked())
    others.sort(key=lambda name: name in REFERENCES)
    names = [result.model for result in evaluation.models]
    return [names.index(name) for name in (best, *others)]


def order_models(evaluation: Evaluation) -> dict[str, object]:
    """What the templates need to show the best model first and the others folded away."""
    names = [result.model for result in evaluation.models]
    order = model_order(evaluation)
    compared = [at for at in order if at == order[0] or names[at] not in REFERENCES]
    return {
        "order": order,
        "in_cards": compared,
        "explained": [
            (names[place], MODELS[names[place]].words) for place in order if names[place] in MODELS
        ],
    }


def split_tests(tests: Sequence[Any], lead: str) -> dict[str, object]:
    """The paired tests of the lead model, and the others; each is a sentence and a test."""
    return {
        "tests": tests,
        "tests_of_lead": [pair for pair in tests if lead in (pair[1].first, pair[1].second)],
        "other_tests": [pair for pair in tests if lead not in (pair[1].first, pair[1].second)],
    }


def typical_case(
    cards: Sequence[CaseCard[Any]], slides: Container[str]
) -> tuple[CaseCard[Any], str] | None:
    """The case in the middle by difficulty among those with a map, and its first slide that has one.

    Args:
        cards: of all cases, hardest first.
        slides: those that have a map.
    """
    drawn = [
        (card, shown[0]) for card in cards if (shown := [s for s in card.slides if s in slides])
    ]
    return drawn[len(drawn) // 2] if drawn else None


def cards_shown(hard: int) -> int:
    """How many cards are not folded away: those of hard cases, and a few at least."""
    return min(max(hard, FEWEST_SHOWN), CARDS_SHOWN)


def load_sections(page: str) -> type[Sections[Any]]:
    """The class that ``module:class`` names."""
    module, _, name = page.partition(":")
    sections: type[Sections[Any]] = getattr(import_module(module), name)
    return sections


def picked_sentence(n_models: int, equals: Sequence[str]) -> str:
    """That the headline's model was picked after the results were seen.

    Args:
        n_models: models of the run.
        equals: further models with the same result.
    """
    level = f", level with {join_names(equals)}" if equals else ""
    return (
        f"It is the best of {n_models} models compared on the same cases{level}. "
        "Because it was picked after the results were seen, its number is optimistic."
    )


def selection_limit(n_models: int) -> str:
    """What trying several models on the same cases leaves open."""
    return (
        f"{n_models} models were tried on the same cases. The best of them looks better than it is; only "
        "new cases, which had no part in the choice, can say by how much."
    )


def design_limits(n_repeats: int, n_sites: int) -> list[str]:
    """What one cross-validation of one cohort leaves open, whatever its task.

    Args:
        n_repeats: of the cross-validation.
        n_sites: distinct sites in the cohort table; 0 where it names none.
    """
    limits = []
    if n_repeats == 1:
        limits.append(
            "The folds were drawn once. Another draw gives other numbers; several repeats would show how "
            "far apart."
        )
    limits.append(
        {
            0: "The table names no site, so nothing is known about slides from another hospital.",
            1: "All cases come from one site, so nothing is known about slides from another hospital.",
        }.get(
            n_sites,
            f"The cases come from {n_sites} sites. Unless the folds hold out whole sites, the numbers say "
            "little about a site that took no part.",
        )
    )
    limits.append(
        "Every number comes from cross-validation within one cohort. No case is from outside, and the model "
        "that would be used in practice is none of those that were tested."
    )
    return limits
