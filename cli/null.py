"""`mil check RUN --null N`: the user's own cross-validation where there is nothing to find."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.cohort import assembled, facts
from cli.learn import CrossvalOptions
from cli.options import UsageError, build, part_of, plain, writable
from mil.settings import FitSettings, SplitSettings

if TYPE_CHECKING:
    from mil.audit.permutation import Shuffle, Verdict
    from mil.data.cohort import Cohort
    from mil.data.splits import Fold
    from mil.evaluation.predictions import Predictions
    from mil.runs.run import Run

COLUMNS = ("shuffle", "model", "auc", "accuracy")
FEW = 20  # shuffles below which the picture is told to be a rough one


def run_null(path: Path, out: Path, n: int) -> int:
    """Run the shuffles that ``out`` does not hold yet, say what they say; the number of leaking models."""
    from cli.console import Bars, complain, say, show_table, warn
    from features.files.atomic import write_atomic
    from mil.audit.permutation import judge, shuffles
    from mil.evaluation.classification.evaluate import evaluate
    from mil.evaluation.predictions import read_predictions
    from mil.report.null import draw_null
    from mil.runs.run import open_run

    run = open_run(path)
    run.require_finished()
    writable(out)
    options = build(CrossvalOptions, {}, path / "run.json")
    if options.task == "survival":
        raise UsageError(
            f"{path} is a run of survival; --null shuffles classes. Put model chance into the run: it learns "
            "from outcomes dealt out anew."
        )
    per_fold = options.finetune == "per-fold"
    cohort = _as_tested(run, options) if per_fold else assembled(options, options.store)
    tested = facts(cohort)
    if (run.bags, run.labels) != (tested["bags"], tested["labels"]):
        raise UsageError(f"The bags or labels have changed since {path}. Run `mil crossval` again.")
    found = _kept(out, run)
    done = {each.shuffle for each in found}
    missing = [number for number in range(1, n + 1) if number not in done]

    settings, split = part_of(options, FitSettings), part_of(options, SplitSettings)
    crossval = (
        _TunedAgain(options, out / "shuffles")
        if per_fold
        else _Again(options.models, settings, options.seed)
    )
    workers = 1 if per_fold else 0  # fine-tuning takes all cores by itself
    with Bars().task("shuffles", len(missing), "shuffles") as advance:
        for rows in shuffles(cohort, options.models, split, crossval, missing, workers=workers):
            found = sorted([*found, *rows], key=lambda row: row.shuffle)
            _write(out, found, run)
            advance(1)
    observed = {
        result.model: result.metrics["auc"].value
        for result in evaluate(read_predictions(path / "predictions.csv")).models
        if result.model in options.models
    }
    verdicts = judge([each for each in found if each.shuffle <= n], observed)
    show_table(
        ["model", "AUC", f"mean of {n} shuffles", "between", "p", "says"],
        [_shown(verdict) for verdict in verdicts],
    )
    write_atomic(out / "null.png", draw_null(verdicts))
    say(f"Each shuffle: {out / 'null.csv'}. Picture: {out / 'null.png'}")
    if n < FEW:
        warn(
            f"{n} shuffles see only gross leaks, and p cannot fall below {1 / (n + 1):.2f}. Use 20 or more."
        )
    seen = {name for case in cohort.cases for bag in case.bags for name in bag.trained_on}
    if seen and not per_fold:
        warn(
            f"The backbone was fine-tuned on {len(seen)} cases with their true labels; shuffling what comes "
            "after it cannot show what it has seen."
        )
    leaking = [verdict.model for verdict in verdicts if verdict.invents]
    if leaking:
        complain(
            f"{', '.join(leaking)}: finds signal in shuffled labels. Something of the tested cases reaches "
            "the fits; trust none of these numbers."
        )
    return len(leaking)


@dataclass(frozen=True)
class _Again:
    """The run's own cross-validation of another cohort; may be sent to another process."""

    models: Sequence[str]
    settings: FitSettings
    seed: int

    def __call__(self, cohort: "Cohort", folds: "Sequence[Fold]", number: int) -> "Predictions":
        from mil.learning.crossval import cross_validate

        return cross_validate(
            cohort, folds, self.models, self.settings, seed=self.seed + number, workers=1
        )


@dataclass(frozen=True)
class _TunedAgain:
    """The run's own fine-tuning, extraction and cross-validation of another cohort.

    Attributes:
        options: of the run.
        folder: for what each shuffle makes; what an interrupted one has left is taken up, then removed.
    """

    options: CrossvalOptions
    folder: Path

    def __call__(self, cohort: "Cohort", folds: "Sequence[Fold]", number: int) -> "Predictions":
        from cli.cohort import to_learn_from
        from cli.console import Bars
        from cli.finetune import labelled_slides, tuned_by, tuning_of
        from mil.finetune.per_fold import cross_validate_per_fold

        options, folder = self.options, self.folder / str(number)
        tuned = tuned_by(options)
        label = {case.name: case.label for case in cohort.cases}
        rows = [replace(row, label=label[row.case]) for row in to_learn_from(options.cohort)]
        slides = [replace(slide, label=label[slide.job.case]) for slide in labelled_slides(tuned)]

        def store(fold: "Fold") -> Path:
            return folder / f"r{fold.repeat}-f{fold.index}" / "bags"

        with tuning_of(tuned, rows, slides, store) as tuning:
            found = cross_validate_per_fold(
                tuning,
                folds,
                options.models,
                part_of(options, FitSettings),
                seed=options.seed + number,
                keep=lambda _model, _fold, fitter: fitter(),
                progress=Bars(),
            )
        shutil.rmtree(folder)
        return found


def _as_tested(run: "Run", options: CrossvalOptions) -> "Cohort":
    """The cohort of a run that fine-tuned in each fold.

    Raises:
        UsageError: the settings of fine-tuning have changed since.
    """
    from cli.cohort import to_learn_from
    from cli.finetune import tuned_by
    from mil.runs.cases import cohort_as_tested

    if plain(tuned_by(options)) != run.finetuning:
        raise UsageError(
            f"{options.finetune_config} has changed since {run.path}. Run `mil crossval` again."
        )
    folds = run.folds
    return cohort_as_tested(to_learn_from(options.cohort), folds, run.fold_store)


def _shown(verdict: "Verdict") -> list[str]:
    if verdict.observed is None or verdict.noticed is None or verdict.p_value is None:
        return [verdict.model, "undefined", "", "", "", "ranks nothing"]
    from mil.evaluation.display import format_p

    mean = sum(verdict.aucs) / len(verdict.aucs)
    return [
        verdict.model,
        f"{verdict.observed:.2f}",
        f"{mean:.3f}",
        f"{min(verdict.aucs):.2f} to {max(verdict.aucs):.2f}",
        format_p(verdict.p_value),
        _conclusion(verdict, verdict.noticed),
    ]


def _conclusion(verdict: "Verdict", noticed: float) -> str:
    if verdict.invents:
        return "INVENTS SIGNAL"
    return f"at chance (alarm from {noticed:.2f})" if noticed < 1 else "too few shuffles to tell"


def _kept(out: Path, run: "Run") -> list["Shuffle"]:
    """The shuffles an earlier call has left, if they are of the same run.

    Raises:
        UsageError: the folder holds those of another run, or they have been edited.
    """
    import json

    from mil.audit.permutation import Shuffle

    out.mkdir(parents=True, exist_ok=True)
    path = out / "null.json"
    if not path.exists():
        return []
    held = json.loads(path.read_text())
    if held.get("predictions") != run.predictions_sha256:
        raise UsageError(f"{out} holds shuffles of another run. Choose another --out.")
    if held.get("sha256") != _seal(held):
        raise UsageError(
            f"{path} is not as it was written. Remove it, and the shuffles are run again."
        )
    return [Shuffle(*row) for row in held["shuffles"]]


def _seal(card: Mapping[str, Any]) -> str:
    from features.bags.bag import fingerprint

    return fingerprint({name: fact for name, fact in card.items() if name != "sha256"})


def _write(out: Path, found: Sequence["Shuffle"], run: "Run") -> None:
    """Keep the shuffles, sealed, for a later call; null.csv shows them."""
    from features.files.atomic import atomic_path
    from mil.runs.files import write_json

    card = {
        "predictions": run.predictions_sha256,
        "shuffles": [[each.shuffle, each.model, each.auc, each.accuracy] for each in found],
    }
    write_json(out / "null.json", card | {"sha256": _seal(card)})
    with (
        atomic_path(out / "null.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            [each.shuffle, each.model, "" if each.auc is None else each.auc, each.accuracy]
            for each in found
        )
