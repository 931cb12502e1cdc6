"""A row of the study's table, and a case with its bags."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from features.bags.bag import Bag
from features.summary import listed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One slide of the table.

    Attributes:
        line: its line in the file; the header is line 1.
        case: the patient.
        slide: the slide's name, without folder and suffix.
        label: the case's class; empty where it is not known.
        site: where the slide was made; empty where it is not known.
        mpp: micrometres per level-0 pixel, overriding the file; None where the table has none.
        split: whether the row is for training or testing, as written; see ``split_train_test``.
        time: until the event or the end of observation, in a cohort with follow-up.
        unread: the cell of the label, where it is taken for a word that says that the label is missing.
        known_at_diagnosis: further columns that are declared to be known when a case is diagnosed.
        other: all further columns.
    """

    line: int
    case: str
    slide: str
    label: str = ""
    site: str = ""
    mpp: float | None = None
    split: str = ""
    time: float | None = None
    unread: str = field(default="", compare=False)
    known_at_diagnosis: tuple[str, ...] = field(default=(), compare=False)
    other: Mapping[str, str] = field(default_factory=dict)


def note_unread(rows: Iterable[Row]) -> str:
    """A sentence on words that were taken for missing labels; empty if there are none."""
    slides: dict[str, list[str]] = {}
    for row in rows:
        if row.unread and not row.label:
            slides.setdefault(row.unread, []).append(row.slide)
    if not slides:
        return ""
    words = ", ".join(f"{word!r} ({listed(names)})" for word, names in slides.items())
    one = "it is" if len(slides) == 1 else "they are"
    return (
        f"{words} {'is' if len(slides) == 1 else 'are'} read as a missing label. Set label_is to "
        f"{','.join(slides)!r} if {one} meant as a class."
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A patient: the unit of splits, labels, intervals and tests.

    Attributes:
        name: as in the table.
        label: its class; with follow-up, whether its event was observed.
        bags: one per slide, sorted by slide.
        site: where its slides were made; empty where it is not known.
        time: until the event or the end of observation, in a cohort with follow-up.
        other: all further columns of the table, as its first slide has them.
        differing: names of the further columns in which its slides differ.
        known_at_diagnosis: further columns that are declared to be known when a case is diagnosed.
    """

    name: str
    label: str
    bags: tuple[Bag, ...]
    site: str = ""
    time: float | None = None
    other: Mapping[str, str] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    known_at_diagnosis: tuple[str, ...] = ()


def has_follow_up(cases: Iterable[Case | Row]) -> bool:
    """Whether the outcome of cases is a time until an event or the end of observation."""
    return any(case.time is not None for case in cases)
