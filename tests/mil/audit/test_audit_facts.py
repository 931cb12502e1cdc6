"""What an audit says of the table's columns and of what the backbone has seen."""

from dataclasses import replace

import pytest

from features.summary import Summary
from mil.audit.judged_grades import JudgedGrades
from mil.audit.run import _add_columns
from mil.audit.seen import add_seen
from tests.mil.evaluation.grades import grade_predictions
from tests.mil.followed import followed_cohort
from tests.mil.made import RECIPE, made_cohort


def with_columns(cohort, columns):
    """The cohort with further columns, each a function of the case and its place."""
    cases = [
        replace(case, other={**case.other, **{n: str(f(case, i)) for n, f in columns.items()}})
        for i, case in enumerate(cohort.cases)
    ]
    return replace(cohort, cases=tuple(cases))


def test_columns_made_from_the_follow_up_are_named():
    columns = {
        "weeks": lambda case, _i: f"{case.time / 7:.1f}",
        "fate": lambda case, _i: "lost" if case.label == "event" else "kept",
        "line": lambda _case, i: i + 1,
        "days_to_x": lambda _case, i: 40 + i % 7,
        "necrosis": lambda _case, i: "yes" if i % 3 else "no",
    }
    summary = Summary()
    _add_columns(summary, with_columns(followed_cohort(20, n_tiles=3), columns))
    warnings = " ".join(summary.warnings)
    for name in ("weeks has the order of the follow-up times", "fate tells the events",
                 "line numbers or names the cases",
                 "days_to_x is known only from the follow-up"):  # fmt: skip
        assert f"Column {name}" in warnings
    assert "necrosis" not in warnings
    assert summary.facts["columns"].startswith("4 of ")


def test_what_the_table_says_of_single_cases_is_repeated():
    columns = {
        "qc_pass": lambda _case, i: "no" if i == 5 else "yes",
        "date of birth": lambda _case, i: f"{1940 + i % 11}-0{1 + i % 11 % 9}-1{i % 11 % 8}",
        "length": lambda _case, i: 70 if i == 2 else 4 + i % 7 + i / 10,
    }
    cohort = with_columns(followed_cohort(20, n_tiles=3), columns)
    summary = Summary()
    _add_columns(summary, cohort)
    warnings = " ".join(summary.warnings)
    first, twin = cohort.names[0], cohort.names[11]
    assert (
        f"'qc_pass' seems to say that 1 row is not to be used: {cohort.names[5]} (no)" in warnings
    )
    assert f"Cases {first} and {twin}, " in warnings
    assert "have the same date of birth" in warnings
    assert f"Column length holds 70 ({cohort.names[2]}), beside numbers from 4" in warnings


def seen(cohort, **changes):
    cases = [
        replace(case, bags=tuple(replace(bag, **changes) for bag in case.bags))
        for case in cohort.cases
    ]
    summary = Summary()
    add_seen(summary, replace(cohort, cases=tuple(cases)))
    return summary


def test_what_the_backbone_has_seen_is_said_or_not_known():
    cohort = made_cohort((3, 3))
    name = cohort.cases[0].name
    recipe = dict(cohort.cases[0].bags[0].recipe) | {"weights": "pretrained"}
    assert seen(cohort, recipe=recipe).facts["backbone"] == "has not seen the tested cases"
    by_name = seen(cohort, recipe=recipe, trained_on=(name,))
    assert by_name.facts["backbone"] == (
        "has seen 1 tested cases (compared by the names of cases only: its weights file does not identify "
        "its slides)"
    )
    assert name in by_name.problems[0]
    renamed = seen(
        cohort, recipe=recipe, source_sha256="f0", trained_on=("pt",), trained_on_slides=("f0",)
    )
    assert renamed.facts["backbone"] == (
        "has seen 6 tested cases (compared by name and file only: older bags or weights do not record the "
        "pixels of their slides)"
    )
    unknown = seen(cohort, recipe=recipe | {"weights": "mine.pth"})
    assert unknown.facts["backbone"].startswith("not known: mine.pth")
    assert unknown.problems == []
    assert "is not known" in unknown.warnings[0]


def test_a_backbone_has_seen_a_patient_whatever_slide_of_theirs_it_was_trained_on():
    cohort = made_cohort((3, 3))
    first = cohort.cases[0]
    bags = (replace(first.bags[0], slide="TARGET-40-0A4HLD-01A-01-TSA"),)
    for case in (replace(first, name="TARGET-40-0A4HLD-01Z"), replace(first, bags=bags)):
        own = replace(cohort, cases=(case, *cohort.cases[1:]))
        facts = seen(own, trained_on=("target_40_0a4hld_02",)).facts
        assert facts["backbone"].startswith("has seen 1 tested cases")
        assert seen(own, trained_on=("TARGET-40-0A4HLF",)).facts["backbone"].startswith("has not")


@pytest.mark.parametrize(
    ("facts", "name", "words"),
    [
        ({"weights": "converted from TRIDENT", "backbone": "uni2-h"}, "k1", "not known: uni2-h (converted"),
        ({"weights": "converted from features without places"}, "k1", "not known: toy (converted from feat"),
        ({"weights": "converted from SimpleITK", "backbone": "radiomics (SimpleITK)"}, "k1", "has not seen"),
        ({"weights": "random (seed 3)"}, "TCGA-IW-A3M4", "has not seen"),
        ({"weights": "pretrained"}, "TCGA-IW-A3M4", "has not seen"),
        ({"weights": "pretrained", "backbone": "uni"}, "k1", "has not seen"),
        ({"weights": "pretrained", "backbone": "uni"}, "TCGA-IW-A3M4", "not known: uni (pretrained)"),
    ],
)  # fmt: skip
def test_what_nothing_says_is_not_known(facts, name, words):
    cohort = made_cohort((3, 3))
    cohort = replace(cohort, cases=(replace(cohort.cases[0], name=name), *cohort.cases[1:]))
    summary = seen(cohort, recipe=RECIPE | facts)
    assert summary.facts["backbone"].startswith(words)
    assert len(summary.warnings) == words.startswith("not known")
    listed = seen(cohort, recipe=RECIPE | facts, trained_on=("elsewhere",))
    assert listed.facts["backbone"].startswith("has not seen")


@pytest.mark.parametrize(("signal", "warned"), [(1.5, False), (0.0, True)])
def test_grades_are_shown_to_be_better_than_chance_by_their_order(signal, warned):
    predictions = grade_predictions(
        counts=(14, 14, 12), models=("model",), repeats=1, signal=signal
    )
    summary = Summary()
    JudgedGrades(None, predictions).add_certainty(summary)
    assert bool(summary.warnings) == warned
    assert "quadratic kappa" in summary.facts["interval"]
