"""One page that tells what a run found: no network, no script, every name from data escaped."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from features.whole import whole
from mil.audit.confounders import Confounder
from mil.evaluation.comparison import Comparison, PairTest
from mil.evaluation.decision import DecisionCurve, decision_curves
from mil.evaluation.evaluate import Evaluation, ModelResult
from mil.evaluation.intervals import Estimate
from mil.evaluation.metrics import predicted
from mil.evaluation.predictions import CaseScores, Predictions
from mil.report import figures
from mil.report.failures import failures
from mil.report.figures import between, percent
from mil.report.limits import limitations
from mil.report.table_one import table_one

DASH = "\N{EN DASH}"
CARDS_SHOWN = 30  # further cases are folded away, so that the page opens at once
ROWS_SHOWN = 40
THRESHOLDS = np.linspace(0.05, 0.5, 46)


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
class Report:
    """Everything the page tells.

    Attributes:
        title: the name of the run.
        created: ISO date-time.
        warnings: what a reader must know before any number.
        asked: cases and slides that the cohort's table names.
        aside: cases of these that are kept for an external test.
        cohort: one row per case: case, label, slides, tiles, and any further columns.
        excluded: (what, reason) of all that was left out.
        folds: repeat, fold, case, label; the fold is the one that tests the case.
        predictions: out of fold.
        evaluation: of these predictions.
        comparison: of the models on the same cases.
        confounders: what besides the tissue could tell the classes apart.
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
    predictions: Predictions
    evaluation: Evaluation
    comparison: Comparison
    confounders: tuple[Confounder, ...] = ()
    heatmaps: Mapping[str, Heatmap]
    heatmap_scale: tuple[tuple[str, str], ...] = ()
    recipe: Mapping[str, object]
    settings: Mapping[str, object]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What one model said of one case.

    Attributes:
        right: in more than half of the repeats, as in the paired tests.
        called: (C,) repeats in which each class was named.
        p: probability of each class, mean over repeats.
    """

    right: bool
    called: tuple[int, ...]
    p: tuple[float, ...]


@dataclass(frozen=True)
class Card:
    """One case: truth, folds by repeat, slides, and what each model said of it."""

    case: str
    truth: int
    folds: tuple[int, ...]
    slides: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def missed(self) -> bool:
        """No model is right."""
        return not any(verdict.right for verdict in self.verdicts)


@dataclass(frozen=True)
class FoldRow:
    """The cases one fold tests, and how many there are of each class."""

    fold: int
    counts: tuple[int, ...]
    cases: tuple[str, ...]


def write_page(path: Path, report: Report) -> None:
    """Write the page as UTF-8; the file appears whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(render(report), encoding="utf-8", newline="\n")


def render(report: Report) -> str:
    """The page as one HTML document."""
    evaluation = report.evaluation
    lead = best(evaluation)
    place = evaluation.models.index(lead)
    cards = case_cards(report.predictions)
    # Hardest first: the least probability for the true class. The sort is stable, by case name.
    cards.sort(key=lambda card: card.verdicts[place].p[card.truth])
    return _template().render(
        report=report,
        evaluation=evaluation,
        lead=lead,
        place=place,
        headline=headline(evaluation),
        tests=[(in_words(test), test) for test in report.comparison.pairs],
        decisions=_decisions(report.predictions, lead.model),
        errors=failures(report.predictions, lead.model, report.cohort),
        described=table_one(report.cohort, evaluation.classes),
        limits=limitations(evaluation, lead, report.comparison, _sites(report.cohort)),
        left_out=Counter(reason for _, reason in report.excluded).most_common(),
        tiles=int(report.cohort["tiles"].sum()) if "tiles" in report.cohort else None,
        curves=[figures.curves_of(report.predictions, each) for each in evaluation.models],
        cards=cards,
        shown=CARDS_SHOWN,
        rows_shown=ROWS_SHOWN,
        numeric=set(report.cohort.select_dtypes("number").columns),
        methods=_methods(evaluation),
        class_rows=_class_rows(report.cohort, evaluation),
        folds=_folds(report.folds, evaluation.classes),
        definitions=[
            (name, list(_flat(values)))
            for name, values in (
                ("How the bags were made", report.recipe),
                ("Settings of the run", report.settings),
                ("Versions", report.versions),
            )
        ],
    )


def best(evaluation: Evaluation) -> ModelResult:
    """The model that is right on most cases; among equals the first."""
    return max(evaluation.models, key=lambda result: result.correct)


def headline(evaluation: Evaluation) -> tuple[str, ...]:
    """The result in plain sentences, with what flatters it."""
    lead, majority = best(evaluation), evaluation.majority_share
    value, low, high = lead.accuracy.value, lead.accuracy.low, lead.accuracy.high
    assert value is not None
    assert low is not None
    assert high is not None
    repeats = len(evaluation.repeats)
    said = [
        f"Of {_count(lead.n)} cases, {lead.model} named the right class in "
        f"{correct(lead.correct, repeats)}{f' on average over {repeats} repeats' * (repeats > 1)} "
        f"({percent(value)}, 95\N{NO-BREAK SPACE}% interval {between([low, high])}); "
        f"guessing gives {percent(evaluation.chance_accuracy)}, always naming the most frequent "
        f"class {percent(majority)}."
    ]
    if len(evaluation.models) > 1:
        level = [each.model for each in evaluation.models if each.correct == lead.correct][1:]
        said.append(
            f"It is the best of {len(evaluation.models)} models compared on the same cases"
            f"{f', level with {_listed(level)}' if level else ''}. "
            "Picking the best after seeing the results makes its number optimistic."
        )
    if low <= max(majority, evaluation.chance_accuracy):
        said.append(
            "Its interval reaches down to what needs no model: these cases alone do not show that "
            "it has learned the classes."
        )
    return tuple(said)


def in_words(test: PairTest) -> str:
    """A paired test as a sentence."""
    if not test.only_first + test.only_second:
        return f"{test.first} and {test.second} are right and wrong on the same cases."
    verdict = "More than chance explains." if test.p_holm < 0.05 else "Chance could do this."
    return (
        f"{test.first} alone is right on {test.only_first}, {test.second} alone on "
        f"{test.only_second} of {_count(test.n)} cases. {verdict}"
    )


def correct(cases: float, repeats: int) -> str:
    """Cases called rightly: a whole number, or a mean over repeats with one decimal."""
    return f"{cases:.0f}" if repeats == 1 else f"{cases:.1f}"


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=percent,
        between=between,
        cell=_cell,
        count=_count,
        correct=correct,
        p_value=_p_value,
        image=_image,
    )
    environment.globals.update(
        dash=DASH,
        axis=Markup(figures.interval_axis()),
        mark=lambda *args: Markup(figures.interval_mark(*args)),
        point=lambda value: Estimate(value, None, None, ""),
        roc_plot=lambda *args: Markup(figures.roc_plot(*args)),
        decision_plot=lambda *args: Markup(figures.decision_plot(*args)),
        reliability_plot=lambda *args: Markup(figures.reliability_plot(*args)),
        roc_key=lambda curve: Markup(figures.roc_key(curve)),
        n_colours=figures.N_COLOURS,
    )
    source = files("mil.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source)


def case_cards(predictions: Predictions) -> list[Card]:
    """One card per case, by name."""
    said = {
        model: [predictions.case_scores(model, repeat) for repeat in predictions.repeats]
        for model in predictions.models
    }
    by_repeat = said[predictions.models[0]]
    verdicts = [_verdicts(scores, predictions.classes) for scores in said.values()]
    pairs = predictions.table[["case", "slide"]].drop_duplicates().sort_values(["case", "slide"])
    slides = pairs.groupby("case")["slide"].agg(list)
    return [
        Card(
            case=case,
            truth=int(by_repeat[0].truth[row]),
            folds=tuple(int(scores.fold[row]) for scores in by_repeat),
            slides=tuple(str(slide) for slide in slides.loc[case]),
            verdicts=tuple(of_model[row] for of_model in verdicts),
        )
        for row, case in enumerate(by_repeat[0].case)
    ]


def _verdicts(repeats: Sequence[CaseScores], classes: tuple[str, ...]) -> list[Verdict]:
    """What one model said of each case."""
    called = np.stack([predicted(scores.p) for scores in repeats])  # (repeats, n)
    counts = np.stack([np.sum(called == index, axis=0) for index in range(len(classes))], axis=1)
    right = np.mean(called == repeats[0].truth, axis=0) > 0.5
    p = np.mean([scores.p for scores in repeats], axis=0)
    return [
        Verdict(bool(right[row]), tuple(counts[row].tolist()), tuple(p[row].tolist()))
        for row in range(len(p))
    ]


def _decisions(
    predictions: Predictions, model: str
) -> list[tuple[str, DecisionCurve, DecisionCurve]]:
    """For each class to act on that has a case: the class, the model's curve, and that of treating all."""
    table = predictions.table
    alone = Predictions(table[table["model"] == model].reset_index(drop=True), predictions.classes)
    known = set(table["label"].astype(str))
    asked = predictions.classes[1:] if len(predictions.classes) == 2 else predictions.classes
    curves = {name: decision_curves(alone, name, THRESHOLDS) for name in asked if name in known}
    return [(name, found[0], found[1]) for name, found in curves.items()]


def _sites(cohort: pd.DataFrame) -> int:
    """How many sites the table names."""
    return int(cohort["site"].replace("", None).nunique()) if "site" in cohort else 0


def _class_rows(
    cohort: pd.DataFrame, evaluation: Evaluation
) -> list[tuple[str, int, int | None, int | None]]:
    """Class, cases, slides and tiles; None where the cohort does not count them."""
    label = cohort["label"].astype(str)

    def total(name: str, column: str) -> int | None:
        return int(cohort.loc[label == name, column].sum()) if column in cohort else None

    return [
        (name, count, total(name, "slides"), total(name, "tiles"))
        for name, count in zip(evaluation.classes, evaluation.class_counts, strict=True)
    ]


def _folds(table: pd.DataFrame, classes: tuple[str, ...]) -> list[tuple[int, list[FoldRow]]]:
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
            counts=tuple(counts[name] for name in classes),
            cases=tuple(sorted(case for case, _ in members)),
        )
        repeats.setdefault(number, []).append(row)
    return list(repeats.items())


def _methods(evaluation: Evaluation) -> list[str]:
    """How the intervals were found, each once."""
    return [
        f"{name} by {how}"
        for name, hows in (
            ("accuracy", {each.accuracy.method for each in evaluation.models}),
            ("balanced accuracy", {each.balanced_accuracy.method for each in evaluation.models}),
            ("AUC", {each.auc.method for each in evaluation.models if each.auc.low is not None}),
        )
        for how in sorted(hows)
    ]


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
        return _count(int(value))
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


def _image(png: bytes) -> Markup:
    """A picture as an address that holds it; base64 needs no escaping."""
    return Markup("data:image/png;base64," + base64.b64encode(png).decode("ascii"))
