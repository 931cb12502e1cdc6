"""The files of a run folder, and their fingerprints.

run.json           format, command, settings, versions, machine, classes, labels (by case), cases and
                       bags (by slide), recipe, excluded, clinical (by case, where a model reads it),
                       started, finished, complete
moved.json         where the bag store and the cohort table lie now, if they have moved since
folds.json         repeat, index, train, test: names of cases
predictions.csv    one row per model, repeat and slide
metrics.json, comparison.json
reference.safetensors   facts of the training slides, that new slides are compared with
survival/<model>.png, .svg, .csv   Kaplan-Meier curves of a survival run
decision/          decision curves
.lock              held by the process that writes the run; removed when it ends
models/<model>-r<repeat>-f<fold>.safetensors of a cross-validation, models/<model>.safetensors of a training
explain/, report.html
external/<name>/   predictions.csv and metrics.json of an external validation
arms/<arm>/, results.csv   of a published protocol that was run again; where it asks several questions,
                       predictions-<question>.csv
draws/draw-<draw>-shots-<shots>.csv, draws.csv, summary.csv, learning-curve.png   of a learning curve
folds/r<repeat>-f<fold>/   of a backbone fine-tuned in each fold: its weights in tuned/, its bags in store/
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from features.files.atomic import write_atomic

FORMAT, FORMAT_VERSION = "mil-run", 1
RUN, MOVED, FOLDS, PREDICTIONS = "run.json", "moved.json", "folds.json", "predictions.csv"
METRICS, COMPARISON = "metrics.json", "comparison.json"
REFERENCE = "reference.safetensors"
RESULTS = (FOLDS, PREDICTIONS, METRICS, COMPARISON, REFERENCE)
LOCK = ".lock"


def sha256_of(path: Path) -> str:
    """Fingerprint of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Replace a file by JSON; what is not finite is an error, not a NaN in the file."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
