"""Errors of ``features``; each message says what, what was got, and the remedy.

FeaturesError
├── SlideError        a slide cannot be opened or read
│   ├── ScaleError    a slide's micrometres per pixel are unknown or implausible
│   ├── TileError     the pixels of one place cannot be decoded; the rest of the slide may be whole
│   └── SlideExcluded a rule of the recipe leaves the slide out: no failure
├── AnnotationError   an annotation file is missing, malformed or lacks the class asked for
├── BackboneError     a backbone is unknown or its weights cannot be loaded
└── BagError          a bag is missing, incomplete, or made by another recipe
"""


class FeaturesError(Exception):
    """Base of every error a user can mend in ``features``."""


class SlideError(FeaturesError):
    """A slide cannot be opened or read."""


class ScaleError(SlideError):
    """A slide's micrometres per pixel are unknown or implausible."""


class TileError(SlideError):
    """The pixels of one place cannot be decoded; the rest of the slide may be whole."""


class SlideExcluded(SlideError):
    """A rule of the recipe leaves the slide out: no failure."""


class AnnotationError(FeaturesError):
    """An annotation file is missing, malformed or lacks the class asked for."""


class AnnotationMissing(AnnotationError):
    """A slide has no annotation."""


class BackboneError(FeaturesError):
    """A backbone is unknown or its weights cannot be loaded."""


class BagError(FeaturesError):
    """A bag is missing, incomplete, or made by another recipe."""
