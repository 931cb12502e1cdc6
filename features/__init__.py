"""What is in the image: from a slide and its annotation to one bag of embedded tiles. No labels.

The names below are the public interface; each is loaded when it is first used, so that importing the package
costs nothing::

    import features

    recipe = features.Recipe(backbone="resnet18", mpp=0.5)
    result = features.extract("slides", "store", recipe=recipe, annotations="annotations")
    bag = features.read_bag("store/case-01-s1.h5")
"""

import importlib
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.backbones.registry import load_backbone as load_backbone
    from features.backbones.table import BackboneEntry as BackboneEntry
    from features.backbones.table import list_backbones as list_backbones
    from features.bags.bag import Bag as Bag
    from features.bags.bag import read_bag as read_bag
    from features.bags.bag import validate_bag as validate_bag
    from features.bags.bag import write_bag as write_bag
    from features.bags.convert import convert as convert
    from features.bags.convert import export as export
    from features.bags.foreign_readers import SourceFacts as SourceFacts
    from features.bags.interchange import make_bag as make_bag
    from features.bags.join import join as join
    from features.errors import FeaturesError as FeaturesError
    from features.errors import SarcomilError as SarcomilError
    from features.extraction.run import Extraction as Extraction
    from features.extraction.run import ExtractionOptions as ExtractionOptions
    from features.extraction.run import extract_slides as extract
    from features.recipe import Recipe as Recipe
    from features.regions.annotations import read_annotations as read_annotations
    from features.slides.slide import Slide as Slide
    from features.slides.slide import open_slide as open_slide

__all__ = [
    "BackboneEntry",
    "Bag",
    "Extraction",
    "ExtractionOptions",
    "FeaturesError",
    "Recipe",
    "SarcomilError",
    "Slide",
    "SourceFacts",
    "convert",
    "export",
    "extract",
    "join",
    "list_backbones",
    "load_backbone",
    "make_bag",
    "open_slide",
    "read_annotations",
    "read_bag",
    "validate_bag",
    "write_bag",
]

_SOURCES = {
    "BackboneEntry": "features.backbones.table:BackboneEntry",
    "Bag": "features.bags.bag:Bag",
    "Extraction": "features.extraction.run:Extraction",
    "ExtractionOptions": "features.extraction.run:ExtractionOptions",
    "FeaturesError": "features.errors:FeaturesError",
    "Recipe": "features.recipe:Recipe",
    "SarcomilError": "features.errors:SarcomilError",
    "Slide": "features.slides.slide:Slide",
    "SourceFacts": "features.bags.foreign_readers:SourceFacts",
    "convert": "features.bags.convert:convert",
    "export": "features.bags.convert:export",
    "extract": "features.extraction.run:extract_slides",
    "join": "features.bags.join:join",
    "list_backbones": "features.backbones.table:list_backbones",
    "load_backbone": "features.backbones.registry:load_backbone",
    "make_bag": "features.bags.interchange:make_bag",
    "open_slide": "features.slides.slide:open_slide",
    "read_annotations": "features.regions.annotations:read_annotations",
    "read_bag": "features.bags.bag:read_bag",
    "validate_bag": "features.bags.bag:validate_bag",
    "write_bag": "features.bags.bag:write_bag",
}

if not TYPE_CHECKING:  # type checkers see the imports above, and no other name

    def __getattr__(name):
        """Load a public name on its first use."""
        if name not in _SOURCES:
            raise AttributeError(f"module 'features' has no attribute {name!r}")
        module, _, attribute = _SOURCES[name].partition(":")
        value = getattr(importlib.import_module(module), attribute)
        if inspect.isfunction(value):
            value = importlib.import_module("features.arguments").checked(value, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
