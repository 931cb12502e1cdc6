"""Decision curves: what acting on a model's probabilities is worth, against treating all or none.

A. Vickers, E. Elkin, Decision curve analysis, Med Decis Making 2006, 26:565; for survival A. Vickers et al.,
BMC Med Inform Decis Mak 2008, 8:53. A threshold is the probability from which one would act: who acts from
t on holds a missed case for (1 - t) / t times as bad as a needless treatment. Which thresholds are
sensible is for clinicians to say, before the curve is seen.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.files.atomic import atomic_path
from mil.errors import RunError
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.predictions import Predictions
from mil.evaluation.survival.metrics import kaplan_meier
from mil.evaluation.survival.predictions import SurvivalPredictions

TREAT_ALL, TREAT_NONE = "treat all", "treat none"
DRAWS = 1000

Benefit = Callable[
    [Ints, Floats], Floats
]  # of these cases (with repetition), by these probabilities


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit per case, in true positives.

    Attributes:
        name: of the model, or ``treat all`` or ``treat none``.
        threshold: (T,)
        benefit: (T,)
        low: (T,) pointwise 95 % band from cases drawn with repetition, the same for all curves.
        high: (T,)
    """

    name: str
    threshold: Floats
    benefit: Floats
    low: Floats
    high: Floats


def net_benefit(positive: Bools, p: Floats, thresholds: Floats) -> Floats:
    """(T,) share of true positives less that of false ones at the odds of each threshold.

    Args:
        positive: (n,) True for the class that one would act on.
        p: (n,) its probability; from the threshold on one acts.
        thresholds: (T,) in (0, 1).
    """
    acts = p[:, None] >= thresholds
    odds = thresholds / (1 - thresholds)
    found: Floats = np.where(positive[:, None], acts, -odds * acts).mean(axis=0)
    return found


def survival_net_benefit(
    time: Floats, event: Bools, p: Floats, horizon: float, thresholds: Floats
) -> Floats:
    """(T,) the same for events until a horizon, their share among those acted on by Kaplan-Meier.

    Args:
        time: (n,).
        event: (n,).
        p: (n,) probability of the event until the horizon.
        horizon: in the unit of time.
        thresholds: (T,) in (0, 1).
    """
    found = np.zeros(len(thresholds))
    met: dict[
        int, float
    ] = {}  # by how many are acted on: a higher threshold acts on some of the same
    for place, t in enumerate(thresholds):
        acts = p >= t
        count = int(acts.sum())
        if not count:
            continue
        if count not in met:
            curve = kaplan_meier(time[acts], event[acts])
            met[count] = 1 - float(curve.at(np.array([horizon]))[0])
        found[place] = count / len(p) * (met[count] - (1 - met[count]) * t / (1 - t))
    return found


def decision_curves(
    predictions: Predictions, positive: str, thresholds: Floats, *, seed: int = 0
) -> tuple[DecisionCurve, ...]:
    """Each model's curve for one class against the rest, with treat-all and treat-none.

    A case's probability is its mean over slides and repeats.

    Raises:
        RunError: there is no such class, or a threshold outside (0, 1).
    """
    if positive not in predictions.classes:
        known = ", ".join(predictions.classes)
        raise RunError(f"No class {positive!r} among the predictions. Name one of {known}.")
    place = predictions.classes.index(positive)
    scores = {
        m: [predictions.case_scores(m, r) for r in predictions.repeats] for m in predictions.models
    }
    truth = scores[predictions.models[0]][0].truth == place
    told = {m: np.mean([one.p[:, place] for one in each], axis=0) for m, each in scores.items()}
    return _curves(told, thresholds, lambda at, p: net_benefit(truth[at], p, thresholds), seed)


def survival_decision_curves(
    predictions: SurvivalPredictions, horizon: float, thresholds: Floats, *, seed: int = 0
) -> tuple[DecisionCurve, ...]:
    """Each model's curve for the event until the predicted horizon that is nearest to the one asked for.

    Raises:
        RunError: a threshold outside (0, 1).
    """
    place = nearest_horizon(predictions, horizon)
    held = {m: predictions.mean_risks(m) for m in predictions.models}
    first, at_time = held[predictions.models[0]], float(predictions.horizons[place])
    told = {m: 1 - one.survival[:, place] for m, one in held.items()}

    def benefit(at: Ints, p: Floats) -> Floats:
        return survival_net_benefit(first.time[at], first.event[at], p, at_time, thresholds)

    return _curves(told, thresholds, benefit, seed)


def nearest_horizon(predictions: SurvivalPredictions, horizon: float) -> int:
    """The place of the predicted time that is nearest."""
    return int(np.argmin(np.abs(predictions.horizons - horizon)))


def write_curves(path: Path, curves: Sequence[DecisionCurve]) -> None:
    """One row per curve and threshold."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["curve", "threshold", "net_benefit", "low", "high"])
        for curve in curves:
            for row in zip(curve.threshold, curve.benefit, curve.low, curve.high, strict=True):
                writer.writerow([curve.name, *(f"{value:.6g}" for value in row)])


def _curves(
    told: Mapping[str, Floats], thresholds: Floats, benefit: Benefit, seed: int
) -> tuple[DecisionCurve, ...]:
    if not ((thresholds > 0) & (thresholds < 1)).all():
        raise RunError("A threshold is a probability above 0 and below 1. Use 0.05 to 0.5.")
    n = len(next(iter(told.values())))
    told = {**told, TREAT_ALL: np.ones(n)}
    rng, every = np.random.default_rng(seed), np.arange(n)
    drawn = [rng.integers(0, n, n) for _ in range(DRAWS)]
    curves = []
    for name, p in told.items():
        spread = np.stack([benefit(at, p[at]) for at in drawn])
        low, high = np.quantile(spread, [0.025, 0.975], axis=0)
        curves.append(DecisionCurve(name, thresholds, benefit(every, p), low, high))
    nothing = np.zeros(len(thresholds))
    return (*curves, DecisionCurve(TREAT_NONE, thresholds, nothing, nothing, nothing))
