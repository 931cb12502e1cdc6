"""Calibration: whether predicted probabilities agree with observed frequencies.

Out-of-fold probabilities come from several fits, so this judges the way of fitting rather than one model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mil.distributions import chi2, norm, rankdata
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.classification.metrics import brier, predicted
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.classification.recalibration import (
    NEAREST,
    Recalibrated,
    log_loss,
    logistic,
    logits,
    platt_scaled,
    recalibrate,
    temperature_scaled,
)
from mil.evaluation.intervals import Estimate, bounded_mean_interval, exact

SIMULATED, SEED = 1000, 0
MAX_BRIER = 2.0  # summed over classes
SPAN = 0.75  # share of the cases used for each point of the smoothed curve
SEPARATED = Estimate(None, None, None, "none", "undefined: the cases are separated, or all alike")


@dataclass(frozen=True)
class Bin:
    """Cases of similar probability: its mean, and k of n that came true, with exact limits."""

    predicted: float
    k: int
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class ClassCalibration:
    """One class against the rest; each number is a mean over repeats.

    Attributes:
        name: name of the class.
        slope: calibration slope; below 1, probabilities are too extreme.
        intercept: calibration intercept with slope 1; above 0, the class is more frequent than predicted.
        ici: integrated calibration index, the mean distance of the smoothed curve from the diagonal
            (Austin & Steyerberg 2019, doi:10.1002/sim.8281).
        e50: median of that distance.
        e90: 90 % quantile of that distance.
        p_hosmer_lemeshow: in the first repeat, for comparison with other publications; means little below
            100 cases.
    """

    name: str
    slope: Estimate
    intercept: Estimate
    ici: float
    e50: float
    e90: float
    p_hosmer_lemeshow: float | None


@dataclass(frozen=True)
class Calibration:
    """Calibration of one model.

    Attributes:
        brier: summed over classes, 0 to 2; for two classes twice the one-class score often printed.
        scaled_brier: 1 is perfect, 0 is as good as always predicting the class frequencies.
        log_loss: mean of -log of the true class's probability.
        ece: expected calibration error of the predicted class, with bins of about equal size.
        ece_expected: the error that chance alone gives under perfect calibration.
        p_ece: probability of an error as large or larger under perfect calibration.
        curve: reliability of the predicted class in the first repeat.
        per_class: each class against the rest.
        temperature: temperature scaling learnt on other folds; None where there is one fold.
        platt: Platt scaling learnt on other folds; None likewise.
    """

    brier: Estimate
    scaled_brier: Estimate
    log_loss: float
    ece: float
    ece_expected: float
    p_ece: float
    curve: tuple[Bin, ...]
    per_class: tuple[ClassCalibration, ...]
    temperature: Recalibrated | None
    platt: Recalibrated | None

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; the probability of a bin is called ``said``."""
        fields = asdict(self)
        curve = [
            {"said" if name == "predicted" else name: value for name, value in row.items()}
            for row in fields["curve"]
        ]
        return fields | {"curve": curve, "per_class": list(fields["per_class"])}


def calibrate(repeats: Sequence[CaseScores], classes: Sequence[str]) -> Calibration:
    """Judge the probabilities of one model.

    Args:
        repeats: predictions of the model for the same cases.
        classes: names, in the order of the probabilities.
    """
    truth, p = repeats[0].truth, [probabilities.p for probabilities in repeats]
    losses = np.mean([brier(truth, probabilities) for probabilities in p], axis=0)
    share = np.bincount(truth, minlength=len(classes)) / len(truth)
    reference = float(np.sum(share * (1 - share)))  # of always predicting the class frequencies
    score = _brier_estimate(losses)
    errors = np.array([calibration_error(truth, probabilities) for probabilities in p]).mean(axis=0)
    return Calibration(
        brier=score,
        scaled_brier=_scaled(score, reference),
        log_loss=float(np.mean([log_loss(truth, probabilities) for probabilities in p])),
        ece=float(errors[0]),
        ece_expected=float(errors[1]),
        p_ece=float(errors[2]),
        curve=reliability(p[0].max(axis=1), predicted(p[0]) == truth),
        per_class=tuple(
            _class_calibration(truth == k, p, k, name) for k, name in enumerate(classes)
        ),
        temperature=recalibrate(repeats, temperature_scaled),
        platt=recalibrate(repeats, platt_scaled),
    )


def slope_and_intercept(
    positive: Bools, p: Floats
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Calibration slope, and intercept with slope 1, each with its standard error (Cox 1958).

    Args:
        positive: (n,) True for the class.
        p: (n,) its probability.

    Returns:
        None where the cases are separated, or where all have the same probability.
    """
    line, one = logits(p), np.ones((len(p), 1))
    y = positive.astype(np.float64)
    sloped = logistic(np.column_stack([one, line]), y) if np.ptp(line) > 1e-9 else None
    level = logistic(one, y, line)
    if sloped is None or level is None:
        return None
    return (float(sloped[0][1]), float(sloped[1][1])), (float(level[0][0]), float(level[1][0]))


def smoothed(x: Floats, y: Floats, span: float = SPAN) -> Floats:
    """Local linear regression at each x with tricube weights (Cleveland 1979), without robust steps.

    Args:
        x: (n,) predictor.
        y: (n,) values.
        span: share of the cases used at each x.

    Returns:
        (n,) the curve at each x.
    """
    distance = np.abs(x[:, None] - x)
    nearest = min(len(x), max(2, int(span * len(x) + 1e-10)))
    reach = np.sort(distance, axis=1)[:, [nearest - 1]]
    weights = (1 - np.minimum(distance / np.maximum(reach, 1e-12), 1) ** 3) ** 3
    weights /= weights.sum(axis=1, keepdims=True)
    x0, y0 = weights @ x, weights @ y
    spread = weights @ x**2 - x0**2
    slope = np.where(
        spread > 1e-12 * max(np.ptp(x) ** 2, 1e-12),
        (weights @ (x * y) - x0 * y0) / np.maximum(spread, 1e-300),
        0.0,
    )
    return np.asarray(y0 + slope * (x - x0))


def hosmer_lemeshow(
    positive: Bools, p: Floats, groups: int = 10, *, development: bool = False
) -> tuple[float, float]:
    """Hosmer-Lemeshow statistic over groups of similar probability (1980), and its p value.

    Cases of equal probability stay in one group. Groups are counted from the middle outwards, so that the
    probabilities of the other class give the same result; where the number of groups is even, cases on the
    very middle form one more group.

    Args:
        positive: (n,) True for the class.
        p: (n,) its probability.
        groups: number of groups, as equal in size as possible.
        development: whether the model was fitted on these cases: two degrees of freedom fewer.
    """
    n_cases = len(p)
    # Midranks from the middle in units of groups; whole numbers over 2 n_cases round alike at both ends.
    away = groups * (2 * rankdata(np.round(p, 12)) - 1 - n_cases) / (2 * n_cases)
    place = np.sign(away) * np.floor(np.abs(away) + (0.5 if groups % 2 else 1.0))
    total, groups_met = 0.0, np.unique(place)
    for group in groups_met:
        members = place == group
        n, expected = int(members.sum()), float(np.clip(p[members], NEAREST, 1 - NEAREST).sum())
        total += (float(positive[members].sum()) - expected) ** 2 / (expected * (1 - expected / n))
    return total, float(chi2.sf(total, len(groups_met) - 2 * development))


def calibration_error(truth: Ints, p: Floats) -> tuple[float, float, float]:
    """Expected calibration error of the predicted class, and its value under perfect calibration.

    With few cases the error is far from 0 even if calibration is perfect. Its expectation then, and the
    probability of an error as large, come from labels drawn from the probabilities themselves.

    Args:
        truth: (n,) class indices.
        p: (n, C) probabilities.

    Returns:
        The error, its expectation under perfect calibration, and the p value.
    """
    confidence, right = p.max(axis=1), predicted(p) == truth
    place = _bins(confidence)
    member = np.eye(place.max() + 1)[place]  # (n, bins)
    drawn = np.random.default_rng(SEED).random((SIMULATED, len(confidence))) < confidence

    def error(right: Bools) -> Floats:
        return np.asarray(np.abs((right - confidence) @ member).sum(axis=-1) / len(confidence))

    observed, by_chance = float(error(right)), error(drawn)
    p_value = (1 + np.sum(by_chance >= observed - 1e-12)) / (1 + SIMULATED)
    return observed, float(by_chance.mean()), float(p_value)


def reliability(probability: Floats, right: Bools) -> tuple[Bin, ...]:
    """Reliability curve: bins of about equal size, equal probabilities together, Clopper-Pearson limits.

    Args:
        probability: (n,) probability of the predicted class.
        right: (n,) whether the predicted class is the true one.
    """
    place = _bins(probability)
    bins = []
    for index in np.unique(place):
        members = place == index
        k, n = int(right[members].sum()), int(members.sum())
        limits = exact(k, n)
        bins.append(Bin(float(probability[members].mean()), k, n, limits.low, limits.high))
    return tuple(bins)


def _class_calibration(
    positive: Bools, p: Sequence[Floats], index: int, name: str
) -> ClassCalibration:
    fits = [slope_and_intercept(positive, probabilities[:, index]) for probabilities in p]
    known = [probabilities for probabilities in fits if probabilities is not None]
    whole = len(known) == len(fits)
    away = np.concatenate(
        [
            np.abs(
                smoothed(probabilities[:, index], positive.astype(float)) - probabilities[:, index]
            )
            for probabilities in p
        ]
    )
    groups = min(10, len(positive) // 5)
    return ClassCalibration(
        name=name,
        slope=_wald_estimate([slope for slope, _ in known]) if whole else SEPARATED,
        intercept=_wald_estimate([level for _, level in known]) if whole else SEPARATED,
        ici=float(away.mean()),
        e50=float(np.quantile(away, 0.5)),
        e90=float(np.quantile(away, 0.9)),
        p_hosmer_lemeshow=hosmer_lemeshow(positive, p[0][:, index], groups)[1]
        if groups > 2
        else None,
    )


def _wald_estimate(estimates: Sequence[tuple[float, float]]) -> Estimate:
    """Mean over repeats with the mean standard error; repeats do not count as more cases."""
    value, error = np.mean(estimates, axis=0)
    half = float(norm.ppf(0.975)) * error
    return Estimate(float(value), float(value - half), float(value + half), "Wald")


def _brier_estimate(losses: Floats) -> Estimate:
    value = float(losses.mean())
    if len(losses) < 2:
        return Estimate(value, None, None, "none", "no interval: one case")
    interval = bounded_mean_interval(losses, MAX_BRIER)
    return Estimate(value, interval.low, interval.high, interval.method)


def _scaled(score: Estimate, reference: float) -> Estimate:
    if reference == 0 or score.value is None:
        return Estimate(None, None, None, "none", "undefined: one class only")
    low, high = (
        None if limit is None else 1 - limit / reference for limit in (score.high, score.low)
    )
    return Estimate(1 - score.value / reference, low, high, score.method, score.note)


def _bins(probability: Floats) -> Ints:
    """The bin (n,) of each case: 2 to 10 bins of about five cases or more."""
    count = int(np.clip(len(probability) // 5, 2, 10))
    edges = np.unique(np.quantile(probability, np.arange(1, count) / count, method="lower"))
    return np.unique(np.searchsorted(edges, probability, side="left"), return_inverse=True)[1]
