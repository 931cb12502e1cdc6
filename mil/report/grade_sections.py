"""The sections of ordered grades: quadratic kappa, mean absolute error and ordered confusion matrices."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from features.summary import join_names
from mil.data.cohort import Cohort
from mil.evaluation.decision_curves import Decision, decide
from mil.evaluation.grade.comparison import GradeComparison, GradePairTest
from mil.evaluation.grade.evaluate import GradeEvaluation, GradeResult
from mil.evaluation.grade.metric_table import METRICS
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.intervals import Estimate, wilson
from mil.evaluation.metric import page_columns
from mil.report.class_figures import write_confusion_figure
from mil.report.formats import count
from mil.report.grade_cards import grade_cards
from mil.report.sections import (
    THRESHOLDS,
    Report,
    Sections,
    cards_shown,
    design_limits,
    model_order,
    order_models,
    picked_sentence,
    selection_limit,
    split_tests,
    typical_case,
)
from mil.report.table_one import table_one

FEW = 10  # cases of a grade
DOZEN = 12  # cases named in a sentence

GradeReport = Report[GradePredictions, GradeEvaluation, GradeComparison]


class GradeSections(Sections[GradeReport]):
    """A run that predicts an ordered grade."""

    template = "report/grade.html"
    folder = "figures"

    @staticmethod
    def warnings(cohort: Cohort, evaluation: GradeEvaluation) -> list[str]:  # noqa: ARG004
        """Grades of few cases."""
        counts = Counter(case.label for case in cohort.cases)
        fewest = min(counts.values())
        if fewest >= FEW:
            return []
        scarce = ", ".join(sorted(grade for grade, number in counts.items() if number == fewest))
        return [
            f"Few cases per grade: {scarce} {'have' if ', ' in scarce else 'has'} {fewest}. Single cases "
            "of such a grade move kappa noticeably. Read the intervals rather than the estimates."
        ]

    @property
    def lead(self) -> GradeResult:
        """The first of ``GradeEvaluation.ranked``."""
        return self.report.evaluation.best()

    @property
    def beats_guessing(self) -> bool:
        """The interval of Somers' D, of the order of the expected grades, lies above 0."""
        low = self.lead.metrics["somers_d"].low
        return low is not None and low > 0

    @property
    def groups(self) -> tuple[str, ...]:
        """The grades, lowest first."""
        return self.report.evaluation.grades

    def headline(self) -> tuple[str, ...]:
        """Quadratic kappa and mean absolute error of the best model, and what flatters them."""
        evaluation, lead = self.report.evaluation, self.lead
        kappa, error = lead.metrics["quadratic_kappa"], lead.metrics["mae"]
        if kappa.value is None:
            return (f"Quadratic kappa is {kappa.note or 'undefined'}.",)
        interval = "95\N{NO-BREAK SPACE}% interval"
        limits = "" if kappa.low is None else f", {interval} {kappa.low:.2f} to {kappa.high:.2f}"
        sentences = [
            f"On {count(lead.n)} cases the grades of {lead.model} agree with the true ones with a quadratic "
            f"kappa of {kappa.value:.2f}{limits} (0 is chance, 1 perfect). They are off by "
            f"{error.value:.2f} grades on average."
        ]
        if len(evaluation.models) > 1:
            value = kappa.value
            equals = [
                result.model
                for result in evaluation.models
                if result.metrics["quadratic_kappa"].value == value
                and result is not lead
                and not result.constant
            ]
            sentences.append(picked_sentence(len(evaluation.models), equals))
        return (*sentences, self._order())

    def _order(self) -> str:
        """Whether the lead puts the cases in the order of their grades, which needs no right grade."""
        order, kappa = self.lead.metrics["somers_d"], self.lead.metrics["quadratic_kappa"]
        if order.value is None:
            return "It gives all cases of a fold the same answer: it has not learned the grades."
        limits = "" if order.low is None else f", {order.low:.2f} to {order.high:.2f}"
        measured = f"(Somers' D {order.value:.2f}{limits})"
        if not self.beats_guessing:
            return (
                f"The order of its expected grades reaches down to chance {measured}: these cases alone do "
                "not show that it has learned the grades."
            )
        if kappa.low is not None and kappa.low > 0:
            return f"Its expected grades put the cases in an order better than chance {measured}."
        return (
            f"Its expected grades put the cases in an order better than chance {measured}, although the "
            "grades that it names do not agree better than chance. Use its order, not its grades."
        )

    def limitations(self) -> tuple[str, ...]:
        """What so many cases of so many grades cannot show."""
        evaluation, lead = self.report.evaluation, self.lead
        kappa, limits = lead.metrics["quadratic_kappa"], []
        if kappa.low is not None and kappa.high is not None:
            limits.append(
                f"With {lead.n} cases the quadratic kappa of {lead.model} is known to within "
                f"{kappa.high - kappa.low:.2f}: anything between {kappa.low:.2f} and {kappa.high:.2f} is "
                "compatible with these results."
            )
        small = [
            f"{name} ({number})"
            for name, number in zip(evaluation.grades, evaluation.grade_counts, strict=True)
            if number < FEW
        ]
        if small:
            limits.append(
                f"Fewer than {FEW} cases: {', '.join(small)}. The row of such a grade in the confusion "
                "matrix depends on single cases."
            )
        limits.append(
            "Quadratic kappa depends on how frequent the grades are. It cannot be compared with that of a "
            "cohort of another composition."
        )
        if len(evaluation.models) > 1:
            limits += [str(self.report.comparison), selection_limit(len(evaluation.models))]
        return (*limits, *design_limits(len(evaluation.repeats), self.report.facts.n_sites))

    def values(self) -> dict[str, object]:
        """Results, tests and cards."""
        report, lead = self.report, self.lead
        evaluation = report.evaluation
        place = evaluation.models.index(lead)
        cards = grade_cards(report.predictions)
        # Hardest first: furthest from the true grade. The sort is stable, by case name.
        cards.sort(key=lambda card: -card.verdicts[place].distance)
        results = [evaluation.models[at] for at in model_order(evaluation)]
        results += [evaluation.baseline] if evaluation.baseline else []
        return {
            **order_models(evaluation),
            "metrics": sum(page_columns(evaluation.metric_table, evaluation.grades), ()),
            **split_tests([(describe_pair(t), t) for t in report.comparison.pairs], lead.model),
            "shown": cards_shown(sum(card.verdicts[place].wrong for card in cards)),
            "footnotes": undefined_notes(results),
            "right_shares": [_right_shares(result) for result in evaluation.models],
            "decisions": self._decisions(),
            "lead": lead,
            "place": place,
            "typical": typical_case(cards, report.facts.heatmaps),
            "results": results,
            "n_models": len(evaluation.models),
            "described": table_one(report.facts.explaining, evaluation.grades),
            "cards": cards,
            "missed": [card.case for card in cards if card.verdicts[place].wrong],
            "missed_by_all": [card.case for card in cards if card.missed],
            "dozen": DOZEN,
        }

    def _decisions(self) -> list[Decision]:
        """The curves of the best model for acting on each grade or a higher one."""
        evaluation = self.report.evaluation
        alone = self.report.predictions.select([self.lead.model])
        counts = evaluation.grade_counts
        return [
            decide(alone, THRESHOLDS[::3], positive=name)
            for place, name in enumerate(evaluation.grades)
            if sum(counts[:place]) and sum(counts[place:])
        ]

    def write_figures(self, folder: Path) -> list[Path]:
        """Confusion matrices in the order of the grades."""
        evaluation = self.report.evaluation
        counts = {result.model: result.confusion for result in evaluation.models}
        folder.mkdir(parents=True, exist_ok=True)
        names, totals = evaluation.grades, evaluation.grade_counts
        return write_confusion_figure(folder / "confusion", names, totals, counts)


def undefined_notes(results: Sequence[GradeResult]) -> list[str]:
    """Why numbers or their limits are missing, a sentence for each reason."""
    named: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for metric in METRICS:
            if note := result.metrics[metric.name].note:
                named.setdefault((metric.label, note), []).append(result.model)
    return [f"{label} of {join_names(models)}: {note}." for (label, note), models in named.items()]


def _right_shares(result: GradeResult) -> list[Estimate]:
    """Of the cases of each true grade, the share that is graded exactly."""
    shares = []
    for grade, row in enumerate(result.confusion):
        total = float(row.sum())
        if not total:
            shares.append(Estimate(None, None, None, "none"))
            continue
        limits = wilson(float(row[grade]), total)
        shares.append(Estimate(float(row[grade]) / total, limits.low, limits.high, limits.method))
    return shares


def describe_pair(test: GradePairTest) -> str:
    """A paired test of two models as a sentence."""
    pair = f"{test.first} and {test.second}"
    if test.mae.value == 0:
        return f"{pair} are equally far from the true grades."
    nearer = test.first if test.mae.value < 0 else test.second
    verdict = (
        "This is more than chance explains."
        if test.mae.p_holm < 0.05
        else "Chance could explain this."
    )
    return f"Of {pair}, {nearer} is nearer to the true grades. {verdict}"
