"""Do the limits of survival calibration hold their level where predictions are right?

    python -m benchmarks.survival_calibration [--cohorts 2000]

Cases die by the hazards that are predicted, so that the difference is 0, the ratio and the slope are 1, and
the observed survival of a group is the mean predicted one. The standard error of a share near .95 is .22 /
sqrt(cohorts). About five minutes of one core.
"""

import argparse
import time as clock
from collections.abc import Iterator
from itertools import product

import numpy as np

from benchmarks.intervals import met
from benchmarks.table import print_table, save
from mil.evaluation.intervals import Estimate
from mil.evaluation.survival.calibration import calibrate_survival
from mil.evaluation.survival.metrics import kaplan_meier
from mil.evaluation.survival.predictions import CaseRisks

HEADER = ["what", "cases", "events", "hazard ratio", "share", "undefined", "aim", "cohorts"]
AT = np.linspace(0.1, 1.0, 10)

Row = tuple[str, str, str, str, float, float, str, int]


def draw(rng: np.random.Generator, n: int, strength: float, follow_up: float) -> CaseRisks:
    """Predictions that are right; follow_up is the mean time of observation, survival's is about 1."""
    risk = strength * rng.normal(size=n)
    met_at, left_at = rng.exponential(np.exp(-risk)), rng.exponential(follow_up, size=n)
    survival = np.exp(-np.exp(risk)[:, None] * AT)
    time, event = np.minimum(met_at, left_at), met_at <= left_at
    return CaseRisks(tuple(map(str, range(n))), time, event, risk, survival, np.zeros(n, np.int64))


def coverage(cohorts: int) -> Iterator[Row]:
    for n, strength, follow_up in product((20, 30, 40, 100), (0.5, 1.0, 2.0), (0.5, 2.0)):
        rng = np.random.default_rng([n, int(10 * strength), int(10 * follow_up)])
        shares: dict[str, list[bool]] = {}
        undefined: dict[str, int] = {}
        events = []
        for _ in range(cohorts):
            cases = draw(rng, n, strength, follow_up)
            events.append(int(cases.event.sum()))
            calibration = calibrate_survival([cases], AT)
            true = {"difference": 0.0, "ratio": 1.0, "slope": 1.0}
            estimates: list[tuple[str, Estimate, float]] = [
                (name, getattr(calibration, name), value) for name, value in true.items()
            ]
            for group in calibration.horizons[1].groups:
                one = Estimate(group.observed, group.low, group.high, "")
                estimates.append(("survival of a group", one, group.predicted))
            estimates += _log_log(cases)
            for name, one, value in estimates:
                if one.value is None:
                    undefined[name] = undefined.get(name, 0) + 1
                    continue
                low = -np.inf if one.low is None else one.low
                high = np.inf if one.high is None else one.high
                shares.setdefault(name, []).append(low - 1e-9 <= value <= high + 1e-9)
        where = (str(n), f"{np.mean(events):.0f}", f"{np.exp(strength):.1f} per sd")
        for name, inside in shares.items():
            missing = undefined.get(name, 0) / (len(inside) + undefined.get(name, 0))
            aim = "" if name.startswith("(") else ".93 or more"
            yield name, *where, float(np.mean(inside)), missing, aim, len(inside)


def _log_log(cases: CaseRisks) -> list[tuple[str, Estimate, float]]:
    """The log-log limits that are used instead of Wilson's elsewhere, of the half of the lower survival."""
    half = cases.risk >= np.median(cases.risk)
    curve = kaplan_meier(cases.time[half], cases.event[half])
    place = int(np.searchsorted(curve.time, AT[4], side="right")) - 1
    name, predicted = "(log-log limits of half of the cases)", float(cases.survival[half, 4].mean())
    if place < 0 or not np.isfinite(curve.low[place]):
        return [(name, Estimate(None, None, None, ""), predicted)]
    limits = float(curve.low[place]), float(curve.high[place])
    return [(name, Estimate(float(curve.survival[place]), *limits, ""), predicted)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=2000)
    cohorts = parser.parse_args().cohorts
    rows, missed, started = [], 0, clock.process_time()
    for *names, share, missing, aim, drawn in coverage(cohorts):
        shown = aim if met(share, aim) else f"{aim} MISSED"
        missed += not met(share, aim)
        rows.append([*names, f"{share:.3f}", f"{missing:.3f}", shown, str(drawn)])
    print_table(HEADER, rows)
    print(f"{missed} aims missed")
    spent = round(clock.process_time() - started)
    save("survival-calibration", HEADER, rows, {"cohorts": cohorts, "cpu_s": spent})


if __name__ == "__main__":
    main()
