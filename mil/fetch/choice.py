"""Which cases and slides of a project are fetched."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from features.choices import unknown_problem
from features.summary import listed
from mil.errors import FetchError
from mil.fetch.entries import CaseFacts, SlideFile
from mil.fetch.settings import Selection

DAMAGED_SLIDE = "slides whose entry is damaged or contradicts itself"
DAMAGED_CASE = "cases whose entry is damaged or contradicts itself"


@dataclass(frozen=True, kw_only=True)
class ChosenCase:
    """A case with its label and the slides that are fetched, in their order."""

    facts: CaseFacts
    label: str
    slides: tuple[SlideFile, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A label, and what there is of it.

    Attributes:
        label: the subtype.
        n_cases, n_slides: with diagnostic slides of tumour.
        chosen: the cases that are fetched.
    """

    label: str
    n_cases: int
    n_slides: int
    chosen: tuple[ChosenCase, ...]

    @property
    def n_bytes(self) -> int:
        """Of the slides that are fetched."""
        return sum(slide.size for case in self.chosen for slide in case.slides)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is fetched of a project.

    Attributes:
        groups: by label.
        spellings: cases by the label's spelling, and the label that it became; empty where it became none.
            Several spellings of a case are joined by a plus.
        left_out: slides and cases that are not fetched, counted by reason.
        notes: which entries have a problem, and which facts of the cases are left empty.
    """

    groups: tuple[Group, ...]
    spellings: Mapping[str, tuple[str, int]]
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()


def choose(
    slides: Iterable[SlideFile],
    cases: Mapping[str, CaseFacts],
    selection: Selection,
    label_of: Callable[[str], str],
    names: Sequence[str],
) -> Choice:
    """Choose diagnostic slides of tumours, and cases of each label.

    Args:
        slides: of the project.
        cases: of the project by name.
        selection: of labels and numbers.
        label_of: the label of a spelling; empty if it has none.
        names: the labels that there are, whether or not a case has them.

    Raises:
        FetchError: a subtype does not exist or has no case, or nothing is left.
    """
    left_out = Counter[str]()
    odd: dict[str, list[str]] = {}
    usable = _usable_slides(slides, cases, left_out, odd)
    labels = {name: _one_label(cases[name].spellings, label_of) for name in usable}
    by_label: dict[str, list[str]] = {}
    for name, label in labels.items():
        if label:
            by_label.setdefault(label, []).append(name)
        elif len(cases[name].spellings) > 1:
            left_out["cases with several diagnoses"] += 1
        else:
            left_out["cases without a label"] += 1
    chosen = _subtypes(selection, by_label, names)
    for label in by_label.keys() - {*chosen}:
        left_out["cases of other subtypes"] += len(by_label[label])
    groups = tuple(_group(label, by_label[label], usable, cases, selection) for label in chosen)
    return Choice(
        groups=groups,
        spellings=_spellings(labels, cases),
        left_out=dict(left_out),
        notes=(*_odd_notes(odd), *_fact_notes(groups)),
    )


def _one_label(spellings: Sequence[str], label_of: Callable[[str], str]) -> str:
    """The label that all spellings of a case mean; empty where they mean several or none."""
    labels = {label_of(spelling) for spelling in spellings}
    return next(iter(labels)) if len(labels) == 1 else ""


def _spellings(
    labels: Mapping[str, str], cases: Mapping[str, CaseFacts]
) -> dict[str, tuple[str, int]]:
    """Label and number of cases by spelling."""
    counts = Counter((" + ".join(cases[name].spellings), labels[name]) for name in labels)
    return {spelling: (label, n) for (spelling, label), n in sorted(counts.items()) if spelling}


def _odd_notes(odd: Mapping[str, Sequence[str]]) -> list[str]:
    """Which entries have a problem, by what they are entries of: slide or case."""
    return [
        f"{what.capitalize()}{'' if len(names) == 1 else 's'} {listed(names)}: left out, because the "
        "service's entry is damaged or contradicts itself."
        for what, names in odd.items()
    ]


def _fact_notes(groups: Iterable[Group]) -> list[str]:
    """Which facts of the chosen cases are left empty because they cannot be."""
    names: dict[str, list[str]] = {}
    for group in groups:
        for case in group.chosen:
            for remark in case.facts.remarks:
                names.setdefault(remark, []).append(case.facts.name)
    return [f"{listed(own)}: {remark}. It is left empty." for remark, own in names.items()]


def draw(names: Iterable[str], n: int | None, seed: int) -> list[str]:
    """So many of the names, sorted: the same for a seed whatever the order, and among those of a larger n."""
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    return sorted(order[:n])


def _usable_slides(
    slides: Iterable[SlideFile],
    cases: Mapping[str, CaseFacts],
    left_out: "Counter[str]",
    odd: dict[str, list[str]],
) -> dict[str, list[SlideFile]]:
    """Diagnostic slides of tumour by case, in their order; names of entries with a problem go to ``odd``."""
    usable: dict[str, list[SlideFile]] = {}
    for slide in slides:
        reason = _reason(slide, cases)
        if reason:
            left_out[reason] += 1
        else:
            usable.setdefault(slide.cases[0], []).append(slide)
        if reason == DAMAGED_SLIDE:
            odd.setdefault("slide", []).append(f"{slide.name} ({slide.problem})")
    damaged = [f"{name} ({case.problem})" for name, case in cases.items() if case.problem]
    if damaged:
        odd["case"] = damaged
        left_out[DAMAGED_CASE] = len(damaged)
    without = [name for name in cases if name not in usable and not cases[name].problem]
    left_out["cases without a diagnostic slide"] = len(without)
    return {
        name: sorted(usable[name], key=lambda one: (one.order, one.name)) for name in sorted(usable)
    }


def _reason(slide: SlideFile, cases: Mapping[str, CaseFacts]) -> str:
    """Why a slide is not used; empty if it is."""
    if slide.problem and slide.is_diagnostic:
        return DAMAGED_SLIDE
    if not slide.is_stated:
        return "slides of which nothing says whether they show tumour"
    if not slide.is_tumour:
        return "slides of normal tissue or controls"
    if not slide.is_diagnostic:
        return "frozen sections and other slides that are not diagnostic"
    if len(slide.cases) != 1:
        return "slides of several cases"
    if slide.cases[0] not in cases:
        return "slides of cases that the service does not list"
    if cases[slide.cases[0]].problem:
        return "slides of cases whose entry cannot be used"
    return ""


def _subtypes(
    selection: Selection, by_label: Mapping[str, Sequence[str]], labels: Sequence[str]
) -> list[str]:
    """The labels to fetch, in the order in which they were asked for, as the table spells them."""
    if not by_label:
        raise FetchError(
            "No case has both a diagnostic tumour slide and a label. Frozen sections are not fetched; set "
            "label_field to another field if the label field is the wrong one."
        )
    if not selection.subtypes:
        return sorted(by_label, key=lambda label: (-len(by_label[label]), label))
    known = {label.casefold(): label for label in labels}
    names = [known.get(name.strip().casefold(), name.strip()) for name in selection.subtypes]
    if problem := unknown_problem("subtype", names, sorted(labels)):
        raise FetchError(problem)
    if absent := [name for name in dict.fromkeys(names) if name not in by_label]:
        raise FetchError(
            f"There is no case of {' or '.join(absent)} here with a diagnostic slide of tumour. Leave "
            f"{'it' if len(absent) == 1 else 'them'} out; there are cases of {', '.join(sorted(by_label))}."
        )
    return list(dict.fromkeys(names))


def _group(
    label: str,
    names: Sequence[str],
    usable: Mapping[str, Sequence[SlideFile]],
    cases: Mapping[str, CaseFacts],
    selection: Selection,
) -> Group:
    chosen = draw(names, selection.max_per_subtype, selection.seed)
    return Group(
        label=label,
        n_cases=len(names),
        n_slides=sum(len(usable[name]) for name in names),
        chosen=tuple(
            ChosenCase(
                facts=cases[name],
                label=label,
                slides=tuple(usable[name][: selection.slides_per_case]),
            )
            for name in chosen
        ),
    )
