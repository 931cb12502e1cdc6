"""The question of an arm: which labels of a table a study takes together, and which it leaves out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mil.data.case import Row
from mil.data.names import normalised
from mil.errors import ProtocolError

Question = Mapping[str, Sequence[str]]  # the table's labels by class of the study
OTHERS = "*"  # in place of labels: all that are not named
LEFT_OUT = "left out"  # in place of a class: labels that the question is not about


def check_question(name: str, question: Question) -> None:
    """Refuse a question that has no answer.

    Raises:
        ProtocolError: fewer than two classes, a class without labels, or a label in two classes.
    """
    classes = [group for group in question if group != LEFT_OUT]
    if len(classes) < 2:
        raise ProtocolError(
            f"questions.{name} tells {len(classes)} class apart. Name the labels of two or more, as in "
            'questions.rms={RMS=["ARMS", "ERMS"], NRSTS=["*"]}.'
        )
    seen: dict[str, str] = {}
    for group, labels in question.items():
        if not labels:
            raise ProtocolError(f"questions.{name}: {group} has no label. Name one, or {OTHERS!r}.")
        for label in labels:
            if seen.setdefault(normalised(label) or label, group) != group:
                raise ProtocolError(f"questions.{name}: {label} is in two classes. Leave one out.")


def rows_by_question(name: str, question: Question, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that a question is about, with the study's classes as labels.

    Labels are compared without regard to capitals, blanks and dashes.

    Raises:
        ProtocolError: a class has no row.
    """
    group_of = {
        normalised(label): group for group, labels in question.items() for label in labels
        if label != OTHERS
    }  # fmt: skip
    others = next((group for group, labels in question.items() if OTHERS in labels), LEFT_OUT)
    groups = [group_of.get(normalised(row.label), others) for row in rows]
    for group in question:
        if group not in groups and group != LEFT_OUT:
            known = sorted({row.label for row in rows})
            raise ProtocolError(
                f"No slide of the table is {group}: its labels would be {', '.join(question[group])}, and "
                f"those of the table are {', '.join(known)}. Name the table's own in questions.{name}, or "
                "leave out the arms of this question."
            )
    return tuple(
        replace(row, label=group)
        for row, group in zip(rows, groups, strict=True)
        if group != LEFT_OUT
    )
