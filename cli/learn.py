"""`mil crossval` and `mil train`: fit models on bags and estimate how good they are."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cli.app import app
from cli.options import UsageError, check_columns, part_of, plain, verb, writable, wrong_use
from features.errors import InputError
from mil.data.reading import TableReading
from mil.errors import FitError
from mil.heads.registry import baseline_names, head_names, installed_heads, model_names
from mil.settings import SEEDS, FitSettings, SplitSettings
from mil.tasks.names import TaskColumns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mil.data.cohort import Cohort
    from mil.runs.cross_validation import CrossValidation
    from mil.tasks.task import Task


def installed_models() -> str:
    """The heads of other installed packages, and those of them that cannot be used."""
    heads = installed_heads()
    usable = ", ".join(f"{head.name} ({head.package})" for head in heads if not head.problem)
    broken = [f"{head.name} ({head.package}): {head.problem}" for head in heads if head.problem]
    return (f" Installed: {usable}." if usable else "") + "".join(
        f" Warning: cannot be used: {head}." for head in broken
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
            raise UsageError(f"--workers is 0 or more; got {self.workers}. Leave it out.")
        check_columns(self)
        FitSettings.__post_init__(self)
        SplitSettings.__post_init__(self)
        per_fold = self.finetune == "per-fold"
        if per_fold and self.allow_missing:
            raise UsageError(
                "Fine-tuning per fold needs every row of the table: leave out --allow-missing, and take the "
                "rows that cannot be used out of the table."
            )
        if per_fold and self.combine:
            raise UsageError(
                "--combine does not work with --finetune per-fold. Leave one of them out."
            )
        if per_fold != (self.finetune_config is not None):
            raise UsageError("--finetune per-fold and --finetune-config FILE go together.")
        if per_fold == (self.store is not None):
            raise UsageError(
                "--finetune per-fold makes its own bags: leave out STORE."
                if per_fold
                else "STORE is missing: the bag store of `mil extract`."
            )


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
        "mil crossval cohort.csv store --task survival --time-unit months --models majority,abmil --folds 3 "
        "--out run-survival",
    ],
)
def crossval(options: CrossvalOptions) -> None:
    """Cross-validate models by case: every case is predicted by models that were not trained on it."""
    run_crossval(options)


def run_crossval(options: CrossvalOptions) -> "CrossValidation":
    """Write the run folder and print the comparison of the models."""
    from cli.show import show_cross_validation
    from mil.tasks.registry import task_from

    writable(options.out)
    settings = plain(options)
    task = task_from(settings)
    models = options.models or task.default_models
    check_model_names(models, task)
    check_model_names([options.combine] if options.combine else [], task)
    how = _shared_settings(options) | {"settings": settings | {"models": list(models)}}
    if options.finetune_config:
        result = _cross_validate_per_fold(
            options.cohort, models, options.out, options.finetune_config, task, how
        )
    else:
        how |= {name: getattr(options, name) for name in ("engine", "workers")}
        cohort = load_learners(
            options.cohort,
            options.store,
            task,
            part_of(options, TableReading),
            allow_missing=options.allow_missing,
            allow_duplicates=options.allow_duplicates,
        )
        result = _cross_validate(cohort, models, options.out, options.combine, how)
    show_cross_validation(result)
    return result


def _shared_settings(options: CrossvalOptions) -> dict[str, Any]:
    """What both kinds of cross-validation take."""
    return {
        "fit": part_of(options, FitSettings),
        "split": part_of(options, SplitSettings),
        "overwrite": options.overwrite,
    }


def _cross_validate(
    cohort: "Cohort", models: "Sequence[str]", out: Path, combine: str, how: dict[str, Any]
) -> "CrossValidation":
    """Cross-validate on the bags of a store."""
    from cli.console import Bars, notify
    from mil.runs.cross_validation import run_cross_validation

    return run_cross_validation(
        cohort, models, out, combine_model=combine, progress=Bars(), notify=notify, **how
    )


def _cross_validate_per_fold(
    table: Path, models: "Sequence[str]", out: Path, tuning: Path, task: "Task", how: dict[str, Any]
) -> "CrossValidation":
    """Cross-validate with a backbone fine-tuned in each fold, as the file ``tuning`` says."""
    from cli.console import Bars, notify
    from cli.finetune import fold_config
    from mil.finetune.cross_validation import run_cross_validation_per_fold

    reading = TableReading.from_settings(how["settings"])
    config = fold_config(tuning, table, out, task.name, reading)
    with wrong_use(InputError):
        return run_cross_validation_per_fold(
            table, models, out, config=config, task=task, progress=Bars(), notify=notify, **how
        )


@verb(app, TrainOptions, examples=["mil train cohort.csv store --model abmil --out trained"])
def train(options: TrainOptions) -> None:
    """Fit one model on all cases, to predict new slides with.

    No case is left to evaluate it on. `mil crossval` estimates how well such a model does on new cases.
    """
    from cli.console import notify, say
    from mil.runs.cross_validation import train_on_all
    from mil.tasks.registry import task_from

    writable(options.out)
    settings = plain(options)
    task = task_from(settings)
    check_model_names([options.model], task)
    allowed = {name: getattr(options, name) for name in ("allow_missing", "allow_duplicates")}
    reading = part_of(options, TableReading)
    cohort = load_learners(options.cohort, options.store, task, reading, **allowed)
    run, fitted = train_on_all(
        cohort,
        options.model,
        options.out,
        fit=part_of(options, FitSettings),
        seed=options.seed,
        overwrite=options.overwrite,
        settings=settings,
        notify=notify,
    )
    say(f"{fitted.model} fitted on {len(cohort.cases)} cases: {run.model_path(fitted.model)}")


def check_model_names(models: "Sequence[str]", task: "Task") -> None:
    """Refuse models that are unknown or cannot learn the outcome, before the table is read.

    Raises:
        UsageError: naming the models.
    """
    from mil.heads.registry import check_names

    with wrong_use():
        check_names(models)
        task.check_models(models)


def load_learners(
    table: Path,
    store: Path | None,
    task: "Task",
    reading: TableReading,
    *,
    allow_missing: bool,
    allow_duplicates: bool,
) -> "Cohort":
    """The cohort of a verb that learns."""
    from cli.console import notify
    from mil.data.cohort import load_cohort

    assert store
    return load_cohort(
        table,
        store,
        task=task,
        allow_missing=allow_missing,
        allow_duplicates=allow_duplicates,
        case_from=reading.case_from,
        label_is=reading.label_is,
        notify=notify,
    )
