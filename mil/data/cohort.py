"""The study's table, joined to its bags: every row is used, or named with the reason."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.bags.bag import Bag, read_bag, validate_bag
from features.errors import BagError
from features.slides.slide import slide_name
from mil.data.names import matching, normalised
from mil.errors import CohortError

ALIASES = {
    "case": ("case", "case_id", "patient", "patient_id"),
    "slide": ("slide", "slide_id", "filename"),
    "label": ("label",),
    "site": ("site",),
    "mpp": ("mpp",),
    "split": ("split",),
}
TRAIN = ("", "train", "training", "development")  # what column split may say
TEST = ("test", "testing", "external", "held-out", "holdout")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One slide of the table.

    Attributes:
        line: its line in the file, the header being line 1.
        label: the case's class; empty where not known.
        site: where it was made; empty where not known.
        mpp: micrometres per level-0 pixel, overriding the file; None where not given.
        split: whether it is learnt from or kept aside, as written; ``parted`` reads it.
        time: until the event or the end of observation, in a cohort of survival.
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
    other: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A patient: the unit of splits, labels, intervals and tests.

    Attributes:
        label: its class; in a cohort of survival whether its event was seen.
        time: until the event or the end of observation, in a cohort of survival.
        other: all further columns of the table, as its first slide has them.
        differing: those of them in which its slides differ.
    """

    name: str
    label: str
    bags: tuple[Bag, ...]
    site: str = ""
    time: float | None = None
    other: Mapping[str, str] = field(default_factory=dict)
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Cases with their bags, checked.

    Attributes:
        cases: sorted by name.
        classes: the labels, sorted.
        excluded: (row, reason) of every row of the table that is not used.
    """

    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    excluded: tuple[tuple[str, str], ...] = ()

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
        """The backbone's weights file, where it does not say which cases it has seen; empty where known."""
        told = str(self.recipe.get("weights", ""))
        known = told.startswith(("pretrained", "random", "converted from"))
        seen = any(bag.trained_on for case in self.cases for bag in case.bags)
        return "" if known or seen else told

    def named(self, names: Sequence[str]) -> tuple[Case, ...]:
        """The cases of these names, in the cohort's order.

        Raises:
            CohortError: there is no such case.
        """
        wanted = set(names)
        unknown = sorted(wanted - {case.name for case in self.cases})
        if unknown:
            raise CohortError(
                f"{len(unknown)} cases are not in the cohort, e.g. {unknown[0]!r}. Use its own folds."
            )
        return tuple(case for case in self.cases if case.name in wanted)


def read_table(path: Path) -> tuple[Row, ...]:
    """Read a cohort table with at least case and slide: CSV with commas, semicolons or tabs.

    Raises:
        CohortError: a column is missing, a field is empty or malformed, or a slide comes twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)  # spreadsheets of many countries write ;
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, fields) for fields in reader if any(map(str.strip, fields))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(
            f"{path}: cannot be read as a table ({error}). Save it as CSV UTF-8."
        ) from error
    if not lines:
        raise CohortError(f"{path}: the table is empty. Give a header with case, slide and label.")
    header = [name.strip() for name in lines[0][1]]
    columns = _columns(path, header)
    rows = []
    for number, fields in lines[1:]:
        if len(fields) != len(header):
            raise CohortError(
                f"{path}, line {number}: {len(fields)} fields under {len(header)} columns. "
                "Quote fields that hold commas."
            )
        rows.append(
            _row(path, number, columns, dict(zip(header, map(str.strip, fields), strict=True)))
        )
    _check_rows(path, rows)
    return tuple(rows)


def split_train_test(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(rows to learn from, rows kept for `mil external`), by column split: ``TRAIN`` or ``TEST``.

    Raises:
        CohortError: another word stands in the column, or a case has rows of both.
    """
    for row in rows:
        if row.split.casefold() not in TRAIN + TEST:
            raise CohortError(
                f"Line {row.line} of the table, slide {row.slide!r}: split is {row.split!r}. Write train, or "
                "nothing, for what is learnt from and test for what is kept for `mil external`. Folds are "
                "made here: a set to validate on is written train."
            )
    held = tuple(row for row in rows if row.split.casefold() in TEST)
    slides = {row.slide for row in held}
    rest = tuple(row for row in rows if row.slide not in slides)
    if both := matching((row.case for row in rest), (row.case for row in held)):
        raise CohortError(
            f"Case {both[0]!r} has slides with split=test and slides without. A case is learnt from or kept "
            "aside whole; mend the table."
        )
    return rest, held


def assemble(
    rows: Sequence[Row],
    store: Path,
    *,
    allow_missing: bool = False,
    source: str = "the table",
    survival: bool = False,
) -> Cohort:
    """Join the table to the bags of a store.

    Args:
        rows: of ``read_table``.
        store: folder with one ``<slide>.h5`` per slide.
        allow_missing: go on without slides that lack a bag or a label; they are listed as excluded.
        source: the table, for messages.
        survival: the rows are of ``with_outcomes``.

    Raises:
        CohortError: a row lacks a bag or a label, bags differ in recipe, or fewer than two classes, or no
            event, remain.
    """
    if not any(row.label for row in rows):
        raise CohortError(f"{source} has no labels. Give it a column label with each case's class.")
    bags, excluded = _bags(rows, store, "outcome" if survival else "label")
    if excluded and not allow_missing:
        shown = "; ".join(f"{what} ({reason})" for what, reason in excluded[:5])
        more = f" and {len(excluded) - 5} more" if len(excluded) > 5 else ""
        raise CohortError(
            f"{len(excluded)} of {len(rows)} rows of {source} cannot be used: {shown}{more}. "
            "Mend them, or pass --allow-missing to go on without them."
        )
    if not bags:
        raise CohortError(f"No row of {source} has a bag in {store}. Make them with `mil extract`.")
    _check_recipes(list(bags.values()))
    _check_twins({row.slide: row.case for row in rows}, list(bags.values()))
    cases = []
    used = [row for row in rows if row.slide in bags]
    # Sorted, so that the order of the table's rows changes no fold and no fit.
    for name in sorted({row.case for row in used}):
        mine = sorted((row for row in used if row.case == name), key=lambda row: row.slide)
        cases.append(
            Case(
                name=name,
                label=mine[0].label,
                bags=tuple(bags[row.slide] for row in mine),
                site=mine[0].site,
                time=mine[0].time,
                other=mine[0].other,
                differing=tuple(
                    name for name in mine[0].other if len({row.other[name] for row in mine}) > 1
                ),
            )
        )
    classes = tuple(sorted({case.label for case in cases}))
    if survival and classes == ("censored",):
        raise CohortError(f"{source} holds no event: nothing can be learnt of when it happens.")
    if len(classes) < 2 and not survival:
        raise CohortError(
            f"{source} holds one class only, {classes[0]!r}. Diagnosis needs two or more labels."
        )
    return Cohort(cases=tuple(cases), classes=classes, excluded=tuple(excluded))


def _columns(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Our column names to those of the file."""
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise CohortError(f"{path}: column {twice[0]!r} comes twice. Rename one.")
    found = {}
    for ours, aliases in ALIASES.items():
        matches = [name for name in header if name.lower() in aliases]
        if len(matches) > 1:
            raise CohortError(
                f"{path}: columns {matches[0]!r} and {matches[1]!r} both mean {ours}. Remove one."
            )
        if matches:
            found[ours] = matches[0]
    for ours in ("case", "slide"):
        if ours not in found:
            raise CohortError(
                f"{path}: no column {ours}; it has {', '.join(header)}. Name one {ours} (or "
                f"{', '.join(ALIASES[ours][1:])})."
            )
    return found


def _row(path: Path, line: int, columns: Mapping[str, str], fields: Mapping[str, str]) -> Row:
    ours = {name: fields[column] for name, column in columns.items()}
    for name in ("case", "slide"):
        if not ours[name]:
            raise CohortError(f"{path}, line {line}: {name} is empty. Fill it in.")
    mpp = number(ours["mpp"]) if ours.get("mpp") else None
    if mpp is not None and not 0 < mpp < math.inf:
        raise CohortError(
            f"{path}, line {line}: mpp is {ours['mpp']!r}; micrometres per pixel are a number "
            "such as 0.25. Leave it empty to take the slide's own."
        )
    return Row(
        line=line,
        case=ours["case"],
        slide=slide_name(ours["slide"]),
        label=ours.get("label", ""),
        site=ours.get("site", ""),
        mpp=mpp,
        split=ours.get("split", ""),
        other={name: value for name, value in fields.items() if name not in columns.values()},
    )


def number(text: str) -> float:
    """The number a field holds; NaN where it holds none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    """A slide comes once; a case has one label and one site; one name has one spelling."""
    if not rows:
        raise CohortError(f"{path}: a header but no rows. Give one row per slide.")
    for name in ("case", "label", "site"):
        _check_spelling(path, name, (getattr(row, name) for row in rows))
    lines: dict[str, Row] = {}
    cases: dict[str, Row] = {}
    for row in rows:
        first = lines.setdefault(row.slide, row)
        if first is not row:
            raise CohortError(
                f"{path}: slide {row.slide!r} comes on lines {first.line} and {row.line}. Keep one."
            )
        known = cases.setdefault(row.case, row)
        for name in ("label", "site"):
            if getattr(known, name) != getattr(row, name):
                raise CohortError(
                    f"{path}: case {row.case!r} has {name} {getattr(known, name)!r} on line "
                    f"{known.line} and {getattr(row, name)!r} on line {row.line}. A case has one "
                    f"{name}; mend the table."
                )


def _check_spelling(path: Path, what: str, names: Iterable[str]) -> None:
    """Names that differ only in case, spaces, dashes or dots are one name written twice."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(normalised(name), name)
        if twin != name:
            raise CohortError(
                f"{path}: {what} {twin!r} and {name!r} differ in spelling only. Write them alike if they "
                "are one, or make the difference plain."
            )


def _bags(
    rows: Sequence[Row], store: Path, needed: str
) -> tuple[dict[str, Bag], list[tuple[str, str]]]:
    """The bags by slide, and the rows that cannot be used with the reason."""
    if not store.is_dir():
        raise CohortError(
            f"{store}: no such bag store. Make it with `mil extract ... --out {store}`."
        )
    bags: dict[str, Bag] = {}
    excluded = []
    for row in rows:
        if not row.label:
            excluded.append((row.slide, f"no {needed}"))
            continue
        try:
            validate_bag(store / f"{row.slide}.h5")
            bag = read_bag(store / f"{row.slide}.h5")
        except BagError as error:
            excluded.append((row.slide, str(error)))
            continue
        if bag.slide != row.slide:
            raise CohortError(
                f"{store / row.slide}.h5 is the bag of slide {bag.slide!r}: the file was renamed. Give it "
                "its own name back."
            )
        if bag.case and bag.case != row.case:
            raise CohortError(
                f"{store / row.slide}.h5 was extracted for case {bag.case!r}, but the table gives the "
                f"slide to case {row.case!r}. Mend the table, or extract again."
            )
        bags[row.slide] = bag
    return bags, excluded


def _check_twins(case_of: Mapping[str, str], bags: Sequence[Bag]) -> None:
    """The same slide under two names would train and be tested."""
    seen: dict[str, Bag] = {}
    for bag in bags:
        for fingerprint in {bag.source_sha256, bag.data_sha256} - {""}:
            twin = seen.setdefault(fingerprint, bag)
            if twin is not bag:
                raise CohortError(
                    f"Slides {twin.slide!r} (case {case_of[twin.slide]!r}) and {bag.slide!r} (case "
                    f"{case_of[bag.slide]!r}) are one and the same. Keep one of them in the table."
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
            keys = sorted({*first.recipe, *bag.recipe})
            differing = [key for key in keys if first.recipe.get(key) != bag.recipe.get(key)]
            raise CohortError(
                f"Bags of {first.slide} and {bag.slide} were made differently "
                f"({', '.join(differing)}). Extract all slides with one recipe."
            )
