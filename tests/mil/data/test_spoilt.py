"""What a spreadsheet has made of names and labels is refused, and so are codes for what is not known."""

import pytest

from mil.data.columns import sentinels
from mil.data.quantities import is_date
from mil.data.reading import TableReading
from mil.data.spoilt import code_among
from mil.data.table import read_table
from mil.errors import CohortError
from mil.tasks.grade import Grade


def table(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "names", [("2024-05-06", "2024-05-07"), ("2019-03-04", "2019-03-04b"), ("Feb-11", "Feb-12")]
)
def test_names_that_are_all_dates_are_names(tmp_path, names):
    rows = [f"{name},s{number},a" for number, name in enumerate(names)]
    assert [
        row.case for row in read_table(table(tmp_path, "\n".join(["case,slide,label", *rows])))
    ] == [*names]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2.41E+11,s1,a", "2.42E+11,s2,b"], "case '2.41E\\+11' was shortened by a spreadsheet"),
        (['"5,7e+08",s1,a', "c,s2,b"], "case '5,7e\\+08' was shortened"),
        (["c,1.1E+09,a", "d,s2,b"], "slide '1.1E\\+09' was shortened"),
        (["11-Feb,s1,a", "7-31,s2,b"], "case '11-Feb' is a date, .* and '7-31' is none"),
        (["c,2024-05-06,a", "d,B5-61,b"], "slide '2024-05-06' is a date"),
        (["c,s1,Apr-02", "d,s2,3-5"], "label 'Apr-02' is a date, which spreadsheets make of 1-3"),
        (["c,s1,4. Mai", "d,s2,b"], "label '4. Mai' is a date"),
        (["c,s1,01.02.2026", "d,s2,b"], "label '01.02.2026' is a date"),
        (["c,s1,1", "d,s2,2", "e,s3,9"], "label '9', beside 1, 2, is often a code"),
        (["c,s1,0", "d,s2,1", "e,s3,-9"], "label '-9', beside 0, 1, is often a code"),
        (["c,s1,LMS", "d,s2,SS", "e,s3,0"], "label '0', beside LMS, SS, is often a code"),
        (["c,s1,LMS", "d,s2,SS", "e,s3,-99"], "label '-99', beside LMS, SS, is often a code"),
        (["c,s1,1", "d,s2,3", "e,s3,9", "f,s4,99"], "label '9', beside 1, 3, 99, is often a code"),
    ],
)
def test_spoilt_names_and_codes_are_refused(tmp_path, rows, message):
    with pytest.raises(CohortError, match=message):
        read_table(table(tmp_path, "\n".join(["case,slide,label", *rows])))


@pytest.mark.parametrize(
    "labels", [["1", "2", "3"], ["1", "2"], ["8", "9", "7"], ["1", "99"], ["Marginal 2", "wide"],
               ["May", "Juni"], ["5", "6", "9"], ["G1", "G2", "G9"], ["MSI", "0"],
               ["G1", "G2", "0"], ["a", "b", "5"], ["a", "b", "0", "1"],
               ["1e", "2e"], ["Mar", "Sept"]]
)  # fmt: skip
def test_ordinary_labels_are_read(tmp_path, labels):
    rows = [f"c{i},s{i},{label}" for i, label in enumerate(labels)]
    read = read_table(table(tmp_path, "\n".join(["case,slide,label", *rows])))
    assert [row.label for row in read] == labels


def test_a_code_or_a_date_that_is_meant_is_a_label(tmp_path):
    path = table(tmp_path, "case,slide,label\nc,s1,1\nd,s2,2\ne,s3,9\n")
    assert [row.label for row in read_table(path, TableReading(label_is=("9",)))] == ["1", "2", "9"]
    path = table(tmp_path, "case,slide,label\nc,s1,Apr-02\nd,s2,b\n")
    assert read_table(path, TableReading(label_is=("Apr-02",)))[0].label == "Apr-02"


def test_a_code_among_grades_is_refused_unless_it_is_in_the_order(tmp_path):
    path = table(tmp_path, "case,slide,grade\nc,s1,1\nd,s2,3\ne,s3,9\n")
    rows = read_table(path)
    with pytest.raises(CohortError, match="column 'grade' holds '9', often a code for a grade"):
        Grade().label_rows(rows, "t.csv")
    labelled = Grade(grade_order=("1", "3", "9")).label_rows(rows, "t.csv")
    assert [row.label for row in labelled] == ["1", "3", "9"]


def test_a_code_in_a_column_is_noted():
    assert sentinels([1.0, 2.0, 2.0, 9.0, 3.0]) == [3]
    assert sentinels([1.0, 2.0, 7.0, 9.0, 3.0]) == []
    assert code_among({"0", "1", "88"}) == "88"
    assert code_among({"1.5", "2", "9"}) == ""


@pytest.mark.parametrize(
    "cell", ["Mar-01", "3. Mai", "12 Jan 2019", "1. M\u00e4rz", "2 ao\u00fbt 2020", "Sept. 2021"]
)
def test_months_are_dates(cell):
    assert is_date(cell)


@pytest.mark.parametrize(
    "cell", ["marginal", "Maier", "Augsburg 2", "Martin", "Decidua", "Mayo", "Novartis 3"]
)
def test_words_that_begin_like_a_month_are_none(cell):
    assert not is_date(cell)


@pytest.mark.parametrize(
    ("column", "cells"),
    [("patient nr", ["7", "8", "7", "9"]), ("MRN", ["0071", "8", "71", "9"]),
     ("Fallnummer", ["4", "8", "4", "9"]), ("NHS number", ["a4", "8", "a4", "9"]),
     ("record_id", ["4", "8", "4", "9"]),
     ("pseudonym", ["k", "8", "k", "9"]), ("Patientennummer", ["x", "y", "x", ""]),
     ("submitter_id", ["TCGA-AB-1234-01", "q", "TCGA-AB-1234", "r"])],
)  # fmt: skip
def test_cases_of_one_patient_by_another_column_are_refused(tmp_path, column, cells):
    rows = [f"c{i},s{i},a,{cell}" for i, cell in enumerate(cells)]
    path = table(tmp_path, "\n".join([f"case,slide,label,{column}", *rows]))
    with pytest.raises(
        CohortError, match=f"cases 'c0' and 'c2' have the same {column}. If it names the patient"
    ):
        read_table(path)
    same = [f"c{i % 2},s{i},a,{'uv'[i % 2]}" for i in range(4)]
    assert len(read_table(table(tmp_path, "\n".join([f"case,slide,label,{column}", *same])))) == 4


@pytest.mark.parametrize(
    ("column", "cells"),
    [("patient name", ["anonymous"] * 4), ("patient_age", ["60", "61", "60", "70"]),
     ("MRN", ["NA", "1", "NA", "2"]),
     ("patient sex", ["f", "m", "f", "m"]), ("personnel", ["a", "b", "a", "c"])],
)  # fmt: skip
def test_columns_that_name_no_patient_are_read(tmp_path, column, cells):
    rows = [f"c{i},s{i},a,{cell}" for i, cell in enumerate(cells)]
    assert len(read_table(table(tmp_path, "\n".join([f"case,slide,label,{column}", *rows])))) == 4


def test_of_two_columns_of_cases_the_one_of_patients_is_named(tmp_path):
    path = table(tmp_path, "patient,case,slide,label\np,a,s1,x\np,b,s2,x\nq,c,s3,y\n")
    with pytest.raises(
        CohortError, match=r"both mean case\. Keep 'patient', which joins several of the other"
    ):
        read_table(path)
