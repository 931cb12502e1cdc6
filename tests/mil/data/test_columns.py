"""Columns made from an outcome, known only after it, or counting the rows are found; true facts are not."""

from dataclasses import replace
from time import process_time

import numpy as np
import pytest

from mil.data.case import Case
from mil.data.columns import note_calendar, note_declared, odd_cells, telling_columns
from mil.data.encoding import check_telling, clinical_columns, readable
from mil.data.following import parts_times, tells_event
from mil.data.outcomes import CENSORED, EVENT
from mil.data.reading import TableReading
from mil.data.table import read_table, training_rows
from mil.errors import CohortError
from mil.report.table_one import table_one
from tests.mil.made import made_bag

RNG = np.random.default_rng(5)
N = 24
TIME = np.sort(RNG.exponential(400, N))[RNG.permutation(N)].round() + 1
DIED = RNG.random(N) < 0.6
AGES = [str(int(age)) for age in RNG.normal(60, 12, N)]


def survivors(**columns):
    bags = (made_bag("s"),)
    return [
        Case(
            name=f"c{i:02}",
            label=EVENT if DIED[i] else CENSORED,
            time=float(TIME[i]),
            bags=bags,
            other={name: str(column[i]) for name, column in columns.items()},
        )
        for i in range(N)
    ]


FROM_TIME = {
    "months": [f"{t / 30.44:.1f}" for t in TIME],
    "weeks, whole": [str(int(t // 7)) for t in TIME],
    "hours": TIME * 24,
    "negative": -TIME,
    "rank": np.argsort(np.argsort(TIME)) + 1,
    "log": np.log(TIME),
    "noisy": TIME * RNG.uniform(0.95, 1.05, N),
    "death only": [
        f"{t + 3:.0f}" if died else "[Not Applicable]" for t, died in zip(TIME, DIED, strict=True)
    ],
}  # fmt: skip
FROM_EVENT = {
    "state": np.where(DIED, "gone", "here"),
    "code": np.where(DIED, 2, 1),
    "cause": np.where(DIED, "sarcoma", ""),
    "visit": ["" if died else f"{i} May" for i, died in enumerate(DIED)],
    "score": np.where(DIED, 5.0, 1.0) + RNG.random(N),
}


@pytest.mark.parametrize("column", [*FROM_TIME, *FROM_EVENT])
def test_what_is_made_from_the_follow_up_is_found_and_refused(column):
    cases = survivors(**{column: (FROM_TIME | FROM_EVENT)[column], "age": AGES})
    [found] = telling_columns(cases, [column, "age"])
    assert found.column == column
    assert found.reason in ("has the order of the follow-up times", "tells the events")
    with pytest.raises(CohortError, match=f"column {column} (has|tells)"):
        readable(cases, (column, "age"))
    assert [c.name for c in readable(cases, ("age",)).columns] == ["age"]


@pytest.mark.parametrize(
    "column",
    ["days_to_death", "Days To Last Followup", "vital_status", "OS_STATUS", "PFI.time",
     "new_tumor_event_dx", "Disease Free Survival", "last_contact", "death_days_to", "relapse",
     "Local recurrence", "recurred", "Lokalrezidiv", "date of relapse", "progression_status", "verstorben",
     "Todesdatum", "Überlebenszeit", "years survived", "died", "long-term", "last visit",
     "Décès", "Date de décès", "Dernières nouvelles", "survie (mois)", "Récidive", "statut vital", "Suivi",
     "Estado vital", "fecha de fallecimiento", "supervivencia_meses", "Recaída", "Progresión", "seguimiento",
     "stato in vita", "data del decesso", "sopravvivenza", "Óbito", "data do óbito", "sobrevida",
     "Progressão",
     "Overleden", "datum overlijden", "overlevingsduur", "recidief", "laatste contact", "Przeżycie", "zgon",
     "予後", "最終確認日", "随访时间", "生存期", "死亡", "복발 재발", "lost to follow-up",
     "disease-free",
     "fup_months", "FU (mo)", "last_fu_date", "months of FUP", "OS (years)", "DSS [d]",
     "DMFS_months", "TTP", "Death from cancer", "last known disease status", "lebt", "censored"],
)  # fmt: skip
def test_what_registries_fill_in_afterwards_is_found_by_its_name(column):
    cases = survivors(**{column: RNG.integers(0, 3, N)})
    assert [str(f) for f in telling_columns(cases, [column])] == [
        f"{column} is known only from the follow-up"
    ]
    classes = [replace(case, time=None) for case in cases]
    assert telling_columns(classes, [column]) == ()  # a later fact tells no class


@pytest.mark.parametrize(
    "column",
    ["5-FU", "function", "fup_shape", "dose (d)",
     "prior recurrence", "previous_relapse", "history of progression", "vitality", "age at death of mother",
     "progesterone receptor", "diedrich score", "primary or recurrent", "grade", "timepoint", "tod dose",
     "antécédent de récidive", "recidiva previa", "recidief eerder", "mortar", "survivin", "suspicion",
     "lastname", "dead volume", "obitus fundi", "vital capacity", "exitus bleeding", "censorship law",
     "LN status", "tote Zellen", "dodecane"],
)  # fmt: skip
def test_what_is_known_at_diagnosis_is_read_whatever_it_is_called(column):
    cases = survivors(**{column: RNG.integers(0, 3, N)})
    assert telling_columns(cases, [column]) == ()


def test_facts_of_a_case_are_none_of_these():
    necrosis, site = RNG.choice(["yes", "no"], N), RNG.choice(["leg", "arm", "trunk"], N)
    size = RNG.lognormal(2, 0.5, N).round(1)
    related = (size + 2 * TIME / TIME.max()).round(1)
    cases = survivors(age=AGES, necrosis=necrosis, site=site, size=size, related=related)
    assert telling_columns(cases, cases[0].other) == ()


@pytest.mark.parametrize(
    ("name", "cells"),
    [("nr.", range(5, N + 5)), ("count", range(1, N + 1)), ("step", range(0, 3 * N, 3)),
     ("patient id", [f"x{7 * i % 97}" for i in range(N)]), ("shuffled", RNG.permutation(N))],
)  # fmt: skip
def test_what_counts_the_rows_is_found(name, cells):
    cases = survivors(**{name: list(cells)})
    assert [found.reason for found in telling_columns(cases, [name])] == [
        "numbers or names the cases"
    ]


@pytest.mark.parametrize(
    "name",
    ["age", "Age (years)", "age_at_diagnosis", "AGE", "Alter", "alter bei Diagnose", "Âge", "edad", "età",
     "idade", "Leeftijd", "ålder", "wiek", "věk", "ikä", "возраст", "patient_age", "年龄"],
)  # fmt: skip
@pytest.mark.parametrize("start", [1, 31])
def test_an_age_numbers_no_cases(name, start):
    for make in (survivors, lambda **other: [replace(c, time=None) for c in survivors(**other)]):
        assert telling_columns(make(**{name: list(range(start, start + N))}), [name]) == ()


@pytest.mark.parametrize("name", ["lineage", "stage", "image", "alteration", "agent", "beta"])
def test_other_words_are_no_age(name):
    assert telling_columns(survivors(**{name: list(range(1, N + 1))}), [name])


def test_a_column_that_numbers_the_cases_is_refused_as_such_and_can_be_declared():
    cases = survivors(size=list(range(11, N + 11)), patient_id=list(range(N)), no=list(range(N)))
    with pytest.raises(CohortError, match="number") as error:
        check_telling(cases, ("size",))
    assert "outcome" not in str(error.value)
    assert "name it in known_at_diagnosis" in str(error.value)
    declared = [replace(case, known_at_diagnosis=tuple(case.other)) for case in cases]
    check_telling(declared, ("size",))
    for name in ("patient_id", "no"):
        with pytest.raises(CohortError, match=f"column {name} numbers or names the cases"):
            check_telling(declared, (name,))


def test_the_label_in_other_words_is_found():
    labels = ["LMS", "SS", "MFS"] * 4
    cases = [
        Case(
            name=f"c{i}", label=label, bags=(),
            other={"code": str(labels.index(label)), "age": AGES[i], "MDM2": "+" if i % 4 else "-"},
        )
        for i, label in enumerate(labels)
    ]  # fmt: skip
    assert [str(found) for found in telling_columns(cases, cases[0].other)] == [
        "code says the outcome in other words"
    ]
    with pytest.raises(CohortError, match="code says the outcome in other words"):
        check_telling(cases, ("code",))


def test_clinical_columns_of_a_survival_cohort_are_named():
    with pytest.raises(CohortError, match=r"Set clinical to the columns .*It has age\."):
        readable(survivors(age=AGES), ())


def test_odd_cells_are_named_and_numbers_stay_numbers():
    ages = [*AGES[:-2], "about 60", "[Unknown]"]
    cases = survivors(age=ages)
    [note] = odd_cells(cases)
    assert note.startswith(
        "Column age holds numbers but for 'about 60' (c22), which count as missing."
    )
    [column] = readable(cases, ("age",)).columns
    assert column.categories == ()


def test_table_one_counts_odd_cells_as_missing():
    import pandas as pd

    cells = [*AGES[:-2], "ca. 60", "NA"]
    table = pd.DataFrame(
        {"case": range(N), "label": ["a", "b"] * (N // 2), "age": cells, "x": ["NA", "u", "v"] * 8}
    )
    age, x = table_one(table, ("a", "b"))
    assert (age.unit, age.missing) == ("median (quartiles); no numbers: ca. 60", 2)
    assert [level for level, _ in x.levels] == ["u", "v"]
    assert x.missing == 8


@pytest.mark.parametrize(
    "column", ["relapse_score", "time_to_surgery", "days_to_biopsy", "Rezidivrisiko_log"]
)
def test_a_column_that_is_declared_to_be_known_at_diagnosis_is_read_and_named(column):
    cases = survivors(**{column: RNG.integers(10, 90, N), "age": AGES})
    if telling_columns(cases, [column]):
        with pytest.raises(CohortError, match=r"name it in known_at_diagnosis\."):
            readable(cases, (column, "age"))
    declared = [replace(case, known_at_diagnosis=(column,)) for case in cases]
    assert telling_columns(declared, [column, "age"]) == ()
    assert [c.name for c in readable(declared, (column, "age")).columns] == [column, "age"]
    [note] = note_declared(declared)
    assert note.startswith(f"Declared to be known when a case is diagnosed: {column}")
    assert note_declared(cases) == []


def test_what_follows_the_outcome_although_it_is_declared_is_named_with_the_reason():
    cases = survivors(months=FROM_TIME["months"], state=FROM_EVENT["state"], row=range(N), age=AGES)
    declared = [replace(case, known_at_diagnosis=("months", "state", "row")) for case in cases]
    assert [found.column for found in telling_columns(declared, cases[0].other)] == ["row"]
    [note] = note_declared(declared)
    assert (
        "months, which otherwise has the order of the follow-up times; state, which otherwise tells the"
        " events" in note
    )


def test_declared_columns_are_read_by_default_where_cases_have_classes():
    cases = [
        Case(
            name=f"c{i}",
            label="ab"[i % 2],
            bags=(),
            other={"relapse_score": str(7 * i % 11), "age": AGES[i]},
        )
        for i in range(10)
    ]
    assert clinical_columns(cases, ()) == ("age",)
    declared = [replace(case, known_at_diagnosis=("relapse_score",)) for case in cases]
    assert clinical_columns(declared, ()) == ("relapse_score", "age")


def test_declared_columns_come_from_the_table_and_have_to_be_there(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("case,slide,label,Relapse Score\nc,s,a,4\nd,t,b,9\n")
    rows = read_table(path, TableReading(known_at_diagnosis=("relapse_score",)))
    assert {row.known_at_diagnosis for row in rows} == {("Relapse Score",)}
    with pytest.raises(
        CohortError, match=r"no column 'score', which known_at_diagnosis names; it has Relapse"
    ):
        training_rows(path, reading=TableReading(known_at_diagnosis=("score",)))
    new = read_table(path, TableReading(known_at_diagnosis=("score",)))  # of another hospital
    assert {row.known_at_diagnosis for row in new} == {()}


def observed_until_one_day(seed, n, share):
    """Times, years of entry and events of cases that entered over ten years, with that share of events."""
    rng = np.random.default_rng(seed)
    longest = rng.permutation(np.linspace(0.5, 10.5, n))
    unit = rng.exponential(size=n)
    death = unit * np.quantile(longest / unit, 1 - share)
    return 365 * np.minimum(death, longest), 2020.5 - longest, death <= longest


def entering(seed, n, share, **columns):
    """Cases with columns, functions of time, year and event."""
    time, year, event = observed_until_one_day(seed, n, share)
    return [
        Case(
            name=f"c{i:03}", label=EVENT if event[i] else CENSORED, time=float(time[i]), bags=(),
            other={name: str(of(time[i], year[i], event[i])) for name, of in columns.items()},
        )
        for i in range(n)
    ]  # fmt: skip


CALENDAR = {
    "year": lambda _time, year, _event: int(year),
    "film": lambda _time, year, _event: round(year * 40),
    "diagnosed": lambda _time, year, _event: f"{int(year)}-{1 + int(year % 1 * 12):02}-15",
    "scanner": lambda _time, year, _event: "new" if year > 2014 else "old",
    "era": lambda _time, year, _event: "abc"[min(2, int(year - 2010) // 3)],
    "IHC": lambda _time, year, _event: "done" if year > 2015 else "",
}


@pytest.mark.parametrize(("n", "share"), [(20, 0.1), (50, 0.1), (120, 0.1), (50, 0.3)])
def test_what_follows_the_calendar_is_not_refused(n, share):
    """Of 20 cohorts with six such columns one may be named by chance."""
    cohorts = [entering(seed, n, share, **CALENDAR) for seed in range(20)]
    assert sum(bool(telling_columns(cases, CALENDAR)) for cases in cohorts) <= 1


def test_what_follows_the_calendar_is_remarked_on():
    [note] = note_calendar(entering(3, 40, 0.1, **CALENDAR), CALENDAR)
    assert "in the order of the times of observation, as is whatever changed over the years" in note
    assert {name for name in CALENDAR if name in note} >= {"year", "film", "diagnosed"}
    assert note_calendar(survivors(age=AGES), ["age"]) == []


@pytest.mark.parametrize(
    ("column", "n", "share"),
    [
        (lambda time, _year, _event: round(time / 30), 20, 0.1),
        (lambda time, _year, _event: -round(time), 50, 0.1),
        (lambda time, _year, _event: "long" if time > 1500 else "short", 50, 0.3),
        (lambda time, _year, _event: "seen" if time > 1500 else "", 120, 0.1),
        (lambda _time, _year, event: "gone" if event else "here", 20, 0.1),
        (lambda time, _year, event: event * 9 + time % 7, 50, 0.1),
    ],
    ids=["months", "negative", "classes", "filled", "event", "score"],
)  # fmt: skip
def test_what_is_made_from_the_follow_up_is_found_where_times_follow_the_calendar(column, n, share):
    for seed in range(5):
        [found] = telling_columns(entering(seed, n, share, x=column), ["x"])
        assert found.reason != "numbers or names the cases"


def test_rare_facts_tell_no_events():
    """One rare word falls on one of two events in every tenth cohort."""
    time, _, event = observed_until_one_day(4, 20, 0.1)
    place = int(np.flatnonzero(event)[0])
    cells = ["yes" if i == place else "no" for i in range(20)]
    assert not tells_event(cells, event)
    assert tells_event(["yes" if died else "no" for died in event], event)
    numbers = np.where(event, 90, 1) + np.random.default_rng(3).random(20)
    assert not tells_event([f"{number:.2f}" for number in numbers], event)
    assert not parts_times(cells, time, event, or_calendar=True)


@pytest.mark.parametrize(
    "cells", [["F", "m", "f", "m"], ["yes", "no", "Yes", "no"], ["well diff.", "poor", "well-diff", "poor"],
              ["TRUE", "False", "True", "False"]]
)  # fmt: skip
def test_words_in_two_spellings_are_noted_and_refused_where_they_are_to_be_read(cells):
    cases = survivors(x=(cells * N)[:N], age=AGES)
    [note] = odd_cells(cases, ["x"])
    assert "which differ in spelling only and count as two" in note
    with pytest.raises(CohortError, match="differ in spelling only: each would be a category"):
        readable(cases, ("x", "age"))
    plain = survivors(x=(["I-II", "III", "3+", "3-"] * N)[:N], age=AGES)
    assert odd_cells(plain, ["x"]) == []


def test_ages_beyond_a_life_are_noted():
    ages = [*AGES[:-2], "630", "-4"]
    [note] = odd_cells(survivors(**{"age at diagnosis": ages}))
    assert note.startswith(
        "Column age at diagnosis holds 630 (c22), -4 (c23), which is no age in years"
    )
    assert odd_cells(survivors(age=[str(365 * int(age)) for age in AGES])) == []  # in days
    assert not any("age in years" in note for note in odd_cells(survivors(percentage=ages)))


def test_two_thousand_cases_are_looked_at_in_a_moment():
    rng = np.random.default_rng(2)
    event = rng.random(2000) < 0.5
    time = rng.exponential(300, 2000)
    noisy = event + rng.normal(0, 0.22, 2000)
    cells = [f"{number:.3f}" for number in noisy]
    groups = ["late" if t + rng.normal(0, 9) > 200 else "early" for t in time]
    start = process_time()
    assert tells_event(cells, event)
    assert parts_times(groups, time, event)
    assert process_time() - start < 5
