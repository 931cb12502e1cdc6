"""The demo cohort: drawn slides of four sarcoma subtypes, with known key tiles.

Each slide is tissue on glass with fat, stroma and a spindle cell tumour that is drawn alike for
every subtype. Only in a few compact *key regions* of the tumour does the subtype show: vacuolated
cells (DDLPS), fascicles (LMS), glands (SS) or whorls around vessels (MPNST). Stain, cellularity and
collagen vary from slide to slide and know nothing of the label, so a mean over all tiles drowns
the signal that attention finds.

A slide is drawn as two optical densities, haematoxylin and eosin, in steps of 1/200 (a *canvas*,
(2, H, W) int16), and becomes colour once, by Beer-Lambert. What steers the drawing lies on *coarse
maps*, one pixel for eight. Only `_draw_key` reads the label, with a generator of its own.
"""

from __future__ import annotations

import csv
import json
import math
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from shapely import affinity
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.ops import unary_union

Floats = NDArray[np.floating[Any]]
Canvas = NDArray[np.int16]
Rng = np.random.Generator

SUBTYPES = ("DDLPS", "LMS", "SS", "MPNST")
MPP = 0.25
_COARSE = 8  # level 0 pixels per pixel of the maps that steer the drawing
_KEY_AREA_PX = 480_000  # about 750 px across: whole tiles of 112 um fall inside
_STEPS = 200  # canvas units per unit of optical density
_ANGLES = 24  # sprite orientations in half a turn
_VARIANTS = 8
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
            raise ValueError(
                f"cases_per_class is at least 1; got {self.cases_per_class}. Write 5 for a demo."
            )
        if not 1024 <= self.side_px <= 16384:
            raise ValueError(
                f"side_px is between 1024 and 16384; got {self.side_px}. "
                "Smaller slides hold no whole key tile; 4096 is the default."
            )
        if not 0 < self.key_fraction <= 0.3:
            raise ValueError(
                f"key_fraction is a fraction in (0, 0.3]; got {self.key_fraction}. "
                "For 20 % of the tumour write 0.2."
            )
        if self.seed < 0:
            raise ValueError(f"seed is not negative; got {self.seed}. Pass 0 or more.")


def write_cohort(
    folder: Path,
    spec: CohortSpec = CohortSpec(),
    *,
    progress: Callable[[int], None] = lambda _n: None,
) -> Path:
    """Draw the demo cohort and write its slides, annotations, key regions and table.

    Args:
        folder: made if absent; gets `cohort.csv`, `slides/`, `annotations/` and `key_regions/`.
        spec: size and difficulty.
        progress: called with 1 after each slide.

    Returns:
        Path of `cohort.csv` with the columns case, slide, label; written last.
    """
    for name in ("slides", "annotations", "key_regions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    labels = _labels(spec)
    digits = max(2, len(str(len(labels))))
    cases = [f"case-{i:0{digits}d}" for i in range(1, len(labels) + 1)]
    for kind in _CELLS:
        _sprites(kind)  # once, before the threads ask for them together
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
        rows.writerow(("case", "slide", "label"))
        rows.writerows((c, f"{c}-s1", label) for c, label in zip(cases, labels, strict=True))
    return table


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
    path.write_text(text + "\n", encoding="utf-8")


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


# --- the drawing ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What differs between slides whatever the subtype: laboratory stain, build of the tumour."""

    stains: Floats  # (2, 3) optical density of haematoxylin and eosin in R, G, B
    glass: Floats  # (3,) intensity without tissue
    pitch: float  # px between cells of the shared tumour
    eosin: float  # ground level of the shared tumour, canvas units
    patchiness: float  # contrast between its crowded and its loose parts
    collagen: float  # share of it that carries collagen fibres
    lymphocytes: float  # share of its sites with a lymphocyte


def _look(rng: Rng) -> _Look:
    stains = np.array([[0.62, 0.71, 0.33], [0.10, 0.88, 0.46]]) + rng.uniform(-0.045, 0.045, (2, 3))
    stains = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    stains = stains * np.exp(rng.uniform(-0.22, 0.22, (2, 1)))
    return _Look(
        stains=stains.astype(np.float32),
        glass=(242 + rng.normal(0, 2, 3)).astype(np.float32),
        pitch=rng.uniform(33, 50),
        eosin=rng.uniform(26, 46),
        patchiness=rng.uniform(0.05, 0.35),
        collagen=rng.uniform(0, 0.5),
        lymphocytes=rng.uniform(0, 0.12),
    )


def _draw_slide(spec: CohortSpec, index: int, label: str) -> NDArray[np.uint8]:
    """Draw slide `index`; outside the key regions the pixels do not depend on `label`."""
    plan = _plan(spec, index)
    look = _look(np.random.default_rng([spec.seed, _LOOK, index]))
    rng = np.random.default_rng([spec.seed, _GROUND, index])
    canvas = _draw_ground(spec.side_px, plan, look, rng)
    rng = np.random.default_rng([spec.seed, _KEYS, index])
    _draw_fold(canvas, plan.fold)  # before the keys: it copies what lies around it
    for key in plan.keys:
        _draw_key(canvas, key, label, rng)
    return _colour(canvas, look)


def _draw_ground(side: int, plan: _Plan, look: _Look, rng: Rng) -> Canvas:
    """Everything that all subtypes share: glass, fat, stroma, necrosis and spindle cell tumour."""
    size = (-(-side // _COARSE),) * 2
    tumour = _raster(unary_union([plan.tumour, plan.satellites]), size)
    necrosis = _raster(Polygon(plan.tumour.interiors[0]), size)
    edge = gaussian_filter(_raster(plan.tissue, size), 3) + 0.12 * _noise(size, rng, (6, 24))
    tissue = edge > 0.5
    near = gaussian_filter(tumour + necrosis, 12) > 0.02
    fat = (_noise(size, rng, (90,)) > 0.3) & ~near
    stroma = tissue * (1 - tumour) * (1 - necrosis) * ~fat
    eosin = look.eosin * tumour + 40 * stroma + 60 * necrosis
    haematoxylin = 14 * tumour + 5 * stroma + 16 * necrosis
    canvas = _ground(haematoxylin, eosin, side, rng)
    flow = math.pi * 0.9 * _noise(size, rng, (110, 60))
    _scatter(canvas, "fibre", stroma, 30, flow, rng)
    _scatter(canvas, "thin", stroma * 0.5, 70, flow, rng)
    _scatter(canvas, "debris", necrosis * 0.8, 34, flow, rng)
    crowd = np.clip(0.85 + look.patchiness * _noise(size, rng, (40, 90)), 0.15, 1)
    scar = _noise(size, rng, (50,)) + look.collagen > 1
    _scatter(canvas, "fibre", tumour * scar, 30, flow, rng)
    _scatter(canvas, "spindle", tumour * crowd, look.pitch, flow, rng)
    _scatter(canvas, "lymphocyte", tumour * look.lymphocytes + stroma * 0.03, 50, flow, rng)
    for x, y in _sites(tumour * 0.5, 420, rng):
        _vessel(canvas, x, y, rng.uniform(16, 30), rng)
    _draw_fat(canvas, fat & tissue, rng)
    canvas *= (_enlarge(gaussian_filter(tissue.astype(np.float32), 0.7), side) > 0.5)[None]
    return canvas


def _draw_fat(canvas: Canvas, fat: NDArray[np.bool_], rng: Rng) -> None:
    """Draw thin membranes along the borders between scattered adipocyte centres."""
    yx = np.argwhere(fat)
    if len(yx) < 2:
        return
    centres = _sites(np.ones(fat.shape, np.float32), 240, rng)[:, ::-1] / _COARSE
    nearest, second = np.asarray(cKDTree(centres).query(yx, k=2)[0]).T
    wall = np.zeros(fat.shape, np.float32)
    wall[fat] = np.clip(1 - (second - nearest) / 1.6, 0, 1)
    wall = _enlarge(wall, canvas.shape[1])
    canvas[1] += (70 * wall).astype(np.int16)
    canvas[0] += (14 * wall).astype(np.int16)


def _draw_fold(canvas: Canvas, fold: Any) -> None:
    """Tissue lying on itself: a neighbouring strip is added on top."""
    (x, y), window, mask = _mask(canvas, fold)
    over = canvas[:, y : y + mask.shape[0], x : x + mask.shape[1]]
    over += (mask * (0.75 * window[:, ::-1] + 25 * (window.max(0) > 4))).astype(np.int16)


def _colour(canvas: Canvas, look: _Look) -> NDArray[np.uint8]:
    """Beer-Lambert through a table over both densities, packed in 32 bits for one fast gather."""
    level = np.arange(256, dtype=np.float32) / _STEPS
    density = level[:, None, None] * look.stains[0] + level[None, :, None] * look.stains[1]
    table = np.zeros((256, 256, 4), np.uint8)
    table[..., :3] = np.clip(look.glass * np.exp(-density * math.log(10)), 0, 255)
    packed = table.view(np.uint32).ravel()
    np.clip(canvas, 0, 255, out=canvas)
    index = (canvas[0].astype(np.uint16) << 8) | canvas[1].astype(np.uint16)
    rgbx = packed[index].view(np.uint8).reshape(*index.shape, 4)
    return np.ascontiguousarray(rgbx[..., :3])


# --- the four patterns ------------------------------------------------------------------------


def _draw_key(canvas: Canvas, key: Any, label: str, rng: Rng) -> None:
    """Draw the subtype's pattern on a sheet of its own and lay it in: nothing leaves the region."""
    (x, y), window, mask = _mask(canvas, key)
    height, width = mask.shape
    side = max(height, width)
    sheet = _PATTERNS[label](side, rng)[:, :height, :width]
    view = canvas[:, y : y + height, x : x + width]
    view[:] = (window + mask * (sheet - window)).astype(np.int16)


def _fascicles(side: int, rng: Rng) -> Canvas:
    """LMS: long parallel bundles of blunt-ended nuclei that cross at right angles."""
    size = (-(-side // _COARSE),) * 2
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    way = rng.uniform(0, math.pi)
    along = x * math.cos(way) + y * math.sin(way) + 4 * _noise(size, rng, (30,))
    crossing = np.sin(2 * math.pi * along / 44 + rng.uniform(0, 7)) > 0
    flow = way + np.where(crossing, math.pi / 2, 0) + 0.08 * _noise(size, rng, (20,))
    full = np.ones(size, np.float32)
    canvas = _ground(8 * full, 60 * full, side, rng)
    _scatter(canvas, "muscle", full, 29, flow, rng)
    _scatter(canvas, "blunt", full, 38, flow, rng)
    return canvas


def _glands(side: int, rng: Rng) -> Canvas:
    """SS: epithelial nests, most with a lumen, in a dense spindle ground."""
    size = (-(-side // _COARSE),) * 2
    full = np.ones(size, np.float32)
    canvas = _ground(26 * full, 30 * full, side, rng)
    flow = math.pi * _noise(size, rng, (60,))
    _scatter(canvas, "spindle", full, 33, flow, rng)
    for x, y in _sites(full, 165, rng):
        radius = rng.uniform(58, 84)
        lumen = rng.random() < 0.85
        _hollow(canvas, (x, y), radius, (34, 34), rng)
        for ring in (0.86, 0.6) if lumen else (0.86, 0.56, 0.24):
            turns = np.arange(0, 2 * math.pi, 25 / (ring * radius)) + rng.uniform(0, 1)
            out = ring * radius + rng.normal(0, 3, len(turns))
            _stamp(canvas, "plump", _around(x, y, out, turns), turns, rng)
        if lumen:
            secretion = (0, int(rng.integers(0, 12)))
            _hollow(canvas, (x, y), rng.uniform(0.3, 0.42) * radius, secretion, rng)
    return canvas


def _whorls(side: int, rng: Rng) -> Canvas:
    """MPNST: wavy nuclei swirling around vessels, crowded beside them and loose between."""
    size = (-(-side // _COARSE),) * 2
    full = np.ones(size, np.float32)
    vessels = _sites(full, 310, rng)
    yx = np.argwhere(full > 0) * _COARSE
    _, which = cKDTree(vessels[:, ::-1]).query(yx)
    dy, dx = (yx - vessels[which, ::-1]).T.reshape(2, *size)
    flow = np.arctan2(dy, dx) + math.pi / 2
    crowd = np.clip(2.1 - np.hypot(dy, dx) / 80 + 0.12 * _noise(size, rng, (12,)), 0, 1)
    canvas = _ground(20 * full, 24 + 16 * crowd, side, rng)
    _scatter(canvas, "wavy", 0.15 + 0.85 * crowd, 32, flow, rng)
    for x, y in vessels:
        _vessel(canvas, x, y, rng.uniform(18, 30), rng)
    return canvas


def _vacuoles(side: int, rng: Rng) -> Canvas:
    """DDLPS: lipoblasts, clear vacuoles that press dark nuclei into crescents, in a pale ground."""
    size = (-(-side // _COARSE),) * 2
    full = np.ones(size, np.float32)
    canvas = _ground(8 * full, 28 * full, side, rng)
    flow = math.pi * _noise(size, rng, (60,))
    _scatter(canvas, "spindle", full, 50, flow, rng)
    for x, y in _sites(full, 80, rng):
        radius = rng.uniform(20, 44)
        way = rng.uniform(0, 2 * math.pi)
        _hollow(canvas, (x, y), radius, (0, 3), rng)
        _stamp(
            canvas,
            "crescent",
            _around(x, y, 0.98 * radius, way),
            np.array([way + math.pi / 2]),
            rng,
        )
        buds = way + rng.uniform(1, 5, int(rng.integers(0, 4)))
        for bud_x, bud_y in _around(x, y, 1.25 * radius, buds):
            _hollow(canvas, (bud_x, bud_y), 9, (0, 3), rng)
    return canvas


_PATTERNS: dict[str, Callable[[int, Rng], Canvas]] = {
    "DDLPS": _vacuoles,
    "LMS": _fascicles,
    "SS": _glands,
    "MPNST": _whorls,
}


# --- strokes ----------------------------------------------------------------------------------


def _noise(size: tuple[int, int], rng: Rng, periods: tuple[int, ...]) -> Floats:
    """Smooth noise of about unit variance, one octave per period (in pixels of the map)."""
    total = np.zeros(size, np.float32)
    for period in periods:
        small = rng.standard_normal((size[0] // period + 3, size[1] // period + 3), np.float32)
        big = Image.fromarray(small).resize(
            ((small.shape[1]) * period, (small.shape[0]) * period), Image.Resampling.BICUBIC
        )
        total += np.asarray(big)[period : period + size[0], period : period + size[1]]
    return total / np.float32(0.7 * math.sqrt(len(periods)))


def _enlarge(coarse: Floats, side: int) -> Floats:
    """Blow a coarse map up to (side, side), in 8 bits: the values are 0 to 1."""
    image = Image.fromarray((255 * np.clip(coarse, 0, 1)).astype(np.uint8))
    whole = image.resize((image.width * _COARSE, image.height * _COARSE), Image.Resampling.BILINEAR)
    return np.asarray(whole)[:side, :side] * np.float32(1 / 255)


def _raster(region: Any, size: tuple[int, int]) -> Floats:
    """1 inside a region of level 0 pixels, 0 outside, on the coarse map."""
    image = Image.new("L", size[::-1])
    pen = ImageDraw.Draw(image)
    for polygon in getattr(region, "geoms", [region]):
        pen.polygon([(x / _COARSE, y / _COARSE) for x, y in polygon.exterior.coords], fill=1)
        for ring in polygon.interiors:
            pen.polygon([(x / _COARSE, y / _COARSE) for x, y in ring.coords], fill=0)
    return np.asarray(image).astype(np.float32)


def _mask(canvas: Canvas, region: Any) -> tuple[tuple[int, int], Canvas, Floats]:
    """Corner of a region's box, a copy of the canvas there, and a soft mask inside the region."""
    x0, y0, x1, y1 = (int(edge) for edge in region.bounds)
    x0, y0 = max(x0, 0), max(y0, 0)
    x1, y1 = min(x1 + 1, canvas.shape[2]), min(y1 + 1, canvas.shape[1])
    image = Image.new("L", (x1 - x0, y1 - y0))
    ring = affinity.translate(region, -x0, -y0).exterior.coords
    ImageDraw.Draw(image).polygon(list(ring), fill=1)
    inside = np.asarray(image).astype(np.float32)
    # half of a blurred edge lies outside; the other half, stretched, fades in from the border
    soft = inside * np.clip(2 * gaussian_filter(inside, 9, truncate=2) - 1, 0, 1)
    return (x0, y0), canvas[:, y0:y1, x0:x1].copy(), soft


@cache
def _grain() -> NDArray[np.int16]:
    rng = np.random.default_rng(11)
    fine = gaussian_filter(rng.standard_normal((512, 512)), 1.2, mode="wrap")
    flecks = gaussian_filter(rng.standard_normal((512, 512)), 3.5, mode="wrap")
    return np.asarray(3 * fine / fine.std() + 4 * flecks / flecks.std(), np.int16)


def _ground(haematoxylin: Floats, eosin: Floats, side: int, rng: Rng) -> Canvas:
    """A canvas with the given coarse levels, mottled in several octaves."""
    mottle = np.clip(1 + 0.14 * _noise(eosin.shape, rng, (3, 7, 18, 40)), 0.3, 1.8)
    canvas = np.empty((2, side, side), np.int16)
    grain = np.roll(_grain(), rng.integers(0, 512, 2), (0, 1))
    times = -(-side // 512)
    for channel, level in enumerate((haematoxylin, eosin)):
        smooth = _enlarge(gaussian_filter(level * mottle, 1.0) / 255, side)
        canvas[channel] = 255 * smooth
        canvas[channel] += np.tile(grain, (times, times))[:side, :side] >> (1 - channel)
        # glass carries no grain: the levels there are zero
        canvas[channel] *= smooth > 0.01
    return canvas


def _sites(density: Floats, pitch: float, rng: Rng) -> NDArray[np.float64]:
    """Points (N, 2), x and y, on a jittered grid, thinned to a coarse density of 0 to 1."""
    height, width = (edge * _COARSE for edge in density.shape)
    y, x = np.mgrid[0.0 : height + pitch : pitch, 0.0 : width + pitch : pitch]
    x[1::2] += pitch / 2
    xy = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-0.4, 0.4, (x.size, 2)) * pitch
    xy = xy[((xy >= 0) & (xy < (width, height))).all(1)]
    column, row = (xy // _COARSE).astype(int).T
    return np.asarray(xy[rng.random(len(xy)) < density[row, column]], np.float64)


def _scatter(
    canvas: Canvas, kind: str, density: Floats, pitch: float, flow: Floats, rng: Rng
) -> None:
    """Stamp cells of a kind at a density (coarse, 0 to 1) along a flow of angles (coarse)."""
    xy = _sites(density, pitch, rng)
    column, row = (xy // _COARSE).astype(int).T
    _stamp(canvas, kind, xy, flow[row, column] + rng.normal(0, 0.12, len(xy)), rng)


def _stamp(canvas: Canvas, kind: str, xy: NDArray[Any], angles: NDArray[Any], rng: Rng) -> None:
    """Lay sprites on the canvas: the darker haematoxylin wins, eosin adds up."""
    bank = _sprites(kind)
    turns = np.rint(angles / math.pi * _ANGLES).astype(int) % _ANGLES
    picks = rng.integers(0, _VARIANTS, len(xy))
    reach = bank[0][0].shape[1] // 2
    height, width = canvas.shape[1:]
    corners = np.rint(xy).astype(int) - reach
    for (x, y), turn, pick in zip(corners.tolist(), turns.tolist(), picks.tolist(), strict=True):
        sprite = bank[pick][turn]
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + 2 * reach + 1, width), min(y + 2 * reach + 1, height)
        if x0 < x1 and y0 < y1:
            part = sprite[:, y0 - y : y1 - y, x0 - x : x1 - x]
            under = canvas[:, y0:y1, x0:x1]
            np.maximum(under[0], part[0], out=under[0])
            under[1] += part[1]


def _hollow(
    canvas: Canvas, at: tuple[float, float], radius: float, fill: tuple[int, int], rng: Rng
) -> None:
    """Clear an irregular disc to `fill` (haematoxylin, eosin) and give it a thin pink rim."""
    x, y = at
    reach = int(1.3 * radius) + 4
    x0, y0 = max(round(x) - reach, 0), max(round(y) - reach, 0)
    view = canvas[:, y0 : round(y) + reach, x0 : round(x) + reach]
    if view.size == 0:
        return
    row, column = np.mgrid[y0 : y0 + view.shape[1], x0 : x0 + view.shape[2]].astype(np.float32)
    column, row = column - x, row - y
    theta = np.arctan2(row, column)
    edge = 1 + 0.07 * rng.normal() * np.cos(2 * theta + rng.uniform(0, 7))
    edge += 0.04 * rng.normal() * np.cos(3 * theta + rng.uniform(0, 7))
    depth = radius * edge - np.hypot(row, column)
    inside = np.clip(depth / 3 + 0.5, 0, 1)
    rim = 22 * np.exp(-((depth / 3) ** 2))
    for channel in (0, 1):
        view[channel] = view[channel] + inside * (fill[channel] - view[channel]) + channel * rim


def _vessel(canvas: Canvas, x: float, y: float, radius: float, rng: Rng) -> None:
    """A capillary: pink wall, clear lumen, a few red cells, flat nuclei around."""
    _hollow(canvas, (x, y), radius + 7, (10, 60), rng)
    _hollow(canvas, (x, y), radius, (0, 3), rng)
    red = int(radius / 5)
    for cell in _around(x, y, rng.uniform(0, radius - 11, red), rng.uniform(0, 7, red)):
        _hollow(canvas, (cell[0], cell[1]), 10, (2, 80), rng)
    turns = np.arange(0, 2 * math.pi, 55 / (radius + 6)) + rng.uniform(0, 1)
    _stamp(canvas, "thin", _around(x, y, radius + 6, turns), turns + math.pi / 2, rng)


def _around(x: float, y: float, radius: Any, angle: Any) -> NDArray[Any]:
    """Points (N, 2) at one or many polar coordinates around x, y."""
    points = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=-1)
    return points.reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A cell: a bent nucleus on a streak of fibrillar cytoplasm; lengths in px at 0.25 mpp."""

    half_length: tuple[float, float] = (1, 1)
    half_width: tuple[float, float] = (1, 1)
    bluntness: float = 2.0  # 2 is an ellipse, more is squarer ends
    bend: float = 0.0  # bow, in half-widths
    wave: float = 0.0  # S-curve, in half-widths
    darkness: float = 0.0  # haematoxylin, canvas units
    body: tuple[float, float, float] = (1, 1, 0)  # half-length, half-width, eosin


_CELLS = {
    "spindle": _Cell(
        half_length=(22, 31),
        half_width=(6.5, 10),
        bend=0.3,
        wave=0.25,
        darkness=112,
        body=(60, 15, 20),
    ),
    "blunt": _Cell(
        half_length=(24, 32), half_width=(7, 9.5), bluntness=4, darkness=118, body=(60, 13, 16)
    ),
    "wavy": _Cell(
        half_length=(24, 34),
        half_width=(4.5, 7),
        bend=0.5,
        wave=0.9,
        darkness=130,
        body=(58, 10, 10),
    ),
    "plump": _Cell(half_length=(14, 18), half_width=(10.5, 13), darkness=108, body=(22, 16, 8)),
    "crescent": _Cell(
        half_length=(22, 32), half_width=(7, 10), bend=-1.1, darkness=165, body=(40, 14, 14)
    ),
    "thin": _Cell(half_length=(16, 26), half_width=(2.5, 4), wave=0.4, darkness=130),
    "lymphocyte": _Cell(half_length=(11, 13), half_width=(10, 12), darkness=180, body=(14, 14, 6)),
    "debris": _Cell(half_length=(3, 8), half_width=(2.5, 5), darkness=120, body=(22, 20, 14)),
    "fibre": _Cell(wave=5.0, body=(70, 11, 15)),
    "muscle": _Cell(wave=1.5, body=(70, 9, 16)),
}


@cache
def _sprites(kind: str) -> list[list[Canvas]]:
    """The sprites of a kind, [variant][angle]; each (2, side, side)."""
    rng = np.random.default_rng([7, list(_CELLS).index(kind)])
    return [_turned(_CELLS[kind], rng) for _ in range(_VARIANTS)]


def _turned(cell: _Cell, rng: Rng) -> list[Canvas]:
    """One cell of a kind, drawn at every angle."""
    reach = int(1.25 * max(cell.half_length[1], cell.body[0]))
    a, b = rng.uniform(*cell.half_length), rng.uniform(*cell.half_width)
    bend, wave = cell.bend * rng.uniform(0.5, 1.2), cell.wave * rng.normal(0, 0.8)
    ink = cell.darkness * rng.uniform(0.8, 1.15)
    chromatin = 1.3 * gaussian_filter(rng.standard_normal((2 * reach + 1,) * 2), 1.6)
    strands = 1.1 * gaussian_filter(rng.standard_normal(4 * reach + 1), 1.8)
    length, width, eosin = cell.body
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    sprites = []
    for angle in np.arange(_ANGLES) * math.pi / _ANGLES:
        u = x * math.cos(angle) + y * math.sin(angle)
        v = y * math.cos(angle) - x * math.sin(angle)
        s = np.clip(u / a, -2.5, 2.5) if cell.darkness else u / 25
        v = v - b * (bend * (s**2 - 0.4) + wave * np.sin(2.2 * s))
        half = b * np.clip(1 - np.abs(s) ** cell.bluntness, 0, 1) ** (1 / cell.bluntness)
        depth = half - np.abs(v)
        nucleus = np.clip(depth / 3 + 0.5, 0, 1) * (np.abs(s) < 1)
        rim = np.exp(-((depth / 2.2) ** 2))
        haematoxylin = ink * nucleus * np.clip(0.8 + 0.14 * rim + chromatin, 0.4, 1.6)
        streak = np.exp(-((u / length) ** 4) - (v / width) ** 2)
        row = np.clip(np.rint(v).astype(int) + 2 * reach, 0, 4 * reach)
        body = eosin * streak * (0.55 + strands[row]) - 10 * nucleus
        sprites.append(np.stack([haematoxylin, body]).astype(np.int16))
    return sprites
