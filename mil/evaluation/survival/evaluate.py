"""Evaluation of predictions of survival: the numbers of each model, per case and with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mil.errors import PredictionsError
from mil.evaluation.by_model import ByModel
from mil.evaluation.display import Table, format_count, format_p
from mil.evaluation.intervals import Estimate
from mil.evaluation.metric import Metric, metrics_to_json
from mil.evaluation.paired_tests import holm
from mil.evaluation.survival.calibration import (
    SurvivalCalibration,
    calibrate_survival,
    calibration_tables,
)
from mil.evaluation.survival.metric_table import METRICS, ModelRisks, harrell_per_repeat
from mil.evaluation.survival.metrics import LogRank, log_rank
from mil.evaluation.survival.predictions import CaseRisks, RiskPredictions
from mil.settings import JudgeSettings

MetricTable = Sequence[Metric[ModelRisks]]

# Measured where there is nothing to find: see ``GroupTest`` and ``harrell_interval``. The first concerns the
# log-rank p of the risk groups and is printed wherever that is.
CAVEAT = "below .05 in 11 to 14 % of cohorts without any risk"
HARRELL_OF_NOISE = (
    "Of Cox models of 8 columns of noise, scored through 5 folds of 40 cases, it holds 0.50 in 84 % of "
    "cohorts."
)


@dataclass(frozen=True)
class GroupTest:
    """Log-rank test of the risk groups, split at the median training risk.

    The group of a case comes from models that have not seen it, but the groups of different cases are not
    independent, so that p is approximate and too small (J. Subramanian, R. Simon, Stat Med 2011, 30:642): of
    100 runs on cohorts of 40 without signal, four models on 25 of them, 11 had p below .05; of cohorts of
    risks through 5 folds, 13 % at 40 cases and 14 % at 20. Adjustment over the models does not correct this.

    Attributes:
        high: cases above the median training risk.
        low: the other cases.
        statistic: log-rank statistic on one degree of freedom; None where there is only one group.
        p: p value; None likewise.
        p_holm: p adjusted over all models by Holm.
        p_bonferroni: p adjusted over all models by Bonferroni.
    """

    high: int
    low: int
    statistic: float | None
    p: float | None
    p_holm: float | None
    p_bonferroni: float | None


@dataclass(frozen=True)
class SurvivalResult:
    """What one model achieved; the unit is the case, and numbers are means over repeats.

    Attributes:
        model: name of the model.
        metrics: estimates by the names of the table of metrics, in its order.
        groups: high against low risk.
        calibration: predicted against observed survival; None where risks alone are predicted.
        per_repeat: Harrell's C of each repeat.
        constant: whether it gives every case the same risk.
    """

    model: str
    metrics: Mapping[str, Estimate]
    groups: GroupTest
    calibration: SurvivalCalibration | None
    per_repeat: tuple[float | None, ...]
    constant: bool


@dataclass(frozen=True, repr=False)
class SurvivalEvaluation(ByModel[SurvivalResult]):
    """The results of all models over one set of cases.

    Attributes:
        n_cases: cases.
        n_events: cases whose event was observed.
        n_slides: distinct slides.
        unit: unit of time.
        horizons: first and last time at which survival is predicted.
        repeats: numbers of the repeats.
        models: one result per model, in the order of the table of predictions.
        guesses: value of a metric for guessing, by name, where it has one.
        metric_table: the metrics of every model.
    """

    n_cases: int
    n_events: int
    n_slides: int
    unit: str
    horizons: tuple[float, float]
    repeats: tuple[int, ...]
    models: tuple[SurvivalResult, ...]
    guesses: Mapping[str, float]
    metric_table: MetricTable = METRICS

    @property
    def guessing_ibs(self) -> float:
        """Integrated Brier score of the Kaplan-Meier curve of all cases, given to each case."""
        return self.guesses["ibs"]

    def best(self) -> SurvivalResult:
        """The model with the highest Harrell's C; the first among equals."""
        return self.ranked()[0]

    def ranked(self) -> list[SurvivalResult]:
        """The models by Harrell's C, the best first; equals in the order of the table.

        Those that give every case the same risk come last: they have found nothing in the slides.
        """

        def rank(result: SurvivalResult) -> tuple[bool, float]:
            return result.constant, -(result.metrics["harrell"].value or 0.0)

        return sorted(self.models, key=rank)

    def to_json(self) -> dict[str, object]:
        """Plain numbers, text, lists and dicts; None for what is undefined."""
        return {
            "task": "survival",
            "n_cases": self.n_cases,
            "n_events": self.n_events,
            "n_slides": self.n_slides,
            "unit": self.unit,
            "horizons": list(self.horizons),
            "guessing_ibs": self.guessing_ibs,
            "repeats": list(self.repeats),
            "models": [
                {
                    "model": result.model,
                    **metrics_to_json(self.metric_table, result.metrics),
                    "groups": asdict(result.groups),
                    "calibration": result.calibration and result.calibration.to_json(),
                    "per_repeat": list(result.per_repeat),
                }
                for result in self.models
            ],
        }

    def rows(self) -> list[dict[str, object]]:
        """Every number of each model, one row each: model, metric, and its fields."""
        rows: list[dict[str, object]] = []
        for result in self.models:
            rows += [
                {
                    "model": result.model,
                    "metric": metric.name,
                    **metric.fields(result.metrics[metric.name]),
                }
                for metric in self.metric_table
            ]
            rows += [
                {"model": result.model, "metric": f"groups.{name}", "value": value}
                for name, value in asdict(result.groups).items()
            ]
            rows += [
                {"model": result.model, "metric": f"calibration.{name}", **asdict(estimate)}
                for name, estimate in (
                    result.calibration.estimates() if result.calibration else {}
                ).items()
            ]
        return [*rows, {"model": "(guessing)", "metric": "ibs", "value": self.guessing_ibs}]

    def tables(self) -> list[Table]:
        """The results as text: the summary, then the calibration of the predicted survival."""
        return [self._summary(), *calibration_tables(self._calibrations(), self.unit)]

    def _calibrations(self) -> dict[str, SurvivalCalibration]:
        return {result.model: result.calibration for result in self.models if result.calibration}

    def _summary(self) -> Table:
        first, last = self.horizons
        title = (
            f"{self.n_cases} cases, {format_count(self.n_events, 'event')}, "
            f"{format_count(self.n_slides, 'slide')}; 95 % intervals over cases. Survival is judged from "
            f"{first:.4g} to {last:.4g} {self.unit}."
        )
        header = [
            "model",
            *(m.heading() for m in self.metric_table),
            "high/low",
            "log-rank p",
            "Holm",
        ]
        rows = [
            [
                result.model,
                *(metric.format(result.metrics[metric.name]) for metric in self.metric_table),
                f"{result.groups.high}/{result.groups.low}",
                format_p(result.groups.p),
                format_p(result.groups.p_holm),
            ]
            for result in self.models
        ]
        guesses = [
            f"{self.guesses[m.name]:.{m.digits}f}" if m.name in self.guesses else ""
            for m in self.metric_table
        ]
        tested = any(result.groups.p is not None for result in self.models)
        notes = [f"The log-rank p is {CAVEAT}."] if tested else []
        return Table(title, header, [*rows, ["(guessing)", *guesses, "", "", ""]], notes)


def evaluate_survival(
    predictions: RiskPredictions,
    settings: JudgeSettings | None = None,
    *,
    metric_table: MetricTable = METRICS,
) -> SurvivalEvaluation:
    """Evaluate every model of the table over its cases.

    With several repeats each metric is the mean over repeats, and its interval is laid around that mean for
    the number of cases; groups are split by the mean risk of each case.

    Args:
        predictions: out-of-fold risks; the slides of a case are averaged.
        settings: must be the defaults: they are for classes.
        metric_table: the metrics to compute.

    Raises:
        PredictionsError: other settings were given.
    """
    if settings not in (None, JudgeSettings()):
        raise PredictionsError(
            "interval, prevalence and coverage are for predictions of classes; these hold "
            f"{predictions.answers}. Leave them out."
        )
    at = predictions.horizons
    models = {
        name: ModelRisks(
            tuple(predictions.case_risks(name, repeat) for repeat in predictions.repeats), at
        )
        for name in predictions.models
    }
    groups = _test_groups([predictions.mean_risks(model) for model in models])
    first = models[predictions.models[0]]
    return SurvivalEvaluation(
        n_cases=len(first.time),
        n_events=int(first.event.sum()),
        n_slides=int(predictions.table["slide"].nunique()),
        unit=predictions.unit,
        horizons=(float(at[0]), float(at[-1])),
        repeats=predictions.repeats,
        models=tuple(
            _evaluate_model(name, risks, group, metric_table)
            for (name, risks), group in zip(models.items(), groups, strict=True)
        ),
        guesses={metric.name: metric.guess(first) for metric in metric_table if metric.guess},
        metric_table=metric_table,
    )


def _evaluate_model(
    model: str, risks: ModelRisks, groups: GroupTest, metric_table: MetricTable
) -> SurvivalResult:
    return SurvivalResult(
        model=model,
        metrics={metric.name: metric.estimate(risks) for metric in metric_table},
        groups=groups,
        calibration=calibrate_survival(risks.repeats, risks.horizons)
        if risks.repeats[0].survival.size
        else None,
        per_repeat=harrell_per_repeat(risks),
        constant=risks.constant,
    )


def _test_groups(models: Sequence[CaseRisks]) -> list[GroupTest]:
    """The log-rank tests of all models, adjusted over them."""
    high = [risks.risk > 0 for risks in models]
    tests: list[LogRank | None] = [
        log_rank(risks.time, risks.event, group.astype(np.int64))
        for risks, group in zip(models, high, strict=True)
    ]
    defined = [test.p for test in tests if test]
    adjusted = iter(holm(defined))
    groups = []
    for group, test in zip(high, tests, strict=True):
        sizes = int(group.sum()), int((~group).sum())
        if test is None:
            groups.append(GroupTest(*sizes, None, None, None, None))
            continue
        bonferroni = min(1.0, len(defined) * test.p)
        groups.append(GroupTest(*sizes, test.statistic, test.p, next(adjusted), bonferroni))
    return groups
