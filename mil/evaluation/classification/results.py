"""The results of one model, and their form in JSON and CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from mil.evaluation.arrays import Floats
from mil.evaluation.classification.calibration import Calibration
from mil.evaluation.classification.conformal import ConformalResult
from mil.evaluation.classification.model_scores import ModelScores
from mil.evaluation.classification.per_class import ClassResult, Spread
from mil.evaluation.intervals import Estimate
from mil.evaluation.metric import Metric, metrics_to_json

MetricTable = Sequence[Metric[ModelScores]]


@dataclass(frozen=True, eq=False)
class ModelResult:
    """What one model achieved; the unit is the case.

    Attributes:
        model: name of the model.
        correct: cases classified correctly, mean over repeats.
        n: cases.
        metrics: estimates by the names of the table of metrics, in its order.
        p_chance: p value against guessing each class equally often.
        p_majority: p value against always naming the largest class.
        per_class: each class against the rest.
        confusion: (C, C) cases, mean over repeats; rows are the truth.
        per_repeat: one value per repeat by name of the metric; None where undefined.
        spread: their spread over the repeats; None where one is undefined.
        calibration: whether probabilities agree with observed frequencies.
        conformal: sets of classes with a stated coverage.
        constant: whether it gives all cases of a fold one answer, as the majority rule does.
    """

    model: str
    correct: float
    n: int
    metrics: Mapping[str, Estimate]
    p_chance: float
    p_majority: float
    per_class: tuple[ClassResult, ...]
    confusion: Floats
    per_repeat: Mapping[str, tuple[float | None, ...]]
    spread: Mapping[str, Spread | None]
    calibration: Calibration
    conformal: ConformalResult
    constant: bool


def result_to_json(result: ModelResult, table: MetricTable) -> dict[str, object]:
    """Plain numbers, text, lists and dicts."""
    return {
        "model": result.model,
        "n": result.n,
        "correct": result.correct,
        **metrics_to_json(table, result.metrics),
        "p_chance": result.p_chance,
        "p_majority": result.p_majority,
        "per_class": [of_class.to_json() for of_class in result.per_class],
        "confusion": result.confusion.tolist(),
        "per_repeat": {name: list(values) for name, values in result.per_repeat.items()},
        "spread": {name: spread and asdict(spread) for name, spread in result.spread.items()},
        "calibration": result.calibration.to_json(),
        "conformal": result.conformal.to_json(),
    }


def result_rows(result: ModelResult, table: MetricTable) -> list[dict[str, object]]:
    """Every number with its limits, one row each: model, class (or empty), metric, and its fields."""
    rows: list[dict[str, object]] = [
        {
            "model": result.model,
            "class": "",
            "metric": metric.name,
            **metric.fields(result.metrics[metric.name]),
        }
        for metric in table
    ]
    parts: list[tuple[str, object]] = [("", result.calibration), ("", result.conformal)]
    parts += [(of_class.name, of_class) for of_class in result.per_class]
    parts += [(of_class.name, of_class) for of_class in result.calibration.per_class]
    named = [(name, field, value) for name, part in parts for field, value in _estimates(part)]
    for of_class in result.per_class:
        if values := of_class.at_prevalence:
            at = f" at {values.prevalence}"
            named += [(of_class.name, field + at, value) for field, value in _estimates(values)]
    return rows + [
        {"model": result.model, "class": name, "metric": field, **asdict(value)}
        for name, field, value in named
    ]


def _estimates(part: object) -> Iterator[tuple[str, Estimate]]:
    """The fields of a result that are estimates."""
    for name, value in vars(part).items():
        if isinstance(value, Estimate):
            yield name, value
