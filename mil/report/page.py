"""One page that tells what a run found: no network, no script, every name from data escaped."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mil.audit.confounders import Confounder
from mil.evaluation.classification.evaluate import Evaluation, ModelResult
from mil.evaluation.classification.metrics import predicted
from mil.evaluation.comparison import Comparison, PairTest
from mil.evaluation.decision_curves import DecisionCurve, decision_curves
from mil.evaluation.predictions import CaseScores, Predictions
from mil.report import figures
from mil.report.failures import failures
from mil.report.figures import between, percent
from mil.report.frame import Facts, correct, count, drawn, fill, listed, sites_of, slides_by_case
from mil.report.limits import limitations
from mil.report.table_one import table_one

THRESHOLDS = np.linspace(0.05, 0.5, 46)


@dataclass(frozen=True, kw_only=True)
class Report(Facts):
    """Everything the page of a diagnosis tells.

    Attributes:
        predictions: out of fold.
        evaluation: of these predictions.
        comparison: of the models on the same cases.
        confounders: what besides the tissue could tell the classes apart.
    """

    predictions: Predictions
    evaluation: Evaluation
    comparison: Comparison
    confounders: tuple[Confounder, ...] = ()


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


def render(report: Report) -> str:
    """The page as one HTML document."""
    evaluation = report.evaluation
    lead = best(evaluation)
    place = evaluation.models.index(lead)
    cards = case_cards(report.predictions)
    # Hardest first: the least probability for the true class. The sort is stable, by case name.
    cards.sort(key=lambda card: card.verdicts[place].p[card.truth])
    return fill(
        "page.html",
        report,
        evaluation.classes,
        evaluation=evaluation,
        repeats=len(evaluation.repeats),
        lead=lead,
        place=place,
        headline=headline(evaluation),
        tests=[(in_words(test), test) for test in report.comparison.pairs],
        decisions=_decisions(report.predictions, lead.model),
        errors=failures(report.predictions, lead.model, report.cohort),
        described=table_one(report.cohort, evaluation.classes),
        limits=limitations(evaluation, lead, report.comparison, sites_of(report.cohort)),
        curves=[figures.curves_of(report.predictions, each) for each in evaluation.models],
        cards=cards,
        methods=_methods(evaluation),
        roc_plot=drawn(figures.roc_plot),
        roc_key=drawn(figures.roc_key),
        decision_plot=drawn(figures.decision_plot),
        reliability_plot=drawn(figures.reliability_plot),
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
        f"Of {count(lead.n)} cases, {lead.model} named the right class in "
        f"{correct(lead.correct, repeats)}{f' on average over {repeats} repeats' * (repeats > 1)} "
        f"({percent(value)}, 95\N{NO-BREAK SPACE}% interval {between([low, high])}); "
        f"guessing gives {percent(evaluation.chance_accuracy)}, always naming the most frequent "
        f"class {percent(majority)}."
    ]
    if len(evaluation.models) > 1:
        level = [each.model for each in evaluation.models if each.correct == lead.correct][1:]
        said.append(
            f"It is the best of {len(evaluation.models)} models compared on the same cases"
            f"{f', level with {listed(level)}' if level else ''}. "
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
        f"{test.only_second} of {count(test.n)} cases. {verdict}"
    )


def case_cards(predictions: Predictions) -> list[Card]:
    """One card per case, by name."""
    said = {
        model: [predictions.case_scores(model, repeat) for repeat in predictions.repeats]
        for model in predictions.models
    }
    by_repeat = said[predictions.models[0]]
    verdicts = [_verdicts(scores, predictions.classes) for scores in said.values()]
    slides = slides_by_case(predictions.table)
    return [
        Card(
            case=case,
            truth=int(by_repeat[0].truth[row]),
            folds=tuple(int(scores.fold[row]) for scores in by_repeat),
            slides=slides[case],
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
