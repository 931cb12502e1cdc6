"""`mil check RUN --null N`: the user's own cross-validation where there is nothing to find."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.cohort import assembled, facts
from cli.learn import CrossvalOptions
from cli.options import UsageError, build, part_of, writable
from mil.settings import FitSettings, SplitSettings

if TYPE_CHECKING:
    from mil.cohort import Cohort
    from mil.evaluation.predictions import Predictions
    from mil.null import Shuffle, Verdict
    from mil.runs import Run
    from mil.splits import Fold

COLUMNS = ("shuffle", "model", "auc", "accuracy")
FEW = 20  # shuffles below which the picture is told to be a rough one


def run_null(path: Path, out: Path, n: int) -> int:
    """Run the shuffles that ``out`` does not hold yet, say what they say; the number of leaking models."""
    from cli.console import Bars, complain, say, show_table, warn
    from mil.evaluation.evaluate import evaluate
    from mil.evaluation.predictions import read_predictions
    from mil.null import judge, shuffles
    from mil.report.null import draw_null
    from mil.runs import check_results, open_run

    run = open_run(path)
    if run.info["command"] != "crossval" or not run.complete:
        raise UsageError(f"{path} is not a finished cross-validation. Give the --out of one.")
    check_results(run)
    writable(out)
    options = build(CrossvalOptions, {}, path / "run.json")
    if options.task == "survival":
        raise UsageError(
            f"{path} is a run of survival; --null shuffles classes. Put model chance into the run: it learns "
            "from outcomes dealt out anew."
        )
    if options.store is None:
        raise UsageError(
            f"{path} fine-tuned a backbone in each fold; --null repeats runs over one bag store only. "
            "Run `mil crossval` on bags of a backbone that has seen none of these labels."
        )
    cohort = assembled(options, options.store)
    if any(
        run.info[name] != fact for name, fact in facts(cohort).items() if name in ("bags", "labels")
    ):
        raise UsageError(f"The bags or labels have changed since {path}. Run `mil crossval` again.")
    found = _kept(out, run)
    done = {each.shuffle for each in found}
    missing = [number for number in range(1, n + 1) if number not in done]

    crossval = _Again(options.models, part_of(options, FitSettings), options.seed)
    split = part_of(options, SplitSettings)
    with Bars().task("shuffles", len(missing), "shuffles") as advance:
        for rows in shuffles(cohort, options.models, split, crossval, missing, workers=0):
            found = sorted([*found, *rows], key=lambda row: row.shuffle)
            _write(out, found, run)
            advance(1)
    observed = {
        result.model: result.auc.value
        for result in evaluate(read_predictions(path / "predictions.csv")).models
        if result.model in options.models
    }
    verdicts = judge([each for each in found if each.shuffle <= n], observed)
    show_table(
        ["model", "AUC", f"mean of {n} shuffles", "between", "p", "says"],
        [_shown(verdict) for verdict in verdicts],
    )
    (out / "null.png").write_bytes(draw_null(verdicts))
    say(f"Each shuffle: {out / 'null.csv'}. Picture: {out / 'null.png'}")
    if n < FEW:
        warn(
            f"{n} shuffles see only gross leaks, and p cannot fall below {1 / (n + 1):.2f}. Use 20 or more."
        )
    if seen := sorted(
        {name for case in cohort.cases for bag in case.bags for name in bag.trained_on}
    ):
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
        from mil.crossval import cross_validate

        return cross_validate(
            cohort, folds, self.models, self.settings, seed=self.seed + number, workers=1
        )


def _shown(verdict: "Verdict") -> list[str]:
    if verdict.observed is None or verdict.noticed is None or verdict.p_value is None:
        return [verdict.model, "undefined", "", "", "", "ranks nothing"]
    mean = sum(verdict.aucs) / len(verdict.aucs)
    return [
        verdict.model,
        f"{verdict.observed:.2f}",
        f"{mean:.3f}",
        f"{min(verdict.aucs):.2f} to {max(verdict.aucs):.2f}",
        f"{verdict.p_value:.3f}",
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

    from mil.null import Shuffle

    out.mkdir(parents=True, exist_ok=True)
    path = out / "null.json"
    if not path.exists():
        return []
    held = json.loads(path.read_text())
    if held.get("predictions") != run.info["results"]["predictions.csv"]:
        raise UsageError(f"{out} holds shuffles of another run. Choose another --out.")
    if held.get("sha256") != _seal(held):
        raise UsageError(
            f"{path} is not as it was written. Remove it, and the shuffles are run again."
        )
    return [Shuffle(*row) for row in held["shuffles"]]


def _seal(card: Mapping[str, Any]) -> str:
    from features.bags import fingerprint

    return fingerprint({name: fact for name, fact in card.items() if name != "sha256"})


def _write(out: Path, found: Sequence["Shuffle"], run: "Run") -> None:
    """Keep the shuffles, sealed, for a later call; null.csv shows them."""
    from features.whole import whole
    from mil.runs import write_json

    card = {
        "predictions": run.info["results"]["predictions.csv"],
        "shuffles": [[each.shuffle, each.model, each.auc, each.accuracy] for each in found],
    }
    write_json(out / "null.json", card | {"sha256": _seal(card)})
    with (
        whole(out / "null.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            [each.shuffle, each.model, "" if each.auc is None else each.auc, each.accuracy]
            for each in found
        )
