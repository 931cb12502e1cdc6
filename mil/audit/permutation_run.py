"""The label permutation test of a finished cross-validation, resumed where it stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.files.atomic import write_atomic
from features.files.checksum import fingerprint
from features.files.parse import parse_json
from features.files.tables import write_table
from features.progress import Progress, Silent
from mil.audit.permutation import (
    Crossval,
    Permutation,
    PermutationTest,
    judge_permutations,
    metric_by_model,
    permute,
)
from mil.audit.permutation_figure import draw_permutations
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.errors import RunError
from mil.evaluation.predictions import Predictions
from mil.learning.crossval import cross_validate
from mil.runs.files import write_json
from mil.runs.run import Run, to_run
from mil.settings import FitSettings

COLUMNS = ("shuffle", "model", "metric", "value")


def permute_run(
    run: Run | Path | str,
    times: int,
    out: Path | str,
    *,
    crossval: Crossval | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> tuple[PermutationTest, ...]:
    """Repeat a run's cross-validation on shuffled outcomes; writes permutation.json, .csv and .png.

    Args:
        run: a finished cross-validation: its folder, or the open run.
        times: number of shuffles; those that ``out`` already holds are not repeated.
        out: folder for the results.
        crossval: the pipeline; the run's own models on its bags if not given. A run that fine-tuned a
            backbone in each fold needs its own.
        workers: shuffles at once; 0 takes one per core where that is worth their start.
        progress: is advanced by each shuffle.

    Raises:
        RunError: the run is not finished, its bags or outcomes have changed, or ``out`` holds shuffles of
            another run.
        CohortError: no shuffle was found that the folds can carry.
    """
    run, out = to_run(run), Path(out)
    cohort, models = run.cohort(), run.models
    pipeline = crossval or SamePipeline(models, run.settings.fit, run.settings.split.seed)
    out.mkdir(parents=True, exist_ok=True)
    permutations = _read(out, run)
    done = {permutation.number for permutation in permutations}
    missing = [number for number in range(1, times + 1) if number not in done]
    with (progress or Silent()).task("shuffles", len(missing), "shuffles") as advance:
        for rows in permute(cohort, models, run.settings.split, pipeline, missing, workers=workers):
            permutations = sorted([*permutations, *rows], key=lambda row: row.number)
            _write(out, permutations, run)
            advance(1)
    observed = metric_by_model(cohort, run.predictions())
    metric, chance = cohort.task.null_metric
    tests = judge_permutations(
        [permutation for permutation in permutations if permutation.number <= times],
        {model: value for model, value in observed.items() if model in models},
        metric,
        chance,
    )
    write_atomic(out / "permutation.png", draw_permutations(tests))
    return tests


@dataclass(frozen=True)
class SamePipeline:
    """A run's own cross-validation of another cohort; may be sent to another process."""

    models: Sequence[str]
    settings: FitSettings
    seed: int

    def __call__(self, cohort: Cohort, folds: Sequence[Fold], number: int) -> Predictions:
        """Cross-validate the cohort."""
        return cross_validate(
            cohort, folds, self.models, self.settings, seed=self.seed + number, workers=1
        )


def _read(out: Path, run: Run) -> list[Permutation]:
    """The shuffles that an earlier call has left, if they are of the same run."""
    path = out / "permutation.json"
    if not path.exists():
        return []
    card = parse_json(path.read_text(encoding="utf-8"))
    if card.get("predictions") != run.predictions_sha256:
        raise RunError(f"{out} holds shuffles of another run. Choose another folder.")
    if card.get("metric") != run.task.null_metric[0]:
        raise RunError(
            f"{out} holds shuffles that an earlier version judged by {card.get('metric')}. Choose another "
            "folder."
        )
    if card.get("sha256") != _checksum(card):
        raise RunError(
            f"{path} is not as it was written. Remove it, and the shuffles are run again."
        )
    return [Permutation(*row) for row in card["shuffles"]]


def _checksum(card: Mapping[str, Any]) -> str:
    return fingerprint({name: fact for name, fact in card.items() if name != "sha256"})


def _write(out: Path, permutations: Sequence[Permutation], run: Run) -> None:
    """Store the shuffles with a checksum, for a later call; permutation.csv is for readers."""
    metric, _ = run.task.null_metric
    card = {
        "predictions": run.predictions_sha256,
        "metric": metric,
        "shuffles": [[p.number, p.model, p.value] for p in permutations],
    }
    write_json(out / "permutation.json", card | {"sha256": _checksum(card)})
    rows = ([p.number, p.model, metric, "" if p.value is None else p.value] for p in permutations)
    write_table(out / "permutation.csv", COLUMNS, rows)
