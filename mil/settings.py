"""The settings of learning. No torch here, so the command line starts at once."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from features.choices import check_choices, choice_problem
from mil.errors import CohortError, FitError, PredictionsError
from mil.tasks.names import DEFAULT_TASK, TASKS

SEEDS = 2**32
MAX_WIDTH = 65536  # of a head's embedding; a larger one is a typing error
FEW_CASES = 60  # with fewer, an inner validation part is too small to choose an epoch by
EarlyStopping = Literal["auto", "never", "always"]
_FOLDS = {
    "help": "Number of folds; `loo` leaves out one case at a time, `site` one value of the table's site "
    "column at a time."
}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How one model is trained; defaults suit 20 to 50 cases.

    Example:
        settings = mil.FitSettings(epochs=100, seeds=5, loss="focal")
    """

    PANEL: ClassVar[str] = "Training"

    task: str = field(
        default=DEFAULT_TASK,
        metadata={
            "help": "What is predicted: "
            + "; ".join(f"{row.predicts} (`{name}`)" for name, row in TASKS.items())
            + ".",
            "panel": "Task",
            "choices": tuple(TASKS),
        },
    )
    epochs: int = field(default=60, metadata={"help": "Passes over the training bags."})
    learning_rate: float = field(
        default=1e-3,
        metadata={"help": "Initial learning rate of the AdamW optimizer, with cosine decay."},
    )
    weight_decay: float = field(
        default=1e-2, metadata={"help": "Weight decay of the AdamW optimizer."}
    )
    dropout: float = field(
        default=0.25, metadata={"help": "Dropout of the tile embeddings in training."}
    )
    width: int = field(
        default=128, metadata={"help": "Length of a tile's embedding inside the head."}
    )
    batch_bags: int = field(default=4, metadata={"help": "Bags per training step."})
    train_tiles: int = field(
        default=4096,
        metadata={
            "help": "Tiles drawn from each bag per training step; 0 takes all. Prediction always uses all."
        },
    )
    chunk_tiles: int = field(
        default=0,
        metadata={
            "help": "Process longer bags in chunks of this many tiles: less memory, more time, the same "
            "results except for the random draws of dropout. 0 is off."
        },
    )
    seeds: int = field(
        default=3,
        metadata={"help": "Number of fits with different seeds; their predictions are averaged."},
    )
    precision: Literal["auto", "fp32", "bf16"] = field(
        default="auto",
        metadata={
            "help": "Precision of training; `auto` is bf16 where the processor supports it. Prediction is "
            "in fp32."
        },
    )
    early_stopping: EarlyStopping = field(
        default="auto",
        metadata={
            "help": "Choose the epoch by the loss on an inner part of the training cases, never on the "
            "test fold; `auto` does so from 60 training cases on."
        },
    )
    patience: int = field(
        default=10,
        metadata={
            "help": "Epochs without a lower loss on the inner validation cases before training stops."
        },
    )
    loss: str = field(
        default="auto",
        metadata={
            "help": "Training loss; `auto` is the task's first loss. "
            + "; ".join(f"{name}: {' or '.join(row.losses)}" for name, row in TASKS.items())
            + ".",
            "choices": ("auto", *(loss for row in TASKS.values() for loss in row.losses)),
        },
    )
    intervals: int = field(
        default=4,
        metadata={
            "help": "Discrete loss: number of time intervals, with equal numbers of training events."
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "Cross-entropy loss: label smoothing, a fraction of 1."},
    )
    focal_gamma: float = field(
        default=2.0,
        metadata={
            "help": "Focal loss: gamma. The higher, the less weight for well-classified cases."
        },
    )
    head_weights: str = field(
        default="",
        metadata={
            "help": "A trained model (.safetensors) to start training from; cases that it has seen are not "
            "tested."
        },
    )
    clinical: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Columns of the table that the clinical models use, separated by commas; all if not "
            "given, except in survival, where they must be named.",
            "panel": "Models",
            "split": ",",
        },
    )

    def __post_init__(self) -> None:
        check_choices(self, FitError)
        self._check_counts()
        if not 0 < self.learning_rate < math.inf:
            raise FitError(f"learning_rate must be above 0; got {self.learning_rate}. Use 0.001.")
        if not 0 <= self.weight_decay < math.inf:
            raise FitError(f"weight_decay must be 0 or more; got {self.weight_decay}. Use 0.01.")
        if not 0 <= self.dropout < 1:
            raise FitError(f"dropout must be a fraction in [0, 1); got {self.dropout}. Use 0.25.")
        self._check_loss()

    def _check_loss(self) -> None:
        if problem := choice_problem("task", self.task, tuple(TASKS), DEFAULT_TASK):
            raise FitError(problem)
        losses = TASKS[self.task].losses
        if self.loss != "auto" and (
            problem := choice_problem("loss", self.loss, losses, losses[0])
        ):
            owner = next((name for name, row in TASKS.items() if self.loss in row.losses), "")
            if owner:
                problem = (
                    f"loss is {self.loss}, which belongs to the task {owner}; the task here is {self.task}, "
                    f"whose loss is {' or '.join(losses)}. Set loss to {losses[0]}, or set task to {owner}."
                )
            raise FitError(problem)
        if not 0 <= self.label_smoothing < 1:
            raise FitError(
                f"label_smoothing must be a fraction in [0, 1); got {self.label_smoothing}. Use 0."
            )
        if not 0 <= self.focal_gamma < math.inf:
            raise FitError(f"focal_gamma must be 0 or more; got {self.focal_gamma}. Use 2.")
        if self.loss_name != "cross-entropy" and self.label_smoothing:
            raise FitError(
                f"label_smoothing {self.label_smoothing} belongs to cross-entropy; the {self.loss_name} loss "
                "has none. Leave one of them out."
            )
        if self.early_stopping == "never" and self.patience != _default(self, "patience"):
            raise FitError(
                f"patience={self.patience} has no effect with early_stopping='never'. Leave one of them out."
            )

    @property
    def loss_name(self) -> str:
        """The loss itself, ``auto`` resolved."""
        return TASKS[self.task].losses[0] if self.loss == "auto" else self.loss

    def _check_counts(self) -> None:
        for name in ("epochs", "width", "batch_bags", "seeds", "patience", "intervals"):
            if (value := getattr(self, name)) < 1:
                raise FitError(
                    f"{name} must be at least 1; got {value}. Use {_default(self, name)}."
                )
        if self.width > MAX_WIDTH:
            raise FitError(f"width must be at most {MAX_WIDTH}; got {self.width}. Use 128.")
        for name in ("train_tiles", "chunk_tiles"):
            if (value := getattr(self, name)) < 0:
                raise FitError(
                    f"{name} must be 0 or more; got {value}. Use {_default(self, name)}."
                )

    def stops_early(self, labels: Sequence[str]) -> bool:
        """Whether training cases of these classes give some up to choose the epoch by."""
        return sets_cases_aside(self.early_stopping, labels)


def _default(settings: object, name: str) -> object:
    """The default of a setting, as a remedy."""
    return type(settings).__dataclass_fields__[name].default  # type: ignore[attr-defined]


def sets_cases_aside(early_stopping: str, labels: Sequence[str]) -> bool:
    """Whether some training cases choose the epoch; ``auto`` asks for many, two of each class."""
    if early_stopping == "auto":
        return len(labels) >= FEW_CASES and min(Counter(labels).values()) >= 2
    return early_stopping == "always"


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How cases are divided into folds.

    Example:
        settings = mil.SplitSettings(folds="5", repeats=3, seed=1)
    """

    PANEL: ClassVar[str] = "Folds"

    folds: str = field(default="5", metadata=_FOLDS)
    repeats: int = field(
        default=1, metadata={"help": "Repeats of the cross-validation with new folds."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the folds and of training."})

    def __post_init__(self) -> None:
        folds: object = self.folds
        if isinstance(folds, int):
            object.__setattr__(self, "folds", str(folds))
        check_choices(self, CohortError)
        if self.folds not in ("loo", "site") and not (
            self.folds.isdecimal() and int(self.folds) >= 2
        ):
            raise CohortError(f"folds must be at least 2, loo or site; got {self.folds!r}. Use 5.")
        if self.repeats < 1:
            raise CohortError(f"repeats must be at least 1; got {self.repeats}. Use 1.")
        if not 0 <= self.seed < SEEDS:
            raise CohortError(f"seed is from 0 to {SEEDS - 1}; got {self.seed}. Use 0.")
        if self.repeats > 1 and not self.folds.isdecimal():
            raise CohortError(
                f"folds={self.folds} makes the same folds every time, so {self.repeats} repeats would be "
                "equal. Use repeats=1."
            )


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """How training cases are drawn for a learning curve."""

    PANEL: ClassVar[str] = "Folds"

    shots: tuple[int, ...] = field(
        default=(1, 2, 4, 8, 16),
        metadata={
            "help": "Numbers of training cases per class, separated by commas. The larger draws contain the "
            "smaller ones.",
            "split": ",",
        },
    )
    draws: int = field(
        default=10, metadata={"help": "Number of draws of training cases, each of all numbers."}
    )
    folds: str = field(default="5", metadata=_FOLDS)
    seed: int = field(
        default=0, metadata={"help": "Seed of the folds, of the draws and of training."}
    )

    def __post_init__(self) -> None:
        check_choices(self, CohortError)
        SplitSettings(folds=self.folds, seed=self.seed)
        object.__setattr__(self, "shots", tuple(sorted(set(self.shots))))
        if not self.shots or self.shots[0] < 1:
            raise CohortError(
                f"shots are numbers of cases per class from 1; got {', '.join(map(str, self.shots))}. "
                "Use 1,2,4,8,16."
            )
        if self.draws < 1:
            raise CohortError(f"draws must be at least 1; got {self.draws}. Use 10.")


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How predictions are judged.

    Example:
        settings = mil.JudgeSettings(interval="wilson", coverage=0.8)
    """

    PANEL: ClassVar[str] = "Metrics"

    interval: Literal["exact", "wilson", "wilson-cc"] = field(
        default="exact",
        metadata={
            "help": "Confidence interval of sensitivity, specificity and predictive values: `exact` is "
            "Clopper-Pearson, `wilson-cc` Wilson with continuity correction, as in R's prop.test."
        },
    )
    prevalence: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Prevalence of classes where the test will be used, for predictive values there: "
            "`LMS=0.3,SS=0.1`. That of the cohort if not given.",
            "split": ",",
        },
    )
    coverage: float = field(
        default=0.9,
        metadata={
            "help": "Conformal prediction: fraction of cases whose prediction set is to contain the true "
            "class."
        },
    )

    def __post_init__(self) -> None:
        check_choices(self, PredictionsError)
        if not 0 < self.coverage < 1:
            raise PredictionsError(
                f"coverage must be a fraction in (0, 1); got {self.coverage}. Use 0.9."
            )
        self.shares()

    def shares(self) -> dict[str, float]:
        """The prevalence by class."""
        shares = {}
        for entry in self.prevalence:
            name, _, share = entry.rpartition("=")
            try:
                shares[name] = float(share)
            except ValueError:
                shares[name] = math.nan
            if not (name and 0 < shares[name] < 1):
                raise PredictionsError(
                    f"prevalence is a class and its share between 0 and 1; got {entry!r}. Write LMS=0.3."
                )
        return shares
