"""Errors of the library; each message says what is wrong, what was found, and the remedy.

SarcomilError
├── FeaturesError
│   ├── SlideError          a slide cannot be opened or read
│   │   ├── ScaleError      a slide's micrometres per pixel are unknown or implausible
│   │   ├── TileError       the pixels of one place cannot be decoded; the rest may be readable
│   │   └── SlideExcluded   a rule of the recipe leaves the slide out: no failure
│   ├── AnnotationError     an annotation file is missing, malformed or lacks the requested class
│   │   └── AnnotationMissing
│   ├── BackboneError       a backbone is unknown or its weights cannot be loaded
│   └── BagError            a bag is missing, incomplete, or made by another recipe
└── MilError                see ``mil.errors``
"""


class SarcomilError(Exception):
    """Base of every error that a user can mend."""


class FeaturesError(SarcomilError):
    """What is wrong with slides, annotations, backbones or bags."""


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
