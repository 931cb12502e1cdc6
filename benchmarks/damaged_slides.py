"""Slides with chance mutations of their tags and cut tails, through `mil check` and `mil extract`.

Every slide must be accounted for by name, no process may die, and none may stall beyond its budget. Half of
the mutations are mild, so that most of these slides open, and fail later or not at all:

    python -m benchmarks.damaged_slides 5000 --real ../shared/data/slides

With --cost instead: what the protection costs on good slides, in processor time of an extraction with and
without it in turn, children included:

    python -m benchmarks.damaged_slides --cost
"""

import argparse
import contextlib
import csv
import resource
import signal
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
TILES = 36**2  # of a good slide
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


def measure_cost(folder: Path, count: int = 4, repeats: int = 2) -> list[tuple[float, float]]:
    """Processor seconds of an extraction with and without the child, in turn on the same good slides.

    Wall time says nothing on a machine that has other work. Every run starts its child, for a few slides of
    1,296 tiles, where a real run has hundreds of larger ones: the cost is an upper bound.
    """
    from features.extraction import extract, jobs
    from features.extraction.run import extract_slides
    from features.recipe import Recipe
    from features.slides import slide as direct

    def open_directly(path: Path, **how: object) -> direct.Slide:
        how.pop("progress", None)
        return direct.open_slide(path, **how)  # type: ignore[arg-type]

    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.tiff" for number in range(count)]
    for path in paths:
        make_large(path, rng)
    recipe = Recipe(backbone="efficientnet-lite0", weights="random", mpp=0.5)

    def seconds(name: str, slides: Sequence[Path], *, protected: bool) -> float:
        started = processor_seconds()
        with contextlib.ExitStack() as stack:
            for module in () if protected else (jobs, extract):
                stack.enter_context(mock.patch.object(module, "open_slide", open_directly))
            done = extract_slides(slides, folder / f"store-{name}-{protected}", recipe=recipe)
            assert all(outcome.n_tiles == TILES for outcome in done.outcomes), done.outcomes
        return processor_seconds() - started

    seconds("first", paths[:1], protected=True)  # what is imported once
    runs = []
    for number in range(repeats):
        order = (True, False) if number % 2 == 0 else (False, True)
        times = {kind: seconds(str(number), paths, protected=kind) for kind in order}
        runs.append((times[True], times[False]))
    return runs


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def make_large(path: Path, rng: np.random.Generator) -> None:
    """A JPEG pyramid of 8,192 x 8,192 pixels, all of it tissue."""
    small = rng.integers(0, 60, (512, 512, 3), dtype=np.uint8)
    small += np.array((170, 80, 150), np.uint8)
    picture = np.tile(small, (16, 16, 1))
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 4, 16):
            tiff.write(
                picture[::step, ::step], tile=(256, 256), photometric="rgb", compression="jpeg",
                resolution=(1e4 / (0.5 * step),) * 2, resolutionunit="CENTIMETER", subfiletype=int(step > 1),
                metadata=None,
            )  # fmt: skip


def main() -> None:
    """Run the campaign, or measure the cost, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("slides", type=int, nargs="?", default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path, help="folder with small real slides")
    parser.add_argument("--cost", action="store_true")
    options = parser.parse_args()
    files = sorted(options.real.iterdir()) if options.real else []
    real = [path for path in files if path.suffix in (".svs", ".ndpi")]
    settings = {
        "seed": options.seed, "budget_s": BUDGET_S, "real": [path.name for path in real],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if options.cost:
            keep_cost(measure_cost(Path(folder)))
            return
        for count, figures in survive(Path(folder), options.slides, options.seed, real):
            keep({"slides": count, **settings}, figures)  # also if the rest is broken off


def keep(settings: Mapping[str, object], figures: Mapping[str, Counter[str]]) -> None:
    """Print and save what is known so far."""
    names = sorted({name for counts in figures.values() for name in counts})
    header = ("what", *figures)
    rows = [(name, *(str(counts[name]) for counts in figures.values())) for name in names]
    print_table(header, rows)
    save("damaged-slides", header, rows, settings)


def keep_cost(runs: Sequence[tuple[float, float]]) -> None:
    """Print and save processor seconds and their ratio."""
    header = ("processor seconds with protection", "without", "ratio")
    rows = [(f"{one:.2f}", f"{other:.2f}", f"{one / other:.3f}") for one, other in runs]
    print_table(header, rows)
    save("protection-cost", header, rows, {"slides": 4, "tiles of each": TILES})


if __name__ == "__main__":
    main()
