"""Whether probabilities mean what they say, and what two or one more parameters would mend.

Out-of-fold probabilities come from several fits, so that this judges the way of fitting rather than
one model. Probabilities are kept 1e-6 from 0 and 1 before a logarithm.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from scipy.stats import chi2, norm, rankdata

from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.bootstrap import bca, case_weights, leave_one_out
from mil.evaluation.classification.metrics import brier, predicted
from mil.evaluation.intervals import Estimate, exact
from mil.evaluation.predictions import CaseScores

NEAREST = 1e-6  # to 0 and 1
RESAMPLES, SIMULATED, SEED = 2000, 1000, 0
SPAN = 0.75  # share of the cases that a point of the smoothed curve looks at
STEPS = 30
COLDEST, HOTTEST = -3.0, 3.0  # logarithms of temperatures tried
Mending = Callable[[CaseScores], tuple[Floats, tuple[float, ...]]]
SEPARATED = Estimate(None, None, None, "none", "undefined: the cases are separated, or all alike")


@dataclass(frozen=True)
class Bin:
    """Cases of like probability: what was said, and k of n that came true, with exact limits."""

    said: float
    k: int
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class ClassCalibration:
    """One class against the rest; each number is a mean over repeats.

    Attributes:
        name: of the class.
        slope: of the truth on the logit of the probability; below 1, probabilities are too extreme.
        intercept: of the same with slope 1; above 0, the class is more frequent than said.
        ici: mean distance of the smoothed curve from the diagonal (Austin & Steyerberg 2019,
            doi:10.1002/sim.8281); e50 and e90 are its median and 90 % quantile.
        p_hosmer_lemeshow: of the first repeat, for comparison with what others print; means little below 100
            cases.
    """

    name: str
    slope: Estimate
    intercept: Estimate
    ici: float
    e50: float
    e90: float
    p_hosmer_lemeshow: float | None


@dataclass(frozen=True)
class Recalibrated:
    """What a mending learnt on the other folds does to the scores of each.

    Attributes:
        parameter: mean temperature over folds; None for Platt's, which has two per class.
        brier: mean Brier score after it.
        log_loss: mean log loss after it.
        note: where the search for a temperature ended at its highest, in how many folds; else empty.
    """

    parameter: float | None
    brier: float
    log_loss: float
    note: str = ""


@dataclass(frozen=True)
class Calibration:
    """How far a model's probabilities can be believed.

    Attributes:
        brier: summed over classes, 0 to 2; for two classes twice the square that is often printed.
        scaled_brier: 1 is perfect, 0 no better than always saying the cohort's shares.
        log_loss: mean of -log of the true class's probability.
        ece: expected calibration error of the called class, bins of about equal size.
        ece_expected: what it would be by chance alone were calibration perfect.
        p_ece: how often, were it perfect, it would be as large or larger.
        curve: reliability of the called class in the first repeat.
        per_class: each class against the rest.
        temperature: learnt on other folds; None where there is one fold.
        platt: likewise.
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
        """The fields as plain values."""
        told = asdict(self)
        return told | {name: list(told[name]) for name in ("curve", "per_class")}


def calibrate(repeats: Sequence[CaseScores], classes: Sequence[str]) -> Calibration:
    """Judge the probabilities of one model.

    Args:
        repeats: of the model over the same cases.
        classes: names, in the order of the probabilities.
    """
    truth, p = repeats[0].truth, [each.p for each in repeats]
    losses = np.mean([brier(truth, each) for each in p], axis=0)
    share = np.bincount(truth, minlength=len(classes)) / len(truth)
    reference = float(np.sum(share * (1 - share)))  # of always saying the cohort's shares
    score = _mean_of_cases(losses, truth)
    errors = np.array([calibration_error(truth, each) for each in p]).mean(axis=0)
    return Calibration(
        brier=score,
        scaled_brier=_scaled(score, reference),
        log_loss=float(np.mean([log_loss(truth, each) for each in p])),
        ece=float(errors[0]),
        ece_expected=float(errors[1]),
        p_ece=float(errors[2]),
        curve=reliability(p[0].max(axis=1), predicted(p[0]) == truth),
        per_class=tuple(_of_class(truth == k, p, k, name) for k, name in enumerate(classes)),
        temperature=_recalibrated(repeats, temperature_scaled),
        platt=_recalibrated(repeats, platt_scaled),
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
        (q,) coefficients and their standard errors; None where there is no maximum, as when the
        cases are separated.
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


def slope_and_intercept(
    positive: Bools, p: Floats
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Calibration slope, and intercept with slope 1, each with its standard error (Cox 1958).

    Args:
        positive: (n,) True for the class looked for.
        p: (n,) its probability.

    Returns:
        None where the cases are separated, or where all have the same probability.
    """
    line, one = _logits(p), np.ones((len(p), 1))
    y = positive.astype(np.float64)
    sloped = logistic(np.column_stack([one, line]), y) if np.ptp(line) > 1e-9 else None
    level = logistic(one, y, line)
    if sloped is None or level is None:
        return None
    return (float(sloped[0][1]), float(sloped[1][1])), (float(level[0][0]), float(level[1][0]))


def smoothed(x: Floats, y: Floats, span: float = SPAN) -> Floats:
    """Local linear regression at each x with tricube weights (Cleveland 1979), no robust steps.

    Args:
        x: (n,) places.
        y: (n,) values.
        span: share of the cases that each place looks at.

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
    """Chi-squared over groups of like probability (Hosmer & Lemeshow 1980), and its p value.

    Cases of one probability stay together, and groups are counted from the middle outwards, so that the
    other class's probabilities give the same; what lies on the very middle of an even number is a group more.

    Args:
        positive: (n,) True for the class looked for.
        p: (n,) its probability.
        groups: as equal in size as can be.
        development: whether the model was fitted on these cases: two degrees of freedom fewer.
    """
    n_cases = len(p)
    # Midranks from the middle, in groups: whole numbers in 2 n_cases, so that both ends round alike.
    away = groups * (2 * rankdata(np.round(p, 12)) - 1 - n_cases) / (2 * n_cases)
    place = np.sign(away) * np.floor(np.abs(away) + (0.5 if groups % 2 else 1.0))
    total, found = 0.0, np.unique(place)
    for each in found:
        own = place == each
        n, expected = int(own.sum()), float(np.clip(p[own], NEAREST, 1 - NEAREST).sum())
        total += (float(positive[own].sum()) - expected) ** 2 / (expected * (1 - expected / n))
    return total, float(chi2.sf(total, len(found) - 2 * development))


def calibration_error(truth: Ints, p: Floats) -> tuple[float, float, float]:
    """Expected calibration error of the called class, beside what chance alone makes of it.

    With few cases it is far from 0 though calibration be perfect: its expectation then, and how
    often it would be as large, come from labels drawn by the probabilities themselves.

    Args:
        truth: (n,) class indices.
        p: (n, C) probabilities.

    Returns:
        The error, its expectation were calibration perfect, and the p value.
    """
    said, right = p.max(axis=1), predicted(p) == truth
    place = _bins(said)
    member = np.eye(place.max() + 1)[place]  # (n, bins)
    drawn = np.random.default_rng(SEED).random((SIMULATED, len(said))) < said

    def error(right: Bools) -> Floats:
        return np.asarray(np.abs((right - said) @ member).sum(axis=-1) / len(said))

    observed, by_chance = float(error(right)), error(drawn)
    p_value = (1 + np.sum(by_chance >= observed - 1e-12)) / (1 + SIMULATED)
    return observed, float(by_chance.mean()), float(p_value)


def reliability(said: Floats, right: Bools) -> tuple[Bin, ...]:
    """Bins of about equal size, equal probabilities together, with Clopper-Pearson limits.

    Args:
        said: (n,) probabilities.
        right: (n,) whether what they were given to came true.
    """
    place = _bins(said)
    found = []
    for each in np.unique(place):
        own = place == each
        k, n = int(right[own].sum()), int(own.sum())
        limits = exact(k, n)
        found.append(Bin(float(said[own].mean()), k, n, limits.low, limits.high))
    return tuple(found)


def temperature(truth: Ints, p: Floats) -> float:
    """The temperature that makes these probabilities most likely (Guo et al. 2017, arXiv:1706.04599)."""
    scores = np.log(np.maximum(p, NEAREST))

    def loss(log_t: float) -> float:
        return log_loss(truth, softmax(scores / np.exp(log_t), axis=1))

    return float(np.exp(minimize_scalar(loss, bounds=(COLDEST, HOTTEST), method="bounded").x))


def temperature_scaled(scores: CaseScores) -> tuple[Floats, tuple[float, ...]]:
    """(n, C) probabilities, each fold's tempered by what the other folds say; and the folds' temperatures."""
    found, temperatures = np.empty_like(scores.p), list[float]()
    for own in _folds(scores):
        temperatures.append(temperature(scores.truth[~own], scores.p[~own]))
        line = np.log(np.maximum(scores.p[own], NEAREST)) / temperatures[-1]
        found[own] = softmax(line, axis=1)
    return found, tuple(temperatures)


def platt_scaled(scores: CaseScores) -> tuple[Floats, tuple[float, ...]]:
    """(n, C) probabilities, each class's logit mended by a line learnt on the other folds.

    Platt 1999, with his targets just inside 0 and 1, which keep separated cases finite. More than
    two classes are mended one against the rest and scaled to sum to 1.
    """
    found = np.empty_like(scores.p)
    asked = [1] if found.shape[1] == 2 else list(range(found.shape[1]))
    for own in _folds(scores):
        for k in asked:
            a, b = platt(scores.truth[~own] == k, scores.p[~own, k])
            found[own, k] = expit(a * _logits(scores.p[own, k]) + b)
    if len(asked) == 1:
        found[:, 0] = 1 - found[:, 1]
    return found / found.sum(axis=1, keepdims=True), ()


def platt(positive: Bools, p: Floats) -> tuple[float, float]:
    """Slope and intercept of Platt's line on the logit; 1 and 0 where it has no slope."""
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    fitted = logistic(np.column_stack([_logits(p), np.ones(len(p))]), target)
    return (1.0, 0.0) if fitted is None else (float(fitted[0][0]), float(fitted[0][1]))


def _of_class(positive: Bools, p: Sequence[Floats], index: int, name: str) -> ClassCalibration:
    fits = [slope_and_intercept(positive, each[:, index]) for each in p]
    known = [each for each in fits if each is not None]
    whole = len(known) == len(fits)
    away = np.concatenate(
        [np.abs(smoothed(each[:, index], positive.astype(float)) - each[:, index]) for each in p]
    )
    groups = min(10, len(positive) // 5)
    return ClassCalibration(
        name=name,
        slope=_normal([slope for slope, _ in known]) if whole else SEPARATED,
        intercept=_normal([level for _, level in known]) if whole else SEPARATED,
        ici=float(away.mean()),
        e50=float(np.quantile(away, 0.5)),
        e90=float(np.quantile(away, 0.9)),
        p_hosmer_lemeshow=hosmer_lemeshow(positive, p[0][:, index], groups)[1]
        if groups > 2
        else None,
    )


def _normal(found: Sequence[tuple[float, float]]) -> Estimate:
    """Mean over repeats, with the mean standard error: repeats are never more cases."""
    value, error = np.mean(found, axis=0)
    half = float(norm.ppf(0.975)) * error
    return Estimate(float(value), float(value - half), float(value + half), "Wald")


def _mean_of_cases(losses: Floats, truth: Ints) -> Estimate:
    n = len(truth)
    replicates = case_weights(truth, RESAMPLES, SEED) @ losses / n
    left_out = leave_one_out(n) @ losses / max(n - 1, 1)
    value = float(losses.mean())
    found = bca(value, replicates, left_out, truth)
    if found is None:
        note = "no interval: every resample of these cases gives the same"
        return Estimate(value, None, None, "none", note)
    return Estimate(value, found.low, found.high, found.method)


def _scaled(score: Estimate, reference: float) -> Estimate:
    if reference == 0 or score.value is None:
        return Estimate(None, None, None, "none", "undefined: one class only")
    low, high = (None if each is None else 1 - each / reference for each in (score.high, score.low))
    return Estimate(1 - score.value / reference, low, high, score.method, score.note)


def _bins(said: Floats) -> Ints:
    """(n,) the bin of each case: 2 to 10, about five cases or more in each."""
    count = int(np.clip(len(said) // 5, 2, 10))
    edges = np.unique(np.quantile(said, np.arange(1, count) / count, method="lower"))
    return np.unique(np.searchsorted(edges, said, side="left"), return_inverse=True)[1]


def _logits(p: Floats) -> Floats:
    return np.asarray(logit(np.clip(p, NEAREST, 1 - NEAREST)))


def _folds(scores: CaseScores) -> list[Bools]:
    return [scores.fold == each for each in np.unique(scores.fold)]


def _recalibrated(repeats: Sequence[CaseScores], mend: Mending) -> Recalibrated | None:
    if any(len(np.unique(each.fold)) < 2 for each in repeats):
        return None
    mended = [mend(each) for each in repeats]
    parameters = [each for _, of_folds in mended for each in of_folds]
    truth = repeats[0].truth
    return Recalibrated(
        parameter=float(np.mean(parameters)) if parameters else None,
        brier=float(np.mean([brier(truth, p).mean() for p, _ in mended])),
        log_loss=float(np.mean([log_loss(truth, p) for p, _ in mended])),
        note=_at_the_bound(parameters),
    )


def _at_the_bound(temperatures: Sequence[float]) -> str:
    hottest = 0.999 * float(np.exp(HOTTEST))
    n_hottest = sum(each > hottest for each in temperatures)
    if n_hottest == 0:
        return ""
    where = f" in {n_hottest} of {len(temperatures)} folds" * (n_hottest < len(temperatures))
    return f"at the bound of the search{where}: the scores carry nothing{' there' * bool(where)}"
