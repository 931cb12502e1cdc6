"""Scales of values, by one volume alone: a scale fitted on several patients would carry one into another.

Source: Tustison et al., IEEE TMI 2010 (N4); Otsu, IEEE SMC 1979.
"""

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.grid import round_apart
from features.volumes.libraries import simpleitk
from features.volumes.volume import Volume

OTSU_BINS = 256
STEP_PARTS = 1000.0  # of a mm
FINEST_PARTS = 10.0  # finer steps than a tenth of a mm are rounded to as much smaller parts
LEAST_TISSUE = 5e-3  # of the voxels
N4_ITERATIONS = (50, 50, 50, 50)


def otsu_threshold(values: NDArray[np.float32]) -> float:
    """The value that splits a volume into two groups of the greatest variance between them.

    Raises:
        VolumeError: all values are equal.
    """
    low, high = float(values.min()), float(values.max())
    if not low < high:
        raise VolumeError(
            f"All values of the volume are {low:g}: tissue and air cannot be told apart. Check the "
            "series."
        )
    counts, edges = np.histogram(values, bins=OTSU_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
        between = np.nan_to_num(below * above * means**2)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1:-1][best].mean())  # the middle of a gap that no value lies in


def tissue(volume: Volume) -> NDArray[np.bool_]:
    """(z, y, x) voxels above Otsu's threshold of the volume."""
    return np.asarray(volume.values > otsu_threshold(volume.values))


def correct_bias(volume: Volume, *, shrink: int = 2) -> Volume:
    """A volume without the slow change of signal over the field of a coil (N4), over its tissue.

    Args:
        volume: MRI, its values 0 or above.
        shrink: the field is fitted to every so manieth voxel.

    Raises:
        VolumeError: the volume is of CT, has values below 0 or a few far above all others, or is too small.
    """
    if volume.modality not in ("MR", ""):
        raise VolumeError(
            f"N4 corrects the bias field of MRI; {volume.modality} has none, and its values would lose their "
            "unit. Leave it out for this modality."
        )
    if volume.values.min() < 0:
        raise VolumeError(
            f"N4 takes the logarithm of the signal, but the lowest value is {volume.values.min():g}. Correct "
            "the series before any other scaling."
        )
    inside = tissue(volume)
    if inside.mean() < LEAST_TISSUE:
        raise VolumeError(
            f"N4 fits the bias field to tissue, and {int(inside.sum())} of {inside.size} voxels are above "
            f"Otsu's threshold: a few values up to {volume.values.max():g} lie far above all others. Remove "
            "them, or leave N4 out for this series."
        )
    sitk = simpleitk()
    image = sitk.GetImageFromArray(volume.values)
    # Steps without the noise of a file format, so that DICOM and NIfTI of a series are corrected alike.
    parts = STEP_PARTS / min(1.0, min(volume.spacing_mm) * FINEST_PARTS)
    image.SetSpacing(round_apart(np.asarray(volume.spacing_mm), parts).tolist())
    region = sitk.GetImageFromArray(inside.astype(np.uint8))
    region.CopyInformation(image)
    factors = [max(1, min(shrink, length // 8)) for length in volume.values.shape[::-1]]
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(N4_ITERATIONS)
    method.SetNumberOfThreads(1)  # sums in one order: equal results on every machine
    try:
        method.Execute(sitk.Shrink(image, factors), sitk.Shrink(region, factors))
    except RuntimeError as error:
        raise VolumeError(
            f"The bias field cannot be fitted to {' x '.join(map(str, volume.values.shape))} voxels: too few "
            "are tissue. Leave N4 out for this series."
        ) from error
    field = sitk.GetArrayFromImage(method.GetLogBiasFieldAsImage(image))
    return volume.with_values(volume.values / np.exp(field), "bias field corrected (N4)")


def window(volume: Volume, low: float, high: float) -> Volume:
    """Values between two limits as 0 to 1, those beyond clipped; for CT in HU.

    Raises:
        VolumeError: the limits are not in order.
    """
    if not low < high:
        raise VolumeError(
            f"The window from {low:g} to {high:g} is empty: its lower limit must be below its upper limit."
        )
    return volume.with_values(np.clip((volume.values - low) / (high - low), 0, 1))


def scale_min_max(volume: Volume, low_quantile: float = 0.0, high_quantile: float = 1.0) -> Volume:
    """The lowest value of the volume as 0, the highest as 1, or two quantiles, those beyond clipped.

    Raises:
        VolumeError: the quantiles are not in order from 0 to 1, or both have one value.
    """
    if not 0 <= low_quantile < high_quantile <= 1:
        raise VolumeError(
            f"Quantiles of {low_quantile:g} and {high_quantile:g} are not in order between 0 and 1."
        )
    low, high = np.quantile(volume.values, [low_quantile, high_quantile]).tolist()
    if not low < high:
        lowest, highest = float(volume.values.min()), float(volume.values.max())
        if lowest == highest:
            raise VolumeError(
                f"All values are {low:g}: there is nothing to scale. Check that the series shows the patient "
                "there, and that the region was drawn on it."
            )
        raise VolumeError(
            f"The volume is {low:g} from quantile {low_quantile:g} to {high_quantile:g}: there is nothing to "
            "scale. Take wider quantiles."
        )
    return window(volume, low, high)


def scale_z(volume: Volume, region: NDArray[np.bool_] | None = None) -> Volume:
    """Values in standard deviations from the mean of the tissue.

    Args:
        volume: any modality.
        region: (z, y, x) voxels that mean and standard deviation are taken of; by default those above Otsu's
            threshold of the volume, which leaves air out.

    Raises:
        VolumeError: the region holds fewer than two different values.
    """
    chosen = volume.values[tissue(volume) if region is None else region].astype(np.float64)
    if len(chosen) < 2 or not chosen.std() > 0:
        raise VolumeError(
            f"The {len(chosen)} voxels of the tissue have one value: there is no standard deviation to scale "
            "by. Check the series."
        )
    return volume.with_values((volume.values - chosen.mean()) / chosen.std())
