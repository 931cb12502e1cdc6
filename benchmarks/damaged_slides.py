"""Slides with chance mutations of their tags and cut tails, through `mil check` and `mil extract`.

Every slide must be accounted for by name, no process may die, and none may stall beyond its budget. Half of
the mutations are mild, so that most of these slides open, and fail later or not at all:

    python -m benchmarks.damaged_slides 5000 --real ../shared/data/slides

Also measured: what the protection costs on good slides, as part of the time of an extraction with and without
it in turn.
"""

import argparse
import contextlib
import csv
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.table import print_table, save
from features.slides.rehearsal import BUDGET_S

CUTS = {
    "tail": 0.0,
    "end": 0.95,
    "last": 0.999,
}  # the first part of a file that may be all that is left
CHANGES = {  # of which bytes, how many at most, and how many side by side
    "bit": ("tags", 1, 1),
    "tag": ("tags", 1, 4),
    "tags": ("tags", 8, 4),
    "offsets": ("offsets", 8, 4),
    "anywhere": ("all", 8, 4),
    "scattered": ("pixels", 200, 1),
    "text": ("texts", 1, 1),
    "pixel": ("pixels", 1, 1),
    "pixels": ("pixels", 8, 4),
    "block": ("pixels", 1, 64),
}
KINDS = (*CHANGES, *CUTS, "longer", "text", "pixel", "block")
BATCH = 125  # slides in one folder, and in one run of each verb
MADE = 18  # slides of each compression, in turn with the real ones, which take longer
COST_TILES = 600
Places = dict[str, NDArray[np.int64]]


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


def damage(content: bytes, places: Places, kind: str, rng: np.random.Generator) -> bytes:
    """A file's bytes after one chance mutation."""
    if kind in CUTS:
        return content[: int(rng.integers(int(CUTS[kind] * len(content)), len(content)))]
    if kind == "longer":
        return content + rng.bytes(int(rng.integers(1, 5000)))
    changed = bytearray(content)
    where, most, width = CHANGES[kind]
    for at in rng.choice(places[where], int(rng.integers(1, most + 1))).tolist():
        stop = min(at + int(rng.integers(1, width + 1)), len(content))
        if kind == "bit":
            changed[at] ^= 1 << int(rng.integers(8))
        else:
            new = (rng.bytes(stop - at), b"\xff" * (stop - at), b"\0" * (stop - at))
            changed[at:stop] = new[int(rng.integers(3))]
    return bytes(changed)


def places_in(path: Path) -> Places:
    """Where in a file its header and the values of its tags are, the texts among them, and its pixels."""
    tags, texts, size = set(range(16)), set(), path.stat().st_size
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            for tag in page.tags:  # type: ignore[union-attr]
                value = range(tag.valueoffset, tag.valueoffset + min(tag.valuebytecount, 256))
                tags |= set(value)
                texts |= set(value) if isinstance(tag.value, str) else set()
    places = {"tags": np.array(sorted(place for place in tags if place < size))}
    places["texts"] = np.array(sorted(texts)) if texts else places["tags"]
    places["offsets"] = places["tags"][len(places["tags"]) // 2 :]
    places["all"] = np.arange(size)
    places["pixels"] = np.setdiff1d(places["all"], places["tags"])
    return places


def sound_slides(
    folder: Path, real: Sequence[Path], rng: np.random.Generator
) -> list[tuple[Path, Places]]:
    """Made slides of several compressions, and real ones."""
    paths = []
    for number, compression in enumerate(("jpeg", "none", "lzw", "deflate") * MADE):
        paths.append(folder / f"sound-{number}.tiff")
        make_slide(paths[-1], rng, compression)
    return [(path, places_in(path)) for path in [*paths, *real]]


def make_damaged(
    folder: Path,
    numbers: Sequence[int],
    sound: Sequence[tuple[Path, Places]],
    rng: np.random.Generator,
) -> list[str]:
    """Damaged slides in a folder, one for each number; their names in order."""
    names = []
    for number in numbers:
        kind = KINDS[number % len(KINDS)]
        path, places = sound[number // len(KINDS) % len(sound)]
        names.append(f"{number:05}-{kind}")
        content = damage(path.read_bytes(), places, kind, rng)
        (folder / f"{names[-1]}{path.suffix}").write_bytes(content)
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


def accounted(table: Path, names: Sequence[str]) -> Counter[str]:
    """How often each status occurs in a verb's table; every name must be there once."""
    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = {row["slide"]: row for row in lines}
    counts = Counter(row["status"] for row in lines)
    counts["not accounted for"] = len(set(names) - set(rows))
    counts["twice"] = len(lines) - len(rows)
    failed = [row for row in lines if row["status"] == "failed"]
    counts["failed without its name"] = sum(row["slide"] not in row["reason"] for row in failed)
    counts["ends the process, by name"] = sum("ends the process" in r["reason"] for r in failed)
    counts["ended at its budget"] = sum("could not be read within" in r["reason"] for r in failed)
    for row in failed:
        counts[f"failed: {row['slide'].partition('-')[2]}"] += 1
    return counts


def survive(
    folder: Path, count: int, seed: int, real: Sequence[Path]
) -> Iterator[tuple[int, dict[str, Counter[str]]]]:
    """Check and extract damaged slides; after each batch, how many they were, and the figures so far."""
    rng = np.random.default_rng(seed)
    figures = {"check": Counter[str](), "extract": Counter[str]()}
    sound = sound_slides(folder, real, rng)
    for start in range(0, count, BATCH):
        with tempfile.TemporaryDirectory() as batch:
            (slides := Path(batch) / "slides").mkdir()
            numbers = range(start, min(start + BATCH, count))
            names = make_damaged(slides, numbers, sound, rng)
            for verb, counts in figures.items():
                status, seconds = run_verb(verb, slides, Path(batch) / verb)
                counts["seconds"] += round(seconds)
                if status < 0:
                    counts[f"died of {signal.Signals(-status).name}"] += 1
                else:
                    counts.update(accounted(Path(batch) / verb / f"{verb}.csv", names))
        yield numbers.stop, figures


def measure_cost(folder: Path, count: int = 4, repeats: int = 3) -> tuple[list[float], float]:
    """Seconds of an extraction with the child over those without it, in turn on the same good slides.

    Only ``COST_TILES`` tiles of a slide are embedded, where a real one has thousands: the cost is an upper
    bound. A run starts its children once, so that this is measured apart.

    Returns:
        The ratio of each repeat, and the seconds until the first child has read a slide.
    """
    from features.extraction import extract, jobs
    from features.extraction.run import extract_slides
    from features.recipe import Recipe
    from features.slides import rehearsal
    from features.slides import slide as direct

    def open_directly(path: Path, **how: object) -> direct.Slide:
        how.pop("progress", None)
        return direct.open_slide(path, **how)  # type: ignore[arg-type]

    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.tiff" for number in range(count)]
    for path in paths:
        make_large(path, rng)
    recipe = Recipe(backbone="efficientnet-lite0", weights="random", mpp=0.5, max_tiles=COST_TILES)

    def seconds(number: int, *, protected: bool) -> float:
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            for module in () if protected else (jobs, extract):
                stack.enter_context(mock.patch.object(module, "open_slide", open_directly))
            extract_slides(paths, folder / f"store-{number}-{protected}", recipe=recipe)
        return time.perf_counter() - started

    with rehearsal.children_ended():
        started = time.perf_counter()
        rehearsal.open_slide(paths[0]).__exit__(None, None, None)
        start_s = time.perf_counter() - started
        seconds(-1, protected=True)  # what is imported once
        ratios = []
        for number in range(repeats):
            first = number % 2 == 0
            times = {kind: seconds(number, protected=kind) for kind in (first, not first)}
            ratios.append(times[True] / times[False])
    return ratios, start_s


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
    """Run the campaign and keep its figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("slides", type=int, nargs="?", default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path, help="folder with small real slides")
    options = parser.parse_args()
    found = sorted(options.real.iterdir()) if options.real else []
    real = [path for path in found if path.suffix in (".svs", ".ndpi")]
    with tempfile.TemporaryDirectory() as folder:
        ratios, start_s = measure_cost(Path(folder))
        settings = {
            "seed": options.seed, "budget_s": BUDGET_S, "real": [path.name for path in real],
            "with protection over without": [round(ratio, 4) for ratio in ratios],
            "seconds until a child has read": round(start_s, 2),
        }  # fmt: skip
        cost = statistics.median(ratios)
        for count, figures in survive(Path(folder), options.slides, options.seed, real):
            keep(count, figures, settings, cost)  # also if the rest is broken off


def keep(
    count: int, figures: Mapping[str, Counter[str]], settings: Mapping[str, object], cost: float
) -> None:
    """Print and save what is known so far."""
    names = sorted({name for counts in figures.values() for name in counts})
    header = ("what", *figures)
    rows = [(name, *(str(counts[name]) for counts in figures.values())) for name in names]
    rows.append(("with protection over without, median", "", f"{cost:.3f}"))
    print_table(header, rows)
    save("damaged-slides", header, rows, {"slides": count, **settings})


if __name__ == "__main__":
    main()
