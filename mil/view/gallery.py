"""Everything the viewer shows of a run, as plain values and image bytes, computed on demand."""

import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from features.errors import SlideError
from features.recipe import is_vector
from features.slides.deepzoom import OVERLAP_PX, TILE_PX, DeepZoom
from features.volumes.film import check_film
from mil.errors import RunError
from mil.explanation.caveats import chance_caveat
from mil.explanation.faithfulness import Curves, judge, random_curves
from mil.explanation.heatmap import describe_unit, scale_bar, tile_colours
from mil.explanation.quality import quality_warnings
from mil.explanation.scores import TileScores
from mil.explanation.target import explanation_target
from mil.heads.registry import head_class
from mil.learning.fitted import FittedModel
from mil.runs.run import Relation, Run
from mil.view.layers import list_layers
from mil.view.predictions import case_predictions
from mil.view.regions import region_rings

OPEN_SLIDES = 16  # cached at once
CACHED_LAYERS = 256  # of one slide each, a few hundred kilobytes

UNMEASURED = "Its faithfulness takes long to measure: explain the slide on its own."


class Gallery:
    """The slides of a run, by number.

    In a cross-validation each slide is scored by the model of the first repeat that has not seen its case.

    Args:
        run: a finished cross-validation or training.
        files: the available slide files, by slide.
        regions: folder with drawings of slides, as a segmenter or QuPath writes them; None shows none.

    Raises:
        RunError: the run is not finished, is of another kind, or names no slides.
    """

    def __init__(self, run: Run, files: Mapping[str, Path], regions: Path | None = None) -> None:
        run.require_finished("crossval", "train")
        self.run = run
        self.case_of = run.cases
        self.slides = tuple(self.case_of)
        if not self.slides:
            raise RunError(f"{run.path} names no slides. Make the run again.")
        self.files = {slide: files[slide] for slide in self.slides if slide in files}
        self.layers = () if is_vector(run.recipe) else list_layers(run.models, run.settings.fit)
        self._drawings = regions
        self._computing = threading.Lock()
        self.scores = lru_cache(CACHED_LAYERS)(self._scores)
        self.verdict = lru_cache(CACHED_LAYERS)(self._verdict)
        self._random = lru_cache(CACHED_LAYERS)(self._random_orders)
        self._bag = lru_cache(CACHED_LAYERS)(lambda number: run.bag(self.slides[number]))
        self._pyramid = lru_cache(OPEN_SLIDES)(self._open_slide)
        self._model_for = lru_cache(OPEN_SLIDES)(run.model_for)

    def contents(self) -> dict[str, Any]:
        """Cases with their slides and each model's prediction, and the layers."""
        number = {slide: index for index, slide in enumerate(self.slides)}
        predictions = case_predictions(self.run)
        cases: dict[str, dict[str, Any]] = {}
        for slide, name in self.case_of.items():
            case = cases.setdefault(
                name,
                {"case": name, "label": self.run.label_of(name), "slides": []}
                | {"predictions": predictions.get(name, {})},
            )
            case["slides"].append(
                {"number": number[slide], "slide": slide, "file": slide in self.files}
            )
        return {
            "title": self.run.title,
            "kind": "cross-validation" if self.run.cross_validated else "training on all cases",
            "classes": self.run.classes,
            "random": self.run.random_backbone,
            "layers": [{"model": layer.model, "method": layer.method} for layer in self.layers],
            "cases": sorted(cases.values(), key=lambda case: str(case["case"])),
        }

    def slide(self, number: int) -> dict[str, Any]:
        """A slide's size, its tiles, and its zoom levels.

        Raises:
            SlideError: the file is damaged, or its size is not that of the bag's slide.
            AnnotationError: the slide's drawing cannot be read.
        """
        name, bag = self.slides[number], self._bag(number)
        pyramid = self._pyramid(number) if name in self.files else None
        return {
            "slide": name,
            "case": self.case_of[name],
            "size": bag.size_l0,
            "mpp": bag.mpp_l0,
            "side": bag.side_l0,
            "coords": bag.coords_l0.tolist(),
            "part": "slice" if bag.volume else "tile",
            "positions": None if bag.positions_mm is None else bag.positions_mm.tolist(),
            "coverage": [round(float(value), 3) for value in bag.coverage],
            "overview": bool(bag.thumbnail),
            "regions": region_rings(self._drawings, bag),
            "zoom": pyramid
            and {
                "tile": TILE_PX,
                "overlap": OVERLAP_PX,
                "levels": pyramid.levels,
                "coarsest": pyramid.coarsest,
            },
        }

    def overview(self, number: int) -> bytes:
        """The whole slide as a small JPEG, from its bag.

        Raises:
            SlideError: the bag has none.
        """
        picture = self._bag(number).thumbnail
        if not picture:
            raise SlideError(f"The bag of {self.slides[number]} has no overview.")
        return picture

    def tile(self, number: int, level: int, column: int, row: int) -> bytes:
        """A DeepZoom tile as JPEG.

        Raises:
            SlideError: the tile does not exist, or the slide has no file.
        """
        if self.slides[number] not in self.files:
            raise SlideError(
                f"No file of {self.slides[number]} was found. Set slides to the folder that holds it, and "
                "start the viewer again."
            )
        return self._pyramid(number).tile(level, column, row)

    def _scored(self, number: int, layer: int) -> tuple[TileScores, FittedModel, Relation]:
        """A layer's scores, the model behind them, and what it has to do with the case."""
        bag = self._bag(number)
        fitted, relation = self._model_for(self.slides[number], self.layers[layer].model)
        return self.layers[layer].score(fitted, bag), fitted, relation

    def _verdict(self, number: int, layer: int) -> dict[str, Any]:
        """Whether a layer shows what its model reads, where that is quickly measured."""
        model = self.layers[layer].model
        if not head_class(model).adds_up:
            return {"better": True, "says": UNMEASURED}
        with self._computing:
            scores, fitted, _ = self._scored(number, layer)
            target = explanation_target(fitted, scores.bag)
            faithfulness = judge(target, scores, self._random(number, model))
        return {"better": faithfulness.better_than_random, "says": f"{faithfulness.verdict}."}

    def _random_orders(self, number: int, model: str) -> Curves:
        fitted, _ = self._model_for(self.slides[number], model)
        return random_curves(explanation_target(fitted, self._bag(number)))

    def _scores(self, number: int, layer: int) -> dict[str, Any]:
        """A layer's score and colour for each tile, in the order of the slide's tiles."""
        with self._computing:
            scores, _, relation = self._scored(number, layer)
        guessing = chance_caveat(self.run, self.layers[layer].model)
        colours = tile_colours(scores).round().astype(int) @ [1 << 16, 1 << 8, 1]
        return {
            "relation": str(relation),
            "warnings": [*filter(None, [guessing]), *quality_warnings(scores)],
            "values": [float(f"{value:.4g}") for value in scores.values],
            "relative": [float(f"{value:.4g}") for value in scores.relative],
            "colours": colours.tolist(),
            "bar": scale_bar(scores),
            "unit": describe_unit(scores),
        }

    def _open_slide(self, number: int) -> DeepZoom:
        name = self.slides[number]
        check_film(self.files[name], self._bag(number).volume)
        pyramid = DeepZoom(self.files[name])
        size = self._bag(number).size_l0
        if pyramid.size_l0 != size:
            raise SlideError(
                f"{self.files[name].name} has {pyramid.size_l0[0]} x {pyramid.size_l0[1]} pixels, but the "
                f"bag of {name} was made from {size[0]} x {size[1]}. Set slides to the folder of the "
                "extracted slides."
            )
        return pyramid
