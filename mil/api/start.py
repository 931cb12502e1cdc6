"""Before any slide of one's own: a cohort to try with, and whether this machine can do the work."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mil.api.options import StrPath

if TYPE_CHECKING:
    from features.progress import Progress

OPENSLIDE = (4, 0, 1)  # older ones read wrong pixels from some TIFF slides
LEAST_GIB = 5.0


@dataclass(frozen=True, kw_only=True)
class MachineCheck:
    """Whether a machine can do the work.

    Attributes:
        facts: versions, device, threads, weights and disk, by name.
        problems: each with its fix.
        weights: backbones whose published weights need no network.
    """

    facts: Mapping[str, str]
    problems: tuple[str, ...]
    weights: tuple[str, ...]


def check_machine(folder: StrPath = ".") -> MachineCheck:
    """Versions, OpenSlide, device, threads, weights and disk; each problem comes with its fix.

    Args:
        folder: for bags: the disk to check.

    Example:
        machine = mil.check_machine()
        print(machine.facts["device"], machine.problems)
    """
    import openslide

    from features.backbones.catalogue import list_catalogue
    from mil.runs.record import versions

    problems = []
    version = openslide.__library_version__
    if tuple(map(int, version.split(".")[:3])) < OPENSLIDE:
        problems.append(
            f"OpenSlide {version} may read wrong pixels from TIFF slides. Fix: upgrade the package "
            "openslide-bin."
        )
    known = list_catalogue()
    weights = tuple(row.name for row in known if row.at_hand and row.recipe)
    place = _existing(Path(folder))
    free = shutil.disk_usage(place).free / 2**30
    if free < LEAST_GIB:
        problems.append(
            f"Only {free:.1f} GiB free; a bag of 2,000 tiles takes 4 to 8 MB. Fix: free some, or write "
            "bags elsewhere."
        )
    facts = {
        **versions(),
        "OpenSlide library": version,
        **_computing(),
        "named backbones": str(len(known)),
        "real weights": ", ".join(weights) or f"none, of {len(known)} known backbones",
        "weights cache": _weights_cache(),
        "free disk": f"{free:.0f} GiB at {place.absolute()}",
    }
    return MachineCheck(facts=facts, problems=tuple(problems), weights=weights)


def _computing() -> dict[str, str]:
    """What computes."""
    import torch

    from features.device import resolve_device
    from features.precision import resolve_precision

    device = resolve_device("auto")
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU, no GPU seen",
        "precision of auto": str(resolve_precision("auto", device)).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
    }


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _weights_cache() -> str:
    """How many weight files timm could use without a network, and where it looks."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    files = [*cache.glob("models--timm--*/snapshots/*/*.safetensors")]
    none = "" if files else "; pretrained weights need a network once, or a file of weights"
    return f"{cache}: {len(files)} files{none}"


def draw_cohort(
    folder: StrPath,
    *,
    cases_per_class: int = 5,
    side_px: int = 4096,
    seed: int = 0,
    progress: "Progress | None" = None,
) -> Path:
    """Draw sarcoma-like slides of four subtypes with annotations, to try everything on, offline.

    Args:
        folder: receives cohort.csv, split.csv (the same cases, one of each subtype set aside as an external
            test), segmentation.csv, and the folders slides, annotations and key_regions.
        cases_per_class: cases of each subtype, with one slide each.
        side_px: width and height of a slide, from 1280 to 16384.
        seed: the same seed draws the same slides.
        progress: shows the slides.

    Returns:
        The table.

    Raises:
        FeaturesError: a number is out of range.

    Example:
        table = mil.draw_cohort("drawn", cases_per_class=1, side_px=1280)
        print(table)
    """
    from features.progress import Silent
    from features.synthetic import CohortSpec, write_cohort

    spec = CohortSpec(cases_per_class=cases_per_class, side_px=side_px, seed=seed)
    with (progress or Silent()).task("slides drawn", spec.n_slides, "slides") as advance:
        return write_cohort(Path(folder), spec, progress=advance)
