"""`mil predict`: predict new slides with a trained model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mil.runs.predict import PredictedRow


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
        metadata={"help": "Micrometres per level-0 pixel, if the slides do not say."},
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
    """Predict slides and their cases with a trained model; no label is needed.

    A slide that cannot be predicted has a row with its error and does not stop the others; the command then
    ends with 1.
    """
    from cli.console import say
    from cli.inputs import usable_bags
    from mil.data.table import read_table
    from mil.runs.predict import predict_slides, value_names, write_predicted
    from mil.runs.run import open_run

    run = open_run(options.run)
    fitted = run.only_model()
    bags, unusable = usable_bags(
        options.inputs,
        fitted.recipe,
        run.path / "bags",
        annotations=options.annotations,
        weights=options.weights,
        slide_mpp=options.slide_mpp,
    )
    table = read_table(options.cohort, run.settings.reading) if options.cohort else ()
    rows = predict_slides(run, fitted, bags, table, unusable)
    path = options.out or run.path / "predict.csv"
    write_predicted(path, rows, fitted)
    _show_predicted(rows, value_names(fitted))
    say(f"Predictions: {path}")
    if any(row.error for row in rows):
        raise SystemExit(1)


def _show_predicted(rows: "Sequence[PredictedRow]", names: "Sequence[str]") -> None:
    """Print the rows, and of which cases they prove nothing."""
    from cli.console import complain, show_table

    failed, rows = [row for row in rows if row.error], [row for row in rows if not row.error]
    show_table(
        ["case", "slide", "predicted", *names],
        [[row.case, row.slide, row.predicted, *(f"{v:.2f}" for v in row.values)] for row in rows],
    )
    if seen := sorted({row.case for row in rows if row.trained_on == "yes"}):
        complain(f"The model was trained on {', '.join(seen)}: their predictions prove nothing.")
    if unknown := [row.slide for row in rows if row.trained_on == "unknown" and row.slide]:
        complain(
            f"The case of {', '.join(unknown)} is not known, so the model may have seen it. Pass --cohort."
        )
    for row in failed:
        complain(row.error)
