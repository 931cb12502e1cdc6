"""Everything the viewer shows of a run, as plain values and picture bytes; computed when asked for."""

import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from features.errors import SlideError
from features.slides.deepzoom import OVERLAP_PX, TILE_PX, DeepZoom
from mil.errors import RunError
from mil.explain.caveats import chance_caveat
from mil.explain.faithfulness import Curves, judge, random_curves
from mil.explain.heatmap import scale_bar, tile_colours, unit_of
from mil.explain.quality import quality_warnings
from mil.explain.scores import TileScores
from mil.explain.target import explanation_target
from mil.heads.registry import head_class
from mil.learning.fitted import Fitted
from mil.report.class_cards import case_cards
from mil.runs.run import Relation, Run
from mil.view.layers import layers_of, score

OPEN_SLIDES = 16  # kept open at once
KEPT_LAYERS = 256  # of one slide each; a few hundred kilobytes


class Gallery:
    """The slides of a run, by number.

    In a cross-validation each slide is scored by the model of the first repeat that has not seen its case.

    Args:
        run: a finished run of `mil crossval` or `mil train`.
        files: the slide files there are, by slide.

    Raises:
        RunError: the run is not finished, of another verb, or names no slides.
    """

    def __init__(self, run: Run, files: Mapping[str, Path]) -> None:
        run.require_finished("crossval", "train")
        self.run = run
        self.case_of = run.cases
        self.slides = tuple(self.case_of)
        if not self.slides:
            raise RunError(f"{run.path} names no slides. Make the run again.")
        self.files = {slide: files[slide] for slide in self.slides if slide in files}
        self._survival = run.task == "survival"
        self.layers = layers_of(run.models, survival=self._survival)
        self._computing = threading.Lock()
        self.scores = lru_cache(KEPT_LAYERS)(self._scores)
        self.verdict = lru_cache(KEPT_LAYERS)(self._verdict)
        self._random = lru_cache(KEPT_LAYERS)(self._random_orders)
        self._bag = lru_cache(KEPT_LAYERS)(lambda number: run.bag(self.slides[number]))
        self._pyramid = lru_cache(OPEN_SLIDES)(self._open_slide)
        self._model_for = lru_cache(OPEN_SLIDES)(run.model_for)

    def contents(self) -> dict[str, Any]:
        """Cases with their slides and what each model said of them, and the layers there are."""
        number = {slide: index for index, slide in enumerate(self.slides)}
        said = self._said()
        cases: dict[str, dict[str, Any]] = {}
        for slide, name in self.case_of.items():
            case = cases.setdefault(
                name,
                {"case": name, "label": self.run.label_of(name), "slides": []}
                | {"said": said.get(name, {})},
            )
            case["slides"].append(
                {"number": number[slide], "slide": slide, "file": slide in self.files}
            )
        return {
            "title": self.run.title,
            "command": self.run.command,
            "classes": self.run.classes,
            "random": self.run.random_backbone,
            "layers": [{"model": layer.model, "method": layer.method} for layer in self.layers],
            "cases": sorted(cases.values(), key=lambda case: str(case["case"])),
        }

    def slide(self, number: int) -> dict[str, Any]:
        """A slide's size, its tiles, and how it can be zoomed into.

        Raises:
            SlideError: the file is damaged, or is of another size than the one its bag was made of.
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
            "coverage": [round(float(value), 3) for value in bag.coverage],
            "overview": bool(bag.thumbnail),
            "zoom": pyramid
            and {
                "tile": TILE_PX,
                "overlap": OVERLAP_PX,
                "levels": pyramid.levels,
                "coarsest": pyramid.coarsest,
            },
        }

    def overview(self, number: int) -> bytes:
        """The whole slide as a small JPEG, as its bag holds it.

        Raises:
            SlideError: the bag holds none.
        """
        picture = self._bag(number).thumbnail
        if not picture:
            raise SlideError(f"The bag of {self.slides[number]} holds no overview.")
        return picture

    def tile(self, number: int, level: int, column: int, row: int) -> bytes:
        """A DeepZoom tile as JPEG.

        Raises:
            SlideError: there is no such tile, or no file of the slide.
        """
        if self.slides[number] not in self.files:
            raise SlideError(
                f"No file of {self.slides[number]} was found. Start the viewer with --slides, the folder "
                "that holds it."
            )
        return self._pyramid(number).tile(level, column, row)

    def _scored(self, number: int, layer: int) -> tuple[TileScores, Fitted, Relation]:
        """A layer's scores, by which model, and what that has to do with the case."""
        bag = self._bag(number)
        fitted, relation = self._model_for(self.slides[number], self.layers[layer].model)
        return score(self.layers[layer].method, fitted, bag), fitted, relation

    def _verdict(self, number: int, layer: int) -> dict[str, Any]:
        """Whether a layer tells what its model reads, as `mil explain` says it."""
        model = self.layers[layer].model
        if not head_class(model).adds_up or self._survival:
            return {"better": True, "says": "How true this is, `mil explain` measures."}
        with self._computing:
            scores, fitted, _ = self._scored(number, layer)
            found = judge(
                explanation_target(fitted, scores.bag), scores, self._random(number, model)
            )
        return {"better": found.better_than_random, "says": f"{found.verdict}."}

    def _random_orders(self, number: int, model: str) -> Curves:
        fitted, _ = self._model_for(self.slides[number], model)
        return random_curves(explanation_target(fitted, self._bag(number)))

    def _scores(self, number: int, layer: int) -> dict[str, Any]:
        """A layer's score and colour of each tile, in the order of the slide's tiles."""
        with self._computing:
            scores, _, relation = self._scored(number, layer)
        told = chance_caveat(self.run, self.layers[layer].model)
        colours = tile_colours(scores).round().astype(int) @ [1 << 16, 1 << 8, 1]
        return {
            "relation": str(relation),
            "warnings": [*filter(None, [told]), *quality_warnings(scores)],
            "values": [float(f"{value:.4g}") for value in scores.values],
            "relative": [float(f"{value:.4g}") for value in scores.relative],
            "colours": colours.tolist(),
            "bar": scale_bar(scores),
            "unit": unit_of(scores),
        }

    def _said(self) -> dict[str, dict[str, Any]]:
        """By case and model: probabilities out of fold, and whether they name the truth."""
        if not self.run.cross_validated or self._survival:  # which has no truth to miss
            return {}
        predictions = self.run.predictions()
        return {
            card.case: {
                model: {"p": [round(p, 4) for p in verdict.p], "right": verdict.right}
                for model, verdict in zip(predictions.models, card.verdicts, strict=True)
            }
            for card in case_cards(predictions)
        }

    def _open_slide(self, number: int) -> DeepZoom:
        name = self.slides[number]
        pyramid = DeepZoom(self.files[name])
        size = self._bag(number).size_l0
        if pyramid.size_l0 != size:
            raise SlideError(
                f"{self.files[name].name} has {pyramid.size_l0[0]} x {pyramid.size_l0[1]} pixels, but the "
                f"bag of {name} was made of {size[0]} x {size[1]}. Give --slides the folder of the slides "
                "that were extracted."
            )
        return pyramid
