"""`mil crossval`, `mil train`: from bags to fits, and what they are worth."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.cohort import KeptIn, assembled, begun, clinical_facts, combination, facts
from cli.options import part_of, plain, verb, writable, wrong_use
from mil.errors import CohortError, FitError
from mil.heads.registry import baseline_names, head_names, installed_heads
from mil.settings import (
    DEFAULT_MODELS,
    SEEDS,
    FitSettings,
    SplitSettings,
)

if TYPE_CHECKING:
    from mil.evaluation.classification.evaluate import Evaluation
    from mil.evaluation.predictions import Predictions
    from mil.runs.run import Run


def installed_models() -> str:
    """The heads of other installed packages, and those of them that cannot be used."""
    heads = installed_heads()
    usable = ", ".join(f"{head.name} ({head.package})" for head in heads if not head.problem)
    broken = [f"{head.name} ({head.package}): {head.problem}" for head in heads if head.problem]
    return (f" Installed: {usable}." if usable else "") + "".join(
        f" Warning: cannot be used: {head}." for head in broken
    )


@dataclass(frozen=True, kw_only=True)
class _CohortOptions:
    """Where cases and bags come from."""

    cohort: Path = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case, slide and label; rows whose column split says test are left alone.",
        }
    )
    out: Path = field(metadata={"help": "The run folder to write."})
    allow_missing: bool = field(
        default=False, metadata={"help": "Go on without slides that lack a bag or a label."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished run.", "once": True}
    )
    time: str = field(
        default="time",
        metadata={"help": "With --task survival: the column of times until the event."},
    )
    event: str = field(
        default="event",
        metadata={"help": "With --task survival: the column that is 1 where it was seen, else 0."},
    )
    time_unit: str = field(
        default="days", metadata={"help": "What the times count; stands in tables and figures."}
    )


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(_CohortOptions, FitSettings, SplitSettings):
    """Settings of `mil crossval`."""

    store: Path | None = field(
        default=None,
        metadata={
            "argument": "STORE",
            "help": "The bag store of `mil extract`; none with --finetune per-fold.",
        },
    )
    models: tuple[str, ...] = field(
        default=DEFAULT_MODELS,
        metadata={
            "help": f"Heads ({', '.join(head_names())}) and baselines "
            f"({', '.join(baseline_names())}), with commas between.",
            "more_help": installed_models,
            "split": ",",
        },
    )

    combine: str = field(
        default="",
        metadata={
            "help": "A model whose score is put beside the clinical columns, both inside each fold: adds "
            "clinical-selected (p < .10 alone, < .05 together) and MODEL+clinical. Two classes, or survival."
        },
    )
    finetune: str = field(
        default="off",
        metadata={
            "help": "`per-fold` trains a backbone on each fold's training cases and extracts all slides by "
            "it."
        },
    )
    finetune_config: Path | None = field(
        default=None,
        metadata={
            "help": "With --finetune per-fold: a TOML file with the options of `mil finetune`, or the "
            "run.json of such a run."
        },
    )
    engine: str = field(
        default="loky",
        metadata={
            "help": "Where fits run: `loky`, processes of this machine, or `ray`, those of a cluster.",
            "once": True,
        },
    )
    workers: int = field(
        default=0,
        metadata={
            "help": "Fits at once, one thread each; 0 is one per core where that is worth their start. "
            "The results are the same for any number.",
            "once": True,
        },
    )

    def __post_init__(self) -> None:
        if self.engine not in ("loky", "ray"):
            raise FitError(f"engine is loky or ray; got {self.engine!r}. Use loky.")
        if not all(self.models) or not self.models:
            raise FitError(
                "models has an empty name. Name them with commas between, as mean,abmil."
            )
        if self.workers < 0:
            raise FitError(f"workers is 0 or more; got {self.workers}. Leave it out.")
        FitSettings.__post_init__(self)
        SplitSettings.__post_init__(self)
        if self.finetune not in ("off", "per-fold"):
            raise CohortError(f"finetune is off or per-fold; got {self.finetune!r}. Use per-fold.")
        per_fold = self.finetune == "per-fold"
        if per_fold and self.combine:
            raise FitError("--combine fits within each fold's training part. Leave --finetune out.")
        if per_fold != (self.finetune_config is not None):
            raise CohortError("--finetune per-fold and --finetune-config FILE go together.")
        if per_fold == (self.store is not None):
            raise CohortError(
                "--finetune per-fold makes its own bags: leave out STORE."
                if per_fold
                else "STORE is missing: the bag store of `mil extract`."
            )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(_CohortOptions, FitSettings):
    """Settings of `mil train`."""

    store: Path = field(metadata={"argument": "STORE", "help": "The bag store of `mil extract`."})
    model: str = field(
        default="abmil",
        metadata={"help": "The head or baseline to fit; `mil crossval --help` lists them."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of weights, draws and order."})

    def __post_init__(self) -> None:
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
    """Cross-validate models on whole cases: every case is predicted by models that never saw it."""
    if options.task == "survival":
        from cli.survival import run_survival

        run_survival(options)
    else:
        run_crossval(options)


def run_crossval(options: CrossvalOptions) -> "Evaluation":
    """Write the run folder, print the comparison."""
    from cli.console import say, show_tables
    from mil.evaluation.classification.evaluate import evaluate
    from mil.evaluation.comparison import compare_models
    from mil.evaluation.predictions import write_predictions
    from mil.heads.registry import check_chunks, check_names
    from mil.runs.files import write_json
    from mil.runs.record import finish_run

    with wrong_use():
        check_names(options.models)
        check_names([options.combine] if options.combine else [])
        check_chunks([*options.models, *filter(None, [options.combine])], options.chunk_tiles)
    writable(options.out)
    if options.finetune == "per-fold":
        from cli.finetune import predicted_per_fold

        run, predictions = predicted_per_fold(options)
    else:
        run, predictions = _predicted(options)
    write_predictions(options.out / "predictions.csv", predictions)
    evaluation = evaluate(predictions)
    write_json(options.out / "metrics.json", evaluation.to_json())
    write_json(options.out / "comparison.json", compare_models(predictions).to_json())
    finish_run(run)
    show_tables(evaluation.tables()[:1])
    say(f"Run folder: {options.out}. Next: mil report {options.out}")
    return evaluation


def _predicted(options: CrossvalOptions) -> "tuple[Run, Predictions]":
    """Cross-validate on the bags of a store."""
    from cli.console import Bars
    from mil.evaluation.predictions import concat
    from mil.learning.combined import combine
    from mil.learning.crossval import cross_validate

    cohort, folds, run = begun(options, lambda cohort: [case.label for case in cohort.cases])
    predictions = cross_validate(
        cohort,
        folds,
        options.models,
        part_of(options, FitSettings),
        seed=options.seed,
        keep=KeptIn(run),
        engine=options.engine,
        workers=options.workers,
        progress=Bars(),
    )
    if options.combine:
        combined = combine(
            combination(options, cohort, run),
            folds,
            engine=options.engine,
            workers=options.workers,
            progress=Bars(),
        )
        predictions = concat([predictions, combined])
    return run, predictions


@verb(app, TrainOptions, examples=["mil train cohort.csv store --model abmil --out trained"])
def train(options: TrainOptions) -> None:
    """Fit one model on all cases, to predict new slides with.

    It is not judged here: no case is left to judge it by. `mil crossval` says what to expect of it.
    """
    from cli.console import say
    from mil.heads.registry import check_chunks, check_names, check_outcomes
    from mil.learning.crossval import fit_cases
    from mil.learning.fitted import save_fitted
    from mil.runs.record import finish_run, start_run

    survival = options.task == "survival"
    with wrong_use():
        check_names([options.model])
        if survival:
            check_outcomes([options.model])
        check_chunks([options.model], options.chunk_tiles)
    writable(options.out)
    cohort = assembled(options, options.store)
    told = facts(cohort) | clinical_facts(cohort, [options.model], options.clinical)
    run = start_run(options.out, "train", plain(options), told, overwrite=options.overwrite)
    settings = part_of(options, FitSettings)
    fitted = fit_cases(options.model, cohort.cases, cohort.classes, settings, options.seed)
    path = run.model_path(options.model)
    save_fitted(path, fitted)
    finish_run(run)
    say(f"{options.model} fitted on {len(cohort.cases)} cases: {path}")
