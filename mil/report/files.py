"""The figures of the report as files for a paper: each as PNG, SVG and the CSV it was drawn from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mil.evaluation.classification.evaluate import Evaluation
from mil.evaluation.predictions import Predictions
from mil.report.figures import curves_of

# Okabe & Ito 2008, told apart without colour vision; the page's own palette follows the same.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7176", "#b8a800")
STYLES = ("-", "--", ":", "-.")
DPI = 200

Draw = Callable[[Any, pd.DataFrame], None]


def write_figures(folder: Path, evaluation: Evaluation, predictions: Predictions) -> list[Path]:
    """Draw every figure; returns the files, PNG, SVG and CSV of each.

    Args:
        folder: is made where it is not there; figures of the same name are replaced.
        evaluation: of the predictions.
        predictions: out of fold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    written += _save(folder / "accuracy", _accuracy_table(evaluation), _draw_accuracy(evaluation))
    for name, table, draw, across in (
        ("roc", _roc_table(evaluation, predictions), _draw_roc, "false positive rate"),
        ("confusion", _confusion_table(evaluation), _draw_confusion(evaluation), "named"),
        ("reliability", _reliability_table(evaluation), _draw_reliability, "probability of the class named"),
    ):  # fmt: skip
        written += _save_models(folder / name, table, evaluation, draw, across)
    return written


def _accuracy_table(evaluation: Evaluation) -> pd.DataFrame:
    rows = [
        (
            each.model,
            each.correct,
            each.n,
            each.accuracy.value,
            each.accuracy.low,
            each.accuracy.high,
        )
        for each in evaluation.models
    ]
    return pd.DataFrame(rows, columns=["model", "right", "cases", "accuracy", "low", "high"])


def _draw_accuracy(evaluation: Evaluation) -> Callable[[pd.DataFrame], Figure]:
    def draw(table: pd.DataFrame) -> Figure:
        figure = Figure(figsize=(6, 0.9 + 0.34 * len(table)), layout="constrained")
        axis = figure.subplots()
        at = np.arange(len(table))[::-1]
        middle = table["accuracy"].to_numpy(float)
        reach = [middle - table["low"].to_numpy(float), table["high"].to_numpy(float) - middle]
        axis.errorbar(middle, at, xerr=reach, fmt="o", color=COLOURS[0], capsize=0)
        for share, told in (
            (evaluation.chance_accuracy, "guessing"), (evaluation.majority_share, "most frequent class"),
        ):  # fmt: skip
            axis.axvline(
                share, color="#888888", linestyle=":" if told == "guessing" else "--", label=told
            )
        axis.set(xlim=(0, 1), yticks=at, xlabel="accuracy, 95 % interval")
        axis.set_yticklabels([_plain(name) for name in table["model"]])
        axis.legend(frameon=False, fontsize="small", loc="lower right")
        return figure

    return draw


def _roc_table(evaluation: Evaluation, predictions: Predictions) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for result in evaluation.models:
        for curve in curves_of(predictions, result):
            points = zip(curve.fpr, curve.tpr, strict=True)
            rows += [(result.model, curve.name, curve.auc, fpr, tpr) for fpr, tpr in points]
    return pd.DataFrame(rows, columns=["model", "class", "auc", "fpr", "tpr"])


def _draw_roc(axis: Any, table: pd.DataFrame) -> None:
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    for number, (name, part) in enumerate(table.groupby("class", sort=False)):
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
        told = f"{_plain(name)}, AUC {part['auc'].iloc[0]:.2f}"
        axis.plot(part["fpr"], part["tpr"], label=told, **look)
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="true positive rate", aspect="equal")
    if len(table):
        axis.legend(frameon=False, fontsize="xx-small", loc="lower right")


def _confusion_table(evaluation: Evaluation) -> pd.DataFrame:
    rows = [
        (each.model, truth, named, each.confusion[i, j])
        for each in evaluation.models
        for i, truth in enumerate(evaluation.classes)
        for j, named in enumerate(evaluation.classes)
    ]
    return pd.DataFrame(rows, columns=["model", "truth", "named", "cases"])


def _draw_confusion(evaluation: Evaluation) -> Draw:
    names = [_plain(name) for name in evaluation.classes]
    totals = np.maximum(np.array(evaluation.class_counts), 1)

    def draw(axis: Any, table: pd.DataFrame) -> None:
        counts = table["cases"].to_numpy(float).reshape(len(names), len(names))
        axis.imshow(counts / totals[:, None], vmin=0, vmax=1, cmap="Blues", alpha=0.8)
        for i, j in np.ndindex(counts.shape):
            axis.text(j, i, f"{counts[i, j]:g}", ha="center", va="center", fontsize="small")
        at = range(len(names))
        axis.set_xticks(at, names, rotation=45, ha="right", fontsize="x-small")
        axis.set_yticks(at, names, fontsize="x-small")
        axis.set(ylabel="truth")

    return draw


def _reliability_table(evaluation: Evaluation) -> pd.DataFrame:
    rows = [
        (each.model, one.predicted, one.k, one.n, one.low, one.high)
        for each in evaluation.models
        for one in each.calibration.curve
    ]
    return pd.DataFrame(rows, columns=["model", "said", "right", "cases", "low", "high"])


def _draw_reliability(axis: Any, table: pd.DataFrame) -> None:
    share = (table["right"] / table["cases"]).to_numpy(float)
    reach = [share - table["low"].to_numpy(float), table["high"].to_numpy(float) - share]
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    axis.errorbar(table["said"], share, yerr=reach, fmt="o", color=COLOURS[0])
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share that is right", aspect="equal")


def _save_models(
    path: Path, table: pd.DataFrame, evaluation: Evaluation, draw: Draw, across: str
) -> list[Path]:
    """One panel a model."""
    models = [each.model for each in evaluation.models]

    def panels(table: pd.DataFrame) -> Figure:
        columns = min(4, len(models))
        rows = -(-len(models) // columns)
        figure = Figure(figsize=(3.1 * columns, 3.2 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, model in zip(axes.flat, models, strict=False):
            axis.set_title(_plain(model), fontsize="medium")
            axis.set_xlabel(across)
            draw(axis, table[table["model"] == model])
        for axis in axes.flat[len(models) :]:
            axis.set_axis_off()
        return figure

    return _save(path, table, panels)


def _save(path: Path, table: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure]) -> list[Path]:
    files = [path.with_suffix(suffix) for suffix in (".csv", ".png", ".svg")]
    table.to_csv(files[0], index=False, lineterminator="\n")
    figure = draw(table)
    figure.savefig(files[1], dpi=DPI)
    figure.savefig(files[2], metadata={"Date": None})
    return files


def _plain(name: object) -> str:
    """A name as it is, also where matplotlib would read mathematics in it."""
    return str(name).replace("$", r"\$")
