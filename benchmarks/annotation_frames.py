"""How often does a check notice that an annotation is turned, mirrored, scaled or moved?

    python -m benchmarks.annotation_frames --folder FOLDER [--slides SLIDES]

20 slides: 10 of the demo cohort, drawn into FOLDER, 8 made ones with a few pieces of tissue on glass, and
2 real ones of SLIDES (made ones without it). Each is annotated truly in up to four ways, and every drawing
is also put into eleven wrong frames:

    outline  what can be seen: the tumour, or on real slides the largest piece of tissue
    coarse   a hull round the tumour, or round all tissue, with glass in it
    within   the outline, drawn well inside the edge
    disc     in the middle of the outline: nothing to go by but glass

Printed is how many of the drawings get a note. True drawings should get none.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from shapely.affinity import affine_transform

from benchmarks.table import print_table, save
from features.regions.annotations import read_annotations
from features.regions.drawing import Region, polygonal_parts
from features.regions.masks import polygons_from_mask, tissue_mask
from features.regions.placement import judge_placement
from features.slides.slide import OVERVIEW_PX
from features.synthetic import CohortSpec, write_cohort

DEMO_SLIDES, MADE_SLIDES = 10, 8
REAL = ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs")
Matrix = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Example:
    """A slide, small, with true drawings by their kind."""

    overview: NDArray[np.uint8]
    size_l0: tuple[int, int]
    mpp: float
    drawn: Mapping[str, Region]


def main() -> None:
    """Print and save how many drawings of each kind get a note in each frame."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slides", type=Path, default=Path())
    options = parser.parse_args()
    counts: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for example in find_examples(options.folder, options.slides):
        mask = find_tissue(example.overview, example.size_l0, example.mpp)
        tissue = polygons_from_mask(mask, example.size_l0)
        for kind, true in example.drawn.items():
            for frame, matrix in frames(example).items():
                drawn = polygonal_parts(affine_transform(true, matrix))
                counts[frame, kind].append(is_noted(drawn, example, mask, tissue))
    kinds = list(dict.fromkeys(kind for _, kind in counts))
    rows = [
        (frame, *(f"{sum(counts[frame, kind])}/{len(counts[frame, kind])}" for kind in kinds))
        for frame in dict.fromkeys(frame for frame, _ in counts)
    ]
    print_table(("frame", *kinds), rows)
    save("annotation_frames", ("frame", *kinds), rows, {"real slides": options.slides.is_dir()})


def is_noted(drawn: Region, example: Example, mask: NDArray[np.bool_], tissue: Region) -> bool:
    """Whether a check says something; a drawing wholly outside the slide is an error there."""
    if not drawn.intersects(shapely.box(0, 0, *example.size_l0)):
        return True
    on_tissue = (drawn & tissue).area / drawn.area
    scales = {"taken as micrometres": 1 / example.mpp, "taken as pixels of level 1": 4.0}
    return bool(
        judge_placement(drawn, on_tissue, example.overview, mask, scales, example.size_l0).note
    )


def frames(example: Example) -> dict[str, Matrix]:
    """The true frame and eleven wrong ones."""
    width, height = example.size_l0
    micrometres = example.mpp
    return {
        "true": (1, 0, 0, 1, 0, 0),
        "turned by 180": (-1, 0, 0, -1, width, height),
        "mirrored in x": (-1, 0, 0, 1, width, 0),
        "mirrored in y": (1, 0, 0, -1, 0, height),
        "x and y swapped": (0, 1, 1, 0, 0, 0),
        "turned by 90": (0, -1, 1, 0, height, 0),
        "turned by 270": (0, 1, -1, 0, 0, width),
        "micrometres": (micrometres, 0, 0, micrometres, 0, 0),
        "level 1": (0.25, 0, 0, 0.25, 0, 0),
        "scaled by 2": (2, 0, 0, 2, 0, 0),
        "shifted by 1/4": (1, 0, 0, 1, width / 4, 0),
        "shifted by 1/8": (1, 0, 0, 1, -width / 8, -height / 8),
    }


def find_examples(folder: Path, slides: Path) -> Iterator[Example]:
    """The 20 slides."""
    if not (folder / "cohort.csv").is_file():
        write_cohort(folder, CohortSpec(cases_per_class=3))
    for path in sorted((folder / "slides").iterdir())[:DEMO_SLIDES]:
        drawing = read_annotations(folder / "annotations" / f"{path.stem}.geojson")
        outline = drawing.region(["Tumor"]) - drawing.union(["Ignore*"])
        yield example_of(*read_overview(path), 0.25, outline, drawing.region(["Tumor"]).convex_hull)
    real = [slides / name for name in REAL if (slides / name).is_file()]
    for path in real:
        overview, size_l0 = read_overview(path)
        tissue = polygons_from_mask(find_tissue(overview, size_l0, 0.5), size_l0)
        largest = max(shapely.get_parts(tissue), key=lambda part: part.area)
        side = max(size_l0)
        outline = shapely.Polygon(largest.buffer(0.01 * side).exterior).simplify(0.01 * side)
        yield example_of(overview, size_l0, 0.5, outline, tissue.convex_hull)
    for seed in range(MADE_SLIDES + len(REAL) - len(real)):
        yield make_example(np.random.default_rng(seed))


def example_of(
    overview: NDArray[np.uint8], size_l0: tuple[int, int], mpp: float, outline: Region, hull: Region
) -> Example:
    """A slide with its drawings: the given outline and hull, and two that follow nothing."""
    middle = shapely.maximum_inscribed_circle(outline, tolerance=0.01 * max(size_l0))
    drawn = {
        "outline": outline,
        "coarse": hull,
        "within": outline.buffer(-0.03 * max(size_l0)),
        "disc": shapely.Point(middle.coords[0]).buffer(0.5 * middle.length),
    }
    return Example(
        overview, size_l0, mpp, {name: area for name, area in drawn.items() if area.area}
    )


def find_tissue(
    overview: NDArray[np.uint8], size_l0: tuple[int, int], mpp: float
) -> NDArray[np.bool_]:
    """Tissue as `mil check` finds it."""
    return tissue_mask(overview, mpp * size_l0[0] / overview.shape[1])


def read_overview(path: Path) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A slide in 1,024 pixels, and its size."""
    with openslide.OpenSlide(path) as slide:
        picture = slide.get_thumbnail((OVERVIEW_PX, OVERVIEW_PX)).convert("RGB")
        return np.asarray(picture), slide.dimensions


def make_example(rng: np.random.Generator) -> Example:
    """One to three pieces of tissue on glass; half of one of them is tumour."""
    size_l0 = (20000, 15000) if rng.random() < 0.5 else (12000, 16000)
    short, scale = min(size_l0), OVERVIEW_PX / max(size_l0)
    pieces = [
        blob(rng, rng.uniform(0.25, 0.75, 2) * size_l0, rng.uniform(0.12, 0.25) * short)
        for _ in range(rng.integers(1, 4))
    ]
    tissue = polygonal_parts(shapely.union_all(pieces) & shapely.box(0, 0, *size_l0))
    piece = max(shapely.get_parts(tissue), key=lambda part: part.area)
    centre, radius = piece.representative_point(), np.sqrt(piece.area / np.pi)
    middle = np.array([centre.x, centre.y]) + rng.uniform(-0.3, 0.3, 2) * radius
    tumour = polygonal_parts(blob(rng, middle, rng.uniform(0.5, 0.8) * radius) & piece)
    shape = (round(size_l0[1] * scale), round(size_l0[0] * scale))
    picture = np.full((*shape, 3), (242, 240, 243), dtype=np.float64)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    stain = rng.uniform((200, 120, 170), (235, 175, 205))
    inside = rasterise(tissue, shape, scale)
    picture[inside] = (stain + 0.5 * texture[..., None] / texture.std() * (16, 28, 16))[inside]
    picture[rasterise(tumour, shape, scale)] -= (35, 45, 15)
    picture = ndimage.gaussian_filter(picture + rng.normal(0, 3, picture.shape), (1, 1, 0))
    overview = picture.clip(0, 255).astype(np.uint8)
    hull = tissue.convex_hull.buffer(0.01 * max(size_l0))
    return example_of(overview, size_l0, 0.5, tumour.buffer(0.005 * max(size_l0)), hull)


def blob(rng: np.random.Generator, centre: NDArray[np.float64], radius: float) -> shapely.Polygon:
    """A round shape with lobes."""
    angle = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    phases = rng.uniform(0, 2 * np.pi, 4)
    lobes = sum(np.sin(k * angle + phases[k - 1]) / k for k in range(1, 5))
    radii = radius * (1 + 0.25 * lobes)
    corners = np.c_[rng.uniform(0.7, 1.6) * np.cos(angle), np.sin(angle)] * radii[:, None]
    return shapely.Polygon(corners + centre).buffer(0)


def rasterise(area: Region, shape: tuple[int, int], scale: float) -> NDArray[np.bool_]:
    """(H, W) True inside an area without holes."""
    image = Image.new("1", (shape[1], shape[0]))
    for part in shapely.get_parts(area):
        ImageDraw.Draw(image).polygon(
            [(x * scale, y * scale) for x, y in part.exterior.coords], fill=1
        )
    return np.asarray(image)


if __name__ == "__main__":
    main()
