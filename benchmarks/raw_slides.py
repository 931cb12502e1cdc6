"""Are the answers for raw slides worth what they promise? The whole way, on slides of other made cohorts.

    python -m benchmarks.raw_slides --folder FOLDER [--cohorts 3]

The demo's cohort of 20 annotated slides is learnt from in two ways: by tiles inside its annotations, and by
tiles that each fold's segmenter selects. Then slides of other seeds, which nobody has drawn on, are answered
for: by the segmenters of the folds, by one segmenter of all slides, and from all tissue. A row shows how many
got a set of classes, how often the set held the true one, how often it was a single class, and how often
that was right. Slides without tumour should get no answer. Drawn cohorts are used again.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import mil
from benchmarks.table import print_table, save
from mil.answers.predict import Answers
from mil.evaluation.intervals import wilson

MODEL = "abmil"
RECIPE = mil.Recipe(backbone="efficientnet-lite0", weights="pretrained", mpp=0.5)
IN_TUMOUR = mil.Recipe(
    backbone="efficientnet-lite0", weights="pretrained", mpp=0.5, classes=("Tumor",)
)
HEADER = (
    "tiles", "promised", "slides", "in a set", "set holds the class", "one class", "of these right",
    "no tumour answered",
)  # fmt: skip


def drawn(folder: Path, seed: int) -> Path:
    """The demo's cohort of a seed, drawn if it is not there."""
    if not (folder / "cohort.csv").is_file():
        mil.draw_cohort(folder, seed=seed)
    return folder


def learn(folder: Path) -> dict[str, mil.Run]:
    """Cross-validations of the drawn cohort, by how tiles are chosen."""
    table, slides, outlines = folder / "cohort.csv", folder / "slides", folder / "annotations"
    mil.extract(table, slides=slides, out=folder / "tissue", recipe=RECIPE)
    mil.extract(table, slides=slides, annotations=outlines, out=folder / "store", recipe=IN_TUMOUR)
    cases = mil.segment_per_fold(
        mil.load_cohort(table, folder / "tissue"),
        folder / "segmentation.csv",
        slides=slides,
        annotations=outlines,
    )
    inside = mil.load_cohort(table, folder / "store")
    return {
        "folds": mil.cross_validate(cases, [MODEL], out=folder / "run-folds", overwrite=True),
        "annotations": mil.cross_validate(
            inside, [MODEL], out=folder / "run-annotations", overwrite=True
        ),
    }


def row_of(name: str, answers: Sequence[Answers], label_of: dict[str, str]) -> tuple[str, ...]:
    """One way to choose tiles."""
    rows = [row for part in answers for row in part.slides]
    with_tumour = [row for row in rows if row.slide in label_of]
    in_set = [row for row in with_tumour if row.has_values]
    holds = sum(label_of[row.slide] in row.candidates for row in in_set)
    single = [row for row in in_set if len(row.candidates) == 1]
    right = sum(row.predicted == label_of[row.slide] for row in single)
    without = [row for row in rows if row.slide not in label_of]
    limits = wilson(holds, len(in_set)) if in_set else None
    return (
        name,
        "yes" if in_set and all(row.is_promised for row in in_set) else "no",
        str(len(with_tumour)),
        str(len(in_set)),
        f"{holds}/{len(in_set)} ({limits.low:.2f} to {limits.high:.2f})" if limits else "",
        str(len(single)),
        f"{right}/{len(single)}",
        f"{sum(row.has_values for row in without)}/{len(without)}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cohorts", type=int, default=3)
    arguments = parser.parse_args()
    home = drawn(arguments.folder / "0", 0)
    runs = learn(home)
    segmenter = home / "segmenter"
    if not (segmenter / "segmenter.safetensors").is_file():
        mil.train_segmenter(
            home / "segmentation.csv",
            slides=home / "slides",
            annotations=home / "annotations",
            out=segmenter,
        )
    label_of, answers = {}, {"folds": [], "one": [], "tissue": []}
    for seed in range(1, arguments.cohorts + 1):
        cohort = drawn(arguments.folder / str(seed), 100 + seed)
        with (cohort / "cohort.csv").open(newline="") as file:
            label_of |= {f"{seed}-{row['slide']}": row["label"] for row in csv.DictReader(file)}
        renamed = cohort / "renamed"  # so that no name is that of a training slide
        renamed.mkdir(exist_ok=True)
        for slide in sorted((cohort / "slides").iterdir()):
            link = renamed / f"{seed}-{slide.name}"
            if not link.exists():
                link.symlink_to(slide)
        files = sorted(renamed.iterdir())
        store = arguments.folder / f"bags-{seed}"
        ways = {
            "folds": (runs["folds"], {}),
            "one": (runs["annotations"], {"segmenter": segmenter / "segmenter.safetensors"}),
            "tissue": (runs["annotations"], {}),
        }
        for way, (run, options) in ways.items():
            answers[way].append(
                mil.predict_slides(run, files, model=MODEL, store=store / way, **options)
            )
    names = {
        "folds": "the segmenter of each fold, for its own fit",
        "one": "one segmenter, for a model of annotations",
        "tissue": "all tissue, for a model of annotations",
    }
    rows = [row_of(names[way], answers[way], label_of) for way in names]
    print_table(HEADER, rows)
    save("raw-slides", HEADER, rows, {"cohorts": arguments.cohorts, "model": MODEL})


if __name__ == "__main__":
    main()
