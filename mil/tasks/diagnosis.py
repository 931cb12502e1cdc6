"""Diagnosis: the case's class."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mil.data.case import Case, Row
from mil.errors import CohortError
from mil.tasks.task import Fields, Task

if TYPE_CHECKING:
    from mil.data.encoding import ColumnEncoding
    from mil.evaluation.predictions import Predictions
    from mil.evaluation.regression.models import Regression, Truth
    from mil.heads.head import Outcome
    from mil.learning.objective import Objective
    from mil.learning.readout import Readout
    from mil.settings import FitSettings
    from mil.tasks.tile_objective import TileObjective

GUESSING = 0.05  # p value above which a model may be guessing


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Task):
    """Which class a case belongs to, as the table's column label states it.

    Example:
        cohort = mil.load_cohort("cohort.csv", "store", task=mil.Diagnosis())
        print(cohort.classes)
    """

    name: ClassVar[str] = "diagnosis"
    outcome: ClassVar[str] = "label"
    group: ClassVar[str] = "class"
    default_models: ClassVar[tuple[str, ...]] = ("majority", "tile-vote", "mean", "abmil")
    head_outcome: "ClassVar[Outcome]" = "classes"
    null_metric: ClassVar[tuple[str, float]] = ("auc", 0.5)
    null_label: ClassVar[str] = "AUC"
    page: ClassVar[str] = "mil.report.diagnosis_sections:DiagnosisSections"
    audit: ClassVar[str] = "mil.audit.judged_classes:JudgedClasses"
    case_answers: ClassVar[str] = "mil.report.class_cards:case_answers"
    reader: ClassVar[str] = "mil.answers.classes:ClassReader"
    has_learning_curve: ClassVar[bool] = True
    quantity: ClassVar[str] = "mil.explanation.quantity:ClassMargin"

    def label_rows(self, rows: Sequence[Row], source: str) -> tuple[Row, ...]:
        """The rows as they are."""
        del source
        return tuple(rows)

    def write_outcome(self, row: Row, case: Case) -> Row:
        """The row with another label."""
        return replace(row, label=case.label)

    def order_classes(self, labels: Sequence[str], source: str) -> tuple[str, ...]:
        """The labels, sorted; two or more."""
        classes = tuple(sorted(set(labels)))
        if len(classes) < 2:
            raise CohortError(
                f"{source} holds only one class, {classes[0]!r}. Diagnosis needs two or more labels."
            )
        return classes

    def strata(self, labels: Sequence[str], folds: str) -> list[str]:
        """The classes."""
        del folds
        return list(labels)

    def check_models(self, names: Sequence[str]) -> None:
        """Every model learns classes."""

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
        """Cross-entropy or focal loss, every class weighing the same."""
        from mil.tasks.diagnosis_objective import ClassObjective

        del settings, by_steps
        return ClassObjective(train, valid, classes, encoding)

    def tile_objective(self, train: Sequence[Case]) -> "TileObjective":
        """Cross-entropy, every class weighing the same."""
        from mil.tasks.diagnosis_objective import ClassTileObjective

        return ClassTileObjective(train)

    @classmethod
    def readout_from_json(cls, outputs: Sequence[str], card: Mapping[str, Any] | None) -> "Readout":
        """Probabilities of the outputs."""
        from mil.learning.readout import ClassReadout

        del card
        return ClassReadout(tuple(outputs))

    def answer_columns(self, cases: Sequence[Case], classes: Sequence[str]) -> tuple[str, ...]:
        """One probability per class."""
        from mil.evaluation.classification.predictions import PREFIX

        del cases
        return tuple(PREFIX + name for name in classes)

    def outcome_fields(self, case: Case) -> Fields:
        """The label."""
        return {"label": case.label}

    def make_predictions(
        self, rows: Sequence[Fields], cases: Sequence[Case], classes: Sequence[str]
    ) -> "Predictions":
        """The table with a label and a probability per class."""
        import pandas as pd

        from mil.evaluation.classification.predictions import COLUMNS, ClassPredictions

        columns = [*COLUMNS, *self.answer_columns(cases, classes)]
        return ClassPredictions(pd.DataFrame(rows, columns=columns), tuple(classes))

    @classmethod
    def describe_guessing(cls, result: Mapping[str, Any]) -> str:
        """By exact tests against drawing lots and against the largest class."""
        from mil.evaluation.display import state_p

        p = max(result.get(name) or 0.0 for name in ("p_chance", "p_majority"))
        return f"{result['correct']:g} of {result['n']} right, {state_p(p)}" if p > GUESSING else ""

    def check_combinable(self, classes: Sequence[str]) -> None:
        """Two classes, for a logistic regression."""
        if len(classes) != 2:
            raise CohortError(
                "Clinical columns and a model's score are combined by a logistic regression of two classes; "
                f"the cohort has {len(classes)}. Combine no model, or make one table per question."
            )

    def regression_truth(self, cases: Sequence[Case | Row], classes: Sequence[str]) -> "Truth":
        """Whether a case is of the second class."""
        import numpy as np

        return np.array([case.label == classes[1] for case in cases])

    def regression_score(self, answer: Mapping[str, float], positive: str = "") -> float:
        """The log odds of a class."""
        from scipy.special import logit

        from mil.evaluation.classification.predictions import PREFIX

        p = answer[PREFIX + positive] if positive else list(answer.values())[1]
        return float(logit(min(max(p, 1e-6), 1 - 1e-6)))

    def name_probability(
        self, labels: Collection[str], positive: str | None, horizon: float | None
    ) -> tuple[tuple[str, str], str]:
        """A class against the rest."""
        if horizon is not None:
            raise CohortError(
                "horizon is a time until an event, which a diagnosis does not have. Leave it out."
            )
        classes = sorted(set(labels))
        if positive is None and len(classes) == 2:
            positive = classes[1]
        if positive not in classes:
            raise CohortError(
                f"Set positive to the class of the probability, one of {', '.join(classes)}; got "
                f"{positive!r}."
            )
        return (f"not {positive}", positive), positive

    def regression_answers(
        self,
        regression: "Regression",
        train: Mapping[str, Sequence[str]],
        test: Mapping[str, Sequence[str]],
        columns: Sequence[str],
    ) -> list[Fields]:
        """The probabilities of both classes."""
        del train
        first, second = columns
        p = regression.probability(regression.linear(test))
        return [{first: 1 - float(value), second: float(value)} for value in p]
