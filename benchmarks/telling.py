"""How often facts of a case are taken for columns made from its follow-up, and how often those are found.

Cases enter one after the other over ten years and are observed until one day; facts say nothing of the
outcome, but some, as the year of the diagnosis, follow the time of observation. Columns that are made from
the outcome stand beside them.

    python -m benchmarks.telling --cohorts 400
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import print_table, save
from mil.data.case import Case
from mil.data.columns import telling_columns
from mil.data.outcomes import CENSORED, EVENT

HEADER = ("cases", "events", "cohorts", "falsely named", "columns named", "made columns found")
YEARS = 10.0  # over which cases enter


def follow_up(
    rng: np.random.Generator, n: int, share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(time in days, years from the first case to entry, event) of n cases, with that share of events."""
    entry = np.sort(rng.uniform(0, YEARS, n))
    longest = YEARS + 0.5 - entry
    unit = rng.exponential(size=n)
    scales = np.geomspace(0.1, 1000, 400)
    shares = np.array([np.mean(unit * scale <= longest) for scale in scales])
    death = unit * scales[np.argmin(np.abs(shares - share))]
    event = death <= longest
    return np.ceil(np.minimum(death, longest) * 365.25), entry, event


def facts(
    rng: np.random.Generator, entry: NDArray[np.float64]
) -> dict[str, NDArray[np.str_] | list[str]]:
    """Columns that are known at diagnosis and say nothing of what comes after it."""
    n = len(entry)
    years = 2010 + entry
    tested = entry > rng.uniform(2, 8)

    def words(*shares: float) -> NDArray[np.str_]:
        return rng.choice([f"level {i}" for i in range(len(shares))], size=n, p=shares)

    return {
        "age": rng.normal(60, 14, n).round().astype(int).astype(str),
        "size": rng.lognormal(2, 0.6, n).round(1).astype(str),
        "sex": words(0.5, 0.5),
        "grade": words(0.2, 0.3, 0.5),
        "location": words(0.4, 0.3, 0.2, 0.1),
        "margin": words(0.85, 0.15),
        "mutation": words(0.95, 0.05),
        "rare": words(0.9, 0.1),
        "mitoses": rng.poisson(4, n).astype(str),
        "marker": [f"{v:.0f}" if rng.random() > 0.2 else "" for v in rng.uniform(0, 100, n)],
        "year": years.astype(int).astype(str),
        "diagnosed": [f"{int(y)}-{1 + int(y % 1 * 12):02}-15" for y in years],
        "film": (1000 + entry * 40).round().astype(int).astype(str),
        "scanner": np.where(entry > rng.uniform(2, 8), "new", "old"),
        "era": np.digitize(entry, (YEARS / 3, 2 * YEARS / 3)).astype(str),
        "test since": np.where(tested, words(0.6, 0.4), ""),
    }


def made(
    rng: np.random.Generator, time: NDArray[np.float64], event: NDArray[np.bool_]
) -> dict[str, list[str]]:
    """Columns that only the outcome can fill."""
    median = float(np.median(time))
    return {
        "months": [f"{t / 30.44:.1f}" for t in time],
        "noisy": [f"{t * rng.uniform(0.93, 1.07):.0f}" for t in time],
        "group": ["long" if t > median else "short" for t in time],
        "state": ["gone" if e else "here" for e in event],
        "cause": ["sarcoma" if e else "" for e in event],
        "score": [f"{e * 4 + rng.random():.2f}" for e in event],
    }


def cases_of(
    time: NDArray[np.float64], event: NDArray[np.bool_], columns: dict[str, list[str]]
) -> list[Case]:
    return [
        Case(
            name=f"c{i:03}",
            label=EVENT if event[i] else CENSORED,
            time=float(time[i]),
            bags=(),
            other={name: str(cells[i]) for name, cells in columns.items()},
        )
        for i in range(len(time))
    ]


def measure(n: int, share: float, n_cohorts: int) -> Iterator[tuple[set[str], set[str], set[str]]]:
    """Names of facts that are taken for others, of made columns that are found, and of all made ones."""
    for seed in range(n_cohorts):
        rng = np.random.default_rng((seed, n, round(100 * share)))
        time, entry, event = follow_up(rng, n, share)
        order = rng.permutation(n)
        time, entry, event = time[order], entry[order], event[order]
        null = {f"fact {name}": list(cells) for name, cells in facts(rng, entry).items()}
        answers = {f"x {name}": cells for name, cells in made(rng, time, event).items()}
        cases = cases_of(time, event, null | answers)
        named = {found.column for found in telling_columns(cases, (*null, *answers))}
        yield named & {*null}, named & {*answers}, {*answers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=400)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    rows = []
    for n in (20, 50, 200):
        for share in (0.1, 0.3, 0.6):
            results = list(measure(n, share, options.cohorts))
            false = np.mean([bool(facts_named) for facts_named, _, _ in results])
            counts: dict[str, int] = {}
            for facts_named, _, _ in results:
                for name in facts_named:
                    counts[name] = counts.get(name, 0) + 1
            shares = {
                name: np.mean([name in hits for _, hits, _ in results])
                for name in sorted(results[0][2])
            }
            often = sorted(counts.items(), key=lambda item: -item[1])[:4]
            rows.append(
                (
                    str(n),
                    f"{share:.0%}",
                    str(options.cohorts),
                    f"{false:.1%}",
                    ", ".join(f"{k.removeprefix('fact ')} {v}" for k, v in often),
                    ", ".join(f"{k.removeprefix('x ')} {v:.0%}" for k, v in shares.items()),
                )
            )
    print_table(HEADER, rows)
    if options.save:
        save("telling-columns", HEADER, rows, vars(options))


if __name__ == "__main__":
    main()
