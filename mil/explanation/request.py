"""Which map is requested, and of what; checked before any work."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from features.bags.bag import Bag, recipe_differences
from features.errors import InputError
from features.progress import Progress
from features.recipe import SEGMENTED
from features.slides.find import find_slides
from mil.errors import FitError, RunError
from mil.explanation.methods import Method, find_method
from mil.runs.facts import slide_hint
from mil.runs.inputs import check_inputs, usable_bags
from mil.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """A map of one slide.

    Attributes:
        method: name of the explanation method; if not given that of ``methods.default_method``.
        model: name of the model; the first of the run that suits the method if not given.
        target: a class; if not given the predicted class, or beside ``regions`` the case's own.
        regions: folder of annotations, by slide, of what a map should find.
        mpp: micrometres per pixel of the picture under the map and of the finest OME-TIFF level; the bag's
            thumbnail, and 1, if not given.
        ome_tiff: whether to paint the map on the slide itself.

    Raises:
        FitError: the method is unknown, or the scale is not above 0.
    """

    method: str | None = None
    model: str | None = None
    target: str | None = None
    regions: Path | None = None
    mpp: float | None = None
    ome_tiff: bool = False

    def __post_init__(self) -> None:
        if self.method is not None:
            find_method(self.method)
        if self.mpp is not None and not 0 < self.mpp < float("inf"):
            raise FitError(f"mpp must be a number above 0; got {self.mpp:g}. Use 0.5.")

    @property
    def row(self) -> Method | None:
        """The method itself; None if it is left to the model."""
        return None if self.method is None else find_method(self.method)

    def check_slide(self, *, available: bool) -> None:
        """Refuse what needs the slide itself, if only its bag is available.

        Raises:
            FitError: naming what needs it.
        """
        needs = {
            "ome_tiff": self.ome_tiff,
            "mpp": self.mpp is not None,
            f"method {self.method}": self.row is not None and self.row.needs_slide,
        }
        for name, needed in needs.items():
            if needed and not available:
                raise FitError(
                    f"{name} needs the slide itself. Set slides to the folder that contains it."
                )


@dataclass(frozen=True, kw_only=True)
class BagSlide:
    """The slide of a bag, and what it takes to read it as its tiles were embedded.

    Attributes:
        path: of the file.
        mpp: micrometres per level-0 pixel, if the slide does not say.
        weights: the backbone's weights file, if the bags were made with one.
    """

    path: Path
    mpp: float | None = None
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class MapInput:
    """A bag or a slide to explain, and what it takes to read it.

    Attributes:
        path: a bag (.h5), a slide, or the name of a slide of the run.
        slides: folder with the bag's slide.
        annotations: folder with the slide's annotations, where a slide is given.
        classes: annotation classes to read as those the model learnt from; its own if not given.
        slide_mpp: micrometres per level-0 pixel, if the slide does not say.
        weights: the backbone's weights file, if the bags were made with one.
    """

    path: Path
    slides: Path | None = None
    annotations: Path | None = None
    classes: tuple[str, ...] = ()
    slide_mpp: float | None = None
    weights: str | None = None

    @property
    def is_bag(self) -> bool:
        """Whether it is a bag."""
        return self.path.suffix == ".h5"

    @property
    def has_slide(self) -> bool:
        """Whether the slide itself is available."""
        return not self.is_bag or self.slides is not None

    def at(self, run: Run) -> "MapInput":
        """The input with a slide of the run that is given by its name as its bag."""
        if str(self.path) in run.bags and not self.path.exists():
            return replace(self, path=run.bag_path(str(self.path)))
        return self

    def check(self, run: Run) -> None:
        """Refuse, before any work, what cannot become a bag of a run's models or has no slides.

        Raises:
            RunError: there is no such file; or, as AnnotationError, as ``check_inputs``.
            SlideError: there is no folder of slides, or no slide in it.
        """
        if not self.path.exists():
            raise RunError(
                f"{self.path}: there is no such file, and the run has no slide of this name."
                f"{slide_hint(run, self.path.name)}"
            )
        if not self.is_bag:
            _check_selection(run)
        check_inputs([self.path], run.recipe, self.annotations)
        if self.is_bag:
            _ = self._files

    def read(self, run: Run, progress: Progress | None = None) -> tuple[Bag, BagSlide | None]:
        """The bag, and its slide if it is available; of a slide, the bag is extracted as the run's were.

        Raises:
            InputError: the folder does not hold the bag's slide.
            FitError, BagError: the slide or bag cannot be used.
        """
        bags, unusable = usable_bags(
            [self.path],
            run.recipe,
            run.path / "bags",
            annotations=self.annotations,
            classes=self.classes,
            weights=self.weights,
            slide_mpp=self.slide_mpp,
            progress=progress,
        )
        if unusable:
            raise next(iter(unusable.values()))
        [bag] = bags
        _check_classes(run, bag)
        if not self.has_slide:
            return bag, None
        file = self._files.get(bag.slide) if self.is_bag else self.path
        if file is None:
            raise InputError(f"slides={self.slides}: holds no slide {bag.slide}.")
        return bag, BagSlide(path=file, mpp=self.slide_mpp, weights=self.weights)

    @cached_property
    def _files(self) -> Mapping[str, Path]:
        return {} if self.slides is None else find_slides(self.slides)


def _check_classes(run: Run, bag: Bag) -> None:
    """Refuse a bag that differs from the run's in its classes alone, with what reads it nevertheless.

    Raises:
        FitError: the models learnt from other classes.
    """
    if recipe_differences(run.recipe, bag.recipe) == ["classes"]:
        raise FitError(
            f"{bag.slide}: the bag does not suit the run (classes {bag.recipe['classes']} where it learnt "
            f"from {run.recipe['classes']}). Set classes to those of the bag, if they are the same tissue by "
            "another name."
        )


def _check_selection(run: Run) -> None:
    """Refuse a new slide for models whose tiles a segmenter selects, which a map does not apply.

    Raises:
        RunError: with what shows the map instead.
    """
    if run.settings.own_bags:
        what = "backbone" if run.settings.finetunes else "segmenter"
        raise RunError(
            f"Each fold of {run.path} has a {what} of its own, so that a new slide has no bag that suits all "
            "fits. The page of new answers shows the mean of their maps (predict_slides); for a slide of the "
            "run, give its name."
        )
    if run.recipe.get("region") == SEGMENTED:
        raise RunError(
            f"The models of {run.path} learnt from tiles that a segmenter selects. Extract the slide with "
            "the same segmenter and give its bag."
        )
