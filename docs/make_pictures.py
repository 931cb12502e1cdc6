"""Makes the pictures of the manual: the demo is run, its pages are opened in Chromium, figures are scaled.

    python docs/make_pictures.py [--demo FOLDER]

The folder of a finished demo saves a minute and a half. A picture is at most 1,200 px wide.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageChops

PICTURES = Path(__file__).parent / "pictures"
WIDTH_PX = 1200
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> None:
    """Make every picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--demo", type=Path)
    demo = parser.parse_args().demo
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        if demo is None:
            mil("demo", "--out", folder, cwd=Path(scratch))
        else:
            shutil.copytree(demo, folder)
        draw_all(folder)
    for picture in sorted(PICTURES.iterdir()):
        print(f"{picture.stat().st_size / 1024:6.0f} KiB  {picture.name}")


def draw_all(demo: Path) -> None:
    """Every picture, from a demo."""
    report = demo / "run" / "report.html"
    shoot(report, "report", hidden="nav, main", height_px=540)
    shoot(
        report,
        "results",
        hidden="header:has(h1), .alert, nav, section:not(#results)",
        height_px=640,
    )
    shoot(report, "map", hidden="header:has(h1), .alert, nav, section:not(#typical)", height_px=620)
    with view(demo) as address:
        shoot(address, "viewer", height_px=760)

    drawn = ("--slides", "slides", "--annotations", "annotations")
    mil("check", "cohort.csv", *drawn, "--out", "checked", cwd=demo)
    scale(demo / "checked" / "case-02-s1.png", "check", WIDTH_PX // 2)
    mil("segment", "train", "segmentation.csv", *drawn, "--out", "segmenter", cwd=demo)
    segmenter = "segmenter/segmenter.safetensors"
    mil("segment", "apply", segmenter, "slides/case-01-s1.tiff", "--out", "segmented", cwd=demo)
    scale(demo / "segmented" / "case-01-s1-overlay.png", "segmented", WIDTH_PX // 2)
    for method in ("evidence", "attention"):
        mil("explain", "run", "store/case-02-s1.h5", "--method", method, "--out", "maps", cwd=demo)
    stack(
        [demo / "maps" / f"case-02-s1-abmil-{m}.png" for m in ("evidence", "attention")], "methods"
    )
    slides = ("slides/case-01-s1.tiff", "slides/case-02-s1.tiff", "slides/normal-1.tiff")
    mil("predict", "run", *slides, "--segmenter", segmenter, "--out", "new.csv", cwd=demo)
    shoot(demo / "new.html", "answers", height_px=1500)
    mil("concepts", "run", "--slides", "slides", "--out", "concepts", cwd=demo)
    shoot(demo / "concepts" / "concepts.html", "concepts", hidden="header:has(h1)", height_px=1300)
    mil("audit", "run", "--out", "audited", cwd=demo)
    shoot(demo / "audited" / "index.html", "audit", height_px=1200)
    mil("decision", "run", "--positive", "LMS", cwd=demo)
    scale(demo / "run" / "decision" / "LMS-against-the-rest.png", "decision", WIDTH_PX * 2 // 3)
    shots = ("--models", "simpleshot,knn,pooled-logistic,abmil", "--shots", "1,2,4")
    mil("learning-curve", "cohort.csv", "store", *shots, "--draws", "3", "--out", "few", cwd=demo)
    scale(demo / "few" / "learning-curve.png", "learning-curve", WIDTH_PX * 2 // 3)


def mil(*arguments: object, cwd: Path) -> None:
    """The command, in the demo's folder."""
    subprocess.run([sys.executable, "-m", "cli", *map(str, arguments)], cwd=cwd, check=True)


@contextlib.contextmanager
def view(demo: Path) -> Iterator[str]:
    """The address of the viewer while it serves the demo's run."""
    command = [sys.executable, "-u", "-m", "cli", "view", "run", "--slides", "slides"]
    with subprocess.Popen(command, cwd=demo, stdout=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout is not None
        address = next(
            word for line in viewer.stdout for word in line.split() if word.startswith("http")
        )
        threading.Thread(target=viewer.stdout.read, daemon=True).start()
        yield address
        viewer.terminate()


def shoot(page: Path | str, name: str, *, hidden: str = "", height_px: int) -> None:
    """A page as a browser shows it, without what a selector hides and without the empty rest."""
    browser = next((path for path in map(shutil.which, CHROMIUM) if path), None)
    if browser is None:
        raise SystemExit(f"Pictures need Chromium, as one of {', '.join(CHROMIUM)}.")
    with tempfile.TemporaryDirectory() as folder:
        address, out = page, Path(folder) / "shot.png"
        if isinstance(page, Path):
            copy = page.with_name("shot.html")
            style = (
                f"<style>{hidden} {{ display: none !important }}</style></head>"
                if hidden
                else "</head>"
            )
            copy.write_text(
                page.read_text(encoding="utf-8").replace("</head>", style, 1), encoding="utf-8"
            )
            address = copy.absolute().as_uri()
        arguments = [
            "--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1",
            "--virtual-time-budget=8000", f"--window-size={WIDTH_PX},{height_px}", f"--screenshot={out}",
        ]  # fmt: skip
        subprocess.run([browser, *arguments, str(address)], check=True, capture_output=True)
        scale(out, name, WIDTH_PX)


def scale(source: Path, name: str, width_px: int) -> None:
    """A picture of at most this width, in 256 colours of its own."""
    with Image.open(source) as image:
        save(image.convert("RGB"), name, width_px)


def stack(sources: list[Path], name: str) -> None:
    """Pictures of one width below each other."""
    images = [Image.open(source).convert("RGB") for source in sources]
    column = Image.new("RGB", (images[0].width, sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        column.paste(image, (0, top))
        top += image.height
    save(column, name, WIDTH_PX * 2 // 3)


def save(image: Image.Image, name: str, width_px: int) -> None:
    """Without an empty border, scaled, and in few colours: small enough for a repository."""
    empty = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))  # type: ignore[arg-type]
    if box := ImageChops.difference(image, empty).getbbox():
        left, top, right, bottom = (
            side + 16 * way for side, way in zip(box, (-1, -1, 1, 1), strict=True)
        )
        image = image.crop(
            (max(0, left), max(0, top), min(image.width, right), min(image.height, bottom))
        )
    image.thumbnail((width_px, 4 * width_px))
    image.quantize(256, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
