"""Answers that are risks: their rank among the known cases, and survival over time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from mil.answers.reading import FitAnswer, Reader, Reading
from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.intervals import wilson
from mil.likeness.hidden import hidden

if TYPE_CHECKING:
    from mil.evaluation.predictions import Predictions
    from mil.evaluation.survival.predictions import RiskPredictions
    from mil.learning.readout import Readout

HALVES = ("low risk", "high risk")


@dataclass(frozen=True, eq=False)
class KnownRisks:
    """Risks of one model out of fold.

    Attributes:
        names: fingerprints of n cases.
        folds: (R, n) the fold that tested the case in each repeat.
        risk: (R, n).
        orders: whether the 95 % interval of Harrell's C, out of fold, lies above one half.
        curve: columns of survival, ``s_<time>``.
    """

    names: tuple[str, ...]
    folds: Ints
    risk: Floats
    orders: bool
    curve: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RiskReader(Reader):
    """Reads risks; a risk is compared with those that the same fit gave to cases it had not seen.

    Attributes:
        known: risks out of fold; None for a model without any.
    """

    limit: ClassVar[str] = (
        "A risk orders patients: its rank is no probability, and no time. Survival at a time is an average "
        "over patients of such a risk. It answers for a disease it has never seen too, unless the slide "
        "looks unlike all it knows; then it abstains."
    )

    known: KnownRisks | None

    @classmethod
    def of_run(cls, readout: "Readout", predictions: "Predictions | None", model: str) -> Self:
        """The reader of a run's model."""
        del readout
        if predictions is None:
            return cls(None)
        table = cast("RiskPredictions", predictions)
        repeats = [table.case_risks(model, repeat) for repeat in table.repeats]
        folds, risk = (np.stack([getattr(r, name) for r in repeats]) for name in ("fold", "risk"))
        names = tuple(map(hidden, repeats[0].case))
        from mil.evaluation.judge import evaluate

        low = evaluate(table.select([model]))[model].metrics["harrell"].low
        orders = low is not None and low > 0.5
        return cls(KnownRisks(names, folds, risk, orders, tuple(table.curve_columns)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The reader as ``to_json`` wrote it."""
        known = values["known"] and KnownRisks(
            tuple(values["known"]["names"]),
            np.array(values["known"]["folds"], np.int64),
            np.array(values["known"]["risk"], np.float64),
            bool(values["known"]["orders"]),
            tuple(values["known"]["curve"]),
        )
        return cls(known)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        known = self.known and {
            "names": list(self.known.names),
            "folds": self.known.folds.tolist(),
            "risk": self.known.risk.tolist(),
            "orders": self.known.orders,
            "curve": list(self.known.curve),
        }
        return {"known": known}

    @property
    def n_cases(self) -> int:  # type: ignore[override]
        """Known cases."""
        return len(self.known.names) if self.known else 0

    @property
    def value_names(self) -> tuple[str, ...]:
        """The risk, its rank from 0 to 1, and survival at each time."""
        return ("risk", "rank", *self.columns) if self.known else ("risk",)

    @property
    def brief_names(self) -> tuple[str, ...]:
        """The risk, its rank, and survival at three times at most: the first, a middle one, the last."""
        times = self.columns
        few = dict.fromkeys((*times[:1], *times[len(times) // 2 :][:1], *times[-1:]))
        return tuple(name for name in self.value_names if name not in times or name in few)

    @property
    def columns(self) -> tuple[str, ...]:
        """The times at which survival was predicted."""
        return self.known.curve if self.known else ()

    def read(self, answers: Sequence[FitAnswer], known: Collection[str] = ()) -> Reading:
        """The mean risk and survival; low or high where the rank is clearly below or above one half."""
        names = ("risk", *self.columns)
        values = {
            name: float(np.mean([answer.values[name] for answer in answers])) for name in names
        }
        if self.known is None:
            half = HALVES[values["risk"] > 0]
            return Reading(values, half, (half,))
        rank, n = self._rank(answers, known)
        decided = False
        if n and self.known.orders:
            limits = wilson(rank * n, n)
            decided = not limits.low <= 0.5 <= limits.high
        half = HALVES[rank > 0.5]
        values |= {"rank": rank}
        return Reading(values, half, (half,)) if decided else Reading(values, "", HALVES)

    def _rank(self, answers: Sequence[FitAnswer], left_out: Collection[str]) -> tuple[float, int]:
        """The share of known cases with a lower risk, one half if none can be compared; and their number."""
        known = self.known
        assert known is not None
        risks = {(answer.repeat, answer.fold): answer.values["risk"] for answer in answers}
        others = [i for i, name in enumerate(known.names) if name not in left_out]
        below = {
            (repeat, i): 0.5 + 0.5 * np.sign(here - float(known.risk[repeat, i]))
            for repeat, folds in enumerate(known.folds.tolist())
            for i in others
            if (here := risks.get((repeat, folds[i]))) is not None
        }
        rank = float(np.mean(list(below.values()))) if below else 0.5
        return rank, len({i for _, i in below})

    def promise(self) -> str:
        """What the halves are worth."""
        if self.known is None:
            return (
                "This model was never tested on unseen cases: a risk above 0 is higher than that of the "
                "median training case. Predict with a cross-validation instead."
            )
        if not self.known.orders:
            return (
                f"Out of fold, on {self.n_cases} cases, the model does not order risks better than guessing: "
                "no case is called high or low risk."
            )
        return (
            f"A case is of high or low risk where the 95 % interval of its rank among {self.n_cases} known "
            "cases lies above or below one half. How well the model orders risks is a different matter."
        )
