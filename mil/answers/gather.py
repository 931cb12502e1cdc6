"""Bags of new slides: read as they are, or extracted as the model's own were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.bags.bag import Bag, read_bag
from features.errors import BagError, SarcomilError
from features.progress import Progress
from features.recipe import SEGMENTED
from features.slides.names import slide_name
from mil.answers.predictor import Predictor
from mil.errors import FitError, RunError
from mil.runs.inputs import check_region, extract_slides

BAG = ".h5"
ANNOTATIONS, SEGMENTER, ALL_TISSUE = "annotations", "segmenter", "all tissue"


@dataclass(frozen=True, kw_only=True)
class NewSlides:
    """Slides to be answered for.

    Attributes:
        names: of all, in the order they were given.
        bags: by name, of those that have one.
        unusable: by name, why the others have none.
        masks: by name, where tiles come from; of slides that were extracted now.
        paths: by name, the files of slides that were given as such.
        outlines: folder with what a segmenter calls tumour, as GeoJSON for QuPath and as pictures; None
            without a segmenter.
        notes: what a reader should know of all of them.
    """

    names: tuple[str, ...]
    bags: Mapping[str, Bag]
    unusable: Mapping[str, SarcomilError]
    masks: Mapping[str, str]
    paths: Mapping[str, Path]
    outlines: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NewInputs:
    """Files of new slides, and how they become bags.

    Attributes:
        inputs: bags (.h5) or slides.
        annotations: folder with the slides' annotations.
        segmenter: the file of a segmenter, for slides without annotations; a package's own if not given.
        weights: the backbone's weights file, if the model's bags were made with one.
        slide_mpp: micrometres per level-0 pixel, where the slides do not say.
    """

    inputs: tuple[Path, ...]
    annotations: Path | None = None
    segmenter: Path | None = None
    weights: str | None = None
    slide_mpp: float | None = None


def gather_slides(
    predictor: Predictor, new: NewInputs, store: Path, progress: Progress | None = None
) -> NewSlides:
    """Read or extract the bag of each slide; what cannot be used is listed with the reason.

    A model that learnt from annotated tumour reads all tissue where there are neither annotations nor a
    segmenter; that is noted.

    Args:
        predictor: the model.
        new: the files.
        store: folder in which bags of slides are written, in one folder for each kind of mask.
        progress: shows slides and tiles.

    Raises:
        RunError: two inputs have one name, or the model's bags were not extracted from slides.
        BackboneError: the weights file is not given, or the file is no segmenter.
    """
    by_name = _by_name(new.inputs)
    paths = {name: path for name, path in by_name.items() if path.suffix != BAG}
    if paths:
        check_region(predictor.recipe)
    segmenter = new.segmenter or predictor.segmenter
    mask, notes = _choose_mask(predictor, new.annotations, segmenter) if paths else ("", ())
    folder = store / mask.replace(" ", "-")
    unusable: dict[str, SarcomilError] = {
        name: FitError(f"{path}: there is no such file.")
        for name, path in by_name.items()
        if not path.exists()
    }
    packed = predictor.backbone
    unusable |= extract_slides(
        [path for name, path in paths.items() if name not in unusable],
        dict(predictor.recipe) | ({"weights": packed.name} if packed else {}),
        folder,
        annotations=new.annotations if mask == ANNOTATIONS else None,
        segmenter=segmenter if mask == SEGMENTER else None,
        weights=str(packed) if packed else new.weights,
        slide_mpp=new.slide_mpp,
        progress=progress,
    )
    bags: dict[str, Bag] = {}
    for name, path in by_name.items():
        if name in unusable:
            continue
        try:
            bags[name] = read_bag(path if path.suffix == BAG else folder / f"{name}{BAG}")
        except BagError as error:
            unusable[name] = error
    outlines = folder / "outlines" if mask == SEGMENTER and segmenter else None
    if outlines and segmenter:
        drawn = [path for name, path in paths.items() if name in bags]
        _write_outlines(drawn, segmenter, outlines, new.slide_mpp, progress)
    return NewSlides(
        names=tuple(by_name),
        bags=bags,
        unusable=unusable,
        masks=dict.fromkeys(paths, mask),
        paths=paths,
        outlines=outlines,
        notes=notes,
    )


def _write_outlines(
    paths: Sequence[Path],
    segmenter: Path,
    out: Path,
    slide_mpp: float | None,
    progress: Progress | None,
) -> None:
    """Write what a segmenter calls tumour on each slide."""
    from features.extraction.jobs import SlideJob
    from features.lowpower.segmenter import load_segmenter
    from mil.segmentation.application import apply_segmenter

    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        SlideJob(slide=slide_name(path.name), files=(path,), fallback_mpp=slide_mpp)
        for path in paths
    ]
    apply_segmenter(load_segmenter(segmenter), jobs, out, progress)


def _by_name(inputs: Sequence[Path]) -> dict[str, Path]:
    """The inputs by the name of their slide."""
    by_name: dict[str, Path] = {}
    for path in inputs:
        name = path.stem if path.suffix == BAG else slide_name(path.name)
        other = by_name.setdefault(name, path)
        if other is not path:
            raise RunError(
                f"{other} and {path} are both called {name}. Name each bag or slide once; rename one of two "
                "slides that share a name."
            )
    return by_name


def _choose_mask(
    predictor: Predictor, annotations: Path | None, segmenter: Path | None
) -> tuple[str, tuple[str, ...]]:
    """Where the tiles of slides come from, and what is to be said of that."""
    if predictor.recipe["region"] == "tissue":
        note = "The model learnt from all tissue: annotations and segmenters are not used."
        return ALL_TISSUE, (note,) if annotations or segmenter else ()
    if annotations is not None:
        return ANNOTATIONS, ()
    inside = " or ".join(predictor.recipe["classes"]) or "what a segmenter calls tumour"
    if segmenter is not None:
        if predictor.recipe["region"] == SEGMENTED:
            return SEGMENTER, ()
        return SEGMENTER, (
            f"The model learnt from tiles inside drawn {inside}; here a segmenter says where the tumour is. "
            "Look at the mask of every slide.",
        )
    return ALL_TISSUE, (
        f"The model learnt from tiles inside {inside}, and there are neither annotations nor a segmenter: "
        "all tissue is used, tumour or not, and nothing is promised of the answers.",
    )
