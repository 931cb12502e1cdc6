"""Sets of classes that hold the true one as often as promised, class by class; and when to abstain.

A case's score is 1 minus its probability of a class. A class stays in the set while more than a share
of 1 - coverage of that class's other cases is as strange or stranger (Vovk et al. 2005; class by class:
Vovk 2012, arXiv:1209.2673). The out-of-fold scores of a class's cases are exchangeable, so that the
promise holds for each class whatever the model. Scores are means over repeats.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import beta

from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.classification.per_class import Proportion, proportion
from mil.evaluation.intervals import Interval
from mil.evaluation.predictions import CaseScores


@dataclass(frozen=True)
class ClassSets:
    """What one class's cases allow to promise.

    Attributes:
        name: of the class.
        n: its cases.
        feasible: whether they can carry the coverage without every set holding the class.
        threshold: probability from which a new case's set holds the class; 0 where not feasible.
        future_low: coverage of new cases is above this in 97.5 % of cohorts of this size.
        future_high: and below this in as many.
    """

    name: str
    n: int
    feasible: bool
    threshold: float
    future_low: float
    future_high: float


@dataclass(frozen=True)
class ConformalResult:
    """Sets of one model.

    Attributes:
        coverage: promised, of each class.
        cases_needed: of each class, for it to be feasible.
        per_class: what each class's cases allow.
        mean_size: classes in a case's set, on average.
        sizes: cases by the size of their set, from 0 to C.
        answered: cases whose set is one class; the others are for a human to decide.
        right: of the answered, those whose class it is.
        covered: of all cases, those whose set holds the true class; fixed by the number of cases.
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
        short = [f"{each.name} has {each.n}" for each in self.per_class if not each.feasible]
        needs = f"{100 * self.coverage:.0f} % needs {self.cases_needed} calibration cases per class"
        if short:
            return f"{needs}; {', '.join(short)}: every set holds it."
        return f"{needs}: there are enough."

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; the feasibility also as a sentence."""
        told = asdict(self)
        return told | {
            "per_class": list(told["per_class"]),
            "sizes": list(self.sizes),
            "says": str(self),
        }


def conformal(
    repeats: Sequence[CaseScores], classes: Sequence[str], coverage: float = 0.9
) -> ConformalResult:
    """Sets of every case, each judged by the other cases alone.

    Args:
        repeats: of one model over the same cases; their probabilities are averaged.
        classes: names, in the order of the probabilities.
        coverage: share of each class's cases whose set shall hold it.
    """
    truth, p = repeats[0].truth, np.mean([each.p for each in repeats], axis=0)
    sets = prediction_sets(truth, p, coverage)
    size = sets.sum(axis=1)
    alone = size == 1
    n, answered = len(truth), int(alone.sum())
    hits = int(np.sum(alone & sets[np.arange(n), truth]))
    return ConformalResult(
        coverage=coverage,
        cases_needed=cases_needed(coverage),
        per_class=tuple(
            _of_class(p[truth == k, k], name, coverage) for k, name in enumerate(classes)
        ),
        mean_size=float(size.mean()),
        sizes=tuple(int(each) for each in np.bincount(size, minlength=len(classes) + 1)),
        answered=proportion(answered, n, "no case"),
        right=proportion(hits, answered, "no case is answered"),
        covered=proportion(int(sets[np.arange(n), truth].sum()), n, "no case"),
    )


def cases_needed(coverage: float) -> int:
    """Fewest calibration cases of a class that can carry the coverage: 9 for 90 %, 19 for 95 %."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def prediction_sets(truth: Ints, p: Floats, coverage: float) -> Bools:
    """(n, C) whether each class is in each case's set; a case is never its own yardstick.

    Args:
        truth: (n,) class indices.
        p: (n, C) out-of-fold probabilities.
        coverage: of each class.
    """
    found = np.empty(p.shape, dtype=bool)
    for k in range(p.shape[1]):
        own = truth == k
        # Cases of the class no more probable than this one, which itself is not among them.
        stranger = (p[own, k] <= p[:, [k]]).sum(axis=1) - own
        others = own.sum() - own
        found[:, k] = (stranger + 1) / (others + 1) > 1 - coverage + 1e-9
    return found


def threshold(p: Floats, coverage: float) -> float:
    """The least probability of a class with which a new case's set holds it.

    Args:
        p: (n,) out-of-fold probabilities of the class, of its own cases.
        coverage: of the class.

    Returns:
        0 where the cases are too few: every set holds the class.
    """
    rank = math.floor((len(p) + 1) * (1 - coverage) + 1e-9)
    return float(np.sort(p)[rank - 1]) if rank >= 1 else 0.0


def future_coverage(n: int, coverage: float, confidence: float = 0.95) -> Interval:
    """Where the coverage of new cases lies, by the chance of which n cases calibrated.

    It follows Beta(n + 1 - l, l) with l = floor((n + 1)(1 - coverage)) (Vovk 2012, proposition 2).
    """
    left_out = math.floor((n + 1) * (1 - coverage) + 1e-9)
    if left_out < 1:
        return Interval(1.0, 1.0, "every set holds the class")
    tail, held = (1 - confidence) / 2, beta(n + 1 - left_out, left_out)
    return Interval(float(held.ppf(tail)), float(held.isf(tail)), "Beta")


def _of_class(p: Floats, name: str, coverage: float) -> ClassSets:
    future = future_coverage(len(p), coverage)
    feasible = len(p) >= cases_needed(coverage)
    return ClassSets(name, len(p), feasible, threshold(p, coverage), future.low, future.high)
