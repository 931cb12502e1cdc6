"""What answers for raw slides rest on, beside the bar of each: masks, diagnosis, sets, real tissue, time.

    python -m benchmarks.acceptance --folder FOLDER [--data DATA] [--unet] [--large] [--cohorts 300]

Prints the rows of ``benchmarks.segmentation``, and before them what has a benchmark of its own: the coverage
of sets of classes in made cohorts of 20 and 40 cases (``benchmarks.prediction_sets``), real bone sarcoma
split by patient and by field (``benchmarks.osteosarcoma``), and the processor seconds of ``mil predict`` for
one small slide in a new process. DATA has the public slides and fields; without it, there are no rows of real
tissue.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

import mil
from benchmarks.osteosarcoma import MAPS, judge, read_fields, vectors
from benchmarks.prediction_sets import TASKS, row_of
from benchmarks.raw_slides import MODEL, learn
from benchmarks.segmentation import HEADER, Row, parts_of, run_parts
from benchmarks.table import save

DEALS = 10


def set_rows(cohorts: int) -> list[Row]:
    """Sets of classes in made cohorts: the coverage, and how many cases got a single class."""
    rows = []
    for n in (20, 40):
        for task in TASKS:
            _, _, coverage, _, worst, _, single, right = row_of(task, n, cohorts)
            rows.append(
                (
                    f"90 % sets, {n} cases, {task}",
                    ">= .90",
                    f"{coverage}, worst 5 % of cohorts {worst}; one class {single}, of these right {right}",
                )
            )
    return rows


def bone_rows(tiles: Path | None) -> list[Row]:
    """Tumour in real fields of bone sarcoma: one patient left out at a time, and fields dealt at random."""
    bar = "both printed"
    if tiles is None:
        return [("real bone sarcoma", bar, "not run: no data")]
    fields = read_fields(tiles)
    [known] = vectors(fields.images, "pretrained", views=((MAPS, 128),)).values()
    left_out = judge(fields, known)
    dealt = [
        judge(fields, known, np.random.default_rng(n).permutation(len(fields.tumour)) % 5).auc
        for n in range(DEALS)
    ]
    patients = len(set(fields.patients.tolist()))
    return [
        (
            f"real bone sarcoma, {patients} patients left out in turn, AUC",
            bar,
            f"{left_out.auc:.3f} ({left_out.low:.3f} to {left_out.high:.3f}, fields as if independent)",
        ),
        (
            "the same fields dealt without regard to patients, AUC",
            bar,
            f"{np.mean(dealt):.3f} ({min(dealt):.3f} to {max(dealt):.3f} in {DEALS} deals)",
        ),
    ]


def cold_rows(home: Path) -> list[Row]:
    """Processor seconds of the command for one slide that it has not embedded."""
    runs = learn(home)
    segmenter = home / "segmenter" / "segmenter.safetensors"
    if not segmenter.is_file():
        mil.train_segmenter(
            home / "segmentation.csv",
            slides=home / "slides",
            annotations=home / "annotations",
            out=segmenter.parent,
        )
    slide = next((home / "fresh" / "slides").glob("case-01*"))
    ways = {
        "one segmenter": (runs["annotations"], ["--segmenter", segmenter]),
        "the segmenter of each fold": (runs["folds"], []),
    }
    return [
        (
            f"mil predict, small slide, new process, {way}",
            "<= 10 CPU s",
            f"{seconds_of(home, run, slide, more):.1f} CPU s",
        )
        for way, (run, more) in ways.items()
    ]


def seconds_of(home: Path, run: mil.Run, slide: Path, more: list[object]) -> float:
    """Of a slide under a name that is new to the run."""
    link = home / f"new-{len(list(home.glob('new-*')))}.tiff"
    link.symlink_to(slide.resolve())
    words = ["predict", run.path, link, "--model", MODEL, "--out", home / "new.csv", *more]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "cli", *map(str, words)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with slides/ and tiles/osteosarcoma/")
    parser.add_argument("--unet", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--cohorts", type=int, default=300)
    options = parser.parse_args()
    home, data = options.folder, options.data
    rows = run_parts(
        [
            lambda: set_rows(options.cohorts),
            lambda: bone_rows(data / "tiles" / "osteosarcoma" if data else None),
            lambda: cold_rows(home),
            *parts_of(
                home, unet=options.unet, large=options.large, real=data / "slides" if data else None
            ),
        ]
    )
    settings = {name: getattr(options, name) for name in ("unet", "large", "cohorts")}
    save("acceptance", HEADER, rows, settings)


if __name__ == "__main__":
    main()
