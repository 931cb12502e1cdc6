"""Grade: the case's place on an ordered scale, such as FNCLCC 1 to 3."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mil.data.alike import check_labels
from mil.data.case import Case, Row
from mil.data.names import check_spelling
from mil.data.outcomes import require_column
from mil.data.spoilt import code_among
from mil.data.values import doubtful_word, without_missing
from mil.errors import CohortError, FitError
from mil.tasks.names import GradeColumns
from mil.tasks.task import Fields, Task, limit_beyond_chance

if TYPE_CHECKING:
    from mil.data.encoding import ColumnEncoding
    from mil.evaluation.predictions import Predictions
    from mil.heads.head import Outcome
    from mil.learning.objective import Objective
    from mil.learning.readout import Readout
    from mil.settings import FitSettings
    from mil.tasks.tile_objective import TileObjective


@dataclass(frozen=True, kw_only=True)
class Grade(GradeColumns, Task):
    """An ordered grade, as one column of the table states it.

    Attributes:
        grade: name of the column of grades.
        grade_order: the grades from lowest to highest; ordered by their numbers if empty.

    Example:
        task = mil.Grade(grade="grade", grade_order=("1", "2", "3"))
        cohort = mil.load_cohort("cohort.csv", "store", task=task)
        print(cohort.classes)
    """

    name: ClassVar[str] = "grade"
    outcome: ClassVar[str] = "grade"
    group: ClassVar[str] = "grade"
    default_models: ClassVar[tuple[str, ...]] = ("majority", "pooled-logistic", "mean", "abmil")
    head_outcome: "ClassVar[Outcome]" = "ordered"
    null_metric: ClassVar[tuple[str, float]] = ("somers_d", 0.0)
    null_label: ClassVar[str] = "Somers' D"
    page: ClassVar[str] = "mil.report.grade_sections:GradeSections"
    audit: ClassVar[str] = "mil.audit.judged_grades:JudgedGrades"
    case_answers: ClassVar[str] = "mil.report.grade_cards:case_answers"
    reader: ClassVar[str] = "mil.answers.classes:GradeReader"

    def label_rows(self, rows: Sequence[Row], source: str) -> tuple[Row, ...]:
        """The label is the grade; the table's own label joins the further columns."""
        if self.grade == "label":
            return tuple(rows)
        if not rows:
            return ()
        column = require_column(rows, "grade", self.grade, source)
        written = [row.other[column] for row in rows]
        if doubt := doubtful_word(written, self.grade_order, of_labels=True):
            raise CohortError(
                f"{source}: column {column!r} holds {doubt[0]!r} beside {doubt[1]!r}: the lowest grade, or a "
                "word for one that is not known. Name all grades in grade_order if it is one; leave these "
                "cells empty if it is not known."
            )
        cells = without_missing(written, self.grade_order)
        if not self.grade_order and (code := code_among({*cells} - {""})):
            raise CohortError(
                f"{source}: column {column!r} holds {code!r}, often a code for a grade that is not known. "
                "Name all grades in grade_order if it is one; leave these cells empty if it is not known."
            )
        check_spelling(source, column, cells)
        check_labels(source, cells, column)
        labelled = tuple(_label_row(row, column, cells[i]) for i, row in enumerate(rows))
        if not any(row.label for row in labelled):
            raise CohortError(f"{source}: no case has a {self.grade}. Fill the column in.")
        first: dict[str, Row] = {}
        for row in labelled:
            earlier = first.setdefault(row.case, row)
            if earlier.label != row.label:
                raise CohortError(
                    f"{source}: case {row.case!r} has {self.grade} {earlier.label!r} on line {earlier.line} "
                    f"and {row.label!r} on line {row.line}. A case has one grade; correct the table."
                )
        return labelled

    def write_outcome(self, row: Row, case: Case) -> Row:
        """The row with another grade; a class that the table states beside it stays."""
        if self.grade == "label":
            return replace(row, label=case.label)
        return replace(row, other={**row.other, self.grade: case.label})

    def order_classes(self, labels: Sequence[str], source: str) -> tuple[str, ...]:
        """The grades that occur, from lowest to highest; two or more."""
        grades = tuple(dict.fromkeys(labels))
        if self.grade_order:
            if unknown := sorted(set(grades) - set(self.grade_order)):
                raise CohortError(
                    f"{source}: grade {unknown[0]!r} is not in grade_order ({', '.join(self.grade_order)}). "
                    "Add it, or correct the table."
                )
            grades = tuple(name for name in self.grade_order if name in grades)
        else:
            grades = _sort_grades(grades, source)
        if len(grades) < 2:
            raise CohortError(
                f"{source} holds only grade {grades[0]!r}. An order needs two or more grades."
            )
        return grades

    def strata(self, labels: Sequence[str], folds: str) -> list[str]:
        """The grades."""
        del folds
        return list(labels)

    def check_models(self, names: Sequence[str]) -> None:
        """Models without a loss of their own on classes."""
        from mil.heads.registry import check_outcomes

        check_outcomes(names, self.head_outcome)

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
        """The log loss of exceeding each grade but the last."""
        from mil.tasks.grade_objective import GradeObjective

        del settings, by_steps
        return GradeObjective(train, valid, classes, encoding)

    def tile_objective(self, train: Sequence[Case]) -> "TileObjective":
        """The log loss of exceeding each grade but the last."""
        from mil.tasks.grade_objective import GradeTileObjective

        grades = self.order_classes([case.label for case in train], "The training part")
        return GradeTileObjective(grades)

    @classmethod
    def readout_from_json(cls, outputs: Sequence[str], card: Mapping[str, Any] | None) -> "Readout":
        """Cumulative logits."""
        from mil.tasks.grade_objective import GradeReadout

        if card is None or len(card["grades"]) != len(outputs) + 1:
            raise FitError("the card of a grade model lacks its grades")
        return GradeReadout(tuple(card["grades"]))

    def answer_columns(self, cases: Sequence[Case], classes: Sequence[str]) -> tuple[str, ...]:
        """One probability per grade."""
        from mil.evaluation.grade.predictions import PREFIX

        del cases
        return tuple(PREFIX + name for name in classes)

    def outcome_fields(self, case: Case) -> Fields:
        """The grade."""
        return {"grade": case.label}

    def make_predictions(
        self, rows: Sequence[Fields], cases: Sequence[Case], classes: Sequence[str]
    ) -> "Predictions":
        """The table with a grade and a probability per grade."""
        import pandas as pd

        from mil.evaluation.grade.predictions import COLUMNS, GradePredictions

        columns = [*COLUMNS, *self.answer_columns(cases, classes)]
        return GradePredictions(pd.DataFrame(rows, columns=columns), tuple(classes))

    @classmethod
    def describe_guessing(cls, result: Mapping[str, Any]) -> str:
        """By the lower limit of Somers' D: the order that the expected grades give the cases."""
        return limit_beyond_chance(cls.null_label, result.get("somers_d"), cls.null_metric[1])

    def regression_score(self, answer: Mapping[str, float], positive: str = "") -> float:
        """The expected grade, counted from 0 for the lowest."""
        del positive
        return sum(place * p for place, p in enumerate(answer.values()))


def _label_row(row: Row, column: str, grade: str) -> Row:
    other = {name: value for name, value in row.other.items() if name != column}
    if row.label:
        other["label"] = row.label
    return replace(row, label=grade, unread="", other=other)


def _sort_grades(grades: Sequence[str], source: str) -> tuple[str, ...]:
    """Grades by the number they end with, as 1, G2 and grade 3 do."""
    matches = {name: re.fullmatch(r"(\D*)(\d+(?:\.\d+)?)", name) for name in grades}
    prefixes = {match.group(1) for match in matches.values() if match}
    if not all(matches.values()) or len(prefixes) > 1:
        raise CohortError(
            f"{source}: the order of the grades {', '.join(sorted(grades))} is not plain from their names. "
            "State it with grade_order, from lowest to highest."
        )
    return tuple(sorted(grades, key=lambda name: float(matches[name].group(2))))  # type: ignore[union-attr]
