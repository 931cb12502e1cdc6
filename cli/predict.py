"""`mil predict`: new slides by a model that was trained."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import verb

if TYPE_CHECKING:
    from features.bags.bag import Bag
    from mil.learning.fitted import Fitted


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
    PredictOptions,
    examples=[
        "mil predict trained store/case-01-s1.h5 store/case-02-s1.h5 --out predicted.csv",
        "mil predict trained slides/case-03-s1.tiff --annotations annotations",
    ],
)
def predict(options: PredictOptions) -> None:
    """Predict slides and their cases with a trained model; no label is needed."""
    from cli.console import complain, say, show_table
    from cli.inputs import bags_for
    from features.files.atomic import atomic_path
    from mil.data.cohort import read_table
    from mil.evaluation.predictions import PREFIX
    from mil.runs.run import open_run

    run = open_run(options.run)
    fitted = run.only_model()
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
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
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
    from mil.learning.prediction import probabilities, risk

    if fitted.timeline:
        return [risk(fitted, bag, (), other)[0]]
    return probabilities(fitted, bag, other)


def _row(
    level: str, fitted: "Fitted", case: str, slide: str, tiles: int, p: Sequence[float]
) -> list[str]:
    from mil.data.names import matching

    if fitted.timeline:
        predicted = "high risk" if p[0] > 0 else "low risk"
    else:
        predicted = fitted.classes[max(range(len(p)), key=p.__getitem__)]
    seen = ("yes" if matching([case], fitted.trained_on) else "no") if case else "unknown"
    return [level, case or slide, slide, str(tiles), predicted, seen, *(repr(value) for value in p)]
