"""What `mil explain` does: the model for a slide, a map and its files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.options import UsageError

PIXEL_METHODS = ("grad-cam", "guided-grad-cam")
MOST_PX = 12_000  # longer side of a picture that is made as a whole
RANDOM_WEIGHTS = "The backbone has random weights: what lights up in a tile was not learnt."

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from cli.explain import ExplainOptions
    from features.backbones.registry import Backbone
    from features.bags.bag import Bag
    from features.extraction.embed import Tiles
    from features.slides.slide import Slide
    from features.tiles.grid import SlideTiles
    from mil.explain.assess import AssessedMap
    from mil.explain.scores import TileScores
    from mil.explain.target import ExplanationTarget
    from mil.learning.fitted import Fitted
    from mil.runs.run import Relation, Run


def model_for(run: "Run", bag: "Bag", options: "ExplainOptions") -> "tuple[Fitted, Relation]":
    """The model to explain, and what it has to do with the case."""
    model = _explainable(run, run.models, options)
    return run.model_for(bag.slide, model, case=bag.case)


def _explainable(run: "Run", held: Sequence[str], options: "ExplainOptions") -> str:
    """The model asked for, or the first of the run that learns attention.

    Raises:
        UsageError: the run does not hold it, or it has no attention to show.
    """
    from mil.heads.registry import head_class

    asked = options.model
    attending = [name for name in held if head_class(name).learns_attention]
    able = attending if options.method == "attention" and not options.all else list(held)
    if (asked or "") in able:
        return str(asked)
    if asked is None and able:
        return (attending or able)[0]
    what = (
        f"learns no attention in {asked}"
        if asked in held
        else f"holds no {asked or 'attention model'}"
    )
    raise UsageError(
        f"{run.path} {what}; it can explain {', '.join(able) or 'none'} of {', '.join(held)}. Every other "
        "model gives each tile the weight it is given. Pass --model, or run with abmil."
    )


def class_asked(options: "ExplainOptions", run: "Run", bag: "Bag", fitted: "Fitted") -> str | None:
    """The class to explain: as asked; beside regions, which show what the case has, the table's; or None."""
    if options.class_name or options.regions is None:
        return options.class_name
    label = run.label_of(run.case_of(bag.slide, bag.case))
    return label if label in fitted.classes else None


def known_tiles(regions: Path | None, bag: "Bag") -> "NDArray[np.bool_] | None":
    """Tiles of which at least half lies in what was drawn for the slide; None without drawings."""
    if regions is None:
        return None
    import shapely

    from features.recipe import ALWAYS_EXCLUDED
    from features.regions.annotations import find_annotation, read_annotations
    from features.regions.drawing import polygonal_parts
    from features.regions.masks import coverage

    drawing = read_annotations(find_annotation(regions, bag.slide, bag.slide))
    drawn = shapely.union_all([each.polygon for each in drawing.annotations])
    area = polygonal_parts(drawn - drawing.union(ALWAYS_EXCLUDED))
    x, y = (bag.coords_l0 - (bag.bounds_l0 if bag.annotation_origin == "bounds" else (0, 0))).T
    return coverage(area, x.astype(float), y.astype(float), bag.side_l0) >= 0.5


def answering(question: "ExplanationTarget") -> str:
    """Evidence where the answer is a sum over tiles, else the answer to single tiles."""
    from mil.errors import FitError
    from mil.explain.evidence import evidence_scores

    try:
        evidence_scores(question)
    except FitError:
        return "single-tile"
    return "evidence"


@contextmanager
def opened(file: Path, bag: "Bag", slide_mpp: float | None) -> "Iterator[Slide]":
    """The slide a bag was made from; a file of other content is told of.

    Raises:
        UsageError: it is of another size.
    """
    from cli.console import warn
    from features.bags.bag import fingerprint
    from features.extraction.survey import SlideJob, identify_files
    from features.slides.slide import open_slide

    told = bag.mpp_l0[0] if bag.mpp_source != "file" else None
    with open_slide(file, mpp=slide_mpp or told) as slide:
        if slide.size_l0 != bag.size_l0:
            raise UsageError(
                f"{file} is {slide.size_l0[0]} x {slide.size_l0[1]} pixels, the bag's slide "
                f"{bag.size_l0[0]} x {bag.size_l0[1]}. Give the slide the bag was made from."
            )
        held = fingerprint({"files": identify_files(SlideJob(slide=bag.slide, files=(file,)))})
        if bag.source_sha256 not in ("", held):
            warn(
                f"{file} is not the file the bag of {bag.slide} was made from: its pixels may be others."
            )
        yield slide


def picture_of(slide: "Slide", mpp: float) -> "Image.Image":
    """The whole slide at a scale, no finer than its own.

    Raises:
        UsageError: that is too large a picture.
    """
    extent = [pixels * own for pixels, own in zip(slide.size_l0, slide.mpp, strict=True)]
    if max(extent) / mpp > MOST_PX:
        raise UsageError(
            f"--mpp {mpp:g} makes a picture of {max(extent) / mpp:.0f} pixels; at most {MOST_PX} are drawn. "
            f"Ask for {max(extent) / MOST_PX:.2g} or more."
        )
    return slide.thumbnail(round(max(extent) / mpp))


def write_map(
    out: Path, examined: "AssessedMap", caption: str, run: "Run", picture: "Image.Image | None"
) -> list[Path]:
    """The four files of a map; the verdict is said too.

    Where another class is explained than the model calls, their names say so.
    """
    from cli.console import Bars, say, warn
    from features.files.atomic import write_atomic
    from features.slides.slide import file_name
    from mil.explain.assess import map_card
    from mil.explain.caveats import chance_caveat, external_caveat
    from mil.explain.figure import TRUE_TO, draw_explanation
    from mil.explain.scores import write_csv, write_geojson
    from mil.runs.files import write_json

    scores, called = examined.scores, examined.question.called
    class_name = examined.question.class_name
    facts = map_card(examined, progress=Bars())
    facts["guessing"] = chance_caveat(run, scores.model)
    facts["warnings"] += filter(None, [external_caveat(run)])
    told = facts["faithfulness"]
    asked = f"{class_name}, probability {facts['probability']:.2f}"
    if class_name != called:
        asked += f"; the model calls {called}"
    if facts["guessing"]:
        warn(f"  {facts['guessing']}")
    lead = f"{TRUE_TO} " if facts["guessing"] else ""
    say(f"  {asked}. {lead}{told['verdict']}.")
    likeness = told["likeness_to_untrained"]
    infidelity = "undefined" if told["infidelity"] is None else f"{told['infidelity']:.2f}"
    say(
        f"  infidelity {infidelity} (0: scores tell what each tile changes, 1: nothing of it), "
        f"sensitivity {told['sensitivity']:.2f}"
        + ("" if likeness is None else f", likeness to an untrained head's map {likeness:.2f}")
    )
    if found := examined.localisation:
        say(
            f"  known tiles: AUC {found.auc:.3f} (p = {found.p:.2g}), {100 * found.mass:.0f} % of the map on "
            f"{100 * found.share:.0f} % of the tiles, its top {'inside' if found.pointing else 'outside'}"
        )
    for warning in facts["warnings"]:
        warn(f"  {warning}")
    of_class = "" if class_name == called else f"-{file_name(class_name)}"
    base = out / f"{file_name(scores.bag.slide)}-{scores.model}-{scores.method}{of_class}"
    suffixes = (".png", ".csv", ".geojson", ".json")
    paths = [base.with_name(base.name + suffix) for suffix in suffixes]
    drawn = draw_explanation(
        scores,
        examined.faithfulness,
        caption=f"{caption}\n{asked}",
        class_name=class_name,
        guessing=facts["guessing"],
        warnings=facts["warnings"],
        picture=picture,
    )
    write_atomic(paths[0], drawn)
    write_csv(paths[1], scores)
    write_geojson(paths[2], scores)
    write_json(paths[3], facts)
    return paths


def write_risk_map(
    out: Path, fitted: "Fitted", bag: "Bag", caption: str, picture: "Image.Image | None"
) -> "tuple[TileScores, list[Path]]":
    """Where a model of survival looks; what a tile does to a risk is not measured."""
    from cli.console import warn
    from features.files.atomic import write_atomic
    from features.slides.slide import file_name
    from mil.explain.attention import attention_scores
    from mil.explain.heatmap import draw_heatmap
    from mil.explain.quality import quality_warnings
    from mil.explain.scores import write_csv, write_geojson

    scores = attention_scores(fitted, bag)
    warnings = quality_warnings(scores)
    for warning in warnings:
        warn(f"  {warning}")
    base = out / f"{file_name(bag.slide)}-{fitted.model}-attention"
    paths = [base.with_name(base.name + suffix) for suffix in (".png", ".csv", ".geojson")]
    drawn = draw_heatmap(scores, caption="\n".join([caption, *warnings]), picture=picture)
    write_atomic(paths[0], drawn)
    write_csv(paths[1], scores)
    write_geojson(paths[2], scores)
    return scores, paths


def write_tiles(
    base: Path, examined: "AssessedMap", slide: "Slide", options: "ExplainOptions", run: "Run"
) -> list[Path]:
    """The highest and lowest tiles, and for a method of pixels where in the highest the answer lies."""
    import numpy as np

    from cli.console import warn
    from features.files.atomic import write_atomic
    from features.tiles.grid import SlideTiles, TileGrid
    from mil.explain.contact_sheet import draw_contact, draw_tile_maps, ends_of
    from mil.explain.gradcam import recomputed_warning, tile_maps
    from mil.explain.single_tile import single_tile_scores

    scores, bag = examined.scores, examined.scores.bag
    grid = TileGrid(bag.coords_l0, bag.coverage, bag.tile_px, bag.target_mpp, bag.side_l0)
    tiles = SlideTiles(slide, grid)
    sheet = base.with_name(f"{base.stem}-tiles.png")
    verdict = examined.faithfulness.verdict
    write_atomic(sheet, draw_contact(scores, tiles.read, caption=verdict))
    if options.method not in PIXEL_METHODS:
        return [sheet]
    top, _ = ends_of(scores)
    backbone, recolour = _backbone_of(run, options, tiles)
    pixels = np.stack([tiles.read(index) for index in top])
    found = tile_maps(
        examined.question,
        backbone,
        recolour(pixels) if recolour else pixels,
        guided=options.method == "guided-grad-cam",
    )
    stored = single_tile_scores(examined.question).values[top]
    told = (
        *found.warnings,
        *recomputed_warning(stored, found.margins),
        *([RANDOM_WEIGHTS] if backbone.weights.startswith("random") else []),
    )
    for warning in told:
        warn(f"  {warning}")
    inside = base.with_name(f"{base.stem}-{options.method}.png")
    caption = "\n".join([f"Tiles: {verdict}.", *told])
    drawn = draw_tile_maps(scores, top, tiles.read, found, method=options.method, caption=caption)
    write_atomic(inside, drawn)
    return [sheet, inside]


def _backbone_of(
    run: "Run", options: "ExplainOptions", tiles: "SlideTiles"
) -> "tuple[Backbone, Callable[[Tiles], Tiles] | None]":
    """The network that made the run's bags, and what tiles went through before it.

    Raises:
        UsageError: the bags came from another tool.
    """
    from features.backbones.registry import load_backbone
    from features.tiles.normalisation import resolve_stain_reference, tile_normaliser
    from mil.runs.inputs import recipe_from

    recipe = run.recipe
    if recipe.get("region") == "converted":
        raise UsageError("The bags were made by another tool, whose network is not here.")
    asked = recipe_from(recipe, options.weights, run.path / "bags")
    reference = resolve_stain_reference(asked, ()) if asked.stain != "off" else None
    recolour = tile_normaliser(tiles, tiles.slide, asked, reference)
    return load_backbone(recipe["backbone"], asked.weights), recolour
