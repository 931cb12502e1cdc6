"""How soon does the viewer show something, and does it answer when everything is asked at once?

    python -m benchmarks.viewing --demo DEMO [--tiles 1000]

DEMO is a finished `mil demo`. The server runs in a process of its own. First paint is all that the page asks
for before it shows a slide with its scores; then so many tiles of all slides are asked for by 200 callers at
once. Seconds are wall time.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.table import print_table, save

OF_SLIDE = ("slide.json", "overview.jpg", "scores/0.json")
FIRST = ("", "contents.json", *(f"slides/0/{name}" for name in OF_SLIDE))
CALLERS, TILE_PX = 200, 512


@contextmanager
def served(demo: Path) -> Iterator[str]:
    """The address of the viewer while it runs."""
    words = ["view", str(demo / "run"), "--slides", str(demo / "slides")]
    command = [sys.executable, "-u", "-m", "cli", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout
        lines = iter(server.stdout.readline, "")
        try:
            yield next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


def fetch(address: str, name: str) -> bytes:
    """The content; empty where it is not answered."""
    try:
        with urllib.request.urlopen(address + name, timeout=120) as answer:
            return answer.read()
    except OSError:
        return b""


def tile_names(address: str, n: int) -> list[str]:
    """Tiles at full size, slide after slide, until there are so many."""
    names: list[str] = []
    cases = json.loads(fetch(address, "contents.json"))["cases"]
    n_slides = sum(len(case["slides"]) for case in cases)
    for number in range(n_slides):
        slide = json.loads(fetch(address, f"slides/{number}/slide.json"))
        columns, rows = (side // TILE_PX for side in slide["size"])
        level = slide["zoom"]["levels"] - 1
        names += [
            f"slides/{number}/tiles/{level}/{column}_{row}.jpg"
            for row in range(rows)
            for column in range(columns)
        ]
    return [names[i % len(names)] for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=1000)
    options = parser.parse_args()
    with served(options.demo) as address:
        started = time.perf_counter()
        first = [fetch(address, name) for name in FIRST]
        paint = time.perf_counter() - started
        names = tile_names(address, options.tiles)
        started = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as callers:
            tiles = list(callers.map(partial(fetch, address), names))
        seconds = time.perf_counter() - started
    outcomes = Counter("answered" if tile else "not answered" for tile in tiles)
    header = ("what", "answered", "seconds")
    rows = [
        ("first paint", f"{sum(map(bool, first))} of {len(FIRST)}", f"{paint:.2f}"),
        (
            f"{len(names)} tiles at once",
            f"{outcomes['answered']} of {len(names)}",
            f"{seconds:.1f}",
        ),
    ]
    print_table(header, rows)
    save("viewing", header, rows, {"callers": CALLERS})


if __name__ == "__main__":
    main()
