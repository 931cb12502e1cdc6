"""Columns of new cases that no training case is like are named; others, and missing ones, are not."""

import pytest

from mil.data.encoding import Column, ColumnEncoding
from mil.data.new_columns import unlike_values, unread_values

SIZE = Column(name="size", middle=7.0, spread=3.0)
DEPTH = Column(name="depth", middle=40.0, spread=9.0, unit="mm")
SITE = Column(name="site", categories=("arm", "leg"))
OTHER_SITE = Column(name="site", categories=("leg", "trunk"))
FITS = (
    ColumnEncoding(columns=(SIZE, DEPTH, SITE)),
    ColumnEncoding(columns=(Column(name="size", middle=6.5, spread=2.5), OTHER_SITE)),
)


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ({"size": "70"}, "size"), ({"size": "-30"}, "size"), ({"depth": "12 cm"}, "depth"),
        ({"site": "Leg"}, "site"), ({"site": "retroperitoneum"}, "site"), ({"size": ">89"}, "size"),
    ],
)  # fmt: skip
def test_what_no_training_case_is_like_is_named(cells, column):
    [reason] = unlike_values(
        FITS, {"p1": {"size": "7", "depth": "38", "site": "leg"} | cells, "p2": {}}
    )
    assert reason.startswith(f"column {column} holds {cells[column]!r} (p1), ")
    assert ("arm, leg, trunk" in reason) == (column == "site")
    assert (" mm with a spread of 9" in reason) == (column == "depth")


@pytest.mark.parametrize(
    "cells",
    [{"size": "22"}, {"size": ""}, {"size": "NA"}, {"depth": "6 cm"}, {"site": "trunk"}, {"site": "arm"},
     {"site": "unknown"}, {"size": "huge"}, {"other": "7000"}],
)  # fmt: skip
def test_what_some_training_case_is_like_is_not(cells):
    assert unlike_values(FITS, {"p1": cells}) == []
    assert unlike_values((), {"p1": cells}) == []


def test_what_is_no_number_is_named():
    cases = {"p1": {"size": "huge"}, "p2": {"size": "4,5"}, "p3": {"size": "n/a", "site": "x"}}
    [note] = unread_values(FITS, cases)
    assert note.startswith("Column size holds 'huge' (p1): no number")
    assert unread_values(FITS, {"": {"depth": "4"}}) == []
