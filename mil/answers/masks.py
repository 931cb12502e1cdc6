"""Where the tiles of a new slide come from, and what is said where that differs from training slides."""

from collections.abc import Mapping
from typing import Any

from features.bags.bag import Bag, recipe_differences
from features.bags.store import recipe_differences as describe_differences
from features.errors import NoTiles, NoTissue
from features.recipe import SEGMENTED
from mil.runs.inputs import ANNOTATIONS

SEGMENTER = "segmenter"
FOLDS = "segmenters"  # of all folds, each for its own fit
OUTLINE = "outline of a segmenter"  # an annotation whose classes say that

# How tiles may be chosen otherwise than those of training slides; nothing is promised of such answers.
ALL_TISSUE = "The model learnt from tumour, and this is all tissue: nothing is promised."
BY_SEGMENTER = "The model learnt from drawn tumour; a segmenter drew this: nothing is promised."
OTHER_SEGMENTER = (
    "Another segmenter than that of the training slides chose the tiles: nothing is promised."
)
OUTLINED = (
    "A segmenter drew this outline, and it does not say which cases that has seen: nothing is promised. Once "
    "you have corrected it, give it the class of a drawing in QuPath."
)
OTHER_REGION = (
    "Tiles were chosen in another way than those of training slides: nothing is promised."
)
UNPROMISED = (ALL_TISSUE, BY_SEGMENTER, OTHER_SEGMENTER, OUTLINED, OTHER_REGION)

# What decides which tiles a bag has, and not what their features are.
CHOOSES_TILES = {
    "annotation_origin", "classes", "exclude", "min_coverage", "min_tumour_of_tissue", "region",
    "segmenter_sha256",
}  # fmt: skip
SAME_WEIGHTS = {"weights"}  # the name of their file; what they are, weights_sha256 tells

_NOWHERE = {
    SEGMENTER: "no tile lies in what the segmenter marks as tumour",
    FOLDS: "no tile lies in what a fold's segmenter marks as tumour",
    ANNOTATIONS: "no tile lies inside its annotation",
    OUTLINE: "no tile lies inside its annotation",
}


def tiles_marked(bag: Bag) -> int:
    """Tiles in what a segmenter marks; where it marks none, its bag has all tissue, and a share of 0."""
    return len(bag) if bag.tumour_of_tissue else 0


def nothing_left(mask: str, error: NoTiles) -> str:
    """Why a slide has no tile, in words that follow those of an answer.

    Args:
        mask: where its tiles were to come from.
        error: of its extraction.
    """
    if isinstance(error, NoTissue):
        return "nothing to answer from: no tissue is found on it"
    return f"nothing to answer from: {_NOWHERE.get(mask, 'its tissue is smaller than a tile')}"


def misfit(learnt: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Why a model cannot read a bag, and what to do; empty if it can.

    Args:
        learnt: the recipe of the bags that it learnt from.
        own: the recipe of the bag.
    """
    allowed = {"annotation_origin", "segmenter_sha256"}
    if learnt.get("region") != own.get("region"):
        allowed = CHOOSES_TILES
    refused = {*recipe_differences(learnt, own)} - allowed - SAME_WEIGHTS
    if not refused:
        return ""
    settings = [{k: v for k, v in one.items() if k in refused} for one in (learnt, own)]
    changes = describe_differences(*settings) or ", ".join(sorted(refused))
    text = f"({changes}). Extract the slide with the settings the model's bags were made with."
    if refused == {"classes"}:
        text += " Or set classes to those of the bag, if they are the same tissue by another name."
    return text


def chosen_otherwise(learnt: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """How the tiles of a bag were chosen otherwise than those a model learnt from; empty if alike.

    Args:
        learnt: the recipe of those bags.
        own: that of the bag.
    """
    region = own.get("region")
    if learnt.get("region") != region:
        return {"tissue": ALL_TISSUE, SEGMENTED: BY_SEGMENTER}.get(str(region), OTHER_REGION)
    is_other = learnt.get("segmenter_sha256") != own.get("segmenter_sha256")
    return OTHER_SEGMENTER if is_other else ""
