"""A cohort of bags as `mil extract` writes them, made without slides: for measurements of cost over size."""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.bags.bag import Bag, write_bag
from features.synthetic import CohortSpec
from features.synthetic.cohort import draw_slide

LABELS, SITES, KINDS = ("LMS", "SS", "UPS"), ("A", "B", "C"), 24
SIDE_L0, MPP_L0 = 512, 0.25
PICTURE_L0 = 1280
RECIPE: Mapping[str, Any] = {"backbone": "made", "precision": "fp16", "tile": 256, "mpp": 0.5}


def write_made_cohort(
    folder: Path,
    n_cases: int,
    *,
    tiles: tuple[int, int] = (200, 1000),
    dim: int = 512,
    thumbnails: bool = False,
) -> None:
    """Write ``cohort.csv`` and ``store/`` with one bag per case.

    Args:
        folder: created if needed.
        n_cases: number of cases, of three classes at three sites.
        tiles: least and most tiles of a bag.
        dim: length of a tile's features.
        thumbnails: with a picture of a drawn slide in each bag.
    """
    (folder / "store").mkdir(parents=True, exist_ok=True)
    kinds = np.random.default_rng(0).standard_normal((KINDS, dim))
    rows = []
    for number in range(n_cases):
        label, site = LABELS[number % 3], SITES[number // 3 % 3]
        bag = make_bag(number, kinds, np.random.default_rng([1, number]), tiles)
        if thumbnails:
            bag = _with_picture(bag, number)
        write_bag(folder / "store" / f"{bag.slide}.h5", bag)
        rows.append((bag.case, bag.slide, label, site))
    with (folder / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "slide", "label", "site"), *rows])


def make_bag(
    number: int, kinds: np.ndarray, rng: np.random.Generator, tiles: tuple[int, int]
) -> Bag:
    """A bag whose tiles are of a few kinds of tissue in shares of its own; the first kinds tell the class."""
    n, dim = int(rng.integers(tiles[0], tiles[1] + 1)), kinds.shape[1]
    shares = rng.dirichlet(np.full(KINDS, 0.5))
    shares[number % 3] += 0.1
    kind = rng.choice(KINDS, n, p=shares / shares.sum())
    features = kinds[kind] + 0.5 * rng.standard_normal((n, dim))
    columns = int(np.ceil(np.sqrt(n)))
    places = np.stack(np.divmod(np.arange(n), columns), axis=1)[:, ::-1]
    size = SIDE_L0 * (columns + 1)
    return Bag(
        slide=f"slide-{number:05d}",
        case=f"pt-{rng.integers(10**9):09d}-{number}",
        features=features.astype(np.float16),
        coords_l0=(SIDE_L0 * places).astype(np.int64),
        coverage=np.ones(n, np.float32),
        side_l0=(SIDE_L0, SIDE_L0),
        size_l0=(size, size),
        mpp_l0=(MPP_L0, MPP_L0),
        mpp_source="file",
        tile_px=256,
        target_mpp=0.5,
        recipe=RECIPE,
        source_sha256=f"{number:064x}",
        tile_flags=np.zeros(n, np.uint8),
        reader="openslide",
    )


def _with_picture(bag: Bag, number: int) -> Bag:
    """The bag with the picture of a drawn slide, and of its size."""
    pixels = draw_slide(CohortSpec(seed=number, side_px=PICTURE_L0), 0, "")
    buffer = io.BytesIO()
    Image.fromarray(pixels).reduce(2).save(buffer, "JPEG", quality=80)
    return replace(bag, thumbnail=buffer.getvalue())
