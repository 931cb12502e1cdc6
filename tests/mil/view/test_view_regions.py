"""Outlines over a slide: in its own pixels, with holes, by class, and on the page until they are unticked."""

from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import read_bag
from features.errors import AnnotationError
from mil.view.gallery import Gallery
from mil.view.regions import region_rings
from mil.view.server import Viewer
from tests.chromium import chromium
from tests.features.making import box_ring, feature, write_geojson
from tests.mil.view.conftest import NASTY
from tests.mil.view.requests import served

SLIDE = f"{NASTY}-s1"


@pytest.fixture(scope="module")
def drawn(viewed, tmp_path_factory):
    """A folder with a region of one slide, with a hole, and another of a second class."""
    folder = tmp_path_factory.mktemp("drawn")
    write_geojson(
        folder / f"{SLIDE}.geojson",
        feature(
            box_ring(300, 200, 1500, 900),
            box_ring(600, 400, 900, 600),
            classification="Tumor: Predicted",
        ),
        feature(box_ring(2000, 200, 2400, 700), classification="Normal"),
    )
    return folder


def test_regions_are_rings_of_level_0_pixels_by_class(viewed, drawn):
    run, files = viewed
    gallery = Gallery(run, files, drawn)
    regions = gallery.slide(gallery.slides.index(SLIDE))["regions"]
    assert [region["name"] for region in regions] == ["Tumor: Predicted", "Normal"]
    assert [len(region["rings"]) for region in regions] == [2, 1]
    ring = np.array(regions[0]["rings"][0])
    assert ring.min(axis=0).tolist() == [300, 200]
    assert ring.max(axis=0).tolist() == [1500, 900]
    other = next(i for i, slide in enumerate(gallery.slides) if slide != SLIDE)
    assert gallery.slide(other)["regions"] == []
    assert Gallery(run, files).slide(gallery.slides.index(SLIDE))["regions"] == []


def test_qupath_counts_from_the_scanned_parts_corner(viewed, drawn):
    run, _ = viewed
    bag = replace(read_bag(run.settings.store / f"{SLIDE}.h5"), bounds_l0=(100, 40))
    ring = np.array(region_rings(drawn, bag)[0]["rings"][0])
    assert ring.min(axis=0).tolist() == [400, 240]


def test_a_drawing_that_cannot_be_read_is_named(viewed, tmp_path):
    run, files = viewed
    (tmp_path / f"{SLIDE}.geojson").write_text("{")
    gallery = Gallery(run, files, tmp_path)
    with pytest.raises(AnnotationError, match=r"\.geojson"):
        gallery.slide(gallery.slides.index(SLIDE))


def test_the_page_draws_them_until_they_are_unticked(viewed, drawn, tmp_path):
    run, files = viewed
    gallery = Gallery(run, files, drawn)
    with Viewer(gallery) as server, served(server), chromium(tmp_path / "profile") as page:
        page.open(server.address)
        page.until("document.body && document.body.dataset.layer === '0'")
        number = gallery.slides.index(SLIDE)
        page.value(f"document.querySelector('#list button[data-number=\"{number}\"]').click()")
        page.until(f"document.body.dataset.slide === '{number}' && shown !== null && !dirty")
        assert (
            page.value("document.getElementById('classes').textContent")
            == "Tumor: Predicted, Normal"
        )

        def edge():
            """The pixel where the outline of the second region is."""
            return page.value(
                "(() => { draw(); const r = window.devicePixelRatio || 1, p = toScreen(2000, 450); "
                "return [...pixels.getImageData(Math.round(p[0] * r), Math.round(p[1] * r), 1, 1).data]; })()"
            )

        assert max(edge()[:3]) < 60
        page.value("document.getElementById('outlines').click()")
        assert max(edge()[:3]) > 60
        assert page.errors == []
