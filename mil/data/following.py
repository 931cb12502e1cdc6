"""Whether a column follows the outcome of cases with follow-up, beyond chance and beyond the calendar.

Where cases enter over years and are observed until one day, whatever changed over these years, as a scanner,
follows the time of observation: that ends for censored cases when the study ends. Only cases with an event
tell such a column from one that is made from the time: their time ended before it would have.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mil.data.quantities import read_dates
from mil.data.values import read_numbers
from mil.distributions import rankdata

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ENOUGH = 8  # cases below which columns agree by chance
SAME_ORDER = 0.9  # rank correlation with the time from which a column is made from it
TELLS = 0.95  # share of cases whose event a column tells
TELLS_NUMBERS = 0.98  # area under the curve from which a column of numbers tells the events
CHANCE = 0.01  # with which a column that has nothing to do with the outcome would look the same
BEYOND = 0.02  # with which a column that follows the calendar would do so
ASIDE = 0.05  # share of pairs of cases whose times may lie against the order of their classes
NEIGHBOURS = 3
MOST_STEPS = 1_000_000  # of counting arrangements


def ranks_with(
    cells: Sequence[str], time: Floats, event: Bools, *, or_calendar: bool = False
) -> bool:
    """Whether a column of numbers or dates orders the cases as their times do, or the other way round.

    Args:
        cells: of the column.
        time: (n,) of observation.
        event: (n,) whether it ended with the event.
        or_calendar: whether it may be the calendar alone, which falls as the times rise.
    """
    column = read_numbers(cells)
    days = read_dates(cells) if column is None else column.values
    if days is None:
        return False
    values = np.array(days)
    known = np.isfinite(values)
    values, time, event = values[known], time[known], event[known]
    if len(values) < ENOUGH or min(len(set(values)), len(set(time))) < ENOUGH // 2:
        return False
    correlation = np.corrcoef(rankdata(values), rankdata(time))[0, 1]
    if not abs(correlation) >= SAME_ORDER:
        return False
    return bool(correlation > 0) or or_calendar or _numbers_beyond(-values, time, event)


def parts_times(
    kinds: Sequence[str], time: Floats, event: Bools, *, or_calendar: bool = False
) -> bool:
    """Whether classes split the times into intervals, but for a few pairs of cases.

    Cases without a class are looked at as one more, and left out.

    Args:
        kinds: (n,) the class of each case, empty where it has none.
        time: (n,) of observation.
        event: (n,) whether it ended with the event.
        or_calendar: whether the classes may be those of the calendar alone.
    """
    for among in ({*kinds}, {*kinds} - {""}):
        chosen = np.array([kind in among for kind in kinds])
        names = sorted(among, key=lambda name: (float(np.median(time[_places(kinds, name)])), name))
        groups = [time[_places(kinds, name)] for name in names]
        if not 1 < len(groups) <= chosen.sum() // 3:
            continue
        pairs = [(a, b) for i, a in enumerate(groups) for b in groups[i + 1 :]]
        against = sum(float(np.sum(a[:, None] > b) + np.sum(a[:, None] == b) / 2) for a, b in pairs)
        allowed = ASIDE * sum(len(a) * len(b) for a, b in pairs)
        by_chance = against > allowed or (
            chance_of_order([len(group) for group in groups], math.ceil(against)) >= CHANCE
        )
        if by_chance:
            continue
        words = np.array(kinds)[chosen]
        if or_calendar or _classes_beyond(words, time[chosen], event[chosen]):
            return True
    return False


def _places(kinds: Sequence[str], name: str) -> Bools:
    return np.array([kind == name for kind in kinds])


def _numbers_beyond(values: NDArray[np.generic], time: Floats, event: Bools) -> bool:
    """Whether values that rise with the times do so for cases with an event as well.

    By the calendar a case with an event would be one of the censored cases that were observed for longer, any
    of them with the same probability; made from its time, its value is the least of all of these. The ranks
    are combined by Fisher's method (Fisher 1932, Statistical Methods for Research Workers, section 21.1).

    Args:
        values: (n,) that rise with the times.
        time: (n,) of observation.
        event: (n,) whether it ended with the event.
    """
    if event.all():
        return True
    surprise, n_events = 0.0, 0
    for i in np.flatnonzero(event):
        longer = values[~event & (time > time[i])]
        if len(longer):
            surprise -= math.log((1 + int(np.sum(longer <= values[i]))) / (1 + len(longer)))
            n_events += 1
    tail = sum(surprise**k / math.factorial(k) for k in range(n_events)) * math.exp(-surprise)
    return n_events > 0 and tail < BEYOND


def _classes_beyond(kinds: NDArray[np.str_], time: Floats, event: Bools) -> bool:
    """Whether cases with an event have the class of those with about their time, as ``_numbers_beyond``.

    By the calendar they have the class of any censored case that was observed for longer.
    """
    if event.all():
        return True
    n_alike, chances = 0, [1.0]  # of so many cases with an event that have that class
    for i in np.flatnonzero(event):
        longer = kinds[~event & (time > time[i])]
        if not len(longer):
            continue
        expected = _class_about(kinds, time, int(i))
        share = (1 + int(np.sum(longer == expected))) / (1 + len(longer))
        n_alike += int(kinds[i] == expected)
        fewer, more = [p * (1 - share) for p in chances], [p * share for p in chances]
        chances = [a + b for a, b in zip([*fewer, 0.0], [0.0, *more], strict=True)]
    return sum(chances[n_alike:]) < BEYOND


def _class_about(kinds: NDArray[np.str_], time: Floats, place: int) -> str:
    """The commonest class of the cases next to one by their time, which is not counted."""
    others = np.delete(np.arange(len(time)), place)
    nearest = others[np.argsort(np.abs(time[others] - time[place]), kind="stable")[:NEIGHBOURS]]
    return str(Counter(kinds[nearest].tolist()).most_common(1)[0][0])


def chance_of_order(sizes: Sequence[int], against: int) -> float:
    """The probability that classes of these sizes, dealt at random and put in order, part a row that well.

    Args:
        sizes: of the classes.
        against: pairs of cases that lie against the order of their classes, at most.

    Source: the number of arrangements by inversions is the Gaussian multinomial coefficient
    (Stanley 2011, Enumerative Combinatorics 1, section 1.7).
    """
    if sum(sizes) * against > MOST_STEPS:  # so many cases agree by chance never
        return 0.0
    counts = [1] + [0] * against  # of arrangements, by inversions
    for size in range(1, sum(sizes) + 1):
        for i in range(against, size - 1, -1):
            counts[i] -= counts[i - size]
    for size in (k for group in sizes for k in range(1, group + 1)):
        for i in range(size, against + 1):
            counts[i] += counts[i - size]
    log = math.log(sum(counts)) + math.lgamma(len(sizes) + 1) - math.lgamma(sum(sizes) + 1)
    return math.exp(min(0.0, log + sum(math.lgamma(size + 1) for size in sizes)))


def tells_event(cells: Sequence[str], event: Bools) -> bool:
    """Whether a column tells the event of almost all cases: by words, numbers, or where it is filled in."""
    if len(cells) < ENOUGH or min(event.sum(), (~event).sum()) < 2:
        return False
    filled = [str(bool(cell)) for cell in cells]
    words = cells if len(set(cells)) <= ENOUGH // 2 else filled
    if any(_words_tell(kinds, event) for kinds in (words, filled)):
        return True
    column = read_numbers(cells)
    if column is None or not all(map(math.isfinite, column.values)):
        return False
    ranks = rankdata(column.values)
    n_events = int(event.sum())
    sizes = [n_events, len(event) - n_events]
    n_pairs = math.prod(sizes)
    below = float(ranks[event].sum()) - n_events * (n_events + 1) / 2
    against = min(below, n_pairs - below)
    if 1 - against / n_pairs < TELLS_NUMBERS:
        return False
    return chance_of_order(sizes, math.ceil(against)) < CHANCE


def _words_tell(kinds: Sequence[str], event: Bools) -> bool:
    """Whether the commonest event of each kind is that of almost all its cases, and not by chance."""
    pairs = Counter(zip(kinds, event.tolist(), strict=True))
    dead = {kind for kind in {*kinds} if pairs[kind, True] > pairs[kind, False]}
    n, n_events = len(event), int(event.sum())
    n_dead = sum(pairs[kind, True] + pairs[kind, False] for kind in dead)
    n_both = sum(pairs[kind, True] for kind in dead)
    right = n_both + n - n_events - (n_dead - n_both)
    base = max(n_events, n - n_events) / n
    if not dead or right < max(TELLS, (1 + base) / 2) * n:
        return False
    # Of all ways to deal the events, those in which the same kinds hold as many.
    ways = sum(
        math.comb(n_dead, k) * math.comb(n - n_dead, n_events - k)
        for k in range(n_both, min(n_dead, n_events) + 1)
    )
    subsets = max(1, 2 ** (len({*kinds}) - 2))
    return bool(subsets * ways / math.comb(n, n_events) < CHANCE)
