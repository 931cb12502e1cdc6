"""One card per case: its outcome, its folds and slides, and the verdict of each model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pandas as pd

CaseAnswers = dict[str, dict[str, dict[str, Any]]]  # by case, then by model


class Verdict(Protocol):
    """The answer of one model for one case."""

    @property
    def wrong(self) -> bool | None:
        """Whether the model is wrong on this case; None where it distinguishes no cases."""


VerdictT = TypeVar("VerdictT", bound=Verdict, covariant=True)


@dataclass(frozen=True)
class CaseCard(Generic[VerdictT]):
    """One case.

    Attributes:
        case: its name.
        outcome: the kind of outcome and its value, e.g. ``("truth", "LMS")``.
        folds: the fold that tested it, by repeat.
        slides: its slides by name.
        verdicts: one per model, in the order of the evaluation.
    """

    case: str
    outcome: tuple[str, str]
    folds: tuple[int, ...]
    slides: tuple[str, ...]
    verdicts: tuple[VerdictT, ...]

    @property
    def missed(self) -> bool:
        """Every model that distinguishes cases is wrong on this one."""
        verdicts = [verdict.wrong for verdict in self.verdicts if verdict.wrong is not None]
        return bool(verdicts) and all(verdicts)


def slides_by_case(table: pd.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """The slides of each case of a table of predictions, by name."""
    pairs = table[["case", "slide"]].drop_duplicates().sort_values(["case", "slide"])
    return {str(case): tuple(map(str, slides)) for case, slides in pairs.groupby("case")["slide"]}


def make_cards(
    cases: Sequence[str],
    outcomes: Sequence[tuple[str, str]],
    folds: Sequence[Sequence[int]],
    table: pd.DataFrame,
    verdicts: Sequence[Sequence[VerdictT]],
) -> list[CaseCard[VerdictT]]:
    """The cards of all cases.

    Args:
        cases: n names.
        outcomes: n.
        folds: by repeat, n each.
        table: of predictions; tells the slides of each case.
        verdicts: by model, n each.
    """
    slides = slides_by_case(table)
    return [
        CaseCard(
            case=case,
            outcome=outcomes[row],
            folds=tuple(int(fold[row]) for fold in folds),
            slides=slides[case],
            verdicts=tuple(model[row] for model in verdicts),
        )
        for row, case in enumerate(cases)
    ]
