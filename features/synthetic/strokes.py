"""Elements of a synthetic slide: noise, masks, cells and vessels, independent of slide and subtype.

A *canvas*, (2, H, W) int16, has two optical densities, haematoxylin and eosin, in steps of 1/200. Densities
and directions of the drawing are *coarse maps* with one pixel per eight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from shapely import affinity

Floats = NDArray[np.floating[Any]]
Canvas = NDArray[np.int16]
Rng = np.random.Generator

COARSE = 8  # level-0 pixels per pixel of a coarse map
_ANGLES = 24  # sprite orientations in half a turn
_VARIANTS = 8


def noise(size: tuple[int, int], rng: Rng, periods: tuple[int, ...]) -> Floats:
    """Smooth noise of about unit variance, one octave per period (in pixels of the map)."""
    total = np.zeros(size, np.float32)
    for period in periods:
        small = rng.standard_normal((size[0] // period + 3, size[1] // period + 3), np.float32)
        big = Image.fromarray(small).resize(
            ((small.shape[1]) * period, (small.shape[0]) * period), Image.Resampling.BICUBIC
        )
        total += np.asarray(big)[period : period + size[0], period : period + size[1]]
    return total / np.float32(0.7 * math.sqrt(len(periods)))


def enlarge(coarse: Floats, side: int) -> Floats:
    """Enlarge a coarse map of values 0 to 1 to (side, side), in 8 bits."""
    image = Image.fromarray((255 * np.clip(coarse, 0, 1)).astype(np.uint8))
    enlarged = image.resize(
        (image.width * COARSE, image.height * COARSE), Image.Resampling.BILINEAR
    )
    return np.asarray(enlarged)[:side, :side] * np.float32(1 / 255)


def rasterise(region: Any, size: tuple[int, int]) -> Floats:
    """A region in level-0 pixels as a coarse map: 1 inside, 0 outside."""
    image = Image.new("L", size[::-1])
    pen = ImageDraw.Draw(image)
    for polygon in getattr(region, "geoms", [] if region.is_empty else [region]):
        pen.polygon([(x / COARSE, y / COARSE) for x, y in polygon.exterior.coords], fill=1)
        for ring in polygon.interiors:
            pen.polygon([(x / COARSE, y / COARSE) for x, y in ring.coords], fill=0)
    return np.asarray(image).astype(np.float32)


def soft_mask(canvas: Canvas, region: Any) -> tuple[tuple[int, int], Canvas, Floats]:
    """Corner of a region's bounding box, a copy of the canvas in it, and a soft mask of the region."""
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


def mottled_ground(haematoxylin: Floats, eosin: Floats, side: int, rng: Rng) -> Canvas:
    """A canvas with the given levels (coarse maps), mottled in several octaves."""
    mottle = np.clip(1 + 0.14 * noise(eosin.shape, rng, (3, 7, 18, 40)), 0.3, 1.8)
    canvas = np.empty((2, side, side), np.int16)
    grain = np.roll(_grain(), rng.integers(0, 512, 2), (0, 1))
    times = -(-side // 512)
    for channel, level in enumerate((haematoxylin, eosin)):
        smooth = enlarge(gaussian_filter(level * mottle, 1.0) / 255, side)
        canvas[channel] = 255 * smooth
        canvas[channel] += np.tile(grain, (times, times))[:side, :side] >> (1 - channel)
        # glass has no grain: its levels are zero
        canvas[channel] *= smooth > 0.01
    return canvas


def sites(density: Floats, pitch: float, rng: Rng) -> NDArray[np.float64]:
    """Points (N, 2), x and y, on a jittered grid, thinned to a density of 0 to 1 (coarse map)."""
    height, width = (edge * COARSE for edge in density.shape)
    y, x = np.mgrid[0.0 : height + pitch : pitch, 0.0 : width + pitch : pitch]
    x[1::2] += pitch / 2
    xy = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-0.4, 0.4, (x.size, 2)) * pitch
    xy = xy[((xy >= 0) & (xy < (width, height))).all(1)]
    column, row = (xy // COARSE).astype(int).T
    return np.asarray(xy[rng.random(len(xy)) < density[row, column]], np.float64)


def scatter(
    canvas: Canvas, kind: str, density: Floats, pitch: float, flow: Floats, rng: Rng
) -> None:
    """Stamp cells of a kind at a density of 0 to 1, in directions of `flow` (both coarse maps)."""
    xy = sites(density, pitch, rng)
    column, row = (xy // COARSE).astype(int).T
    stamp(canvas, kind, xy, flow[row, column] + rng.normal(0, 0.12, len(xy)), rng)


def stamp(canvas: Canvas, kind: str, xy: NDArray[Any], angles: NDArray[Any], rng: Rng) -> None:
    """Draw sprites on the canvas: the darker haematoxylin wins, eosin adds up."""
    bank = sprite_bank(kind)
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


def draw_disc(
    canvas: Canvas, centre: tuple[float, float], radius: float, fill: tuple[int, int], rng: Rng
) -> None:
    """Fill an irregular disc with `fill` (haematoxylin, eosin) and draw a thin pink rim."""
    x, y = centre
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


def draw_vessel(canvas: Canvas, x: float, y: float, radius: float, rng: Rng) -> None:
    """Draw a capillary: pink wall, clear lumen, a few red cells, flat nuclei around it."""
    draw_disc(canvas, (x, y), radius + 7, (10, 60), rng)
    draw_disc(canvas, (x, y), radius, (0, 3), rng)
    red = int(radius / 5)
    for cell in polar_points(x, y, rng.uniform(0, radius - 11, red), rng.uniform(0, 7, red)):
        draw_disc(canvas, (cell[0], cell[1]), 10, (2, 80), rng)
    turns = np.arange(0, 2 * math.pi, 55 / (radius + 6)) + rng.uniform(0, 1)
    stamp(canvas, "thin", polar_points(x, y, radius + 6, turns), turns + math.pi / 2, rng)


def polar_points(x: float, y: float, radius: Any, angle: Any) -> NDArray[Any]:
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


CELLS = {
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
def sprite_bank(kind: str) -> list[list[Canvas]]:
    """The sprites of a kind, [variant][angle]; each (2, side, side)."""
    rng = np.random.default_rng([7, list(CELLS).index(kind)])
    return [_draw_at_angles(CELLS[kind], rng) for _ in range(_VARIANTS)]


def _draw_at_angles(cell: _Cell, rng: Rng) -> list[Canvas]:
    """Sprites of one randomly drawn cell, one for each angle."""
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
        streak = np.exp(-np.square(np.square(u / length)) - np.square(v / width))
        row = np.clip(np.rint(v).astype(int) + 2 * reach, 0, 4 * reach)
        body = eosin * streak * (0.55 + strands[row]) - 10 * nucleus
        sprites.append(np.stack([haematoxylin, body]).astype(np.int16))
    return sprites
