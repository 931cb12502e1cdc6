"""Drawing a synthetic slide: the ground that all subtypes share, and the pattern of each.

Everything is drawn on a canvas of optical densities, which becomes colour once, by the Beer-Lambert law.
Only `draw_key` reads the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    draw_disc,
    draw_vessel,
    enlarge,
    mottled_ground,
    noise,
    polar_points,
    rasterise,
    scatter,
    sites,
    soft_mask,
    stamp,
)

_STEPS = 200  # canvas units per unit of optical density


@dataclass(frozen=True, kw_only=True)
class Look:
    """What differs between slides independently of the subtype: the stain and the texture of the tumour."""

    stains: Floats  # (2, 3) optical density of haematoxylin and eosin in R, G, B
    glass: Floats  # (3,) intensity without tissue
    pitch: float  # px between cells of the shared tumour
    eosin: float  # ground level of the shared tumour, canvas units
    patchiness: float  # contrast between its crowded and its loose parts
    collagen: float  # fraction of it with collagen fibres
    lymphocytes: float  # fraction of its sites with a lymphocyte
    hyaline: float  # standard deviations of noise above which it is hyalinised


def make_look(rng: Rng) -> Look:
    """Draw the stain and the texture of one slide at random."""
    stains = np.array([[0.62, 0.71, 0.33], [0.10, 0.88, 0.46]]) + rng.uniform(-0.06, 0.06, (2, 3))
    stains = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    stains = stains * np.exp(rng.uniform(-0.32, 0.32, (2, 1)))
    return Look(
        stains=stains.astype(np.float32),
        glass=(242 + rng.normal(0, 2, 3)).astype(np.float32),
        pitch=rng.uniform(29, 56),
        eosin=rng.uniform(22, 54),
        patchiness=rng.uniform(0.05, 0.5),
        collagen=rng.uniform(0, 0.8),
        lymphocytes=rng.uniform(0, 0.25),
        hyaline=rng.uniform(0.2, 1.8),
    )


def draw_ground(
    side: int, look: Look, rng: Rng, *, tissue: Any, tumour: Any, satellites: Any
) -> Canvas:
    """Draw what all subtypes share: glass, fat, stroma, necrosis and spindle cell tumour.

    The regions are in level-0 pixels; the hole of `tumour` is necrosis.
    """
    size = (-(-side // COARSE),) * 2
    necrosis = rasterise(_holes(tumour), size)
    tumour = rasterise(unary_union([tumour, satellites]), size)  # as coarse maps from here on
    edge = gaussian_filter(rasterise(tissue, size), 3) + 0.12 * noise(size, rng, (6, 24))
    tissue = edge > 0.5
    beside_tumour = gaussian_filter(tumour + necrosis, 12) > 0.02
    fat = (noise(size, rng, (90,)) > 0.3) & ~beside_tumour
    stroma = tissue * (1 - tumour) * (1 - necrosis) * ~fat
    reactive = stroma * (noise(size, rng, (70,)) > 0)
    bundles = stroma * (1 - reactive) * (noise(size, rng, (60,)) > 0.5)
    plain = stroma - reactive - bundles
    hyaline = tumour * (noise(size, rng, (45,)) > look.hyaline)
    cellular = tumour - hyaline
    eosin = (
        look.eosin * (cellular + reactive) + 40 * (plain + hyaline) + 55 * bundles + 60 * necrosis
    )
    haematoxylin = 14 * (cellular + reactive) + 5 * (plain + hyaline) + 8 * bundles + 16 * necrosis
    canvas = mottled_ground(haematoxylin, eosin, side, rng)
    flow = math.pi * 0.9 * noise(size, rng, (110, 60))
    scatter(canvas, "fibre", plain + hyaline, 30, flow, rng)
    scatter(canvas, "thin", plain * 0.5, 70, flow, rng)
    scatter(canvas, "thin", reactive, 0.55 * look.pitch, flow, rng)
    scatter(canvas, "muscle", bundles, 29, flow, rng)
    scatter(canvas, "thin", bundles * 0.8, 45, flow, rng)
    scatter(canvas, "debris", necrosis * 0.8, 34, flow, rng)
    crowd = np.clip(0.85 + look.patchiness * noise(size, rng, (40, 90)), 0.15, 1)
    scar = noise(size, rng, (50,)) + look.collagen > 1
    scatter(canvas, "fibre", cellular * scar, 30, flow, rng)
    scatter(canvas, "spindle", (cellular + 0.25 * hyaline) * crowd, look.pitch, flow, rng)
    scatter(canvas, "lymphocyte", cellular * look.lymphocytes + stroma * 0.03, 50, flow, rng)
    for x, y in sites(tumour * 0.5, 420, rng):
        draw_vessel(canvas, x, y, rng.uniform(16, 30), rng)
    for x, y in sites(stroma * 0.4, 700, rng):
        _draw_aggregate(canvas, x, y, rng)
    _draw_fat(canvas, fat & tissue, rng)
    canvas *= (enlarge(gaussian_filter(tissue.astype(np.float32), 0.7), side) > 0.5)[None]
    return canvas


def _holes(tumour: Any) -> Any:
    """The holes of a polygon."""
    return unary_union([Polygon(ring) for ring in getattr(tumour, "interiors", ())])


def _draw_aggregate(canvas: Canvas, x: float, y: float, rng: Rng) -> None:
    """Draw a lymphoid aggregate: lymphocytes crowded in a disc."""
    radius = rng.uniform(60, 170)
    count = int(rng.uniform(0.004, 0.006) * radius**2)
    turns = rng.uniform(0, 2 * math.pi, count)
    cells = polar_points(x, y, radius * np.sqrt(rng.uniform(0, 1, count)), turns)
    stamp(canvas, "lymphocyte", cells, turns, rng)


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
    """Draw a tissue fold: a neighbouring strip is added on top."""
    (x, y), window, mask = soft_mask(canvas, fold)
    over = canvas[:, y : y + mask.shape[0], x : x + mask.shape[1]]
    over += (mask * (0.75 * window[:, ::-1] + 25 * (window.max(0) > 4))).astype(np.int16)


def to_rgb(canvas: Canvas, look: Look) -> NDArray[np.uint8]:
    """Colour a canvas by the Beer-Lambert law, (side, side, 3) RGB.

    A table over both densities, packed in 32 bits, makes it one fast look-up.
    """
    level = np.arange(256, dtype=np.float32) / _STEPS
    density = level[:, None, None] * look.stains[0] + level[None, :, None] * look.stains[1]
    table = np.zeros((256, 256, 4), np.uint8)
    table[..., :3] = np.clip(look.glass * np.exp(-density * math.log(10)), 0, 255)
    packed = table.view(np.uint32).ravel()
    np.clip(canvas, 0, 255, out=canvas)
    index = (canvas[0].astype(np.uint16) << 8) | canvas[1].astype(np.uint16)
    rgbx = packed[index].view(np.uint8).reshape(*index.shape, 4)
    return np.ascontiguousarray(rgbx[..., :3])


# --- patterns of the subtypes -------------------------------------------------------------------


def draw_key(
    canvas: Canvas, key: Any, shares: Mapping[str, float], strength: float, rng: Rng
) -> None:
    """Draw subtypes' patterns on a separate canvas and blend their mixture in within the key region.

    At a strength of 1 it covers the shared tumour, at 0 none of it shows.
    """
    (x, y), window, mask = soft_mask(canvas, key)
    height, width = mask.shape
    side = max(height, width)
    pattern = sum(
        share * _PATTERNS[subtype](side, rng)[:, :height, :width]
        for subtype, share in shares.items()
    )
    view = canvas[:, y : y + height, x : x + width]
    view[:] = (window + strength * mask * (pattern - window)).astype(np.int16)


def _fascicles(side: int, rng: Rng) -> Canvas:
    """LMS: long parallel bundles of blunt-ended nuclei that cross at right angles."""
    size = (-(-side // COARSE),) * 2
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle = rng.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle) + 4 * noise(size, rng, (30,))
    crossing = np.sin(2 * math.pi * along / 44 + rng.uniform(0, 7)) > 0
    flow = angle + np.where(crossing, math.pi / 2, 0) + 0.08 * noise(size, rng, (20,))
    full = np.ones(size, np.float32)
    canvas = mottled_ground(8 * full, 60 * full, side, rng)
    scatter(canvas, "muscle", full, 29, flow, rng)
    scatter(canvas, "blunt", full, 38, flow, rng)
    return canvas


def _glands(side: int, rng: Rng) -> Canvas:
    """SS: epithelial nests, most with a lumen, in a dense spindle ground."""
    size = (-(-side // COARSE),) * 2
    full = np.ones(size, np.float32)
    canvas = mottled_ground(26 * full, 30 * full, side, rng)
    flow = math.pi * noise(size, rng, (60,))
    scatter(canvas, "spindle", full, 33, flow, rng)
    for x, y in sites(full, 165, rng):
        radius = rng.uniform(58, 84)
        lumen = rng.random() < 0.85
        draw_disc(canvas, (x, y), radius, (34, 34), rng)
        for ring in (0.86, 0.6) if lumen else (0.86, 0.56, 0.24):
            turns = np.arange(0, 2 * math.pi, 25 / (ring * radius)) + rng.uniform(0, 1)
            out = ring * radius + rng.normal(0, 3, len(turns))
            stamp(canvas, "plump", polar_points(x, y, out, turns), turns, rng)
        if lumen:
            secretion = (0, int(rng.integers(0, 12)))
            draw_disc(canvas, (x, y), rng.uniform(0.3, 0.42) * radius, secretion, rng)
    return canvas


def _whorls(side: int, rng: Rng) -> Canvas:
    """MPNST: wavy nuclei swirling around vessels, crowded beside them and loose between."""
    size = (-(-side // COARSE),) * 2
    full = np.ones(size, np.float32)
    vessels = sites(full, 310, rng)
    if not len(vessels):  # of a region smaller than their distance
        vessels = np.full((1, 2), side / 2)
    yx = np.argwhere(full > 0) * COARSE
    _, nearest = cKDTree(vessels[:, ::-1]).query(yx)
    dy, dx = (yx - vessels[nearest, ::-1]).T.reshape(2, *size)
    flow = np.arctan2(dy, dx) + math.pi / 2
    crowd = np.clip(2.1 - np.hypot(dy, dx) / 80 + 0.12 * noise(size, rng, (12,)), 0, 1)
    canvas = mottled_ground(20 * full, 24 + 16 * crowd, side, rng)
    scatter(canvas, "wavy", 0.15 + 0.85 * crowd, 32, flow, rng)
    for x, y in vessels:
        draw_vessel(canvas, x, y, rng.uniform(18, 30), rng)
    return canvas


def _vacuoles(side: int, rng: Rng) -> Canvas:
    """DDLPS: lipoblasts, clear vacuoles that press dark nuclei into crescents, in a pale ground."""
    size = (-(-side // COARSE),) * 2
    full = np.ones(size, np.float32)
    canvas = mottled_ground(8 * full, 28 * full, side, rng)
    flow = math.pi * noise(size, rng, (60,))
    scatter(canvas, "spindle", full, 50, flow, rng)
    for x, y in sites(full, 80, rng):
        radius = rng.uniform(20, 44)
        angle = rng.uniform(0, 2 * math.pi)
        draw_disc(canvas, (x, y), radius, (0, 3), rng)
        stamp(
            canvas,
            "crescent",
            polar_points(x, y, 0.98 * radius, angle),
            np.array([angle + math.pi / 2]),
            rng,
        )
        buds = angle + rng.uniform(1, 5, int(rng.integers(0, 4)))
        for bud_x, bud_y in polar_points(x, y, 1.25 * radius, buds):
            draw_disc(canvas, (bud_x, bud_y), 9, (0, 3), rng)
    return canvas


_PATTERNS: dict[str, Callable[[int, Rng], Canvas]] = {
    "DDLPS": _vacuoles,
    "LMS": _fascicles,
    "SS": _glands,
    "MPNST": _whorls,
}
