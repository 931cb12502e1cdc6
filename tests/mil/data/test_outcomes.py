"""From the columns of a table to times and events, or a message."""

import re

import pytest

from features.bags.bag import write_bag
from mil.data.cohort import assemble
from mil.data.outcomes import with_outcomes
from mil.data.table import read_table
from mil.errors import CohortError
from mil.tasks.survival import Survival
from tests.mil.made import made_bag


def rows_of(tmp_path, *lines, header="case,slide,time,event"):
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return read_table(path)


def test_times_and_events_leave_the_further_columns_and_a_class_joins_them(tmp_path):
    lines = ["a,a1,LMS,12.5,1,40", "b,b1,SS,0,0,50"]
    rows = rows_of(tmp_path, *lines, header="case,slide,label,OS.time,OS,age")
    labelled = with_outcomes(rows, "OS.time", "OS")
    assert [(row.label, row.time) for row in labelled] == [("event", 12.5), ("censored", 0.0)]
    assert labelled[0].other == {"age": "40", "label": "LMS"}


@pytest.mark.parametrize(
    ("word", "label"),
    [("1", "event"), ("Dead", "event"), ("TRUE", "event"), ("1.0", "event"), ("yes", "event"),
     ("0", "censored"), ("alive", "censored"), ("False", "censored")],
)  # fmt: skip
def test_event_may_be_written_as_a_word(tmp_path, word, label):
    rows = rows_of(tmp_path, f"a,a1,3,{word}")
    assert with_outcomes(rows, "time", "event")[0].label == label


@pytest.mark.parametrize("word", ["", "NA", "[Not Available]", "#N/A", "unknown"])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_missing_is_no_outcome(tmp_path, word, place):
    fields = ["3", "1"]
    fields[place] = word
    rows = rows_of(tmp_path, f"a,a1,{','.join(fields)}", "b,b1,3,1")
    first = with_outcomes(rows, "time", "event")[0]
    assert (first.label, first.time) == ("", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,a1,-3,1", r"line 2: time is '-3'; a time is a number from 0"),
        ("a,a1,soon,1", "line 2: time is 'soon'"),
        ("a,a1,inf,1", "line 2: time is 'inf'"),
        ("a,a1,3,2", r"line 2: event is '2'\. Write 1 where the event happened"),
        ("a,a1,3,perhaps", "event is 'perhaps'"),
    ],
)
def test_field_that_cannot_be_read_is_named(tmp_path, line, message):
    with pytest.raises(CohortError, match=message):
        with_outcomes(rows_of(tmp_path, line), "time", "event")


def test_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(
        CohortError, match=r"no column 'OS'.*it has time, event. Set time to the name"
    ):
        with_outcomes(rows_of(tmp_path, "a,a1,3,1"), "OS", "event")


@pytest.mark.parametrize("second", ["a,a2,4,1", "a,a2,3,0", "a,a2,,"])
def test_case_with_two_outcomes_is_refused(tmp_path, second):
    with pytest.raises(CohortError, match="case 'a' has two outcomes, on lines 2 and 3"):
        with_outcomes(rows_of(tmp_path, "a,a1,3,1", second), "time", "event")


def test_table_without_any_outcome_is_refused(tmp_path):
    with pytest.raises(CohortError, match="no case has both time and event"):
        with_outcomes(rows_of(tmp_path, "a,a1,,1"), "time", "event")


@pytest.fixture
def store(tmp_path):
    for name in ("a1", "b1"):
        write_bag(tmp_path / "store" / f"{name}.h5", made_bag(name))
    return tmp_path / "store"


def test_cohort_without_an_outcome_for_a_case_names_it(tmp_path, store):
    rows = rows_of(tmp_path, "a,a1,3,1", "b,b1,,")
    with pytest.raises(CohortError, match=r"b1 \(no outcome\)"):
        assemble(rows, store, task=Survival())
    cohort = assemble(rows, store, task=Survival(), allow_missing=True)
    assert [(c.name, c.time, c.label) for c in cohort.cases] == [("a", 3.0, "event")]


def test_cohort_without_an_event_is_refused(tmp_path, store):
    rows = rows_of(tmp_path, "a,a1,3,0", "b,b1,4,0")
    with pytest.raises(CohortError, match="holds no event"):
        assemble(rows, store, task=Survival())


@pytest.mark.parametrize(
    ("word", "label"),
    [("1:DECEASED", "event"), ("0:LIVING", "censored"), ("1: Recurred/Progressed", "event"),
     ("0:DiseaseFree", "censored"), ("Deceased", "event"), ("living", "censored"), ("verstorben", "event"),
     ("Lebt", "censored"), ("am Leben", "censored"), ("nein", "censored"), ("Décédé", "event")],
)  # fmt: skip
def test_words_of_portals_are_events(tmp_path, word, label):
    rows = rows_of(tmp_path, f"a,a1,3,{word}", header="Patient ID,Sample ID,OS_MONTHS,OS_STATUS")
    [row] = with_outcomes(rows, "OS months", "os.status")
    assert (row.label, row.other) == (label, {})


def test_times_without_variation_are_refused_before_any_fit(tmp_path):
    rows = rows_of(tmp_path, "a,a1,7,1", "b,b1,7.0,0", "c,c1,,1")
    with pytest.raises(CohortError, match=r"every case has the same time, 7, so that nothing"):
        with_outcomes(rows, "time", "event")


@pytest.mark.parametrize("cells", [("1", "-"), ("dead", "none", "1"), ("ja", "\N{EN DASH}", "NA")])
def test_a_dash_that_may_mean_no_event_is_refused(tmp_path, cells):
    rows = rows_of(tmp_path, *(f"c{i},s{i},{3 + i},{cell}" for i, cell in enumerate(cells)))
    with pytest.raises(
        CohortError, match=f"{cells[1]!r} usually stands for a missing value. Write 0 where"
    ):
        with_outcomes(rows, "time", "event")


@pytest.mark.parametrize("cells", [("1", "2"), ("2.0", "1.0"), ("1", "2", "")])
def test_events_of_ones_and_twos_are_refused_with_both_readings(tmp_path, cells):
    rows = rows_of(tmp_path, *(f"c{i},s{i},{3 + i},{cell}" for i, cell in enumerate(cells)))
    with pytest.raises(
        CohortError, match="Some write 2 for the event and 1 for none, some the other"
    ):
        with_outcomes(rows, "time", "event")


@pytest.mark.parametrize(
    ("word", "label"),
    [("2 = dead", "event"), ("1 (Deceased)", "event"), ("0 - lebt", "censored"), ("DCD", "event"),
     ("DECEDE", "event"), ("perdu de vue", "censored"), ("Fallecida", "event"), ("sin recidiva", "censored"),
     ("Deceduto", "event"), ("Óbito", "event"), ("overleden", "event"), ("in leven", "censored"),
     ("死亡", "event"), ("生存", "censored"), ("失访", "censored"), ("żyje", "censored"),
     ("Dead (attributable to this cancer dx)", "event"), ("Alive or dead of other cause", "censored"),
     ("Lost to follow-up", "censored"), ("1:Dead with tumor", "event"),
     ("0:ALIVE OR DEAD TUMOR FREE", "censored"), ("DOC", None), ("AWD", None), ("1:LIVING", None),
     ("0:DECEASED", None), ("1 = alive", None), ("1 = x", None)],
)  # fmt: skip
def test_words_of_registries_are_events_and_what_may_be_either_is_refused(tmp_path, word, label):
    rows = rows_of(tmp_path, f'a,a1,3,"{word}"')
    if label is None:
        with pytest.raises(CohortError, match="Write 1 where the event happened"):
            with_outcomes(rows, "time", "event")
    else:
        assert with_outcomes(rows, "time", "event")[0].label == label


@pytest.mark.parametrize(
    ("column", "why"),
    [("alive", "says that the event did not happen"), ("Censored?", "says that the event did not"),
     ("lebt", "says that the event did not"), ("disease_free", "says that the event did not"),
     ("Vivant", "says that the event did not"), ("生存", "says that the event did not"),
     ("vital_status", "write 1 for alive"), ("PUF_VITAL_STATUS", "write 1 for alive"),
     ("Estado vital", "write 1 for alive")],
)  # fmt: skip
@pytest.mark.parametrize("cells", [("1", "0"), ("yes", "no"), ("TRUE", "FALSE"), ("0", "0", "1")])
def test_events_that_may_mean_the_opposite_are_refused(tmp_path, column, why, cells):
    lines = [f"c{i},s{i},{3 + i},{cell}" for i, cell in enumerate(cells)]
    rows = rows_of(tmp_path, *lines, header=f"case,slide,time,{column}")
    with pytest.raises(
        CohortError, match=rf"column {re.escape(column)}: .*{why}.* Write words, such as dead"
    ):
        with_outcomes(rows, "time", column)
    words = [f"c{i},s{i},{3 + i},{['dead', 'alive'][i % 2]}" for i in range(3)]
    rows = rows_of(tmp_path, *words, header=f"case,slide,time,{column}")
    assert [row.label for row in with_outcomes(rows, "time", column)] == [
        "event",
        "censored",
        "event",
    ]


@pytest.mark.parametrize(
    "column", ["dead", "OS", "status", "event", "OS_STATUS", "relapse", "tot", "died?"]
)
def test_ones_of_other_columns_are_events(tmp_path, column):
    rows = rows_of(tmp_path, "a,a1,3,1", "b,b1,4,0", header=f"case,slide,time,{column}")
    assert [row.label for row in with_outcomes(rows, "time", column)] == ["event", "censored"]


@pytest.mark.parametrize("word", ["-1", "\N{MINUS SIGN}1", "-0", "- 1"])
def test_a_number_below_zero_is_no_event(tmp_path, word):
    with pytest.raises(CohortError, match="Write 1 where the event happened"):
        with_outcomes(rows_of(tmp_path, f"a,a1,3,{word}", "b,b1,4,1"), "time", "event")


def test_a_column_that_marks_events_alone_is_refused(tmp_path):
    rows = rows_of(tmp_path, "a,a1,3,dead", "b,b1,4,", "c,c1,9,", "d,d1,,")
    with pytest.raises(
        CohortError, match="marks events but no censored case, and is empty in 2 rows"
    ):
        with_outcomes(rows, "time", "event")
    rows = rows_of(tmp_path, "a,a1,3,dead", "b,b1,4,alive", "c,c1,9,")
    assert [row.label for row in with_outcomes(rows, "time", "event")] == ["event", "censored", ""]


def test_times_of_events_alone_are_refused(tmp_path):
    header = "case,slide,days_to_death,OS"
    rows = rows_of(tmp_path, "a,a1,30,1", "b,b1,,0", "c,c1,[Not Applicable],0", header=header)
    with pytest.raises(CohortError, match="days_to_death is empty in every case without the event"):
        with_outcomes(rows, "days_to_death", "OS")


def test_events_in_the_place_of_times_are_refused(tmp_path):
    rows = rows_of(tmp_path, "a,a1,1,1", "b,b1,0,0", "c,c1,1.0,0")
    with pytest.raises(
        CohortError, match="column time holds 0 and 1 alone, as a column of events does"
    ):
        with_outcomes(rows, "time", "event")


@pytest.mark.parametrize(
    ("column", "unit", "word"),
    [("OS_MONTHS", "days", "months"), ("days_to_x", "months", "days"),
     ("Überleben (Jahre)", "months", "jahre"), ("survie mois", "days", "mois")],
)  # fmt: skip
def test_times_under_the_name_of_another_unit_are_refused(tmp_path, column, unit, word):
    rows = rows_of(tmp_path, "a,a1,3,1", "b,b1,7,0", header=f"case,slide,{column},event")
    with pytest.raises(
        CohortError, match=f"names {word}, and the times would be shown in {unit}. Set time_unit"
    ):
        Survival(time=column, time_unit=unit).label_rows(rows, "t.csv")
    assert Survival(time=column, time_unit=word).label_rows(rows, "t.csv")[0].time == 3


@pytest.mark.parametrize(
    "column", ["time", "t", "OS", "OS.time", "days or months", "d", "holidays"]
)
def test_times_without_a_unit_in_their_name_are_read(tmp_path, column):
    rows = rows_of(tmp_path, "a,a1,3,1", "b,b1,7,0", header=f"case,slide,{column},event")
    assert Survival(time=column, time_unit="years").label_rows(rows, "t.csv")[1].time == 7


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("AWD", "no event of overall survival, and one of"),
        ("DOC", "an event of overall survival, and"),
    ],
)
def test_a_word_that_depends_on_the_question_is_explained(tmp_path, word, meaning):
    with pytest.raises(CohortError, match=rf"event is '{word}'\. Write 1 .* {word} is {meaning}"):
        with_outcomes(rows_of(tmp_path, f"a,a1,3,{word}", "b,b1,4,0"), "time", "event")
