"""The judged models of a run as an audit sees them; each task names its class."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from features.progress import Progress
from features.summary import Summary
from mil.audit.association import Associations
from mil.audit.confounders import Confounder
from mil.audit.sample_size import Point, Width
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.evaluation.display import format_count
from mil.evaluation.intervals import Estimate
from mil.evaluation.judge import evaluate
from mil.runs.run import Run

FEW = 5  # training cases of a label, below which no model can be said to have learned it


class JudgedRun(ABC):
    """The predictions and the evaluation of a run.

    Attributes:
        statistic: the measure of a fact or a model over all cases, as ``macro AUC``.
        meaning: of the statistic, in a sentence without a verb.
        alone: what a fact or a model achieves in the folds, as ``cases right``.
        score: the measure of the learning curve, as ``accuracy``.
        score_name: the same in files.
    """

    statistic: ClassVar[str]
    meaning: ClassVar[str]
    alone: ClassVar[str]
    score: ClassVar[str]
    score_name: ClassVar[str]

    def __init__(self, run: Run, predictions: Any) -> None:
        self.run = run
        self.predictions = predictions
        self.evaluation: Any = evaluate(predictions)

    @property
    def group(self) -> str:
        """What the label of a case is called."""
        return self.run.task.group

    @property
    def best(self) -> Any:
        """The result of the best model."""
        return self.evaluation.best()

    @property
    def lead(self) -> str:
        """The name of the best model."""
        return str(self.best.model)

    @property
    @abstractmethod
    def reference(self) -> float:
        """What guessing achieves, on the scale of ``achieved``."""

    @property
    @abstractmethod
    def most(self) -> float:
        """What a perfect model achieves, on the scale of ``achieved``."""

    @abstractmethod
    def achieved(self) -> list[tuple[str, float | None, float]]:
        """Name, statistic, and result in the folds of each model."""

    @staticmethod
    @abstractmethod
    def confounders(
        cohort: Cohort, folds: Sequence[Fold]
    ) -> tuple[tuple[Confounder, ...], Associations]:
        """Every fact of the cases beside the tissue, tested against the outcome."""

    def describe_scarce(self, fewest: Mapping[str, int]) -> str:
        """A warning of folds that learn from too few cases; empty where there is none.

        Args:
            fewest: training cases of each label in the fold that has fewest.
        """
        label, number = min(fewest.items(), key=lambda item: item[1])
        if number >= FEW:
            return ""
        return (
            f"Some fold learns {self.group} {label} from {format_count(number, 'case')}. So few may be "
            f"memorised: add cases, or merge {self.group} {label} with another."
        )

    @abstractmethod
    def by_site(self, site_of: dict[str, str]) -> list[str]:
        """How the best model does at each site."""

    @abstractmethod
    def add_certainty(self, summary: Summary) -> None:
        """How sure the result of the best model is."""

    @abstractmethod
    def refit(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Estimate:
        """The score of one model that is cross-validated with the settings of the run in other folds."""

    def _refitted(
        self, cohort: Cohort, folds: Sequence[Fold], model: str, progress: Progress
    ) -> Any:
        from mil.learning.crossval import cross_validate  # loads torch, which only this needs

        settings = self.run.settings
        predictions = cross_validate(
            cohort, folds, [model], settings.fit, seed=settings.seed, workers=0, progress=progress
        )
        [result] = evaluate(predictions).models
        return result

    def point_json(self, point: Point) -> dict[str, object]:
        """A point of the learning curve as plain values."""
        return {
            "train": point.train, self.score_name: point.score, "low": point.low, "high": point.high,
        }  # fmt: skip

    def widths(self) -> tuple[Width, ...]:
        """Intervals at several numbers of cases; none where they are not known."""
        return ()

    def results(self) -> list[dict[str, str]]:
        """The numbers as a study would print them; none where no rule checks them."""
        return []


def load_judged(target: str) -> type[JudgedRun]:
    """The class that ``module:class`` names."""
    module, _, name = target.partition(":")
    judged: type[JudgedRun] = getattr(import_module(module), name)
    return judged


def judge(run: Run) -> JudgedRun:
    """The judged models of a run."""
    return load_judged(run.task.audit)(run, run.predictions())
