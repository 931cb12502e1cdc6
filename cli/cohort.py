"""What the verbs that learn have in common: the cohort, its folds, and what run.json says of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.options import part_of, plain
from mil.errors import CohortError
from mil.settings import FitSettings, SplitSettings

if TYPE_CHECKING:
    from cli.learn import CrossvalOptions, TrainOptions
    from mil.data.cohort import Cohort, Row
    from mil.data.splits import Fold
    from mil.learning.combined import Combination
    from mil.learning.fitted import Fitted
    from mil.runs.run import Run


def begun(
    options: "CrossvalOptions", strata: "Callable[[Cohort], Sequence[str]]"
) -> "tuple[Cohort, tuple[Fold, ...], Run]":
    """The cohort, its folds, and the run folder that names both.

    Args:
        options: of the cross-validation.
        strata: by what each case is dealt to folds, in the order of the cases.
    """
    from mil.data.splits import folds_sha256, split_cases, write_folds
    from mil.runs.record import start_run

    cohort = assembled(options, options.store)
    sites = [case.site for case in cohort.cases]
    names = [case.name for case in cohort.cases]
    folds = split_cases(names, strata(cohort), sites, part_of(options, SplitSettings))
    told = facts(cohort) | clinical_facts(cohort, reading(options), options.clinical)
    told["folds_sha256"] = folds_sha256(folds)
    run = start_run(options.out, "crossval", plain(options), told, overwrite=options.overwrite)
    write_folds(options.out / "folds.json", folds)
    return cohort, folds, run


def reading(options: "CrossvalOptions") -> "Sequence[str]":
    """The models, with the one that reads the table beside them where columns are combined."""
    return (*options.models, "clinical") if options.combine else options.models


def combination(options: "CrossvalOptions", cohort: "Cohort", run: "Run") -> "Combination":
    """The model and the columns that are combined."""
    from mil.baselines.encoding import clinical_columns
    from mil.learning.combined import Combination

    return Combination(
        cohort,
        options.combine,
        clinical_columns(cohort.cases, options.clinical),
        part_of(options, FitSettings),
        options.seed,
        KeptIn(run),
    )


def assembled(options: "CrossvalOptions | TrainOptions", store: Path | None) -> "Cohort":
    """The cohort of a verb; what is left out, or looks alike, is told."""
    from cli.console import complain, warn
    from mil.data.cohort import assemble
    from mil.data.duplicates import lookalikes
    from mil.data.outcomes import with_outcomes

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
    if cohort.unknown_weights:
        warn(
            f"The backbone's weights, {cohort.unknown_weights}, do not say which cases they have seen: if "
            "they were trained on cases of this table, the results are worth nothing."
        )
    return cohort


def to_learn_from(table: Path) -> "Sequence[Row]":
    """The rows of a table without those that column split keeps for `mil external`; tells of these.

    Raises:
        CohortError: nothing is left.
    """
    from cli.console import counted, say
    from mil.data.cohort import read_table, split_train_test

    rows, held = split_train_test(read_table(table))
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
        from mil.learning.fitted import load_fitted, save_fitted

        path = self.run.model_path(model, fold)
        if path.exists():
            return load_fitted(path)
        fitted = fitter()
        save_fitted(path, fitted)
        return fitted
