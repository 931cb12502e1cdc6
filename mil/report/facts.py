"""The facts of a run that every page shows, whatever the task: cohort, folds, recipe, settings, heatmaps."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from features.columns.names import is_follow_up
from features.recipe import OF_SLIDES, PARTS, VOLUME

IN_TABLE = " in the table"  # ends the name of a column that is called like one of the page's own


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """A picture of one slide, and the map of its tiles.

    Attributes:
        slide_picture: the slide, at most 320 px wide and high: a JPEG, or a PNG that is the map.
        map_png: the colours of its tiles, opaque, of the same size; empty where the slide has no thumbnail
            and its picture is the map.
        caption: the model and fold that drew it, and whether that model has seen the case.
        scale: (colour as #rrggbb, meaning) along its scale.
    """

    slide_picture: bytes
    map_png: bytes
    caption: str
    scale: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a page shows of any run.

    Attributes:
        title: the name of the run.
        created: ISO date-time.
        warnings: what a reader must know before any number.
        in_table: cases and slides that the cohort's table names.
        external: cases of these that are reserved for an external test.
        cohort: one row per case: case, label, slides, tiles, and any further columns.
        telling: columns of the cohort that are made from the outcome or name the cases.
        known_at_diagnosis: columns of the table that are declared to be known when a case is diagnosed.
        excluded: (what, reason) of all that was left out.
        folds: repeat, fold, case, label; the fold is the one that tests the case.
        heatmaps: by slide; may lack some or all.
        heatmap_scale: (colour as #rrggbb, meaning) along the one scale of all heatmaps.
        recipe: how the bags were made; nested mappings of plain values.
        settings: the resolved settings of the run; nested likewise.
        versions: of the software, by name.
        outcome_columns: columns of the table in which the run's settings look for an outcome.
    """

    title: str
    created: str
    warnings: tuple[str, ...]
    in_table: tuple[int, int]
    external: int = 0
    cohort: pd.DataFrame
    telling: tuple[str, ...] = ()
    known_at_diagnosis: tuple[str, ...] = ()
    excluded: tuple[tuple[str, str], ...]
    folds: pd.DataFrame
    heatmaps: Mapping[str, Heatmap]
    heatmap_scale: tuple[tuple[str, str], ...] = ()
    recipe: Mapping[str, object]
    settings: Mapping[str, object]
    versions: Mapping[str, str]
    outcome_columns: tuple[str, ...] = ()

    @property
    def explaining(self) -> pd.DataFrame:
        """The cohort without columns that hold or follow an outcome, or name the cases."""
        names = [str(name) for name in self.cohort.columns]
        plain = {name: name.removesuffix(IN_TABLE) for name in names}
        follows = [
            name
            for name in names
            if name not in ("case", "label")
            and (
                name in self.telling
                or plain[name] in self.outcome_columns
                or (is_follow_up(plain[name]) and plain[name] not in self.known_at_diagnosis)
            )
        ]
        return self.cohort.drop(columns=follows)

    @property
    def shown(self) -> pd.DataFrame:
        """The cohort without columns that no model may read."""
        own = ("case", "label", "time", "slides", "tiles", "site")
        columns = {str(name): str(name).removesuffix(IN_TABLE) for name in self.cohort.columns}
        hidden = [n for n, written in columns.items() if n not in own and written in self.telling]
        return self.cohort.drop(columns=hidden)

    @property
    def n_sites(self) -> int:
        """Distinct sites in the table; 0 where it names none."""
        if "site" not in self.cohort:
            return 0
        return int(self.cohort["site"].replace("", None).nunique())


@dataclass(frozen=True)
class FoldRow:
    """The cases one fold tests, and their number for each label."""

    fold: int
    counts: tuple[int, ...]
    cases: tuple[str, ...]


def page_values(facts: Facts, groups: Sequence[str]) -> dict[str, object]:
    """What the template of every run's page needs.

    Args:
        facts: of the run.
        groups: the labels of its cases, in their order.
    """
    return {
        "title": facts.title,
        "facts": facts,
        "groups": groups,
        "group_rows": _group_rows(facts.cohort, groups),
        "left_out": Counter(reason for _, reason in facts.excluded).most_common(),
        "tiles": int(facts.cohort["tiles"].sum()) if "tiles" in facts.cohort else None,
        "numeric": set(facts.cohort.select_dtypes("number").columns),
        "folds": _fold_rows(facts.folds, groups),
        "definitions": [
            (name, list(_flatten(values)))
            for name, values in (
                ("How the features were extracted", _applying(facts.recipe)),
                ("Settings of the run", facts.settings),
                ("Versions", facts.versions),
            )
        ],
    }


def _group_rows(
    cohort: pd.DataFrame, groups: Sequence[str]
) -> list[tuple[str, int, int | None, int | None]]:
    """Label, cases, slides and tiles; None where the cohort does not count them."""
    label = cohort["label"].astype(str)

    def total(name: str, column: str) -> int | None:
        return int(cohort.loc[label == name, column].sum()) if column in cohort else None

    return [
        (name, int((label == name).sum()), total(name, "slides"), total(name, "tiles"))
        for name in groups
    ]


def _fold_rows(table: pd.DataFrame, groups: Sequence[str]) -> list[tuple[int, list[FoldRow]]]:
    """The folds of each repeat."""
    tested: dict[tuple[int, int], list[tuple[str, str]]] = {}
    columns = (table[name] for name in ("repeat", "fold", "case", "label"))
    for repeat, fold, case, label in zip(*columns, strict=True):
        tested.setdefault((int(repeat), int(fold)), []).append((str(case), str(label)))
    repeats: dict[int, list[FoldRow]] = {}
    for (number, index), members in sorted(tested.items()):
        counts = Counter(label for _, label in members)
        row = FoldRow(
            fold=index,
            counts=tuple(counts[name] for name in groups),
            cases=tuple(sorted(case for case, _ in members)),
        )
        repeats.setdefault(number, []).append(row)
    return list(repeats.items())


def _applying(recipe: Mapping[str, object]) -> dict[str, object]:
    """A recipe without what does not apply to its bags, as the stain of a CT series."""
    hidden = OF_SLIDES if recipe.get("region") == VOLUME else ()
    shown = {name: value for name, value in recipe.items() if name not in hidden}
    if isinstance(parts := shown.get(PARTS), (list, tuple)):
        shown[PARTS] = [_applying(part) for part in parts]
    return shown


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: object) -> str:
    if value is None or value in ([], (), {}):
        return "none"
    if isinstance(value, (list, tuple)) and not any(isinstance(v, (list, dict)) for v in value):
        return ", ".join(_text(entry) for entry in value)
    if isinstance(value, (bool, list, tuple, Mapping)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
