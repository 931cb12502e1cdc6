"""Small finished runs for the tests of what reads them."""

import csv

from features.bags.bag import write_bag
from mil.data.cohort import assemble
from mil.data.splits import write_folds
from mil.data.table import read_table
from mil.evaluation.predictions import write_predictions
from mil.learning.crossval import cross_validate
from mil.learning.fitted import save_model
from mil.runs.record import finish_run, start_run, update_run
from tests.mil.made import QUICK, folds_of

MODELS = ("majority", "mean", "abmil", "gated-abmil")


def write_cohort(folder, cohort, **columns):
    """The table and the store of a cohort."""
    with (folder / "cohort.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "slide", "label", *columns])
        for i, case in enumerate(cohort.cases):
            for bag in case.bags:
                extra = [values[i] for values in columns.values()]
                writer.writerow([case.name, bag.slide, case.label, *extra])
                write_bag(folder / "store" / f"{bag.slide}.h5", bag)


def make_run(folder, cohort, models=MODELS, **columns):
    """A finished run as `mil crossval` leaves it."""
    write_cohort(folder, cohort, **columns)
    cohort = assemble(read_table(folder / "cohort.csv"), folder / "store", allow_missing=True)
    settings = {
        "cohort": str(folder / "cohort.csv"),
        "store": str(folder / "store"),
        "allow_missing": True,
        "models": list(models),
    }
    run = start_run(folder / "run", "crossval", settings)
    run = update_run(
        run,
        classes=cohort.classes,
        labels={case.name: case.label for case in cohort.cases},
        cases={bag.slide: case.name for case in cohort.cases for bag in case.bags},
        bags={bag.slide: bag.data_sha256 for case in cohort.cases for bag in case.bags},
        recipe=dict(cohort.recipe),
    )
    folds = folds_of(cohort, folds="2", repeats=2)
    write_folds(run.path / "folds.json", folds)

    def keep(model, fold, fitter):
        fitted = fitter()
        save_model(run.model_path(model, fold), fitted)
        return fitted

    predictions = cross_validate(cohort, folds, models, QUICK, seed=0, fitter=keep)
    write_predictions(run.path / "predictions.csv", predictions)
    return finish_run(run)
