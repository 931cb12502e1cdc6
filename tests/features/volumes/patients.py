"""Folders of made patients: one NIfTI per modality, and a label map of a ball."""

import numpy as np

import SimpleITK as sitk  # isort: skip


def ball(shape, centre, radius, spacing):
    """(z, y, x) True within ``radius`` mm of ``centre`` mm."""
    axes = [np.arange(n) * step for n, step in zip(shape, spacing[::-1], strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2


def save(path, values, spacing=(1.0, 1.0, 3.0), origin=(-20.0, -30.0, 100.0)):
    """Write an image with axes along the patient's."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def patient(folder, *, radius=9.0, seed=0, modalities=("CT", "T1", "PET"), shape=(14, 48, 40)):
    """Images of noise in which the ball is brighter, by 60 in the first modality, 40 and 20 in the next."""
    rng = np.random.default_rng(seed)
    inside = ball(shape, (20.0, 24.0, 21.0), radius, (1.0, 1.0, 3.0))
    for step, name in enumerate(modalities):
        values = rng.normal(100, 5, shape) + (60 - 20 * step) * inside
        save(folder / f"{name}_image.nii.gz", values.astype(np.float32))
    save(folder / "mask.nii.gz", inside.astype(np.uint8))
    return inside


def patient_with_bars(folder, *, seed=0, shape=(12, 48, 48)):
    """A ball somewhere in CT, and bars through all slices that are as bright: shape tells them apart."""
    rng = np.random.default_rng(seed)
    centre = (rng.uniform(14, 34), rng.uniform(14, 34), rng.uniform(12, 24))
    inside = ball(shape, centre, rng.uniform(7, 10), (1.0, 1.0, 3.0))
    bars = np.zeros(shape, bool)
    for place in rng.choice(np.arange(1, 23), 4, replace=False) * 2:
        bars[:, :, place : place + 2] = True
    values = rng.normal(100, 5, shape) + 60 * (inside | bars)
    save(folder / "CT_image.nii.gz", values.astype(np.float32))
    save(folder / "mask.nii.gz", inside.astype(np.uint8))
    return inside


def cohort(folder, n=4, **options):
    """Patients p0, p1, ... of different noise."""
    for i in range(n):
        patient(folder / f"p{i}", seed=i, **options)
    return folder
