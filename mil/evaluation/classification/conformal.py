"""Conformal prediction: sets of classes that contain the true one at a stated rate, class by class.

A case's score is 1 minus its probability of a class. A class stays in the set while more than
1 - coverage of that class's other cases score as high or higher (Vovk et al. 2005; class by class:
Vovk 2012, arXiv:1209.2673). The out-of-fold scores of a class's cases are exchangeable, so
the coverage holds for each class whatever the model. Scores are means over repeats.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mil.distributions import beta
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.classification.per_class import Proportion, proportion
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.intervals import Interval


@dataclass(frozen=True)
class ClassSets:
    """Coverage that the cases of one class can carry.

    Attributes:
        name: name of the class.
        n: cases of the class.
        feasible: whether they can carry the coverage without the class being in every set.
        threshold: probability at which the class enters a new case's set; 0 where not feasible.
        future_low: coverage of new cases is above this in 97.5 % of cohorts of this size.
        future_high: coverage of new cases is below this in 97.5 % of cohorts of this size.
    """

    name: str
    n: int
    feasible: bool
    threshold: float
    future_low: float
    future_high: float


@dataclass(frozen=True)
class ConformalResult:
    """Prediction sets of one model.

    Attributes:
        coverage: nominal coverage of each class.
        cases_needed: cases that a class needs to carry it.
        per_class: one entry per class.
        mean_size: mean number of classes in a set.
        sizes: number of cases by the size of their set, from 0 to C.
        answered: cases whose set is one class; a human decides the others.
        right: answered cases whose class is the true one.
        covered: cases whose set contains the true class; fixed by the number of cases.
    """

    coverage: float
    cases_needed: int
    per_class: tuple[ClassSets, ...]
    mean_size: float
    sizes: tuple[int, ...]
    answered: Proportion
    right: Proportion
    covered: Proportion

    def __str__(self) -> str:
        short = [f"{sets.name} has {sets.n}" for sets in self.per_class if not sets.feasible]
        needs = (
            f"The promise is made for each class apart: {100 * self.coverage:.0f} % needs "
            f"{self.cases_needed} calibration cases per class"
        )
        if short:
            return f"{needs}; {', '.join(short)}: every set holds it."
        return f"{needs}, and there are enough."

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; the feasibility also as a sentence."""
        fields = asdict(self)
        return fields | {
            "per_class": list(fields["per_class"]),
            "sizes": list(self.sizes),
            "says": str(self),
        }


def conformal(
    repeats: Sequence[CaseScores], classes: Sequence[str], coverage: float = 0.9
) -> ConformalResult:
    """The prediction set of every case, calibrated on the other cases alone.

    Args:
        repeats: predictions of one model for the same cases; their probabilities are averaged.
        classes: names, in the order of the probabilities.
        coverage: nominal share of each class's cases whose set contains it.
    """
    truth, p = repeats[0].truth, np.mean([scores.p for scores in repeats], axis=0)
    sets = prediction_sets(truth, p, coverage)
    size = sets.sum(axis=1)
    alone = size == 1
    n, answered = len(truth), int(alone.sum())
    hits = int(np.sum(alone & sets[np.arange(n), truth]))
    return ConformalResult(
        coverage=coverage,
        cases_needed=cases_needed(coverage),
        per_class=tuple(
            _class_sets(p[truth == k, k], name, coverage) for k, name in enumerate(classes)
        ),
        mean_size=float(size.mean()),
        sizes=tuple(int(count) for count in np.bincount(size, minlength=len(classes) + 1)),
        answered=proportion(answered, n, "no case"),
        right=proportion(hits, answered, "no case is answered"),
        covered=proportion(int(sets[np.arange(n), truth].sum()), n, "no case"),
    )


def cases_needed(coverage: float) -> int:
    """Fewest calibration cases of a class that can carry the coverage: 9 for 90 %, 19 for 95 %."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def prediction_sets(truth: Ints, p: Floats, coverage: float) -> Bools:
    """Whether each class is in the set of each case, (n, C); a case does not calibrate its own set.

    Args:
        truth: (n,) class indices.
        p: (n, C) out-of-fold probabilities.
        coverage: nominal coverage of each class.
    """
    sets = np.empty(p.shape, dtype=bool)
    for k in range(p.shape[1]):
        members = truth == k
        # Cases of the class that are no more probable than this one, without the case itself.
        stranger = (p[members, k] <= p[:, [k]]).sum(axis=1) - members
        n_others = members.sum() - members
        sets[:, k] = (stranger + 1) / (n_others + 1) > 1 - coverage + 1e-9
    return sets


def threshold(p: Floats, coverage: float) -> float:
    """The lowest probability at which a class enters the set of a new case.

    Args:
        p: (n,) out-of-fold probabilities of the class for its own cases.
        coverage: nominal coverage of the class.

    Returns:
        The probability; 0 where there are too few cases, so that every set contains the class.
    """
    rank = math.floor((len(p) + 1) * (1 - coverage) + 1e-9)
    return float(np.sort(p)[rank - 1]) if rank >= 1 else 0.0


def future_coverage(n: int, coverage: float, confidence: float = 0.95) -> Interval:
    """Interval of the coverage of new cases, over the choice of the n calibration cases.

    It follows Beta(n + 1 - l, l) with l = floor((n + 1)(1 - coverage)) (Vovk 2012, proposition 2).
    """
    left_out = math.floor((n + 1) * (1 - coverage) + 1e-9)
    if left_out < 1:
        return Interval(1.0, 1.0, "every set holds the class")
    tail, shape = (1 - confidence) / 2, (n + 1 - left_out, left_out)
    return Interval(float(beta.ppf(tail, *shape)), float(beta.isf(tail, *shape)), "Beta")


def _class_sets(p: Floats, name: str, coverage: float) -> ClassSets:
    future = future_coverage(len(p), coverage)
    feasible = len(p) >= cases_needed(coverage)
    return ClassSets(name, len(p), feasible, threshold(p, coverage), future.low, future.high)
