"""`mil crossval` and `mil train`: fit models on bags and estimate how good they are."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cli.app import app
from cli.options import UsageError, check_columns, part_of, plain, verb, writable, wrong_use
from cli.unloaded import heads_by_use
from features.errors import InputError
from mil.data.reading import TableReading
from mil.errors import FitError
from mil.heads.registry import baseline_names, head_names, model_names
from mil.settings import SEEDS, FitSettings, SplitSettings
from mil.tasks.names import TaskColumns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mil.runs.cross_validation import CrossValidation
    from mil.runs.record import NewRun
    from mil.segmentation.cases import SegmentConfig
    from mil.study import Study
    from mil.tasks.task import Task


def installed_models() -> str:
    """The heads of other installed packages, and those of them that cannot be used."""
    usable, broken = heads_by_use()
    names = ", ".join(f"{head.name} ({head.package})" for head in usable)
    return (f" Installed: {names}." if names else "") + "".join(
        f" Warning: {head.name} ({head.package}) cannot be used: {head.problem}." for head in broken
    )


@dataclass(frozen=True, kw_only=True)
class CohortOptions(TableReading):
    """The table, the run folder, and what is accepted."""

    cohort: Path = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case, slide and label; rows whose column split says test are not used.",
        }
    )
    out: Path = field(metadata={"help": "The run folder to write."})
    allow_missing: bool = field(
        default=False, metadata={"help": "Continue without slides that have no bag or no outcome."}
    )
    allow_duplicates: bool = field(
        default=False,
        metadata={
            "help": "Use slides whose bags are identical; only where they are different specimens with the "
            "same features."
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished run.", "once": True}
    )


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(CohortOptions, TaskColumns, FitSettings, SplitSettings):
    """Settings of `mil crossval`."""

    store: Path | None = field(
        default=None,
        metadata={
            "argument": "STORE",
            "help": "The bag store of `mil extract`; not with --finetune per-fold.",
        },
    )
    models: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": f"Heads ({', '.join(head_names())}) and baselines ({', '.join(baseline_names())}), "
            "separated by commas. A comparison that suits the task if not given.",
            "more_help": installed_models,
            "complete": model_names,
            "panel": "Models",
            "split": ",",
        },
    )
    combine: str = field(
        default="",
        metadata={
            "help": "Combine the score of this model with the clinical columns, inside each fold. Adds "
            "models clinical-selected (p < .10 alone, < .05 together) and MODEL+clinical. For two classes or "
            "survival.",
            "complete": model_names,
            "panel": "Models",
        },
    )
    finetune: Literal["off", "per-fold"] = field(
        default="off",
        metadata={
            "help": "`per-fold` fine-tunes a backbone on each fold's training cases and extracts all slides "
            "with it.",
            "panel": "Fine-tuning in each fold",
        },
    )
    finetune_config: Path | None = field(
        default=None,
        metadata={
            "help": "With --finetune per-fold: a TOML file with the options of `mil finetune`, or the "
            "run.json of such a run.",
            "panel": "Fine-tuning in each fold",
        },
    )
    segment: Literal["off", "per-fold"] = field(
        default="off",
        metadata={
            "help": "`per-fold` trains a segmenter on each fold's training cases; it selects the tiles of "
            "all slides from a STORE of tissue, so that nothing is embedded again.",
            "panel": "Segmentation in each fold",
        },
    )
    segment_config: Path | None = field(
        default=None,
        metadata={
            "help": "With --segment per-fold: the run.json of `mil segment train`, or a TOML file with its "
            "options and arguments. Its slides of cases outside the cohort train in every fold.",
            "panel": "Segmentation in each fold",
        },
    )
    segment_train: Literal["annotation", "unseen"] = field(
        default="annotation",
        metadata={
            "help": "With --segment per-fold: training slides are cut by their `annotation`, or by the mask "
            "of a segmenter that has not seen them (`unseen`), as test slides are.",
            "panel": "Segmentation in each fold",
        },
    )
    engine: Literal["loky", "ray"] = field(
        default="loky",
        metadata={
            "help": "Run fits in processes of this machine (`loky`) or of a Ray cluster (`ray`).",
            "panel": "Computing",
            "once": True,
        },
    )
    workers: int = field(
        default=0,
        metadata={
            "help": "Number of fits at a time, one thread each; 0 is one per core where that saves time. The "
            "results do not depend on it.",
            "panel": "Computing",
            "once": True,
        },
    )

    def __post_init__(self) -> None:
        if not all(self.models):
            raise UsageError(
                "--models has an empty name. Name them with commas between, as mean,abmil."
            )
        if self.workers < 0:
            raise UsageError(f"--workers must be 0 or more; got {self.workers}. Use 0.")
        check_columns(self)
        FitSettings.__post_init__(self)
        SplitSettings.__post_init__(self)
        self._check_segmentation()
        per_fold = self.finetune == "per-fold"
        if per_fold != (self.finetune_config is not None):
            raise UsageError("--finetune per-fold and --finetune-config FILE go together.")
        if per_fold == (self.store is not None):
            raise UsageError(
                "--finetune per-fold makes its own bags: leave out STORE."
                if per_fold
                else "STORE is missing: the bag store of `mil extract`."
            )

    def _check_segmentation(self) -> None:
        """Refuse options that do not go with segmentation in each fold.

        Raises:
            UsageError: naming them.
        """
        segments = self.segment == "per-fold"
        if segments != (self.segment_config is not None):
            raise UsageError("--segment per-fold and --segment-config FILE go together.")
        if segments and self.finetune == "per-fold":
            raise UsageError("Each fold segments or fine-tunes. Leave out --segment or --finetune.")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CohortOptions, TaskColumns, FitSettings):
    """Settings of `mil train`."""

    store: Path = field(metadata={"argument": "STORE", "help": "The bag store of `mil extract`."})
    model: str = field(
        default="abmil",
        metadata={
            "help": "The head or baseline to fit; `mil crossval --help` lists them.",
            "complete": model_names,
            "panel": "Models",
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of training.", "panel": "Training"})

    def __post_init__(self) -> None:
        check_columns(self)
        FitSettings.__post_init__(self)
        if not 0 <= self.seed < SEEDS:
            raise FitError(f"seed is from 0 to {SEEDS - 1}; got {self.seed}. Use 0.")


@verb(
    app,
    CrossvalOptions,
    examples=[
        "mil crossval cohort.csv store --models majority,tile-vote,mean,abmil --folds 5 --out run",
        "mil crossval --config run/run.json --models mean --out again",
        "mil crossval cohort.csv --finetune per-fold --finetune-config tuned/run.json --models "
        "tile-vote --seeds 1 --folds 2 --out run-tuned",
        "mil crossval split.csv tissue-store --segment per-fold --segment-config segmenter/run.json --models "
        "majority,mean --seeds 1 --folds 2 --out run-segmented",
        "mil crossval cohort.csv store --task survival --time-unit months --models majority,abmil --folds 3 "
        "--out run-survival",
    ],
)
def crossval(options: CrossvalOptions) -> None:
    """Cross-validate models by case: every case is predicted by models that were not trained on it."""
    run_crossval(options)


def run_crossval(options: CrossvalOptions) -> "CrossValidation":
    """Write the run folder and print the comparison of the models."""
    from cli.console import Bars, notify
    from cli.show import show_cross_validation
    from mil.runs.cross_validation import Computing, Plan

    writable(options.out)
    task = task_of(options)
    plan = Plan(
        models=options.models or task.default_models,
        fit=part_of(options, FitSettings),
        split=part_of(options, SplitSettings),
        combine=options.combine,
    )
    check_model_names(plan.models, task)
    check_model_names([plan.combine] if plan.combine else [], task)
    tuning, segmenting = options.finetune_config, segment_config(options)
    folder = _folder(options, models=list(plan.models))
    computing = Computing(options.engine, options.workers, Bars(), notify)
    with wrong_use(InputError):
        study = study_of(options, options.store, task, tuning=tuning, segmenting=segmenting)
        result = study.cross_validate(plan, folder, computing)
    show_cross_validation(result)
    return result


@verb(app, TrainOptions, examples=["mil train cohort.csv store --model abmil --out trained"])
def train(options: TrainOptions) -> None:
    """Fit one model on all cases, to predict new slides with.

    No case is left to evaluate it on. `mil crossval` estimates how well such a model does on new cases.
    """
    from cli.console import notify, say

    writable(options.out)
    task = task_of(options)
    check_model_names([options.model], task)
    fit = part_of(options, FitSettings)
    run, fitted = study_of(options, options.store, task).train(
        options.model, _folder(options), fit=fit, seed=options.seed, notify=notify
    )
    say(f"{fitted.model} fitted on {len(run.labels)} cases: {run.model_path(fitted.model)}")


def task_of(options: CohortOptions) -> "Task":
    """What is learnt."""
    from mil.tasks.registry import task_from

    return task_from(plain(options))


def check_model_names(models: "Sequence[str]", task: "Task") -> None:
    """Refuse models that are unknown or cannot learn the outcome, before the table is read.

    Raises:
        UsageError: naming the models.
    """
    from mil.heads.registry import check_names

    with wrong_use():
        check_names(models)
        task.check_models(models)


def segment_config(options: CrossvalOptions) -> "SegmentConfig | None":
    """How each fold segments; None where it does not.

    Raises:
        UsageError: the file lacks a setting, or one is wrong.
    """
    if options.segment_config is None:
        return None
    from cli.segment import fold_config

    return fold_config(options.segment_config, options.out, options.segment_train)


def study_of(
    options: CohortOptions,
    store: Path | None,
    task: "Task",
    *,
    tuning: Path | None = None,
    segmenting: "SegmentConfig | None" = None,
) -> "Study":
    """The table with its bags, or the settings by which each fold makes them."""
    from cli.finetune import fold_config
    from mil.study import Study

    config = None
    if tuning is not None:
        config = fold_config(tuning, options.cohort, options.out, task.name)
    return Study(
        table=options.cohort,
        task=task,
        store=store,
        tuning=config,
        segmenting=segmenting,
        reading=part_of(options, TableReading),
        allow_missing=options.allow_missing,
        allow_duplicates=options.allow_duplicates,
    )


def _folder(options: CohortOptions, **resolved: Any) -> "NewRun":
    """The run folder, with the settings that repeat the run."""
    from mil.runs.record import NewRun

    return NewRun(path=options.out, settings=plain(options) | resolved, overwrite=options.overwrite)
