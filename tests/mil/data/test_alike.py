"""Words that are one in two codings, or with a slip of typing, are named; words that resemble are not."""

import pytest

from mil.data.alike import alike_words, nearly_alike, same_meaning
from mil.data.case import Case, Row
from mil.data.columns import odd_cells
from mil.data.encoding import check_numbers
from mil.data.table import read_table
from mil.errors import CohortError
from mil.tasks.grade import Grade


def table(tmp_path, labels):
    path = tmp_path / "t.csv"
    rows = [f"p{i},s{i},{label}" for i, label in enumerate(labels)]
    path.write_text("\n".join(["case,slide,label", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("cells", "pair"),
    [
        (["yes", "no", "1", "0"], {"0", "no"}), (["ja", "j", "nein"], {"ja", "j"}),
        (["TRUE", "FALSE", "1"], {"1", "TRUE"}), (["oui", "non", "x"], {"oui", "x"}),
        (["m", "f", "male"], {"m", "male"}), (["w", "weiblich", "m"], {"w", "weiblich"}),
        (["Männlich", "m", "f"], {"Männlich", "m"}), (["女", "男", "女性"], {"女", "女性"}),
        (["I", "II", "2", "III"], {"II", "2"}), (["G1", "G2", "1"], {"G1", "1"}),
        (["grade 1", "Grad 1", "II"], {"grade 1", "Grad 1"}),
    ],
)  # fmt: skip
def test_one_fact_in_two_codings_is_named_and_refused(cells, pair):
    cells = cells * 4
    first, second, why = alike_words(cells)
    assert {first, second} == pair
    assert why == "seem to mean the same"
    cases = [Case(name=f"c{i}", label="ab"[i % 2], bags=(), other={"fact": cell})
             for i, cell in enumerate(cells)]  # fmt: skip
    [note] = odd_cells(cases)
    assert "which seem to mean the same and count as two" in note
    with pytest.raises(CohortError, match="which seem to mean the same: each would be a category"):
        check_numbers(cases, ("fact",))


@pytest.mark.parametrize(
    "cells",
    [["yes", "no"], ["m", "f"], ["h", "m"], ["I", "II", "III"], ["G1", "G2", "G3"], ["1", "2", "3"],
     ["yes", "no", "partly", "y?"], ["m", "male", "tomcat"], ["I", "II", "2a"], ["x", ""],
     ["T1", "T2", "1"], ["s", "n", "m"], ["o", "n"], ["x", "y", "n"],
     ["x", "yes"], ["f", "w"], ["I", "1"]],
)  # fmt: skip
def test_other_words_are_left_alone(cells):
    assert alike_words(cells * 3) is None
    assert same_meaning(sorted({*cells} - {""})) is None


@pytest.mark.parametrize("labels", [["yes", "1", "no"], ["G2", "2", "G3"], ["male", "m", "f"]])
def test_labels_of_one_meaning_are_refused(tmp_path, labels):
    with pytest.raises(CohortError, match=r"seem to mean the same\. Write them alike if they do"):
        read_table(table(tmp_path, labels))


def test_grades_of_one_meaning_are_refused_also_where_their_order_is_stated(tmp_path):
    rows = [Row(line=i + 2, case=f"p{i}", slide=f"s{i}", other={"grade": grade})
            for i, grade in enumerate(["I", "1", "II"])]  # fmt: skip
    with pytest.raises(CohortError, match="grade '1' and 'I' seem to mean the same"):
        Grade(grade_order=("I", "1", "II")).label_rows(rows, "t.csv")


@pytest.mark.parametrize(
    ("one", "other"),
    [("Fibrosarkom", "Fibrosarcom"), ("Leiomysarcoma", "Leiomyosarcoma"),
     ("Lieomyosarcoma", "Leiomyosarcoma"), ("myxoid liposarcma", "myxoid liposarcoma"),
     ("positive", "positiv"), ("Angiosarcoma-low", "Angiosarcome low")],
)  # fmt: skip
def test_labels_that_differ_by_a_letter_are_noted(tmp_path, one, other):
    notes = []
    assert {
        row.label for row in read_table(table(tmp_path, [one, other, "SS"]), notify=notes.append)
    }
    [note] = notes
    assert f"label {min(one, other)!r} and {max(one, other)!r} differ by a letter" in note


@pytest.mark.parametrize("joint", ["LMS;SS", "SS / LMS", "LMS and SS", "LMS+SS", "SS oder LMS"])
def test_labels_that_join_others_are_noted(tmp_path, joint):
    notes = []
    read_table(table(tmp_path, ["LMS", "SS", joint, "MFS/X"]), notify=notes.append)
    [note] = notes
    assert f"label {joint!r} joins others and counts as a class of its own" in note


@pytest.mark.parametrize(
    ("one", "other"),
    [("myxoma", "myoma"), ("sarcoma type A", "sarcoma type B"), ("hyperplasia", "hypoplasia"),
     ("Hospital 12", "Hospital 13"), ("Ward3sarcoma", "Ward2sarcoma"),
     ("Leiomyosarcoma", "Leiomyosarcoma NOS"),
     ("responder", "non-responder"), ("Liposarcoma", "Angiosarcoma"), ("LMS", "LMA")],
)  # fmt: skip
def test_labels_of_their_own_are_not(one, other):
    assert nearly_alike([one, other, "SS"]) is None


def test_accents_are_spelling(tmp_path):
    with pytest.raises(
        CohortError, match="'Ostéosarcome' and 'Osteosarcome' differ in spelling only"
    ):
        read_table(table(tmp_path, ["Ostéosarcome", "Osteosarcome", "b"]))


def test_rows_are_looked_at_as_cases_are():
    rows = [Row(line=i + 2, case=f"p{i}", slide=f"s{i}", other={"sex": sex})
            for i, sex in enumerate(["m", "f", "male"])]  # fmt: skip
    assert len(odd_cells(rows)) == 1
