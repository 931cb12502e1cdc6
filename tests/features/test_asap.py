import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import box_ring

from features.errors import AnnotationError
from features.regions.annotations import read_annotations
from features.regions.asap import read_asap

SQUARE = box_ring(0, 0, 10, 10)[:-1]
CAMELYON = ("_0", "_1", "_2", "Tumor", "Exclusion", "metastases", "normal", "hole")


def drawn(ring=SQUARE, group="Tumor", kind="Polygon", name="Annotation 0"):
    corners = "".join(
        f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in enumerate(ring)
    )
    return (
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{corners}</Coordinates></Annotation>"
    )


def asap(*annotations, groups=None, head='<?xml version="1.0"?>'):
    listed = "".join(
        f'<Group Name="{name}" PartOfGroup="{parent}" Color="#64FE2E"><Attributes /></Group>'
        for name, parent in (groups or {}).items()
    )
    return (
        f"{head}<ASAP_Annotations><Annotations>{''.join(annotations)}</Annotations>"
        f"<AnnotationGroups>{listed}</AnnotationGroups></ASAP_Annotations>"
    )


def read(tmp_path, text, name="s.xml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_annotations(path)


@pytest.mark.parametrize("name", ["s.xml", "s.XML"])
def test_polygon_is_read_with_its_group_and_name(tmp_path, name):
    drawing = read(tmp_path, asap(drawn(name="core"), groups={"Tumor": "None"}), name)
    (annotation,) = drawing.annotations
    assert (annotation.class_names, annotation.name) == (("Tumor",), "core")
    assert annotation.polygon.area == 100
    assert (drawing.source, drawing.notes) == (name, ())
    assert read_asap(name, (tmp_path / name).read_bytes()) == drawing


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ({}, ("inner",)),
        ({"inner": "None"}, ("inner",)),
        ({"inner": "outer", "outer": "None"}, ("outer", "inner")),
        ({"inner": "middle", "middle": "outer", "outer": "None"}, ("outer", "middle", "inner")),
        ({"inner": "outer"}, ("outer", "inner")),
        ({"inner": "inner"}, ("inner",)),
        ({"inner": "outer", "outer": "inner"}, ("outer", "inner")),
    ],
)
def test_class_is_the_group_within_its_groups(tmp_path, groups, names):
    (annotation,) = read(tmp_path, asap(drawn(group="inner"), groups=groups)).annotations
    assert annotation.class_names == names


@pytest.mark.parametrize("group", ["None", "", " "])
def test_no_group_is_unclassified(tmp_path, group):
    drawing = read(tmp_path, asap(drawn(group=group), groups={"Tumor": "None"}))
    assert drawing.histogram() == {"(unclassified)": 1}


@pytest.mark.parametrize("group", CAMELYON)
def test_group_is_taken_away_by_its_name(tmp_path, group):
    drawing = read(tmp_path, asap(drawn(group="lesion"), drawn(SQUARE[:3], group)))
    assert (drawing.region(["lesion"]) - drawing.union([group.upper()])).area == 50


def test_group_within_the_tumour_is_taken_away_by_its_whole_name(tmp_path):
    text = asap(drawn(), drawn(SQUARE[:3], "hole"), groups={"hole": "Tumor", "Tumor": "None"})
    drawing = read(tmp_path, text)
    assert (drawing.region(["Tumor"]) - drawing.union(["Tumor: hole"])).area == 50


@pytest.mark.parametrize("kind", ["Polygon", "Rectangle", "Spline"])
def test_what_has_area_is_read_and_a_spline_is_noted(tmp_path, kind):
    drawing = read(tmp_path, asap(drawn(kind=kind)))
    assert drawing.region(["Tumor"]).area == 100
    splines = ("Splines read as polygons through their control points: 1.",)
    assert drawing.notes == (splines if kind == "Spline" else ())


@pytest.mark.parametrize("kind", ["Dot", "PointSet", "Measurement", "None", ""])
def test_what_has_no_area_is_counted(tmp_path, kind):
    drawing = read(tmp_path, asap(drawn(kind=kind), drawn(kind=kind), drawn()))
    assert drawing.histogram() == {"Tumor": 1}
    assert drawing.notes == (f"Annotations of type {kind!r} ignored, as they have no area: 2.",)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_slip_of_the_mouse_is_counted(tmp_path, length):
    drawing = read(tmp_path, asap(drawn(SQUARE[:length])))
    assert drawing.annotations == ()
    assert drawing.notes == ("Objects without an area ignored: 1.",)


def test_corners_are_joined_in_their_stated_order(tmp_path):
    corners = "".join(
        f'<Coordinate Order="{order}" X="{SQUARE[order][0]}" Y="{SQUARE[order][1]}" />'
        for order in (2, 0, 3, 1)
    )
    text = re.sub(
        "<Coordinates>.*?</Coordinates>", f"<Coordinates>{corners}</Coordinates>", drawn()
    )
    assert read(tmp_path, asap(text)).region(["Tumor"]).area == 100


def test_more_than_ten_corners_are_ordered_as_numbers(tmp_path):
    ring = [[x, 0] for x in range(11)] + [[10, 10], [0, 10]]
    assert read(tmp_path, asap(drawn(ring))).region(["Tumor"]).area == 100


def test_decimal_comma_is_read(tmp_path):
    text = asap(drawn([["0", "0"], ["10,5", "0"], ["10,5", "10"], ["0", "10"]]))
    assert read(tmp_path, text).region(["Tumor"]).area == 105


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE bomb [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE ASAP_Annotations SYSTEM "file:///etc/passwd">',
        "<!DOCTYPE ASAP_Annotations>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_document_type_is_refused(tmp_path, head, encoding):
    path = tmp_path / "s.xml"
    path.write_bytes(asap(drawn(), head=head).encode(encoding))
    with pytest.raises(AnnotationError, match=r"^s\.xml: .*DOCTYPE.*Save it"):
        read_annotations(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        "{}",
        asap(drawn())[:-5],
        "<annotation><object/></annotation>",
        '<?xml version="1.0" encoding="nonsense"?><ASAP_Annotations/>',
        asap(drawn([["x", 0], [1, 1], [1, 0]])),
        asap(drawn([["", 0], [1, 1], [1, 0]])),
        asap(drawn([["nan", 0], [1, 1], [1, 0]])),
        asap(drawn([["inf", 0], [1, 1], [1, 0]])),
        asap(drawn().replace(' Y="', ' Z="')),
        asap(drawn().replace('Order="1"', 'Order="one"')),
    ],
)
def test_what_is_not_asap_is_refused_with_the_remedy(tmp_path, text):
    with pytest.raises(AnnotationError, match=r"^s\.xml: .*(Save it from ASAP|Export)") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_missing_file_is_an_annotation_error(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_annotations(tmp_path / "none.xml")


@given(st.data())
def test_any_damaged_file_is_an_annotation_error_or_read(tmp_path_factory, data):
    text = asap(drawn(), drawn(kind="Spline"), groups={"Tumor": "None"})
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 8))
        put = data.draw(st.sampled_from(["", "<", "&lt;", "&x;", '"', "e9", "-", "\x00", "é"]))
        text = text[:at] + put + text[at + cut :]
    with suppress(AnnotationError):
        drawing = read(tmp_path_factory.mktemp("s"), text)
        assert all(a.polygon.is_valid and a.polygon.area > 0 for a in drawing.annotations)
