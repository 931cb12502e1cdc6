"""One slide in other files: its pixels are its identity where nothing was lost."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from making import write_tiff
from PIL import Image

from features.extraction.identity import pixels_of_tiles, pixels_sha256, slide_fingerprints
from features.extraction.jobs import SlideJob
from features.slides.slide import open_slide


def picture(seed=1, shape=(700, 900)):
    """Coarse speckle, so that JPEG changes it."""
    rng = np.random.default_rng(seed)
    return rng.integers(60, 250, (*shape, 3)).astype(np.uint8)


def identity(path):
    with open_slide(path, mpp=0.5) as slide:
        return pixels_sha256(slide)


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "first.tiff"
    tifffile.imwrite(path, picture(), tile=(256, 256), photometric="rgb", compression="jpeg")
    return path


def decoded(path):
    with open_slide(path, mpp=0.5) as slide:
        return slide.read_pixels((0, 0), slide.size_l0)


def test_appended_bytes_and_other_containers_leave_the_identity(slide, tmp_path):
    first = identity(slide)
    assert len(first) == 64
    longer = tmp_path / "longer.tiff"
    longer.write_bytes(slide.read_bytes() + b"\0" * 999)
    again = tmp_path / "again.tiff"
    pixels = decoded(slide)
    write_tiff(again, [pixels, np.ascontiguousarray(pixels[::4, ::4])], compression="deflate")
    smaller_tiles = tmp_path / "tiles.tiff"
    tifffile.imwrite(smaller_tiles, pixels, tile=(128, 64), photometric="rgb", compression="lzw")
    assert [identity(path) for path in (longer, again, smaller_tiles)] == [first] * 3


def test_other_pixels_have_another_identity(slide, tmp_path):
    lossy = tmp_path / "lossy.tiff"
    tifffile.imwrite(
        lossy, decoded(slide), tile=(256, 256), photometric="rgb",
        compression="jpeg", compressionargs={"level": 40},
    )  # fmt: skip
    other = tmp_path / "other.tiff"
    tifffile.imwrite(other, picture(2), tile=(256, 256), photometric="rgb")
    assert len({identity(path) for path in (slide, lossy, other)}) == 3


def test_glass_identifies_no_slide_and_a_little_tissue_does(tmp_path):
    blank = np.full((900, 1200, 3), 243, np.uint8)
    path = tmp_path / "blank.tiff"
    tifffile.imwrite(path, blank, tile=(256, 256), photometric="rgb")
    assert identity(path) == ""
    identities = set()
    for seed in (1, 2):  # a strip between the squares of the coarse grid
        strip = blank.copy()
        strip[:, 320:350] = picture(seed)[:1, :30].repeat(900, axis=0)
        tifffile.imwrite(path, strip, tile=(256, 256), photometric="rgb")
        identities.add(identity(path))
    assert len(identities) == 2
    assert "" not in identities


def test_tile_images_are_known_in_another_format_and_under_other_names(tmp_path):
    files = {"a": [], "b": []}
    for number in range(6):
        tile = Image.fromarray(picture(number, (32, 32)))
        for name, suffix in (("a", "png"), ("b", "bmp")):
            path = tmp_path / f"{name}-{number * 32}-0.{suffix}"
            tile.save(path)
            files[name].append(path)
    jobs = [SlideJob(slide=n, files=tuple(f), mpp=0.5, from_tiles=True) for n, f in files.items()]
    identities = {known for job in jobs for known in pixels_of_tiles(job)}
    assert len(identities) == 1
    assert not identities & {*pixels_of_tiles(replace(jobs[0], files=jobs[0].files[:5]))}
    first, second = map(slide_fingerprints, jobs)
    assert first & second == {f"pixels-{identities.pop()}"}
    assert first != second
