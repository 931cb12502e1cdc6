"""Answers that are classes or grades: probabilities, and the set that holds the true one at a stated rate.

A class stays in the set of a new case unless it is less probable there than nearly all known cases' own
classes were, each known case being compared by the fit that has not seen it (CV+: Barber et al. 2021,
doi:10.1214/20-AOS1965; Romano et al. 2020, arXiv:2006.02544). Sets at 90 % hold the true class of about 90 %
of new cases: ``benchmarks/prediction_sets.py`` measures it. What is proven for few folds is less (67 % for 20
cases in five folds, theorem 4 there), and nothing for the mean over repeats.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
from scipy.special import softmax

from mil.answers.reading import FitAnswer, Reader, Reading
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.classification.conformal import cases_needed
from mil.evaluation.classification.recalibration import NEAREST, temperature
from mil.evaluation.grade.predictions import GROUP
from mil.likeness.hidden import hidden

if TYPE_CHECKING:
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.predictions import Predictions
    from mil.learning.readout import Readout

COVERAGE = 0.9
SIMULATION = (  # benchmarks/results/2026-11-30-prediction-sets.json
    "In simulated cohorts of 20 and of 40 cases of four classes, such sets held the true class for 91 to "
    "94 % of new cases on average; in the worst 5 % of these cohorts, for 77 to 82 % or fewer. A single "
    "answer was left for 0 to 45 % of the cases, depending on how far the classes lie apart."
)
MAJORITY = 0.5  # of the probability, that decides a case where nothing is known out of fold


@dataclass(frozen=True, eq=False)
class KnownCases:
    """Predictions of one model out of fold.

    Attributes:
        names: fingerprints of n cases.
        truth: (n,) index of the true class.
        folds: (R, n) the fold that tested the case in each repeat.
        p: (R, n, C) probabilities.
    """

    names: tuple[str, ...]
    truth: Ints
    folds: Ints
    p: Floats


@dataclass(frozen=True, eq=False)
class ClassReader(Reader):
    """Reads probabilities of classes.

    Attributes:
        answer_names: columns of a fit's answer, one per class.
        classes: their names.
        known: predictions out of fold; None for a model without any.
    """

    ordered: ClassVar[bool] = False
    group: ClassVar[str] = "class"
    limit: ClassVar[str] = (
        "It answers among its classes. A disease it has never seen is called one of them, unless the "
        "slide looks unlike all it knows; then it abstains."
    )
    answer_names: tuple[str, ...]
    classes: tuple[str, ...]
    known: KnownCases | None

    @classmethod
    def of_run(cls, readout: "Readout", predictions: "Predictions | None", model: str) -> Self:
        """The reader of a run's model."""
        if predictions is None:
            return cls(readout.answer_names, readout.labels, None)
        table = cast("ClassPredictions", predictions)
        scores = [table.case_scores(model, repeat) for repeat in table.repeats]
        known = KnownCases(
            tuple(map(hidden, scores[0].case)),
            scores[0].truth,
            np.stack([score.fold for score in scores]),
            np.stack([score.p for score in scores]),
        )
        return cls(tuple(table.answer_columns), readout.labels, known)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The reader as ``to_json`` wrote it."""
        known = values["known"] and KnownCases(
            tuple(values["known"]["names"]),
            np.array(values["known"]["truth"], np.int64),
            np.array(values["known"]["folds"], np.int64),
            np.array(values["known"]["p"], np.float64),
        )
        return cls(tuple(values["answer_names"]), tuple(values["classes"]), known)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        known = self.known and {
            "names": list(self.known.names),
            "truth": self.known.truth.tolist(),
            "folds": self.known.folds.tolist(),
            "p": self.known.p.tolist(),
        }
        return {
            "answer_names": list(self.answer_names),
            "classes": list(self.classes),
            "known": known,
        }

    @property
    def n_cases(self) -> int:  # type: ignore[override]
        """Known cases."""
        return len(self.known.names) if self.known else 0

    @property
    def value_names(self) -> tuple[str, ...]:
        """One per class."""
        return self.answer_names

    @property
    def columns(self) -> tuple[str, ...]:
        """None: every fit answers all classes."""
        return ()

    @property
    def simulation(self) -> str:
        """What sets were worth in made cohorts."""
        return SIMULATION if self.known else ""

    @cached_property
    def record(self) -> str:
        """How often single answers of known cases were right, and how sure the fits were of them.

        How many sets hold the true class is not counted: a case is compared with the others' own scores, so
        that nine sets in ten do, whatever the fits are worth.
        """
        if self.known is None:
            return ""
        readings = [self._reread(number) for number in range(self.n_cases)]
        truth = [self.classes[k] for k in self.known.truth]
        singles = [len(reading.candidates) == 1 for reading in readings]
        sure = [max(reading.values.values()) for reading in readings]
        best = [self.classes[int(np.argmax(list(reading.values.values())))] for reading in readings]
        true = sum(map(str.__eq__, best, truth))
        right = sum(map(tuple.__eq__, [r.candidates for r in readings], [(t,) for t in truth]))
        n = self.n_cases
        return (
            f"Each of the {n} known cases, read as a new one by the fits that had not seen it: a single "
            f"answer for {sum(singles)}, right for {right} of them. The most probable one had a probability "
            f"of {np.mean(sure):.2f} on average, and was the true one for {true} ({true / n:.2f})."
        )

    def _reread(self, number: int) -> Reading:
        """The reading of a known case, against the others."""
        known = self.known
        assert known is not None
        answers = [
            FitAnswer(repeat, int(fold), dict(zip(self.answer_names, p.tolist(), strict=True)))
            for repeat, (fold, p) in enumerate(
                zip(known.folds[:, number], known.p[:, number], strict=True)
            )
        ]
        return self.read(answers, {known.names[number]})

    @cached_property
    def temperature(self) -> float:
        """By which logarithms of probabilities are divided; above 1 where the fits are too sure."""
        return self._temperature(())

    def _temperature(self, known: Collection[str]) -> float:
        """The temperature without some known cases."""
        if self.known is None:
            return 1.0
        others = np.array([name not in known for name in self.known.names])
        repeats = len(self.known.p)
        p = np.concatenate(self.known.p[:, others])
        return temperature(np.tile(self.known.truth[others], repeats), p)

    @property
    def by_class(self) -> bool:
        """Whether every class has cases enough for a promise of its own."""
        return self.known is not None and bool(
            np.bincount(self.known.truth, minlength=len(self.classes)).min()
            >= cases_needed(COVERAGE)
        )

    def read(self, answers: Sequence[FitAnswer], known: Collection[str] = ()) -> Reading:
        """Probabilities by the mean logarithm over fits, recalibrated; and the classes that stay possible."""
        p = np.array([[answer.values[name] for name in self.answer_names] for answer in answers])
        heat = self._temperature(known) if known else self.temperature
        mean = softmax(np.log(np.maximum(p, NEAREST)).mean(axis=0) / heat)
        possible = _most_probable(mean) if self.known is None else self._possible(answers, p, known)
        if self.ordered and possible.any():
            low, high = np.flatnonzero(possible)[[0, -1]]
            possible[low : high + 1] = True
        return Reading(
            values=dict(zip(self.answer_names, mean.tolist(), strict=True)),
            predicted=self._predicted(mean, possible),
            candidates=tuple(np.array(self.classes)[possible].tolist()),
        )

    def _predicted(self, p: Floats, possible: Bools) -> str:
        """The most probable possible class, or the possible grade next to the median; of all if none is."""
        among = np.flatnonzero(possible) if possible.any() else np.arange(len(p))
        if not self.ordered:
            return self.classes[int(among[p[among].argmax()])]
        median = int(np.searchsorted(p.cumsum(), 0.5))
        return self.classes[int(np.clip(median, among[0], among[-1]))]

    def _possible(
        self, answers: Sequence[FitAnswer], p: Floats, left_out: Collection[str]
    ) -> Bools:
        """(C,) whether each class stays in the set."""
        known = self.known
        assert known is not None
        by_fit = {(a.repeat, a.fold): row for a, row in zip(answers, p, strict=True)}
        of_repeat = {
            repeat: np.mean([row for key, row in by_fit.items() if key[0] == repeat], axis=0)
            for repeat in {key[0] for key in by_fit}
        }
        here = np.mean(
            [  # (n, C) by the fit that has not seen each known case
                [by_fit.get((repeat, fold), of_repeat[repeat]) for fold in folds]
                for repeat, folds in enumerate(known.folds.tolist())
                if repeat in of_repeat
            ],
            axis=0,
        )
        own = known.p.mean(axis=0)[np.arange(len(known.names)), known.truth]
        others = np.array([name not in left_out for name in known.names])
        possible = np.empty(len(self.classes), bool)
        for k in range(len(self.classes)):
            pool = others & (known.truth == k) if self.by_class else others
            less_sure = int((own[pool] <= here[pool, k] + 1e-12).sum())
            possible[k] = (less_sure + 1) / (pool.sum() + 1) > 1 - COVERAGE + 1e-9
        return possible

    def promise(self) -> str:
        """What the sets are worth."""
        if self.known is None:
            return (
                "This model was never tested on unseen cases, so its probabilities are uncalibrated: a case "
                f"is decided where one {self.group} has more than half. Predict with a cross-validation "
                "instead."
            )
        scope = (
            f"for each {self.group} apart"
            if self.by_class
            else f"over all cases together; for each {self.group} apart it needs "
            f"{cases_needed(COVERAGE)} known cases of each"
        )
        return (
            f"A set of possible answers holds the true one for about {COVERAGE:.0%} of new cases, if they "
            f"are like the {self.n_cases} known ones. This is promised {scope}."
        )


class GradeReader(ClassReader):
    """Reads probabilities of ordered grades: the median grade, and sets without gaps."""

    ordered = True
    group = GROUP
    limit = (
        "It answers among its grades, also for a disease that has no such grades, unless the slide "
        "looks unlike all it knows; then it abstains."
    )


def _most_probable(p: Floats) -> Bools:
    """(C,) the fewest classes that have more than half of the probability together."""
    order = np.argsort(-p, kind="stable")
    n = int(np.searchsorted(p[order].cumsum(), MAJORITY + 1e-9)) + 1
    chosen = np.zeros(len(p), bool)
    chosen[order[:n]] = True
    return chosen
