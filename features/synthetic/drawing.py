"""Drawing a slide: the ground that all subtypes share, and the pattern of each.

Everything is drawn on a canvas of optical densities and becomes colour once, by Beer-Lambert. Only
`draw_key` reads the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from shapely.geometry import Polygon
from shapely.ops import unary_union

from features.synthetic.strokes import (
    COARSE,
    Canvas,
    Floats,
    Rng,
    around,
    enlarge,
    ground,
    hollow,
    noise,
    raster,
    scatter,
    sites,
    soft_mask,
    stamp,
    vessel,
)

_STEPS = 200  # canvas units per unit of optical density


@dataclass(frozen=True, kw_only=True)
class Look:
    """What differs between slides whatever the subtype: laboratory stain, build of the tumour."""

    stains: Floats  # (2, 3) optical density of haematoxylin and eosin in R, G, B
    glass: Floats  # (3,) intensity without tissue
    pitch: float  # px between cells of the shared tumour
    eosin: float  # ground level of the shared tumour, canvas units
    patchiness: float  # contrast between its crowded and its loose parts
    collagen: float  # share of it that carries collagen fibres
    lymphocytes: float  # share of its sites with a lymphocyte


def make_look(rng: Rng) -> Look:
    """Pick the stain and the build of one slide."""
    stains = np.array([[0.62, 0.71, 0.33], [0.10, 0.88, 0.46]]) + rng.uniform(-0.045, 0.045, (2, 3))
    stains = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    stains = stains * np.exp(rng.uniform(-0.22, 0.22, (2, 1)))
    return Look(
        stains=stains.astype(np.float32),
        glass=(242 + rng.normal(0, 2, 3)).astype(np.float32),
        pitch=rng.uniform(33, 50),
        eosin=rng.uniform(26, 46),
        patchiness=rng.uniform(0.05, 0.35),
        collagen=rng.uniform(0, 0.5),
        lymphocytes=rng.uniform(0, 0.12),
    )


def draw_ground(
    side: int, look: Look, rng: Rng, *, tissue: Any, tumour: Any, satellites: Any
) -> Canvas:
    """Everything that all subtypes share: glass, fat, stroma, necrosis and spindle cell tumour.

    The regions come in level 0 pixels; the hole of `tumour` is necrosis.
    """
    size = (-(-side // COARSE),) * 2
    necrosis = raster(Polygon(tumour.interiors[0]), size)
    tumour = raster(unary_union([tumour, satellites]), size)  # as coarse maps from here on
    edge = gaussian_filter(raster(tissue, size), 3) + 0.12 * noise(size, rng, (6, 24))
    tissue = edge > 0.5
    near = gaussian_filter(tumour + necrosis, 12) > 0.02
    fat = (noise(size, rng, (90,)) > 0.3) & ~near
    stroma = tissue * (1 - tumour) * (1 - necrosis) * ~fat
    eosin = look.eosin * tumour + 40 * stroma + 60 * necrosis
    haematoxylin = 14 * tumour + 5 * stroma + 16 * necrosis
    canvas = ground(haematoxylin, eosin, side, rng)
    flow = math.pi * 0.9 * noise(size, rng, (110, 60))
    scatter(canvas, "fibre", stroma, 30, flow, rng)
    scatter(canvas, "thin", stroma * 0.5, 70, flow, rng)
    scatter(canvas, "debris", necrosis * 0.8, 34, flow, rng)
    crowd = np.clip(0.85 + look.patchiness * noise(size, rng, (40, 90)), 0.15, 1)
    scar = noise(size, rng, (50,)) + look.collagen > 1
    scatter(canvas, "fibre", tumour * scar, 30, flow, rng)
    scatter(canvas, "spindle", tumour * crowd, look.pitch, flow, rng)
    scatter(canvas, "lymphocyte", tumour * look.lymphocytes + stroma * 0.03, 50, flow, rng)
    for x, y in sites(tumour * 0.5, 420, rng):
        vessel(canvas, x, y, rng.uniform(16, 30), rng)
    _draw_fat(canvas, fat & tissue, rng)
    canvas *= (enlarge(gaussian_filter(tissue.astype(np.float32), 0.7), side) > 0.5)[None]
    return canvas


def _draw_fat(canvas: Canvas, fat: NDArray[np.bool_], rng: Rng) -> None:
    """Draw thin membranes along the borders between scattered adipocyte centres."""
    yx = np.argwhere(fat)
    if len(yx) < 2:
        return
    centres = sites(np.ones(fat.shape, np.float32), 240, rng)[:, ::-1] / COARSE
    nearest, second = np.asarray(cKDTree(centres).query(yx, k=2)[0]).T
    wall = np.zeros(fat.shape, np.float32)
    wall[fat] = np.clip(1 - (second - nearest) / 1.6, 0, 1)
    wall = enlarge(wall, canvas.shape[1])
    canvas[1] += (70 * wall).astype(np.int16)
    canvas[0] += (14 * wall).astype(np.int16)


def draw_fold(canvas: Canvas, fold: Any) -> None:
    """Tissue lying on itself: a neighbouring strip is added on top."""
    (x, y), window, mask = soft_mask(canvas, fold)
    over = canvas[:, y : y + mask.shape[0], x : x + mask.shape[1]]
    over += (mask * (0.75 * window[:, ::-1] + 25 * (window.max(0) > 4))).astype(np.int16)


def colour(canvas: Canvas, look: Look) -> NDArray[np.uint8]:
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


def draw_key(canvas: Canvas, key: Any, label: str, rng: Rng) -> None:
    """Draw the subtype's pattern on a sheet of its own and lay it in: nothing leaves the region."""
    (x, y), window, mask = soft_mask(canvas, key)
    height, width = mask.shape
    side = max(height, width)
    sheet = _PATTERNS[label](side, rng)[:, :height, :width]
    view = canvas[:, y : y + height, x : x + width]
    view[:] = (window + mask * (sheet - window)).astype(np.int16)


def _fascicles(side: int, rng: Rng) -> Canvas:
    """LMS: long parallel bundles of blunt-ended nuclei that cross at right angles."""
    size = (-(-side // COARSE),) * 2
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    way = rng.uniform(0, math.pi)
    along = x * math.cos(way) + y * math.sin(way) + 4 * noise(size, rng, (30,))
    crossing = np.sin(2 * math.pi * along / 44 + rng.uniform(0, 7)) > 0
    flow = way + np.where(crossing, math.pi / 2, 0) + 0.08 * noise(size, rng, (20,))
    full = np.ones(size, np.float32)
    canvas = ground(8 * full, 60 * full, side, rng)
    scatter(canvas, "muscle", full, 29, flow, rng)
    scatter(canvas, "blunt", full, 38, flow, rng)
    return canvas


def _glands(side: int, rng: Rng) -> Canvas:
    """SS: epithelial nests, most with a lumen, in a dense spindle ground."""
    size = (-(-side // COARSE),) * 2
    full = np.ones(size, np.float32)
    canvas = ground(26 * full, 30 * full, side, rng)
    flow = math.pi * noise(size, rng, (60,))
    scatter(canvas, "spindle", full, 33, flow, rng)
    for x, y in sites(full, 165, rng):
        radius = rng.uniform(58, 84)
        lumen = rng.random() < 0.85
        hollow(canvas, (x, y), radius, (34, 34), rng)
        for ring in (0.86, 0.6) if lumen else (0.86, 0.56, 0.24):
            turns = np.arange(0, 2 * math.pi, 25 / (ring * radius)) + rng.uniform(0, 1)
            out = ring * radius + rng.normal(0, 3, len(turns))
            stamp(canvas, "plump", around(x, y, out, turns), turns, rng)
        if lumen:
            secretion = (0, int(rng.integers(0, 12)))
            hollow(canvas, (x, y), rng.uniform(0.3, 0.42) * radius, secretion, rng)
    return canvas


def _whorls(side: int, rng: Rng) -> Canvas:
    """MPNST: wavy nuclei swirling around vessels, crowded beside them and loose between."""
    size = (-(-side // COARSE),) * 2
    full = np.ones(size, np.float32)
    vessels = sites(full, 310, rng)
    yx = np.argwhere(full > 0) * COARSE
    _, which = cKDTree(vessels[:, ::-1]).query(yx)
    dy, dx = (yx - vessels[which, ::-1]).T.reshape(2, *size)
    flow = np.arctan2(dy, dx) + math.pi / 2
    crowd = np.clip(2.1 - np.hypot(dy, dx) / 80 + 0.12 * noise(size, rng, (12,)), 0, 1)
    canvas = ground(20 * full, 24 + 16 * crowd, side, rng)
    scatter(canvas, "wavy", 0.15 + 0.85 * crowd, 32, flow, rng)
    for x, y in vessels:
        vessel(canvas, x, y, rng.uniform(18, 30), rng)
    return canvas


def _vacuoles(side: int, rng: Rng) -> Canvas:
    """DDLPS: lipoblasts, clear vacuoles that press dark nuclei into crescents, in a pale ground."""
    size = (-(-side // COARSE),) * 2
    full = np.ones(size, np.float32)
    canvas = ground(8 * full, 28 * full, side, rng)
    flow = math.pi * noise(size, rng, (60,))
    scatter(canvas, "spindle", full, 50, flow, rng)
    for x, y in sites(full, 80, rng):
        radius = rng.uniform(20, 44)
        way = rng.uniform(0, 2 * math.pi)
        hollow(canvas, (x, y), radius, (0, 3), rng)
        stamp(
            canvas,
            "crescent",
            around(x, y, 0.98 * radius, way),
            np.array([way + math.pi / 2]),
            rng,
        )
        buds = way + rng.uniform(1, 5, int(rng.integers(0, 4)))
        for bud_x, bud_y in around(x, y, 1.25 * radius, buds):
            hollow(canvas, (bud_x, bud_y), 9, (0, 3), rng)
    return canvas


_PATTERNS: dict[str, Callable[[int, Rng], Canvas]] = {
    "DDLPS": _vacuoles,
    "LMS": _fascicles,
    "SS": _glands,
    "MPNST": _whorls,
}
