"""Every measured claim of the manual: which benchmark shows it, run one after the other, in one table.

    python -m benchmarks.claims [--data DATA] [--demo DEMO] [--peer-python PYTHON] [--only NAME,...]

DATA has the public files of real slides and tiles, DEMO is a finished `mil demo`, and PYTHON is of an
environment with LazySlide and torchmil, which `python3 -m venv PEER && PEER/bin/pip install lazyslide
torchmil` makes. What needs one that is not given is listed as not run. All of it takes hours; --only runs a
part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.table import RESULTS, print_table, save

HEADER = ("page", "claim", "benchmark", "outcome", "minutes", "first row")


class Claim(NamedTuple):
    """What is said where, and what measures it.

    Attributes:
        page: of the manual.
        claim: in some words.
        command: the benchmark and its arguments; {data}, {demo}, {peer} and {folder}, an empty one, are
            filled in.
    """

    page: str
    claim: str
    command: str


CLAIMS = (
    Claim("docs/at-scale.md", "speed and memory beside a plain loop", "speed"),
    Claim("docs/at-scale.md", "cost over the size of a cohort", "cohort_sizes --sizes 20,60,200"),
    Claim("docs/at-scale.md", "cost over the tiles of a slide", "extraction --scaling"),
    Claim("docs/comparison.md", "extraction beside LazySlide", "extraction --peer-python {peer}"),
    Claim(
        "docs/comparison.md",
        "learning beside torchmil",
        "learning --only epochs --heads gated-abmil,transmil --rounds 1 --peer {peer}",
    ),
    Claim("docs/judging.md", "coverage of intervals, errors of tests", "intervals"),
    Claim("docs/survival-and-grade.md", "comparing risks", "survival_comparison"),
    Claim("docs/survival-and-grade.md", "intervals of grades", "grade_intervals"),
    Claim("docs/survival-and-grade.md", "facts are not taken for follow-up", "telling"),
    Claim("docs/explaining.md", "maps find planted tiles", "localisation --folder {folder}"),
    Claim(
        "docs/finding-tumour.md", "Dice of the segmenters", "segmentation --folder {folder} --unet"
    ),
    Claim("docs/encoders.md", "which scale is fine enough", "ladder --folder {folder}"),
    Claim(
        "docs/finding-tumour.md",
        "all that raw slides rest on, beside its bar",
        "acceptance --folder {folder} --data {data}",
    ),
    Claim("docs/explaining.md", "the viewer answers all at once", "viewing --demo {demo}"),
    Claim("docs/new-slides.md", "answers for raw slides", "raw_slides --folder {folder}"),
    Claim("docs/fine-tuning.md", "gain of fine-tuning", "finetuning --folder {folder}"),
    Claim(
        "docs/your-slides.md",
        "second scans are found",
        "second_scans --folder {folder} --slides {data}/slides --tiles {data}/tiles/osteosarcoma",
    ),
    Claim(
        "docs/your-slides.md",
        "drawings in wrong frames are noticed",
        "annotation_frames --folder {folder}",
    ),
    Claim(
        "docs/bone-sarcoma.md",
        "fields dealt and patients left out",
        "osteosarcoma --tiles {data}/tiles/osteosarcoma --splits",
    ),
    Claim("docs/at-scale.md", "commands on a busy machine", "busy --demo {demo}"),
)


def main() -> None:
    """Run all that can be run, and print and save the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--only", help="names of benchmarks; all if not given")
    options = parser.parse_args()
    places = {"data": options.data, "demo": options.demo, "peer": options.peer_python}
    chosen = options.only.split(",") if options.only else None
    rows = []
    for claim in CLAIMS:
        if chosen is None or claim.command.split()[0] in chosen:
            rows.append(row_of(claim, places))
            print(*rows[-1], sep=" | ", flush=True)
    print_table(HEADER, rows)
    save("claims", HEADER, rows, {"only": options.only or "all"})


def row_of(claim: Claim, places: dict[str, Path | None]) -> list[str]:
    """Run one benchmark; a row of the table."""
    name = claim.command.split()[0]
    lacking = [
        place for place, path in places.items() if f"{{{place}}}" in claim.command and not path
    ]
    if lacking:
        return [claim.page, claim.claim, name, f"not run: no {' and '.join(lacking)}", "", ""]
    started, before = (
        time.perf_counter(),
        {path: path.stat().st_mtime for path in RESULTS.iterdir()},
    )
    with tempfile.TemporaryDirectory() as folder:
        words = [word.format(folder=folder, **places) for word in claim.command.split()]
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
    minutes = f"{(time.perf_counter() - started) / 60:.1f}"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return [claim.page, claim.claim, name, f"failed: {last}", minutes, ""]
    written = [p for p in RESULTS.glob("*.json") if before.get(p) != p.stat().st_mtime]
    first = json.loads(written[0].read_text())["rows"][0] if written else {}
    shown = ", ".join(f"{key} {value}" for key, value in first.items())
    outcome = ", ".join(path.name for path in written)
    return [claim.page, claim.claim, name, outcome, minutes, shown]


if __name__ == "__main__":
    main()
