"""A cohort of small slides for tests that are not about what slides show: drawn and read in milliseconds."""

import numpy as np

from features.synthetic import SUBTYPES
from tests.features.making import GLASS, box_ring, feature, write_geojson, write_tiff

SIDE = 640
TISSUE, TUMOUR = (24, 616), (48, 592)  # a tile of 112 µm lies in the tumour, four of 56 µm
STROMA, CELLS = (226, 150, 190), (150, 80, 150)


def write_small_cohort(folder, cases_per_class=1, labels=SUBTYPES):
    """Slides, annotations and ``cohort.csv`` as `features.synthetic.write_cohort` writes them.

    Every slide is a square of tissue on glass, with a square tumour that is outlined.

    Args:
        folder: receives them.
        cases_per_class: cases of each label, with one slide each.
        labels: those of the first cases, in this order; they begin again after the last.

    Returns:
        The table's path; its columns are case, slide, label, time and event.
    """
    for name in ("slides", "annotations"):
        (folder / name).mkdir()
    lines = ["case,slide,label,time,event"]
    for number in range(cases_per_class * len(labels)):
        case, label = f"case-{number + 1:02d}", labels[number % len(labels)]
        picture = _draw(np.random.default_rng(number))
        levels = [picture, np.ascontiguousarray(picture[::4, ::4])]
        write_tiff(folder / "slides" / f"{case}-s1.tiff", levels, compression="jpeg")
        ring = box_ring(TUMOUR[0], TUMOUR[0], TUMOUR[1], TUMOUR[1])
        write_geojson(folder / "annotations" / f"{case}-s1.geojson", feature(ring))
        lines.append(f"{case},{case}-s1,{label},{5 + 7 * number % 31}.5,{int(number % 3 > 0)}")
    table = folder / "cohort.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def _draw(rng):
    picture = np.full((SIDE, SIDE, 3), GLASS, np.uint8)
    for (start, stop), colour in ((TISSUE, STROMA), (TUMOUR, CELLS)):
        grain = rng.integers(-20, 20, (stop - start, stop - start, 1))
        picture[start:stop, start:stop] = np.clip(np.array(colour) + grain, 0, 255)
    return picture
