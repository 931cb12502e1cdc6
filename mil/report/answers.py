"""The files of answers for new slides: CSV, JSON and a page."""

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from features.bags.bag import Bag
from features.errors import SlideError
from features.files.atomic import write_atomic
from features.progress import Progress, Silent
from features.slides.slide import open_slide
from features.tiles.quality import FLAGS
from mil.answers.answer import ANSWERED, Answer
from mil.answers.maps import answer_map
from mil.answers.masks import FOLDS, SEGMENTER, UNPROMISED
from mil.answers.predict import Answers
from mil.errors import FitError
from mil.evaluation.words import fit_words
from mil.explanation.contact_sheet import extreme_tiles
from mil.explanation.heatmap import draw_layers, scale_stops
from mil.explanation.scores import TileScores
from mil.explanation.slides import bag_tiles
from mil.report.facts import Heatmap
from mil.report.template import render_template

MOST_MAPS = 40  # slides drawn on one page; the table lists all
TILES, TILE_PX = 6, 96


@dataclass(frozen=True, kw_only=True)
class SlideSheet:
    """What the page shows of one slide.

    Attributes:
        row: its answer.
        bars: (name, value from 0 to 1) of what is said as a share.
        numbers: (name, text) of the other values.
        heatmap: where the fits looked; None without a map.
        outline: the slide with what a segmenter marks as tumour, as a JPEG; empty without one.
        tiles: JPEG pictures of the tiles that speak most for the answer; empty without the slide.
        facts: (name, of this slide, of training slides) in words.
    """

    row: Answer
    bars: tuple[tuple[str, float], ...]
    numbers: tuple[tuple[str, str], ...]
    heatmap: Heatmap | None
    outline: bytes
    tiles: tuple[bytes, ...]
    facts: tuple[tuple[str, str, str], ...]


def write_answers(
    answers: Answers, path: Path, *, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write the answers as CSV, and beside it as JSON and as a page.

    Args:
        answers: of new slides.
        path: of the CSV.
        progress: shows the maps that are drawn.

    Returns:
        The three files.
    """
    written = (path, path.with_suffix(".json"), path.with_suffix(".html"))
    answers.write_csv(path)
    answers.write_json(written[1])
    write_atomic(written[2], render_answers(answers, progress=progress))
    return written


def render_answers(answers: Answers, *, progress: Progress | None = None) -> str:
    """The page as one HTML document."""
    predictor = answers.predictor
    sheets = []
    with (progress or Silent()).task("maps", len(answers.slides), "slides") as advance:
        for number, row in enumerate(answers.slides):
            sheets.append(_sheet(answers, row, drawn=number < MOST_MAPS))
            advance(1)
    scales = [sheet.heatmap.scale for sheet in sheets if sheet.heatmap and sheet.heatmap.scale]
    reference = predictor.reference
    known = reference.reference if reference else None
    page = render_template(
        "report/answers.html",
        title=f"{predictor.title}: {predictor.model}",
        lead=_lead(answers),
        answers=answers,
        predictor=predictor,
        sheets=sheets,
        several=[row for row in answers.cases if _n_slides(answers, row) > 1],
        scale_stops=scales[0] if scales else (),
        ratios=known.ratios if known and known.is_enough else (),
        axis_end=max([2.0, *(row.unlike for row in answers.slides if row.unlike == row.unlike)]),
        answered=ANSWERED,
        general=UNPROMISED,
    )
    return fit_words(page, predictor.recipe.get("region"))


def _lead(answers: Answers) -> str:
    """How many slides were answered, in one sentence."""
    n = len(answers.slides)
    words = {"answered": 0, "undecided": 0, "abstained": 0, "failed": 0}
    for row in answers.slides:
        words[row.outcome] += 1
    parts = [f"{count} {word}" for word, count in words.items() if count]
    return f"{n} {'slide' if n == 1 else 'slides'}: {', '.join(parts)}."


def _n_slides(answers: Answers, case: Answer) -> int:
    return sum(row.case == case.case for row in answers.slides)


def _sheet(answers: Answers, row: Answer, *, drawn: bool) -> SlideSheet:
    bag = answers.bag_of(row)
    scores = _scores(answers, row, bag) if bag is not None and drawn else None
    shares = {name: value for name, value in row.values.items() if 0 <= value <= 1}
    return SlideSheet(
        row=row,
        bars=tuple((name.split("_", 1)[-1], value) for name, value in shares.items()),
        numbers=tuple((n, f"{v:.2f}") for n, v in row.values.items() if n not in shares),
        heatmap=_heatmap(scores) if scores else _photograph(bag) if bag else None,
        outline=_outline(answers, row) if drawn else b"",
        tiles=_tiles(answers, row, scores) if scores else (),
        facts=_facts(answers, row, bag) if bag is not None else (),
    )


def _scores(answers: Answers, row: Answer, bag: Bag) -> TileScores | None:
    """The map of the answer; None where there is no answer or the model has no map."""
    predictor = answers.predictor
    if not row.has_values or not predictor.reads_tiles:
        return None
    with suppress(FitError):
        known = row.predicted in predictor.readout.classes
        fits = answers.relations[row.case].fits
        read, _ = predictor.suit(bag, answers.fit_of(row).key)
        own = {key: predictor.suit(one, key)[0] for key, one in answers.own_bags(row).items()}
        return answer_map(fits, read, row.predicted if known else None, own)
    return None


def _heatmap(scores: TileScores) -> Heatmap:
    picture, tiles = draw_layers(scores, side_px=420)
    target = f" for {scores.target}" if scores.target else ""
    return Heatmap(
        slide_picture=picture,
        map_png=tiles,
        caption=f"{scores.method}{target}, mean over the fits",
        scale=scale_stops(scores),
    )


def _photograph(bag: Bag) -> Heatmap | None:
    """The slide alone."""
    if not bag.thumbnail:
        return None
    return Heatmap(slide_picture=bag.thumbnail, map_png=b"", caption="the slide", scale=())


def _outline(answers: Answers, row: Answer) -> bytes:
    """The picture of what a segmenter marks as tumour, small; empty without one."""
    folder = answers.new.outlines
    drawn = folder is not None and row.mask in (SEGMENTER, FOLDS)
    path = folder / f"{row.slide}-overlay.png" if folder and drawn else None
    if path is None or not path.is_file():
        return b""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((420, 420))
        picture.convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _tiles(answers: Answers, row: Answer, scores: TileScores) -> tuple[bytes, ...]:
    """Pictures of the highest tiles; none where the slide cannot be read now."""
    path = answers.new.paths.get(row.slide)
    if path is None:
        return ()
    pictures = []
    highest, _ = extreme_tiles(scores, TILES)
    with suppress(SlideError), open_slide(path) as slide:
        tiles = bag_tiles(slide, scores.bag)
        for index in highest:
            buffer = io.BytesIO()
            picture = Image.fromarray(tiles.read(index)).resize((TILE_PX, TILE_PX))
            picture.save(buffer, "JPEG", quality=85)
            pictures.append(buffer.getvalue())
    return tuple(pictures)


def _facts(answers: Answers, row: Answer, bag: Bag) -> tuple[tuple[str, str, str], ...]:
    """What can be counted of a slide, beside the range of the training slides."""
    reference = answers.predictor.reference
    flags = bag.tile_flags if bag.tile_flags is not None else np.zeros(len(bag), np.uint8)
    tiles = f"{row.n_tiles:,}"
    rows = [("tiles", tiles, _range(reference.n_tiles, "{:,.0f}") if reference else "")]
    for number, (name, bit) in enumerate(FLAGS.items()):
        share = float(np.mean((flags & bit) > 0)) if len(bag) else 0.0
        known = _range(reference.flagged[:, number], "{:.0%}") if reference else ""
        if share or known not in ("", "0%"):
            rows.append((f"tiles with {name}", f"{share:.0%}", known))
    if bag.tumour_of_tissue == bag.tumour_of_tissue:
        known = _range(reference.tumour_of_tissue, "{:.0%}") if reference else ""
        rows.append(("tumour of tissue", f"{bag.tumour_of_tissue:.0%}", known))
    return tuple(rows)


def _range(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", form: str) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    low, high = form.format(known.min()), form.format(known.max())
    return low if low == high else f"{low} to {high}"
