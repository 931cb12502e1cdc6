"""Decision curves: the net benefit of acting on a model's probabilities, beside treating all or none.

A. Vickers, E. Elkin, Decision curve analysis, Med Decis Making 2006, 26:565; for survival A. Vickers et al.,
BMC Med Inform Decis Mak 2008, 8:53. A threshold is the lowest probability at which one would act. Acting
from t on means that a missed case is judged (1 - t) / t times as bad as a needless treatment. Clinicians
choose the sensible range of thresholds before they see the curve.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from features.files.tables import write_table
from mil.errors import PredictionsError
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.predictions import Predictions
from mil.evaluation.survival.metrics import survival_until
from mil.evaluation.survival.predictions import RiskPredictions

TREAT_ALL, TREAT_NONE = "treat all", "treat none"
DRAWS = 1000

# From indices of cases (with repetition) and their probabilities to net benefits (T,).
Benefit = Callable[[Ints, Floats], Floats]


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit per case, in true positives.

    Attributes:
        name: of the model, or ``treat all`` or ``treat none``.
        threshold: (T,) probabilities.
        benefit: (T,) net benefit.
        low: (T,) lower limit of a pointwise 95 % bootstrap band; all curves share the resampled cases.
        high: (T,) upper limit.
    """

    name: str
    threshold: Floats
    benefit: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Decision:
    """Decision curves of one outcome to act on.

    Attributes:
        title: the outcome in words.
        curves: one per model, then those of treating all and none.
    """

    title: str
    curves: tuple[DecisionCurve, ...]

    def of(self, name: str) -> DecisionCurve:
        """The curve of a model, of treating all or of treating none."""
        return next(curve for curve in self.curves if curve.name == name)

    @property
    def models(self) -> tuple[DecisionCurve, ...]:
        """The curves of the models."""
        return tuple(c for c in self.curves if c.name not in (TREAT_ALL, TREAT_NONE))


def net_benefit(positive: Bools, p: Floats, thresholds: Floats) -> Floats:
    """Net benefit (T,): share of true positives less the share of false ones times the threshold's odds.

    Args:
        positive: (n,) True for the class that one would act on.
        p: (n,) its probability; one acts where it reaches the threshold.
        thresholds: (T,) in (0, 1).
    """
    acts = p[:, None] >= thresholds
    odds = thresholds / (1 - thresholds)
    benefit: Floats = np.where(positive[:, None], acts, -odds * acts).mean(axis=0)
    return benefit


def survival_net_benefit(
    time: Floats, event: Bools, p: Floats, horizon: float, thresholds: Floats
) -> Floats:
    """Net benefit (T,) for events before a horizon; their share among treated cases is by Kaplan-Meier.

    Args:
        time: (n,).
        event: (n,).
        p: (n,) probability of the event until the horizon.
        horizon: in the unit of ``time``.
        thresholds: (T,) in (0, 1).
    """
    benefit = np.zeros(len(thresholds))
    # By number of treated cases: a higher threshold treats a subset, so equal numbers are equal cases.
    met: dict[int, float] = {}
    treated = p >= thresholds[:, None]
    for place, (t, acts, count) in enumerate(
        zip(thresholds, treated, treated.sum(axis=1).tolist(), strict=True)
    ):
        if not count:
            continue
        if count not in met:
            met[count] = 1 - survival_until(time[acts], event[acts], horizon)
        benefit[place] = count / len(p) * (met[count] - (1 - met[count]) * t / (1 - t))
    return benefit


def decide(
    predictions: Predictions,
    thresholds: Floats,
    *,
    positive: str | None = None,
    horizon: float | None = None,
    seed: int = 0,
) -> Decision:
    """Decision curves of all models of a table of any kind.

    Args:
        predictions: out of fold.
        thresholds: (T,) in (0, 1).
        positive: the class to act on, or the lowest grade to act on; the second of two if not given.
        horizon: of survival, the time until which an event counts; the middle one if not given.
        seed: of the resampled cases.

    Raises:
        PredictionsError: no such class or grade, none named of more than two, a threshold outside (0, 1), or
            a setting of another kind of predictions.
    """
    module, _, name = predictions.decider.partition(":")
    decision: Decision = getattr(import_module(module), name)(
        predictions, thresholds, positive, horizon, seed
    )
    return decision


def decide_class(
    predictions: ClassPredictions,
    thresholds: Floats,
    positive: str | None,
    horizon: float | None,
    seed: int,
) -> Decision:
    """Acting on one class against the rest; see ``decide``."""
    _refuse_horizon(horizon)
    chosen = _choose(positive, predictions.classes, "class")
    curves = decision_curves(predictions, chosen, thresholds, seed=seed)
    return Decision(f"{chosen} against the rest", curves)


def decide_grade(
    predictions: GradePredictions,
    thresholds: Floats,
    positive: str | None,
    horizon: float | None,
    seed: int,
) -> Decision:
    """Acting on cases of a grade or a higher one; see ``decide``."""
    _refuse_horizon(horizon)
    chosen = _choose(positive, predictions.grades, "grade")
    place = predictions.grades.index(chosen)
    if not place:
        raise PredictionsError(
            f"Every case has grade {chosen}, the lowest, or a higher one. Choose a higher grade."
        )
    scores = {
        m: [predictions.case_scores(m, r) for r in predictions.repeats] for m in predictions.models
    }
    truth = scores[predictions.models[0]][0].truth >= place
    probabilities = {
        m: np.mean([repeat.p[:, place:].sum(axis=1) for repeat in repeats], axis=0)
        for m, repeats in scores.items()
    }
    curves = _curves(
        probabilities, thresholds, lambda at, p: net_benefit(truth[at], p, thresholds), seed
    )
    last = place == len(predictions.grades) - 1
    return Decision(f"grade {chosen}{'' if last else ' or higher'}", curves)


def decide_survival(
    predictions: RiskPredictions,
    thresholds: Floats,
    positive: str | None,
    horizon: float | None,
    seed: int,
) -> Decision:
    """Acting on the event until a time; see ``decide``."""
    if positive is not None:
        raise PredictionsError(
            f"positive={positive} names a class; the predictions hold {predictions.answers}. Leave it out."
        )
    times = predictions.horizons
    at = float(times[(len(times) - 1) // 2]) if horizon is None else horizon
    curves = survival_decision_curves(predictions, at, thresholds, seed=seed)
    return Decision(f"event until {at:.6g} {predictions.unit}", curves)


def decision_curves(
    predictions: ClassPredictions, positive: str, thresholds: Floats, *, seed: int = 0
) -> tuple[DecisionCurve, ...]:
    """Each model's curve for one class against the rest, with treat-all and treat-none.

    A case's probability is its mean over slides and repeats.

    Raises:
        PredictionsError: no such class, or a threshold outside (0, 1).
    """
    if positive not in predictions.classes:
        known = ", ".join(predictions.classes)
        raise PredictionsError(f"No class {positive!r} among the predictions. Name one of {known}.")
    place = predictions.classes.index(positive)
    scores = {
        m: [predictions.case_scores(m, r) for r in predictions.repeats] for m in predictions.models
    }
    truth = scores[predictions.models[0]][0].truth == place
    probabilities = {
        m: np.mean([repeat.p[:, place] for repeat in repeats], axis=0)
        for m, repeats in scores.items()
    }
    return _curves(
        probabilities, thresholds, lambda at, p: net_benefit(truth[at], p, thresholds), seed
    )


def survival_decision_curves(
    predictions: RiskPredictions, horizon: float, thresholds: Floats, *, seed: int = 0
) -> tuple[DecisionCurve, ...]:
    """Each model's curve for the event until ``horizon``, by survival interpolated between predicted times.

    Raises:
        PredictionsError: a threshold outside (0, 1), or a horizon after the last predicted time.
    """
    risks = {m: predictions.mean_risks(m) for m in predictions.models}
    first = risks[predictions.models[0]]
    probabilities = {m: 1 - predictions.survival_at(horizon, one) for m, one in risks.items()}

    def benefit(at: Ints, p: Floats) -> Floats:
        return survival_net_benefit(first.time[at], first.event[at], p, horizon, thresholds)

    return _curves(probabilities, thresholds, benefit, seed)


def write_curves(path: Path, curves: Sequence[DecisionCurve]) -> None:
    """One row per curve and threshold."""
    rows = [
        [curve.name, *(f"{value:.6g}" for value in row)]
        for curve in curves
        for row in zip(curve.threshold, curve.benefit, curve.low, curve.high, strict=True)
    ]
    write_table(path, ["curve", "threshold", "net_benefit", "low", "high"], rows)


def _choose(positive: str | None, names: Sequence[str], kind: str) -> str:
    """The class or grade to act on."""
    if positive is None and len(names) > 2:
        several, one = ("grades", "lowest grade") if kind == "grade" else ("classes", kind)
        raise PredictionsError(
            f"The predictions have {len(names)} {several} ({', '.join(names)}). Set positive to the {one} "
            "that would be treated."
        )
    if positive is not None and positive not in names:
        raise PredictionsError(
            f"No {kind} {positive!r} among the predictions. Name one of {', '.join(names)}."
        )
    return names[1] if positive is None else positive


def _refuse_horizon(horizon: float | None) -> None:
    if horizon is not None:
        raise PredictionsError(
            "horizon is a time until an event; these predictions hold none. Leave it out."
        )


def _curves(
    probabilities: Mapping[str, Floats], thresholds: Floats, benefit: Benefit, seed: int
) -> tuple[DecisionCurve, ...]:
    if not ((thresholds > 0) & (thresholds < 1)).all():
        raise PredictionsError(
            "A threshold is a probability above 0 and below 1. Use 0.05 to 0.5, for example."
        )
    n = len(next(iter(probabilities.values())))
    probabilities = {**probabilities, TREAT_ALL: np.ones(n)}
    rng, every = np.random.default_rng(seed), np.arange(n)
    drawn = [rng.integers(0, n, n) for _ in range(DRAWS)]
    curves = []
    for name, p in probabilities.items():
        spread = np.stack([benefit(at, p[at]) for at in drawn])
        low, high = np.quantile(spread, [0.025, 0.975], axis=0)
        curves.append(DecisionCurve(name, thresholds, benefit(every, p), low, high))
    nothing = np.zeros(len(thresholds))
    return (*curves, DecisionCurve(TREAT_NONE, thresholds, nothing, nothing, nothing))
