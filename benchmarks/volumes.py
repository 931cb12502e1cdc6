"""Made volumes: a signal in one modality is found by what shows it, and by nothing else.

Forty patients, three modalities on one grid. Every patient has a gain and an offset of its own, a bias field,
a spacing (0.7 to 1.2 mm by 2 to 6 mm), a field of view, and a tumour, an ellipsoid. The class is

- texture: the grain of the tumour in modality B alone, coarse or fine;
- nothing: labels dealt at random, twenty times;
- spacing: the distance of slices alone, which the audit has to name;
- volume: the size of the tumour alone, which the baseline that reads it has to win by.

    python -m benchmarks.volumes [--patients 40]
"""

import argparse
import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import mil
from benchmarks.table import print_table, save
from features.volumes.listing import list_series, write_list
from mil.audit.predictors import cohort_predictors

MODALITIES = ("A", "B", "C")
SIDE, SLICES = 72, 16
SEED = 20261130


def write_patient(folder, rng, *, coarse, slice_mm=None, radius_mm=None):
    """Three images and a mask of one patient."""
    pixel, step = rng.uniform(0.7, 1.2), slice_mm or rng.uniform(2, 6)
    n_slices, side = SLICES + int(rng.integers(0, 5)), SIDE + int(rng.integers(0, 25))
    shape = (n_slices, side, side)
    z, y, x = np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij")
    radius = radius_mm or rng.uniform(14, 20)
    ratio = rng.uniform(0.8, 1.2, 3)
    inside = (
        (z * step / ratio[0]) ** 2 + (y * pixel / ratio[1]) ** 2 + (x * pixel / ratio[2]) ** 2
    ) <= radius**2
    for name in MODALITIES:
        tissue = ndimage.gaussian_filter(rng.normal(size=shape), (0, 2, 2))
        grain_mm = 3.0 if coarse and name == "B" else 1.2
        grain = ndimage.gaussian_filter(
            rng.normal(size=shape), (0, grain_mm / pixel, grain_mm / pixel)
        )
        values = 100 + 15 * tissue / tissue.std()
        values[inside] = 130 + 20 * (grain / grain.std())[inside]
        field = ndimage.gaussian_filter(rng.normal(size=shape), (4, 25, 25))
        values *= 1 + 0.1 * field / np.abs(field).max()
        values = values * rng.uniform(0.5, 2) + rng.uniform(0, 50) + rng.normal(0, 2, shape)
        save_image(folder / f"{name}_image.nii.gz", values.astype(np.float32), pixel, step)
    save_image(folder / "mask.nii.gz", inside.astype(np.uint8), pixel, step)


def save_image(path, values, pixel_mm, slice_mm):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((pixel_mm, pixel_mm, slice_mm))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def make_cohort(folder, n, kind):
    """Patients whose second half has the other class; the table of their series."""
    rng = np.random.default_rng(SEED)
    for i in range(n):
        second = i >= n // 2
        options = {"coarse": kind == "texture" and second}
        if kind == "spacing":
            options["slice_mm"] = rng.uniform(2, 3) if second else rng.uniform(4, 6)
        if kind == "volume":
            options["radius_mm"] = rng.uniform(18, 22) if second else rng.uniform(13, 17)
        write_patient(folder / "patients" / f"p{i:02d}", rng, **options)
    write_list(folder / "volumes.csv", list_series(folder / "patients"))
    rows = [f"p{i:02d},{'second' if i >= n // 2 else 'first'}" for i in range(n)]
    (folder / "cases.csv").write_text("\n".join(["case,label", *rows]) + "\n")


def cohort_of(folder, channels, **settings):
    """The cohort of one choice of modalities."""
    out = folder / "+".join(channels)
    result = mil.extract_volumes(
        folder / "volumes.csv", out, cases=folder / "cases.csv",
        volumes=mil.VolumeRecipe(channels=channels, **settings),
        recipe=mil.Recipe(backbone="efficientnet-lite0"),
    )  # fmt: skip
    assert not result.failed, result.failed
    return mil.load_cohort(result.cohort, out)


def auc_of(cohort, models=("pooled-logistic",), clinical=()):
    """AUC over patients of each model, ten folds."""
    with tempfile.TemporaryDirectory() as folder:
        settings = mil.FitSettings(clinical=clinical)
        run = mil.cross_validate(
            cohort, list(models), out=Path(folder) / "run", folds=10, settings=settings
        )
        evaluation = run.evaluate()
    return {model: evaluation[model].metrics["auc"].value for model in models}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=40)
    options = parser.parse_args()
    header, rows = ("class", "shown", "model", "AUC, patients"), []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_cohort(folder / "texture", options.patients, "texture")
        choices = [(m,) for m in MODALITIES] + [MODALITIES, ("A", "C", "A")]
        for channels in choices:
            cohort = cohort_of(folder / "texture", channels, pixel_mm=0.5)
            auc = auc_of(cohort)["pooled-logistic"]
            rows.append(["texture in B", "+".join(channels), "pooled-logistic", f"{auc:.2f}"])
        labels = [case.label for case in cohort.cases]
        aucs = []
        for deal in range(20):
            dealt = np.random.default_rng(deal).permutation(labels)
            cases = [replace(c, label=str(x)) for c, x in zip(cohort.cases, dealt, strict=True)]
            aucs.append(auc_of(replace(cohort, cases=tuple(cases)))["pooled-logistic"])
        spread = f"{np.mean(aucs):.3f} (sd {np.std(aucs, ddof=1):.3f} of 20)"
        rows.append(["nothing", "A+C+A", "pooled-logistic", spread])
        make_cohort(folder / "spacing", options.patients, "spacing")
        cohort = cohort_of(folder / "spacing", MODALITIES)
        rows += named(cohort, "spacing")
        make_cohort(folder / "volume", options.patients, "volume")
        cohort = cohort_of(folder / "volume", MODALITIES)
        result = auc_of(cohort, ("clinical", "pooled-logistic"), ("tumour_ml",))
        rows += [["volume", "A+B+C", model, f"{auc:.2f}"] for model, auc in result.items()]
    print_table(header, rows)
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s")
    save("volumes", header, rows, {"patients": options.patients})


def named(cohort, kind):
    """The facts of the scan that the audit would name, by their AUC."""
    label = np.array([case.label == "second" for case in cohort.cases])
    shown = []
    for predictor in cohort_predictors(cohort):
        if predictor.values is not None and not predictor.categorical:
            values = predictor.values[:, 0]
            wins = [a > b for a, b in itertools.product(values[label], values[~label])]
            auc = max(np.mean(wins), 1 - np.mean(wins))
            if auc > 0.95:
                shown.append([kind, "audit", predictor.name, f"{auc:.2f}"])
    return shown


if __name__ == "__main__":
    main()
