"""What there is to say of a cohort before it is worked on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NAMED = 5  # of a list of names, before the rest is counted


@dataclass(frozen=True)
class Summary:
    """What there is to say of the whole cohort.

    Attributes:
        facts: (name, text).
        problems: what would fail.
        warnings: what would not, but should be known.
    """

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def tally(counts: Mapping[Any, int]) -> str:
    """``aperio (3), hamamatsu (1)``."""
    return ", ".join(f"{name} ({n})" for name, n in counts.items())


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def join_names(names: Sequence[str]) -> str:
    """Names in a sentence.

    Example:
        >>> join_names(["DDLPS", "MPNST", "SS"])
        'DDLPS, MPNST and SS'
        >>> join_names(["LMS"])
        'LMS'
    """
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


def note_lines(notes: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """One line for each note, with the names that it is on: ``p1, p2: 3 slices interpolated``.

    Args:
        notes: (name, its notes).
    """
    names: dict[str, list[str]] = {}
    for name, own in notes:
        for note in own:
            names.setdefault(note, []).append(name)
    return [f"{listed(on)}: {note}" for note, on in names.items()]


SPARE_BYTES = 100_000_000  # that are left free on a disk


def format_bytes(n_bytes: float) -> str:
    """``1.2 GB``."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"
