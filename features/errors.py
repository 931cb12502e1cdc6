"""Errors of the library; each message says what is wrong, what was got, and what to do.

SarcomilError
├── FeaturesError
│   ├── SlideError          a slide cannot be opened or read
│   │   ├── ScaleError      a slide's micrometres per pixel are unknown or implausible
│   │   ├── TileError       some pixels of a slide cannot be decoded; others may be readable
│   │   ├── SlideExcluded   a rule of the recipe leaves the slide out; not a failure
│   │   ├── NoTiles         no tile of a slide meets the recipe: there is no such tissue on it
│   │   │   └── NoTissue    no tissue at all is found on a slide by its colour
│   │   └── VolumeError     a series of slices cannot be read, or is not one volume
│   ├── AnnotationError     an annotation file is missing, malformed or lacks the requested class
│   │   ├── AnnotationMissing  a slide has no annotation
│   │   └── EmptyRegion     a region is named, and nothing is drawn in it
│   ├── BackboneError       a backbone is unknown or its weights cannot be loaded
│   ├── BagError            a bag is missing, incomplete, or made with another recipe
│   └── InputError          arguments exclude each other, or name files that do not exist
│       └── ArgumentError   an argument of a function has another type than it takes; a ``TypeError`` too
├── UnknownName             a name is none of those that can be chosen, or is repeated
└── MilError                see ``mil.errors``
"""


class SarcomilError(Exception):
    """Base of every error that a user can resolve.

    Example:
        try:
            features.read_bag("no-such-bag.h5")
        except features.SarcomilError as error:
            print(error)
    """


class UnknownName(SarcomilError):
    """A name is none of those that can be chosen, or is repeated; also an error of what it was to name."""


class FeaturesError(SarcomilError):
    """Base of the errors of slides, annotations, backbones and bags."""


class SlideError(FeaturesError):
    """A slide cannot be opened or read."""


class ScaleError(SlideError):
    """A slide's micrometres per pixel are unknown or implausible."""


class TileError(SlideError):
    """Some pixels of a slide cannot be decoded; others may be readable."""


class SlideExcluded(SlideError):
    """A rule of the recipe leaves the slide out; not a failure."""


class NoTiles(SlideError):
    """No tile of a slide meets the recipe: there is no such tissue on it."""


class NoTissue(NoTiles):
    """No tissue at all is found on a slide by its colour."""


class VolumeError(SlideError):
    """A series of CT, MRI or PET slices cannot be read, or is not one volume."""


class AnnotationError(FeaturesError):
    """An annotation file is missing, malformed or lacks the requested class."""


class AnnotationMissing(AnnotationError):
    """A slide has no annotation."""


class EmptyRegion(AnnotationError):
    """A region is named, and nothing is drawn in it."""


class BackboneError(FeaturesError):
    """A backbone is unknown or its weights cannot be loaded."""


class BagError(FeaturesError):
    """A bag is missing, incomplete, or made with another recipe."""


class InputError(FeaturesError):
    """Arguments exclude each other, or name files that do not exist."""


class ArgumentError(InputError, TypeError):
    """An argument of a function has another type than the function takes."""
