"""What an arm of a rerun study predicted, and the measures over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import precision_recall_fscore_support

from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.classification.metrics import predicted
from mil.evaluation.classification.model_scores import depends_on_fold_alone
from mil.evaluation.classification.predictions import COLUMNS, PREFIX, ClassPredictions
from mil.protocols.arm import Arm


@dataclass(frozen=True)
class Split:
    """Training and test cases; in an arm that is tested on other tiles they are the same cases."""

    index: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    repeat: int = 0


@dataclass(frozen=True, eq=False)
class TilePredictions:
    """The logits of one tested slide's tiles, (N, C); of the slide as a whole, (1, C)."""

    split: Split
    case: str
    slide: str
    label: str
    logits: NDArray[np.float64]
    n_tiles: int

    @property
    def p(self) -> NDArray[np.float64]:
        """The class probabilities of the same."""
        return np.asarray(softmax(self.logits, axis=-1))


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmResult:
    """The result of one arm on this cohort.

    Attributes:
        arm: the arm.
        measures: as named in ``MEASURES``. None where undefined. Over tiles of slides they are the mean of
            the splits; over slices of a question of two classes, those of all slices of all splits together;
            over cases, those of one answer per case, the mean of its probabilities over the repeats.
        intervals: 95 % limits of the measures over cases.
        predictions: mean probabilities of each slide in each repeat; None where the tested cases were trained
            on.
        n_tiles, n_cases: number of tested tiles and cases.
        seconds: time to embed the tested tiles.
    """

    arm: Arm
    measures: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    predictions: ClassPredictions | None
    n_tiles: int
    n_cases: int
    seconds: float


def summarise_arm(
    arm: Arm,
    tested: Sequence[TilePredictions],
    classes: Sequence[str],
    seconds: float,
    *,
    positive: str = "",
) -> ArmResult:
    """Measures over tiles, as the mean of the splits, if tiles are classified; and over cases.

    Args:
        arm: what was tried.
        tested: what each split's classifier says of its test slides.
        classes: the labels, in the order of the logits.
        seconds: time to embed the slides.
        positive: the class that a study of two calls positive; empty for macro measures alone.
    """
    binary = positive if arm.shows and len(classes) == 2 else ""
    measures: dict[str, float | None] = {}
    if not arm.model:
        measures |= (
            _slice_measures(tested, classes, binary) if binary else _mean_of_splits(tested, classes)
        )
    if arm.test == "ensemble":
        tested = combine_networks(tested)
    intervals: dict[str, tuple[float, float]] = {}
    predictions = None
    if arm.test != "tiles":  # cases that have trained are no evidence about cases
        predictions = slide_predictions(arm.name, tested, classes)
        judged, intervals = _case_measures(predictions, binary)
        measures |= judged
    return ArmResult(
        arm=arm,
        measures=measures,
        intervals=intervals,
        predictions=predictions,
        n_tiles=sum(tiles.n_tiles for tiles in tested),
        n_cases=len({tiles.case for tiles in tested}),
        seconds=seconds,
    )


def slide_predictions(
    model: str, tested: Sequence[TilePredictions], classes: Sequence[str]
) -> ClassPredictions:
    """One row per slide: the mean probabilities of its tiles."""
    rows = []
    for tiles in tested:
        facts = (model, tiles.split.repeat, tiles.split.index, tiles.case, tiles.slide, tiles.label)
        p = {PREFIX + name: v for name, v in zip(classes, tiles.p.mean(axis=0), strict=True)}
        rows.append(dict(zip(COLUMNS, facts, strict=True)) | p)
    columns = [*COLUMNS, *(PREFIX + name for name in classes)]
    return ClassPredictions(pd.DataFrame(rows, columns=columns), tuple(classes))


def combine_networks(tested: Sequence[TilePredictions]) -> tuple[TilePredictions, ...]:
    """Each slide once, by the mean of the logits of all networks and tiles, before the softmax.

    As F. Navarro et al., Cancers 2021, 13, 2866, read the networks of 15 folds. The mean of probabilities is
    another number: a network that is sure counts for more here.
    """
    of_slide: dict[str, list[TilePredictions]] = {}
    for one in tested:
        of_slide.setdefault(one.slide, []).append(one)
    return tuple(
        replace(
            several[0],
            split=Split(0, (), several[0].split.test),
            logits=np.concatenate([one.logits for one in several]).mean(axis=0, keepdims=True),
        )
        for several in of_slide.values()
    )


def over_repeats(predictions: ClassPredictions) -> ClassPredictions:
    """The predictions with one answer per slide: the mean of its probabilities over the repeats."""
    if len(predictions.repeats) < 2:
        return predictions
    keys = ["model", "case", "slide", "label"]
    means = predictions.table.groupby(keys, sort=False)[predictions.answer_columns].mean()
    table = means.reset_index().assign(repeat=0, fold=0)
    return ClassPredictions(table[list(predictions.table.columns)], predictions.classes)


def _case_measures(
    predictions: ClassPredictions, positive: str
) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """Measures over cases, all of the same answers; and the limits of some."""
    answers = over_repeats(predictions)
    [result] = evaluate(answers).models
    measures: dict[str, float | None] = {}
    intervals = {}
    for name in ("accuracy", "auc"):
        estimate = result.metrics[name]
        measures[f"case_{name}"] = estimate.value
        if estimate.low is not None and estimate.high is not None:
            intervals[f"case_{name}"] = (estimate.low, estimate.high)
    [model] = predictions.models
    if all(depends_on_fold_alone(predictions.case_scores(model, r)) for r in predictions.repeats):
        measures["case_auc"] = None  # which the mean of several repeats would hide
        intervals.pop("case_auc", None)
    if positive:
        scores = answers.case_scores(model, answers.repeats[0])
        at = answers.classes.index(positive)
        rates = _binary(scores.truth == at, predicted(scores.p) == at)
        measures |= {f"case_{name}": rates[name] for name in ("sensitivity", "specificity", "f1")}
    return measures, intervals


def _binary(truth: NDArray[np.bool_], called: NDArray[np.bool_]) -> dict[str, float | None]:
    """Rates of a question of two classes; None where none is positive, negative or called."""

    def share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float | None:
        return float(part.sum() / whole.sum()) if whole.any() else None

    both = truth & called
    wrong = int((truth != called).sum())
    return {
        "sensitivity": share(both, truth),
        "specificity": share(~truth & ~called, ~truth),
        "positive_precision": share(both, called),
        "f1": 2 * int(both.sum()) / (2 * int(both.sum()) + wrong) if both.any() or wrong else None,
    }


def _mean_of_splits(
    tested: Sequence[TilePredictions], classes: Sequence[str]
) -> dict[str, float | None]:
    by_split: dict[tuple[int, int], list[TilePredictions]] = {}
    for tiles in tested:
        by_split.setdefault((tiles.split.repeat, tiles.split.index), []).append(tiles)
    means = np.mean([_tile_measures(tiles, classes) for tiles in by_split.values()], axis=0)
    return dict(zip(("accuracy", "precision", "recall"), map(float, means), strict=True))


def _slice_measures(
    tested: Sequence[TilePredictions], classes: Sequence[str], positive: str
) -> dict[str, float | None]:
    """Rates of one table of counts: means of splits with other shares of positives do not fit together."""
    truth, called = _tile_calls(tested, classes, positive)
    return {"accuracy": float(np.mean(truth == called)), **_binary(truth, called)}


def _tile_calls(
    slides: Sequence[TilePredictions], classes: Sequence[str], positive: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tiles are of the positive class, and which are called so."""
    at = list(classes).index(positive)
    truth = np.concatenate([np.full(len(s.logits), s.label == positive) for s in slides])
    return truth, np.concatenate([s.logits.argmax(axis=1) == at for s in slides])


def _tile_measures(
    slides: Sequence[TilePredictions], classes: Sequence[str]
) -> tuple[float, float, float]:
    """Accuracy, and macro precision and recall, over all tiles of a split; 0 for a class never called."""
    truth = np.concatenate(
        [np.full(len(tiles.p), list(classes).index(tiles.label)) for tiles in slides]
    )
    called = np.concatenate([tiles.p.argmax(axis=1) for tiles in slides])
    precision, recall, _, _ = precision_recall_fscore_support(
        truth, called, labels=sorted(set(truth)), average="macro", zero_division=0
    )
    return float(np.mean(truth == called)), float(precision), float(recall)


def join_predictions(results: Sequence[ArmResult]) -> dict[str, ClassPredictions]:
    """By question, one table of its arms that judge cases, each a model."""
    tables: dict[str, list[ClassPredictions]] = {}
    for result in results:
        if result.predictions is not None:
            tables.setdefault(result.arm.question, []).append(result.predictions)
    return {
        question: ClassPredictions(
            pd.concat([one.table for one in of_arms], ignore_index=True), of_arms[0].classes
        )
        for question, of_arms in tables.items()
    }
