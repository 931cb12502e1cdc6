"""`mil crossval`, `mil train`, `mil predict`: from bags to predictions."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import part_of, plain, verb, writable, wrong_use
from mil.errors import CohortError, FitError
from mil.settings import BASELINE_NAMES, DEFAULT_MODELS, HEAD_NAMES, FitSettings, SplitSettings

if TYPE_CHECKING:
    from features.bags import Bag
    from mil.cohort import Cohort, Row
    from mil.combined import Combination
    from mil.evaluation.evaluate import Evaluation
    from mil.evaluation.predictions import Predictions
    from mil.fitted import Fitted
    from mil.runs import Run
    from mil.splits import Fold


@dataclass(frozen=True, kw_only=True)
class _CohortOptions:
    """Where cases and bags come from."""

    cohort: Path = field(
        metadata={"argument": "COHORT.csv", "help": "Table with case, slide and label."}
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
            "help": f"Heads ({', '.join(HEAD_NAMES)}) and baselines "
            f"({', '.join(BASELINE_NAMES)}), with commas between.",
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


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Settings of `mil predict`."""

    run: Path = field(metadata={"argument": "RUN", "help": "The run folder of `mil train`."})
    inputs: tuple[Path, ...] = field(
        metadata={"argument": "BAG-or-SLIDE...", "help": "Bags (.h5) or slides."}
    )
    out: Path | None = field(
        default=None, metadata={"help": "The CSV to write; RUN/predict.csv if not given."}
    )
    annotations: Path | None = field(
        default=None, metadata={"help": "Folder with the slides' annotations."}
    )
    weights: str | None = field(
        default=None, metadata={"help": "The backbone's weights file, if the run used one."}
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={"help": "Micrometres per level-0 pixel, where the slides do not say."},
    )
    cohort: Path | None = field(
        default=None,
        metadata={
            "help": "Table that says which case each slide belongs to; model clinical reads its columns."
        },
    )


@verb(
    app,
    CrossvalOptions,
    examples=[
        "mil crossval cohort.csv store --models majority,tile-vote,mean,abmil --folds 5 --out run",
        "mil crossval --config run/run.json --out again",
        "mil crossval cohort.csv --finetune per-fold --finetune-config tuned/run.json --models "
        "tile-vote --folds 2 --out run-tuned",
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
    from cli.console import say
    from mil.evaluation.comparison import compare_models
    from mil.evaluation.evaluate import evaluate
    from mil.evaluation.predictions import write_predictions
    from mil.heads.registry import check_chunks, check_names
    from mil.runs import finish_run, write_json

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
    show_evaluation(evaluation)
    say(f"Run folder: {options.out}. Next: mil report {options.out}")
    return evaluation


def _predicted(options: CrossvalOptions) -> "tuple[Run, Predictions]":
    """Cross-validate on the bags of a store."""
    from cli.console import Bars
    from mil.combined import combine
    from mil.crossval import cross_validate
    from mil.evaluation.predictions import concat
    from mil.runs import start_run
    from mil.splits import split_cases, write_folds

    cohort = assembled(options, options.store)
    folds = split_cases(
        [case.name for case in cohort.cases],
        [case.label for case in cohort.cases],
        [case.site for case in cohort.cases],
        part_of(options, SplitSettings),
    )
    reading = (*options.models, "clinical") if options.combine else options.models
    told = facts(cohort) | clinical_facts(cohort, reading, options.clinical)
    run = start_run(options.out, "crossval", plain(options), told, overwrite=options.overwrite)
    write_folds(options.out / "folds.json", folds)
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


def combination(options: CrossvalOptions, cohort: "Cohort", run: "Run") -> "Combination":
    """The model and the columns that are combined."""
    from mil.baselines.encoding import clinical_columns
    from mil.combined import Combination

    return Combination(
        cohort,
        options.combine,
        clinical_columns(cohort.cases, options.clinical),
        part_of(options, FitSettings),
        options.seed,
        KeptIn(run),
    )


@verb(app, TrainOptions, examples=["mil train cohort.csv store --model abmil --out trained"])
def train(options: TrainOptions) -> None:
    """Fit one model on all cases, to predict new slides with.

    It is not judged here: no case is left to judge it by. `mil crossval` says what to expect of it.
    """
    from cli.console import say
    from mil.crossval import fit_cases
    from mil.fitted import save_fitted
    from mil.heads.registry import check_chunks, check_names, check_outcomes
    from mil.runs import finish_run, start_run

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


@verb(
    app,
    PredictOptions,
    examples=[
        "mil predict trained store/case-01-s1.h5 store/case-02-s1.h5 --out predicted.csv",
        "mil predict trained slides/case-03-s1.tiff --annotations annotations",
    ],
)
def predict(options: PredictOptions) -> None:
    """Predict slides and their cases with a trained model; no label is needed."""
    from cli.console import complain, say, show_table
    from cli.inputs import bags_for, only_model
    from mil.cohort import read_table
    from mil.evaluation.predictions import PREFIX
    from mil.runs import open_run

    run = open_run(options.run)
    fitted = only_model(run)
    bags = bags_for(
        options.inputs,
        fitted.recipe,
        run.path / "bags",
        annotations=options.annotations,
        weights=options.weights,
        slide_mpp=options.slide_mpp,
    )
    told = {row.slide: row for row in read_table(options.cohort)} if options.cohort else {}
    stated = {slide: row.case for slide, row in told.items()}
    others = {slide: row.other for slide, row in told.items()}
    cases = [run.case_of(bag.slide, stated.get(bag.slide) or bag.case) for bag in bags]
    rows = _predicted_rows(fitted, bags, cases, others)
    path = options.out or run.path / "predict.csv"
    header = ["level", "case", "slide", "tiles", "predicted", "trained_on_it"]
    shown = ["risk"] if fitted.timeline else list(fitted.classes)
    header += shown if fitted.timeline else [PREFIX + name for name in shown]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([header, *rows])
    show_table(
        ["case", "slide", "predicted", *shown],
        [[row[1], row[2], row[4], *(f"{float(p):.2f}" for p in row[6:])] for row in rows],
    )
    known = sorted({row[1] for row in rows if row[5] == "yes"})
    if known:
        complain(f"The model was trained on {', '.join(known)}: their predictions prove nothing.")
    unknown = [row[2] for row in rows if row[5] == "unknown" and row[2]]
    if unknown:
        complain(
            f"The case of {', '.join(unknown)} is not known, so the model may have seen it. Pass --cohort."
        )
    say(f"Predictions: {path}")


def show_evaluation(evaluation: "Evaluation") -> None:
    """The comparison as a table on the terminal."""
    from cli.console import counted, say, show_table

    def shown(estimate: object) -> str:
        value, low, high = (getattr(estimate, name) for name in ("value", "low", "high"))
        return "undefined" if value is None else f"{value:.2f} ({low:.2f} to {high:.2f})"

    say(
        f"{evaluation.n_cases} cases, {counted(evaluation.n_slides, 'slide')}, "
        f"{len(evaluation.classes)} classes; 95 % intervals over cases."
    )
    rows = [
        [
            result.model,
            f"{result.correct:.{0 if len(evaluation.repeats) == 1 else 1}f}/{result.n}",
            shown(result.accuracy),
            shown(result.balanced_accuracy),
            shown(result.auc),
        ]
        for result in evaluation.models
    ]
    rows.append(["(guessing)", "", f"{evaluation.chance_accuracy:.2f}", "", "0.50"])
    show_table(["model", "right", "accuracy", "balanced accuracy", "macro AUC"], rows)


def assembled(options: "CrossvalOptions | TrainOptions", store: Path | None) -> "Cohort":
    """The cohort of a verb; what is left out, or looks alike, is told."""
    from cli.console import complain, warn
    from mil.cohort import assemble
    from mil.duplicates import lookalikes
    from mil.outcome import with_outcomes

    assert store
    rows, source = to_learn_from(options.cohort), options.cohort.name
    survival = options.task == "survival"
    if survival:
        rows = with_outcomes(rows, options.time, options.event, source=source)
    cohort = assemble(
        rows, store, allow_missing=options.allow_missing, source=source, survival=survival
    )
    for what, reason in cohort.excluded:
        complain(f"Left out: {what}: {reason}")
    for pair in lookalikes(cohort):
        warn(str(pair))
    return cohort


def to_learn_from(table: Path) -> "Sequence[Row]":
    """The rows of a table without those that column split keeps for `mil external`; tells of these.

    Raises:
        CohortError: nothing is left.
    """
    from cli.console import counted, say
    from mil.cohort import parted, read_table

    rows, held = parted(read_table(table))
    if not rows:
        raise CohortError(
            f"{table}: every row has split=test, and none is left to learn from. Change column split."
        )
    if held:
        cases = counted(len({row.case for row in held}), "case")
        say(f"{cases} of {table.name} with split=test: left alone, for `mil external`.")
    return rows


def clinical_facts(
    cohort: "Cohort", models: Sequence[str], asked: Sequence[str]
) -> dict[str, object]:
    """What run.json says of the columns that a clinical model reads; tells of them before it does."""
    from cli.console import complain, say
    from mil.baselines.encoding import readable, revealing_columns
    from mil.heads.registry import reads_table

    if not reads_table(models):
        return {}
    # Of all cases, to be told of and no more: each fold learns an encoding of its own.
    encoding = readable(cohort.cases, asked)
    names = [column.name for column in encoding.columns]
    say(f"The clinical model reads {', '.join(names)}.")
    for name, reason in encoding.left_out:
        complain(f"The clinical model leaves out {name}: it {reason}.")
    for name in revealing_columns(cohort.cases, names):
        complain(
            f"Column {name} is the label in other words: who fills it in has made the diagnosis. Name the "
            "columns to read with --clinical."
        )
    return {"clinical": {case.name: {n: case.other[n] for n in names} for case in cohort.cases}}


def facts(cohort: "Cohort") -> dict[str, object]:
    """What run.json says of the data."""
    times = {case.name: case.time for case in cohort.cases if case.time is not None}
    return ({"times": times} if times else {}) | {
        "classes": cohort.classes,
        "labels": {case.name: case.label for case in cohort.cases},
        "cases": {bag.slide: case.name for case in cohort.cases for bag in case.bags},
        "recipe": dict(cohort.recipe),
        "bags": {bag.slide: bag.data_sha256 for case in cohort.cases for bag in case.bags},
        "excluded": cohort.excluded,
    }


@dataclass(frozen=True)
class KeptIn:
    """Saves each fit, and takes up those that this run, interrupted, has left."""

    run: "Run"

    def __call__(self, model: str, fold: "Fold", fitter: "Callable[[], Fitted]") -> "Fitted":
        """The fit of a model on a fold: from its file, or from the fitter."""
        from mil.fitted import load_fitted, save_fitted

        path = self.run.model_path(model, fold)
        if path.exists():
            return load_fitted(path)
        fitted = fitter()
        save_fitted(path, fitted)
        return fitted


def _predicted_rows(
    fitted: "Fitted",
    bags: "Sequence[Bag]",
    cases: Sequence[str],
    others: Mapping[str, Mapping[str, str]],
) -> list[list[str]]:
    """A row per slide, then a row per case with the mean over its slides; no case is a case alone."""
    of_case: dict[str, list[tuple[Bag, list[float]]]] = {}
    rows = []
    for bag, case in zip(bags, cases, strict=True):
        p = _answer(fitted, bag, others.get(bag.slide, {}))
        of_case.setdefault(case or bag.slide, []).append((bag, p))
        rows.append(_row("slide", fitted, case, bag.slide, len(bag), p))
    for name, slides in of_case.items():
        mean = [sum(column) / len(slides) for column in zip(*(p for _, p in slides), strict=True)]
        case = name if name in cases else ""
        rows.append(_row("case", fitted, case, "", sum(len(bag) for bag, _ in slides), mean))
        rows[-1][1] = name
    return rows


def _answer(fitted: "Fitted", bag: "Bag", other: Mapping[str, str]) -> list[float]:
    """The probabilities of a slide, or its risk alone."""
    from mil.predicting import probabilities, risk

    if fitted.timeline:
        return [risk(fitted, bag, (), other)[0]]
    return probabilities(fitted, bag, other)


def _row(
    level: str, fitted: "Fitted", case: str, slide: str, tiles: int, p: Sequence[float]
) -> list[str]:
    from mil.cohort import among

    if fitted.timeline:
        predicted = "high risk" if p[0] > 0 else "low risk"
    else:
        predicted = fitted.classes[max(range(len(p)), key=p.__getitem__)]
    seen = ("yes" if among([case], fitted.trained_on) else "no") if case else "unknown"
    return [level, case or slide, slide, str(tiles), predicted, seen, *(repr(value) for value in p)]
