"""A bag of all tissue made the bag of a region: its tiles are chosen again, and none is embedded again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.errors import BagError
from features.regions.drawing import Region
from features.regions.masks import coverage

TISSUE = "tissue"


def select_tiles(
    bag: Bag,
    area: Region,
    recipe: Mapping[str, Any],
    *,
    trained_on: Sequence[str] = (),
    trained_on_slides: Sequence[str] = (),
) -> Bag:
    """The tiles of a bag that lie in a region, as its extraction would have chosen them.

    Tiles lie on one grid, whatever the region, so that those of a region are among those of all tissue, but
    for tiles that are mostly glass, and for those that the recipe has not drawn. A tile counts if the region
    covers at least as much of it as the recipe of the bag asks for.

    Args:
        bag: of all tissue.
        area: the region, in level-0 pixels.
        recipe: what changes in the recipe, as ``{"region": "segmented", "segmenter_sha256": ...}``.
        trained_on: cases that whatever made the region has learnt from.
        trained_on_slides: fingerprints of their slides.

    Returns:
        The bag, with the coverage of each tile by the region and the region's share of the tissue in tiles.

    Raises:
        BagError: the bag is not of tissue, or no tile lies in the region.
    """
    least = bag.recipe.get("min_coverage")
    if bag.recipe.get("region") != TISSUE or least is None:
        raise BagError(
            f"{bag.slide}: its tiles were taken from {bag.recipe.get('region', 'an unknown region')}, so "
            "those of another region may be missing. Extract all tissue, without annotations."
        )
    x, y = bag.coords_l0.astype(np.float64).T
    share = coverage(area, x, y, bag.side_l0).astype(np.float32)
    rows = np.flatnonzero(share >= least)
    if not len(rows):
        raise BagError(
            f"{bag.slide}: none of its {len(bag)} tiles is {least:.0%} inside the region. Look at the "
            "region, or extract the tissue again with a lower min_coverage."
        )
    features: NDArray[Any] = np.asarray(bag.features[rows])
    return replace(
        bag,
        features=features,
        coords_l0=bag.coords_l0[rows],
        coverage=share[rows],
        tumour_of_tissue=float(np.minimum(share, bag.coverage).sum() / bag.coverage.sum()),
        tile_flags=None if bag.tile_flags is None else bag.tile_flags[rows],
        recipe={**bag.recipe, **recipe},
        request_sha256="",
        trained_on=tuple(sorted({*bag.trained_on, *trained_on})),
        trained_on_slides=tuple(sorted({*bag.trained_on_slides, *trained_on_slides})),
    )
