"""`mil view`: a run in the browser."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb
from cli.runs import MOVED_COHORT, MOVED_STORE

if TYPE_CHECKING:
    from mil.view.server import Viewer

MOST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Settings of `mil view`."""

    run: Path = field(
        metadata={"argument": "RUN", "help": "A run of `mil crossval` or `mil train`."}
    )
    slides: Path | None = field(
        default=None,
        metadata={"help": "Folder with the slides; without it only what the bags hold is shown."},
    )
    port: int = field(default=0, metadata={"help": "The port to listen on; 0 takes a free one."})
    open: bool = field(default=False, metadata={"help": "Open the page in the browser."})
    check: bool = field(
        default=False, metadata={"help": "Fetch the page and one tile, say so, and stop."}
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MOST_PORT:
            raise UsageError(
                f"--port {self.port}: a port is 1 to {MOST_PORT}, or 0 for a free one."
            )


@verb(
    app,
    ViewOptions,
    examples=["mil view run --slides slides --check", "mil view trained --check"],
)
def view(options: ViewOptions) -> None:
    """Look through a run in the browser: slides at any zoom, what the model says of each tile.

    Cases are listed hardest first. The page is served to this machine only and changes nothing; its
    address holds a secret, so keep it to yourself. Ctrl-C ends it.
    """
    from cli.console import counted, say
    from cli.inputs import slide_files
    from mil.runs.run import open_run
    from mil.view.gallery import Gallery
    from mil.view.server import Viewer

    found = slide_files(options.slides) if options.slides else {}
    gallery = Gallery(open_run(options.run, store=options.store, cohort=options.cohort), found)
    say(
        f"{counted(len(gallery.slides), 'slide')}, {len(gallery.files)} with a file; "
        f"{counted(len(gallery.layers), 'layer')} of scores."
    )
    try:
        server = Viewer(gallery, options.port)
    except OSError as error:
        raise UsageError(
            f"--port {options.port}: {error.strerror}. Choose another, or 0."
        ) from error
    with server:
        if options.check:
            say(_checked(server))
        else:
            _serve(server, in_browser=options.open)


def _serve(server: "Viewer", *, in_browser: bool) -> None:
    """Until Ctrl-C."""
    import webbrowser

    from cli.console import say

    say(f"{server.address}  (Ctrl-C ends)")
    if in_browser:
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("Ended.")


def _checked(server: "Viewer") -> str:
    """Ask the server as a browser would, and say what came."""
    import json
    import threading
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    from mil.errors import RunError

    ask = build_opener(ProxyHandler({})).open
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with ask(server.address) as page:
            told = [f"page {len(page.read())} bytes"]
        shown = next(
            (i for i, s in enumerate(server.gallery.slides) if s in server.gallery.files), 0
        )
        with ask(f"{server.address}slides/{shown}/slide.json") as answer:
            slide = json.load(answer)
        if zoom := slide["zoom"]:
            with ask(f"{server.address}slides/{shown}/tiles/{zoom['levels'] - 1}/0_0.jpg") as tile:
                told.append(f"tile {len(tile.read())} bytes")
        if server.gallery.layers:
            with ask(f"{server.address}slides/{shown}/scores/0.json") as answer:
                told.append(f"scores of {len(json.load(answer)['values'])} tiles")
    except HTTPError as error:  # whose body says why
        raise RunError(error.read().decode()) from error
    finally:
        server.shutdown()
    return f"Served {', '.join(told)} of {slide['slide']}."
