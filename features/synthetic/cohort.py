"""The demo cohort as files: what lies where on each slide, and what is written about it.

Each slide is tissue on glass with fat, stroma and a spindle cell tumour that is drawn alike for
every subtype. Only in a few compact *key regions* of the tumour does the subtype show: vacuolated
cells (DDLPS), fascicles (LMS), glands (SS) or whorls around vessels (MPNST). Stain, cellularity and
collagen vary from slide to slide and know nothing of the label, so a mean over all tiles drowns
the signal that attention finds. `_draw_slide` hands the label to `draw_key` alone, with a generator
of its own.
"""

from __future__ import annotations

import csv
import json
import math
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image
from shapely import affinity
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.ops import unary_union

from features.errors import FeaturesError
from features.files.atomic import write_atomic
from features.synthetic.drawing import colour, draw_fold, draw_ground, draw_key, make_look
from features.synthetic.strokes import CELLS, Rng, sprite_bank

SUBTYPES = ("DDLPS", "LMS", "SS", "MPNST")
MPP = 0.25
_KEY_AREA_PX = 480_000  # about 750 px across: whole tiles of 112 um fall inside
_LABELS, _PLAN, _LOOK, _GROUND, _KEYS = range(1, 6)  # one random stream for each purpose
_COLOURS = {"Tumor": [200, 0, 0], "Ignore*": [180, 180, 180], "Key": [0, 120, 200]}


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """How large the demo cohort is and how hard.

    Attributes:
        cases_per_class: cases of each of the four subtypes, one slide a case.
        side_px: width and height of a slide at 0.25 mpp.
        key_fraction: share of the tumour area that carries the subtype's pattern, in (0, 0.3].
        seed: the same seed writes the same slides.
    """

    cases_per_class: int = 5
    side_px: int = 4096
    key_fraction: float = 0.17
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cases_per_class < 1:
            raise FeaturesError(
                f"cases_per_class is at least 1; got {self.cases_per_class}. Write 5 for a demo."
            )
        if not 1280 <= self.side_px <= 16384:
            raise FeaturesError(
                f"side_px is between 1280 and 16384; got {self.side_px}. "
                "Smaller slides hold no whole key tile; 4096 is the default."
            )
        if not 0 < self.key_fraction <= 0.3:
            raise FeaturesError(
                f"key_fraction is a fraction in (0, 0.3]; got {self.key_fraction}. "
                "For 20 % of the tumour write 0.2."
            )
        if self.seed < 0:
            raise FeaturesError(f"seed is not negative; got {self.seed}. Pass 0 or more.")


def write_cohort(
    folder: Path,
    spec: CohortSpec = CohortSpec(),
    *,
    progress: Callable[[int], None] = lambda _n: None,
) -> Path:
    """Draw the demo cohort and write its slides, annotations, key regions and table.

    Args:
        folder: made if absent; gets `cohort.csv`, `split.csv` (the same, one case of each subtype kept
            for an external test), `slides/`, `annotations/` and `key_regions/`.
        spec: size and difficulty.
        progress: called with 1 after each slide.

    Returns:
        Path of `cohort.csv` with the columns case, slide, label, time (in months), event; written last.
    """
    for name in ("slides", "annotations", "key_regions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    labels = _labels(spec)
    digits = max(2, len(str(len(labels))))
    cases = [f"case-{i:0{digits}d}" for i in range(1, len(labels) + 1)]
    for kind in CELLS:
        sprite_bank(kind)  # once, before the threads ask for them together
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(_write_slide, folder, f"{case}-s1", spec, i, label)
            for i, (case, label) in enumerate(zip(cases, labels, strict=True))
        ]
        for job in jobs:
            job.result()
            progress(1)
    table = folder / "cohort.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("case", "slide", "label", "time", "event"))
        rng = np.random.default_rng([spec.seed, len(cases)])
        for case, label in zip(cases, labels, strict=True):
            rows.writerow((case, f"{case}-s1", label, *_followed(label, rng)))
    _write_split(folder / "split.csv", cases, labels)
    return table


def _write_split(path: Path, cases: Sequence[str], labels: Sequence[str]) -> None:
    last = {label: case for case, label in zip(cases, labels, strict=True)}
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("case", "slide", "label", "split"))
        for case, label in zip(cases, labels, strict=True):
            rows.writerow((case, f"{case}-s1", label, "test" if last[label] == case else "train"))


def _followed(label: str, rng: np.random.Generator) -> tuple[str, int]:
    """Months until the event, or until the end of observation (0); each subtype has its own hazard."""
    met = rng.exponential(80 / 3 ** SUBTYPES.index(label))
    left = rng.uniform(12, 72)
    return f"{min(met, left):.1f}", int(met <= left)


def key_tiles(key_regions: Path, coords_l0: NDArray[Any], side_l0: float) -> NDArray[np.bool_]:
    """Say which tiles show the planted pattern.

    Args:
        key_regions: a GeoJSON file from `key_regions/`.
        coords_l0: (N, 2) top-left corners, level 0 pixels.
        side_l0: side of a tile, level 0 pixels.

    Returns:
        (N,) bool, True where at least half of the tile lies in the planted regions.
    """
    features = json.loads(key_regions.read_text(encoding="utf-8"))["features"]
    regions = unary_union([shape(feature["geometry"]) for feature in features])
    x, y = np.asarray(coords_l0, dtype=np.float64).reshape(-1, 2).T
    tiles = shapely.box(x, y, x + side_l0, y + side_l0)
    area = shapely.area(shapely.intersection(tiles, regions))
    return np.asarray(area >= 0.5 * side_l0**2, dtype=np.bool_)


def _labels(spec: CohortSpec) -> list[str]:
    """Balanced labels in the order of the cases, never sorted: a name must not give one away."""
    rng = np.random.default_rng([spec.seed, _LABELS])
    labels = sorted(SUBTYPES * spec.cases_per_class)
    while labels == sorted(labels):
        labels = rng.permutation(labels).tolist()
    return labels


def _write_slide(folder: Path, slide: str, spec: CohortSpec, index: int, label: str) -> None:
    plan = _plan(spec, index)
    regions = [("Tumor", plan.tumour), ("Tumor", plan.satellites), ("Ignore*", plan.fold)]
    _write_geojson(folder / "annotations" / f"{slide}.geojson", regions, f"{spec.seed}/{slide}")
    keys = [("Key", key) for key in plan.keys]
    _write_geojson(folder / "key_regions" / f"{slide}.geojson", keys, f"{spec.seed}/{slide}")
    _write_pyramid(folder / "slides" / f"{slide}.tiff", _draw_slide(spec, index, label))


def _draw_slide(spec: CohortSpec, index: int, label: str) -> NDArray[np.uint8]:
    """Draw slide `index`; outside the key regions the pixels do not depend on `label`."""
    plan = _plan(spec, index)
    look = make_look(np.random.default_rng([spec.seed, _LOOK, index]))
    rng = np.random.default_rng([spec.seed, _GROUND, index])
    canvas = draw_ground(
        spec.side_px,
        look,
        rng,
        tissue=plan.tissue,
        tumour=plan.tumour,
        satellites=plan.satellites,
    )
    rng = np.random.default_rng([spec.seed, _KEYS, index])
    draw_fold(canvas, plan.fold)  # before the keys: it copies what lies around it
    for key in plan.keys:
        draw_key(canvas, key, label, rng)
    return colour(canvas, look)


def _write_geojson(path: Path, regions: list[tuple[str, Any]], origin: str) -> None:
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{origin}/{name}/{number}")),
            "geometry": mapping(geometry),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": _COLOURS[name]},
            },
        }
        for number, (name, geometry) in enumerate(regions)
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    write_atomic(path, text + "\n")


def _write_pyramid(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write a tiled JPEG TIFF of three levels, as plain pages: OpenSlide skips subIFDs here."""
    level = Image.fromarray(rgb)
    with tifffile.TiffWriter(path) as tiff:
        for power in range(3):
            tiff.write(
                np.asarray(level),
                subfiletype=int(power > 0),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                subsampling=(2, 2),
                resolution=(1e4 / (MPP * 4**power),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
                maxworkers=1,
            )
            level = level.reduce(4)


# --- where things lie -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Regions of one slide in level 0 pixels; made without the label."""

    tissue: Any
    tumour: Any  # a polygon; its hole is necrosis
    satellites: MultiPolygon
    fold: Any
    keys: list[Any]


def _plan(spec: CohortSpec, index: int) -> _Plan:
    """Lay out slide `index`: one arrangement, jittered, turned and mirrored."""
    rng = np.random.default_rng([spec.seed, _PLAN, index])
    side = spec.side_px
    turn, mirror = 90 * int(rng.integers(4)), 1 - 2 * int(rng.integers(2))

    def place(x: float, y: float, r: float, wobble: float, squareness: float = 2.0) -> Any:
        unit: Any = _blob(rng, wobble, squareness)
        unit = affinity.translate(affinity.scale(unit, r, r, origin=(0, 0)), x - 0.5, y - 0.5)
        unit = affinity.rotate(affinity.scale(unit, mirror, 1, origin=(0, 0)), turn, origin=(0, 0))
        unit = affinity.translate(unit, 0.5, 0.5)
        return shapely.set_precision(affinity.scale(unit, side, side, origin=(0, 0)), 0.01)

    x, y = 0.41 + rng.uniform(-0.01, 0.01, 2)
    way = rng.uniform(0, 2 * math.pi)
    hole = place(x + 0.18 * math.cos(way), y + 0.18 * math.sin(way), 0.05, 0.08)
    tumour = place(x, y, 0.345, 0.05).difference(hole)
    satellites = MultiPolygon([place(0.82, 0.8, 0.13, 0.06), place(0.2, 0.865, 0.105, 0.06)])
    lean = way + rng.choice([-1, 1]) * rng.uniform(0.7, 1.0)
    strip = place(x + 0.27 * math.cos(lean), y + 0.27 * math.sin(lean), 0.12, 0.02)
    strip = affinity.rotate(affinity.scale(strip, 1.0, 0.14), rng.uniform(0, 180))
    fold = shapely.set_precision(strip, 0.01)
    tissue = place(0.5, 0.5, 0.465, 0.02, 8.0)
    both = unary_union([tumour, satellites])
    keys = _place_keys(both, both.difference(fold), spec.key_fraction, rng)
    return _Plan(tissue.union(both.buffer(0.01 * side)), tumour, satellites, fold, keys)


def _blob(rng: Rng, wobble: float, squareness: float = 2.0) -> Polygon:
    """A star-shaped outline of about unit radius around the origin; squareness 2 is round."""
    theta = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    norm = np.abs(np.cos(theta)) ** squareness + np.abs(np.sin(theta)) ** squareness
    radius = norm ** (-1 / squareness)
    for k in range(2, 9):
        radius = radius * (
            1 + wobble * rng.uniform(-1, 1) / k**0.5 * np.cos(k * theta + rng.uniform(0, 7))
        )
    return Polygon(np.column_stack([radius * np.cos(theta), radius * np.sin(theta)]))


def _place_keys(tumour: Any, free: Any, fraction: float, rng: Rng) -> list[Any]:
    """Lay equal compact regions without overlap whose areas sum to `fraction` of the tumour."""
    count = max(1, round(fraction * tumour.area / _KEY_AREA_PX))
    area = fraction * tumour.area / count
    for _ in range(100):
        keys: list[Any] = []
        left = free
        while len(keys) < count:
            key: Any = _blob(rng, 0.05)
            grow = math.sqrt(area / key.area)
            key = affinity.scale(key, grow, grow, origin=(0, 0))
            centres = left.buffer(-1.05 * math.sqrt(area / math.pi))
            if centres.is_empty:
                break
            at = _point_in(centres, rng)
            key = shapely.set_precision(affinity.translate(key, *at), 0.01)
            if left.contains(key):
                keys.append(key)
                left = left.difference(key.buffer(0.1 * math.sqrt(area)))
        else:
            return keys
    raise ValueError(f"key regions do not fit: key_fraction {fraction}. Lower it towards 0.2.")


def _point_in(region: Any, rng: Rng) -> tuple[float, float]:
    x0, y0, x1, y1 = region.bounds
    while True:
        at = float(rng.uniform(x0, x1)), float(rng.uniform(y0, y1))
        if region.contains(shapely.Point(at)):
            return at
