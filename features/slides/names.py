"""Names of slides: of a file, and as a file."""

import re
import unicodedata
from pathlib import PurePosixPath

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".czi", ".dcm", ".svslide",
)  # fmt: skip
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # a drive or a share in front
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^?#]*")
FILM = ".film"  # before the suffix: slices of a volume, as features.volumes.film lays them out
INNER_ENDINGS = (".ome", *SLIDE_SUFFIXES)  # before the suffix: a.ome.tif, a.svs.tif


def is_film_name(file_name: str) -> bool:
    """Whether a file is named as the film of a volume: ``case-1.film.tiff``."""
    return file_name.lower().endswith(FILM + ".tiff")


def slide_name(file_name: str) -> str:
    """A slide's name: the file name without a known suffix; other dots stay (``a.b.svs`` -> ``a.b``).

    A relative folder stays too, so that two slides of the same name differ (``site-1/a.svs`` ->
    ``site-1/a``); an absolute one is dropped (``/data/a.svs`` -> ``a``),
    and so are a drive of Windows and the address of a server.
    """
    text = unicodedata.normalize("NFC", file_name)  # macOS decomposes accents
    if url := URL.match(text):
        text = "/" + url.group().partition("://")[2]
    elif drive := WINDOWS.match(text):
        text = "/" + text[drive.end() :].replace("\\", "/")
    elif PurePosixPath(text.replace("\\", "/")).suffix.lower() in SLIDE_SUFFIXES:
        text = text.replace("\\", "/")
    path = PurePosixPath(text)
    bare = path.stem if path.suffix.lower() in (*SLIDE_SUFFIXES, ".h5") else path.name
    bare, folder = bare.removesuffix(FILM), path.parent
    return bare if folder.is_absolute() or ".." in folder.parts else (folder / bare).as_posix()


def short_name(slide: str) -> str:
    """A slide's name without a second ending: ``a.ome`` -> ``a``, as QuPath names ``a.ome.tif``."""
    path = PurePosixPath(slide)
    return str(path.with_suffix("")) if path.suffix.lower() in INNER_ENDINGS else slide


def file_name(slide: str) -> str:
    """A slide's name as a file name: ``site-1/a`` -> ``site-1%2Fa``; different slides stay different."""
    return slide.replace("%", "%25").replace("/", "%2F")
