"""Do the paired tests of survival models hold their level at 20 to 40 cases, and what do they find?

    python -m benchmarks.survival_comparison [--cohorts 2000]

Each model's risk is the true log hazard with noise, part of it shared by both models. Without a difference
both have as much noise; with one, the difference in C is that of large cohorts. The standard error of a
share near .05 is .22 / sqrt(cohorts). About four minutes of one core.
"""

import argparse
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.intervals import met
from benchmarks.table import print_table, save
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.survival.differences import (
    detectable_difference,
    harrell_difference,
    ibs_difference,
)
from mil.evaluation.survival.predictions import CaseRisks

HEADER = ["scenario", "cases", "events", "true difference", "what", "found", "aim", "cohorts"]
SIZES = (20, 30, 40)
LARGE = 2000  # cases of the cohorts in which the true difference is read

Row = tuple[str, str, str, str, str, float, str, int]


@dataclass(frozen=True)
class Scenario:
    """How cohorts and risks are drawn.

    Attributes:
        name: shown in the table.
        strength: log hazard ratio per standard deviation of the truth.
        noise: of the two models, in the same standard deviations.
        shared: share of the noise's variance that both models have in common.
        follow_up: mean time of observation; survival at risk 0 has mean 1.
        repeats: of each model, with fresh noise of its own.
    """

    name: str
    strength: float
    noise: tuple[float, float]
    shared: float
    follow_up: float
    repeats: int = 1

    def draw(self, rng: np.random.Generator, n: int) -> list[list[CaseRisks]]:
        """Two models over one cohort."""
        true, shared = rng.normal(size=n), rng.normal(size=n)
        met_at = rng.exponential(np.exp(-self.strength * true))
        left_at = rng.exponential(self.follow_up, size=n)
        time, event = np.minimum(met_at, left_at), met_at <= left_at
        at = times_of(time)
        return [
            [self._risks(rng, true, shared, level, (time, event), at) for _ in range(self.repeats)]
            for level in self.noise
        ]

    def _risks(
        self,
        rng: np.random.Generator,
        true: Floats,
        shared: Floats,
        level: float,
        outcome: tuple[Floats, Bools],
        at: Floats,
    ) -> CaseRisks:
        own = rng.normal(size=len(true))
        risk = true + level * (self.shared**0.5 * shared + (1 - self.shared) ** 0.5 * own)
        risk = max(self.strength, 0.5) * risk / (1 + level**2) ** 0.5
        survival = np.exp(-np.exp(risk)[:, None] * at)
        names = tuple(f"{i:04d}" for i in range(len(true)))
        return CaseRisks(names, *outcome, risk, survival, np.zeros(len(true), np.int64))


def times_of(time: Floats) -> Floats:
    """(5,) times at which survival is predicted."""
    early, late = (float(t) for t in np.quantile(time, [0.1, 0.8]))
    return np.linspace(early, late, 5)


SCENARIOS = (
    Scenario("equal, independent noise", 1.0, (1.0, 1.0), 0.0, 1.0),
    Scenario("equal, half of the noise shared", 1.0, (1.0, 1.0), 0.5, 1.0),
    Scenario("equal, 3 repeats", 1.0, (2.0, 2.0), 0.0, 1.0, repeats=3),
    Scenario("equal, much noise", 1.0, (3.0, 3.0), 0.0, 1.0),
    Scenario("equal, 3 of 10 observed", 1.0, (1.0, 1.0), 0.5, 0.4),
    Scenario("equal, strong", 2.0, (0.5, 0.5), 0.5, 1.0),
    Scenario("nothing to rank, 2 of 10 observed", 0.0, (1.0, 1.0), 0.0, 0.25),
    Scenario("different", 1.0, (0.3, 2.0), 0.0, 1.0),
    Scenario("different, strong", 2.0, (0.3, 2.0), 0.0, 1.0),
    Scenario("different, half of the noise shared", 1.5, (0.5, 2.5), 0.5, 1.0),
)


def rows_of(scenario: Scenario, cohorts: int) -> Iterator[Row]:
    """Coverage of the limits, share of p <= .05, and how often the detectable difference was smaller."""
    rng = np.random.default_rng(len(scenario.name))
    equal = scenario.noise[0] == scenario.noise[1]
    true = 0.0 if equal else _true_difference(scenario, rng)
    for n in SIZES:
        covers, alarms, brier, detectable, events = [], [], [], [], []
        for _ in range(cohorts):
            first, second = scenario.draw(rng, n)
            difference = harrell_difference(first, second)
            if difference is None:
                continue
            events.append(int(first[0].event.sum()))
            covers.append(difference.low <= true <= difference.high)
            alarms.append(difference.p <= 0.05)
            smallest = detectable_difference(first, second)
            detectable.append(np.nan if smallest is None else smallest)
            at = times_of(first[0].time)
            test = ibs_difference(first, second, at)
            brier.append(test is not None and test.p <= 0.05)
        row = (scenario.name, str(n), f"{np.mean(events):.0f}", f"{true:.2f}")
        aim = ".065 or less" if equal else ""
        yield *row, "coverage of the limits", float(np.mean(covers)), ".93 or more", len(covers)
        yield *row, "p <= .05, C by swapping ranks", float(np.mean(alarms)), aim, len(alarms)
        yield *row, "p <= .05, Brier by swapping curves", float(np.mean(brier)), aim, len(brier)
        yield (
            *row,
            "detectable difference, median",
            float(np.nanmedian(detectable)),
            "",
            len(covers),
        )


def _true_difference(scenario: Scenario, rng: np.random.Generator) -> float:
    values = []
    for _ in range(30):
        first, second = scenario.draw(rng, LARGE)
        values.append(_c(first[0]) - _c(second[0]))
    return float(np.mean(values))


def _c(one: CaseRisks) -> float:
    comparable = one.event[:, None] & (one.time[:, None] < one.time)
    return float((one.risk[:, None] > one.risk)[comparable].mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=2000)
    cohorts = parser.parse_args().cohorts
    rows, missed, started = [], 0, clock.process_time()
    for scenario in SCENARIOS:
        for *names, share, aim, drawn in rows_of(scenario, cohorts):
            shown = aim if met(share, aim) else f"{aim} MISSED"
            missed += not met(share, aim)
            rows.append([*names, f"{share:.3f}", shown, str(drawn)])
        print(f"{scenario.name}: {clock.process_time() - started:.0f} CPU s", flush=True)
    print_table(HEADER, rows)
    print(f"{missed} aims missed")
    spent = round(clock.process_time() - started)
    save("survival-comparison", HEADER, rows, {"cohorts": cohorts, "cpu_s": spent})


if __name__ == "__main__":
    main()
