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
        metadata={
            "help": "Folder with the slides; without it, only thumbnails and tile positions are shown."
        },
    )
    regions: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with outlines to draw over the slides: what `mil segment apply` has written, or "
            "annotations."
        },
    )
    port: int = field(default=0, metadata={"help": "Port to listen on; 0 chooses a free one."})
    open: bool = field(default=False, metadata={"help": "Open the page in the browser."})
    check: bool = field(
        default=False, metadata={"help": "Fetch the page and one tile, report them, and stop."}
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)

    def __post_init__(self) -> None:
        if self.regions and not self.regions.is_dir():
            raise UsageError(f"--regions {self.regions}: no such folder.")
        if not 0 <= self.port <= MOST_PORT:
            raise UsageError(
                f"--port {self.port}: a port is 1 to {MOST_PORT}, or 0 for a free one."
            )


@verb(
    app,
    ViewOptions,
    examples=[
        "mil view run --slides slides --check",
        "mil view run --slides slides --regions segmented --check",
    ],
)
def view(options: ViewOptions) -> None:
    """Browse a run in the web browser: slides at any zoom, with the model's score of each tile.

    Cases are listed hardest first. The page is served to this machine only and changes nothing. Its
    address contains a secret, so keep it to yourself. Ctrl-C ends it.
    """
    from cli.console import counted, say
    from cli.inputs import slide_files
    from mil.api.run import open_run
    from mil.view.check import check_viewer

    slide_files(options.slides)
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    try:
        viewer = run.view(slides=options.slides, regions=options.regions, port=options.port)
    except OSError as error:
        raise UsageError(
            f"--port {options.port}: {error.strerror}. Choose another, or 0."
        ) from error
    gallery = viewer.gallery
    say(
        f"{counted(len(gallery.slides), 'slide')}, {len(gallery.files)} with a file; "
        f"{counted(len(gallery.layers), 'layer')} of scores."
    )
    with viewer:
        if options.check:
            say(str(check_viewer(viewer)))
        else:
            _serve(viewer, in_browser=options.open)


def _serve(viewer: "Viewer", *, in_browser: bool) -> None:
    """Serve until Ctrl-C."""
    import webbrowser

    from cli.console import say

    say(f"{viewer.address}  (Ctrl-C ends)")
    if in_browser:
        webbrowser.open(viewer.address)
    try:
        viewer.serve_forever()
    except KeyboardInterrupt:
        say("Ended.")
