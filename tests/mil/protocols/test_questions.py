"""A study's question decides which rows of a table are read, and by which label."""

from dataclasses import replace

import pytest

from mil.data.case import Row
from mil.errors import FitError, ProtocolError
from mil.protocols.protocol import load_protocol, with_changes
from mil.protocols.questions import (
    check_labels,
    count_labels,
    describe_question,
    rows_by_question,
)
from mil.protocols.run import ProtocolResult

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


def test_the_tiles_of_an_arm_are_those_its_encoder_was_trained_on():
    protocol = load_protocol("thiesen-sampler")
    sides = {a.backbone: {r.tile for r in protocol.recipes_of(a)} for a in protocol.arms}
    assert sides == {"inceptionv3": {224}, "uni": {256}, "conch": {512}}
    changed = with_changes(protocol, ["extract.tile=128"])
    assert {r.tile for a in changed.arms for r in changed.recipes_of(a)} == {128}


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
    with pytest.raises(ProtocolError, match=r"arms\.scales must be a list"):
        with_changes(two, ["arms.scales=fine,coarse"])


def rows_with(**counts):
    """n cases of each label, two slides each."""
    labels = [label for label, n in counts.items() for _ in range(n)]
    return [
        Row(line=2 * i + k, case=f"c{i}", slide=f"s{i}-{k}", label=label)
        for i, label in enumerate(labels) for k in range(2)
    ]  # fmt: skip


def test_every_label_is_counted_in_its_class_and_those_that_no_class_names_are_listed():
    question = {"Ewing": ("ES", "Ewing sarcoma"), "other": ("SS", "*"), "left out": ("ARMS",)}
    rows = rows_with(**{"es": 3, "SS": 2, "DSRCT": 4, "ARMS": 1, "MPNST": 1})
    counts = count_labels(question, rows)
    assert [(one.label, one.group, one.n_cases, one.named) for one in counts] == [
        ("es", "Ewing", 3, True), ("SS", "other", 2, True), ("DSRCT", "other", 4, False),
        ("MPNST", "other", 1, False), ("ARMS", "left out", 1, True),
    ]  # fmt: skip
    assert describe_question("ewing", counts) == [
        "Question ewing, cases by label: Ewing 3 (es 3); other 7 (SS 2, DSRCT 4, MPNST 1); left out 1 "
        "(ARMS 1).",
        "Question ewing does not name: DSRCT (other), MPNST (other). Check that they belong there.",
    ]
    named = count_labels(question, rows_with(es=1, SS=1))
    assert len(describe_question("ewing", named)) == 1


@pytest.mark.parametrize(
    ("study", "question", "label"),
    [
        ("yang-lipoma", "liposarcoma", "WD LPS, FISH+"),
        ("yang-lipoma", "liposarcoma", "LPS"),
        ("yang-lipoma", "liposarcoma", "Liposarkom"),
        ("yang-lipoma", "liposarcoma", "myxoid liposarcoma"),
        ("piffer-metastasis", "metastasis", "lung mets"),
        ("piffer-metastasis", "metastasis", "Lungenmetastasen"),
        ("piffer-metastasis", "metastasis", "yes (bone)"),
        ("piffer-metastasis", "metastasis", "metastasi"),
        ("navarro-grading", "grade", "G3 (FNCLCC)"),
        ("navarro-grading", "grade", "FNCLCC 2"),
        ("navarro-grading", "grade", "intermed."),
        ("thiesen-sampler", "subtype", "alveolar RMS"),
        ("thiesen-sampler", "ewing", "Ewing-like sarcoma"),
    ],
)
def test_a_label_that_may_mean_a_named_one_is_refused_where_it_falls_among_the_others(
    study, question, label
):
    protocol = load_protocol(study)
    rows = rows_with(**{label: 2, "X": 3})
    with pytest.raises(ProtocolError) as caught:
        check_labels(question, protocol.questions[question], rows)
    text = str(caught.value)
    assert text.startswith(f"questions.{question} does not name {label!r} (like ")
    changed = with_changes(protocol, [text[text.index(f"questions.{question}={{") :]])
    check_labels(question, changed.questions[question], rows)
    [count] = [one for one in count_labels(changed.questions[question], rows) if one.label == label]
    assert count.named
    assert f", {count.group})" in text


@pytest.mark.parametrize(
    ("study", "question", "label", "both"),
    [
        ("yang-lipoma", "liposarcoma", "atypical lipomatous neoplasm", ("liposarcoma", "lipoma")),
        ("navarro-grading", "grade", "grade 1 or 2", ("high", "low")),
    ],
)
def test_a_label_that_may_mean_either_class_is_put_into_none(study, question, label, both):
    protocol = load_protocol(study)
    with pytest.raises(ProtocolError) as caught:
        check_labels(question, protocol.questions[question], rows_with(**{label: 2, "X": 3}))
    text = str(caught.value)
    assert all(f", {group}" in text for group in both)
    assert label not in text[text.index(f"questions.{question}={{") :]


@pytest.mark.parametrize(
    ("study", "question", "label", "group"),
    [
        ("navarro-grading", "grade", "Grade III", "high"),
        ("navarro-grading", "grade", "I", "low"),
        ("piffer-metastasis", "metastasis", "M1", "metastasis"),
        ("piffer-metastasis", "metastasis", "No distant metastasis", "free"),
        ("piffer-metastasis", "metastasis", "M-", "free"),
        ("yang-lipoma", "liposarcoma", "MDM2-", "lipoma"),
    ],
)
def test_usual_words_have_their_class(study, question, label, group):
    classes = load_protocol(study).questions[question]
    [count] = count_labels(classes, rows_with(**{label: 2}))
    assert (count.group, count.named) == (group, True)


@pytest.mark.parametrize(
    ("study", "question", "labels"),
    [
        ("thiesen-sampler", "rms", "LMS;leiomyosarcoma;fibrosarcoma;SS;synovial sarcoma;osteosarcoma"),
        ("thiesen-sampler", "ewing", "epithelioid sarcoma;clear cell sarcoma;angiosarcoma;MPNST;SFT"),
        ("yang-lipoma", "liposarcoma", "lipoma;hibernoma;angiolipoma"),
        ("piffer-metastasis", "metastasis", "none;no mets;NED;local recurrence;free;alive"),
        ("navarro-grading", "grade", "unknown;NA;X"),
    ],
)  # fmt: skip
def test_labels_of_other_diseases_are_others_without_a_question(study, question, labels):
    rows = rows_with(**dict.fromkeys(labels.split(";"), 1))
    check_labels(question, load_protocol(study).questions[question], rows)


@pytest.mark.parametrize(
    ("name", "kinds"), [("thiesen-sampler", "with 3 labels"), ("usta-phase1", "of 3 classes")]
)
def test_cases_of_a_table_are_counted_by_class_or_by_label(name, kinds):
    """A question makes two classes of the three labels."""
    protocol = load_protocol(name)
    labels = {f"c{i}": ("ARMS", "erms", "SS")[i % 3] for i in range(7)}
    questions = {one: count_labels(protocol.questions[one], ROWS) for one in protocol.questions}
    result = ProtocolResult(
        protocol=protocol, labels=labels, arms=(), pairs=(), questions=questions
    )
    assert f"here are 7 cases {kinds}. A difference" in result.limitations()[0]
