"""What a check foretells of the cases of a table, for every task."""

import pytest

from features.summary import Summary
from mil.audit.feasibility import summarise_cases
from mil.data.case import Row
from mil.errors import CohortError
from mil.tasks.diagnosis import Diagnosis
from mil.tasks.grade import Grade
from mil.tasks.survival import Survival


def rows_of(n=12, **columns):
    return [
        Row(
            line=i + 2,
            case=f"c{i:02}",
            slide=f"s{i}",
            label="ab"[i % 2],
            other={name: str(values[i % len(values)]) for name, values in columns.items()},
        )
        for i in range(n)
    ]


def foretold(rows, task, folds="3"):
    summary = Summary()
    labelled = task.label_rows(rows, "the table")
    summarise_cases(summary, labelled, {row.slide for row in rows}, folds, task)
    return summary


def test_folds_of_follow_up_are_foretold_by_its_events():
    rows = rows_of(time=[3, 5, 8, 13, 21], event=[1, 0])
    summary = foretold(rows, Survival())
    assert summary.facts["cases"].endswith("censored (6), event (6)")
    assert "folds=3: 3 folds with 4 test cases each" in summary.facts["folds"]
    assert "to expect" not in summary.facts


def test_outcomes_from_which_nothing_can_be_learnt_are_foretold():
    with pytest.raises(CohortError, match="every case has the same time, 7"):
        foretold(rows_of(time=[7], event=[1, 0]), Survival())
    summary = foretold(rows_of(time=[3, 5, 8], event=[0]), Survival())
    assert any("holds no event" in warning for warning in summary.warnings)
    summary = foretold(rows_of(grade=["2"]), Grade())
    assert any("only grade '2'" in warning for warning in summary.warnings)
    one = [row for row in rows_of() if row.label == "a"]
    assert any("only one class, 'a'" in w for w in foretold(one, Diagnosis()).warnings)


def test_blocks_and_odd_cells_are_remarked_on():
    rows = rows_of(age=[50, 61, 47, 70, 66, "old"])
    blocks = [
        Row(line=r.line, case=f"P{i // 3}-B{i % 3}", slide=r.slide, label=r.label, other=r.other)
        for i, r in enumerate(rows)
    ]
    warnings = foretold(blocks, Diagnosis(), "2").warnings
    assert any(
        w.startswith("12 cases look like blocks of 4: P0-B0, P0-B1, P0-B2") for w in warnings
    )
    assert any(
        "Column age holds numbers but for 'old' (line 7), 'old' (line 13)" in w for w in warnings
    )
