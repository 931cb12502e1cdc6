"""The settings of fine-tuning. No torch here, so the command line starts at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from features.choices import check_choices
from mil.errors import FitError


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
        metadata={"help": "Epochs; each draws tiles from all training slides anew."},
    )
    tiles_per_slide: int = field(
        default=64, metadata={"help": "Tiles drawn from each slide in each epoch."}
    )
    batch_tiles: int = field(
        default=32, metadata={"help": "Tiles per training step, over all processes."}
    )
    learning_rate: float = field(
        default=3e-4,
        metadata={
            "help": "Learning rate of the AdamW optimizer for the classifier, with cosine decay."
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
    weight_decay: float = field(
        default=0.05,
        metadata={"help": "Weight decay of the AdamW optimizer; norms and biases have none."},
    )
    jitter: float = field(
        default=0.1,
        metadata={
            "help": "Brightness, contrast and saturation of each tile vary at random by up to this fraction; "
            "tiles are always rotated and mirrored at random."
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
    tile_cache: float = field(
        default=0.0,
        metadata={
            "help": "Gigabytes of tiles cached in the output folder during training; all others are read "
            "from the slides."
        },
    )

    def __post_init__(self) -> None:
        check_choices(self, FitError)
        for names, (fits, what) in _RULES.items():
            for name in names.split():
                value = getattr(self, name)
                if not fits(value):
                    raise FitError(f"{name} is {what}; got {value!r}. Give such a value.")


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "last_blocks epochs tiles_per_slide batch_tiles": (lambda n: n >= 1, "at least 1"),
    "hidden": (lambda widths: all(width >= 1 for width in widths), "widths of at least 1"),
    "learning_rate layer_decay": (lambda x: 0 < x <= 1, "in (0, 1]"),
    "warmup weight_decay tile_cache": (lambda x: 0 <= x < math.inf, "0 or more"),
    "dropout jitter": (lambda x: 0 <= x < 1, "a fraction in [0, 1)"),
}
