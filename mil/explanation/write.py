"""Explain one slide of a run and write the map's files."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.bags.bag import Bag
from features.files.atomic import write_atomic
from features.progress import Progress
from features.slides.names import file_name
from features.slides.slide import Slide
from mil.explanation.assess import AssessedMap, assess_map, map_card
from mil.explanation.caveats import chance_caveat, validation_caveat
from mil.explanation.contact_sheet import draw_contact_sheet, draw_tile_maps, extreme_tiles
from mil.explanation.default import method_for
from mil.explanation.faithfulness import random_curves
from mil.explanation.figure import draw_explanation
from mil.explanation.gradcam import recomputed_warning
from mil.explanation.known import known_tiles
from mil.explanation.methods import Method
from mil.explanation.models import choose_model, choose_target
from mil.explanation.pyramid import FINEST_MPP, write_ome_tiff
from mil.explanation.request import BagSlide, MapInput, MapRequest
from mil.explanation.scores import TileScores, write_csv, write_geojson
from mil.explanation.single_tile import single_tile_scores
from mil.explanation.slides import bag_tiles, draw_picture, load_bag_backbone, open_bag_slide
from mil.explanation.target import explanation_target
from mil.runs.files import write_json
from mil.runs.run import Relation, Run, check_bag

RANDOM_WEIGHTS = "The backbone has random weights: what lights up was not learnt."


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The map of one slide with its measures.

    Attributes:
        method: that was requested.
        assessed: the map, its faithfulness and its localisation.
        relation: what the model has to do with the slide's case.
        answer: what the model computes of the slide, in words.
        card: all measures, as in the map's JSON.
        guessing: a sentence if the model may be guessing; else empty.
        warnings: further sentences.
        paths: the files written.
    """

    method: Method
    assessed: AssessedMap
    relation: Relation
    answer: str
    card: Mapping[str, Any]
    guessing: str
    warnings: tuple[str, ...]
    paths: tuple[Path, ...] = field(default=())

    def __repr__(self) -> str:
        """The slide, the method, and what the map is worth."""
        return f"Explanation({self.method.name} of {self.scores.bag.slide}: {self.answer}. {self.verdict})"

    @property
    def scores(self) -> TileScores:
        """One score per tile."""
        return self.assessed.scores

    def save(self, folder: Path | str) -> tuple[Path, ...]:
        """Write the map as PNG, CSV, GeoJSON for QuPath, and JSON of its measures; returns the paths."""
        return tuple(write_map(Path(folder), self))

    @property
    def verdict(self) -> str:
        """Faithfulness to the model in words; it says nothing of whether the model is right."""
        return f"{self.assessed.faithfulness.verdict}."


def explain_input(
    run: Run,
    source: MapInput,
    folder: Path,
    request: MapRequest,
    *,
    notify: Callable[[str], None] = lambda _text: None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain a bag or a slide, as ``explain_slide``; a slide becomes a bag first.

    Raises:
        InputError: the folder of slides does not hold the bag's.
        FitError, BagError: the slide or bag cannot be used.
    """
    bag, slide = source.read(run, progress)
    return explain_slide(run, bag, folder, request, slide=slide, notify=notify, progress=progress)


def explain_slide(
    run: Run,
    bag: Bag,
    folder: Path,
    request: MapRequest,
    *,
    slide: BagSlide | None = None,
    notify: Callable[[str], None] = lambda _text: None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain one slide by a model of a run and write the map's files.

    Args:
        run: a cross-validation, whose model that has not seen the case is explained, or a trained model.
        bag: of the slide.
        folder: for the files.
        request: which map.
        slide: the slide itself, if available.
        notify: receives remarks on the slide.
        progress: shows how the work advances.

    Raises:
        FitError: request, model and bag do not suit each other.
        RunError: the bag or the model has changed since the run.
        SlideError: the slide is not the bag's.
    """
    request.check_slide(available=slide is not None)
    check_bag(run, bag)
    opening = open_bag_slide(slide.path, bag, slide.mpp, notify) if slide else nullcontext()
    with opening as opened:
        picture = draw_picture(opened, request.mpp) if opened and request.mpp else None
        explanation = explain_bag(run, bag, request, progress=progress)
        paths = write_map(folder, explanation, picture)
        if slide and opened:
            tile_paths, warnings = _write_tiles(paths[0], explanation, opened, run, slide.weights)
            paths += tile_paths
            explanation = replace(explanation, warnings=(*explanation.warnings, *warnings))
        if opened and request.ome_tiff:
            paths.append(paths[0].with_suffix(".ome.tiff"))
            scores, mpp = explanation.assessed.scores, request.mpp or FINEST_MPP
            write_ome_tiff(paths[-1], opened, scores, mpp=mpp)
    return replace(explanation, paths=tuple(paths))


def explain_bag(
    run: Run, bag: Bag, request: MapRequest, *, progress: Progress | None = None
) -> Explanation:
    """Explain one bag by a model of a run, without writing anything.

    Raises:
        FitError: request, model and bag do not suit each other.
        RunError: the model has changed since the run.
    """
    model = choose_model(run, request.row, request.model)
    fitted, relation = run.model_for(bag.slide, model, case=bag.case)
    label = choose_target(run, bag, fitted, request.target, request.regions)
    target = explanation_target(fitted, bag, label)
    method = request.row or method_for(target)
    random = random_curves(target, progress=progress)
    known = None if request.regions is None else known_tiles(request.regions, bag)
    assessed = assess_map(target, method.name, random, known)
    card = map_card(assessed, progress=progress)
    card["guessing"] = chance_caveat(run, model)
    card["warnings"] += filter(None, [validation_caveat(run)])
    all_tiles = np.ones((1, len(bag)), dtype=bool)
    answer = target.quantity.describe(float(target.subset_answers(all_tiles)[0]))
    if target.name != target.predicted:
        answer += f"; the model predicts {target.predicted}"
    return Explanation(
        method=method,
        assessed=assessed,
        relation=relation,
        answer=answer,
        card=card,
        guessing=card["guessing"],
        warnings=tuple(card["warnings"]),
    )


def write_map(
    folder: Path, explanation: Explanation, picture: Image.Image | None = None
) -> list[Path]:
    """Write PNG, CSV, GeoJSON and JSON of a map; named after the target where it is not the predicted one."""
    assessed = explanation.assessed
    scores, target = assessed.scores, assessed.target
    suffix = "" if target.name == target.predicted else f"-{file_name(target.name)}"
    base = folder / f"{file_name(scores.bag.slide)}-{scores.model}-{scores.method}{suffix}"
    suffixes = (".png", ".csv", ".geojson", ".json")
    paths = [base.with_name(base.name + suffix) for suffix in suffixes]
    drawn = draw_explanation(
        scores,
        assessed.faithfulness,
        caption=f"{explanation.relation}\n{explanation.answer}",
        answer_label=target.quantity.answer_label,
        limits=target.quantity.limits,
        guessing=explanation.guessing,
        warnings=explanation.warnings,
        picture=picture,
    )
    write_atomic(paths[0], drawn)
    write_csv(paths[1], scores)
    write_geojson(paths[2], scores)
    write_json(paths[3], explanation.card)
    return paths


def _write_tiles(
    base: Path, explanation: Explanation, slide: Slide, run: Run, weights: str | None
) -> tuple[list[Path], Sequence[str]]:
    """Write the highest and lowest tiles, and maps within the highest; return the paths and warnings."""
    assessed, method = explanation.assessed, explanation.method
    scores, target = assessed.scores, assessed.target
    tiles = bag_tiles(slide, scores.bag)
    sheet = base.with_name(f"{base.stem}-tiles.png")
    verdict = assessed.faithfulness.verdict
    write_atomic(sheet, draw_contact_sheet(scores, tiles.read, caption=verdict))
    if not method.needs_slide:
        return [sheet], ()
    top, _ = extreme_tiles(scores)
    backbone, normaliser = load_bag_backbone(run.recipe, weights, run.path / "bags", tiles)
    pixels = np.stack([tiles.read(index) for index in top])
    tile_maps = method.tile_maps(target, backbone, normaliser(pixels) if normaliser else pixels)
    stored = single_tile_scores(target).values[top]
    warnings = [*tile_maps.warnings, *recomputed_warning(stored, tile_maps.scores)]
    if backbone.weights.startswith("random"):
        warnings.append(RANDOM_WEIGHTS)
    path = base.with_name(f"{base.stem}-{method.name}.png")
    caption = "\n".join([f"{scores.part.capitalize()}s: {verdict}.", *warnings])
    drawn = draw_tile_maps(scores, top, tiles.read, tile_maps, method=method.name, caption=caption)
    write_atomic(path, drawn)
    return [sheet, path], warnings
