"""The settings of fine-tuning. No torch here, so the command line starts at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from features.choices import check_choices, twice_problem
from mil.errors import FitError
from mil.settings import FEW_CASES, sets_cases_aside

Augmentation = Literal["off", "flips", "turns", "colour", "rotation", "zoom", "elastic", "crop"]
DECAYS = {"adamw": 0.05, "adam": 0.0, "sgdm": 0.0}  # of weights, where none is set


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How a backbone is trained on tiles."""

    PANEL: ClassVar[str] = "Fine-tuning"

    train: Literal["head", "last", "all"] = field(
        default="all",
        metadata={
            "help": "The part to train: the classifier only (`head`), the last blocks too (`last`), or all."
        },
    )
    last_blocks: int = field(
        default=1,
        metadata={"help": "Number of last blocks to train, with train=last."},
    )
    hidden: tuple[int, ...] = field(
        default=(),
        metadata={
            "help": "Widths of fully connected layers between backbone and classes, as in 512,256.",
            "split": ",",
        },
    )
    dropout: float = field(
        default=0.25, metadata={"help": "Dropout before each layer of the classifier."}
    )
    epochs: int = field(
        default=10,
        metadata={
            "help": "Number of epochs; each draws a fresh sample of tiles from every training slide."
        },
    )
    tiles_per_slide: int = field(
        default=64, metadata={"help": "Tiles drawn from each slide in each epoch."}
    )
    batch_tiles: int = field(
        default=32, metadata={"help": "Tiles per training step, over all processes."}
    )
    optimizer: Literal["adamw", "adam", "sgdm"] = field(
        default="adamw",
        metadata={
            "help": "Optimizer: AdamW (`adamw`), Adam (`adam`), or stochastic gradient descent with momentum "
            "(`sgdm`)."
        },
    )
    learning_rate: float = field(
        default=3e-4,
        metadata={
            "help": "Learning rate of the classifier. Gradient descent with momentum needs a larger one than "
            "Adam: 0.01 is usual."
        },
    )
    schedule: Literal["cosine", "constant"] = field(
        default="cosine",
        metadata={
            "help": "Learning rate after the warm-up: it falls to 0 along half a cosine (`cosine`), or stays "
            "(`constant`)."
        },
    )
    layer_decay: float = field(
        default=0.9,
        metadata={
            "help": "Learning rate of each block as a fraction of that of the block after it."
        },
    )
    warmup: float = field(
        default=1.0, metadata={"help": "Epochs of linear warm-up of the learning rate."}
    )
    weight_decay: float | None = field(
        default=None,
        metadata={
            "help": "Weight decay; norms and biases have none. With optimizer=adam and sgdm it is an L2 "
            "penalty. If not given, 0.05 for adamw and 0 for the others."
        },
    )
    momentum: float = field(default=0.9, metadata={"help": "Momentum, with optimizer=sgdm."})
    augment: tuple[Augmentation, ...] = field(
        default=("flips", "turns", "colour"),
        metadata={
            "help": "Random changes to a tile each time it is used, separated by commas: mirror images "
            "(`flips`), quarter turns (`turns`), brightness, contrast and saturation (`colour`), any angle "
            "(`rotation`), scale (`zoom`), smooth deformation (`elastic`), a part of it (`crop`). `off` "
            "leaves tiles as they are; the frozen layers are then computed once for each tile.",
            "split": ",",
        },
    )
    jitter: float = field(
        default=0.1,
        metadata={
            "help": "augment=colour: brightness, contrast and saturation vary by up to this fraction."
        },
    )
    rotation_degrees: float = field(
        default=180.0,
        metadata={"help": "augment=rotation: largest angle to either side."},
    )
    zoom_by: float = field(
        default=0.2,
        metadata={"help": "augment=zoom: the scale varies between 1 / (1 + this) and 1 + this."},
    )
    elastic_by: float = field(
        default=0.02,
        metadata={
            "help": "augment=elastic: standard deviation of the displacement, as a fraction of the tile's "
            "side."
        },
    )
    crop_to: float = field(
        default=0.8,
        metadata={
            "help": "augment=crop: side of the smallest part, as a fraction of the tile's; it is enlarged to "
            "the whole tile."
        },
    )
    grad_checkpointing: bool = field(
        default=False,
        metadata={
            "help": "Gradient checkpointing: recompute activations instead of storing them. Slower, but "
            "needs a fraction of the memory."
        },
    )
    early_stopping: Literal["auto", "never", "always"] = field(
        default="auto",
        metadata={
            "help": "Keep the epoch that is best on an inner part of the training cases; `auto` does so from "
            "60 cases on."
        },
    )
    patience: int = field(
        default=0,
        metadata={
            "help": "Epochs without a lower loss on the inner part before training stops; 0 trains all "
            "epochs."
        },
    )
    tile_cache: float = field(
        default=0.0,
        metadata={
            "help": "Gigabytes of tiles cached in the output folder during training; all others are read "
            "from the slides."
        },
    )
    frozen_cache: float = field(
        default=4.0,
        metadata={
            "help": "With augment=off: gigabytes of disk, in the output folder, to cache the outputs of the "
            "frozen layers during training; those of further tiles are computed again in every epoch."
        },
    )

    def __post_init__(self) -> None:
        check_choices(self, FitError)
        for names, (fits, what) in _RULES.items():
            for name in names.split():
                value = getattr(self, name)
                if value is not None and not fits(value):
                    raise FitError(f"{name} must be {what}; got {value!r}. Give such a value.")
        self._check_augmentation()
        self._check_effect()

    def _check_augmentation(self) -> None:
        """Refuse ``off`` beside a part, a part named twice, and none at all."""
        if not self.augment:
            raise FitError("augment is empty. Set it to off to leave tiles as they are.")
        if "off" in self.augment and len(self.augment) > 1:
            others = ", ".join(name for name in self.augment if name != "off")
            raise FitError(
                f"augment is off and {others} at once. Remove off, or set augment to off alone."
            )
        if problem := twice_problem("part of augment", self.augment):
            raise FitError(problem)

    def _check_effect(self) -> None:
        """Refuse a setting that has a value of its own and would change nothing."""
        for name, (owner, part) in _BELONGS.items():
            value = getattr(self, name)
            default = type(self).__dataclass_fields__[name].default
            chosen = self.augment if owner == "augment" else (self.optimizer,)
            if value not in (default, 0) and part not in chosen:
                raise FitError(
                    f"{name}={value:g} belongs to {owner}={part} and would change nothing with "
                    f"{owner}={','.join(chosen)}. Leave out {name}, or set {owner} to {part}."
                )
        if self.patience and self.early_stopping == "never":
            raise FitError(
                f"patience {self.patience} needs an inner part of the training cases to watch, and "
                "early_stopping is never. Set early_stopping to always, or leave out patience."
            )

    def sets_aside(self, labels: Sequence[str]) -> bool:
        """Whether training cases with these labels give some up, to choose the epoch and the end by.

        Raises:
            FitError: ``patience`` has no cases to watch.
        """
        if sets_cases_aside(self.early_stopping, labels):
            return True
        if self.patience:
            raise FitError(
                f"patience {self.patience} needs an inner part of the training cases to watch, and "
                f"{len(labels)} cases are too few to set some aside automatically (from {FEW_CASES}). Set "
                "early_stopping to always, or leave out patience."
            )
        return False

    @property
    def decay(self) -> float:
        """The weight decay itself: that of the optimizer where none is set."""
        return DECAYS[self.optimizer] if self.weight_decay is None else self.weight_decay

    @property
    def augments(self) -> bool:
        """Whether a tile varies from one draw to the next."""
        without = {"off"} if self.jitter else {"off", "colour"}
        return bool(set(self.augment) - without)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "last_blocks epochs tiles_per_slide batch_tiles": (lambda n: n >= 1, "at least 1"),
    "hidden": (lambda widths: all(width >= 1 for width in widths), "widths of at least 1"),
    "learning_rate layer_decay": (lambda x: 0 < x <= 1, "in (0, 1]"),
    "patience warmup weight_decay tile_cache frozen_cache": (
        lambda x: 0 <= x < math.inf,
        "0 or more",
    ),
    "dropout jitter momentum": (lambda x: 0 <= x < 1, "a fraction in [0, 1)"),
    "rotation_degrees": (lambda x: 0 < x <= 180, "an angle in (0, 180]"),
    "zoom_by": (lambda x: 0 < x <= 1, "in (0, 1]"),
    "elastic_by": (lambda x: 0 < x <= 0.2, "in (0, 0.2]"),
    "crop_to": (lambda x: 0 < x < 1, "in (0, 1)"),
}
# Settings of one choice only: with another they would change nothing.
_BELONGS = {
    "momentum": ("optimizer", "sgdm"),
    "jitter": ("augment", "colour"),
    "rotation_degrees": ("augment", "rotation"),
    "zoom_by": ("augment", "zoom"),
    "elastic_by": ("augment", "elastic"),
    "crop_to": ("augment", "crop"),
}
