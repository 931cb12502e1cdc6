"""The results of classification models as tables for the terminal."""

from collections.abc import Mapping, Sequence

from mil.evaluation.classification.per_class import ClassResult, Proportion
from mil.evaluation.classification.results import MetricTable, ModelResult
from mil.evaluation.display import Table, format_estimate, format_p


def summary_table(
    title: str, results: Sequence[ModelResult], metrics: MetricTable, guesses: Mapping[str, float]
) -> Table:
    """The main metrics of each model, and of guessing.

    Args:
        title: line above the table.
        results: one per model.
        metrics: the table of metrics.
        guesses: value of a metric for guessing, by name.
    """
    chosen = [metric for metric in metrics if metric.shown == "summary"]
    rows = [
        [
            result.model,
            f"{result.correct:.{0 if _n_repeats(result) == 1 else 1}f}/{result.n}",
            *(metric.format(result.metrics[metric.name]) for metric in chosen),
        ]
        for result in results
    ]
    guessing = [f"{guesses[m.name]:.{m.digits}f}" if m.name in guesses else "" for m in chosen]
    header = ["model", "right", *(metric.heading() for metric in chosen)]
    return Table(title, header, [*rows, ["(guessing)", "", *guessing]])


def further_table(
    results: Sequence[ModelResult],
    metrics: MetricTable,
    classes: Sequence[str],
    majority_share: float,
) -> Table:
    """Further metrics of each model, p values against guessing, and the spread over repeats.

    Args:
        results: one per model.
        metrics: the table of metrics.
        classes: names of the classes.
        majority_share: share of the largest class.
    """
    chosen = [metric for metric in metrics if metric.shown == "further"]
    headings = [metric.heading(classes) for metric in chosen]
    rows = [
        [
            result.model,
            *(metric.format(result.metrics[metric.name]) for metric in chosen),
            format_p(result.p_chance),
            format_p(result.p_majority),
        ]
        for result in results
    ]
    notes = [
        f"p: how often guessing evenly ({1 / len(classes):.2f}), or naming the largest class "
        f"({majority_share:.2f}), is right on as many cases."
    ]
    if (n_repeats := _n_repeats(results[0])) > 1:
        spreads = [
            f"{result.model} accuracy {spread.least:.2f} to {spread.most:.2f}"
            for result in results
            if (spread := result.spread["accuracy"])
        ]
        notes.append(f"Over {n_repeats} repeats, of the same cases: {'; '.join(spreads)}.")
    return Table("", ["model", *headings, "p guessing", "p majority"], rows, notes)


def calibration_table(results: Sequence[ModelResult]) -> Table:
    """Calibration of each model, and the effect of temperature scaling."""
    rows, notes = [], ["ECE by chance: the error that so few cases give under perfect calibration."]
    for result in results:
        calibration, scaled = result.calibration, result.calibration.temperature
        rows.append(
            [
                result.model,
                format_estimate(calibration.brier),
                format_estimate(calibration.scaled_brier),
                f"{calibration.ece:.2f}",
                f"{calibration.ece_expected:.2f}",
                format_p(calibration.p_ece),
                *([f"{scaled.parameter:.2f}", f"{scaled.brier:.2f}"] if scaled else ["", ""]),
            ]
        )
        if scaled and scaled.note:
            notes.append(f"Temperature of {result.model}: {scaled.note}.")
    header = [
        "model",
        "Brier",
        "scaled Brier",
        "ECE",
        "by chance",
        "p",
        "temperature",
        "Brier after",
    ]
    return Table("", header, rows, notes)


def conformal_table(results: Sequence[ModelResult]) -> Table:
    """Prediction sets of each model: cases answered by one class, and how many of them correctly."""
    rows = [
        [
            result.model,
            f"{result.conformal.mean_size:.1f}",
            f"{result.conformal.answered.k:.0f}/{result.n}",
            _format_share(result.conformal.right),
            f"{result.conformal.covered.k:.0f}/{result.n}",
        ]
        for result in results
    ]
    header = ["model", "classes per set", "answered", "right of these", "covered"]
    return Table("", header, rows, [f"Sets that hold the true class. {results[0].conformal}"])


def class_table(result: ModelResult) -> Table:
    """Each class against the rest, for one model."""
    rows = [
        [
            of_class.name,
            f"{of_class.n}",
            _format_share(of_class.sensitivity),
            _format_share(of_class.specificity),
            _format_share(of_class.ppv),
            _format_share(of_class.npv),
            format_estimate(of_class.auc),
            format_estimate(calibration.slope),
            *_at_prevalence(of_class),
        ]
        for of_class, calibration in zip(
            result.per_class, result.calibration.per_class, strict=True
        )
    ]
    header = [result.model, "cases", "sensitivity", "specificity", "PPV", "NPV", "AUC", "slope"]
    if any(len(row) > len(header) for row in rows):
        header += ["at", "PPV there", "NPV there"]
    return Table("", header, [row + [""] * (len(header) - len(row)) for row in rows])


def _n_repeats(result: ModelResult) -> int:
    return len(result.per_repeat["accuracy"])


def _at_prevalence(result: ClassResult) -> list[str]:
    values = result.at_prevalence
    if values is None:
        return []
    return [f"{values.prevalence:.2f}", format_estimate(values.ppv), format_estimate(values.npv)]


def _format_share(share: Proportion) -> str:
    counts = f"{share.k:.4g}/{share.n:.4g}"
    return counts if share.value is None else f"{counts} {format_estimate(share)}"
