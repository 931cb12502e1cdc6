"""The settings of learning. No torch here, so the command line starts at once."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mil.errors import CohortError, FitError, PredictionsError
from mil.tasks.names import DEFAULT_TASK, TASKS

SEEDS = 2**32
WIDEST = 65536  # of a head's embedding; more is a slip of the hand, not a choice
FEW_CASES = 60  # below this an inner validation part is too small to choose an epoch by


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How one model is trained; defaults suit 20 to 50 cases.

    Example:
        settings = mil.FitSettings(epochs=100, seeds=5, loss="focal")
    """

    task: str = field(
        default=DEFAULT_TASK,
        metadata={
            "help": "What is predicted: "
            + "; ".join(f"`{name}`, {row.predicts}" for name, row in TASKS.items())
            + "."
        },
    )
    epochs: int = field(default=60, metadata={"help": "Passes over the training bags."})
    learning_rate: float = field(
        default=1e-3, metadata={"help": "Of AdamW, falling along a cosine."}
    )
    weight_decay: float = field(default=1e-2, metadata={"help": "Of AdamW."})
    dropout: float = field(
        default=0.25, metadata={"help": "On each tile's embedding, in training."}
    )
    width: int = field(default=128, metadata={"help": "Length of a tile's embedding in the head."})
    batch_bags: int = field(default=4, metadata={"help": "Bags per step."})
    train_tiles: int = field(
        default=4096,
        metadata={"help": "Tiles drawn per bag and step; 0 is all. All are used to predict."},
    )
    chunk_tiles: int = field(
        default=0,
        metadata={
            "help": "Take longer bags in chunks of so many tiles: the same numbers, up to the chance of "
            "dropout, in less memory and more time. 0 is never."
        },
    )
    seeds: int = field(
        default=3, metadata={"help": "Fits from different seeds whose probabilities are averaged."}
    )
    precision: str = field(
        default="auto",
        metadata={
            "help": "Of training: `fp32`, `bf16`, or `auto`: bf16 where the processor has it. "
            "Prediction is in fp32."
        },
    )
    early_stopping: str = field(
        default="auto",
        metadata={
            "help": "`never`, `always`, or `auto`: from 60 training cases on. It stops on an inner "
            "part of the training cases, never on the reported fold."
        },
    )
    patience: int = field(
        default=10, metadata={"help": "Epochs without a better inner loss before stopping."}
    )
    loss: str = field(
        default="auto",
        metadata={
            "help": "What training minimises; `auto` is the first of the task's. "
            + ", ".join(f"{name}: {' or '.join(row.losses)}" for name, row in TASKS.items())
            + ". `focal` gives cases that are already right less weight; `discrete` learns a hazard for each "
            "of several intervals of time."
        },
    )
    intervals: int = field(
        default=4,
        metadata={
            "help": "Parts of the time, with as many training events in each, of the discrete loss."
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "Share of each label given to all classes alike, of cross-entropy."},
    )
    focal_gamma: float = field(
        default=2.0, metadata={"help": "How far the focal loss makes light of what is right."}
    )
    clinical: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Columns of the table for model clinical, with commas between; all if not given.",
            "split": ",",
        },
    )

    def __post_init__(self) -> None:
        self._check_counts()
        if not 0 < self.learning_rate < math.inf:
            raise FitError(f"learning_rate is above 0; got {self.learning_rate}. Use 0.001.")
        if not 0 <= self.weight_decay < math.inf:
            raise FitError(f"weight_decay is 0 or more; got {self.weight_decay}. Use 0.01.")
        if not 0 <= self.dropout < 1:
            raise FitError(f"dropout is a fraction in [0, 1); got {self.dropout}. Use 0.25.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise FitError(f"precision is auto, fp32 or bf16; got {self.precision!r}. Use auto.")
        if self.early_stopping not in ("auto", "never", "always"):
            raise FitError(
                f"early_stopping is auto, never or always; got {self.early_stopping!r}. Use auto."
            )

        self._check_loss()

    def _check_loss(self) -> None:
        if self.task not in TASKS:
            raise FitError(f"task is {' or '.join(TASKS)}; got {self.task!r}. Use {DEFAULT_TASK}.")
        known = TASKS[self.task].losses
        if self.loss not in ("auto", *known):
            raise FitError(f"loss is {' or '.join(known)}; got {self.loss!r}. Use {known[0]}.")
        if not 0 <= self.label_smoothing < 1:
            raise FitError(
                f"label_smoothing is a fraction in [0, 1); got {self.label_smoothing}. Use 0."
            )
        if not 0 <= self.focal_gamma < math.inf:
            raise FitError(f"focal_gamma is 0 or more; got {self.focal_gamma}. Use 2.")
        if self.loss_name != "cross-entropy" and self.label_smoothing:
            raise FitError(
                f"label_smoothing {self.label_smoothing} belongs to cross-entropy; the {self.loss_name} loss "
                "has none. Leave one of them out."
            )

    @property
    def loss_name(self) -> str:
        """The loss itself, ``auto`` resolved."""
        return TASKS[self.task].losses[0] if self.loss == "auto" else self.loss

    def _check_counts(self) -> None:
        for name in ("epochs", "width", "batch_bags", "seeds", "patience", "intervals"):
            if getattr(self, name) < 1:
                raise FitError(f"{name} is at least 1; got {getattr(self, name)}. Leave it out.")
        if self.width > WIDEST:
            raise FitError(f"width is at most {WIDEST}; got {self.width}. Use 128.")
        for name in ("train_tiles", "chunk_tiles"):
            if getattr(self, name) < 0:
                raise FitError(f"{name} is 0 or more; got {getattr(self, name)}. Leave it out.")

    def stops_early(self, labels: Sequence[str]) -> bool:
        """Whether training cases of these classes give some up to choose the epoch by."""
        return sets_cases_aside(self.early_stopping, labels)


def sets_cases_aside(early_stopping: str, labels: Sequence[str]) -> bool:
    """Whether some training cases choose the epoch; ``auto`` asks for many, two of each class."""
    if early_stopping == "auto":
        return len(labels) >= FEW_CASES and min(Counter(labels).values()) >= 2
    return early_stopping == "always"


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How cases are divided.

    Example:
        settings = mil.SplitSettings(folds="5", repeats=3, seed=1)
    """

    folds: str = field(
        default="5",
        metadata={
            "help": "Number of folds, `loo` to leave one case out at a time, or `site` to leave out "
            "one value of the table's site column at a time."
        },
    )
    repeats: int = field(default=1, metadata={"help": "Reshufflings of all folds."})
    seed: int = field(default=0, metadata={"help": "Seed of the folds and of training."})

    def __post_init__(self) -> None:
        if self.folds not in ("loo", "site") and not (
            self.folds.isdecimal() and int(self.folds) >= 2
        ):
            raise CohortError(f"folds is a number from 2, loo or site; got {self.folds!r}. Use 5.")
        if self.repeats < 1:
            raise CohortError(f"repeats is at least 1; got {self.repeats}. Use 1.")
        if not 0 <= self.seed < SEEDS:
            raise CohortError(f"seed is from 0 to {SEEDS - 1}; got {self.seed}. Use 0.")
        if self.repeats > 1 and not self.folds.isdecimal():
            raise CohortError(
                f"folds {self.folds} has no chance in it, so {self.repeats} repeats would be equal. "
                "Use repeats=1."
            )


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How predictions are judged.

    Example:
        settings = mil.JudgeSettings(interval="wilson", coverage=0.8)
    """

    interval: str = field(
        default="exact",
        metadata={
            "help": "Of sensitivity, specificity and predictive values: `exact` (Clopper-Pearson), "
            "`wilson`, or `wilson-cc` (with continuity correction, as R's prop.test)."
        },
    )
    prevalence: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Shares of the classes where the test is to be used, for predictive values there: "
            "`LMS=0.3,SS=0.1`. The cohort's own if not given.",
            "split": ",",
        },
    )
    coverage: float = field(
        default=0.9,
        metadata={"help": "Share of cases whose set of possible classes shall hold the true one."},
    )

    def __post_init__(self) -> None:
        if self.interval not in ("exact", "wilson", "wilson-cc"):
            raise PredictionsError(
                f"interval is exact, wilson or wilson-cc; got {self.interval!r}."
            )
        if not 0 < self.coverage < 1:
            raise PredictionsError(
                f"coverage is a fraction in (0, 1); got {self.coverage}. Use 0.9."
            )
        self.shares()

    def shares(self) -> dict[str, float]:
        """The stated prevalence by class."""
        shares = {}
        for stated in self.prevalence:
            name, _, share = stated.rpartition("=")
            try:
                shares[name] = float(share)
            except ValueError:
                shares[name] = math.nan
            if not (name and 0 < shares[name] < 1):
                raise PredictionsError(
                    f"prevalence names a class and its share, between 0 and 1; got {stated!r}. Write LMS=0.3."
                )
        return shares
