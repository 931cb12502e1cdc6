"""Is a slide that was scanned twice recognised among others, and how often are two slides taken for one?

    python -m benchmarks.second_scans --folder FOLDER [--slides SLIDES] [--tiles TILES]

Draws cohorts of 41 slides of the demo generator into FOLDER. Slides of the first are changed as a second
scan is, one way at a time and all together, and compared with the 41 that are there; so are the real slides
of SLIDES and fields of TILES (a folder of pictures of 1,024 px at 0.5 micrometres per pixel). All unchanged
slides are compared with each other; of the fields, those of one block are not. Everything is read from a
picture of 512 px, as it lies in a bag.
"""

import argparse
import contextlib
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.table import print_table, save
from features.errors import FeaturesError
from features.extraction.extract import THUMBNAIL_PX
from features.slides.second_scans import find_second_scans, is_comparable
from features.slides.structure import Structure
from features.synthetic import CohortSpec
from features.synthetic.cohort import SUBTYPES, draw_slide
from features.tiles.stain import Stain, fit_stain, normalise
from mil.data.duplicates import read_structure
from mil.evaluation.intervals import wilson

Rgb = NDArray[np.uint8]
SLIDES, GLASS = 41, 243
DEMO_MPP, FIELD_MPP = 0.25, 0.5
REAL = {"CMU-1-Small-Region.svs": 0.499, "TCGA-CR-7395-01A-01-TS1.svs": 0.5}
FLUORESCENCE = {"fluorescence-DAPI.ndpi": 0.228}
STAINS = (
    ((0.90, 1.00, 0.40), (0.08, 0.90, 0.25)),
    ((0.65, 0.70, 0.29), (0.27, 0.77, 0.42)),
    ((1.10, 0.60, 0.50), (0.20, 0.55, 0.60)),
)
HEADER = ("change", "demo", "real")


@dataclass(frozen=True)
class Scan:
    """A slide at level 0."""

    name: str
    rgb: Rgb
    mpp: float


def main() -> None:
    """Print and save what is recognised, the false alarms and the time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slides", type=Path, default=Path())
    parser.add_argument("--tiles", type=Path, default=Path())
    parser.add_argument("--cohorts", type=int, default=3)
    parser.add_argument("--side", type=int, default=2560)
    parser.add_argument("--changed", type=int, default=10, help="demo slides and fields, each")
    options = parser.parse_args()
    demo = [
        draw(options.folder, options.side, seed, index)
        for seed in range(1, options.cohorts + 1)
        for index in range(SLIDES)
    ]
    real = read_real(options.slides, options.tiles)
    known, seconds = {}, []
    for scan in [*demo, *real]:
        known[scan.name], spent = read(scan)
        seconds.append(spent)
    alarms = count_alarms(known)
    n_demo = min(options.changed, SLIDES)
    fields = [scan for scan in real if scan.name not in {**REAL, **FLUORESCENCE}]
    step = max(1, len(fields) // options.changed)
    examples = {
        "demo": demo[:n_demo],
        "real": [scan for scan in real if scan not in fields] + fields[::step],
    }
    others = {"demo": list(known)[:SLIDES], "real": [scan.name for scan in real]}
    rows = []
    for change, make in CHANGES.items():
        counts = [
            count_recognised(examples[kind], make, {name: known[name] for name in others[kind]})
            for kind in ("demo", "real")
        ]
        rows.append((change, *counts))
        print(*rows[-1], flush=True)
    print_table(HEADER, rows)
    facts = {**alarms, "seconds per slide": f"{np.median(seconds):.3f}"}
    for name, text in facts.items():
        print(f"{name}: {text}")
    save("second_scans", HEADER, rows, facts | {"demo side": options.side})


def count_recognised(
    scans: Sequence[Scan], make: Callable[[Rgb], Rgb], others: Mapping[str, Structure | None]
) -> str:
    """How many changed slides are taken for the slide they were made of, and for others too."""
    changed: dict[str, Structure | None] = {}
    for scan in scans:
        with contextlib.suppress(FeaturesError):  # a stain cannot be fitted to fluorescence
            rgb = np.ascontiguousarray(make(scan.rgb))
            changed[scan.name], _ = read(Scan(scan.name, rgb, scan.mpp))
    names = [*others, *changed]
    # Only pairs of a changed and an unchanged slide: the others are counted by ``count_alarms``.
    groups = [0] * len(others) + [1] * len(changed)
    pairs = find_second_scans([*others.values(), *changed.values()], groups)
    right = sum(names[pair.first] == names[pair.second] for pair in pairs)
    wrong = f", and {len(pairs) - right} others" if len(pairs) > right else ""
    return f"{right}/{len(changed)}{wrong}"


def count_alarms(known: Mapping[str, Structure | None]) -> dict[str, str]:
    """Pairs of different slides that are taken for one specimen, and the time that this takes."""
    names = list(known)
    blocks = [block_of(name) for name in names]
    started, cpu = time.perf_counter(), time.process_time()
    pairs = find_second_scans(list(known.values()), blocks)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    sizes = Counter(blocks)
    n_pairs = (len(names) ** 2 - sum(n**2 for n in sizes.values())) // 2
    for pair in pairs:
        print("false alarm:", names[pair.first], names[pair.second], pair)
    upper = wilson(len(pairs), n_pairs).high
    return {
        "slides that are not comparable": str([n for n in names if not is_comparable(known[n])]),
        "false alarms": f"{len(pairs)} of {n_pairs} pairs",
        "false alarms per 1,000 pairs, upper 95 % limit": f"{1000 * upper:.2f}",
        "seconds per 1,000 pairs": f"{1000 * wall / n_pairs:.2f}",
        "processor seconds per 1,000 pairs": f"{1000 * cpu / n_pairs:.2f}",
    }


def read(scan: Scan) -> tuple[Structure | None, float]:
    """The structure of a slide by its picture as a bag holds it, and the seconds that it took."""
    picture = Image.fromarray(scan.rgb)
    picture.thumbnail((1024, 1024))
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    started = time.process_time()
    structure = read_structure(file.getvalue(), scan.rgb.shape[1] * scan.mpp)
    return structure, time.process_time() - started


def draw(folder: Path, side: int, seed: int, index: int) -> Scan:
    """A slide of the demo generator, kept in a folder."""
    path = folder / f"d{seed}-{side}-{index:02}.jpg"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        spec = CohortSpec(cases_per_class=-(-SLIDES // 4), side_px=side, seed=seed)
        rgb = draw_slide(spec, index, SUBTYPES[index % 4])
        Image.fromarray(rgb).save(path, quality=92)
    return Scan(path.stem, np.asarray(Image.open(path)), DEMO_MPP)


def read_real(slides: Path, tiles: Path) -> list[Scan]:
    scans = []
    for name, mpp in {**REAL, **FLUORESCENCE}.items():
        if (slides / name).is_file():
            with openslide.OpenSlide(slides / name) as slide:
                rgb = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
            scans.append(Scan(name, np.asarray(rgb), mpp))
    scans += [
        Scan(path.stem, np.asarray(Image.open(path).convert("RGB")), FIELD_MPP)
        for path in sorted(tiles.glob("*___*.jpg"))
    ]
    return scans


def block_of(name: str) -> str:
    """The block of a field, ``class___case-block-x-y_n``; the name of anything else."""
    return name.split("___")[1].rsplit("-", 2)[0] if "___" in name else name


def recolour(rgb: Rgb, stains: Any) -> Rgb:
    """As if stained or scanned with other colours: its two stains are replaced."""
    rng = np.random.default_rng(0)
    side = min(256, *rgb.shape[:2])
    corners = [[int(rng.integers(0, n - side + 1)) for n in rgb.shape[:2]] for _ in range(60)]
    tiles = np.stack([rgb[y : y + side, x : x + side] for y, x in corners])
    return normalise(rgb[None], fit_stain("macenko", tiles), Stain("macenko", stains))[0]


def save_again(rgb: Rgb, quality: int) -> Rgb:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def blur(rgb: Rgb, sigma_px: float) -> Rgb:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma_px)))


def move(rgb: Rgb, right: int, down: int) -> Rgb:
    moved = np.full_like(rgb, GLASS)
    moved[down:, right:] = rgb[: rgb.shape[0] - down, : rgb.shape[1] - right]
    return moved


def scale(rgb: Rgb, factor: float) -> Rgb:
    size = round(rgb.shape[1] * factor), round(rgb.shape[0] * factor)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def tilt(rgb: Rgb, degrees: float) -> Rgb:
    glass = (GLASS,) * 3
    return np.asarray(
        Image.fromarray(rgb).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=glass)
    )


def crop(rgb: Rgb, part: float) -> Rgb:
    return rgb[:, : int(rgb.shape[1] * part)]


def change_all(rgb: Rgb) -> Rgb:
    moved = scale(move(recolour(rgb, STAINS[0]), 37, 53), 0.98)
    return np.rot90(save_again(blur(moved, 4), 40))


CHANGES: dict[str, Callable[[Rgb], Rgb]] = {
    "stain 1": lambda rgb: recolour(rgb, STAINS[0]),
    "stain 2": lambda rgb: recolour(rgb, STAINS[1]),
    "stain 3": lambda rgb: recolour(rgb, STAINS[2]),
    "blurred, 4 px": lambda rgb: blur(rgb, 4),
    "JPEG 40": lambda rgb: save_again(rgb, 40),
    "moved by (37, 53) px": lambda rgb: move(rgb, 37, 53),
    "scaled by .98": lambda rgb: scale(rgb, 0.98),
    "turned by 90": np.rot90,
    "turned by 180": lambda rgb: np.rot90(rgb, 2),
    "stain 1, moved, .98, blurred, JPEG 40, turned": change_all,
    "mirrored": lambda rgb: rgb[:, ::-1],
    "half of it": lambda rgb: crop(rgb, 0.5),
    "turned by 3": lambda rgb: tilt(rgb, 3),
    "scaled by .95": lambda rgb: scale(rgb, 0.95),
    "blurred, 12 px": lambda rgb: blur(rgb, 12),
    "moved by a quarter": lambda rgb: move(rgb, rgb.shape[1] // 4, rgb.shape[0] // 4),
    "a quarter of it": lambda rgb: crop(rgb, 0.25),
    "turned by 8": lambda rgb: tilt(rgb, 8),
    "scaled by .90": lambda rgb: scale(rgb, 0.90),
    "turned by 30": lambda rgb: tilt(rgb, 30),
}

if __name__ == "__main__":
    main()
