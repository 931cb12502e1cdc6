"""Cells of a column of numbers that seem to be in another unit, or to have lost or won a digit.

Tables mix millimetres and centimetres, shares and percentages, and typists slip by a digit. Such cells lie
far from the others, and among them again when they are taken ten, a hundred or a thousand times.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENOUGH = 8  # numbers above 0, below which none is far from the others
FACTORS = (10, 100, 1000)
FEW = 10  # the share of cells that may be slips is one in so many
FAR = 4.0  # spreads from the middle, in logarithms
NARROW = 0.03  # least spread, in powers of ten
GAP = 0.4  # between the groups, in powers of ten: two and a half times
GAP_OF_KINDS = 0.3  # where one group is of whole numbers and the other is not
FAR_OF_KINDS = 3.0
FAR_OF_ALL = 4.5  # where no factor brings the cells among the others
QUARTILES = 1.349  # between those of a normal distribution, in standard deviations


@dataclass(frozen=True)
class MixedUnits:
    """Cells that would be like the others if they were multiplied.

    Attributes:
        places: of the cells, in the order of the column.
        factor: how many times larger, or smaller, they are.
        larger: whether they are larger.
    """

    places: tuple[int, ...]
    factor: int
    larger: bool


def find_mixed_units(values: Sequence[float]) -> MixedUnits | None:
    """The cells of a column that seem to be in another unit; None without any.

    Few cells that lie far above all others, or far below also by differences, are slips; where one group
    holds whole numbers alone and the other decimals, as 45 beside 0.45, either may be of any size. Columns
    with negative numbers are not looked at.

    Args:
        values: one per case; NaN where there is none.
    """
    known = [(value, i) for i, value in enumerate(values) if math.isfinite(value)]
    if any(value < 0 for value, _ in known):
        return None
    ordered = sorted((value, i) for value, i in known if value > 0)
    if len(ordered) < ENOUGH:
        return None
    numbers = np.array([value for value, _ in ordered])
    for cut in _cuts(numbers):
        larger = 2 * cut >= len(numbers)
        few, others = (numbers[cut:], numbers[:cut]) if larger else (numbers[:cut], numbers[cut:])
        if factor := _factor(few, others, larger=larger):
            places = [i for _, i in (ordered[cut:] if larger else ordered[:cut])]
            return MixedUnits(tuple(sorted(places)), factor, larger)
    return None


def find_strays(values: Sequence[float]) -> tuple[int, ...]:
    """Places of a few numbers far from all others, whatever their unit: -2 among sizes, 57 among heights.

    The others are above 0. Numbers from 0 down are compared by differences, others by ratios as well.

    Args:
        values: one per case; NaN where there is none.
    """
    ordered = sorted((value, i) for i, value in enumerate(values) if math.isfinite(value))
    numbers = np.array([value for value, _ in ordered])
    n = len(numbers)
    for k in range(1, n // FEW + 1) if n > ENOUGH else ():
        if _lie_below(numbers[:k], numbers[k:]):
            return tuple(sorted(i for _, i in ordered[:k]))
        if _lie_above(numbers[n - k :], numbers[: n - k]):
            return tuple(sorted(i for _, i in ordered[n - k :]))
    return ()


def _lie_below(few: Floats, others: Floats) -> bool:
    spread = _spread(others)
    if others[0] <= 0 or not spread:
        return False
    distance = (np.median(others) - few[-1]) / (spread * (1 + 4 / len(others)))
    if few[-1] <= 0:
        return bool(distance >= FAR_OF_KINDS)
    return bool(distance >= FAR_OF_ALL and math.log10(others[0] / few[-1]) >= GAP_OF_KINDS)


def _lie_above(few: Floats, others: Floats) -> bool:
    if others[0] <= 0:
        return False
    logs = np.log10(others)
    spread = max(_spread(logs), NARROW) * (1 + 4 / len(others))
    return bool(
        math.log10(few[0]) - np.median(logs) >= FAR_OF_ALL * spread
        and math.log10(few[0] / others[-1]) >= GAP
    )


def _cuts(numbers: Floats) -> Iterator[int]:
    """Where rising numbers may part into two units: at wide gaps, the widest first, and shares below 1."""
    gaps = np.diff(np.log10(numbers))
    yield from (int(i) + 1 for i in np.argsort(-gaps, kind="stable") if gaps[i] >= GAP_OF_KINDS)
    n_shares = int(np.sum(numbers < 1))
    if 0 < n_shares < len(numbers) and 10 < numbers[-1] <= 100:
        yield n_shares


def _factor(few: Floats, others: Floats, *, larger: bool) -> int:
    """How many times larger, or smaller, few numbers are than the others; 0 if they are no other unit.

    Args:
        few: the smaller group, rising.
        others: rising.
        larger: whether the few are.
    """
    if not (
        _are_slips(few, others, larger=larger) or _are_another_kind(few, others, larger=larger)
    ):
        return 0
    for factor in FACTORS:
        moved = few / factor if larger else few * factor
        if moved[0] >= others[0] and moved[-1] <= others[-1]:
            return factor
    return 0


def _are_slips(few: Floats, others: Floats, *, larger: bool) -> bool:
    """Whether a few numbers lie far from all others: by ratios, and below these by differences, too."""
    nearest, next_one = (few[0], others[-1]) if larger else (few[-1], others[0])
    if FEW * len(few) > len(few) + len(others) or abs(math.log10(nearest / next_one)) < GAP:
        return False
    far = FAR * (1 + 4 / len(others))
    logs = np.log10(others)
    if abs(math.log10(nearest) - np.median(logs)) < far * max(_spread(logs), NARROW):
        return False
    return larger or bool(np.median(others) - nearest >= far * _spread(others))


def _are_another_kind(few: Floats, others: Floats, *, larger: bool) -> bool:
    """Whether the smaller numbers have decimals and the larger ones none, or are shares and percentages."""
    low, high = (others, few) if larger else (few, others)
    logs = np.log10(others)
    distance = abs(np.median(np.log10(few)) - np.median(logs))
    far = FAR_OF_KINDS * (1 + 4 / len(others))
    if len(others) < ENOUGH // 2 or distance < far * max(_spread(logs), NARROW):
        return False
    if {*low.tolist()} <= {0.5}:  # how tables write less than one
        return False
    has_decimals, others_have = (np.mean(group % 1 != 0) for group in (low, high))
    if has_decimals >= 0.6 and others_have <= 0.1 and len({*others.tolist()}) > 3:
        return True
    are_shares = low[-1] <= 1 < high[0] and high[-1] <= 100 and high[0] >= 2.5 * low[-1]
    return bool(are_shares and min(len({*low.tolist()}), len({*high.tolist()})) > 1)


def _spread(numbers: Floats) -> float:
    low, high = np.quantile(numbers, (0.25, 0.75))
    return float(high - low) / QUARTILES
