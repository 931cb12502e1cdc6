"""Cases joined to their bags: every row of the table is used, or listed with the reason."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Unpack

from features.backbones.pathology import ENCODERS
from features.bags.arrays import are_all_equal
from features.bags.bag import Bag, read_intact_bag, recipe_differences
from features.bags.store import missing_store
from features.choices import did_you_mean
from features.errors import BagError
from features.recipe import recipe_parts
from features.summary import listed
from mil.data.case import Case, Row, note_unread
from mil.data.names import normalised, patient_of
from mil.data.reading import AS_WRITTEN, TableReading, TableWords
from mil.data.table import reserved_rows, training_rows
from mil.errors import CohortError
from mil.tasks.registry import task_class
from mil.tasks.task import Task

FORMULAS = "radiomics ("  # how backbones begin that have learnt from no case


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Cases with their bags, checked.

    Attributes:
        cases: sorted by name.
        classes: the labels, in the order of the task.
        task: what is asked of a case.
        excluded: (row, reason) of every row of the table that is not used.
        duplicates: pairs of slides whose bags are identical, which were allowed.
        reserved: rows of its table that are kept for external validation: nothing may learn from them.
        table: the file it was read from; None for rows that came from elsewhere.
        store: the folder of its bags.
        reading: what the names and words of the table were taken for.
    """

    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    task: Task
    excluded: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()
    reserved: tuple[Row, ...] = ()
    table: Path | None = None
    store: Path | None = None
    reading: TableReading = AS_WRITTEN

    def __repr__(self) -> str:
        """How many cases and slides, and of which classes, in a line."""
        classes = f", classes {', '.join(self.classes)}" if self.classes else ""
        return f"Cohort({len(self.cases)} cases, {len(self.bags)} slides{classes}, task {self.task.name})"

    def origin(self) -> tuple[Path, Path]:
        """(table, store) that it was loaded from, absolute.

        Raises:
            CohortError: it was not loaded from files.
        """
        if self.table is None or self.store is None:
            raise CohortError(
                "This cohort was put together in memory, so that a run could not find it again. Use "
                "load_cohort on a table and a store."
            )
        return self.table.absolute(), self.store.absolute()

    @property
    def names(self) -> list[str]:
        """Of the cases."""
        return [case.name for case in self.cases]

    @property
    def labels(self) -> list[str]:
        """Of the cases."""
        return [case.label for case in self.cases]

    @property
    def bags(self) -> list[Bag]:
        """Of all cases."""
        return [bag for case in self.cases for bag in case.bags]

    @property
    def recipe(self) -> Mapping[str, object]:
        """How all bags were made."""
        return self.cases[0].bags[0].recipe

    @property
    def recipe_sha256(self) -> str:
        """Fingerprint of the recipe."""
        return self.cases[0].bags[0].recipe_sha256

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.cases[0].bags[0].dim

    @property
    def unknown_weights(self) -> str:
        """The backbone's weights, where it is not known which cases they were trained on; else empty.

        It is known of weights whose file lists them, of random ones, of features that are computed by
        formulas, and of public weights unless slides bear barcodes of a public programme.
        """
        if any(bag.trained_on for bag in self.bags):
            return ""
        public = any(map(patient_of, (*self.names, *(bag.slide for bag in self.bags))))
        parts = [part for part in recipe_parts(self.recipe) if _is_unknown(part, public=public)]
        return " + ".join(map(_describe_weights, parts))

    def named(self, names: Sequence[str]) -> tuple[Case, ...]:
        """The cases of these names, in the cohort's order.

        Raises:
            CohortError: there is no such case.
        """
        requested = set(names)
        unknown = sorted(requested - {case.name for case in self.cases})
        if unknown:
            raise CohortError(
                f"{len(unknown)} cases are not in the cohort, e.g. {unknown[0]!r}. Use its own folds."
            )
        return tuple(case for case in self.cases if case.name in requested)


def _is_unknown(part: Mapping[str, object], *, public: bool) -> bool:
    """Whether nothing says which cases the backbone of a recipe was trained on.

    Args:
        part: a recipe.
        public: whether the cases are of a public programme, whose slides public encoders learn from.
    """
    backbone, weights = str(part.get("backbone", "")), str(part.get("weights", ""))
    if weights.startswith("pretrained"):
        return public and backbone in ENCODERS
    return not (weights.startswith("random") or backbone.startswith(FORMULAS))


def _describe_weights(part: Mapping[str, object]) -> str:
    weights = str(part.get("weights", ""))
    is_file = not weights.startswith(("pretrained", "converted"))
    return weights if is_file else f"{part.get('backbone', '')} ({weights})"


def load_cohort(
    table: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    task: Task | str | None = None,
    allow_missing: bool = False,
    allow_duplicates: bool = False,
    notify: Callable[[str], None] | None = None,
    **words: Unpack[TableWords],
) -> Cohort:
    """Read the study's table and join it to its bags.

    Rows with split=test are left out: they are kept for external validation.

    Args:
        table: CSV with case, slide and the columns of the task (label, for a diagnosis).
        store: folder with one ``<slide>.h5`` per slide.
        task: what is asked of a case, or the name of a task; a diagnosis if not given.
        allow_missing: go on without slides that lack a bag or an outcome; they are listed as excluded.
        allow_duplicates: go on with slides whose bags are identical, of different specimens whose features
            are the same; they are counted.
        notify: called with what a reader should know of the cohort.
        words: ``case_from``, a regular expression that finds the patient in the names of the column case,
            where these are slides or blocks: its first group, or the whole match; ``label_is``, labels that
            read like a word for a missing value and are meant; ``known_at_diagnosis``, columns that are
            known when a case is diagnosed, whatever they are called.

    Raises:
        CohortError: the table cannot be read, a row cannot be used, or too few classes remain.

    Example:
        cohort = mil.load_cohort("cohort.csv", "store")
        print(len(cohort.cases), cohort.classes)
    """
    table = Path(table)
    reading = TableReading.of_words(words)
    rows = training_rows(table, notify, reading)
    cohort = assemble(
        rows,
        Path(store),
        task=task,
        allow_missing=allow_missing,
        allow_duplicates=allow_duplicates,
        source=table.name,
    )
    if (
        notify
        and allow_missing
        and (unread := note_unread(cohort.task.label_rows(rows, table.name)))
    ):
        notify(unread)
    if cohort.duplicates and notify:
        (first, second), n_pairs = cohort.duplicates[0], len(cohort.duplicates)
        notify(
            f"{n_pairs} {'slides have' if n_pairs > 1 else 'slide has'} the same bag as another one, e.g. "
            f"{second} as {first}, and count all the same. Copies of one specimen would be trained on and "
            "tested."
        )
    if notify and (empty := [bag.slide for bag in cohort.bags if are_all_equal(bag.features)]):
        notify(
            f"All tiles of {listed(empty)} have the same features: whatever made them saw nothing of the "
            "slide. Extract them again, or remove their rows."
        )
    reserved = reserved_rows(table, reading)
    return replace(cohort, reserved=reserved, table=table, reading=reading)


def assemble(
    rows: Sequence[Row],
    store: Path,
    *,
    task: Task | str | None = None,
    allow_missing: bool | None = False,
    allow_duplicates: bool | None = False,
    source: str = "the table",
) -> Cohort:
    """Join rows of a table to the bags of a store.

    Args:
        rows: as ``read_table`` returns them.
        store: folder with one ``<slide>.h5`` per slide.
        task: what is asked of a case, or the name of a task; a diagnosis if not given.
        allow_missing: go on without slides that lack a bag or an outcome; they are listed as excluded. None
            where it cannot be asked for: messages name what else to do.
        allow_duplicates: go on with slides whose bags are identical, of different specimens whose features
            are the same; they are counted. None as above.
        source: the table, for messages.

    Raises:
        CohortError: a row lacks a bag or an outcome, bags differ in recipe, or too few classes remain.
    """
    if not isinstance(task, Task):
        task = (task_class(task) if task else task_class())()
    rows = task.label_rows(rows, source)
    unread = note_unread(rows)
    if not any(row.label for row in rows):
        columns = ", ".join(rows[0].other) if rows else ""
        raise CohortError(
            f"{source} has no labels. Give it a column label with each case's class"
            f"{columns and f', or rename the one that has it: {columns}'}.{unread and ' '}{unread}"
        )
    bags, excluded = _read_bags(rows, store, task.outcome)
    if excluded and not allow_missing:
        listing = "; ".join(f"{slide} ({reason})" for slide, reason in excluded[:5])
        more = f" and {len(excluded) - 5} more" if len(excluded) > 5 else ""
        otherwise = "remove their rows"
        if allow_missing is False:
            otherwise = "set allow_missing to go on without them"
        raise CohortError(
            f"{len(excluded)} of {len(rows)} rows of {source} cannot be used: {listing}{more}. "
            f"Correct them, or {otherwise}.{unread and ' '}{unread}"
        )
    if not bags:
        raise CohortError(
            f"No row of {source} has a bag in {store}. Extract the slides into this folder first."
        )
    _check_recipes(list(bags.values()))
    duplicates = _find_twins(list(bags.values()))
    if duplicates and not allow_duplicates:
        may_allow = allow_duplicates is False
        _refuse_twins(duplicates, {row.slide: row.case for row in rows}, may_allow=may_allow)
    # Sorted, so that the order of the table's rows changes no fold and no fit.
    usable = [row for row in rows if row.slide in bags]
    cases = tuple(
        _make_case([row for row in usable if row.case == name], bags)
        for name in sorted({row.case for row in usable})
    )
    return Cohort(
        cases=cases,
        classes=task.order_classes([case.label for case in cases], source),
        task=task,
        excluded=tuple(excluded),
        duplicates=tuple(duplicates),
        store=store,
    )


def _make_case(rows: Sequence[Row], bags: Mapping[str, Bag]) -> Case:
    rows = sorted(rows, key=lambda row: row.slide)
    first = rows[0]
    return Case(
        name=first.case,
        label=first.label,
        bags=tuple(bags[row.slide] for row in rows),
        site=first.site,
        time=first.time,
        other=first.other,
        differing=tuple(name for name in first.other if len({row.other[name] for row in rows}) > 1),
        known_at_diagnosis=first.known_at_diagnosis,
    )


def _read_bags(
    rows: Sequence[Row], store: Path, outcome: str
) -> tuple[dict[str, Bag], list[tuple[str, str]]]:
    """The bags by slide, and the rows that cannot be used with the reason."""
    if problem := missing_store(store):
        raise CohortError(problem)
    bags: dict[str, Bag] = {}
    excluded = []
    spellings = cache(lambda: _spellings(store))  # listed where a bag is missing, once
    for row in rows:
        if not row.label:
            excluded.append((row.slide, f"no {outcome}"))
            continue
        try:
            bag = read_intact_bag(store / f"{row.slide}.h5")
        except BagError as error:
            alike = spellings().get(normalised(row.slide), row.slide)
            hint = did_you_mean([repr(alike)] if alike != row.slide else [])
            excluded.append((row.slide, f"{error}{hint}"))
            continue
        if bag.slide != row.slide:
            raise CohortError(
                f"{store / row.slide}.h5 is the bag of slide {bag.slide!r}: the file was renamed. Give it "
                "its own name back."
            )
        bags[row.slide] = bag
    _check_cases({row.slide: row.case for row in rows}, list(bags.values()), store)
    # The case is what the table says: bags are renamed with it.
    case_of = {row.slide: row.case for row in rows}
    return {slide: replace(bag, case=case_of[slide]) for slide, bag in bags.items()}, excluded


def _spellings(store: Path) -> dict[str, str]:
    """The names of the bags of a store by what all their spellings share."""
    return {normalised(path.stem): path.stem for path in sorted(store.glob("*.h5"))}


def _check_cases(case_of: Mapping[str, str], bags: Sequence[Bag], store: Path) -> None:
    """Refuse a case of the extraction whose slides the table gives to several: they may be of one patient."""
    first_of: dict[str, Bag] = {}
    for bag in bags:
        first = first_of.setdefault(bag.case, bag) if bag.case else bag
        if case_of[first.slide] != case_of[bag.slide]:
            raise CohortError(
                f"Slides {first.slide!r} and {bag.slide!r} in {store} were extracted for one case, "
                f"{bag.case!r}, but the table gives them to {case_of[first.slide]!r} and "
                f"{case_of[bag.slide]!r}. Correct the table; if the extraction was wrong, extract again."
            )


def _find_twins(bags: Sequence[Bag]) -> list[tuple[str, str]]:
    """Pairs of slides that are one under two names: each later one, with the first like it."""
    first_with: dict[str, Bag] = {}
    twins: dict[str, str] = {}
    for bag in bags:
        for fingerprint in {*bag.sources, bag.data_sha256}:
            twin = first_with.setdefault(fingerprint, bag)
            if twin is not bag:
                twins.setdefault(bag.slide, twin.slide)
    return [(first, second) for second, first in twins.items()]


def _refuse_twins(
    twins: Sequence[tuple[str, str]], case_of: Mapping[str, str], *, may_allow: bool
) -> None:
    """Refuse the same slide under two names: it would be trained on and tested."""
    first, second = twins[0]
    more = f", and so are {len(twins) - 1} more pairs" if len(twins) > 1 else ""
    otherwise = (
        ", or set allow_duplicates if these are different specimens with the same features"
        if may_allow
        else ""
    )
    raise CohortError(
        f"Slides {first!r} (case {case_of[first]!r}) and {second!r} (case {case_of[second]!r}) are the same "
        f"slide{more}. Keep one of them in the table{otherwise}."
    )


def _check_recipes(bags: Sequence[Bag]) -> None:
    first = bags[0]
    for bag in bags[1:]:
        if bag.dim != first.dim:
            raise CohortError(
                f"Bags of {first.slide} and {bag.slide} hold {first.dim} and {bag.dim} features per tile. "
                "Extract all slides with one recipe."
            )
        if bag.recipe_sha256 != first.recipe_sha256:
            differing = recipe_differences(first.recipe, bag.recipe)
            raise CohortError(
                f"Bags of {first.slide} and {bag.slide} were made differently "
                f"({', '.join(differing)}). Extract all slides with one recipe."
            )
