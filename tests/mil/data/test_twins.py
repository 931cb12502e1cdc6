"""One patient under two names is noticed by an equal date of birth, or by facts that all agree."""

import numpy as np
import pytest

from mil.data.case import Row
from mil.data.twins import note_twins

RNG = np.random.default_rng(11)
N = 30


def rows_of(columns, times=None):
    n = len(next(iter(columns.values())))
    return [
        Row(
            line=i + 2, case=f"p{i:02}", slide=f"s{i}", label="ab"[i % 2],
            time=None if times is None else float(times[i]),
            other={name: str(cells[i]) for name, cells in columns.items()},
        )
        for i in range(n)
    ]  # fmt: skip


def days(form):
    return [form.format(y=1930 + i, m=i % 12 + 1, d=(7 * i) % 27 + 1) for i in range(N)]


@pytest.mark.parametrize(
    ("column", "form"),
    [
        ("dob", "{y}-{m:02}-{d:02}"), ("Date of birth", "{d}/{m}/{y}"), ("Geburtsdatum", "{d:02}.{m:02}.{y}"),
        ("date de naissance", "{d}/{m}/{y}"), ("fecha_nacimiento", "{d}-{m}-{y}"),
        ("data di nascita", "{d}/{m}/{y}"), ("生年月日", "{y}/{m}/{d}"), ("geb.", "{d}.{m}.{y}"),
    ],
)  # fmt: skip
def test_an_equal_date_of_birth_is_noted_where_the_sex_is_no_other(column, form):
    cells = days(form)
    assert note_twins(rows_of({column: cells})) == []
    cells[17] = cells[4]
    [note] = note_twins(rows_of({column: cells}))
    assert note.startswith(
        "Cases p04 and p17 have the same date of birth. If these are one patient"
    )
    sex = ["f"] * N
    assert len(note_twins(rows_of({column: cells, "Geschlecht": sex}))) == 1
    sex[17] = "m"
    assert note_twins(rows_of({column: cells, "Geschlecht": sex})) == []
    sex[17] = "NA"
    assert len(note_twins(rows_of({column: cells, "Geschlecht": sex}))) == 1


def test_spellings_of_a_day_and_numbers_of_a_spreadsheet_are_compared():
    assert note_twins(rows_of({"dob": ["1950-03-04", "17.08.1961", "04.03.1950"]}))
    assert note_twins(rows_of({"dob": ["18326", "17.08.1961", "04.03.1950"]}))


def test_years_and_months_of_birth_say_too_little():
    assert note_twins(rows_of({"dob": ["1950", "1961", "1950"]})) == []
    assert note_twins(rows_of({"birthdate": ["1950-03", "1961-02", "1950-03"]})) == []
    assert note_twins(rows_of({"date of biopsy": ["1950-03-04"] * 3})) == []


def test_days_in_the_place_of_unknown_ones_say_nothing():
    assert note_twins(rows_of({"dob": ["1950-01-01"] * 4 + ["1961-08-17"]})) == []
    assert note_twins(rows_of({"dob": [f"{1940 + i // 2}-07-01" for i in range(N)]})) == []


def test_a_day_of_many_cases_is_none_of_birth():
    cells = days("{y}-{m:02}-{d:02}")
    cells[3:7] = ["1951-04-17"] * 4
    assert note_twins(rows_of({"dob": cells})) == []
    cells[3] = "1944-09-30"
    assert len(note_twins(rows_of({"dob": cells}))) == 1


def test_many_cases_are_born_on_one_day_by_chance():
    cells = [f"{1940 + i % 50}-0{i % 9 + 1}-{i // 50 + 10}" for i in range(200)]
    cells[9] = cells[5]
    [note] = note_twins(rows_of({"dob": cells}))
    assert "p05 and p09 have the same date of birth (by chance about 0.9 would)." in note


def facts(n=N):
    return {
        "age": RNG.normal(60, 12, n).round().astype(int).tolist(),
        "sex": RNG.choice(["f", "m"], n).tolist(),
        "size": RNG.lognormal(2, 0.5, n).round(1).tolist(),
        "place": RNG.choice(["leg", "arm", "trunk"], n).tolist(),
        "file": [f"scan {i}.svs" for i in range(n)],
    }


def test_cases_that_agree_in_every_fact_are_noted():
    columns, times = facts(), RNG.exponential(900, N).round()
    assert note_twins(rows_of(columns, times)) == []
    for cells in (columns["age"], columns["sex"], columns["size"], columns["place"], times):
        cells[22] = cells[8]
    [note] = note_twins(rows_of(columns, times))
    assert note.startswith("Cases p08 and p22 agree in every fact of the table.")
    times[22] += 1
    assert note_twins(rows_of(columns, times)) == []


def test_few_facts_of_few_values_agree_by_chance():
    sex, grade, site = (
        RNG.choice(words, N).tolist() for words in (["f", "m"], ["1", "2"], ["x", "y"])
    )
    assert note_twins(rows_of({"sex": sex, "grade": grade, "site": site})) == []
    assert note_twins(rows_of({"id": [f"k{i}" for i in range(N)]})) == []
    assert note_twins([]) == []
    noted = sum(bool(note_twins(rows_of(facts()))) for _ in range(100))
    assert noted <= 2


def test_slides_of_one_case_are_no_twins():
    rows = [Row(line=i, case=f"p{i // 2}", slide=f"s{i}", other={"dob": days("{y}-{m:02}-{d:02}")[i // 2]})
            for i in range(2 * N)]  # fmt: skip
    assert note_twins(rows) == []
