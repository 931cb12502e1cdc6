"""What the pages of all tasks share: the facts of a run, and the template they are poured into."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from mil.evaluation.intervals import Estimate
from mil.report import figures
from mil.report.figures import between, percent

DASH = "\N{EN DASH}"
CARDS_SHOWN = 30  # further cases are folded away, so that the page opens at once
ROWS_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """A picture of one slide's tiles and what it shows.

    Attributes:
        png: the picture, 320 to 480 px wide.
        caption: which model and fold drew it, and whether that model has seen the case.
    """

    png: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a page tells of any run, whatever it asks.

    Attributes:
        title: the name of the run.
        created: ISO date-time.
        warnings: what a reader must know before any number.
        asked: cases and slides that the cohort's table names.
        aside: cases of these that are kept for an external test.
        cohort: one row per case: case, label, slides, tiles, and any further columns.
        excluded: (what, reason) of all that was left out.
        folds: repeat, fold, case, label; the fold is the one that tests the case.
        heatmaps: by slide; may lack some or all.
        heatmap_scale: (colour as #rrggbb, what it means) along the heatmaps' one scale.
        recipe: how the bags were made; nested mappings of plain values.
        settings: the resolved settings of the run; nested likewise.
        versions: of the software, by name.
    """

    title: str
    created: str
    warnings: tuple[str, ...]
    asked: tuple[int, int]
    aside: int = 0
    cohort: pd.DataFrame
    excluded: tuple[tuple[str, str], ...]
    folds: pd.DataFrame
    heatmaps: Mapping[str, Heatmap]
    heatmap_scale: tuple[tuple[str, str], ...] = ()
    recipe: Mapping[str, object]
    settings: Mapping[str, object]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class FoldRow:
    """The cases one fold tests, and how many there are of each label."""

    fold: int
    counts: tuple[int, ...]
    cases: tuple[str, ...]


def fill(template: str, facts: Facts, groups: Sequence[str], **findings: object) -> str:
    """One HTML document.

    Args:
        template: extends ``frame.html``.
        facts: of the run.
        groups: the labels of its cases, in their order.
        findings: what the template asks for beside these.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            report=facts,
            groups=groups,
            group_rows=_group_rows(facts.cohort, groups),
            left_out=Counter(reason for _, reason in facts.excluded).most_common(),
            tiles=int(facts.cohort["tiles"].sum()) if "tiles" in facts.cohort else None,
            shown=CARDS_SHOWN,
            rows_shown=ROWS_SHOWN,
            numeric=set(facts.cohort.select_dtypes("number").columns),
            folds=_folds(facts.folds, groups),
            definitions=[
                (name, list(_flat(values)))
                for name, values in (
                    ("How the bags were made", facts.recipe),
                    ("Settings of the run", facts.settings),
                    ("Versions", facts.versions),
                )
            ],
            **findings,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        between=between,
        cell=_cell,
        count=count,
        correct=correct,
        p_value=_p_value,
        image=_image,
        time=in_units,
    )
    environment.globals.update(
        dash=DASH,
        axis=drawn(figures.interval_axis),
        mark=drawn(figures.interval_mark),
        point=lambda value: Estimate(value, None, None, ""),
        n_colours=figures.N_COLOURS,
    )
    return environment


def _source(name: str) -> str:
    return files("mil.report").joinpath(name).read_text(encoding="utf-8")


def drawn(plot: Callable[..., str]) -> Callable[..., Markup]:
    """A function that draws, for a template: its SVG is not escaped again."""
    return lambda *args, **named: Markup(plot(*args, **named))


def slides_by_case(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The slides of each case of a table of predictions, by name."""
    pairs = table[["case", "slide"]].drop_duplicates().sort_values(["case", "slide"])
    return {str(case): tuple(map(str, of)) for case, of in pairs.groupby("case")["slide"]}


def sites_of(cohort: pd.DataFrame) -> int:
    """How many sites the table names."""
    return int(cohort["site"].replace("", None).nunique()) if "site" in cohort else 0


def correct(cases: float, repeats: int) -> str:
    """Cases called rightly: a whole number, or a mean over repeats with one decimal."""
    return f"{cases:.0f}" if repeats == 1 else f"{cases:.1f}"


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


def _folds(table: pd.DataFrame, groups: Sequence[str]) -> list[tuple[int, list[FoldRow]]]:
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


def _flat(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", _text(value)


def _text(value: object) -> str:
    if value is None or value in ([], (), {}):
        return "none"
    if isinstance(value, (list, tuple)) and not any(isinstance(v, (list, dict)) for v in value):
        return ", ".join(_text(each) for each in value)
    if isinstance(value, (bool, list, tuple, Mapping)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _cell(value: object) -> str:
    """A value of the cohort table."""
    if value is None or value is pd.NA or value != value or value == "":
        return DASH
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return count(int(value))
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def in_units(time: float | None, unit: str) -> str:
    """A time with its unit."""
    return "not reached" if time is None else f"{time:.4g} {unit}"


def count(number: int) -> str:
    """With thin spaces between thousands."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


def _image(png: bytes) -> Markup:
    """A picture as an address that holds it; base64 needs no escaping."""
    return Markup("data:image/png;base64," + base64.b64encode(png).decode("ascii"))
