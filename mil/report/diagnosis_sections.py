"""The sections of a diagnosis: accuracy, AUC, confusion, calibration, decision curves, confounders."""

from collections import Counter
from pathlib import Path

from mil.audit.sample_size import cases_for_width
from mil.data.cohort import Cohort
from mil.evaluation.classification.evaluate import ClassEvaluation
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.classification.results import ModelResult
from mil.evaluation.comparison import ClassComparison, PairTest
from mil.evaluation.decision_curves import Decision, decision_curves
from mil.evaluation.metric import page_columns
from mil.report import plots
from mil.report.class_cards import case_cards
from mil.report.class_figures import write_class_figures
from mil.report.failures import failures
from mil.report.formats import between, correct, count, percent
from mil.report.sections import (
    THRESHOLDS,
    Report,
    Sections,
    cards_shown,
    design_limits,
    order_models,
    picked_sentence,
    selection_limit,
    split_tests,
    typical_case,
)
from mil.report.table_one import table_one
from mil.report.template import svg

FEW = 10  # cases of a class; below it one case moves sensitivity by more than ten points
WIDE = 0.2  # an interval

DiagnosisReport = Report[ClassPredictions, ClassEvaluation, ClassComparison]


class DiagnosisSections(Sections[DiagnosisReport]):
    """A run that predicts a class."""

    template = "report/diagnosis.html"
    folder = "figures"

    @staticmethod
    def warnings(cohort: Cohort, evaluation: ClassEvaluation) -> list[str]:
        """Classes of few cases, and folds that pull weak models below chance."""
        warnings = []
        counts = Counter(case.label for case in cohort.cases)
        fewest = min(counts.values())
        scarce = ", ".join(sorted(label for label, number in counts.items() if number == fewest))
        if fewest < FEW:
            warnings.append(
                f"Few cases per class: {scarce} {'have' if ', ' in scarce else 'has'} {fewest}. One case "
                f"more or less right moves the sensitivity of such a class by {100 / fewest:.0f} points. "
                "Read the intervals rather than the estimates."
            )
        majority = [
            result.metrics["accuracy"].value
            for result in evaluation.models
            if result.model == "majority"
        ]
        if any(v is not None and v < evaluation.majority_share - 1e-9 for v in majority):
            warnings.append(
                "Each fold leaves out unequal shares of the classes, so that a model trains on fewer cases "
                "of the class it is tested on. That pulls the majority rule, and every weak model, below "
                "chance. Compare a model with the line 'always the most frequent class', not with the "
                "majority row."
            )
        return warnings

    @property
    def lead(self) -> ModelResult:
        """The first of ``ClassEvaluation.ranked``."""
        return self.report.evaluation.best()

    @property
    def beats_guessing(self) -> bool:
        """Better than guessing evenly, and than always naming the most frequent class."""
        low = self.lead.metrics["accuracy"].low
        return low is not None and low > self._needs_no_model

    @property
    def _needs_no_model(self) -> float:
        return max(self.report.evaluation.majority_share, self.report.evaluation.chance_accuracy)

    @property
    def groups(self) -> tuple[str, ...]:
        """The classes."""
        return self.report.evaluation.classes

    def headline(self) -> tuple[str, ...]:
        """The accuracy of the best model with its interval, and what flatters it."""
        evaluation, lead = self.report.evaluation, self.lead
        majority, repeats = evaluation.majority_share, len(evaluation.repeats)
        accuracy = lead.metrics["accuracy"]
        value, low, high = accuracy.value, accuracy.low, accuracy.high
        assert value is not None
        assert low is not None
        assert high is not None
        sentences = [
            f"Of {count(lead.n)} cases, {lead.model} named the right class in "
            f"{correct(lead.correct, repeats)}{f' on average over {repeats} repeats' * (repeats > 1)} "
            f"({percent(value)}, 95\N{NO-BREAK SPACE}% interval {between([low, high])}); "
            f"guessing gives {percent(evaluation.chance_accuracy)}, always naming the most frequent "
            f"class {percent(majority)}."
        ]
        if len(evaluation.models) > 1:
            equals = [
                result.model
                for result in evaluation.models
                if result.correct == lead.correct and result is not lead and not result.constant
            ]
            sentences.append(picked_sentence(len(evaluation.models), equals))
        if not self.beats_guessing:
            sentences.append(
                "Its interval reaches down to what needs no model: these cases alone do not show that "
                "it has learned the classes."
            )
        return tuple(sentences)

    def limitations(self) -> tuple[str, ...]:
        """What so many cases of so many classes cannot show."""
        evaluation, lead = self.report.evaluation, self.lead
        low, high = lead.metrics["accuracy"].low, lead.metrics["accuracy"].high
        limits = []
        if low is not None and high is not None:
            limits.append(
                f"With {lead.n} cases the accuracy of {lead.model} is known to within "
                f"{100 * (high - low):.0f} points: anything between {100 * low:.0f} and {100 * high:.0f} % "
                "is compatible with these results."
            )
            if high - low > WIDE:
                needed = cases_for_width(lead.correct / lead.n, WIDE / 2)
                limits.append(
                    f"An interval of {100 * WIDE:.0f} points would take about {needed} cases at this "
                    "accuracy."
                )
        small = [
            f"{name} ({number})"
            for name, number in zip(evaluation.classes, evaluation.class_counts, strict=True)
            if number < FEW
        ]
        if small:
            limits.append(
                f"Fewer than {FEW} cases: {', '.join(small)}. The sensitivity of such a class and its row of "
                "the confusion matrix depend on single cases."
            )
        if len(evaluation.models) > 1:
            limits.append(str(self.report.comparison.power))
            limits.append(selection_limit(len(evaluation.models)))
        return (*limits, *design_limits(len(evaluation.repeats), self.report.facts.n_sites))

    def values(self) -> dict[str, object]:
        """Results, tests, curves, errors and cards."""
        report, lead = self.report, self.lead
        evaluation, predictions, cohort = (
            report.evaluation,
            report.predictions,
            report.facts.explaining,
        )
        place = evaluation.models.index(lead)
        cards = case_cards(predictions)
        # Hardest first: the least probability for the true class. The sort is stable, by case name.
        cards.sort(
            key=lambda card: card.verdicts[place].p[evaluation.classes.index(card.outcome[1])]
        )
        return {
            "lead": lead,
            "place": place,
            "typical": typical_case(cards, report.facts.heatmaps),
            **split_tests([(describe_test(t), t) for t in report.comparison.pairs], lead.model),
            **order_models(evaluation),
            "metrics": page_columns(evaluation.metric_table, evaluation.classes),
            "references": self._references(),
            "shown": cards_shown(sum(card.verdicts[place].wrong for card in cards)),
            "decisions": self._decisions(),
            "errors": failures(predictions, lead.model, cohort),
            "described": table_one(cohort, evaluation.classes),
            "curves": [plots.curves_of(predictions, result) for result in evaluation.models],
            "cards": cards,
            "methods": _interval_methods(evaluation),
            "roc_plot": svg(plots.roc_plot),
            "roc_key": svg(plots.curve_key),
            "reliability_plot": svg(plots.reliability_plot),
        }

    def write_figures(self, folder: Path) -> list[Path]:
        """Accuracy, ROC curves, confusion matrices and reliability."""
        return write_class_figures(folder, self.report.evaluation, self.report.predictions)

    def _references(self) -> list[tuple[str, dict[str, float]]]:
        """What needs no model, with its metrics; the most frequent class once, where a model names it."""
        evaluation = self.report.evaluation
        most = evaluation.majority_share
        named = any(
            result.model == "majority" and abs(result.correct / result.n - most) < 1e-9
            for result in evaluation.models
        )
        chance = {**evaluation.guesses, "balanced_accuracy": evaluation.chance_accuracy}
        largest = ("always the most frequent class", chance | {"accuracy": most})
        guessing = ("chance: each class equally often", chance)
        return [*([] if named else [largest]), guessing]

    def _decisions(self) -> list[Decision]:
        """The curves of the best model for each class to act on that has a case."""
        predictions, classes = self.report.predictions, self.groups
        alone = predictions.select([self.lead.model])
        present = set(predictions.table["label"].astype(str))
        positives = classes[1:] if len(classes) == 2 else classes
        return [
            Decision(name, decision_curves(alone, name, THRESHOLDS))
            for name in positives
            if name in present
        ]


def describe_test(test: PairTest) -> str:
    """A paired test as a sentence."""
    if not test.only_first + test.only_second:
        return f"{test.first} and {test.second} are right and wrong on the same cases."
    verdict = (
        "This is more than chance explains." if test.p_holm < 0.05 else "Chance could explain this."
    )
    return (
        f"{test.first} alone is right on {test.only_first}, {test.second} alone on "
        f"{test.only_second} of {count(test.n)} cases. {verdict}"
    )


def _interval_methods(evaluation: ClassEvaluation) -> list[str]:
    """The methods of the intervals, each once."""
    results = evaluation.models
    aucs = [result.metrics["auc"] for result in results]
    return [
        f"{name} by {method}"
        for name, methods in (
            ("accuracy", {result.metrics["accuracy"].method for result in results}),
            (
                "balanced accuracy",
                {result.metrics["balanced_accuracy"].method for result in results},
            ),
            ("AUC", {auc.method for auc in aucs if auc.low is not None}),
        )
        for method in sorted(methods)
    ]
