"""The table is read as its authors meant it, or refused with the line."""

import re
import sys

import pytest

from mil.data.case import Row
from mil.data.names import matching
from mil.data.patients import note_blocks
from mil.data.reading import TableReading
from mil.data.separators import Signs, with_points
from mil.data.table import read_table
from mil.errors import CohortError


@pytest.fixture
def table(tmp_path):
    def write(text, name="cohort.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def read(path):
    return [(row.case, row.slide, row.label) for row in read_table(path)]


EXPECTED = [("c1", "s1", "LMS"), ("c2", "s2", "SS")]


@pytest.mark.parametrize(
    "header",
    [
        "case,slide,label",
        "case_id,slide_id,label",
        "PATIENT,FILENAME,LABEL",
        "patient,Slide,Label",
        "Patient_ID,filename,label",
        " case , slide ,label",
    ],
)
def test_names_of_columns_are_taken(table, header):
    assert read(table(f"{header}\nc1,s1,LMS\nc2,s2,SS\n")) == EXPECTED


@pytest.mark.parametrize("suffix", [".svs", ".SVS", ".tiff", ".ndpi", ".h5"])
def test_suffix_of_a_slide_file_is_no_part_of_its_name(table, suffix):
    assert read(table(f"PATIENT,FILENAME,label\nc1,s1{suffix},LMS\nc2,s2{suffix},SS\n")) == EXPECTED


def test_other_dots_stay_in_the_name(table):
    rows = read_table(table("case,slide,label\nc1,TCGA-01.02.svs,LMS\nc2,b.c,SS\n"))
    assert [row.slide for row in rows] == ["TCGA-01.02", "b.c"]


@pytest.mark.parametrize(
    ("text", "name", "encoding"),
    [
        ("case,slide,label\nc1,s1,LMS\nc2,s2,SS\n", "a.csv", "utf-8-sig"),
        ("case,slide,label\r\nc1,s1,LMS\r\nc2,s2,SS", "a.csv", "utf-8"),
        ("case\tslide\tlabel\nc1\ts1\tLMS\nc2\ts2\tSS\n", "a.tsv", "utf-8"),
        ("case\tslide\tlabel\nc1\ts1\tLMS\nc2\ts2\tSS\n", "A.TSV", "utf-8-sig"),
        ('"case","slide","label"\n"c1","s1","LMS"\n"c2","s2","SS"\n', "a.csv", "utf-8"),
        ("case,slide,label\n\nc1,s1,LMS\n,,\n  ,,\nc2, s2 ,SS\n\n", "a.csv", "utf-8"),
        ("\n,,\ncase,slide,label\nc1,s1,LMS\nc2,s2,SS\n", "a.csv", "utf-8"),
        ("label,slide,case\nLMS,s1,c1\nSS,s2,c2\n", "a.csv", "utf-8"),
    ],
    ids=["bom", "crlf", "tsv", "TSV-bom", "quoted", "blank", "blank-first", "order"],
)
def test_form_of_the_file_does_not_matter(table, text, name, encoding):
    assert read(table(text, name, encoding)) == EXPECTED


def test_quoted_comma_is_part_of_the_field(table):
    rows = read_table(table('case,slide,label\nc1,s1,"sarcoma, synovial"\n'))
    assert rows[0].label == "sarcoma, synovial"


def test_further_columns_ride_along(table):
    rows = read_table(table("case,age,slide,label,stain batch\nc1,61,s1,LMS,B 2\n"))
    assert rows == (
        Row(line=2, case="c1", slide="s1", label="LMS", other={"age": "61", "stain batch": "B 2"}),
    )


def test_mpp_and_site_are_read(table):
    first, second = read_table(table("case,slide,label,mpp,site\nc1,s1,a,0.25,Bonn\nc2,s2,b,,\n"))
    assert (first.mpp, first.site) == (0.25, "Bonn")
    assert (second.mpp, second.site) == (None, "")


def test_mpp_may_have_a_decimal_comma(table):
    [row] = read_table(table("case;slide;label;mpp\nc1;s1;a;0,25\n"))
    assert row.mpp == 0.25


@pytest.mark.parametrize(
    "word", ["", "NA", "nan", "n/a", "[Not Available]", "#N/A", "Unknown", "--"]
)
def test_words_for_a_missing_value_leave_a_field_empty(table, word):
    header, values = "case,slide,label,site,mpp,age", ",".join([word] * 4)
    [row] = read_table(table(f"{header}\nc1,s1,{values}\n"))
    assert row == Row(line=2, case="c1", slide="s1", other={"age": word})


@pytest.mark.parametrize("word", ["NA", "n/a", "[Not Available]", "unknown", "?"])
@pytest.mark.parametrize("column", ["case", "slide"])
def test_words_for_a_missing_value_are_no_name(table, word, column):
    cells = {"case": "c1", "slide": "s1", "label": "a"} | {column: word}
    message = (
        f"line 2: {column} is empty or {re.escape(repr(word))}, which means that it is missing"
    )
    with pytest.raises(CohortError, match=message):
        read_table(table(f"case,slide,label\n{','.join(cells.values())}\n"))


def test_lines_are_counted_as_an_editor_does(table):
    text = 'case,slide,label,note\nc1,s1,a,"two\nlines"\n\nc2,s2,b,x\n'
    assert [row.line for row in read_table(table(text))] == [3, 5]


@pytest.mark.parametrize("column", ["case", "slide"])
def test_missing_column_is_named(table, column):
    header = "case,slide,label".replace(column, "other")
    with pytest.raises(
        CohortError, match=rf"no column {column}; it has .*other.*Name one {column}"
    ):
        read_table(table(f"{header}\nc1,s1,a\n"))


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("case,PATIENT,slide,label", "'case' and 'PATIENT' both mean case"),
        ("case,slide_id,FILENAME,label", "'slide_id' and 'FILENAME' both mean slide"),
    ],
)
def test_two_columns_of_one_meaning_are_refused(table, header, pair):
    with pytest.raises(CohortError, match=pair):
        read_table(table(f"{header}\nc1,c2,s1,a\n"))


@pytest.mark.parametrize(
    "text",
    [
        "case,PATIENT,slide,label,age\nc1,c1,s1,a,5\nc2,c2,s2,b,6\n",
        "case,slide_id,FILENAME,label,age\nc1,s1,s1.svs,a,5\nc2,s2,s2.svs,b,6\n",
        "case,slide,age,label,age\nc1,s1,5,a,5\nc2,s2,6,b,6\n",
    ],
)
def test_a_column_that_says_the_same_as_another_is_read_once_with_a_note(table, text):
    notes = []
    rows = read_table(table(text), notify=notes.append)
    assert [(row.case, row.slide, row.other) for row in rows] == [
        ("c1", "s1", {"age": "5"}), ("c2", "s2", {"age": "6"}),
    ]  # fmt: skip
    assert len(notes) == 1
    assert "read once" in notes[0]


def test_column_that_comes_twice_is_refused(table):
    with pytest.raises(CohortError, match="'age' comes twice"):
        read_table(table("case,slide,age,age\nc1,s1,1,2\n"))


@pytest.mark.parametrize("text", ["", "\n\n", ",,\n"])
def test_empty_table_is_refused(table, text):
    with pytest.raises(CohortError, match="the table is empty"):
        read_table(table(text))


def test_header_without_rows_is_refused(table):
    with pytest.raises(CohortError, match="a header but no rows"):
        read_table(table("case,slide,label\n\n"))


def test_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CohortError, match="there is no such table"):
        read_table(tmp_path / "absent.csv")


def test_table_that_is_no_text_is_refused(table):
    with pytest.raises(CohortError, match=r"it is no text.* Save it as CSV"):
        read_table(table("case,slide,label\nM\0,s1,a\n"))


@pytest.mark.parametrize("line", ["c1,s1", "c1,s1,a,b"])
def test_line_of_another_length_is_refused(table, line):
    with pytest.raises(CohortError, match=r"line 3: \d fields under 3 columns"):
        read_table(table(f"case,slide,label\nc0,s0,a\n{line}\n"))


@pytest.mark.parametrize(("line", "what"), [(",s1,a", "case"), ("c1, ,a", "slide")])
def test_empty_name_is_refused(table, line, what):
    with pytest.raises(CohortError, match=f"line 2: {what} is empty"):
        read_table(table(f"case,slide,label\n{line}\n"))


@pytest.mark.parametrize("mpp", ["40x", "inf", "0", "-0.5", "0.25 um"])
def test_mpp_that_is_no_scale_is_refused(table, mpp):
    with pytest.raises(CohortError, match=f"line 2: mpp is {re.escape(repr(mpp))}; micrometres"):
        read_table(table(f'case,slide,label,mpp\nc1,s1,a,"{mpp}"\n'))


@pytest.mark.parametrize("again", ["s1", "s1.svs"])
def test_slide_that_comes_twice_is_refused(table, again):
    with pytest.raises(CohortError, match="slide 's1' comes on lines 2 and 4"):
        read_table(table(f"case,slide,label\nc1,s1,a\nc1,s2,a\nc2,{again},b\n"))


@pytest.mark.parametrize("label", ["b", ""])
def test_case_with_two_labels_is_refused(table, label):
    with pytest.raises(
        CohortError, match=f"case 'c1' has label 'a' on line 2 and '{label}' on line 4"
    ):
        read_table(table(f"case,slide,label\nc1,s1,a\nc2,s2,b\nc1,s3,{label}\n"))


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [
        ("case", "case 1", "case-1"),
        ("case", "Case_1", "case\u20111"),
        ("label", "LMS", "lms"),
        ("site", "Ward A", "ward a"),
    ],
)
def test_one_name_in_two_spellings_is_refused(table, column, first, second):
    rows = [{"case": "c1", "slide": "s1", "label": "a", "site": "x"}]
    rows.append({"case": "c2", "slide": "s2", "label": "b", "site": "y"})
    rows[0][column], rows[1][column] = first, second
    text = "\n".join(["case,slide,label,site", *(",".join(row.values()) for row in rows)])
    with pytest.raises(CohortError, match=f"{column} '{first}' and '{second}' differ in spelling"):
        read_table(table(text))


@pytest.mark.parametrize(
    "twin",
    ["case02", "case-02.", " Case_02 ", "CASE\N{ZERO WIDTH SPACE}-02", "c\N{CYRILLIC SMALL LETTER A}se-02",
     "\N{CYRILLIC CAPITAL LETTER ES}ase-02",
     "case-0\N{SOFT HYPHEN}2"],
)  # fmt: skip
def test_one_case_is_known_again_however_it_is_written(table, twin):
    assert matching(["case-02"], [twin]) == ["case-02"]
    assert matching([twin], ["case-02"]) == [twin]
    with pytest.raises(CohortError, match="differ in spelling only"):
        read_table(table(f"case,slide,label\ncase-02,s1,a\n{twin.strip()},s2,b\n"))


def test_numbers_in_names_are_no_spelling(table):
    assert len(read_table(table("case,slide,label\n1.1,s1,a\n11,s2,b\n1,s3,a\n1-1,s4,b\n"))) == 4


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_spreadsheets_that_write_no_commas_are_read(table, delimiter):
    text = 'case,slide,label,size\nc1,s1,a,"1,5"\nc2,s2,b,2\n'
    (first, _) = read_table(table(text.replace(",", delimiter).replace(f"1{delimiter}5", "1,5")))
    assert (first.case, first.slide, first.label, first.other["size"]) == ("c1", "s1", "a", "1.5")


@pytest.mark.parametrize("column", ["case", "label", "site", "slide"])
@pytest.mark.parametrize(("first", "second"), [("12", "12.0"), ("9", "0009"), ("3", "3.00")])
def test_equal_numbers_are_one_name(table, column, first, second):
    lines = [{"case": "c1", "slide": "s1", "label": "a", "site": "x"}]
    lines.append({"case": "c2", "slide": "s2", "label": "b", "site": "y"})
    lines[0][column], lines[1][column] = first, second
    text = "\n".join(["case,slide,label,site", *(",".join(line.values()) for line in lines)])
    with pytest.raises(CohortError, match=f"{column} '{first}' and '{second}' differ in spelling"):
        read_table(table(text))
    assert matching([first], [second]) == [first]


@pytest.mark.parametrize(
    ("one", "other"),
    [("CDK4+", "CDK4-"), ("<8 cm", ">8 cm"), ("+", "-"), ("\u2265", "<"), ("ALK (+)", "ALK (-)"),
     (">=10", "10"), ("CDK4", "CDK4-"), ("CD34- S100+", "CD34+ S100-"), ("1-2", "12")],
)  # fmt: skip
def test_signs_tell_labels_apart(table, one, other):
    rows = read_table(table(f"case;slide;label\nc1;s1;{one}\nc2;s2;{other}\nc3;s3;{one}\n"))
    assert [row.label for row in rows] == [one, other, one]


def test_a_label_that_reads_like_a_missing_word_can_be_meant(table):
    path = table("case,slide,label\nc1,s1,None\nc2,s2,SS\nc3,s3,NA\n")
    assert [row.label for row in read_table(path)] == ["", "SS", ""]
    assert [row.label for row in read_table(path, TableReading(label_is=("None",)))] == [
        "None",
        "SS",
        "",
    ]


@pytest.mark.parametrize(
    ("rows", "patient"),
    [
        ("TCGA-QQ-A5V2-01A-01-TS1,s1;TCGA-QQ-A5V2-01Z-00-DX9,s2", "TCGA-QQ-A5V2"),
        ("a,TCGA-DX-A1L0-01Z-00-DX1.svs;b,tcga-dx-a1l0-01Z-00-DX2.svs", "TCGA-DX-A1L0"),
        ("TCGA-DX-A1L0,x;other,TCGA-DX-A1L0-01Z-00-DX2", "TCGA-DX-A1L0"),
        ("C3L-00104-21,x;C3L-00104-22,y", "C3L-00104"),
    ],
)
def test_barcodes_of_one_patient_in_two_cases_are_refused(table, rows, patient):
    text = "case,slide\n" + rows.replace(";", "\n") + "\n"
    with pytest.raises(CohortError, match=f"are of one patient, {patient}"):
        read_table(table(text))


def test_cases_are_found_in_their_names(table):
    path = table("case,slide\nK7-A1,s1\nK7-B2,s2\nK12-A1,s3\n")
    cases = [row.case for row in read_table(path, TableReading(case_from=r"^(K\d+)-"))]
    assert cases == ["K7", "K7", "K12"]
    assert {row.case for row in read_table(path, TableReading(case_from=r"K\d+"))} == {"K7", "K12"}
    with pytest.raises(CohortError, match=r"line 4: .* finds no case in 'K12-A1'"):
        read_table(path, TableReading(case_from=r"K\d-"))
    with pytest.raises(CohortError, match="no regular expression"):
        read_table(path, TableReading(case_from="("))


def test_blocks_are_remarked_on():
    text = note_blocks(["Case-3-A12", "Case-3-A15", "Case-9-B1", "P17b", "P17c", "Case-10-A1"])
    assert text.startswith("4 cases look like blocks of 2: Case-3-A12")
    assert note_blocks([f"case-{i:02}" for i in range(30)]) == ""
    assert note_blocks([f"H2019-{1000 + i}" for i in range(30)]) == ""
    assert note_blocks(["P17", "P18", "P19"]) == ""


GERMAN = "sep=;\r\nCase ID;Slide ID;Label;Größe;Alter;;\r\nf1;s1;MÜLLER;4,5;61;;\r\nf2;s2;SS;12,25;k.A.;;\r\n"


def test_a_german_spreadsheet_is_read(table):
    notes = []
    rows = read_table(table(GERMAN, encoding="cp1252"), notify=notes.append)
    assert [(row.line, row.case, row.label) for row in rows] == [
        (3, "f1", "MÜLLER"),
        (4, "f2", "SS"),
    ]
    assert rows[1].other == {"Größe": "12.25", "Alter": "k.A."}
    assert "was read as Windows-1252" in notes[0]


def test_a_table_of_a_portal_is_read(table):
    text = (
        "#Patient Identifier\tSample\tStatus\n#STRING\tSTRING\tSTRING\nPATIENT_ID\tSAMPLE_ID\tOS_STATUS\n"
        "P1\tP1-01\t1:DECEASED\nP2\tP2-01\t0:LIVING\n"
    )
    assert [(row.line, row.case, row.slide) for row in read_table(table(text))] == [
        (4, "P1", "P1-01"),
        (5, "P2", "P2-01"),
    ]
    named = table("Patient ID,Sample ID,Slide\nP1,P1-01,x\n")
    assert read_table(named)[0] == Row(line=2, case="P1", slide="x", other={"Sample ID": "P1-01"})


def test_barcodes_of_patients_are_cases(table):
    text = "bcr_patient_barcode,filename,OS\nTCGA-3B-A9HI,TCGA-3B-A9HI-01Z-00-DX1.svs,0\n"
    [row] = read_table(table(text))
    assert (row.case, row.slide) == ("TCGA-3B-A9HI", "TCGA-3B-A9HI-01Z-00-DX1")


def test_a_numbered_column_is_no_comment(table):
    [row] = read_table(table("#,case,slide\n1,c1,s1\n"))
    assert row.other == {"#": "1"}


@pytest.mark.parametrize(
    ("delimiter", "cells", "read"),
    [
        (";", ["1,234", "2,500"], ["1.234", "2.500"]),
        (";", ["1.234,5", "7,25"], ["1234.5", "7.25"]),
        (",", ["1,234", "7,5"], ["1.234", "7.5"]),
        (",", ["1,234,567", "2,500"], ["1234567", "2500"]),
        (",", ["4,5", "[Not Available]"], ["4.5", "[Not Available]"]),
        (",", ["A1,234", "left, right"], ["A1,234", "left, right"]),
    ],
)
def test_commas_in_numbers(table, delimiter, cells, read):
    lines = [f'c{i}{delimiter}s{i}{delimiter}"{cell}"' for i, cell in enumerate(cells)]
    text = "\n".join([delimiter.join(("case", "slide", "size")), *lines])
    assert [row.other["size"] for row in read_table(table(text))] == read


def test_a_comma_of_two_meanings_is_refused_with_the_cells(table):
    text = 'case,slide,size\nc1,s1,"1,234"\nc2,s2,17\nc3,s3,"2,500"\n'
    with pytest.raises(
        CohortError, match=r"column 'size' .*'1,234' \(line 2\), '2,500' \(line 4\)"
    ):
        read_table(table(text))


def test_a_folder_in_place_of_the_table_is_named(tmp_path):
    with pytest.raises(CohortError, match=r"is a folder, not a table\. Give the table first"):
        read_table(tmp_path)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_workbook_is_named(tmp_path, monkeypatch, start):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "t.csv").write_bytes(start + b"....")
    with pytest.raises(CohortError, match=r"is an Excel workbook.*Save it as CSV UTF-8\."):
        read_table(tmp_path / "t.csv")


def test_case_of_two_sites_is_refused(table):
    with pytest.raises(CohortError, match="has site 'x' on line 2 and 'y' on line 3"):
        read_table(table("case,slide,label,site\nc1,s1,a,x\nc1,s2,a,y\n"))


def test_points_beside_decimal_commas_are_thousands():
    cells = ["2,5", "7,25", "12.600", "1.048.576", "3"]
    read = with_points(cells, Signs(by_columns=True)).cells
    assert read == ("2.5", "7.25", "12600", "1048576", "3")
    assert with_points(["2.5", "1.048"], Signs(by_columns=True)).cells == ("2.5", "1.048")


@pytest.mark.parametrize("column", ["set", "data_split", "Teil"])
@pytest.mark.parametrize(
    "words", [("test", "train"), ("External", "training"), ("holdout", "validation")]
)
def test_a_column_that_keeps_cases_aside_under_another_name_is_refused(tmp_path, column, words):
    path = tmp_path / "t.csv"
    path.write_text(f"case,slide,label,{column}\na,a1,x,{words[0]}\nb,b1,y,{words[1]}\n")
    with pytest.raises(CohortError, match=f"column '{column}' seems to say .* Name it split"):
        read_table(path)
    path.write_text(
        f"case,slide,label,{column},split\na,a1,x,{words[0]},train\nb,b1,y,{words[1]},train\n"
    )
    assert len(read_table(path)) == 2
    path.write_text(f"case,slide,label,{column}\na,a1,x,train\nb,b1,y,other\n")
    with pytest.raises(CohortError, match=rf"column '{column}' .* \('other' on line 3\)"):
        read_table(path)
    path.write_text(f"case,slide,label,{column}\na,a1,x,train\nb,b1,y,train\n")
    assert len(read_table(path)) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("TCGA.DX.A1L2.01A", "TCGA.DX.A1L2.01B"),
        ("TCGA_DX_A1L2_01", "TCGA-DX-A1L2-02"),
        ("C3L.00104", "C3L-00104-21"),
    ],
)
def test_barcodes_with_dots_and_underscores_name_the_patient(tmp_path, first, second):
    path = tmp_path / "t.csv"
    path.write_text(f"case,slide,label\n{first},a1,x\n{second},b1,y\n")
    with pytest.raises(CohortError, match="are of one patient"):
        read_table(path)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["P7-III", "P7-VIII", "P8-I"], "P7-III, P7-VIII"),
        (["2-Fall-31", "1-Fall-31", "1-Fall-32"], "1-Fall-31, 2-Fall-31"),
        (["B2_Case9", "B11_Case9"], "B11_Case9, B2_Case9"),
        (["Huber links", "Huber rechts", "Maier li"], "Huber links, Huber rechts"),
        (["case 4 R", "case 4 L"], "case 4 L, case 4 R"),
    ],
)
def test_blocks_and_sides_in_other_notations_are_noted(names, groups):
    assert f": {groups}. If these are 1 patient" in note_blocks(names)


@pytest.mark.parametrize(
    "names", [["21-100", "21-101"], ["Case I", "Case II"], ["1-2", "Huber left"]]
)
def test_names_that_only_look_like_these_are_not(names):
    assert note_blocks(names) == ""
