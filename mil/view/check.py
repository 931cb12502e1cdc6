"""A viewer tries itself: it fetches its page and one slide as a browser would."""

import json
import threading
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from mil.errors import RunError
from mil.view.server import Viewer


@dataclass(frozen=True, kw_only=True)
class ViewerCheck:
    """What a viewer served.

    Attributes:
        slide: name of the slide.
        page_bytes: size of the page.
        tile_bytes: size of one tile of the slide; None without a slide file.
        scored_tiles: number of tiles with a score; None for a run without layers.
    """

    slide: str
    page_bytes: int
    tile_bytes: int | None
    scored_tiles: int | None

    def __str__(self) -> str:
        parts = [f"page {self.page_bytes} bytes"]
        if self.tile_bytes is not None:
            parts.append(f"tile {self.tile_bytes} bytes")
        if self.scored_tiles is not None:
            parts.append(f"scores of {self.scored_tiles} tiles")
        return f"Served {', '.join(parts)} of {self.slide}."


def check_viewer(viewer: Viewer) -> ViewerCheck:
    """Serve the page, one slide, a tile and a layer of it once, then shut the viewer down.

    Raises:
        RunError: with the viewer's own message.
    """
    threading.Thread(target=viewer.serve_forever, daemon=True).start()
    try:
        return _fetch(viewer)
    except HTTPError as error:  # the body of the answer holds the reason
        raise RunError(error.read().decode()) from error
    finally:
        viewer.shutdown()


def _fetch(viewer: Viewer) -> ViewerCheck:
    open_url = build_opener(ProxyHandler({})).open

    def fetch(path: str) -> bytes:
        with open_url(viewer.address + path) as answer:
            body: bytes = answer.read()
            return body

    gallery = viewer.gallery
    page = fetch("")
    number = next((i for i, slide in enumerate(gallery.slides) if slide in gallery.files), 0)
    slide = json.loads(fetch(f"slides/{number}/slide.json"))
    tile_bytes = scored_tiles = None
    if zoom := slide["zoom"]:
        tile_bytes = len(fetch(f"slides/{number}/tiles/{zoom['levels'] - 1}/0_0.jpg"))
    if gallery.layers:
        scored_tiles = len(json.loads(fetch(f"slides/{number}/scores/0.json"))["values"])
    return ViewerCheck(
        slide=slide["slide"],
        page_bytes=len(page),
        tile_bytes=tile_bytes,
        scored_tiles=scored_tiles,
    )
