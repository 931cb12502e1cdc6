"""Recalibration: temperature and Platt scaling learnt on the other folds, and the fits that they need.

Probabilities are clipped to 1e-6 from 0 and 1 before a logarithm is taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax

from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.classification.metrics import brier
from mil.evaluation.classification.predictions import CaseScores

NEAREST = 1e-6  # to 0 and 1
STEPS = 30
COLDEST, HOTTEST = -3.0, 3.0  # logarithms of the temperatures tried
Recalibration = Callable[[CaseScores], tuple[Floats, tuple[float, ...]]]


@dataclass(frozen=True)
class Recalibrated:
    """Scores of a model after recalibration learnt on the other folds.

    Attributes:
        parameter: mean temperature over folds; None for Platt scaling, which has two parameters per class.
        brier: mean Brier score after recalibration.
        log_loss: mean log loss after recalibration.
        note: in how many folds the temperature is at the upper bound of the search; else empty.
    """

    parameter: float | None
    brier: float
    log_loss: float
    note: str = ""


def recalibrate(repeats: Sequence[CaseScores], method: Recalibration) -> Recalibrated | None:
    """Scores after recalibration by a method; None where a repeat has one fold only."""
    if any(len(np.unique(scores.fold)) < 2 for scores in repeats):
        return None
    recalibrated = [method(scores) for scores in repeats]
    parameters = [parameter for _, of_folds in recalibrated for parameter in of_folds]
    truth = repeats[0].truth
    return Recalibrated(
        parameter=float(np.mean(parameters)) if parameters else None,
        brier=float(np.mean([brier(truth, p).mean() for p, _ in recalibrated])),
        log_loss=float(np.mean([log_loss(truth, p) for p, _ in recalibrated])),
        note=_bound_note(parameters),
    )


def log_loss(truth: Ints, p: Floats) -> float:
    """Mean of -log of the true class's probability."""
    return float(-np.log(np.maximum(p[np.arange(len(truth)), truth], NEAREST)).mean())


def logistic(x: Floats, y: Floats, offset: Floats | float = 0.0) -> tuple[Floats, Floats] | None:
    """Logistic regression by Newton's method.

    Args:
        x: (n, q) columns, the constant among them.
        y: (n,) in [0, 1].
        offset: (n,) added to the linear predictor.

    Returns:
        (q,) coefficients and their standard errors; None where the maximum does not exist, as
        when the cases are separated.
    """
    b = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = expit(x @ b + offset)
        information = (x * (p * (1 - p))[:, None]).T @ x
        if not np.linalg.cond(information) < 1e12:  # also nan
            return None
        step = np.linalg.solve(information, x.T @ (y - p))
        b = b + step
        if np.abs(step).max() < 1e-9:
            return b, np.sqrt(np.diag(np.linalg.inv(information)))
    return None


def temperature(truth: Ints, p: Floats) -> float:
    """The temperature of maximum likelihood (Guo et al. 2017, arXiv:1706.04599)."""
    scores = np.log(np.maximum(p, NEAREST))

    def loss(log_t: float) -> float:
        return log_loss(truth, softmax(scores / np.exp(log_t), axis=1))

    return float(np.exp(minimize_scalar(loss, bounds=(COLDEST, HOTTEST), method="bounded").x))


def temperature_scaled(scores: CaseScores) -> tuple[Floats, tuple[float, ...]]:
    """Probabilities (n, C), each fold scaled by a temperature learnt on the others; and the temperatures."""
    scaled, temperatures = np.empty_like(scores.p), list[float]()
    for tested in _folds(scores):
        temperatures.append(temperature(scores.truth[~tested], scores.p[~tested]))
        line = np.log(np.maximum(scores.p[tested], NEAREST)) / temperatures[-1]
        scaled[tested] = softmax(line, axis=1)
    return scaled, tuple(temperatures)


def platt(positive: Bools, p: Floats) -> tuple[float, float]:
    """Slope and intercept of Platt's line on the logit; 1 and 0 where the slope does not exist."""
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    fitted = logistic(np.column_stack([logits(p), np.ones(len(p))]), target)
    return (1.0, 0.0) if fitted is None else (float(fitted[0][0]), float(fitted[0][1]))


def platt_scaled(scores: CaseScores) -> tuple[Floats, tuple[float, ...]]:
    """Probabilities (n, C), the logit of each class recalibrated by a line learnt on the other folds.

    Platt 1999, with targets just inside 0 and 1, which keep the fit of separated cases finite. More than
    two classes are recalibrated one against the rest and normalised to sum to 1.
    """
    scaled = np.empty_like(scores.p)
    class_indices = [1] if scaled.shape[1] == 2 else list(range(scaled.shape[1]))
    for tested in _folds(scores):
        for k in class_indices:
            a, b = platt(scores.truth[~tested] == k, scores.p[~tested, k])
            scaled[tested, k] = expit(a * logits(scores.p[tested, k]) + b)
    if len(class_indices) == 1:
        scaled[:, 0] = 1 - scaled[:, 1]
    return scaled / scaled.sum(axis=1, keepdims=True), ()


def logits(p: Floats) -> Floats:
    """Logits of probabilities, clipped to be finite."""
    return np.asarray(logit(np.clip(p, NEAREST, 1 - NEAREST)))


def _folds(scores: CaseScores) -> list[Bools]:
    return [scores.fold == fold for fold in np.unique(scores.fold)]


def _bound_note(temperatures: Sequence[float]) -> str:
    hottest = 0.999 * float(np.exp(HOTTEST))
    n_hottest = sum(value > hottest for value in temperatures)
    if n_hottest == 0:
        return ""
    where = f" in {n_hottest} of {len(temperatures)} folds" * (n_hottest < len(temperatures))
    return (
        f"reached its upper limit{where}: the scores carry no information about the class"
        + " there" * bool(where)
    )
