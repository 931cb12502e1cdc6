"""Errors of ``features``; each message says what, what was got, and the remedy.

FeaturesError
├── SlideError        a slide cannot be opened or read
│   └── ScaleError    a slide's micrometres per pixel are unknown or implausible
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


class AnnotationError(FeaturesError):
    """An annotation file is missing, malformed or lacks the class asked for."""


class BackboneError(FeaturesError):
    """A backbone is unknown or its weights cannot be loaded."""


class BagError(FeaturesError):
    """A bag is missing, incomplete, or made by another recipe."""
