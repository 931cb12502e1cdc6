"""Which map of a slide is requested; checked before any work."""

from dataclasses import dataclass
from pathlib import Path

from mil.errors import FitError
from mil.explanation.methods import Method, find_method


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
            raise FitError(f"mpp is a number above 0; got {self.mpp:g}. Leave it out.")

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
class SlideFile:
    """The slide of a bag, and what it takes to read it as its tiles were embedded.

    Attributes:
        path: of the file.
        mpp: micrometres per level-0 pixel, if the slide does not say.
        weights: the backbone's weights file, if the bags were made with one.
    """

    path: Path
    mpp: float | None = None
    weights: str | None = None
