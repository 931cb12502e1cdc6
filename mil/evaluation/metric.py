"""A row of a table of metrics; such a table drives the JSON, the CSV, the terminal and the page of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, Literal, TypeVar

from mil.evaluation.display import NO_INTERVAL, format_estimate
from mil.evaluation.intervals import Estimate

Scores = TypeVar("Scores")


@dataclass(frozen=True)
class Metric(Generic[Scores]):
    """How a metric is computed and shown; ``Scores`` holds the predictions of one model.

    Attributes:
        name: key in JSON and CSV.
        label: name for people.
        estimate: the metric with its interval.
        per_repeat: its value in each repeat; None where these are not reported.
        guess: its value for guessing; None where that is not shown.
        shown: table on the terminal that has a column for it; the page has one for each of the summary in its
            table of models, and for all others where it lists more numbers.
        digits: digits after the point.
        interval: whether the metric has an interval; without one JSON and CSV hold the value alone.
        no_interval: text on the terminal where the limits are undefined.
        label_of_two: label for two classes, where ``{positive}`` is the second class; by default ``label``.
        page_label: label on the page; by default that of the terminal.
        page_label_of_two: the same for two classes.
        percent: whether the page shows it in per cent.
        fewest_classes: of an outcome for which the page has a column for it.
    """

    name: str
    label: str
    estimate: Callable[[Scores], Estimate]
    per_repeat: Callable[[Scores], tuple[float | None, ...]] | None = None
    guess: Callable[[Scores], float] | None = None
    shown: Literal["summary", "further", "nowhere"] = "further"
    digits: int = 2
    interval: bool = True
    no_interval: str = NO_INTERVAL
    label_of_two: str = ""
    page_label: str = ""
    page_label_of_two: str = ""
    percent: bool = False
    fewest_classes: int = 0

    def heading(self, classes: Sequence[str] = ()) -> str:
        """The label as the header of a column."""
        if len(classes) == 2 and self.label_of_two:
            return self.label_of_two.format(positive=classes[1])
        return self.label

    def page_heading(self, classes: Sequence[str] = ()) -> str:
        """The label as the header of a column of the page."""
        if len(classes) == 2 and self.page_label_of_two:
            return self.page_label_of_two
        return self.page_label or self.heading(classes)

    def format(self, estimate: Estimate) -> str:
        """An estimate of this metric as text."""
        missing = self.no_interval if self.interval else ""
        return format_estimate(estimate, self.digits, no_interval=missing)

    def fields(self, estimate: Estimate) -> dict[str, object]:
        """The columns of the CSV."""
        return asdict(estimate) if self.interval else {"value": estimate.value}


def page_columns(
    table: Sequence[Metric[Scores]], classes: Sequence[str] = ()
) -> tuple[tuple[Metric[Scores], ...], tuple[Metric[Scores], ...]]:
    """The metrics of the page's table of models, and those of its further numbers."""
    columns = [m for m in table if not classes or len(classes) >= m.fewest_classes]
    first = tuple(metric for metric in columns if metric.shown == "summary")
    return first, tuple(metric for metric in columns if metric.shown != "summary")


def metrics_to_json(
    table: Sequence[Metric[Scores]], estimates: Mapping[str, Estimate]
) -> dict[str, object]:
    """Estimates by name as plain values."""
    return {
        metric.name: asdict(estimates[metric.name])
        if metric.interval
        else estimates[metric.name].value
        for metric in table
    }
