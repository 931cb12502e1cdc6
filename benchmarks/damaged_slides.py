"""Slides with chance mutations of their tags and cut tails, through `mil check` and `mil extract`.

Every slide must be accounted for by name, no process may die, and none may stall beyond its budget:

    python -m benchmarks.damaged_slides 5000

Also measured: what the protection costs on good slides, as part of the time of an extraction.
"""

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from features.slides.rehearsal import BUDGET_S

HEAD_BYTES = 1200  # of a made slide: its header and the tags of its pages
KINDS = ("bit", "tag", "tags", "tail", "end", "anywhere", "pixels", "offsets")
RESULTS = Path(__file__).parent / "results" / "damaged_slides.json"


def make_slide(path: Path, rng: np.random.Generator, compression: str) -> None:
    """A pyramid of two levels with tissue on glass."""
    side = int(rng.integers(3, 7)) * 128
    picture = np.full((side, side, 3), 243, np.uint8)
    picture[side // 6 :, : side // 2] = (200, 90, 160)
    picture -= rng.integers(0, 20, picture.shape, dtype=np.uint8)
    with tifffile.TiffWriter(path, bigtiff=bool(rng.integers(2))) as tiff:
        for step in (1, 4):
            tiff.write(
                picture[::step, ::step],
                tile=(128, 128),
                photometric="rgb",
                compression=None if compression == "none" else compression,
                resolution=(1e4 / (0.5 * step),) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(step > 1),
                metadata=None,
            )


def damage(content: bytes, places: NDArray[np.int64], kind: str, rng: np.random.Generator) -> bytes:
    """A file's bytes after one chance mutation."""
    if kind in ("tail", "end"):
        first = 0 if kind == "tail" else int(0.95 * len(content))
        return content[: int(rng.integers(first, len(content)))]
    changed = bytearray(content)
    if kind == "bit":
        changed[int(rng.choice(places))] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == "anywhere":
        places = np.arange(len(content))
    elif kind == "pixels":
        places = np.setdiff1d(np.arange(len(content)), places)
    elif kind == "offsets":
        places = places[len(places) // 2 :]
    for _ in range(1 if kind == "tag" else int(rng.integers(1, 9))):
        at = int(rng.choice(places))
        width = int(rng.choice([1, 1, 2, 4]))
        changed[at : at + width] = rng.choice(
            [bytes(rng.integers(0, 256, width, dtype=np.uint8)), b"\xff" * width, b"\0" * width]
        )
    return bytes(changed[: len(content)])


def tag_bytes(content: bytes) -> NDArray[np.int64]:
    """The places in a file where its header and the values of its tags are."""
    with tempfile.NamedTemporaryFile(suffix=".tiff") as file:
        file.write(content)
        file.flush()
        places = set(range(16))
        with tifffile.TiffFile(file.name) as tiff:
            for page in tiff.pages:
                assert isinstance(page, tifffile.TiffPage)
                for tag in page.tags:
                    places |= set(
                        range(tag.valueoffset, tag.valueoffset + min(tag.valuebytecount, 256))
                    )
    return np.array(sorted(place for place in places if place < len(content)))


def make_damaged(folder: Path, count: int, seed: int) -> list[str]:
    """So many damaged slides in a folder, their names in order."""
    rng = np.random.default_rng(seed)
    sound = []
    for number, compression in enumerate(("jpeg", "none", "lzw", "jpeg2000") * 3):
        path = folder / f"sound-{number}.tiff"
        make_slide(path, rng, compression)
        sound.append((path.read_bytes(), tag_bytes(path.read_bytes())))
        path.unlink()
    names = []
    for number in range(count):
        content = damage(*sound[number % len(sound)], KINDS[number % len(KINDS)], rng)
        names.append(f"{number:05}-{KINDS[number % len(KINDS)]}")
        (folder / f"{names[-1]}.tiff").write_bytes(content)
    return names


def run_verb(verb: str, slides: Path, out: Path) -> tuple[int, float]:
    """The exit status of a verb over all slides, and its seconds."""
    command = [
        sys.executable, "-m", "cli", verb, slides, "--out", out, "--slide-mpp", "0.5", "--mpp", "0.5",
        "--tile", "64", "--backbone", "test_resnet", "--weights", "random", "--max-tiles", "20",
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode, time.perf_counter() - started


def accounted(table: Path, names: list[str]) -> dict[str, int]:
    """How often each status occurs in a verb's table; every name must be there once."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    missing = sorted(set(names) - set(rows))
    assert not missing, f"{len(missing)} slides are not in {table}: {missing[:5]}"
    unexplained = [
        name
        for name, row in rows.items()
        if row["status"] == "failed" and name not in row["reason"]
    ]
    counts: dict[str, int] = {}
    for row in rows.values():
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return counts | {"failed without its name": len(unexplained)}


def survive(count: int, seed: int) -> dict[str, object]:
    """Check and extract damaged slides; figures of both."""
    figures: dict[str, object] = {"slides": count, "seed": seed, "budget_s": BUDGET_S}
    with tempfile.TemporaryDirectory() as folder:
        slides = Path(folder) / "slides"
        slides.mkdir()
        names = make_damaged(slides, count, seed)
        for verb, table in (("check", "check.csv"), ("extract", "extract.csv")):
            status, seconds = run_verb(verb, slides, Path(folder) / verb)
            died = signal.Signals(-status).name if status < 0 else ""
            found = accounted(Path(folder) / verb / table, names) if not died else {}
            figures[verb] = {
                "exit": status,
                "died of": died,
                "seconds": round(seconds, 1),
                "seconds per slide": round(seconds / count, 3),
                **found,
            }
    return figures


def measure_cost(folder: Path, count: int = 12, repeats: int = 3) -> dict[str, float]:
    """Seconds of opening good slides with and without a child, beside those of embedding 2,000 tiles."""
    from features.slides import rehearsal
    from features.slides import slide as direct

    rng, times = np.random.default_rng(0), {"direct": [], "rehearsed": []}
    for number in range(count):
        make_large(folder / f"{number}.tiff", rng)
    with rehearsal.children_ended():
        rehearsal.open_slide(folder / "0.tiff").__exit__(None, None, None)  # the child is started
        for _ in range(repeats):
            for name, opened in (
                ("direct", direct.open_slide),
                ("rehearsed", rehearsal.open_slide),
            ):
                started = time.perf_counter()
                for number in range(count):
                    with opened(folder / f"{number}.tiff") as slide:
                        slide.thumbnail(direct.OVERVIEW_PX)
                times[name].append((time.perf_counter() - started) / count)
    return {name: round(min(seconds), 4) for name, seconds in times.items()}


def make_large(path: Path, rng: np.random.Generator) -> None:
    """A JPEG pyramid of 8,192 x 8,192 pixels."""
    small = rng.integers(120, 250, (512, 512, 3), dtype=np.uint8)
    picture = np.tile(small, (16, 16, 1))
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 4, 16):
            tiff.write(
                picture[::step, ::step], tile=(256, 256), photometric="rgb", compression="jpeg",
                resolution=(1e4 / (0.5 * step),) * 2, resolutionunit="CENTIMETER", subfiletype=int(step > 1),
                metadata=None,
            )  # fmt: skip


def main() -> None:
    """Run the campaign and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", type=int, nargs="?", default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = survive(options.slides, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        figures["seconds to open a slide of 8,192 px"] = measure_cost(Path(folder))
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
