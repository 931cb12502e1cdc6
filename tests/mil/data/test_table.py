"""The table is read as its authors meant it, or refused with the line."""

import re

import pytest

from mil.data.case import Row
from mil.data.names import matching
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
        read_table(table(f"{header}\nc1,c1,s1,a\n"))


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
    with pytest.raises(CohortError, match="Save it as CSV"):
        read_table(table("case,slide,label\nMüller,s1,a\n", encoding="latin-1"))


@pytest.mark.parametrize("line", ["c1,s1", "c1,s1,a,b"])
def test_line_of_another_length_is_refused(table, line):
    with pytest.raises(CohortError, match=r"line 3: \d fields under 3 columns"):
        read_table(table(f"case,slide,label\nc0,s0,a\n{line}\n"))


@pytest.mark.parametrize(("line", "what"), [(",s1,a", "case"), ("c1, ,a", "slide")])
def test_empty_name_is_refused(table, line, what):
    with pytest.raises(CohortError, match=f"line 2: {what} is empty"):
        read_table(table(f"case,slide,label\n{line}\n"))


@pytest.mark.parametrize("mpp", ["40x", "1,234", "inf", "0", "-0.5", "0.25 um"])
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
    assert len(read_table(table("case,slide,label\n1.1,s1,a\n11,s2,b\n1,s3,a\n01,s4,b\n"))) == 4


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_spreadsheets_that_write_no_commas_are_read(table, delimiter):
    text = 'case,slide,label,size\nc1,s1,a,"1,5"\nc2,s2,b,2\n'
    (first, _) = read_table(table(text.replace(",", delimiter).replace(f"1{delimiter}5", "1,5")))
    assert (first.case, first.slide, first.label, first.other["size"]) == ("c1", "s1", "a", "1,5")


def test_case_of_two_sites_is_refused(table):
    with pytest.raises(CohortError, match="has site 'x' on line 2 and 'y' on line 3"):
        read_table(table("case,slide,label,site\nc1,s1,a,x\nc1,s2,a,y\n"))
