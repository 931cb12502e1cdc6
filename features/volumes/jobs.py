"""The volumes of an extraction: the series of an examination, and the region drawn on one of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.errors import AnnotationError, VolumeError
from features.volumes.contours import Mask
from features.volumes.dose import read_dose
from features.volumes.headers import is_dicom, read_header, text
from features.volumes.image_files import is_image_file
from features.volumes.naming import dicom_modality, named_modalities
from features.volumes.recipe import VolumeRecipe
from features.volumes.region_maps import read_region_map
from features.volumes.registration import apply_registration, register_rigid
from features.volumes.series import read_volume
from features.volumes.structures import read_structure
from features.volumes.volume import Volume

KIND_NAMES = {"PT": "PET", "MR": "MRI", "NM": "SPECT", "RTDOSE": "dose"}
NUMBER = re.compile(r"(\d+)(?:\.0*)?")  # of a region in a label map; spreadsheets write 2 as 2.0


@dataclass(frozen=True, kw_only=True)
class SeriesFiles:
    """One modality of an examination.

    Attributes:
        path: a folder of DICOM, a file of its series, or a NIfTI, NRRD, MetaImage or RTDOSE file.
        series: UID, number or description, where the folder has several.
        mask: the RTSTRUCT or label map that was drawn on it; None if there is none.
        roi: name of the region in a structure set, or its number in a label map; empty if it is the only one.
    """

    path: Path
    series: str = ""
    mask: Path | None = None
    roi: str = ""


@dataclass(frozen=True, kw_only=True)
class VolumeJob:
    """One examination of one case.

    Attributes:
        name: of its film and its bag.
        case: the patient.
        modalities: their files, by name.
    """

    name: str
    case: str
    modalities: Mapping[str, SeriesFiles]

    def drawn_on(self, recipe: VolumeRecipe) -> str:
        """The modality whose region is taken: the first of the channels that has one, else any; or empty."""
        names = [name for name in recipe.channels if name in self.modalities]
        drawn = (name for name in (*names, *self.modalities) if self.modalities[name].mask)
        return next(drawn, "")

    def files_of(self, recipe: VolumeRecipe) -> dict[str, SeriesFiles]:
        """The files that a recipe needs, that with the region first.

        Raises:
            VolumeError: a modality is missing.
        """
        missing = [name for name in recipe.channels if name not in self.modalities]
        if missing:
            raise VolumeError(
                f"There is no {' and no '.join(dict.fromkeys(missing))}, only "
                f"{', '.join(self.modalities)}. Correct channels or the modalities of the table."
            )
        first = self.drawn_on(recipe) or recipe.channels[0]
        return {name: self.modalities[name] for name in (first, *recipe.channels)}

    def read(self, recipe: VolumeRecipe) -> tuple[dict[str, Volume], Mask]:
        """The volumes that a recipe shows, and the region on the grid of the one that it was drawn on.

        Raises:
            VolumeError: a modality is missing, or its series cannot be read.
            AnnotationError: the region cannot be read, or none is drawn and not all slices are taken.
        """
        files = self.files_of(recipe)
        volumes = {name: _read(name, one, recipe) for name, one in files.items()}
        first = next(iter(files))
        volumes = _registered(volumes, first) if recipe.register else _taken(volumes, first)
        return volumes, _read_mask(files[first], volumes[first], recipe)


def _read_mask(files: SeriesFiles, volume: Volume, recipe: VolumeRecipe) -> Mask:
    if files.mask is None:
        if recipe.slices == "all" and recipe.show != "masked":
            return Mask(np.ones(volume.values.shape, bool), volume.grid)
        raise AnnotationError(
            "No region is drawn. Name its structure set or label map in the table's column mask, or set "
            "slices to all."
        )
    if not files.mask.is_file():
        raise AnnotationError(f"No such file {files.mask}. Check the table's column mask.")
    if is_image_file(files.mask):
        number = NUMBER.fullmatch(files.roi)
        if files.roi and not number:
            raise AnnotationError(
                f"roi is {files.roi!r}, and {files.mask.name} is a label map, in which regions are numbers. "
                "Write the number, or leave roi empty where there is one region alone."
            )
        return read_region_map(files.mask, volume, int(number[1]) if number else None)
    return read_structure(files.mask, files.roi or "*", volume, allow=recipe.allow)


def _read(name: str, files: SeriesFiles, recipe: VolumeRecipe) -> Volume:
    """A modality; one of a file that names none has that of the table.

    Raises:
        VolumeError: the series cannot be read, or its name may mean two modalities, and it matters which.
    """
    volume = _read_file(files, recipe)
    if volume.modality:
        return volume
    if recipe.suv and "PT" in named_modalities(name):
        raise VolumeError(
            f"{files.path.name} says neither dose nor weight, so that no SUV can be computed of {name}. Give "
            "its DICOM series; or leave out suv, which takes the values of all files as they are."
        )
    named = named_modalities(name)
    if len(named) > 1 and ("MR" not in named or name in recipe.n4):
        kinds = " or ".join(KIND_NAMES.get(one, one) for one in named)
        raise VolumeError(
            f"{name} may be {kinds}, and {files.path.name} does not say which: they are scaled and corrected "
            "(N4) in different ways. Name the one that it is in the table's column modality: CT, PET, T1CE."
        )
    return replace(volume, modality=dicom_modality(name))


def _read_file(files: SeriesFiles, recipe: VolumeRecipe) -> Volume:
    path = files.path
    one_file = path.is_file() and not is_image_file(path) and is_dicom(path)
    if one_file and text(read_header(path), "Modality") == "RTDOSE":
        return read_dose(path, allow=recipe.allow)
    return read_volume(path, files.series, allow=recipe.allow, suv=recipe.suv)


def _registered(volumes: dict[str, Volume], first: str) -> dict[str, Volume]:
    """All modalities in the frame of one; those that are known to share it are left as they are."""
    fixed = volumes[first]
    return {
        name: volume
        if name == first or _in_one_frame(volume, fixed)
        else apply_registration(register_rigid(fixed, volume), volume, fixed)
        for name, volume in volumes.items()
    }


def _taken(volumes: dict[str, Volume], first: str) -> dict[str, Volume]:
    """The modalities, with a note on those that are taken as registered though no file says so."""
    note = f"its file names no frame of reference: its millimetres are taken as those of {first}"
    return {
        name: volume
        if name == first or (volume.frame_of_reference and volumes[first].frame_of_reference)
        else replace(volume, notes=(*volume.notes, note))
        for name, volume in volumes.items()
    }


def _in_one_frame(volume: Volume, other: Volume) -> bool:
    return bool(volume.frame_of_reference) and volume.frame_of_reference == other.frame_of_reference
