"""The question of an arm: which labels of a table a study takes together, and which it leaves out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mil.data.case import Row
from mil.data.names import normalised
from mil.errors import ProtocolError
from mil.protocols.resemblance import resembled

Question = Mapping[str, Sequence[str]]  # the table's labels by class of the study
OTHERS = "*"  # in place of labels: all that are not named
LEFT_OUT = "left out"  # in place of a class: labels that the question is not about


@dataclass(frozen=True)
class LabelCount:
    """A label of a table, and what a question makes of it.

    Attributes:
        label: as in the table.
        group: class of the study, or ``LEFT_OUT``.
        n_cases: cases with the label.
        named: whether the question names it; otherwise it is one of all others.
    """

    label: str
    group: str
    n_cases: int
    named: bool


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
                raise ProtocolError(f"questions.{name}: {label} is in two classes. Keep it in one.")


def count_labels(question: Question, rows: Sequence[Row]) -> tuple[LabelCount, ...]:
    """The labels of a table by class, in the order of the question's classes."""
    cases = {row.case: row.label for row in rows}
    labels = list(cases.values())
    order = [*question, LEFT_OUT]
    counts = [
        LabelCount(label, group, labels.count(label), named)
        for label in labels
        for group, named in [_class_of(question, label)]
    ]
    unique = {count.label: count for count in counts}.values()
    return tuple(sorted(unique, key=lambda one: (order.index(one.group), not one.named, one.label)))


def check_labels(name: str, question: Question, rows: Sequence[Row]) -> None:
    """Refuse labels that a question does not name, but that may mean one of those it names elsewhere.

    Raises:
        ProtocolError: with the question as it would be if each counted as the one class that it resembles.
    """
    others = _others(question)
    alike = {}
    for label in (count.label for count in count_labels(question, rows) if not count.named):
        likes = {group: like for group in question if (like := resembled(label, question[group]))}
        if likes.keys() - {others}:
            alike[label] = likes
    if not alike:
        return
    changed = {group: list(labels) for group, labels in question.items()}
    for label, likes in alike.items():
        if len(likes) == 1:  # else only a person knows
            changed[next(iter(likes))].append(label)
    listed = "; ".join(
        f"{label!r} (like {' and '.join(f'{like}, {group}' for group, like in likes.items())})"
        for label, likes in alike.items()
    )
    raise ProtocolError(
        f"questions.{name} does not name {listed}: the cases would be {others}, with all other labels. Name "
        f"each label in the class that it belongs to, for instance {write_question(name, changed)}"
    )


def write_question(name: str, question: Question) -> str:
    """A question as a change of the study's settings."""
    classes = [
        f"{group if group.isalnum() else json.dumps(group, ensure_ascii=False)}="
        f"{json.dumps(list(labels), ensure_ascii=False)}"
        for group, labels in question.items()
    ]
    return f"questions.{name}={{{', '.join(classes)}}}"


def describe_question(name: str, counts: Sequence[LabelCount]) -> list[str]:
    """Which labels each class of a question has in the table, and which of them it does not name."""
    groups: dict[str, list[LabelCount]] = {}
    for count in counts:
        groups.setdefault(count.group, []).append(count)
    classes = [
        f"{group} {sum(one.n_cases for one in of_group)} "
        f"({', '.join(f'{one.label} {one.n_cases}' for one in of_group)})"
        for group, of_group in groups.items()
    ]
    sentences = [f"Question {name}, cases by label: {'; '.join(classes)}."]
    unnamed = [one for one in counts if not one.named]
    if unnamed:
        taken = ", ".join(f"{one.label} ({one.group})" for one in unnamed)
        sentences.append(f"Question {name} does not name: {taken}. Check that they belong there.")
    return sentences


def rows_by_question(name: str, question: Question, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that a question is about, with the study's classes as labels.

    Labels are compared without regard to capitals, blanks and dashes.

    Raises:
        ProtocolError: a class has no row.
    """
    groups = [_class_of(question, row.label)[0] for row in rows]
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


def _class_of(question: Question, label: str) -> tuple[str, bool]:
    """The class of a label, and whether the question names the label."""
    key = normalised(label)
    for group, labels in question.items():
        if any(normalised(one) == key for one in labels if one != OTHERS):
            return group, True
    return _others(question), False


def _others(question: Question) -> str:
    """The class of labels that are not named."""
    return next((group for group, labels in question.items() if OTHERS in labels), LEFT_OUT)
