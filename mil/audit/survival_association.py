"""Association of one variable with survival: Harrell's C, against permutations of the outcomes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mil.audit.association import CaseVariable
from mil.data.outcomes import Outcomes
from mil.data.splits import Fold
from mil.distributions import rankdata
from mil.errors import FitError
from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.regression.models import fit_regression
from mil.evaluation.survival.metrics import harrell_c, number_at_risk

MOST_COMPARISONS = 400_000_000  # of pairs of cases over all permutations of one variable
LEAST_SHUFFLES = 999
TINY = 1e-9  # expected events, where a category was never at risk of one


@dataclass(frozen=True, eq=False)
class SurvivalOutcome:
    """Times and events of n cases; an arrangement (n,) says which case's outcome stands at each place."""

    outcomes: Outcomes

    @property
    def observed(self) -> Ints:
        """(1, n) each case has its own outcome."""
        return np.arange(len(self.outcomes.time))[None]

    def permutations(self, shuffles: int, seed: int) -> tuple[Ints, bool]:
        """(B, n) permuted cases, fewer where there are many cases; never all there are."""
        n = len(self.outcomes.time)
        shuffles = min(shuffles, max(LEAST_SHUFFLES, MOST_COMPARISONS // n**2))
        rng = np.random.default_rng(seed)
        return rng.permuted(np.tile(np.arange(n), (shuffles, 1)), axis=1), False

    def measure(self, predictor: CaseVariable, arrangements: Ints) -> Floats:
        """(B,) Harrell's C in the direction that fits best.

        Of several numbers (colour channels) it is that of the best one. Of categories it is that of the
        ratio of observed to expected events within the category of the case.
        """
        assert predictor.values is not None
        if predictor.categorical:
            codes = np.unique(predictor.values[:, 0], return_inverse=True)[1]
            c = self._concordance(self._hazards(codes[places]) for places in arrangements)
            return np.maximum(c, 1 - c)
        values = predictor.values
        ranks = rankdata(np.where(np.isnan(values), np.nanmedian(values, axis=0), values))
        by_column = [
            self._concordance(column[places] for places in arrangements) for column in ranks.T
        ]
        c = np.array(by_column)
        best: Floats = np.maximum(c, 1 - c).max(axis=0)
        return best

    @cached_property
    def _comparable(self) -> tuple[Ints, Ints]:
        """The pairs in which the event of the first came before the second left observation."""
        time, event = self.outcomes.time, self.outcomes.event
        earlier = (time[:, None] < time) | ((time[:, None] == time) & ~event)
        first, second = np.nonzero(event[:, None] & earlier)
        return first, second

    @cached_property
    def _cumulative_hazard(self) -> Floats:
        """(n,) the Nelson-Aalen estimate at each case's time: its expected events."""
        time, event = self.outcomes.time, self.outcomes.event
        times = np.unique(time[event])
        events = np.array([(event & (time == t)).sum() for t in times])
        increments = events / number_at_risk(time, times)
        hazard: Floats = (increments * (times <= time[:, None])).sum(axis=1)
        return hazard

    def _hazards(self, codes: Ints) -> Floats:
        """(n,) observed over expected events in the category of each case."""
        observed = np.bincount(codes, self.outcomes.event)
        expected = np.bincount(codes, self._cumulative_hazard)
        hazards: Floats = (observed / np.maximum(expected, TINY))[codes]
        return hazards

    def _concordance(self, risks: Iterable[Floats]) -> Floats:
        """Harrell's C of each row of risks; .5 where no two cases can be compared."""
        first, second = self._comparable
        if not len(first):
            return np.array([0.5 for _ in risks])
        signs = (np.sign(risk[first] - risk[second]).mean() for risk in risks)
        return (1 + np.array(list(signs))) / 2


def concordance_alone(
    predictor: CaseVariable, names: Sequence[str], outcomes: Outcomes, folds: Sequence[Fold]
) -> float | None:
    """Harrell's C of a Cox regression on one predictor in the folds of a run, mean over repeats.

    Median, scale and categories come from the training cases of each fold, and the risk is taken above the
    median training risk, as that of every model is. None where no two cases can be compared.

    Args:
        predictor: a variable with values for n cases.
        names: names of the n cases in the order of the values.
        outcomes: of these cases.
        folds: folds of these cases.
    """
    assert predictor.values is not None
    place = {name: i for i, name in enumerate(names)}
    values = []
    for repeat in sorted({fold.repeat for fold in folds}):
        risk = np.zeros(len(names))
        for fold in (fold for fold in folds if fold.repeat == repeat):
            train, test = (np.array([place[n] for n in part]) for part in (fold.train, fold.test))
            risk[test] = _fold_risk(predictor, outcomes, train, test)
        c = harrell_c(outcomes.time, outcomes.event, risk)
        if c is None:
            return None
        values.append(c)
    return float(np.mean(values))


def _fold_risk(predictor: CaseVariable, outcomes: Outcomes, train: Ints, test: Ints) -> Floats:
    """Risks of the test cases; 0 where the training cases have one value or no event."""
    assert predictor.values is not None
    table = {}
    for column, values in enumerate(predictor.values.T):
        if predictor.categorical:
            table["category"] = [f"k{value:g}" for value in values]
            continue
        filled = np.where(np.isnan(values), np.nanmedian(values[train]), values)
        table[f"value {column}"] = [f"{value:.9g}" for value in filled]
    train_table, test_table = (
        {name: [column[i] for i in part] for name, column in table.items()}
        for part in (train, test)
    )
    try:
        cox = fit_regression(train_table, Outcomes(outcomes.time[train], outcomes.event[train]))
    except FitError:
        return np.zeros(len(test))
    risk: Floats = cox.linear(test_table) - np.median(cox.linear(train_table))
    return risk
