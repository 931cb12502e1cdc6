"""Numbers with a unit are numbers; what looks like numbers and is none is refused with its cells."""

import math

import numpy as np
import pandas as pd
import pytest

from mil.data.case import Case
from mil.data.columns import note_times, odd_cells, telling_columns
from mil.data.encoding import fit_encoding, readable
from mil.data.following import parts_times
from mil.data.outcomes import CENSORED, EVENT
from mil.data.quantities import factor_between, is_date, read_dates
from mil.data.separators import Signs, with_points
from mil.data.table import read_table
from mil.data.values import number_in, read_numbers, unclear_numbers
from mil.errors import CohortError
from mil.evaluation.regression.design import fit_design
from mil.report.table_one import table_one


def cases_with(cells, times=None):
    return [
        Case(
            name=f"c{i:02}", label=(EVENT if i % 2 else CENSORED) if times else "ab"[i % 2], bags=(),
            time=times[i] if times else None, other={"size": cell},
        )
        for i, cell in enumerate(cells)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "values", "unit"),
    [
        (["3 cm", "7cm", "11 CM", "NA"], [3, 7, 11, math.nan], "cm"),
        (["3,5 cm", "0,5 cm", "12,25cm"], [3.5, 0.5, 12.25], "cm"),
        (["3 cm", "70 mm", "11 cm"], [3, 7, 11], "cm"),
        (["40 %", "5%", "62.5 %"], [40, 5, 62.5], "%"),
        (["61 years", "70 y", "48 yrs"], [61, 70, 48], "years"),
        (["12.3 mo", "7 Monate"], [12.3, 7], "mo"),
        (["3 /10 HPF", "12/10HPF"], [3, 12], "/10hpf"),
    ],
)
def test_one_unit_throughout_is_read(cells, values, unit):
    numbers = read_numbers(cells)
    assert numbers.unit == unit or number_in(f"1 {unit}", numbers.unit) == 1
    np.testing.assert_allclose(numbers.values, values)
    cases = cases_with([*cells, cells[0]])
    [column] = readable(cases, ("size",)).columns
    assert column.categories == ()
    assert column.encode(cells[1]) == [(values[1] - column.middle) / column.spread, 0.0]
    [term] = fit_design({"size": cells}).terms
    assert term.encode(cells[1]) == values[1]


def test_a_number_in_another_unit_is_converted_and_one_of_another_kind_is_none():
    assert number_in("45 mm", "cm") == 4.5
    assert number_in("4.5", "cm") == 4.5
    assert math.isnan(number_in("45 kg", "cm"))
    assert math.isnan(number_in("45 mm", ""))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["2019-04-01", "2020-11-30", "2018-01-15"], "holds dates"),
        (["3. Mai", "4. Mai", "5. Jun"], "holds dates"),
        (["01.02.2020", "17.11.2019", "9.3.2021"], "holds dates"),
        (["4x3", "5 x 2", "7x6x2 cm"], "holds several numbers"),
        (["4", "70 mm", "5", "90 mm"], "with and without one"),
        (["4 cm", "70 kg", "5 cm"], "in several units"),
        (["4 foo", "7 foo", "9 foo"], "which is no unit that is known"),
        (["4", "5", "ca. 6", "7", "8", "~9", "10", "11", ">12"], "numbers and other cells"),
        (["~4", "ca. 5", "about 6", "~7", "~8", "~9"], "numbers and other cells"),
        (["4?", "5*", "6 cm (MRI)", "<7 cm", "8?"], "numbers and other cells"),
        (["10%", "20 %", "<1%", ">5%", "30%", "<4%"], "numbers and other cells"),
        (["61±4", "58 ± 2", "70 +/- 3"], "holds several numbers"),
        (["7 cm x 4 cm", "3 cm \u00d7 2 cm", "5 x 5 cm"], "holds several numbers"),
        (["1/14", "0/9", "3/22", "2/14", "0/7"], "holds several numbers"),
        (["1 of 14", "0 of 9", "3 von 22", "2 of 14", "0 of 7"], "holds several numbers"),
        (["7/2018", "11/2019", "02/2020"], "holds dates"),
        (["4 (MRI)", "5 (MRI)", "6 (CT)", "7 (CT)", "8 (CT)"], "numbers and other cells"),
    ],
)
def test_what_looks_like_numbers_is_refused_with_its_cells(cells, reason):
    with pytest.raises(CohortError, match=f"Column size .*{reason}") as error:
        readable(cases_with(cells * 2), ("size",))
    assert any(cell in str(error.value) for cell in cells)
    [(column, why)] = fit_encoding(cases_with(cells * 2), ()).left_out
    assert (column, reason in why) == ("size", True)


@pytest.mark.parametrize(
    "cells",
    [
        ["1a", "1b", "2a", "2b"], ["<5 cm", ">5 cm"], ["0-10", "10-20", ">20"], ["G1", "G2", "GX"],
        ["1", "2", "3", "X", "X"], ["T2", "T1"], ["left", "right"], ["1+", "2+", "neg"], ["IIa", "IIb"],
        ["2 of 3", "1 of 3"],
        ["20-30", "30-40", "40-50", "50-60", "60-70", "70-80"],
        ["1a", "1b", "2a", "2b", "3a", "3b", "4", "5"],
        ["0 (absent)", "1 (rare)", "2 (some)", "3 (many)", "4 (all)"],
        ["2/3", "1/3"], ["8890/3", "8858/3", "8802/3", "9040/3", "8811/1"],
    ],
)  # fmt: skip
def test_categories_with_digits_stay_categories(cells):
    assert unclear_numbers(cells * 3) is None
    [column] = fit_encoding(cases_with(cells * 3), ("size",)).columns
    assert len(column.categories) == len({*cells})


def test_codes_for_a_missing_value_are_noted_and_old_age_is_not():
    ages = ["61", "47", "72", "55", "80", "38"]
    [note] = odd_cells(cases_with([*ages, "999", "999"]))
    assert note.startswith("Column size holds 999 (c06), 999 (c07), far from its other numbers")
    [note] = odd_cells(cases_with([*ages, "-9"]))
    assert "holds -9 (c06)" in note
    assert odd_cells(cases_with([*ages, "99"])) == []
    assert odd_cells(cases_with(["-9", "-3", "5", "2"])) == []
    [note] = note_times(cases_with(ages, [12.0, 90.0, 33.0, 7.0, 999.0, 41.0]))
    assert note.startswith("The time of c04 is 999, far from all others")
    assert note_times(cases_with(ages, [12.0, 90.0, 33.0, 7.0, 99.0, 41.0])) == []
    assert note_times(cases_with(ages)) == []


@pytest.mark.parametrize(
    ("cell", "number"),
    [("1'234", "1234"), ("12\u2019345.5", "12345.5"), ("1\u202f234,5", "1234.5")],
)
def test_signs_between_thousands_are_read(cell, number):
    beside = "7,5" if "," in cell else "7"
    assert with_points([cell, beside], Signs(by_columns=True)).cells[0] == number


def table_of(tmp_path, columns, delimiter=";"):
    head = delimiter.join(["case", "slide", *columns])
    rows = [
        delimiter.join([f"c{i}", f"s{i}", *(f'"{c}"' for c in cells)])
        for i, cells in enumerate(zip(*columns.values(), strict=True))
    ]
    (tmp_path / "t.csv").write_text("\n".join([head, *rows]))
    return tmp_path / "t.csv"


THREE = ["1.204", "3.455", "2.118", "7.093", "4.125", "6.731", "2.346", "9.872"]


@pytest.mark.parametrize(
    ("cells", "beside", "delimiter", "read", "noted"),
    [
        (["4,5", "1.234,5", "4.125"], ["1", "2", "3"], ";", ["4.5", "1234.5", "4125"], 1),
        (["1.25", "2.350", "4"], ["4,5", "2", "3"], ";", ["1.25", "2.350", "4"], 1),
        (["0.125", "2.350", "4"], ["1", "2", "3"], ";", ["0.125", "2.350", "4"], 0),
        (["1.200", "2.350", "7"], ["4.5", "2", "3"], ";", ["1.200", "2.350", "7"], 0),
        (["850", "1.200", "640", "990"], ["4,5", "3", "1", "2"], ";", ["850", "1200", "640", "990"], 1),
        (["850", "1.200", "640", "990"], ["4", "3", "1", "2"], ";", ["850", "1200", "640", "990"], 1),
        (THREE, ["1"] * 8, ";", THREE, 1),
        (["1,234", "2,500", "7"], ["4,5", "2", "3"], ";", ["1.234", "2.500", "7"], 0),
        (THREE, ["1"] * 8, ",", THREE, 0),
        (["1234,567", "4,5", "3"], ["1", "2", "3"], ",", ["1234.567", "4.5", "3"], 0),
        (["1.200", "2.350", "7"], ["1", "2", "3"], "\t", ["1.200", "2.350", "7"], 0),
        (["45", "876", "320", "2.603"], ["1"] * 4, "\t", ["45", "876", "320", "2603"], 1),
        (["45", "876", "320", "2.603"], ["1"] * 4, "|", ["45", "876", "320", "2603"], 1),
        (["118", "970", "2,064", "410"], ["1"] * 4, ";", ["118", "970", "2064", "410"], 1),
        (["118", "970", "2,064", "410"], ["1"] * 4, "\t", ["118", "970", "2064", "410"], 1),
        (["12", "45", "31", "2.064"], ["1"] * 4, "\t", ["12", "45", "31", "2.064"], 0),
    ],
)  # fmt: skip
def test_the_other_cells_tell_what_a_point_separates(
    tmp_path, cells, beside, delimiter, read, noted
):
    path = table_of(tmp_path, {"volume": cells, "size": beside}, delimiter)
    notes = []
    assert [row.other["volume"] for row in read_table(path, notify=notes.append)] == read
    assert ["the other cells of the column suggest" in note for note in notes] == [True] * noted


@pytest.mark.parametrize(
    ("cells", "beside", "delimiter"),
    [
        (["4,5", "3,2", "4.125"], ["1", "2", "3"], ";"),
        (["4,5", "850", "640", "990", "1.200"], ["1"] * 5, ";"),
        (["1.200", "2.350", "7"], ["4,5", "3", "1"], ";"),
        (["1.200", "2.350", "7"], ["4,5", "3", "1"], "\t"),
        (["1.200", "2.350", "7"], ["4,5", "3", "1"], ","),
        (["1.200", "3.455", "2.100"], ["1", "2", "3"], ";"),
        (["876", "2.603", "1.114"], ["1", "2", "3"], "\t"),
        (["876", "2,603", "1,114"], ["1", "2", "3"], ";"),
        (["193,000", "389,000", "212,000"], ["1", "2", "3"], "\t"),
        (THREE, ["1,5", *"1234567"], ";"),
        ([f"{n}.000" for n in range(11, 19)], ["1"] * 8, ";"),
        (["4.5", "1,234", "7"], ["1", "2", "3"], ";"),
        (["1,234", "2,500", "7"], ["4.5", "2", "3"], ";"),
        (["1,234", "2,500", "7"], ["0.125", "2", "3"], "\t"),
        (["1.234.567", "4.5", "7"], ["1", "2", "3"], ";"),
        (["1.234,5", "4.5", "7"], ["1", "2", "3"], ";"),
    ],
)  # fmt: skip
def test_a_sign_of_two_meanings_is_refused(tmp_path, cells, beside, delimiter):
    path = table_of(tmp_path, {"volume": cells, "size": beside}, delimiter)
    with pytest.raises(
        CohortError, match=r"'volume' a (point|comma) may separate decimals or thousands: '"
    ):
        read_table(path)


def test_dates_are_read_in_their_order():
    assert read_dates(["2020-03-02", "", "2020-03-01"])[0] - 1 == read_dates(["2020-03-01"])[0]
    assert read_dates(["01.04.2020", "02.03.2020"]) == read_dates(["2020-04-01", "2020-03-02"])
    assert read_dates(["03/25/2020", "04/01/2020"]) == read_dates(["2020-03-25", "2020-04-01"])
    assert read_dates(["2020-03-01", "later"]) is None
    assert read_dates(["2020-02-31"]) is None


RNG = np.random.default_rng(11)
TIMES = [float(t) for t in RNG.permutation(np.arange(3, 75, 3))]


@pytest.mark.parametrize(
    "cells",
    [
        ["early" if t < 20 else "middle" if t < 50 else "late" for t in TIMES],
        ["1" if t > 36 else "0" for t in TIMES],
        ["seen" if t > 50 else "" for t in TIMES],
        ["NA" if 30 < t < 40 else "yes" if t >= 40 else "no" for t in TIMES],
        [f"{t / 12 + 0.1:.1f} years" for t in TIMES],
        [f"{2010 + int(t // 12)}-{1 + int(t) % 12:02}-11" for t in TIMES],
    ],
    ids=["words", "code", "filled", "with gaps", "unit", "dates"],
)
def test_columns_cut_from_the_time_are_refused(cells):
    with pytest.raises(
        CohortError,
        match=r"column size (separates the cases by their follow-up times|has the order)",
    ):
        readable(cases_with(cells, TIMES), ("size",))


def test_true_facts_part_no_times():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        time = rng.exponential(30, 20)
        shares = rng.dirichlet(np.ones(rng.integers(2, 5)))
        kinds = [str(kind) for kind in rng.choice(len(shares), 20, p=shares)]
        assert not parts_times(kinds, time, rng.random(20) < 0.5, or_calendar=True)
    strong = ["high" if t + RNG.normal(0, 25) > 40 else "low" for t in TIMES]
    assert telling_columns(cases_with(strong, TIMES), ["size"]) == ()
    rare = ["yes" if t == max(TIMES) else "no" for t in TIMES]
    assert telling_columns(cases_with(rare, TIMES), ["size"]) == ()


@pytest.mark.parametrize("cells", [["8800/3", "8802/3", "8801/3"], ["1850-1", "2150-2"]])
def test_codes_are_no_dates(cells):
    assert not any(map(is_date, cells))
    assert all(map(is_date, ["2024-03-01", "1999/12"]))


@pytest.mark.parametrize(
    ("cells", "values", "unit"),
    [
        (["7.1 10^9/L", "4 x 10^9/l", "6.5 \u00d710⁹/L"], [7.1, 4, 6.5], "10^9/l"),
        (["250 G/nl", "310 10*9/l", "180 /nl"], [250, 310, 180], "10^9/l"),
        (["7.1 10^9/l", "4000 /µl", "6 10^9/l", "5 Tsd./µl"], [7.1, 4, 6, 5], "10^9/l"),
        (["4.4 Mio/µl", "5.1 10^12/l"], [4.4, 5.1], "10^12/l"),
        (["12 Mon.", "5 mois", "7 meses"], [12, 5, 7], "mo"),
        (["61 ans", "70 años", "48 Jahre"], [61, 70, 48], "y"),
        (["4 cm²", "250 mm²"], [4, 2.5], "cm2"),
    ],
)  # fmt: skip
def test_units_are_read_however_they_are_written(cells, values, unit):
    numbers = read_numbers(cells)
    np.testing.assert_allclose(numbers.values, values)
    assert factor_between(numbers.unit, unit) == 1


@pytest.mark.parametrize(
    ("cells", "limit", "value"),
    [
        (["61", "47", "72", "55", "38", ">84"], ">84", 84),
        (["61", "47", "72", "55", "38", "90+"], "90+", 90),
        (["0.7", "2.2", "1.9", "4.1", "\u2264 0.05", "0.3"], "\u2264 0.05", 0.05),
        (["3 cm", "7 cm", "11 cm", "4 cm", ">15 cm"], ">15 cm", 15),
    ],
)
def test_a_limit_counts_as_its_number_and_is_named(cells, limit, value):
    place = cells.index(limit)
    numbers = read_numbers(cells)
    assert (numbers.values[place], numbers.limits, numbers.odd) == (value, (place,), ())
    [note] = odd_cells(cases_with(cells))
    assert note.startswith(
        f"Column size holds '{limit}' (c{place:02}), which say more or less than a number"
    )
    assert note.endswith(f"'{limit}' as {value:g}.")
    [column] = readable(cases_with(cells), ("size",)).columns
    assert column.encode(limit) == [(value - column.middle) / column.spread, 0.0]
    labels = ["ab"[i % 2] for i in range(len(cells))]
    table = pd.DataFrame({"case": range(len(cells)), "label": labels, "size": cells})
    [variable] = table_one(table, ("a", "b"))
    assert (variable.unit, variable.missing) == (f"median (quartiles); at the limit: {limit}", 0)


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["1.234,5 cm", "4,5 cm"], ["1234.5 cm", "4.5 cm"]),
        (["<0,1", "0,55", "2,25", "3", "4"], ["<0.1", "0.55", "2.25", "3", "4"]),
        (["1,5E-03", "2,5E+02"], ["1.5E-03", "2.5E+02"]),
        (["850/µl", "1.200/µl", "640/µl", "990/µl"], ["850/µl", "1200/µl", "640/µl", "990/µl"]),
        (["3,2 10^9/l", "14,1 10^9/l"], ["3.2 10^9/l", "14.1 10^9/l"]),
    ],
)
def test_numbers_with_a_unit_or_a_limit_have_decimal_points(tmp_path, cells, read):
    path = table_of(tmp_path, {"x": cells})
    assert [row.other["x"] for row in read_table(path)] == read
    assert read_numbers(read) is not None


def test_thousands_with_a_unit_may_be_decimals(tmp_path):
    with pytest.raises(
        CohortError, match="'x' a comma may separate decimals or thousands: '12,000/µl'"
    ):
        read_table(table_of(tmp_path, {"x": ["12,000/µl", "8,000/µl"]}, ","))


@pytest.mark.parametrize(
    "unit", ["kg/m2", "kg/m²", "x10^9/L", "µg/l", "/µl", "mut/Mb", "mm/h", "m²", "h"]
)
def test_units_of_laboratories_are_read(unit):
    numbers = read_numbers([f"{number} {unit}" for number in (21, 24.5, 30)])
    assert (numbers.values, numbers.odd) == ((21, 24.5, 30), ())


def test_one_unknown_unit_is_named_and_classes_are_not():
    assert "no unit that is known" in unclear_numbers(["3 ab/cd", "4 ab/cd", "5 ab/cd"])[0]
    assert unclear_numbers(["1a", "2a", "3a"]) is None
