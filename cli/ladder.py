"""`mil ladder`: the same cases at several scales."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.learn import CohortOptions, check_model_names, task_of
from cli.options import UsageError, part_of, verb, writable, wrong_use
from features.errors import InputError
from mil.heads.registry import model_names
from mil.settings import FitSettings, SplitSettings
from mil.tasks.names import TaskColumns

if TYPE_CHECKING:
    from features.recipe import Recipe


PASSED_ON = (
    "slides", "annotations", "slide_mpp", "out", "mpp", "tile", "case_from", "label_is",
    "known_at_diagnosis", "allow_missing", "allow_duplicates", "overwrite",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LadderRecipe:
    """How tiles are cut and embedded at every scale."""

    backbone: str = field(
        default="efficientnet-lite0",
        metadata={
            "help": "A backbone of `mil backbones`, used at every scale.",
            "panel": "Backbone",
        },
    )
    weights: str = field(
        default="pretrained",
        metadata={
            "help": "Weights of the backbone: `pretrained`, `random`, or a local file.",
            "panel": "Backbone",
        },
    )
    min_coverage: float = field(
        default=0.6,
        metadata={"help": "Smallest fraction of a tile inside the region.", "panel": "Tiles"},
    )

    def recipe(self) -> "Recipe":
        """As the extraction takes it."""
        from features.recipe import Recipe

        return Recipe(**asdict(self))


@dataclass(frozen=True, kw_only=True)
class LadderOptions(CohortOptions, TaskColumns, FitSettings, SplitSettings, LadderRecipe):
    """Settings of `mil ladder`."""

    slides: Path = field(metadata={"help": "Folder with the table's slides.", "panel": "Slides"})
    annotations: Path | None = field(
        default=None,
        metadata={"help": "Folder with the slides' annotations.", "panel": "Slides"},
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel, if the slides do not say.",
            "panel": "Slides",
        },
    )
    mpp: tuple[float, ...] = field(
        default=(0.25, 0.5, 0.625, 1.0, 2.5),
        metadata={
            "help": "Scales in micrometres per pixel, separated by commas: 0.25 is 40x, 0.5 20x, 0.625 16x, "
            "1 10x, 2.5 4x. The others are compared with the first.",
            "panel": "Tiles",
            "split": ",",
        },
    )
    tile: tuple[int, ...] = field(
        default=(),
        metadata={
            "help": "Side of a tile in pixels: one for all scales, or one for each, separated by commas. If "
            "not given: 224, or less at a scale where a slide would have fewer than four tiles.",
            "panel": "Tiles",
            "split": ",",
        },
    )
    model: str = field(
        default="abmil",
        metadata={
            "help": "The model that is cross-validated at every scale.",
            "complete": model_names,
            "panel": "Models",
        },
    )

    def __post_init__(self) -> None:
        FitSettings.__post_init__(self)
        SplitSettings.__post_init__(self)
        if len(set(self.mpp)) < max(len(self.mpp), 2):
            raise UsageError(f"--mpp names two scales or more, each once; got {self.mpp}.")
        if len(self.tile) not in (0, 1, len(self.mpp)):
            raise UsageError(
                f"--tile is one number, or one for each of {len(self.mpp)} scales; got {len(self.tile)}."
            )


@verb(
    app,
    LadderOptions,
    examples=[
        "mil ladder cohort.csv --slides slides --annotations annotations --mpp 0.25,0.5 "
        "--backbone test_resnet --weights random --model pooled-logistic --out ladder"
    ],
)
def ladder(options: LadderOptions) -> None:
    """Extract a cohort at several scales and cross-validate one model at each, in the same folds.

    The table says for each scale how many tiles and seconds a slide takes, and how well the model does; the
    first is the baseline, which the others are tested against on the same cases. What an interrupted call
    has finished is used again.
    """
    from cli.console import Bars, notify, say, show_tables
    from mil.api.studies import compare_scales

    writable(options.out)
    task = task_of(options)
    check_model_names((options.model,), task)
    fit, split = part_of(options, FitSettings), part_of(options, SplitSettings)
    recipe = part_of(options, LadderRecipe).recipe()
    with wrong_use(InputError):
        scales = compare_scales(
            options.cohort, options.model, recipe=recipe, task=task, settings=fit, split=split,
            progress=Bars(), notify=notify, **{name: getattr(options, name) for name in PASSED_ON},
        )  # fmt: skip
    show_tables([scales.table()])
    say(f"Figure: {options.out / 'ladder.png'}. Tables: {options.out / 'ladder.csv'}, ladder.json")
