"""Annotation files: finding a slide's, recognising its format by its content, and reading it."""

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from features.choices import closest, did_you_mean
from features.errors import AnnotationError, AnnotationMissing
from features.files.unpack import EXPORT, read_unpacked
from features.regions.asap import is_asap, read_asap
from features.regions.drawing import Drawing
from features.regions.layers import is_halo, is_imagescope, read_halo, read_imagescope
from features.regions.ndpa import is_ndpa, place_on_slide, read_ndpa
from features.regions.qupath import is_qupath, read_qupath
from features.slides.names import short_name


@dataclass(frozen=True)
class AnnotationFormat:
    """One format of annotation files.

    Attributes:
        name: the program and its format, for messages.
        suffixes: by which ``find_annotation`` knows its files, in lower case.
        recognises: whether the unpacked bytes of a file are in this format.
        read: from a file's name and its unpacked bytes to what was drawn.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytearray], bool]
    read: Callable[[str, bytearray], Drawing]


_GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")
FORMATS = (
    AnnotationFormat("QuPath GeoJSON", _GEOJSON, is_qupath, read_qupath),
    AnnotationFormat("ASAP XML", (".xml",), is_asap, read_asap),
    AnnotationFormat("Aperio ImageScope XML", (".xml",), is_imagescope, read_imagescope),
    AnnotationFormat("HALO annotations", (".annotations",), is_halo, read_halo),
    AnnotationFormat("Hamamatsu NDPA", (".ndpa",), is_ndpa, read_ndpa),
)
SUFFIXES = tuple(dict.fromkeys(suffix for form in FORMATS for suffix in form.suffixes))


def read_annotations(path: Path | str, slide: Path | str | None = None) -> Drawing:
    """Read what was drawn on a slide: in QuPath, ASAP, Aperio ImageScope, HALO or Hamamatsu's NDP.view.

    QuPath's GeoJSON is read in any of its forms. The file's content decides which format it is; it may be
    gzipped (``.gz``) or alone in a ``.zip``. NDPA counts nanometres from the centre of the glass: without
    the slide, the drawing stays in nanometres, as its ``unit`` states.

    Outlines that cross themselves are repaired to what their stroke winds around, be it once or twice:
    both wings of a bow-tie count, the middle of a ring drawn with one stroke does not, and holes are
    left out. A note says where this differs from the even-odd rule, in % of the repaired area.

    Args:
        path: the annotation file.
        slide: the slide's file; needed to place NDPA on it, and not opened for other formats.

    Returns:
        The annotations by class, in full-resolution pixels of the image as it was opened for drawing.

    Raises:
        AnnotationError: the file is missing, cannot be unpacked, is in no known format, or has a
            malformed geometry.

    Example:
        Write one annotation of 10 x 10 pixels as QuPath would, and read it:

        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from features.regions.annotations import read_annotations
        >>> square = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}
        >>> tumour = {"classification": {"name": "Tumor"}}
        >>> path = Path(tempfile.mkdtemp()) / "case-01-s1.geojson"
        >>> _ = path.write_text(json.dumps({"type": "Feature", "geometry": square, "properties": tumour}))
        >>> drawing = read_annotations(path)
        >>> dict(drawing.histogram())
        {'Tumor': 1}
        >>> drawing.region(["tumor"]).area
        100.0
    """
    path = Path(path)
    raw = read_unpacked(path)
    for form in FORMATS:
        if form.recognises(raw):
            drawing = form.read(path.name, raw)
            return drawing if slide is None else place_on_slide(drawing, Path(slide))
    names = ", ".join(form.name for form in FORMATS)
    raise AnnotationError(
        f"{path.name}: not an annotation file in a known format. Formats that can be read: {names}. "
        f"{EXPORT}"
    )


def find_annotation(folder: Path, slide_file: str, slide: str) -> Path:
    """The annotation file of a slide: ``<slide>.geojson`` or ``<slide file>.geojson`` and the like.

    A slide ``site-1/a`` has its annotation in ``<folder>/site-1``.

    Args:
        folder: with the annotation files.
        slide_file: the file name of the slide, with its suffix.
        slide: the slide's name.

    Raises:
        AnnotationMissing: the folder has none.
        AnnotationError: it has more than one.
    """
    # Slides of the same name lie in different folders, and so do their annotations.
    inside = folder / PurePosixPath(slide).parent
    bare = PurePosixPath(slide).name
    matches = _files_named(inside, {bare, slide_file}) or _files_named(inside, {short_name(bare)})
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise AnnotationError(
            f"{slide}: annotated by {' and by '.join(path.name for path in matches)} in {folder}. "
            "Keep the one that counts and move the others away."
        )
    raise AnnotationMissing(
        f"{slide}: no annotation in {folder}.{_near_names(inside, bare)} Export it from QuPath as "
        f"{slide}.geojson, or leave annotations unset to use all tissue."
    )


def _files_named(folder: Path, stems: set[str]) -> list[Path]:
    """The annotation files of a folder with one of these names before their suffix."""
    composed = {_compose_accents(stem) for stem in stems}
    return sorted(
        path
        for path in folder.glob("*")
        for stem in composed
        if (name := _compose_accents(path.name)).startswith(stem)
        and name[len(stem) :].lower() in SUFFIXES
    )


def _near_names(folder: Path, bare: str) -> str:
    """The annotation files whose names are closest to a slide's, as a sentence after a blank."""
    known = {
        path.name.removesuffix(suffix): path.name
        for suffix in SUFFIXES
        for path in folder.glob(f"*{suffix}")
    }
    return did_you_mean(known[stem] for stem in closest(bare, known, 2))


def annotation_sha256(path: Path) -> str:
    """The SHA-256 of an annotation file, stored in the bag so that a later edit is noticed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compose_accents(name: str) -> str:
    """A name with its accents composed: macOS decomposes them in file names, tables do not."""
    return unicodedata.normalize("NFC", name)
