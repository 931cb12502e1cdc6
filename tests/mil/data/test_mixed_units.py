"""Numbers in another unit, on another scale or with a digit too many are named; honest columns are not."""

import numpy as np
import pytest

from mil.data.case import Row
from mil.data.columns import note_times, odd_cells
from mil.data.mixed_units import find_mixed_units, find_strays
from mil.data.values import read_numbers

NECROSIS = [5, 10, 10, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 80, 90, 95]
SIZES = [2.1, 3.4, 4.0, 4.8, 5.5, 6.2, 6.9, 7.4, 8.0, 9.1, 10.5, 12.3, 14.0, 18.2]
AGES = [38, 42, 47, 51, 52, 55, 58, 60, 61, 63, 66, 70, 74, 79]
LDH = [142, 155, 160, 171, 180, 188, 190, 201, 214, 230, 251, 288, 340]


def rows_of(column, cells):
    return [Row(line=i + 2, case=f"p{i}", slide=f"s{i}", other={column: str(cell)})
            for i, cell in enumerate(cells)]  # fmt: skip


@pytest.mark.parametrize(
    ("others", "few", "factor", "larger"),
    [
        (NECROSIS, [0.35], 100, False),
        (NECROSIS, [0.1, 0.25, 0.4, 0.6, 0.85], 100, False),
        ([0.05, 0.1, 0.15, 0.3, 0.35, 0.42, 0.5, 0.66, 0.7, 0.9], [45, 60], 100, True),
        (SIZES, [85], 10, True),
        (SIZES, [45, 62, 110], 10, True),
        ([x * 10 for x in (*SIZES, 25)], [4.5, 7.2], 10, False),
        (AGES, [620], 10, True),
        (AGES, [5.4], 10, False),
        (LDH, [18400], 100, True),
        (LDH, [0.21], 1000, False),
        ([1.1, 1.2, 1.2, 1.3, 1.4, 1.4, 1.5, 1.6, 1.7], [1250], 1000, True),
    ],
)
def test_numbers_of_another_unit_are_found(others, few, factor, larger):
    cells = [*others[:3], *few, *others[3:]]
    units = find_mixed_units([*map(float, cells), float("nan")])
    assert units.places == tuple(range(3, 3 + len(few)))
    assert (units.factor, units.larger) == (factor, larger)


@pytest.mark.parametrize(
    "cells",
    [
        NECROSIS, SIZES, AGES, LDH,
        [*AGES, 7, 12],  # children among adults
        [*SIZES, 0.5], [*SIZES, 31],
        [0.5, 0.5, 1, 2, 5, 10, 15, 20, 30, 40, 60, 80],  # less than one, among percentages
        [0, 0, 0, 1, 1, 2, 3, 5, 8, 12, 21, 45],  # mitoses
        [0.9, 1.0, 1.0, 1.1, 1.2, 1.2, 8.5, 9.7, 12.1, 14.6, 20.3],  # not amplified and amplified
        [3.1, 2.2, 0.6, 0.9, 48.0, 12.4, 150.2, 5.5, 7.7, 22.0, 1.3, 0.4],  # CRP
        [0.1, 0.12, 0.2, 0.31, 0.35, 0.4, 0.55, 0.8, 1],
        [-3, 2, 5, 7, 9, 11, 12, 300],
        [4, 5, 60],
    ],
)  # fmt: skip
def test_honest_columns_are_left_alone(cells):
    assert find_mixed_units([float(cell) for cell in cells]) is None
    assert find_strays([float(cell) for cell in cells]) == ()
    assert odd_cells(rows_of("x", cells)) == []


@pytest.mark.parametrize(
    ("others", "stray"),
    [(AGES, 0), (AGES, -4), ([1928 + 2 * i for i in range(25)], 56), (LDH, 0),
     ([160 + i for i in range(30)], 68), ([4.1 + i / 10 for i in range(25)], 900)],
)  # fmt: skip
def test_numbers_far_from_all_others_are_named_whatever_their_unit(others, stray):
    cells = [*others, stray]
    assert find_strays([*map(float, cells), float("nan")]) == (len(others),)
    [note] = odd_cells(rows_of("x", cells))
    assert note.startswith(
        f"Column x holds {stray} (line {len(others) + 2}), beside numbers from {min(others):g} to"
    )
    assert find_strays([*map(float, others)]) == ()


def test_few_of_made_columns_are_suspected():
    rng = np.random.default_rng(3)
    made = [
        lambda n: np.exp(rng.normal(2, 0.55, n)).round(1),
        lambda n: np.exp(rng.normal(1.5, 1.2, n)).round(2),
        lambda n: rng.normal(60, 12, n).round(),
        lambda n: (rng.beta(1, 1.5, n) * 100).round(),
        lambda n: rng.exponential(900, n).round(),
        lambda n: rng.negative_binomial(1, 0.08, n).astype(float),
    ]
    columns = [make(n) for make in made for n in (12, 24, 60) for _ in range(40)]
    suspected = sum(bool(odd_cells(rows_of("x", column.tolist()))) for column in columns)
    assert suspected <= 0.02 * len(columns)


def test_the_cells_are_named_with_their_lines():
    [note] = odd_cells(rows_of("largest diameter", [*SIZES, 92]))
    assert note == (
        "Column largest diameter holds 92 (line 16), beside numbers from 2.1 to 18.2: perhaps at 10 times "
        "the scale, as millimetres beside centimetres, shares beside percentages, or a slip of typing. "
        "Correct these cells if so."
    )
    [note] = odd_cells(rows_of("necrosis", [*NECROSIS, 0.4, 0.75]))
    assert "holds 0.4 (line 18), 0.75 (line 19)" in note
    assert "perhaps at 1/100 of the scale" in note


def test_a_case_with_many_slides_counts_once():
    rows = [Row(line=i + 2, case=f"p{i % 15}", slide=f"s{i}", other={"size": str([*SIZES, 92][i % 15])})
            for i in range(60)]  # fmt: skip
    [note] = odd_cells(rows)
    assert "holds 92 (line 16), beside" in note


def test_times_in_another_unit_are_named():
    months = [3, 8, 11, 14, 19, 22, 26, 30, 34, 41, 48, 57, 60]
    rows = [Row(line=i + 2, case=f"p{i}", slide=f"s{i}", time=float(time))
            for i, time in enumerate([*months, 1825])]  # fmt: skip
    [note] = note_times(rows)
    assert note.startswith("The column of times holds 1825 (line 15), beside numbers from 3 to 60")
    assert "perhaps at 100 times the scale, as days beside months, or a slip of typing" in note
    assert note_times(rows[:-1]) == []


@pytest.mark.parametrize("cell", [".45", "0.45", "0.9"])
def test_a_share_among_percentages_is_no_percentage(cell):
    cells = [*(f"{n} %" for n in NECROSIS), cell]
    column = read_numbers(cells)
    assert (column.unit, column.odd) == ("%", (16,))
    [note] = odd_cells(rows_of("viable", cells))
    assert f"holds numbers but for {cell!r} (line 18), which count as missing" in note
    assert read_numbers([*cells[:-1], "45"]).odd == ()
    assert read_numbers([*cells[:-1], "0.45 %"]).odd == ()
