"""The figures of a diagnosis as files for a paper: PNG, SVG and the CSV that was drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from features.files.atomic import atomic_path
from mil.evaluation.arrays import Floats
from mil.evaluation.classification.evaluate import ClassEvaluation
from mil.evaluation.classification.predictions import ClassPredictions
from mil.figures.saving import DASHES, PALETTE, plain_text, save_figure
from mil.report.plots import curves_of

DPI = 200

Draw = Callable[[Any, pd.DataFrame], None]


def write_class_figures(
    folder: Path, evaluation: ClassEvaluation, predictions: ClassPredictions
) -> list[Path]:
    """Draw every figure; returns the paths, PNG, SVG and CSV of each.

    Args:
        folder: created if needed; figures of the same name are replaced.
        evaluation: of the predictions.
        predictions: out of fold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    written += _save(folder / "accuracy", _accuracy_table(evaluation), _draw_accuracy(evaluation))
    models = [result.model for result in evaluation.models]
    written += _save_models(
        folder / "roc",
        _roc_table(evaluation, predictions),
        models,
        _draw_roc,
        "false positive rate",
    )
    counts = {result.model: result.confusion for result in evaluation.models}
    written += write_confusion_figure(
        folder / "confusion", evaluation.classes, evaluation.class_counts, counts
    )
    across = "probability of the class named"
    table = _reliability_table(evaluation)
    written += _save_models(folder / "reliability", table, models, _draw_reliability, across)
    return written


def _accuracy_table(evaluation: ClassEvaluation) -> pd.DataFrame:
    rows = [
        (
            r.model,
            r.correct,
            r.n,
            r.metrics["accuracy"].value,
            r.metrics["accuracy"].low,
            r.metrics["accuracy"].high,
        )
        for r in evaluation.models
    ]
    return pd.DataFrame(rows, columns=["model", "right", "cases", "accuracy", "low", "high"])


def _draw_accuracy(evaluation: ClassEvaluation) -> Callable[[pd.DataFrame], Figure]:
    def draw(table: pd.DataFrame) -> Figure:
        figure = Figure(figsize=(6, 0.9 + 0.34 * len(table)), layout="constrained")
        axis = figure.subplots()
        at = np.arange(len(table))[::-1]
        middle = table["accuracy"].to_numpy(float)
        reach = [middle - table["low"].to_numpy(float), table["high"].to_numpy(float) - middle]
        axis.errorbar(middle, at, xerr=reach, fmt="o", color=PALETTE[0], capsize=0)
        for share, dashes, label in (
            (evaluation.chance_accuracy, ":", "guessing"),
            (evaluation.majority_share, "--", "most frequent class"),
        ):
            axis.axvline(share, color="#888888", linestyle=dashes, label=label)
        axis.set(xlim=(0, 1), yticks=at, xlabel="accuracy, 95 % interval")
        axis.set_yticklabels([plain_text(name) for name in table["model"]])
        axis.legend(frameon=False, fontsize="small", loc="lower right")
        return figure

    return draw


def _roc_table(evaluation: ClassEvaluation, predictions: ClassPredictions) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for result in evaluation.models:
        for curve in curves_of(ClassPredictions.expect(predictions), result):
            points = zip(curve.fpr, curve.tpr, strict=True)
            rows += [(result.model, curve.name, curve.auc, fpr, tpr) for fpr, tpr in points]
    return pd.DataFrame(rows, columns=["model", "class", "auc", "fpr", "tpr"])


def _draw_roc(axis: Any, table: pd.DataFrame) -> None:
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    for number, (name, part) in enumerate(table.groupby("class", sort=False)):
        look = {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number % len(DASHES)]}
        label = f"{plain_text(name)}, AUC {part['auc'].iloc[0]:.2f}"
        axis.plot(part["fpr"], part["tpr"], label=label, **look)
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="true positive rate", aspect="equal")
    if len(table):
        axis.legend(frameon=False, fontsize="xx-small", loc="lower right")


def write_confusion_figure(
    path: Path, names: Sequence[str], totals: Sequence[int], counts: Mapping[str, Floats]
) -> list[Path]:
    """Confusion matrices, one panel per model; ``counts`` are (K, K) cases by model, rows the truth."""
    rows = [
        (model, truth, named, matrix[i, j])
        for model, matrix in counts.items()
        for i, truth in enumerate(names)
        for j, named in enumerate(names)
    ]
    table = pd.DataFrame(rows, columns=["model", "truth", "named", "cases"])
    return _save_models(path, table, list(counts), _draw_confusion(names, totals), "named")


def _draw_confusion(classes: Sequence[str], totals: Sequence[int]) -> Draw:
    names = [plain_text(name) for name in classes]
    row_totals = np.maximum(np.array(totals), 1)

    def draw(axis: Any, table: pd.DataFrame) -> None:
        counts = table["cases"].to_numpy(float).reshape(len(names), len(names))
        axis.imshow(counts / row_totals[:, None], vmin=0, vmax=1, cmap="Blues", alpha=0.8)
        for i, j in np.ndindex(counts.shape):
            axis.text(j, i, f"{counts[i, j]:g}", ha="center", va="center", fontsize="small")
        at = range(len(names))
        axis.set_xticks(at, names, rotation=45, ha="right", fontsize="x-small")
        axis.set_yticks(at, names, fontsize="x-small")
        axis.set(ylabel="truth")

    return draw


def _reliability_table(evaluation: ClassEvaluation) -> pd.DataFrame:
    rows = [
        (result.model, point.predicted, point.k, point.n, point.low, point.high)
        for result in evaluation.models
        for point in result.calibration.curve
    ]
    return pd.DataFrame(rows, columns=["model", "said", "right", "cases", "low", "high"])


def _draw_reliability(axis: Any, table: pd.DataFrame) -> None:
    share = (table["right"] / table["cases"]).to_numpy(float)
    reach = [share - table["low"].to_numpy(float), table["high"].to_numpy(float) - share]
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    axis.errorbar(table["said"], share, yerr=reach, fmt="o", color=PALETTE[0])
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share that is right", aspect="equal")


def _save_models(
    path: Path, table: pd.DataFrame, models: Sequence[str], draw: Draw, across: str
) -> list[Path]:
    """One panel per model."""

    def panels(table: pd.DataFrame) -> Figure:
        columns = min(4, len(models))
        rows = -(-len(models) // columns)
        figure = Figure(figsize=(3.1 * columns, 3.2 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, model in zip(axes.flat, models, strict=False):
            axis.set_title(plain_text(model), fontsize="medium")
            axis.set_xlabel(across)
            draw(axis, table[table["model"] == model])
        for axis in axes.flat[len(models) :]:
            axis.set_axis_off()
        return figure

    return _save(path, table, panels)


def _save(path: Path, table: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure]) -> list[Path]:
    numbers = path.with_suffix(".csv")
    with atomic_path(numbers) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return [numbers, *save_figure(draw(table), path, dpi=DPI)]
