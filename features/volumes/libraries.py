"""The two packages that volumes need and slides do not, imported where they are first used."""

import importlib
from types import ModuleType

from features.errors import VolumeError


def pydicom() -> ModuleType:
    """The package that reads the elements of DICOM files.

    Raises:
        VolumeError: it is not installed.
    """
    return _import("pydicom")


def simpleitk() -> ModuleType:
    """The package that reads NIfTI, NRRD and MHA, resamples, corrects bias fields and registers.

    Raises:
        VolumeError: it is not installed.
    """
    return _import("SimpleITK")


def require() -> None:
    """Refuse work on series before it begins: file by file, each would seem to be damaged.

    Raises:
        VolumeError: one of the packages is not installed.
    """
    pydicom()
    simpleitk()


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise VolumeError(
            f"CT and MRI series need the package {name}. Install it: pip install 'sarcomil[volumes]'."
        ) from error
