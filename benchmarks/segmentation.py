"""How well is tumour found that nobody has drawn, and what does it do to the diagnosis?

    python -m benchmarks.segmentation --folder FOLDER [--unet] [--large] [--real FOLDER]

Draws the demo cohort into FOLDER (its slides are used again if they are there), and prints one table of what
is claimed: cross-validated Dice of the segmenter next to colour alone and to all tissue, with learnt and with
random weights; how it falls with fewer annotated slides, with discs instead of outlines and where drawn
tumour lacks a part; fresh slides of another seed; and the diagnosis by tiles of annotations, of masks of
each fold and of all tissue, on the same folds. ``--unet`` adds the U-Net and the mean of both, about half a
minute of one core per fold; ``--large`` a sparse slide of 100,000 px, in a process of its own; ``--real``
slides of other kinds, whose outlines a segmenter of the demo must not promise anything of.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.table import peak_mib, print_table, save
from features.bags.bag import read_bag, write_bag
from features.bags.select import select_tiles
from features.extraction.jobs import JobSettings, SlideJob, jobs_of_rows
from features.extraction.run import extract_jobs
from features.lowpower.feature_map import (
    STRIDE,
    WINDOW_PX,
    CellGrid,
    FeatureMap,
    Window,
    lay_cells,
)
from features.lowpower.segmenter import Segmenter, load_segmenter, save_segmenter
from features.recipe import Recipe
from features.reference import UNLIKE, UNUSUAL
from features.regions.annotations import read_annotations
from features.slides.slide import Slide, open_slide
from features.synthetic import CohortSpec, write_cohort
from mil.data.cohort import Cohort, load_cohort
from mil.data.splits import split_cases
from mil.data.table import read_table
from mil.evaluation.paired_tests import mcnemar_exact
from mil.learning.crossval import cross_validate as cross_validate_models
from mil.learning.crossval import fit_anew
from mil.segmentation.cross_validation import OutOfFold, cross_validate, has_tumour, masks_of
from mil.segmentation.evaluation import SegmentEvaluation
from mil.segmentation.folds import case_folds
from mil.segmentation.learner import COLOUR, MAP, TISSUE, Learner, with_reference
from mil.segmentation.per_fold import Segmenting, cross_validate_segmented
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import DrawnSlide, ReadSlide, drawn_slides
from mil.settings import FitSettings, SplitSettings

HEADER = ("what", "bar", "measured")
Row = tuple[str, str, str]
DIAGNOSIS = ("pooled-logistic", "abmil")
DISC_UM, DISCS = 150.0, 3
LARGE_PX, LARGE_TISSUE_PX = 100_000, 4096
FRESH_SEED = 101


def draw(folder: Path, seed: int = 0, cases_per_class: int = 5) -> None:
    """The demo cohort, unless it is there."""
    if not (folder / "cohort.csv").is_file():
        write_cohort(folder, CohortSpec(seed=seed, cases_per_class=cases_per_class))


def drawn_of(folder: Path) -> list[DrawnSlide]:
    """All annotated slides of a cohort, whatever part of its table they are in."""
    rows = read_table(folder / "segmentation.csv")
    settings = JobSettings(annotations=folder / "annotations")
    return drawn_slides(rows, folder / "slides", settings, lambda _note: None)


def judge(learner: Learner, slides: Sequence[ReadSlide]) -> SegmentEvaluation:
    """Five folds of cases."""
    folds = case_folds(has_tumour(slides), 5, 0)
    scores = cross_validate(learner, slides, folds).scores()
    return SegmentEvaluation(scores, learner.settings.kind)


def shown(evaluation: SegmentEvaluation, method: str) -> str:
    dice, worst = evaluation.estimate(method, "dice"), evaluation.worst(method)
    return f"{dice.value:.3f} [{dice.low:.3f}, {dice.high:.3f}], worst {worst.dice:.3f}"


def difference(evaluation: SegmentEvaluation, other: str) -> str:
    pair = evaluation.paired(evaluation.kind, other)
    assert pair
    return f"{pair.mean:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}], {pair.better}/{pair.cases}"


def main_rows(folder: Path, *, unet: bool) -> list[Row]:
    """Learnt weights, random weights, and the U-Net if asked for."""
    drawn, started = drawn_of(folder), time.process_time()
    learner = Learner(SegmentSettings(), folder / "maps")
    slides = learner.read(drawn)
    evaluation = judge(learner, slides)
    seconds = time.process_time() - started
    random = Learner(SegmentSettings(weights="random"), folder / "maps")
    by_random = judge(random, random.read(drawn))
    rows = [
        ("colour only", "<= .80", shown(evaluation, COLOUR)),
        ("all tissue", "", shown(evaluation, TISSUE)),
        (f"map, {learner.backbone.weights}", ">= .92, worst >= .87", shown(evaluation, MAP)),
        ("map, random weights", ">= .80", shown(by_random, MAP)),
        ("map minus colour, by case", ">= .10", difference(evaluation, COLOUR)),
        (f"{len(drawn)} slides, 5 folds, features included", "<= 10 CPU s", f"{seconds:.1f} CPU s"),
    ]
    if unet:
        both = Learner(SegmentSettings(kind="both"), folder / "maps")
        of_both = judge(both, slides)
        rows += [
            ("U-Net", "", shown(of_both, "unet")),
            ("mean of map and U-Net", "", shown(of_both, "both")),
            ("mean minus map, by case", ">= 0", difference(of_both, MAP)),
        ]
    return rows


def fresh_row(folder: Path, other: Path) -> Row:
    """Slides of another seed by a segmenter of all slides of the first."""
    learner = Learner(SegmentSettings(), folder / "maps")
    segmenter = learner.fit(learner.read(drawn_of(folder)))
    slides = Learner(SegmentSettings(), other / "maps").read(drawn_of(other))
    masks: dict[str, dict[str, np.ndarray]] = {}
    for slide in slides:
        for method, mask in masks_of(segmenter, slide).items():
            masks.setdefault(method, {})[slide.name] = mask
    evaluation = SegmentEvaluation(OutOfFold(slides, masks).scores(), MAP)
    return "fresh slides of another seed", ">= .92", shown(evaluation, MAP)


def gate_rows(folder: Path, other: Path, real: Path | None) -> list[Row]:
    """How often an outline is called unlike what was learnt: of unseen slides of its kind, and of others."""
    learner = Learner(SegmentSettings(), folder / "maps")
    slides = learner.read(drawn_of(folder))
    tumour, none = [], []
    for fold in case_folds(has_tumour(slides), 5, 0):
        train, test = ([s for s in slides if s.case in part] for part in (fold.train, fold.test))
        segmenter = with_reference(learner.fit(train), train)
        for slide in test:
            (tumour if slide.target.positive.any() else none).append(
                ratio_of(segmenter, slide.drawn.job)
            )
    segmenter = with_reference(learner.fit(slides), slides)
    for drawn in drawn_of(other):
        has_some = "Tumor" in read_annotations(drawn.job.annotation()).histogram()
        (tumour if has_some else none).append(ratio_of(segmenter, drawn.job))
    rows = [
        ("outlines of unseen slides with tumour called unlike", "<= 1 %", counted_above(tumour))
    ]
    rows.append(("outlines of slides without tumour called unlike", "", counted_above(none)))
    for path in sorted(real.iterdir()) if real else []:
        if path.is_file() and path.suffix in (".svs", ".ndpi"):
            job = SlideJob(slide=path.stem, files=(path,), fallback_mpp=0.25)
            rows.append((f"outline of {path.name}", "> 1.5", f"{ratio_of(segmenter, job):.2f}"))
    return rows


def ratio_of(segmenter: Segmenter, job: SlideJob) -> float:
    """How far what is called tumour on a slide lies from what was learnt."""
    with job.open() as slide:
        return segmenter.tumour_map(slide).ratio


def counted_above(ratios: Sequence[float]) -> str:
    """How many are unlike, and unusual."""
    values = np.array(ratios)
    return (
        f"{(values > UNLIKE).sum()}/{len(values)}, unusual {(values > UNUSUAL).sum()}, largest "
        f"{np.nanmax(values):.2f}, hardly any tumour {np.isnan(values).sum()}"
    )


def tested_by(
    learner: Learner,
    slides: Sequence[ReadSlide],
    thin: Callable[[list[ReadSlide], int], list[ReadSlide]],
) -> SegmentEvaluation:
    """Five folds whose training slides are thinned out or drawn otherwise; the tests are as they are."""
    masks: dict[str, dict[str, np.ndarray]] = {}
    for number, fold in enumerate(case_folds(has_tumour(slides), 5, 0)):
        train = thin([s for s in slides if s.case in fold.train], number)
        fitted = Learner(learner.settings, learner.folder)
        segmenter = fitted.fit(train)
        for slide in slides:
            if slide.case in fold.test:
                for method, mask in masks_of(segmenter, slide).items():
                    masks.setdefault(method, {})[slide.name] = mask
    return SegmentEvaluation(OutOfFold(slides, masks).scores(), MAP)


def few_rows(folder: Path) -> list[Row]:
    """One training slide, and discs instead of outlines."""
    learner = Learner(SegmentSettings(), folder / "maps")
    slides = learner.read(drawn_of(folder))

    def one(train: list[ReadSlide], number: int) -> list[ReadSlide]:
        full = [s for s in train if s.target.full and s.target.positive.any()]
        return [full[number % len(full)]]

    def discs(train: list[ReadSlide], _number: int) -> list[ReadSlide]:
        return [with_discs(slide) for slide in train]

    def lost(train: list[ReadSlide], _number: int) -> list[ReadSlide]:
        return [half_drawn(slide, full=True) for slide in train]

    def unknown(train: list[ReadSlide], _number: int) -> list[ReadSlide]:
        return [half_drawn(slide, full=False) for slide in train]

    undrawn = "half of each tumour undrawn"
    return [
        ("one annotated training slide", ">= .85", shown(tested_by(learner, slides, one), MAP)),
        ("3 + 3 discs of 150 µm per slide", ">= .89", shown(tested_by(learner, slides, discs), MAP)),
        (f"{undrawn}, called full", "worse", shown(tested_by(learner, slides, lost), MAP)),
        (f"{undrawn}, called partial", ">= .90", shown(tested_by(learner, slides, unknown), MAP)),
    ]  # fmt: skip


def with_discs(slide: ReadSlide) -> ReadSlide:
    """Known only in three discs of tumour and three of other tissue."""
    rng = np.random.default_rng([7, *slide.name.encode()])
    rows, columns = np.indices(slide.grid.shape)
    known = np.zeros(slide.grid.shape, dtype=bool)
    for kind in (slide.target.positive, slide.target.negative & slide.target.tissue):
        places = np.argwhere(kind)
        for place in places[rng.permutation(len(places))[:DISCS]]:
            disc = np.hypot(rows - place[0], columns - place[1]) * 20 <= DISC_UM / 2
            known |= disc & slide.target.known
    return replace(slide, target=replace(slide.target, known=known))


def half_drawn(slide: ReadSlide, *, full: bool) -> ReadSlide:
    """The right half of the tumour's cells undrawn: taken for no tumour, or unknown."""
    target = slide.target
    columns = np.indices(slide.grid.shape)[1]
    middle = np.median(columns[target.positive]) if target.positive.any() else np.inf
    lost = (target.tumour > 0) & (columns > middle)
    if full:
        return replace(slide, target=replace(target, tumour=np.where(lost, 0, target.tumour)))
    right = target.tissue & (columns > middle)
    return replace(slide, target=replace(target, known=target.known & ~right))


def diagnosis_rows(folder: Path) -> list[Row]:
    """Right cases by tiles of annotations, of masks of each fold, and of all tissue."""
    recipe = Recipe(backbone="efficientnet-lite0", mpp=0.5)
    rows = read_table(folder / "cohort.csv")
    extract_jobs(jobs_of_rows(rows, folder / "slides"), recipe, folder / "tissue-store")
    tissue = load_cohort(folder / "cohort.csv", folder / "tissue-store")
    split, fit = SplitSettings(), FitSettings()
    folds = split_cases(tissue.names, tissue.labels, [""] * len(tissue.names), split)
    learner, drawn = Learner(SegmentSettings(), folder / "maps"), drawn_of(folder)
    work = Segmenting(
        cohort=tissue,
        annotated=drawn,
        others=(),
        learner=learner,
        store=lambda fold: folder / "folds" / f"f{fold.index}",
    )
    by_hand = annotated(tissue, learner.read(drawn), folder)
    tables = {
        "annotation": cross_validate_models(by_hand, folds, DIAGNOSIS, fit, seed=0),
        "mask of each fold": cross_validate_segmented(work, folds, DIAGNOSIS, fit, seed=0, fitter=fit_anew),
        "all tissue": cross_validate_models(tissue, folds, DIAGNOSIS, fit, seed=0),
    }  # fmt: skip
    right = {
        (name, model): right_cases(table.table[table.table["model"] == model])
        for name, table in tables.items()
        for model in DIAGNOSIS
    }
    rows_of_table = []
    for model in DIAGNOSIS:
        first = right["annotation", model]
        for name in tables:
            cases = right[name, model]
            p = mcnemar_exact(len(first - cases), len(cases - first))
            against = "" if name == "annotation" else f", McNemar p {p:.2f}"
            bar = "at most 2 fewer" if name == "mask of each fold" else ""
            rows_of_table.append(
                (f"diagnosis, {model}, tiles of {name}", bar, f"{len(cases)}/{len(rows)}{against}")
            )
    return rows_of_table


def annotated(tissue: Cohort, slides: Sequence[ReadSlide], folder: Path) -> Cohort:
    """The cohort with the tiles of its annotations."""
    region = {slide.name: slide.target.region for slide in slides}
    cases = []
    for case in tissue.cases:
        bags = []
        for bag in case.bags:
            path = folder / "annotated" / f"{bag.slide}.h5"
            write_bag(path, select_tiles(bag, region[bag.slide], {"region": "annotations"}))
            bags.append(replace(read_bag(path), case=case.name))
        cases.append(replace(case, bags=tuple(bags)))
    return replace(tissue, cases=tuple(cases))


def right_cases(table) -> set[str]:  # type: ignore[no-untyped-def]
    """Cases whose true class has the highest mean probability."""
    columns = [name for name in table.columns if name.startswith("p_")]
    means = table.groupby("case")[columns].mean()
    truth = table.groupby("case")["label"].first()
    return {case for case in means.index if means.loc[case].idxmax() == f"p_{truth[case]}"}


def large_row(folder: Path) -> Row:
    """A sparse slide of 100,000 px by the segmenter, in a process whose memory is looked at."""
    path = folder / "large.tiff"
    if not path.is_file():
        draw_large(path)
    learner = Learner(SegmentSettings(), folder / "maps")
    save_segmenter(folder / "segmenter.safetensors", learner.fit(learner.read(drawn_of(folder))))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.segmentation", "--folder", str(folder), "--measure", str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    facts = json.loads(done.stdout.splitlines()[-1])
    return (
        f"{LARGE_PX} px slide, {facts['tissue_mm2']:.0f} mm² of tissue",
        "< 1 GiB over the model",
        f"{facts['grown_mib']:.0f} MiB, {facts['seconds']:.0f} CPU s, {facts['windows']} of "
        f"{facts['all_windows']} windows read, {facts['tumour_mm2']:.1f} mm² of tumour",
    )


class CountedWindows(FeatureMap):
    """A feature map that counts the windows it reads."""

    def __init__(self, maps: FeatureMap) -> None:
        vars(self).update(vars(maps))
        self.n = 0

    def windows(self, slide: Slide, grid: CellGrid) -> Iterator[Window]:
        """As those of the map."""
        for window in super().windows(slide, grid):
            self.n += 1
            yield window


def measure(folder: Path, path: Path) -> None:
    """Print what the segmenter needs for one slide."""
    segmenter = load_segmenter(folder / "segmenter.safetensors")
    with open_slide(next((folder / "slides").glob("*.tiff"))) as slide:
        segmenter.tumour_map(slide)  # all libraries are loaded
    before = peak_mib()
    assert segmenter.maps
    started, counted = time.process_time(), CountedWindows(segmenter.maps)
    with open_slide(path) as slide:
        grid = lay_cells(slide)
        tumour = replace(segmenter, maps=counted).tumour_map(slide, grid)
        area = tumour.region.area
    assert area >= 0
    step = WINDOW_PX // STRIDE
    print(
        json.dumps(
            {
                "grown_mib": peak_mib() - before,
                "seconds": time.process_time() - started,
                "windows": counted.n,
                "all_windows": int(np.prod([-(-side // step) for side in grid.shape])),
                "tissue_mm2": float(grid.tissue.sum()) * 400e-6,
                "tumour_mm2": tumour.tumour_mm2,
            }
        )
    )


def draw_large(path: Path) -> None:
    """Eight pieces of the first demo slide on glass, in a pyramid of JPEG tiles."""
    source = next(path.parent.glob("slides/case-01*.tiff"))
    piece = tifffile.imread(source, key=0)
    glass = np.full((256, 256, 3), 244, np.uint8)
    places = np.random.default_rng(0).permutation(18 * 18)[:8]
    corners = {(4096 * (p // 18) + 8192, 4096 * (p % 18) + 8192) for p in places.tolist()}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for power in range(5):
            scale = 4**power
            side = -(-LARGE_PX // scale)
            small = piece[::scale, ::scale] if power else piece

            def tiles(scale: int = scale, side: int = side, small: np.ndarray = small):  # type: ignore[no-untyped-def]
                for row in range(0, side, 256):
                    for column in range(0, side, 256):
                        yield tile_of(small, corners, scale, row, column, glass)

            tiff.write(
                tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb",
                subfiletype=int(power > 0), compression="jpeg", compressionargs={"level": 85},
                resolution=(1e4 / (0.25 * scale),) * 2, resolutionunit="CENTIMETER", metadata=None,
                maxworkers=1,
            )  # fmt: skip


def tile_of(small, corners, scale, row, column, glass):  # type: ignore[no-untyped-def]
    """One tile: the part of a piece that lies in it, or glass."""
    for top, left in corners:
        y, x = row - top // scale, column - left // scale
        if -256 < y < small.shape[0] and -256 < x < small.shape[1]:
            tile = glass.copy()
            part = small[max(0, y) : y + 256, max(0, x) : x + 256]
            tile[max(0, -y) :, max(0, -x) :][: part.shape[0], : part.shape[1]] = part
            return tile
    return glass


def parts_of(
    home: Path, *, unet: bool, large: bool, real: Path | None, diagnosis: bool = True
) -> list[Callable[[], list[Row]]]:
    """The parts of the table, in their order; the cohorts are drawn if they are not there."""
    fresh = home / "fresh"
    draw(home)
    draw(fresh, FRESH_SEED)
    return [
        *([lambda: [large_row(home)]] if large else []),
        lambda: main_rows(home, unet=unet),
        lambda: [fresh_row(home, fresh)],
        lambda: gate_rows(home, fresh, real),
        lambda: few_rows(home),
        *([lambda: diagnosis_rows(home)] if diagnosis else []),
    ]


def run_parts(parts: Sequence[Callable[[], list[Row]]]) -> list[Row]:
    """The rows, each part shown as it is known: all of it takes long."""
    rows: list[Row] = []
    for part in parts:
        rows += (new := part())
        print(*map(" | ".join, new), sep="\n", flush=True)
    print_table(HEADER, rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--unet", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--real", type=Path, help="folder with slides of other kinds")
    parser.add_argument("--no-diagnosis", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.folder, options.measure)
        return
    what = {name: getattr(options, name) for name in ("unet", "large", "real")}
    rows = run_parts(parts_of(options.folder, **what, diagnosis=not options.no_diagnosis))
    save("segmentation", HEADER, rows, {"unet": options.unet, "large": options.large})


if __name__ == "__main__":
    main()
