"""A study's question decides which rows of a table are read, and by which label."""

from dataclasses import replace

import pytest

from mil.data.case import Row
from mil.errors import FitError, ProtocolError
from mil.protocols.protocol import load_protocol, with_changes
from mil.protocols.questions import rows_by_question

LABELS = (
    "ARMS",
    "Alveolar  Rhabdomyosarcoma",
    "erms",
    "Ewing's sarcoma",
    "synovial sarcoma",
    "DSRCT",
)
ROWS = [Row(line=i, case=f"c{i}", slide=f"s{i}", label=label) for i, label in enumerate(LABELS)]


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        ("rms", ["RMS", "RMS", "RMS", "NRSTS", "NRSTS", "NRSTS"]),
        ("subtype", ["ARMS", "ARMS", "ERMS"]),
        ("ewing", ["Ewing", "other NRSTS", "other NRSTS"]),
    ],
)
def test_labels_are_taken_together_in_any_spelling_and_the_rest_is_left_out(question, labels):
    rows = rows_by_question(question, load_protocol("thiesen-sampler").questions[question], ROWS)
    assert [row.label for row in rows] == labels
    assert {row.slide for row in rows} <= {row.slide for row in ROWS}


def test_a_class_without_a_slide_is_refused_with_the_labels_of_the_table():
    question = load_protocol("thiesen-sampler").questions["subtype"]
    with pytest.raises(ProtocolError, match=r"No slide of the table is ERMS.*are ARMS, DSRCT"):
        rows_by_question("subtype", question, [ROWS[0], ROWS[5]])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{RMS=["LMS"]}', "tells 1 class apart"),
        ('{RMS=["LMS"], "left out"=["SS"]}', "tells 1 class apart"),
        ('{RMS=["LMS"], NRSTS=[]}', "NRSTS has no label"),
        ('{RMS=["LMS", "SS"], NRSTS=["ss"]}', "ss is in two classes"),
        ('{RMS=["*"], NRSTS=["*"]}', r"\* is in two classes"),
        ("LMS", "questions.rms has labels by class; got 'LMS'"),
    ],
)
def test_a_question_without_an_answer_is_refused(value, words):
    with pytest.raises(ProtocolError, match=words):
        with_changes(load_protocol("thiesen-sampler"), [f"questions.rms={value}"])


def test_only_the_studys_questions_can_be_changed():
    with pytest.raises(ProtocolError, match=r"No question 'grade'.* Known: rms, subtype, ewing"):
        with_changes(load_protocol("thiesen-sampler"), ['questions.grade={a=["1"], b=["2"]}'])
    with pytest.raises(ProtocolError, match="Known: none"):
        with_changes(load_protocol("usta-phase1"), ['questions.rms={a=["1"], b=["2"]}'])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "abmill"}, FitError, "abmill"),
        ({"question": "rm"}, ProtocolError, "Did you mean 'rms'"),
        ({"finetune": True}, ProtocolError, "need frozen features"),
        ({"test": "tiles"}, ProtocolError, "need frozen features"),
        ({"model": "", "scales": (0.5, 1.0)}, ProtocolError, "joined stores need a model"),
    ],
)
def test_an_arm_whose_parts_do_not_go_together_is_refused_before_any_work(change, error, words):
    protocol = load_protocol("thiesen-sampler")
    arms = (replace(protocol.arms[0], **change), *protocol.arms[1:])
    with pytest.raises(error, match=words):
        replace(protocol, arms=arms).check()


def test_scales_are_changed_where_an_arm_has_several():
    protocol = with_changes(
        load_protocol("thiesen-sampler"), ["arms.mpp=0.4", "arms.scales=0.3,1.2"]
    )
    assert {(arm.mpp, arm.scales) for arm in protocol.arms} == {(0.4, ()), (None, (0.3, 1.2))}
    assert [recipe.mpp for recipe in protocol.recipes_of(protocol.arms[-1])] == [0.3, 1.2]
    with pytest.raises(ProtocolError, match=r"usta-phase1 has several scales"):
        with_changes(load_protocol("usta-phase1"), ["arms.scales=[1, 2]"])
    two = with_changes(load_protocol("thiesen-sampler"), ["arms=Ewing: UNI, two scales"])
    with pytest.raises(ProtocolError, match=r"has one scale, so arms\.mpp would change nothing"):
        with_changes(two, ["arms.mpp=0.4"])
    with pytest.raises(ProtocolError, match=r"arms\.scales is"):
        with_changes(two, ["arms.scales=fine,coarse"])
