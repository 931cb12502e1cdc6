"""Annotations of ImageScope, HALO and NDP.view, against polygons that are known in level-0 pixels."""

import math

import openslide
import pytest
from making import write_tiff
from shapely.geometry import Point, box

from features.errors import AnnotationError
from features.regions.annotations import SUFFIXES, read_annotations

SQUARE, HOLE, BESIDE = box(100, 40, 500, 340), box(200, 100, 260, 180), box(700, 50, 760, 90)


def corners(area, tag="Vertex"):
    return "".join(f'<{tag} X="{x}" Y="{y}" Z="0"/>' for x, y in area.exterior.coords)


def region(area, *, hole=0, kind=0, text="", tag="Vertex", vertices=None):
    inside = corners(area, tag) if vertices is None else vertices
    return (
        f'<Region Id="1" Type="{kind}" Zoom="0.04" Text="{text}" NegativeROA="{hole}"><Attributes/>'
        f"<Vertices>{inside}</Vertices></Region>"
    )


def layer(*regions, name="Tumor", description=""):
    attribute = (
        f'<Attributes><Attribute Name="Description" Id="0" Value="{description}"/></Attributes>'
    )
    return (
        f'<Annotation Id="1" Name="{name}" Type="4">{attribute}<Regions><RegionAttributeHeaders/>'
        f"{''.join(regions)}</Regions><Plots/></Annotation>"
    )


def write(folder, *layers, name="a.xml", head='<Annotations MicronsPerPixel="0.25">'):
    (folder / name).write_text(f"{head}{''.join(layers)}</Annotations>")
    return folder / name


@pytest.mark.parametrize(("tag", "name"), [("Vertex", "a.xml"), ("V", "a.annotations")])
@pytest.mark.parametrize("hole", ["1", "True"])
def test_a_negative_region_is_a_hole_of_its_own_layer_alone(tmp_path, tag, name, hole):
    holed = layer(
        region(HOLE, hole=hole, tag=tag), region(SQUARE, tag=tag), region(BESIDE, tag=tag)
    )
    whole = layer(region(SQUARE, tag=tag), name="Necrosis: old")
    drawing = read_annotations(write(tmp_path, holed, whole, name=name, head="<Annotations>"))
    assert drawing.region(["tumor"]).equals((SQUARE - HOLE) | BESIDE)
    assert drawing.region(["necrosis"]).equals(SQUARE)
    assert drawing.histogram() == {"Tumor": 2, "Necrosis: old": 1}
    assert drawing.unit == "px"


@pytest.mark.parametrize(
    ("name", "description", "text", "written"),
    [
        ("Tumor", "x", "y", "Tumor"),
        ("", "Tumor", "y", "Tumor"),
        ("  ", "", "Tumor", "Tumor"),
        ("", "", "", "(unclassified)"),
    ],
)
def test_the_class_is_the_layers_name_else_its_description_else_the_text(
    tmp_path, name, description, text, written
):
    path = write(tmp_path, layer(region(SQUARE, text=text), name=name, description=description))
    assert dict(read_annotations(path).histogram()) == {written: 1}


@pytest.mark.parametrize("kind", ["1", "Rectangle"])
@pytest.mark.parametrize("tag", ["Vertex", "V"])
def test_two_corners_are_a_box(tmp_path, kind, tag):
    two = f'<{tag} X="500,0" Y="340"/><{tag} X="100" Y="40.0"/>'
    path = write(tmp_path, layer(region(SQUARE, kind=kind, vertices=two)))
    assert read_annotations(path).region(["tumor"]).equals(SQUARE)


@pytest.mark.parametrize("kind", ["2", "Ellipse"])
def test_two_corners_are_the_ellipse_between_them(tmp_path, kind):
    two = '<Vertex X="100" Y="40"/><Vertex X="500" Y="340"/>'
    drawn = read_annotations(write(tmp_path, layer(region(SQUARE, kind=kind, vertices=two))))
    ellipse = drawn.region(["tumor"])
    assert ellipse.bounds == pytest.approx(SQUARE.bounds)
    assert ellipse.area == pytest.approx(math.pi * 200 * 150, rel=1e-3)


@pytest.mark.parametrize("kind", ["0", "3", "4", "Ruler", "Pin"])
def test_what_has_no_area_is_counted(tmp_path, kind):
    two = '<Vertex X="100" Y="40"/><Vertex X="500" Y="340"/>'
    path = write(tmp_path, layer(region(SQUARE, kind=kind, vertices=two), region(BESIDE)))
    drawing = read_annotations(path)
    assert drawing.region(["tumor"]).equals(BESIDE)
    assert drawing.notes == (
        "Regions of fewer than three corners ignored, as they have no area: 1.",
    )


def test_a_hole_alone_is_counted_and_one_larger_than_its_region_leaves_nothing(tmp_path):
    drawing = read_annotations(
        write(
            tmp_path,
            layer(region(HOLE, hole=1), name="Other"),
            layer(region(SQUARE, hole=1), region(HOLE), region(BESIDE)),
        )
    )
    assert dict(drawing.histogram()) == {"Tumor": 1}
    assert "Negative regions without a region around them ignored: 1." in drawing.notes


@pytest.mark.parametrize("value", ["", "abc", "nan", "1e99"])
def test_malformed_corners_are_refused_by_name(tmp_path, value):
    bad = f'<Vertex X="{value}" Y="1"/><Vertex X="2" Y="2"/><Vertex X="3" Y="9"/>'
    with pytest.raises(AnnotationError, match=r"a\.xml: .*malformed coordinates"):
        read_annotations(write(tmp_path, layer(region(SQUARE, vertices=bad))))


def test_a_document_type_is_refused(tmp_path):
    path = write(
        tmp_path, layer(region(SQUARE)), head="<!DOCTYPE x [<!ENTITY a 'b'>]><Annotations>"
    )
    with pytest.raises(AnnotationError, match=r"cannot be read as ImageScope XML .*DOCTYPE"):
        read_annotations(path)


# Hamamatsu NDPA

SIZE_PX, MPP, CENTRE_NM = (1024, 768), (0.23, 0.25), (-1_234_567, 987_654)
PLACE = {
    "openslide.mpp-x": str(MPP[0]),
    "openslide.mpp-y": str(MPP[1]),
    "hamamatsu.XOffsetFromSlideCentre": str(CENTRE_NM[0]),
    "hamamatsu.YOffsetFromSlideCentre": str(CENTRE_NM[1]),
}


def nanometres(x, y):
    """From level-0 pixels to the glass: the middle of the scan lies beside the centre of the glass."""
    return tuple(
        round((value - size / 2) * 1000 * mpp + centre)
        for value, size, mpp, centre in zip((x, y), SIZE_PX, MPP, CENTRE_NM, strict=True)
    )


def view(area, title="Tumor", *, kind="freehand", closed=1, unit="nanometers", inside=None):
    points = [nanometres(x, y) for x, y in area.exterior.coords]
    listed = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in points)
    inside = inside or f"<closed>{closed}</closed><pointlist>{listed}</pointlist>"
    return (
        f'<ndpviewstate id="1"><title>{title}</title><coordformat>{unit}</coordformat><lens>1.5</lens>'
        f"<x>5</x><y>7</y><annotation type='{kind}' displayname='A' color='#c80000'>{inside}</annotation>"
        "</ndpviewstate>"
    )


@pytest.fixture
def slide(tmp_path, monkeypatch):
    """A slide that states where on the glass it lies, as OpenSlide reads it from .ndpi files."""
    import numpy as np

    write_tiff(tmp_path / "a.ndpi", [np.zeros((*SIZE_PX[::-1], 3), np.uint8)], mpp=None)
    monkeypatch.setattr(openslide.OpenSlide, "properties", dict(PLACE), raising=False)
    return tmp_path / "a.ndpi"


def ndpa(folder, *views):
    (folder / "a.ndpi.ndpa").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{"".join(views)}</annotations>'
    )
    return folder / "a.ndpi.ndpa"


def test_nanometres_from_the_centre_become_pixels_of_the_slide(tmp_path, slide):
    path = ndpa(tmp_path, view(SQUARE), view(HOLE, "Artefact"), view(BESIDE, "Tumor: edge"))
    drawing = read_annotations(path, slide)
    assert (drawing.unit, drawing.origin) == ("px", "level0")
    tumour = drawing.region(["tumor"])
    assert tumour.symmetric_difference(SQUARE | BESIDE).area < 2  # rounded to nanometres
    assert drawing.union(["artefact"]).symmetric_difference(HOLE).area < 1


def test_without_the_slide_the_unit_is_stated(tmp_path):
    drawing = read_annotations(ndpa(tmp_path, view(SQUARE)))
    assert drawing.unit == "nanometers"
    assert drawing.region(["tumor"]).area == pytest.approx(SQUARE.area * 230 * 250, rel=1e-4)


def test_a_circle_is_read_and_what_has_no_area_is_counted(tmp_path, slide):
    x, y = nanometres(300, 200)
    circle = f"<x>{x}</x><y>{y}</y><radius>11500</radius>"
    drawing = read_annotations(
        ndpa(
            tmp_path,
            view(SQUARE, kind="circle", inside=circle),
            view(SQUARE, closed=0),
            view(SQUARE, kind="pin", inside="<x>1</x><y>2</y>"),
        ),
        slide,
    )
    drawn = drawing.region(["tumor"])
    assert drawn.area == pytest.approx(math.pi * 50 * 46, rel=1e-3)
    assert drawn.centroid.distance(Point(300, 200)) < 0.01
    assert set(drawing.notes) == {
        "Annotations of type 'freehand' ignored, as they have no area: 1.",
        "Annotations of type 'pin' ignored, as they have no area: 1.",
    }


@pytest.mark.parametrize("missing", PLACE)
def test_a_slide_that_does_not_say_where_it_lies_is_refused(tmp_path, slide, monkeypatch, missing):
    stated = {name: value for name, value in PLACE.items() if name != missing}
    monkeypatch.setattr(openslide.OpenSlide, "properties", stated, raising=False)
    with pytest.raises(AnnotationError, match=rf"a\.ndpi does not state {missing}"):
        read_annotations(ndpa(tmp_path, view(SQUARE)), slide)


def test_another_unit_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match="Tumor is in pixels, and NDPA is read in nanometers"):
        read_annotations(ndpa(tmp_path, view(SQUARE, unit="pixels")))


def test_the_files_are_known_by_their_names():
    assert {".xml", ".annotations", ".ndpa", ".geojson"} <= set(SUFFIXES)
