"""The scale of a slide: the file's, OME-XML's, the user's; and what contradicts it."""

import pytest

from features.errors import ScaleError
from features.slides.scale import UserScale, read_scale

BOTH = {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}


def ome(x, y, **units):
    named = "".join(f' {name}="{unit}"' for name, unit in units.items())
    return {
        "tiff.ImageDescription": f'<OME><Image><Pixels SizeX="9" PhysicalSizeX="{x}"{named} '
        f'PhysicalSizeY="{y}" Type="uint8"></Pixels></Image></OME>'
    }


def scale_of(properties, **user):
    return read_scale("s.tif", properties, UserScale(**user))


@pytest.mark.parametrize(
    ("properties", "user", "mpp", "source"),
    [
        (BOTH, {}, 0.5, "file"),
        (BOTH, {"fallback_mpp": 0.25}, 0.5, "file"),
        (BOTH, {"mpp": 0.25, "source": "table"}, 0.25, "table"),
        ({}, {"fallback_mpp": 0.25}, 0.25, "option"),
        ({"openslide.mpp-x": "352.8", "openslide.mpp-y": "352.8"}, {"fallback_mpp": 0.3}, 0.3, "option"),
        (ome(0.23, 0.23), {}, 0.23, "file"),
        (ome(230, 230, PhysicalSizeXUnit="nm", PhysicalSizeYUnit="nm"), {}, 0.23, "file"),
        (ome(0.00023, 0.00023, PhysicalSizeXUnit="mm", PhysicalSizeYUnit="mm"), {}, 0.23, "file"),
        ({"openslide.mpp-x": "352.8", "openslide.mpp-y": "352.8"} | ome(0.4, 0.4), {}, 0.4, "file"),
    ],
)  # fmt: skip
def test_where_the_scale_comes_from(properties, user, mpp, source):
    scale = scale_of(properties, **user)
    assert scale.mpp == pytest.approx((mpp, mpp))
    assert scale.source == source


@pytest.mark.parametrize("unit", ["pixel", "inch"])
def test_units_that_are_no_length_of_a_pixel_leave_the_scale_unknown(unit):
    with pytest.raises(ScaleError, match="gives no micrometres per pixel"):
        scale_of(ome(1, 1, PhysicalSizeXUnit=unit, PhysicalSizeYUnit=unit))


@pytest.mark.parametrize(
    ("power", "mpp", "noted"),
    [
        ("40", 0.25, False), ("40", 0.228, False), ("20", 0.5, False), ("20", 0.46, False),
        ("40", 0.5, True), ("20", 0.25, True), ("5", 0.25, True), ("10", 1.0, False),
        ("0", 0.25, False), ("n/a", 0.25, False),
    ],
)  # fmt: skip
def test_a_magnification_that_contradicts_the_scale_is_noted(power, mpp, noted):
    properties = {
        "openslide.mpp-x": str(mpp),
        "openslide.mpp-y": str(mpp),
        "openslide.objective-power": power,
    }
    notes = scale_of(properties).notes
    assert bool(notes) == noted
    if noted:
        assert f"{power}x and {mpp:.4g} µm" in notes[0]


def test_overriding_the_file_is_noted_with_both_scales_and_agreement_is_not():
    (note,) = scale_of(BOTH, mpp=0.228, source="option").notes
    assert note == "The file says 0.5 µm per pixel; 0.228 is used instead (option)."
    assert scale_of(BOTH, mpp=0.502).notes == ()
    assert scale_of({}, mpp=0.5).notes == ()


def test_two_scales_in_one_file_are_noted():
    (note,) = scale_of(BOTH | ome(0.25, 0.25)).notes
    assert "0.25 µm per pixel as OME-XML, 0.5 as TIFF" in note


@pytest.mark.parametrize(
    ("y", "noted"), [("0.5", False), ("0.52", False), ("0.25", True), ("1.3", True)]
)
def test_pixels_that_are_no_squares_are_noted(y, noted):
    scale = scale_of({"openslide.mpp-x": "0.5", "openslide.mpp-y": y})
    assert scale.mpp == (0.5, float(y))
    assert len(scale.notes) == noted
    assert all(f"0.5 µm per pixel across and {y} down" in note for note in scale.notes)


def test_a_series_without_its_largest_picture_is_noted():
    kind = {"dicom.ImageType[0]": "DERIVED", "dicom.ImageType[3]": "RESAMPLED"}
    scale = {
        "openslide.mpp-x": "1.84",
        "openslide.mpp-y": "1.84",
        "openslide.objective-power": "20",
    }
    (note,) = scale_of(scale | kind).notes
    assert "at 1.84 µm per pixel, was made from a larger one that is not there" in note
    assert "larger one" not in scale_of(scale | kind | {"dicom.ImageType[3]": "NONE"}).notes[0]
