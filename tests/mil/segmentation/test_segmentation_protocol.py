"""The study of phase 3: both splits of a segmenter side by side, then a diagnosis by masks of each fold."""

from itertools import combinations

import numpy as np
import pytest

from features.errors import BackboneError
from features.extraction.jobs import jobs_of_rows
from mil.data.table import read_table
from mil.errors import ProtocolError
from mil.protocols.protocol import load_protocol, with_changes
from mil.protocols.run import UNMARKED, run_protocol
from mil.protocols.segmentation import FIELD_CELLS, deal_fields, without_field
from mil.runs.record import NewRun

CHANGES = (
    "arms.backbone=test_resnet", "arms.mpp=2.5", "extract.weights=random", "extract.tile=32",
    "extract.precision=fp32", "fit.epochs=2", "fit.seeds=1", "split.folds=2", "segment.cells=200",
)  # fmt: skip


@pytest.fixture(scope="module")
def table(study, tmp_path_factory):
    """Four of the cases, labelled."""
    path = tmp_path_factory.mktemp("table") / "cohort.csv"
    rows = [f"case-{n},case-{n},{'ab'[n % 2]}" for n in range(1, 5)]
    path.write_text("\n".join(["case,slide,label", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def result(study, table, tmp_path_factory):
    quick_arms = [arm.name for arm in load_protocol("usta-phase3").arms if arm.segmenter != "unet"]
    protocol = with_changes(
        load_protocol("usta-phase3"), [f"arms={';'.join(quick_arms)}", *CHANGES]
    )
    protocol.check()
    rows, notes = read_table(table), []
    made = run_protocol(
        NewRun(path=tmp_path_factory.mktemp("run") / "run"),
        protocol,
        rows,
        jobs_of_rows(rows, study.source.slides, study.source.jobs),
        device="cpu",
        workers=1,
        notify=notes.append,
    )
    assert notes[1] == UNMARKED
    return made


def test_both_splits_stand_side_by_side_with_colour_beside_them(result):
    dice = {r.arm.name: r.measures for r in result.arms if r.arm.segments}
    assert list(dice) == [
        "linear head, split without regard to cases",
        "linear head, split by cases",
    ]
    for measures in dice.values():
        assert measures["dice"] > 0.85
        assert measures["dice_colour"] < 0.85
        assert measures["dice_tissue"] == pytest.approx(0.48, abs=0.1)
    text = " ".join(result.limitations())
    assert "Other fields of slides that were trained on show how well a slide is remembered" in text


def test_slides_are_evaluated_by_masks_of_other_cases_and_compared(result):
    arms = ["tiles of annotations", "tiles of masks", "tiles of all tissue"]
    assert [{pair.first, pair.second} for pair in result.pairs] == list(
        map(set, combinations(arms, 2))
    )
    assert all(pair.p_holm >= pair.p for pair in result.pairs)
    assert "With 4 cases a true difference" in result.power
    tested = {r.arm.name: (r.n_cases, r.n_tiles) for r in result.arms if not r.arm.segments}
    assert [cases for cases, _ in tested.values()] == [4, 4, 4]
    assert tested["tiles of all tissue"][1] > 1.8 * tested["tiles of masks"][1]
    assert tested["tiles of masks"][1] == pytest.approx(tested["tiles of annotations"][1], rel=0.2)


def test_fields_are_squares_that_are_dealt_out_whatever_their_slide(slides):
    dealt = deal_fields(slides[0], 0)
    assert dealt.shape == slides[0].grid.shape
    first = dealt[:FIELD_CELLS, :FIELD_CELLS]
    assert (first == first[0, 0]).all()
    assert not np.array_equal(dealt, deal_fields(slides[1], 0))
    thinned = without_field(slides[0], dealt == first[0, 0])
    assert not thinned.target.known[:FIELD_CELLS, :FIELD_CELLS].any()
    outside = dealt != first[0, 0]
    np.testing.assert_array_equal(thinned.target.known[outside], slides[0].target.known[outside])


def test_without_drawings_the_study_is_refused(study, table, tmp_path):
    protocol = with_changes(load_protocol("usta-phase3"), ["arms=linear head, split by cases"])
    rows = read_table(table)
    with pytest.raises(ProtocolError, match="The study learns from drawn tumour"):
        run_protocol(
            NewRun(path=tmp_path / "run"), protocol, rows, jobs_of_rows(rows, study.source.slides),
            device="cpu",
        )  # fmt: skip


def test_weights_that_are_not_there_are_named_before_any_work(study, table, tmp_path, monkeypatch):
    monkeypatch.setattr("mil.protocols.rerun.Rerun.results", lambda _s: pytest.fail("work is done"))
    protocol = with_changes(
        load_protocol("usta-phase3"), ["extract.weights=lost.pth", "arms.backbone=test_resnet"]
    )
    rows = read_table(table)
    jobs = jobs_of_rows(rows, study.source.slides, study.source.jobs)
    with pytest.raises(BackboneError, match=r"lost\.pth"):
        run_protocol(NewRun(path=tmp_path / "run"), protocol, rows, jobs, device="cpu")
    assert not (tmp_path / "run").exists()


def test_its_u_net_arms_are_those_of_the_source():
    protocol = load_protocol("usta-phase3")
    arms = {arm.name: arm for arm in protocol.arms}
    assert [(a.segmenter, a.test) for a in arms.values() if a.segmenter == "unet"] == [
        ("unet", "fields"),
        ("unet", "folds"),
    ]
    assert set(protocol.compare) <= set(arms)
    assert not any(arm.published for arm in arms.values())
