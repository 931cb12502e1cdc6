"""Draw a picture of a slide with its annotations and the tiles that extraction would take."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont
from shapely.affinity import translate

from features.extraction.jobs import SlideJob
from features.extraction.slide_check import ScaleCheck, SlideCheck
from features.extraction.survey import Survey
from features.recipe import Recipe
from features.regions.annotations import read_annotations
from features.regions.drawing import Drawing, Region, polygonal_parts
from features.slides.slide import Slide
from features.tiles.grid import TileGrid

Laid = tuple[TileGrid, TileGrid]  # all tiles that qualify, and the sample of them
# The palette of Okabe and Ito, which colour-blind readers can distinguish, on a paled slide.
INK, QUIET, ALERT, WHITE = "#1b1f22", "#596167", "#a34a00", "#ffffff"
ANNOTATED, EXCLUDED, OTHER = "#f0e442", "#d55e00", "#dcdfe1"
TILE, TILE_DRAWN = (86, 180, 233, 75), (0, 114, 178, 115)
MARGIN_PX, PANEL_PX, SMALL_PANEL_PX = 24, 1000, 720
OVERSAMPLING = 2  # overlays are drawn larger and shrunk, as Pillow draws no soft edges
SPECK_PX = 6  # tissue outlined is wider than this
BARS_MM = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Outline:
    """The outline of a region in level-0 pixels; annotations are bold."""

    region: Region
    colour: str
    meaning: str
    bold: bool = True


def preview_outlines(
    slide: Slide, job: SlideJob, recipe: Recipe, view: Survey | None
) -> list[Outline]:
    """The outlines of tissue and annotations, the most important last, also of a slide that failed."""
    lines = [Outline(view.tissue, QUIET, "tissue", bold=False)] if view else []
    drawing = view.drawing if view else _read_drawing(job)
    if drawing is None:
        return lines
    offset = slide.bounds_l0 if view and view.origin == "bounds" else (0, 0)
    named = (*recipe.classes, *recipe.exclude)
    others = [a.polygon for a in drawing.annotations if not any(map(a.is_class, named))]
    for region, colour, meaning in (
        (shapely.union_all(others), OTHER, "other classes"),
        (drawing.union(recipe.exclude), EXCLUDED, "taken away"),
        (drawing.union(recipe.classes), ANNOTATED, " or ".join(recipe.classes)),
    ):
        if not region.is_empty:
            moved = translate(polygonal_parts(region), *offset)
            lines.append(Outline(moved, colour, meaning))
    return lines


def _read_drawing(job: SlideJob) -> Drawing | None:
    file = job.annotation()
    return read_annotations(file, job.files[0]) if file else None


def draw_preview(
    check: SlideCheck,
    overview: Image.Image,
    lines: Sequence[Outline],
    laid: Sequence[Laid | None],
) -> Image.Image:
    """The slide once per scale, with its annotations and the tiles it would give."""
    side = PANEL_PX if len(laid) == 1 else SMALL_PANEL_PX
    panels = [_panel(check, overview, lines, tiles, side) for tiles in laid]
    width, height = panels[0].size
    text_px = max(width, SMALL_PANEL_PX)
    captions = [textwrap.wrap(_format_scale(scale), text_px // 8) for scale in check.scales]
    top = 84 + 22 * max(map(len, captions))
    title = _font(24, bold=True)
    wide = max(
        len(panels) * (text_px + MARGIN_PX),
        _key_px(lines),
        round(title.getlength(check.slide)) + MARGIN_PX,
    )
    sheet = Image.new("RGB", (MARGIN_PX + wide, top + height + 76), WHITE)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, 16), check.slide, INK, title)
    pen.text((MARGIN_PX, 50), _format_facts(check), QUIET, _font(15))
    for number, (panel, words, scale) in enumerate(
        zip(panels, captions, check.scales, strict=True)
    ):
        left = MARGIN_PX + number * (text_px + MARGIN_PX)
        colour = INK if scale.status == "ready" else ALERT
        pen.multiline_text((left, 76), "\n".join(words), colour, _font(15), spacing=5)
        sheet.paste(panel, (left, top))
    assert check.size_l0
    assert check.mpp
    _scale_bar(pen, check.mpp * check.size_l0[0] / width / 1000, width, top + height + 12)
    _key(pen, lines, y=top + height + 42, tiles=any(laid))
    return sheet


def _panel(
    check: SlideCheck,
    overview: Image.Image,
    lines: Sequence[Outline],
    laid: Laid | None,
    side_px: int,
) -> Image.Image:
    assert check.size_l0
    scale = side_px / max(check.size_l0)
    size = (max(1, round(check.size_l0[0] * scale)), max(1, round(check.size_l0[1] * scale)))
    slide = Image.blend(overview.resize(size), Image.new("RGB", size, WHITE), 0.3).convert("RGBA")
    over = Image.new("RGBA", (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING))
    pen = ImageDraw.Draw(over)
    for grid, colour in zip(laid or (), (TILE, TILE_DRAWN), strict=False):
        _squares(pen, grid, scale * OVERSAMPLING, colour)
    for line in lines:
        _outline(pen, line, scale * OVERSAMPLING)
    slide.alpha_composite(over.resize(size, Image.Resampling.BOX))
    ImageDraw.Draw(slide).rectangle((0, 0, size[0] - 1, size[1] - 1), outline="#dcdfe1")
    return slide.convert("RGB")


def _squares(
    pen: ImageDraw.ImageDraw, grid: TileGrid, scale: float, colour: tuple[int, ...]
) -> None:
    edge = int(min(grid.side_l0) * scale > 12)  # a gap between neighbours, if there is room
    left_top = grid.coords_l0 * scale + edge
    right_bottom = np.maximum(left_top + np.multiply(grid.side_l0, scale) - 2 * edge, left_top + 1)
    for box in np.hstack([left_top, right_bottom]).tolist():
        pen.rectangle(box, colour, (*colour[:3], 255), edge)


def _outline(pen: ImageDraw.ImageDraw, line: Outline, scale: float) -> None:
    rings = [
        ring
        for part in shapely.get_parts(line.region.simplify(0.5 / scale))
        for ring in (part.exterior, *part.interiors)
        if line.bold or ring.length * scale > 4 * SPECK_PX * OVERSAMPLING
    ]
    for colour, width in _strokes(line):
        for ring in rings:
            points = (np.asarray(ring.coords)[:, :2] * scale).ravel().tolist()
            pen.line(points, colour, width * OVERSAMPLING, joint="curve")


def _strokes(line: Outline) -> list[tuple[str, int]]:
    """Colours and widths of a line; a bold one has a dark casing, so that it shows on any background."""
    return [(INK, 5), (line.colour, 3)] if line.bold else [(line.colour, 1)]


def _scale_bar(pen: ImageDraw.ImageDraw, mm_per_px: float, panel_px: int, y: int) -> None:
    """Draw a scale bar of 1 mm, or less if it does not fit."""
    mm = next((mm for mm in BARS_MM if mm / mm_per_px <= 0.4 * panel_px), BARS_MM[-1])
    right = MARGIN_PX + mm / mm_per_px
    pen.rectangle((MARGIN_PX, y + 8, right, y + 11), INK)
    pen.text((right + 8, y), f"{mm:g} mm", INK, _font(15))


def _key(pen: ImageDraw.ImageDraw, lines: Sequence[Outline], *, y: int, tiles: bool) -> None:
    """Draw the key of the colours."""
    x, font = float(MARGIN_PX), _font(15)
    for line in reversed(lines):
        for colour, width in _strokes(line):
            pen.line((x, y + 10, x + 22, y + 10), colour, width)
        pen.text((x + 30, y), line.meaning, INK, font)
        x += 54 + font.getlength(line.meaning)
    for mark, meaning in ((TILE_DRAWN, "tile drawn"), (TILE, "tile not drawn")):
        if tiles:
            paled = tuple(255 + (part - 255) * mark[3] // 255 for part in mark[:3])
            pen.rectangle((x, y + 2, x + 15, y + 17), paled, mark[:3])
            pen.text((x + 24, y), meaning, INK, font)
            x += 48 + font.getlength(meaning)


def _key_px(lines: Sequence[Outline]) -> int:
    return 300 + sum(54 + round(_font(15).getlength(line.meaning)) for line in lines)


def _format_facts(check: SlideCheck) -> str:
    assert check.size_l0
    parts = [
        f"{check.size_l0[0]:,} x {check.size_l0[1]:,} px of {check.mpp:.4g} µm ({check.mpp_source})"
    ]
    if check.tissue_mm2 is not None:
        parts.append(f"tissue {check.tissue_mm2:.1f} mm²")
    if check.tumour_of_tissue is not None:
        parts.append(f"{check.tumour_of_tissue:.0%} of it annotated")
    return "   ".join(parts)


def _format_scale(scale: ScaleCheck) -> str:
    if scale.status != "ready":
        return scale.reason
    return f"At {scale.mpp:g} µm per pixel: {scale.n_drawn:,} drawn of {scale.n_tiles:,} tiles"


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu as it comes with matplotlib; Pillow's own font has only ASCII letters."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
