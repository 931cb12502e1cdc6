"""Does fine-tuning pay on the demo cohort? The same start, frozen, and fine-tuned in each fold.

    python -m benchmarks.finetuning --folder FOLDER [--epochs 20] [--key-fraction 0.3]
    python -m benchmarks.finetuning --folder FOLDER --backbone efficientnet-lite0 --weights pretrained
        --mpp 0.25 --train last --epochs 4 --learning-rate 3e-4 --layer-decay 0.9

FOLDER keeps the cohort and both runs; a second call takes them up. Every case is tested by a backbone that
has not seen it. The demo's slides are drawn: this shows that the path learns, not what it would reach in a
clinic. Compare models by name: a vote over tiles and an attention head need not agree. Each is tested frozen
against fine-tuned, case by case: exact McNemar for right and wrong, a paired test for the AUC.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.table import print_table, save
from features.synthetic import CohortSpec, write_cohort
from mil.evaluation.comparison import PairTest
from mil.evaluation.judge import compare_tables
from mil.evaluation.predictions import read_predictions

HEADER = (
    "backbone",
    "model",
    "right",
    "accuracy",
    "95 %",
    "AUC",
    "95 % of AUC",
    "CPU s of the arm",
)


def run(*arguments: object) -> float:
    """The command, and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "cli", *map(str, arguments)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows_of(name: str, folder: Path, seconds: float) -> list[tuple[str, ...]]:
    def between(estimate: dict[str, float | None]) -> tuple[str, str]:
        if estimate["value"] is None:
            return "undefined", ""
        return f"{estimate['value']:.2f}", f"{estimate['low']:.2f} to {estimate['high']:.2f}"

    told = json.loads((folder / "metrics.json").read_text())
    return [
        (name, model["model"], f"{model['correct']:g}/{model['n']}", *between(model["accuracy"]),
         *between(model["auc"]), f"{seconds:.0f}")
        for model in told["models"]
    ]  # fmt: skip


def paired(folder: Path) -> tuple[PairTest, ...]:
    """Frozen against fine-tuned, of every model."""
    tables = [read_predictions(folder / name / "predictions.csv") for name in ("frozen", "tuned")]
    return compare_tables(*tables, names=("frozen", "fine-tuned")).pairs  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--train", default="all")
    parser.add_argument("--last-blocks", type=int, default=1)
    parser.add_argument("--tiles-per-slide", type=int, default=64)
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    # nothing in a random backbone is worth keeping
    parser.add_argument("--layer-decay", type=float, default=1.0)
    parser.add_argument("--jitter", type=float, default=0.1)
    parser.add_argument("--key-fraction", type=float, default=CohortSpec.key_fraction)
    asked = parser.parse_args()
    folder, table = asked.folder, asked.folder / "cohort.csv"
    if not table.exists():
        write_cohort(folder, CohortSpec(key_fraction=asked.key_fraction))
    shared = {
        "slides": str(folder / "slides"),
        "annotations": str(folder / "annotations"),
        "backbone": asked.backbone,
        "weights": asked.weights,
        "mpp": asked.mpp,
    }
    tuning = shared | {
        "epochs": asked.epochs,
        "learning_rate": asked.learning_rate,
        "jitter": asked.jitter,
        "layer_decay": asked.layer_decay,
        "train": asked.train,
        "last_blocks": asked.last_blocks,
        "tiles_per_slide": asked.tiles_per_slide,
        "tile_cache": 1.0,
    }
    config = folder / "tuning.json"
    config.write_text(json.dumps(tuning))
    options = [f"--{name}={value}" for name, value in shared.items()]
    models = ["--models", "majority,tile-vote,mean,abmil", "--overwrite"]
    frozen = run("extract", table, *options, "--out", folder / "store", "--overwrite")
    frozen += run("crossval", table, folder / "store", *models, "--out", folder / "frozen")
    tuned = run(
        "crossval", table, "--finetune", "per-fold", "--finetune-config", config, *models,
        "--out", folder / "tuned",
    )  # fmt: skip
    rows = rows_of(f"{asked.weights}, frozen", folder / "frozen", frozen)
    rows += rows_of(f"{asked.weights}, fine-tuned per fold", folder / "tuned", tuned)
    print_table(HEADER, rows)
    pairs = paired(folder)
    for pair in pairs:
        print(pair.first, pair.second, pair.to_json())
    start = "" if asked.weights == "random" else f"-{asked.weights}"
    save(
        f"finetuning{start}-mpp-{asked.mpp:g}-keys-{asked.key_fraction:g}",
        HEADER,
        rows,
        tuning
        | {"slides": "demo", "annotations": "demo", "key_fraction": asked.key_fraction}
        | {"paired": [pair.to_json() for pair in pairs]},
    )


if __name__ == "__main__":
    main()
