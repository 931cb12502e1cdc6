"""Survival: the time until the case's event."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mil.data.case import Case, Row
from mil.data.outcomes import CENSORED, EVENT, check_unit, outcomes_of, with_outcomes
from mil.errors import CohortError, FitError
from mil.tasks.names import FollowUpColumns
from mil.tasks.task import Fields, Task, limit_beyond_chance

if TYPE_CHECKING:
    from mil.data.encoding import ColumnEncoding
    from mil.evaluation.predictions import Predictions
    from mil.evaluation.regression.models import Regression, Truth
    from mil.evaluation.survival.hazards import Hazard
    from mil.evaluation.survival.predictions import RiskPredictions
    from mil.heads.head import Outcome
    from mil.learning.objective import Objective
    from mil.learning.readout import Readout
    from mil.settings import FitSettings
    from mil.tasks.tile_objective import TileObjective


@dataclass(frozen=True, kw_only=True)
class Survival(FollowUpColumns, Task):
    """The time until an event, as two columns of the table state it.

    Attributes:
        time: name of the column of times until the event or the end of observation.
        event: name of the column that is 1 where the event was observed, else 0.
        time_unit: unit of the times, for tables and figures.

    Example:
        task = mil.Survival(time="time", event="event", time_unit="months")
        cohort = mil.load_cohort("cohort.csv", "store", task=task)
        print(cohort.cases[0].time, task.time_unit)
    """

    name: ClassVar[str] = "survival"
    outcome: ClassVar[str] = "outcome"
    group: ClassVar[str] = "outcome"
    default_models: ClassVar[tuple[str, ...]] = ("majority", "pooled-logistic", "mean", "abmil")
    head_outcome: "ClassVar[Outcome]" = "times"
    null_metric: ClassVar[tuple[str, float]] = ("harrell", 0.5)
    null_label: ClassVar[str] = "Harrell C"
    page: ClassVar[str] = "mil.report.survival_sections:SurvivalSections"
    audit: ClassVar[str] = "mil.audit.judged_survival:JudgedSurvival"
    case_answers: ClassVar[str] = "mil.report.risk_cards:case_answers"
    reader: ClassVar[str] = "mil.answers.risks:RiskReader"
    quantity: ClassVar[str] = "mil.explanation.quantity:Risk"
    has_classes: ClassVar[bool] = False

    def label_rows(self, rows: Sequence[Row], source: str) -> tuple[Row, ...]:
        """The label says whether the event was observed."""
        labelled = with_outcomes(rows, self.time, self.event, source=source)
        check_unit(self.time, self.time_unit, source)
        return labelled

    def write_outcome(self, row: Row, case: Case) -> Row:
        """The row with another time and event; a class that the table states beside them stays."""
        outcome = {self.time: repr(case.time), self.event: str(int(case.label == EVENT))}
        return replace(row, other={**row.other, **outcome})

    def order_classes(self, labels: Sequence[str], source: str) -> tuple[str, ...]:
        """Event and censored, as far as they occur; an event is needed."""
        if EVENT not in labels:
            raise CohortError(
                f"{source} holds no event, so the time until it cannot be learnt. Add cases with an event."
            )
        return tuple(sorted(set(labels)))

    def strata(self, labels: Sequence[str], folds: str) -> list[str]:
        """The event; nothing where too few cases are censored to stratify by it."""
        needed = int(folds) if folds.isdecimal() else 2
        return (
            list(labels) if list(labels).count(CENSORED) >= needed else [EVENT for _label in labels]
        )

    def check_models(self, names: Sequence[str]) -> None:
        """Models without a loss of their own on classes."""
        from mil.heads.registry import check_outcomes

        check_outcomes(names)

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
        """Cox's partial likelihood, or a hazard for each interval."""
        from mil.tasks.survival_objective import SurvivalObjective

        del classes
        discrete = settings.loss_name == "discrete" and by_steps
        return SurvivalObjective(
            train, valid, encoding, intervals=settings.intervals if discrete else None
        )

    def tile_objective(self, train: Sequence[Case]) -> "TileObjective":
        """The likelihood of a hazard for each interval, whichever loss the heads learn by."""
        from mil.tasks.survival_objective import HazardTileObjective

        return HazardTileObjective(train)

    @classmethod
    def readout_from_json(cls, outputs: Sequence[str], card: Mapping[str, Any] | None) -> "Readout":
        """The risk model."""
        from mil.tasks.risk_model import risk_model_from_json

        del outputs
        if card is None:
            raise FitError("the card of a survival model lacks its risk model")
        return risk_model_from_json(card)

    def answer_columns(self, cases: Sequence[Case], classes: Sequence[str]) -> tuple[str, ...]:
        """The risk, and survival at times that the cohort's follow-up allows."""
        from mil.evaluation.survival.predictions import choose_horizons, column_of

        del classes
        outcomes = outcomes_of(cases)
        return ("risk", *map(column_of, choose_horizons(outcomes.time, outcomes.event)))

    def outcome_fields(self, case: Case) -> Fields:
        """Time and event."""
        return {"time": case.time, "event": int(case.label == EVENT)}

    def make_predictions(
        self, rows: Sequence[Fields], cases: Sequence[Case], classes: Sequence[str]
    ) -> "Predictions":
        """The table with time, event, risk and survival."""
        import pandas as pd

        from mil.evaluation.survival.predictions import COLUMNS, RiskPredictions

        answers = self.answer_columns(cases, classes)
        columns = [*COLUMNS, *(name for name in answers if name not in COLUMNS)]
        return RiskPredictions(pd.DataFrame(rows, columns=columns), unit=self.time_unit)

    def adopt(self, predictions: "Predictions") -> "Predictions":
        """The unit of the times."""
        from mil.evaluation.survival.predictions import RiskPredictions

        return RiskPredictions.expect(predictions).in_unit(self.time_unit)

    def write_extras(
        self,
        folder: Path,
        predictions: "Predictions",
        columns: Mapping[str, Mapping[str, str]],
    ) -> tuple[str, ...]:
        """Kaplan-Meier curves; and a Cox table of each model's risk beside clinical columns."""
        from mil.evaluation.survival.hazards import write_hazards
        from mil.evaluation.survival.predictions import RiskPredictions
        from mil.figures.risk_groups import write_survival_figures

        predictions = RiskPredictions.expect(predictions)
        write_survival_figures(folder / "survival", predictions, self.time_unit)
        notes = [f"Kaplan-Meier curves: {folder / 'survival'}"]
        if columns:
            try:
                tables = hazards_beside(predictions, columns)
            except FitError as error:  # too few events, say: the run itself is complete
                return (f"No Cox regression beside the clinical columns: {error}", *notes)
            write_hazards(folder / "survival" / "cox.csv", tables)
            notes.insert(
                0, f"Cox regression beside the clinical columns: {folder}/survival/cox.csv"
            )
        return tuple(notes)

    @classmethod
    def describe_guessing(cls, result: Mapping[str, Any]) -> str:
        """By the lower limit of Harrell's C."""
        return limit_beyond_chance("concordance", result.get("harrell"), cls.null_metric[1])

    def check_combinable(self, classes: Sequence[str]) -> None:
        """Any follow-up, by a Cox regression."""

    def regression_truth(self, cases: Sequence[Case | Row], classes: Sequence[str]) -> "Truth":
        """Times and events."""
        del classes
        return outcomes_of(cases)

    def regression_score(self, answer: Mapping[str, float], positive: str = "") -> float:
        """The risk."""
        del positive
        return answer["risk"]

    def name_probability(
        self, labels: Collection[str], positive: str | None, horizon: float | None
    ) -> tuple[tuple[str, str], str]:
        """An event until a time."""
        del labels
        if positive is not None:
            raise CohortError("positive names a class, which survival does not have. Leave it out.")
        if horizon is None:
            raise CohortError(
                f"Set horizon to the time, in {self.time_unit}, until which an event counts."
            )
        return (CENSORED, EVENT), f"the event until {horizon:g} {self.time_unit}"

    def regression_answers(
        self,
        regression: "Regression",
        train: Mapping[str, Sequence[str]],
        test: Mapping[str, Sequence[str]],
        columns: Sequence[str],
    ) -> list[Fields]:
        """Risk from the median training case, and survival."""
        import numpy as np

        from mil.evaluation.survival.predictions import horizon_of

        assert regression.baseline is not None
        linear = regression.linear(test)
        risks = linear - float(np.median(regression.linear(train)))
        curve = [name for name in columns if name != "risk"]
        times = np.array([horizon_of(name) for name in curve])
        survival = regression.baseline.survival(linear, times)
        return [
            {"risk": float(risk), **dict(zip(curve, map(float, row), strict=True))}
            for risk, row in zip(risks, survival, strict=True)
        ]


def hazards_beside(
    predictions: "RiskPredictions", columns: Mapping[str, Mapping[str, str]]
) -> "dict[str, tuple[Hazard, ...]]":
    """Per model that orders the cases, its risk out of fold, in standard deviations, beside the columns.

    Args:
        predictions: out of fold.
        columns: clinical columns by case.

    Raises:
        FitError: too few events.
    """
    from mil.evaluation.regression.design import fit_design
    from mil.evaluation.survival.hazards import hazard_table

    tables = {}
    for model in predictions.models:
        risks = predictions.mean_risks(model)
        if "clinical" in model or risks.risk.std() == 0:  # it has read the columns itself
            continue
        values = [columns[case] for case in risks.case]
        table = {name: [value[name] for value in values] for name in values[0]}
        design = fit_design(table)
        rows = dict(zip([term.name for term in design.terms], design.rows(table).T, strict=True))
        risk = {f"{model} risk (per SD)": risks.risk / risks.risk.std()}
        tables[model] = hazard_table(risk | rows, risks.time, risks.event)
    return tables
