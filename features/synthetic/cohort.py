"""The demo cohort as files: slides, annotations, key regions and the table.

Each slide is tissue on glass with fat, stroma and a spindle cell tumour that looks the same for every
subtype. The subtype shows only in a few compact *key regions* of the tumour: vacuolated cells (DDLPS),
fascicles (LMS), glands (SS) or whorls around vessels (MPNST). Every case has something of another subtype's
pattern as well, and every third one nearly as much as of its own.
Stain, cellularity and collagen vary from slide to slide independently of the label, so that a mean over all
tiles drowns the signal that attention picks up. `draw_slide` passes the label to `draw_key` only, with a
separate random generator.

What looks like tumour is there too: reactive stroma of its colours, muscle, lymphoid aggregates; and tumour
that does not look like it, hyalinised. Some slides have two pieces of tissue. On some the satellites of the
tumour are not drawn, and two further slides have no tumour.
"""

from __future__ import annotations

import csv
import json
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
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
from features.synthetic.drawing import draw_fold, draw_ground, draw_key, make_look, to_rgb
from features.synthetic.strokes import CELLS, Rng, sprite_bank

SUBTYPES = ("DDLPS", "LMS", "SS", "MPNST")
MPP = 0.25
_KEY_AREA_PX = 480_000  # about 750 px across: contains whole tiles of 112 um
_KEY_STRENGTH = (0.8, 1.0)  # of the pattern over the shared tumour, drawn for each case
_FOREIGN_SHARE = 0.2  # at most, of another subtype's pattern in that of a case
_MIXED_SHARE = 0.45  # of every third case
_NORMAL_PARTS = ("train", "test")  # of the slides without tumour, in no case of the table
_NORMAL_SLIDES = len(_NORMAL_PARTS)
_GAP_PX = 100  # of glass between two pieces of tissue
_LABELS, _PLAN, _LOOK, _GROUND, _KEYS = range(1, 6)  # one random stream per purpose
_COLOURS = {
    "Tumor": [200, 0, 0],
    "Normal": [0, 160, 0],
    "Ignore*": [180, 180, 180],
    "Key": [0, 120, 200],
}


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """Size and difficulty of the demo cohort.

    Attributes:
        cases_per_class: cases of each of the four subtypes, with one slide per case.
        side_px: width and height of a slide at 0.25 mpp.
        key_fraction: fraction of the tumour area that shows the subtype's pattern, in (0, 0.3].
        seed: the same seed writes the same slides.

    Raises:
        FeaturesError: a setting is out of range.
    """

    cases_per_class: int = 5
    side_px: int = 4096
    key_fraction: float = 0.125
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cases_per_class < 1:
            raise FeaturesError(
                f"cases_per_class must be at least 1; got {self.cases_per_class}. Use 5 for a demo."
            )
        if not 1280 <= self.side_px <= 16384:
            raise FeaturesError(
                f"side_px must be between 1280 and 16384; got {self.side_px}. "
                "Use 4096; smaller slides contain no whole key tile."
            )
        if not 0 < self.key_fraction <= 0.3:
            raise FeaturesError(
                f"key_fraction must be a fraction in (0, 0.3]; got {self.key_fraction}. "
                "For 20 % of the tumour use 0.2."
            )
        if self.seed < 0:
            raise FeaturesError(f"seed must be 0 or more; got {self.seed}. Use 0.")

    @property
    def n_cases(self) -> int:
        """Cases of all subtypes."""
        return len(SUBTYPES) * self.cases_per_class

    @property
    def n_slides(self) -> int:
        """Slides that are drawn: one of each case, and those without tumour."""
        return self.n_cases + _NORMAL_SLIDES


def write_cohort(
    folder: Path,
    spec: CohortSpec = CohortSpec(),
    *,
    progress: Callable[[int], None] = lambda _n: None,
) -> Path:
    """Draw the demo cohort and write its slides, annotations, key regions and table.

    Args:
        folder: made if absent; receives `cohort.csv`, `split.csv` (the same cases, one of each subtype
            set aside as an external test), `segmentation.csv` (all slides, also those without tumour, with a
            column `annotated`: full, or partial if some of the tumour is not drawn, and the same ones set
            aside), `slides/`, `annotations/` and `key_regions/`.
        spec: size and difficulty.
        progress: called with 1 after each slide.

    Returns:
        Path of `cohort.csv`, written last: case, slide, label, time (months), event and grade.
    """
    for name in ("slides", "annotations", "key_regions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    labels = _labels(spec)
    digits = max(2, len(str(len(labels))))
    cases = [f"case-{i:0{digits}d}" for i in range(1, len(labels) + 1)]
    slides = [f"{case}-s1" for case in cases]
    normal = [f"normal-{number}" for number in range(1, _NORMAL_SLIDES + 1)]
    for kind in CELLS:
        sprite_bank(kind)  # once, before the threads use them together
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(_write_slide, folder, slide, spec, i, label)
            for i, (slide, label) in enumerate(
                zip([*slides, *normal], [*labels, *["" for _ in normal]], strict=True)
            )
        ]
        for job in jobs:
            job.result()
            progress(1)
    last = {label: case for case, label in zip(cases, labels, strict=True)}
    part = [
        "test" if last[label] == case else "train"
        for case, label in zip(cases, labels, strict=True)
    ]
    annotated = ["partial" if _is_partial(spec, i) else "full" for i in range(spec.n_slides)]
    _write_table(
        folder / "segmentation.csv",
        ("case", "slide", "annotated", "split"),
        zip([*cases, *normal], [*slides, *normal], annotated, [*part, *_NORMAL_PARTS], strict=True),
    )
    _write_table(
        folder / "split.csv",
        ("case", "slide", "label", "split"),
        zip(cases, slides, labels, part, strict=True),
    )
    rng = np.random.default_rng([spec.seed, len(cases)])
    _write_table(
        folder / "cohort.csv",
        ("case", "slide", "label", "time", "event", "grade"),
        [
            (case, slide, label, *_draw_follow_up(label, rng), _grade(label))
            for case, slide, label in zip(cases, slides, labels, strict=True)
        ],
    )
    return folder / "cohort.csv"


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(header)
        lines.writerows(rows)


def _draw_follow_up(label: str, rng: Rng) -> tuple[str, int]:
    """Months until the event (1) or censoring (0); each subtype has its own hazard."""
    event = rng.exponential(80 / 3 ** SUBTYPES.index(label))
    censoring = rng.uniform(12, 72)
    return f"{min(event, censoring):.1f}", int(event <= censoring)


def _grade(label: str) -> int:
    """1 to 3, one of each subtype."""
    return 1 + (SUBTYPES.index(label) + 1) // 2


def key_tiles(key_regions: Path, coords_l0: NDArray[Any], side_l0: float) -> NDArray[np.bool_]:
    """Which tiles show the planted pattern.

    Args:
        key_regions: a GeoJSON file from `key_regions/`.
        coords_l0: (N, 2) top-left corners, level 0 pixels.
        side_l0: side of a tile, level 0 pixels.

    Returns:
        (N,) bool, True where at least half of the tile lies in the key regions.
    """
    features = json.loads(key_regions.read_text(encoding="utf-8"))["features"]
    regions = unary_union([shape(feature["geometry"]) for feature in features])
    x, y = np.asarray(coords_l0, dtype=np.float64).reshape(-1, 2).T
    tiles = shapely.box(x, y, x + side_l0, y + side_l0)
    area = shapely.area(shapely.intersection(tiles, regions))
    return np.asarray(area >= 0.5 * side_l0**2, dtype=np.bool_)


def _labels(spec: CohortSpec) -> list[str]:
    """Balanced labels in the order of the cases, never sorted: a case name must not reveal its label."""
    rng = np.random.default_rng([spec.seed, _LABELS])
    labels = sorted(SUBTYPES * spec.cases_per_class)
    while labels == sorted(labels):
        labels = rng.permutation(labels).tolist()
    return labels


def _write_slide(folder: Path, slide: str, spec: CohortSpec, index: int, label: str) -> None:
    plan = _plan(spec, index)
    regions = [("Tumor", plan.tumour), ("Tumor", plan.satellites), ("Ignore*", plan.fold)]
    if _is_partial(spec, index):
        regions.remove(("Tumor", plan.satellites))
    if _is_normal(spec, index):
        regions = [("Normal", plan.tissue), ("Ignore*", plan.fold)]
    _write_geojson(folder / "annotations" / f"{slide}.geojson", regions, f"{spec.seed}/{slide}")
    keys = [("Key", key) for key in plan.keys]
    _write_geojson(folder / "key_regions" / f"{slide}.geojson", keys, f"{spec.seed}/{slide}")
    _write_pyramid(folder / "slides" / f"{slide}.tiff", draw_slide(spec, index, label))


def draw_slide(spec: CohortSpec, index: int, label: str) -> NDArray[np.uint8]:
    """Draw slide `index`, (side, side, 3) RGB; `label` changes pixels in the key regions only."""
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
    draw_fold(canvas, plan.fold)  # before the key regions: it copies its surroundings
    if label:
        other = str(rng.choice([name for name in SUBTYPES if name != label]))
        share = float(rng.uniform(0, _FOREIGN_SHARE))
        share = _MIXED_SHARE if index % 3 == 0 else share
        strength = rng.uniform(*_KEY_STRENGTH)
        for key in plan.keys:
            draw_key(canvas, key, {label: 1 - share, other: share}, strength, rng)
    return to_rgb(canvas, look)


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
    """Write a tiled JPEG TIFF of three levels as plain pages: OpenSlide skips subIFDs in such files."""
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


# --- layout of a slide ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Regions of one slide in level-0 pixels; independent of the label."""

    tissue: Any
    tumour: Any  # a polygon; its hole is necrosis. Empty on a slide without tumour
    satellites: MultiPolygon
    fold: Any
    keys: list[Any]


def _is_normal(spec: CohortSpec, index: int) -> bool:
    """Whether slide `index` has no tumour."""
    return index >= spec.n_cases


def _is_partial(spec: CohortSpec, index: int) -> bool:
    """Whether the satellites of slide `index` are not drawn."""
    return index % 5 == 2 and not _is_normal(spec, index)


def _plan(spec: CohortSpec, index: int) -> _Plan:
    """Lay out slide `index`: one arrangement, jittered, rotated and mirrored."""
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
    angle = rng.uniform(0, 2 * math.pi)
    hole = place(x + 0.18 * math.cos(angle), y + 0.18 * math.sin(angle), 0.05, 0.08)
    tumour = place(x, y, 0.345, 0.05).difference(hole)
    satellites = MultiPolygon([place(0.82, 0.8, 0.13, 0.06), place(0.2, 0.865, 0.105, 0.06)])
    lean = angle + rng.choice([-1, 1]) * rng.uniform(0.7, 1.0)
    strip = place(x + 0.27 * math.cos(lean), y + 0.27 * math.sin(lean), 0.12, 0.02)
    strip = affinity.rotate(affinity.scale(strip, 1.0, 0.14), rng.uniform(0, 180))
    fold = shapely.set_precision(strip, 0.01)
    tissue = place(0.5, 0.5, 0.465, 0.02, 8.0)
    if _is_normal(spec, index):
        return _Plan(tissue, Polygon(), MultiPolygon(), fold, [])
    both = unary_union([tumour, satellites])
    drawn = tumour if _is_partial(spec, index) else both
    keys = _place_keys(both.area, drawn.difference(fold), spec.key_fraction, rng)
    tissue = tissue.union(both.buffer(0.01 * side))
    if index % 3 == 1:  # one satellite is a piece of its own
        rim = satellites.geoms[0].buffer(0.01 * side)
        tissue = tissue.difference(rim.buffer(_GAP_PX).difference(rim).difference(tumour))
    return _Plan(tissue, tumour, satellites, fold, keys)


def _blob(rng: Rng, wobble: float, squareness: float = 2.0) -> Polygon:
    """A star-shaped outline of about unit radius around the origin; a squareness of 2 is round."""
    theta = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    norm = np.abs(np.cos(theta)) ** squareness + np.abs(np.sin(theta)) ** squareness
    radius = norm ** (-1 / squareness)
    for k in range(2, 9):
        radius = radius * (
            1 + wobble * rng.uniform(-1, 1) / k**0.5 * np.cos(k * theta + rng.uniform(0, 7))
        )
    return Polygon(np.column_stack([radius * np.cos(theta), radius * np.sin(theta)]))


def _place_keys(tumour_area: float, free: Any, fraction: float, rng: Rng) -> list[Any]:
    """Place compact regions of equal area without overlap that make up `fraction` of the tumour."""
    count = max(1, round(fraction * tumour_area / _KEY_AREA_PX))
    area = fraction * tumour_area / count
    for _ in range(100):
        keys: list[Any] = []
        vacant = free
        while len(keys) < count:
            key: Any = _blob(rng, 0.05)
            growth = math.sqrt(area / key.area)
            key = affinity.scale(key, growth, growth, origin=(0, 0))
            centres = vacant.buffer(-1.05 * math.sqrt(area / math.pi))
            if centres.is_empty:
                break
            centre = _random_point(centres, rng)
            key = shapely.set_precision(affinity.translate(key, *centre), 0.01)
            if vacant.contains(key):
                keys.append(key)
                vacant = vacant.difference(key.buffer(0.1 * math.sqrt(area)))
        else:
            return keys
    raise FeaturesError(
        f"key_fraction {fraction} leaves no place for key regions without overlap. Set it to 0.2 or lower."
    )


def _random_point(region: Any, rng: Rng) -> tuple[float, float]:
    """A uniformly drawn point of a region."""
    x0, y0, x1, y1 = region.bounds
    while True:
        point = float(rng.uniform(x0, x1)), float(rng.uniform(y0, y1))
        if region.contains(shapely.Point(point)):
            return point
