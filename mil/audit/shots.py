"""A learning curve by cases per class: how good models are that learn from very few cases.

The folds are those of one cross-validation, so that every case is tested in every draw, whatever the number
of training cases. From each training part the same number of cases per class is drawn, several times.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mil.audit.sample_size import reduce_fold
from mil.data.splits import Fold
from mil.errors import CohortError
from mil.evaluation.arrays import Ints
from mil.evaluation.classification import metrics
from mil.evaluation.classification.model_scores import depends_on_fold_alone
from mil.evaluation.classification.predictions import CaseScores, ClassPredictions
from mil.evaluation.display import Table, format_count, format_number


@dataclass(frozen=True)
class Measure:
    """What is shown of a model.

    Attributes:
        name: in files.
        label: for people.
        compute: of the cases; None where it is undefined.
        chance: its value for guessing, of (C,) cases per class.
    """

    name: str
    label: str
    compute: Callable[[CaseScores], float | None]
    chance: Callable[[Ints], float]


def _auc(scores: CaseScores) -> float | None:
    return None if depends_on_fold_alone(scores) else metrics.macro_auc(scores.truth, scores.p)


MEASURES = (
    Measure(
        "accuracy",
        "accuracy",
        lambda scores: metrics.accuracy(scores.truth, scores.p),
        lambda counts: float(counts.max() / counts.sum()),
    ),
    Measure(
        "balanced_accuracy",
        "balanced accuracy",
        lambda scores: metrics.balanced_accuracy(scores.truth, scores.p),
        lambda counts: 1 / len(counts),
    ),
    Measure("auc", "macro AUC", _auc, lambda _: 0.5),
)


@dataclass(frozen=True)
class DrawScore:
    """What a model achieved with one draw of training cases.

    Attributes:
        draw: its number, from 1.
        shots: training cases per class.
        model: its name.
        values: by the name of the measure; None where it is undefined.
    """

    draw: int
    shots: int
    model: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class CurvePoint:
    """A measure of a model over the draws in which it is defined.

    Attributes:
        model: its name.
        shots: training cases per class.
        metric: name of the measure.
        draws: number of draws.
        mean: over the draws; None without any.
        sd: standard deviation over the draws; None with fewer than two.
        low: the least.
        high: the largest.
    """

    model: str
    shots: int
    metric: str
    draws: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """What models achieve with few training cases; made by ``mil.learning_curve``.

    Attributes:
        path: the folder with its files.
        models: in the order of the table.
        shots: numbers of training cases per class.
        draws: number of draws.
        class_counts: test cases of each class, the same in every draw.
        most: cases of the smallest class in the smallest training part.
        scores: of each draw, number and model.
    """

    path: Path
    models: tuple[str, ...]
    shots: tuple[int, ...]
    draws: int
    class_counts: Mapping[str, int]
    most: int
    scores: tuple[DrawScore, ...]

    @property
    def n_cases(self) -> int:
        """Test cases."""
        return sum(self.class_counts.values())

    def chance(self, measure: Measure) -> float:
        """What guessing achieves; of the accuracy, always naming the most frequent class."""
        return measure.chance(np.array(list(self.class_counts.values())))

    def points(self) -> tuple[CurvePoint, ...]:
        """Mean and spread of each measure, for each model and number of cases."""
        return tuple(
            _summarise(
                [s.values[measure.name] for s in self.scores if (s.model, s.shots) == (model, k)],
                CurvePoint(model, k, measure.name, 0, None, None, None, None),
            )
            for model in self.models
            for k in self.shots
            for measure in MEASURES
        )

    def rows(self) -> list[dict[str, object]]:
        """The points as rows of a CSV."""
        return [asdict(point) for point in self.points()]

    def draw_rows(self) -> list[dict[str, object]]:
        """The draws as rows of a CSV."""
        return [
            {"draw": score.draw, "shots": score.shots, "model": score.model, **score.values}
            for score in self.scores
        ]

    def table(self) -> Table:
        """For a terminal: a row for each model and number of cases."""
        cells = [_cell(point) for point in self.points()]
        width = len(MEASURES)
        keys = [(model, str(k)) for model in self.models for k in self.shots]
        return Table(
            f"{'Mean ± SD (range) over ' * (self.draws > 1)}{format_count(self.draws, 'draw')}, "
            f"{self.n_cases} test cases",
            ("model", "cases per class", *(measure.label for measure in MEASURES)),
            [(*key, *cells[i * width : (i + 1) * width]) for i, key in enumerate(keys)],
            self.notes(),
        )

    def notes(self) -> tuple[str, ...]:
        """What the spread does not say."""
        guesses = ", ".join(
            f"{measure.label} {self.chance(measure):.2f}"
            for measure in MEASURES  # in the order of the columns
        )
        notes = [f"Guessing: {guesses}."]
        if self.draws == 1:
            return (*notes, "One draw does not show how much depends on the cases that were drawn.")
        notes.append(
            "The spread is that of the draws of training cases. Every draw is tested on the same "
            f"{self.n_cases} cases, so it does not say how the models do on others."
        )
        if large := [k for k in self.shots if 2 * k > self.most]:
            notes.append(
                f"With {' or '.join(map(str, large))} cases per class the draws overlap: the smallest "
                f"training part has {self.most} cases of a class. Their spread is too small."
            )
        return tuple(notes)


def _summarise(values: Sequence[float | None], empty: CurvePoint) -> CurvePoint:
    known = [value for value in values if value is not None]
    if not known:
        return empty
    return replace(
        empty,
        draws=len(known),
        mean=float(np.mean(known)),
        sd=float(np.std(known, ddof=1)) if len(known) > 1 else None,
        low=min(known),
        high=max(known),
    )


def _cell(point: CurvePoint) -> str:
    if point.mean is None or point.low is None or point.high is None:
        return format_number(None)
    spread = "" if point.sd is None else f" ± {point.sd:.2f} ({point.low:.2f} to {point.high:.2f})"
    return f"{point.mean:.2f}{spread}"


def draw_shots(
    folds: Sequence[Fold], label_of: Mapping[str, str], shots: int, *, draw: int, seed: int
) -> tuple[Fold, ...]:
    """The folds with ``shots`` training cases of every class.

    In one draw, more cases contain the fewer; another draw has others. Test cases stay.

    Args:
        folds: of one cross-validation.
        label_of: class of each case.
        shots: training cases per class; every training part has as many.
        draw: number of the draw, which becomes the repeat of the folds.
        seed: of all draws.
    """
    return tuple(
        replace(reduce_fold(fold, label_of, lambda _: shots, [seed, draw, fold.index]), repeat=draw)
        for fold in folds
    )


def most_shots(folds: Sequence[Fold], label_of: Mapping[str, str]) -> tuple[int, str]:
    """How many cases of every class every training part has, and the class that limits them."""
    classes = sorted(set(label_of.values()))
    counts = [
        (sum(label_of[name] == label for name in fold.train), label)
        for fold in folds
        for label in classes
    ]
    return min(counts)


def possible_shots(
    shots: Sequence[int], folds: Sequence[Fold], label_of: Mapping[str, str]
) -> tuple[tuple[int, ...], str]:
    """The numbers that every training part has of every class, and a notice of the others, or empty.

    Raises:
        CohortError: there is none.
    """
    most, label = most_shots(folds, label_of)
    possible = tuple(k for k in shots if k <= most)
    if len(possible) == len(shots):
        return possible, ""
    reason = f"the smallest training part has {most} of class {label}"
    if not possible:
        raise CohortError(
            f"No training part has {min(shots)} cases of every class: {reason}. Set shots to {most} or fewer."
        )
    left_out = ", ".join(str(k) for k in shots if k > most)
    return possible, f"Left out: {left_out} training cases per class; {reason}."


def score_draw(predictions: ClassPredictions, draw: int, shots: int) -> list[DrawScore]:
    """What each model of a table of predictions achieved."""
    return [
        DrawScore(
            draw,
            shots,
            model,
            {
                measure.name: measure.compute(predictions.case_scores(model, draw))
                for measure in MEASURES
            },
        )
        for model in predictions.models
    ]
