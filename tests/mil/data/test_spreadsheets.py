"""Habits of spreadsheets and exports: marks, titles, short lines, bars, drives, words for events."""

import pytest

from features.slides.names import slide_name
from mil.audit.published import read_published
from mil.data.case import Row
from mil.data.outcomes import EVENT, with_outcomes
from mil.data.sheet import read_sheet
from mil.data.table import read_table
from mil.errors import CohortError, RunError


@pytest.fixture
def sheet(tmp_path):
    def read(text, reader=read_sheet):
        (tmp_path / "t.csv").write_text(text)
        return reader(tmp_path / "t.csv")

    return read


def test_lines_without_their_last_empty_cells_are_read_with_a_note(sheet):
    read = sheet("case;slide;label;note\nq1;a;LMS;seen twice\nq2;b;SS\nq3;c;SS\nq4;d\n")
    assert [line["note"] for _, line in read.lines] == ["seen twice", "", "", ""]
    assert read.notes == (
        "t.csv, lines 3, 4, 5: fewer cells than columns; the last ones were read as empty.",
    )
    read = sheet("case,slide,label,note\nq1,a,LMS,\nq2,b,SS\n")
    assert read.lines[1][1] == {"case": "q2", "slide": "b", "label": "SS", "note": ""}


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("case;slide;label\nq1;a;LMS\nq2;b\n", "line 3: 2 fields under 3 .* Complete it, with semicolons"),
        ("case\tslide\nq1\ta\tb\n", "line 2: 3 fields under 2 columns. Quote fields that hold tabs"),
        ("case slide label\nq1 a LMS\nq2 b SS\n", "separated by blanks"),
    ],
)  # fmt: skip
def test_the_remedy_is_that_of_the_table(sheet, text, remedy):
    with pytest.raises(CohortError, match=remedy):
        sheet(text)


@pytest.mark.parametrize(
    "text",
    [
        "Sarcomas of 2023;;;\ncase;slide;label;age\nq1;a;LMS;61\n",
        "Sarcomas, 2023\n\ncase;slide;label;age\nq1;a;LMS;61\n",
        "case|slide|label|age\nq1|a|LMS|61\n",
        "Sarcomas, Graz, Linz, 2023\ncase;slide;label;age\nq1;a;LMS;61\n",
        "Sarcomas, Graz, Linz\nWritten by A. B., 3 May\n\ncase,slide,label,age\nq1,a,LMS,61\n",
        "Sarcomas;Graz;Linz;\ncase;slide;label;age\nq1;a;LMS;61\n",
        'case,slide,label,age\n="q1","=""a""",\'LMS,\'61\n',
    ],
)
def test_titles_bars_and_marks_of_text_are_no_content(sheet, text):
    [(_, line)] = sheet(text).lines
    assert line == {"case": "q1", "slide": "a", "label": "LMS", "age": "61"}


def test_an_apostrophe_of_a_name_stays(sheet):
    read = sheet("case,site\n'007,'s-Hertogenbosch\n8,Bonn\n")
    assert [(line["case"], line["site"]) for _, line in read.lines] == [
        ("007", "'s-Hertogenbosch"), ("8", "Bonn"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (r"E:\\scans\\q 1.ndpi", "q 1"),
        ("e:/scans/q1.svs", "q1"),
        (r"\\\\server\\share\\q1.mrxs", "q1"),
        (r"bonn\\q1.tiff", "bonn/q1"),
        ("https://host.org/a/q1.svs?token=x/y", "q1"),
        ("s3://bucket/a/q1.ndpi", "q1"),
        ("/data/q1.svs", "q1"),
        ("bonn/q1.svs", "bonn/q1"),
        ("a:b", "a:b"),
    ],
)
def test_drives_shares_and_addresses_are_no_part_of_a_slide(sheet, written, name):
    assert slide_name(written) == name
    [row] = sheet(f"case,slide\nq,{written}\n", read_table)
    assert row.slide == name


@pytest.mark.parametrize(
    ("yes", "no"),
    [("WAHR", "FALSCH"), ("VRAI", "FAUX"), ("J", "N"), ("DOD", "NED"), ("Exitus", "no event"), ("1.", "0."),
     ("relapsed", "Disease-free"), ("T", "F"), ("Died of disease", "NO_EVIDENCE_OF_DISEASE"), ("oui", "non"),
     ("1.0", "0.0")],
)  # fmt: skip
def test_words_for_events(yes, no):
    rows = [
        Row(line=i + 2, case=f"q{i}", slide=f"s{i}", other={"time": str(i + 1), "event": word})
        for i, word in enumerate((yes, no))
    ]
    assert [row.label == EVENT for row in with_outcomes(rows, "time", "event")] == [True, False]


@pytest.mark.parametrize("word", ["AWD", "DOC", "x", "lost"])
def test_words_that_may_mean_either_are_refused(word):
    rows = [Row(line=2, case="q", slide="s", other={"time": "3", "event": word})]
    with pytest.raises(CohortError, match=f"event is '{word}'. Write 1"):
        with_outcomes(rows, "time", "event")


@pytest.mark.parametrize(
    ("text", "value", "limits"),
    [
        ("model;accuracy\na,1;0,865\n", 0.865, None),
        ("model\tsensitivity\na\t86,5 %\n", 0.865, None),
        ("model;auc\na;0,83 (0,71-0,92)\n", 0.83, (0.71, 0.92)),
        ("model;auc\na;0,83 [0,71, 0,92]\n", 0.83, (0.71, 0.92)),
        ('model,accuracy\na,"0,865"\n', 0.865, None),
        ('model,accuracy\na,"86,5 %"\n', 0.865, None),
        ('model,auc\na,"83 % (71,92)"\n', 0.83, (0.71, 0.92)),
        ("model,accuracy\na,0\u00b7865\n", 0.865, None),
    ],
)
def test_published_shares_may_have_a_decimal_comma(sheet, text, value, limits):
    [row] = sheet(text, read_published).rows
    [rate] = row.rates.values()
    assert rate.value == pytest.approx(value)
    assert (rate.limits and tuple(limit.value for limit in rate.limits)) == limits


def test_a_published_number_of_two_meanings_is_refused(sheet):
    with pytest.raises(RunError, match="is not a number as a table prints it"):
        sheet("model;accuracy\na;0,8,9\n", read_published)


@pytest.mark.parametrize("cell", ["1,200", "1.200", "1'200", "1\u202f200", "1200", "1200.0"])
def test_a_published_count_may_have_a_sign_between_thousands(sheet, cell):
    [row] = sheet(f'model\taccuracy\tn\na\t0.8\t"{cell}"\n', read_published).rows
    assert row.counts == {"n": 1200}


@pytest.mark.parametrize("cell", ["1,2", "12.5", "1,20,000", "0,120"])
def test_a_published_count_that_is_no_whole_number_is_refused(sheet, cell):
    with pytest.raises(RunError, match=r"n is .* which is not a number as a table prints it"):
        sheet(f'model\taccuracy\tn\na\t0.8\t"{cell}"\n', read_published)
