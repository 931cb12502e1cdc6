"""What was fitted on a case that the table keeps for external validation is learnt from by nothing."""

from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import write_bag
from features.errors import SlideError
from features.recipe import Recipe
from features.summary import Summary
from features.tiles.stain import Stain, StainReference, save_reference
from mil.audit.seen import add_seen
from mil.concepts.find import find_concepts
from mil.data.case import Row
from mil.data.jobs import extract, note_reserved_stain
from mil.errors import LeakageError
from mil.learning.combined import Combination, combine
from mil.learning.crossval import cross_validate
from mil.learning.reserved import check_reserved, check_reserved_inputs
from mil.learning.training import fit_model
from mil.runs.cross_validation import train_on_all
from mil.runs.record import NewRun
from tests.mil.made import QUICK, RECIPE, cohort_of, folds_of, made_case, made_cohort

RESERVED = (Row(line=9, case="Late 1", slide="late-1-s1", label="class-a", split="test"),)
KEPT = "1 of the cases that the table keeps for external validation"
STAIN = {"target": {}, "slides": ["x"], "cases": ["y"]}


def with_bags(**changes):
    cohort = made_cohort((4, 4))
    cases = [
        replace(case, bags=tuple(replace(bag, **changes) for bag in case.bags))
        for case in cohort.cases
    ]
    return replace(cohort, cases=tuple(cases), reserved=RESERVED)


SPOILT = {
    "by a fine-tuned backbone": {"trained_on": ("late_1",)},
    "by the case of a stain": {"recipe": RECIPE | {"stain_reference": STAIN | {"cases": ["late-1"]}}},
    "by the slide of a stain": {"recipe": RECIPE | {"stain_reference": STAIN | {"slides": ["late-1-s1"]}}},
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILT)
def test_no_verb_learns_from_bags_that_know_a_reserved_case(how, tmp_path):
    cohort = with_bags(**SPOILT[how])
    folds = folds_of(cohort, folds="2")

    def fit(_model, _fold, fit_now):
        return fit_now()

    learners = (
        lambda: cross_validate(cohort, folds, ["majority"], QUICK, seed=0),
        lambda: find_concepts(cohort, folds, n_concepts=2, seed=0),
        lambda: combine(Combination(cohort, "majority", ("age",), QUICK, 0, fit), folds),
        lambda: train_on_all(
            cohort, "majority", NewRun(path=tmp_path / "run", settings={"seed": 0}), fit=QUICK
        ),
    )
    for learn in learners:
        with pytest.raises(LeakageError, match=rf"{KEPT} \(split=test\), e\.g\. Late 1\. Use "):
            learn()
    summary = Summary()
    add_seen(summary, cohort)
    assert any(KEPT in problem for problem in summary.problems)


def test_bags_that_know_other_cases_are_learnt_from():
    cohort = with_bags(recipe=RECIPE | {"stain_reference": STAIN})
    assert cross_validate(cohort, folds_of(cohort, folds="2"), ["majority"], QUICK, seed=0).models


def test_weights_to_start_from_that_know_a_reserved_case_are_refused(tmp_path):
    old = cohort_of(
        [made_case(name, name[0], np.eye(3, 5, dtype=np.float32)) for name in ("late-1", "b", "c")]
    )
    path = tmp_path / "start.safetensors"
    fit_model("mean", old.cases, [], old.classes, QUICK, seed=0).save(path)
    cohort = replace(made_cohort((4, 4)), reserved=RESERVED)
    settings = replace(QUICK, head_weights=str(path))
    with pytest.raises(LeakageError, match="weights to start from were trained on 1 of the cases"):
        cross_validate(cohort, folds_of(cohort, folds="2"), ["mean"], settings, seed=0)


def test_slides_of_a_reserved_case_are_known_under_any_name(tmp_path):
    """By the fingerprints of its bag in the store: of weights to start from, of a backbone, of a stain."""
    features = np.eye(3, 5, dtype=np.float32)
    old = cohort_of(
        [made_case(name, name[0], features, source_sha256=f"of {name}") for name in "pqr"]
    )
    path = tmp_path / "start.safetensors"
    fit_model("mean", old.cases, [], old.classes, QUICK, seed=0).save(path)
    [late] = made_case("late-1", "x", features + 1, source_sha256="of q").bags
    write_bag(tmp_path / "late-1-s1.h5", late)
    stain = {"recipe": RECIPE | {"stain_reference": STAIN | {"sources": ["of q"]}}}
    for cohort, weights, what in (
        (with_bags(), str(path), "weights to start from were trained"),
        (
            with_bags(trained_on=("q",), trained_on_slides=("of q",)),
            "",
            "backbone of these bags was trained",
        ),
        (with_bags(**stain), "", "target stain of these bags was fitted"),
    ):
        check_reserved(cohort, weights)  # without a store nothing can be compared
        with pytest.raises(LeakageError, match=f"The {what} on {KEPT}"):
            check_reserved(replace(cohort, store=tmp_path), weights)
    write_bag(tmp_path / "late-1-s1.h5", replace(late, source_sha256="of s"))
    check_reserved(replace(with_bags(), store=tmp_path), str(path))


def test_fine_tuning_refuses_the_stain_of_a_reserved_slide(tmp_path):
    path = tmp_path / "stain.json"
    save_reference(path, StainReference(Stain("reinhard", ((0.0,) * 3,) * 2), ("s",), ("LATE-1",)))
    for names in ((str(path),), ("late-1-s1", "other")):
        recipe = Recipe(stain="reinhard", stain_reference=names)
        with pytest.raises(LeakageError, match="target stain was fitted on 1 of the cases"):
            check_reserved_inputs(recipe, RESERVED)
        check_reserved_inputs(recipe, [replace(RESERVED[0], case="z", slide="z-s1")])


@pytest.mark.parametrize(("case", "slide"), [("MMRF_1577", "s1"), ("late", "MMRF_1577_3_BM")])
def test_bags_that_know_another_slide_of_a_reserved_patient_are_refused(case, slide):
    row = replace(RESERVED[0], case=case, slide=slide)
    stain = STAIN | {"slides": ["MMRF_1577_1"]}
    known = {"trained_on": ("mmrf-1577-1-PB",)}, {"recipe": RECIPE | {"stain_reference": stain}}
    for changes in known:
        with pytest.raises(LeakageError, match=f"{KEPT} .*e.g. {case}"):
            check_reserved(replace(with_bags(**changes), reserved=(row,)))
    check_reserved(replace(with_bags(trained_on=("MMRF_1578_1",)), reserved=(row,)))


def test_extraction_says_first_that_a_stain_is_of_a_reserved_case(tmp_path):
    """Of the table's own slides by slide or by case, or of a file's; also of the second of two recipes."""
    path = tmp_path / "stain.json"
    save_reference(path, StainReference(Stain("reinhard", ((0.0,) * 3,) * 2), ("s",), ("LATE-1",)))
    early = replace(RESERVED[0], case="early", slide="early-s1", split="")
    rows = [replace(RESERVED[0], split="Held-Out"), early]
    plain = Recipe()
    for names in ((str(path),), ("late-1-s1", "early-s1")):
        stained = Recipe(stain="reinhard", stain_reference=names)
        [note] = note_reserved_stain(rows, [plain, stained])
        assert note.startswith(
            f"The target stain is fitted on {RESERVED[0].case}, which the table keeps"
        )
        assert note.endswith("Use a stain_reference of training cases.")
        assert note_reserved_stain([early], [stained]) == []
        off = replace(stained, stain="off", stain_reference=())
        assert note_reserved_stain(rows, [plain, off]) == []


def test_the_remark_comes_before_the_slides_are_looked_for(tmp_path):
    (tmp_path / "cohort.csv").write_text("case,slide,label,split\na,a,x,\nb,b,y,test\n")
    recipe, notes = Recipe(stain="macenko", stain_reference=("b",)), []
    with pytest.raises(SlideError):
        extract(
            tmp_path / "cohort.csv", slides=tmp_path, out=tmp_path / "store", recipe=recipe,
            notify=notes.append,
        )  # fmt: skip
    assert any("nothing will be trained on these bags" in note for note in notes)
