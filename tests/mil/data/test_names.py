"""Names are recognised in any spelling, and never mixed up."""

import pytest

from mil.data.names import matching


def test_names_are_found_in_any_spelling():
    assert matching(["case-02", "case-01", "case-1"], ["Case_01", "CASE 02"]) == [
        "case-01",
        "case-02",
    ]


@pytest.mark.parametrize(
    ("one", "other"), [("1-12", "11-2"), ("-1", "1"), ("P1-12", "P11-2"), ("case-12", "case-1")]
)
def test_a_dash_between_numbers_tells_cases_apart(one, other):
    assert matching([one], [other]) == []
