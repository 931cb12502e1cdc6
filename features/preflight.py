"""What extraction would make of a slide, before any network is loaded: counts, reasons, a picture."""

import contextlib
import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import openslide
import shapely
from PIL import Image, ImageDraw, ImageFont
from shapely.affinity import translate

from features.annotations import Region, polygons_of, read_annotations
from features.errors import FeaturesError, ScaleError, SlideExcluded
from features.folders import open_folder
from features.masks import OVERVIEW_PX
from features.plan import SlideJob, Survey, identities, share_per_case, survey, tiles_of
from features.progress import Progress, Silent
from features.recipe import Recipe
from features.slides import Slide, file_name, open_slide
from features.tiling import TileGrid, sample

IDENTITY_BYTES = 1 << 20
MOST_THREADS = 16  # each holds a slide and its overview
MM2 = 1e6  # square micrometres
DIMS = {
    "resnetv2_50": 2048, "resnet50v2": 2048, "vgg19": 512, "inceptionv3": 2048, "efficientnetv2s": 1280,
    "densenet121": 1024, "densenet161": 2208, "inception_resnet_v2": 1536, "resnet50": 2048,
    "xception": 2048, "resnet18": 512,
}  # fmt: skip
UNKNOWN_DIM = 2048
TILE_BYTES = 8 + 8 + 4 + 1  # of a tile besides its features: coordinates, coverage, flags
BAG_BYTES = 90_000  # of a bag besides its tiles: thumbnail and attributes


Laid = tuple[TileGrid, TileGrid]  # all tiles that qualify, and those drawn of them


@dataclass(kw_only=True)
class ScaleCheck:
    """What extraction would take of a slide at one scale.

    Attributes:
        mpp: micrometres per pixel of a tile, as asked.
        status: ``ready``, ``excluded`` (by a rule of the recipe) or ``failed``.
        reason: of an exclusion or a failure, in extraction's own words.
        n_tiles: that meet the recipe.
        n_drawn: of these, that would be embedded.
        level: of the file, that tiles would be read from; None where none would.
        shrink: the level would be decoded that much smaller.
    """

    mpp: float
    status: Literal["ready", "excluded", "failed"] = "failed"
    reason: str = ""
    n_tiles: int = 0
    n_drawn: int = 0
    level: int | None = None
    shrink: int = 1


@dataclass(kw_only=True)
class SlideCheck:
    """A slide as extraction would see it; what could not be found out keeps its default.

    Attributes:
        slide: its name.
        scales: one per recipe.
        identity: of its files: two slides that share it are one.
        size_l0: (width, height) in level-0 pixels.
        mpp: micrometres per level-0 pixel, along x.
        mpp_source: ``file``, ``table`` or ``option``.
        reader: what decodes the pixels.
        file_format: the scanner's, as OpenSlide names it.
        classes: how many annotations there are of each class.
        origin: the frame of the annotation, ``level0`` or ``bounds``.
        notes: what a user should know of how the annotation was read.
        tissue_mm2: found by colour.
        area_mm2: what tiles are laid over.
        tumour_of_tissue: fraction of the tissue that is annotated.
        picture: the file drawn; None where the slide cannot be seen.
    """

    slide: str
    case: str = ""
    scales: tuple[ScaleCheck, ...]
    identity: tuple[str, ...] = ()
    size_l0: tuple[int, int] | None = None
    mpp: float | None = None
    mpp_source: str = ""
    reader: str = ""
    file_format: str = ""
    classes: Counter[str] = field(default_factory=Counter)
    origin: str = ""
    notes: tuple[str, ...] = ()
    tissue_mm2: float | None = None
    area_mm2: float | None = None
    tumour_of_tissue: float | None = None
    picture: Path | None = None

    @property
    def status(self) -> str:
        """The worst over the scales."""
        held = {scale.status for scale in self.scales}
        return next(status for status in ("failed", "excluded", "ready") if status in held)


def check_slides(
    jobs: Sequence[SlideJob],
    recipes: Sequence[Recipe],
    pictures: Path,
    *,
    progress: Progress | None = None,
) -> Iterator[SlideCheck]:
    """Look at every slide on several threads; each picture is written as soon as it is drawn.

    Args:
        jobs: the slides.
        recipes: that differ in mpp only.
        pictures: an existing folder, for ``<slide>.png``; as ``features.slides.file_name`` has it.
        progress: told of slides.

    Yields:
        One per job, in their order. A slide that would fail is told so and raises nothing.
    """
    threads = min(MOST_THREADS, max(2, os.cpu_count() or 2))
    with (
        ThreadPoolExecutor(threads, "check") as pool,
        (progress or Silent()).task("slides", len(jobs), "slides") as advance,
    ):
        shares = [share_per_case(jobs, recipe, pool.map) for recipe in recipes]

        def check(job: SlideJob) -> SlideCheck:
            mine = [
                replace(recipe, max_tiles=share.get(job.slide, recipe.max_tiles))
                for share, recipe in zip(shares, recipes, strict=True)
            ]
            return check_slide(job, mine, pictures)

        for found in pool.map(check, jobs):
            advance(1)
            yield found


def check_slide(job: SlideJob, recipes: Sequence[Recipe], pictures: Path) -> SlideCheck:
    """Look at one slide as extraction would, in the same order, so that the first error is the same."""
    found = SlideCheck(
        slide=job.slide,
        case=job.case,
        scales=tuple(ScaleCheck(mpp=recipe.mpp) for recipe in recipes),
    )
    slide: Slide | None = None
    with contextlib.ExitStack() as opened:
        with _told_of(found.scales):
            job.annotation()
            found.identity = identities(job)
            if job.from_tiles:
                _count_images(job, recipes, found)
            else:
                slide = opened.enter_context(
                    open_slide(job.files[0], mpp=job.mpp, mpp_source=job.mpp_source)
                )
        if slide:
            _look(slide, job, recipes, found, pictures)
    return found


def bag_bytes(n_tiles: int, backbone: str) -> int:
    """What a bag takes on the disk: features of 16 bits, as ``features.bags.compact`` makes them.

    A backbone that ``DIMS`` does not know is taken to give ``UNKNOWN_DIM`` features.
    """
    return BAG_BYTES + n_tiles * (2 * DIMS.get(backbone, UNKNOWN_DIM) + TILE_BYTES)


@contextlib.contextmanager
def _told_of(scales: Sequence[ScaleCheck]) -> Iterator[None]:
    """What goes wrong inside is the fate of these scales: a bad slide must not end the check."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as extraction's one guard
        known = isinstance(error, FeaturesError)
        for scale in scales:
            scale.status = "excluded" if isinstance(error, SlideExcluded) else "failed"
            scale.reason = str(error) if known else f"{type(error).__name__}: {error}"


def _count_images(job: SlideJob, recipes: Sequence[Recipe], found: SlideCheck) -> None:
    if job.mpp is None:
        raise ScaleError(
            f"{job.slide}: tile images carry no micrometres per pixel. Pass --slide-mpp, e.g. 0.5 for 20x."
        )
    found.mpp, found.mpp_source, found.reader = job.mpp, job.mpp_source, "images"
    for recipe, scale in zip(recipes, found.scales, strict=True):
        _settle(open_folder(job.files, mpp=job.mpp, tile_px=recipe.tile).grid, job, recipe, scale)


def _look(
    slide: Slide, job: SlideJob, recipes: Sequence[Recipe], found: SlideCheck, pictures: Path
) -> None:
    """All there is to know of an open slide, and its picture."""
    found.size_l0, found.reader = slide.size_l0, slide.reader
    found.mpp, found.mpp_source = slide.mpp[0], slide.mpp_source
    found.file_format = openslide.OpenSlide.detect_format(slide.path) or ""
    laid: list[Laid | None] = [None] * len(recipes)
    seen = None
    with _told_of(found.scales):
        seen = survey(slide, job, recipes[0])
        pixel_mm2 = slide.mpp[0] * slide.mpp[1] / MM2
        found.classes, found.origin, found.notes = seen.classes, seen.origin, seen.notes
        found.tissue_mm2, found.area_mm2 = seen.tissue.area * pixel_mm2, seen.area.area * pixel_mm2
        if np.isfinite(seen.tumour_of_tissue):
            found.tumour_of_tissue = seen.tumour_of_tissue
        laid = [
            _lay(slide, job, seen, recipe, scale)
            for recipe, scale in zip(recipes, found.scales, strict=True)
        ]
    picture = None
    with contextlib.suppress(
        Exception
    ):  # a slide that failed may show nothing; that was told above
        overview = seen.overview if seen else slide.thumbnail(OVERVIEW_PX)
        lines = _lines(slide, job, recipes[0], seen, found.origin)
        picture = _picture(found, overview, lines, laid)
    if picture:
        found.picture = pictures / f"{file_name(job.slide)}.png"
        # A palette: a quarter of the bytes and a tenth of the time, and no one sees it.
        picture.quantize(method=Image.Quantize.FASTOCTREE).save(found.picture)


def _lay(
    slide: Slide, job: SlideJob, seen: Survey, recipe: Recipe, scale: ScaleCheck
) -> Laid | None:
    laid = None
    with _told_of([scale]):
        grid = tiles_of(slide, job, seen, recipe)
        view = slide.view_for(recipe.mpp)
        scale.level, scale.shrink = view.level, view.shrink
        laid = _settle(grid, job, recipe, scale)
    return laid


def _settle(grid: TileGrid, job: SlideJob, recipe: Recipe, scale: ScaleCheck) -> Laid:
    """All tiles and those drawn of them, as extraction draws."""
    kept = sample(grid, recipe.max_tiles, seed=recipe.seed, name=job.slide)
    drawn = grid if job.coordinates else kept
    scale.status, scale.n_tiles, scale.n_drawn = "ready", len(grid), len(drawn)
    return grid, drawn


# The picture. Okabe and Ito's colours, which colour-blind readers tell apart, on a paled slide.
INK, QUIET, ALERT, WHITE = "#1b1f22", "#596167", "#a34a00", "#ffffff"
DRAWN, EXCLUDED, OTHER = "#f0e442", "#d55e00", "#dcdfe1"
TILE, TILE_DRAWN = (86, 180, 233, 75), (0, 114, 178, 115)
MARGIN_PX, PANEL_PX, SMALL_PANEL_PX = 24, 1000, 720
FINER = 2  # overlays are drawn this much larger: Pillow's lines have no soft edges
SPECK_PX = 6  # tissue outlined is wider than this
BARS_MM = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class _Line:
    """The outline of a region in level-0 pixels; what was drawn by hand is bold."""

    region: Region
    colour: str
    meaning: str
    bold: bool = True


def _lines(
    slide: Slide, job: SlideJob, recipe: Recipe, seen: Survey | None, origin: str
) -> list[_Line]:
    """What is outlined, the most important last; the file is read again for what the survey leaves out."""
    lines = [_Line(seen.tissue, QUIET, "tissue", bold=False)] if seen else []
    file = job.annotation()
    if file is None:
        return lines
    drawing = read_annotations(file)
    offset = slide.bounds_l0 if origin == "bounds" else (0, 0)
    named = (*recipe.classes, *recipe.exclude)
    others = [a.polygon for a in drawing.annotations if not any(map(a.is_class, named))]
    for region, colour, meaning in (
        (shapely.union_all(others), OTHER, "other classes"),
        (drawing.excluded(recipe.exclude), EXCLUDED, "taken away"),
        (drawing.excluded(recipe.classes), DRAWN, " or ".join(recipe.classes)),
    ):
        if not region.is_empty:
            moved = translate(polygons_of(region), *offset)
            lines.append(_Line(moved, colour, meaning))
    return lines


def _picture(
    found: SlideCheck, overview: Image.Image, lines: Sequence[_Line], laid: Sequence[Laid | None]
) -> Image.Image:
    """The slide once per scale, with what was drawn on it and the tiles it would give."""
    side = PANEL_PX if len(laid) == 1 else SMALL_PANEL_PX
    panels = [_panel(found, overview, lines, tiles, side) for tiles in laid]
    width, height = panels[0].size
    text_px = max(width, SMALL_PANEL_PX)
    said = [textwrap.wrap(_in_words(scale), text_px // 8) for scale in found.scales]
    top = 84 + 22 * max(map(len, said))
    title = _font(24, bold=True)
    wide = max(
        len(panels) * (text_px + MARGIN_PX),
        _key_px(lines),
        round(title.getlength(found.slide)) + MARGIN_PX,
    )
    sheet = Image.new("RGB", (MARGIN_PX + wide, top + height + 76), WHITE)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, 16), found.slide, INK, title)
    pen.text((MARGIN_PX, 50), _facts(found), QUIET, _font(15))
    for number, (panel, words, scale) in enumerate(zip(panels, said, found.scales, strict=True)):
        left = MARGIN_PX + number * (text_px + MARGIN_PX)
        colour = INK if scale.status == "ready" else ALERT
        pen.multiline_text((left, 76), "\n".join(words), colour, _font(15), spacing=5)
        sheet.paste(panel, (left, top))
    assert found.size_l0
    assert found.mpp
    _scale_bar(pen, found.mpp * found.size_l0[0] / width / 1000, width, top + height + 12)
    _key(pen, lines, y=top + height + 42, tiles=any(laid))
    return sheet


def _panel(
    found: SlideCheck,
    overview: Image.Image,
    lines: Sequence[_Line],
    laid: Laid | None,
    side_px: int,
) -> Image.Image:
    assert found.size_l0
    scale = side_px / max(found.size_l0)
    size = (max(1, round(found.size_l0[0] * scale)), max(1, round(found.size_l0[1] * scale)))
    slide = Image.blend(overview.resize(size), Image.new("RGB", size, WHITE), 0.3).convert("RGBA")
    over = Image.new("RGBA", (size[0] * FINER, size[1] * FINER))
    pen = ImageDraw.Draw(over)
    for grid, colour in zip(laid or (), (TILE, TILE_DRAWN), strict=False):
        _squares(pen, grid, scale * FINER, colour)
    for line in lines:
        _outline(pen, line, scale * FINER)
    slide.alpha_composite(over.resize(size, Image.Resampling.BOX))
    ImageDraw.Draw(slide).rectangle((0, 0, size[0] - 1, size[1] - 1), outline="#dcdfe1")
    return slide.convert("RGB")


def _squares(
    pen: ImageDraw.ImageDraw, grid: TileGrid, scale: float, colour: tuple[int, ...]
) -> None:
    edge = int(min(grid.side_l0) * scale > 12)  # where there is room, neighbours are told apart
    left_top = grid.coords_l0 * scale + edge
    right_bottom = np.maximum(left_top + np.multiply(grid.side_l0, scale) - 2 * edge, left_top + 1)
    for box in np.hstack([left_top, right_bottom]).tolist():
        pen.rectangle(box, colour, (*colour[:3], 255), edge)


def _outline(pen: ImageDraw.ImageDraw, line: _Line, scale: float) -> None:
    rings = [
        ring
        for part in shapely.get_parts(line.region.simplify(0.5 / scale))
        for ring in (part.exterior, *part.interiors)
        if line.bold or ring.length * scale > 4 * SPECK_PX * FINER
    ]
    for colour, width in _strokes(line):
        for ring in rings:
            points = (np.asarray(ring.coords)[:, :2] * scale).ravel().tolist()
            pen.line(points, colour, width * FINER, joint="curve")


def _strokes(line: _Line) -> list[tuple[str, int]]:
    """A bold line has a dark casing, to be seen on any ground."""
    return [(INK, 5), (line.colour, 3)] if line.bold else [(line.colour, 1)]


def _scale_bar(pen: ImageDraw.ImageDraw, mm_per_px: float, panel_px: int, y: int) -> None:
    """1 mm long, or as much of it as fits."""
    mm = next((mm for mm in BARS_MM if mm / mm_per_px <= 0.4 * panel_px), BARS_MM[-1])
    right = MARGIN_PX + mm / mm_per_px
    pen.rectangle((MARGIN_PX, y + 8, right, y + 11), INK)
    pen.text((right + 8, y), f"{mm:g} mm", INK, _font(15))


def _key(pen: ImageDraw.ImageDraw, lines: Sequence[_Line], *, y: int, tiles: bool) -> None:
    """What each colour means."""
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


def _key_px(lines: Sequence[_Line]) -> int:
    return 300 + sum(54 + round(_font(15).getlength(line.meaning)) for line in lines)


def _facts(found: SlideCheck) -> str:
    assert found.size_l0
    parts = [
        f"{found.size_l0[0]:,} x {found.size_l0[1]:,} px of {found.mpp:.4g} µm ({found.mpp_source})"
    ]
    if found.tissue_mm2 is not None:
        parts.append(f"tissue {found.tissue_mm2:.1f} mm²")
    if found.tumour_of_tissue is not None:
        parts.append(f"{found.tumour_of_tissue:.0%} of it annotated")
    return "   ".join(parts)


def _in_words(scale: ScaleCheck) -> str:
    if scale.status != "ready":
        return scale.reason
    return f"At {scale.mpp:g} µm per pixel: {scale.n_drawn:,} drawn of {scale.n_tiles:,} tiles"


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Matplotlib's own DejaVu: Pillow's has no letter beyond ASCII."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
