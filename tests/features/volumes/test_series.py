"""A series of slices becomes the volume that it is, or an error that says why it is none."""

import sys

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from features.errors import VolumeError
from features.volumes.series import choose_series, find_series, read_volume, scan_folder
from tests.small_series import dataset, dose, save, series, set_pixels, structure_set

RNG = np.random.default_rng(5)
VALUES = RNG.integers(0, 900, (6, 5, 7), np.int16)


def refusal(folder, **options):
    with pytest.raises(VolumeError) as caught:
        read_volume(folder, **options)
    return str(caught.value)


def as_simpleitk_reads(folder):
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.ReadImage(names, sitk.sitkFloat32)


def test_values_and_places_are_those_of_the_files(tmp_path):
    volume = read_volume(series(tmp_path, VALUES))
    assert np.array_equal(volume.values, VALUES.astype(np.float32))
    assert volume.values.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((1.5, 1.0, 3.0))
    assert volume.origin_mm == pytest.approx((-10.0, 20.0, 5.0))
    assert (volume.modality, volume.slice_axis, volume.notes) == ("MR", 0, ())


def test_a_foreign_reader_sees_the_same(tmp_path):
    volume = read_volume(series(tmp_path, VALUES, modality="CT"))
    image = as_simpleitk_reads(tmp_path)
    assert np.array_equal(volume.values, sitk.GetArrayFromImage(image))
    assert volume.spacing_mm == pytest.approx(image.GetSpacing())
    assert volume.origin_mm == pytest.approx(image.GetOrigin())


def test_order_comes_from_positions_alone(tmp_path):
    def mislead(file, index):
        file.InstanceNumber = 6 - index
        file.SliceLocation = 100 - index
        file.SliceThickness, file.SpacingBetweenSlices = 5.0, 9.0
        file.filename = str(tmp_path / "b" / f"{9 - index}.dcm")

    usual = read_volume(series(tmp_path / "a", VALUES))
    misled = read_volume(series(tmp_path / "b", VALUES, change=mislead))
    assert np.array_equal(misled.values, usual.values)
    assert misled.spacing_mm == usual.spacing_mm
    assert misled.facts["slice_spacing_mm"] == 3.0


def without(folder, *indices):
    for index in indices:
        (folder / f"{index:03d}.dcm").unlink()
    return folder


def test_a_missing_slice_is_an_error_with_the_gap(tmp_path):
    message = refusal(without(series(tmp_path, VALUES, spacing_mm=(1, 1, 3.27)), 3))
    assert "steps of 3.27, 6.54 mm" in message
    assert "002.dcm to 004.dcm" in message


@pytest.mark.parametrize("index", [1, 4])
def test_a_slice_is_missed_wherever_it_stood(tmp_path, index):
    assert "a slice is missing" in refusal(without(series(tmp_path, VALUES), index))


def test_gaps_are_interpolated_on_request_and_noted(tmp_path):
    volume = read_volume(without(series(tmp_path, VALUES), 2, 3), allow=["gaps"])
    assert volume.values.shape == VALUES.shape
    assert np.array_equal(volume.values[[0, 1, 4, 5]], VALUES[[0, 1, 4, 5]])
    assert np.allclose(volume.values[2], VALUES[1] * 2 / 3 + VALUES[4] / 3)
    assert "2 of 6 slices interpolated (steps of 3.00 to 9.00 mm)" in volume.notes[0]


def test_positions_in_tenths_of_a_millimetre_are_even(tmp_path):
    def rounded(file, index):
        file.ImagePositionPatient = [-10, 20, round(5 + 3.27 * index, 1)]

    assert read_volume(series(tmp_path, VALUES, change=rounded)).spacing_mm[2] == pytest.approx(
        3.28
    )


@pytest.mark.parametrize(("step_mm", "digits"), [(3.27, 1), (0.83, 1), (6.667, 0), (2.4999, 2)])
def test_positions_that_were_rounded_are_even(tmp_path, step_mm, digits):
    def rounded(file, index):
        file.ImagePositionPatient = [-10, 20, round(5.04 + step_mm * index, digits)]

    values = np.resize(VALUES, (19, 5, 7))
    volume = read_volume(series(tmp_path, values, change=rounded))
    assert volume.spacing_mm[2] == pytest.approx(step_mm, rel=0.01)
    assert np.array_equal(volume.values, values)
    assert bool(volume.notes) == (digits == 0)


def test_a_gap_among_rounded_positions_is_filled_alone(tmp_path):
    def rounded(file, index):
        file.ImagePositionPatient = [-10, 20, round(5 + 4.14 * index, 1)]

    folder = without(series(tmp_path, np.resize(VALUES, (17, 5, 7)), change=rounded), 9)
    assert "a slice is missing" in refusal(folder)
    volume = read_volume(folder, allow=["gaps"])
    assert volume.values.shape[0] == 17
    assert "1 of 17 slices interpolated" in volume.notes[0]
    assert volume.spacing_mm[2] == pytest.approx(4.14, abs=0.01)


def test_steps_that_are_no_gap_are_not_called_a_missing_slice(tmp_path):
    def move(file, index):
        file.ImagePositionPatient = [-10, 20, 5 + 3 * index + (1.3 if index > 3 else 0)]

    message = refusal(series(tmp_path, VALUES, change=move))
    assert "4.30 mm where 3.00 mm are usual: they are no slices of one volume" in message


@pytest.mark.parametrize("rest", [0, 90])
def test_a_last_file_without_suffix_that_is_cut_off_is_named(tmp_path, rest):
    series(tmp_path, VALUES)
    for file in sorted(tmp_path.iterdir()):
        file.rename(tmp_path / f"IM{file.stem}")
    last = tmp_path / "IM005"
    last.write_bytes(last.read_bytes()[:rest])
    (tmp_path / "README").write_text("")
    assert f"IM005 is named like a DICOM file but is not one ({rest} bytes)" in refusal(tmp_path)


def test_two_slices_at_one_place_are_an_error_with_their_names(tmp_path):
    def move(file, index):
        if index == 4:
            file.ImagePositionPatient = [-10, 20, 5 + 3 * 3]

    message = refusal(series(tmp_path, VALUES, change=move))
    assert "003.dcm and 004.dcm both lie 14.00 mm" in message


def test_a_copied_file_is_an_error(tmp_path):
    series(tmp_path, VALUES)
    (tmp_path / "copy of 2.dcm").write_bytes((tmp_path / "002.dcm").read_bytes())
    assert "share a place" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "values", "part"),
    [
        ("EchoTime", (10.0, 80.0), "echo time 80.0 ms"),
        ("AcquisitionNumber", (1, 2), "acquisition 2"),
        ("TemporalPositionIdentifier", (1, 2), "time point 2"),
        ("DiffusionBValue", (0.0, 800.0), "b value 800.0 s/mm2"),
        ("ImageType", (["ORIGINAL", "M"], ["ORIGINAL", "P"]), "image type ORIGINAL\\P"),
    ],
)
def test_slices_of_one_series_are_told_apart_by_what_differs(tmp_path, keyword, values, part):
    def change(which):
        def set_part(file, index):
            setattr(file, keyword, values[which])
            file.filename = str(tmp_path / f"{which}-{index}.dcm")

        return set_part

    series(tmp_path, VALUES, change=change(0))
    series(tmp_path, VALUES + 1, change=change(1))
    assert len(find_series(tmp_path)) == 2
    message = refusal(tmp_path)
    assert "holds 2 series" in message
    assert part in message
    assert np.array_equal(read_volume(tmp_path, series=part).values, VALUES + 1)


def test_a_tilted_gantry_is_an_error_with_its_angle(tmp_path):
    def tilt(file, index):
        file.ImagePositionPatient = [-10, 20 + index, 5 + 3 * index]

    message = refusal(series(tmp_path, VALUES, change=tilt))
    assert "shifted by 1.000 mm from" in message
    assert "18.4 degrees" in message


def test_a_tilted_gantry_is_straightened_on_request(tmp_path):
    """Slices cut from a block at a tilt, two rows a slice, are the block again."""
    block = RNG.integers(0, 900, (4, 20, 6), np.int16)
    cut = np.stack([block[index, 2 * index : 2 * index + 12] for index in range(4)])

    def tilt(file, index):
        file.ImagePositionPatient = [0, 2.0 * index, 3.0 * index]

    series(tmp_path, cut, spacing_mm=(1, 1, 3), change=tilt)
    volume = read_volume(tmp_path, allow=["tilt"])
    assert volume.values.shape == (4, 18, 6)
    for index in range(4):
        rows = slice(2 * index, 2 * index + 12)
        assert np.array_equal(volume.values[index, rows], block[index, rows])
    assert "tilted gantry" in volume.notes[0]


def test_slices_aside_of_each_other_without_a_tilt_are_an_error(tmp_path):
    def jump(file, index):
        file.ImagePositionPatient = [-10 + (7 if index == 3 else 0), 20, 5 + 3 * index]

    message = refusal(series(tmp_path, VALUES, change=jump))
    assert "aside by up to 7.00 mm, and not evenly" in message


def test_several_series_are_listed_and_one_is_asked_for(tmp_path):
    series(tmp_path / "a", VALUES, SeriesDescription="T2 tra fs", SeriesNumber=7)
    other = {"SeriesInstanceUID": "1.2.3", "SeriesDescription": "CT thorax", "SeriesNumber": 12}
    series(tmp_path / "b", VALUES[:3], modality="CT", **other)
    message = refusal(tmp_path)
    assert "holds 2 series" in message
    assert "7: T2FS, 6 slices, 3.00 mm apart; UID 1.2.826" in message
    assert "12: CT, 3 slices, 3.00 mm apart; UID 1.2.3" in message
    for name in ("1.2.3", "12", "ct Thorax"):
        assert choose_series(tmp_path, name).modality == "CT"
    assert "has no series 'T1'" in refusal(tmp_path, series="T1")


def test_a_series_that_changes_its_number_half_way_is_two(tmp_path):
    def change(file, index):
        file.SeriesInstanceUID += ".9" * (index > 2)

    assert refusal(series(tmp_path, VALUES, change=change)).count("3 slices") == 2


def test_slices_of_several_orientations_are_counted(tmp_path):
    def turn(file, index):
        if index == 5:
            file.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    message = refusal(series(tmp_path, VALUES, change=turn))
    assert "5 of axial, 1 of sagittal" in message


def test_slices_turned_in_their_plane_are_counted(tmp_path):
    def turn(file, index):
        if index == 0:
            file.ImageOrientationPatient = [0, 1, 0, -1, 0, 0]

    message = refusal(series(tmp_path, VALUES, change=turn))
    assert "5 of axial, turned by 1.414, 1 of axial" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: setattr(f, "PixelSpacing", [2, 2]), "several pixel spacings"),
        (lambda f: set_pixels(f, VALUES[0, :4]), "several sizes"),
        (lambda f: setattr(f, "FrameOfReferenceUID", "1.2.9"), "2 frames of reference"),
        (lambda f: setattr(f, "PixelSpacing", [-1.0, 1.0]), "PixelSpacing is -1 by 1 mm"),
        (lambda f: setattr(f, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localiser"),
        (lambda f: setattr(f, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "mosaic"),
        (lambda f: setattr(f, "SamplesPerPixel", 3), "colour image"),
        (lambda f: setattr(f, "NumberOfFrames", 4), "4 frames without a place"),
        (lambda f: setattr(f, "ModalityLUTSequence", [Dataset()]), "Modality LUT Sequence"),
        (lambda f: setattr(f, "RescaleSlope", 0), "RescaleSlope is 0"),
        (lambda f: setattr(f, "ImageOrientationPatient", [1, 0, 0, 0, 2, 0]), "no unit vector"),
        (lambda f: setattr(f, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "right angles"),
        (lambda f: delattr(f, "ImagePositionPatient"), "has no ImagePositionPatient"),
        (lambda f: delattr(f, "ImageOrientationPatient"), "has no ImageOrientationPatient"),
        (lambda f: delattr(f, "PixelSpacing"), "has no PixelSpacing"),
        (lambda f: (delattr(f, "Rows"), delattr(f, "Columns")), "has no Rows"),
        (lambda f: setattr(f, "PixelSpacing", [1.0]), "PixelSpacing is not 2 numbers"),
        (lambda f: setattr(f, "PixelSpacing", [1, 1, 3]), "PixelSpacing is not 2 numbers"),
        (lambda f: delattr(f, "PixelData"), "has no pixels"),
    ],
)  # fmt: skip
def test_one_slice_that_is_no_slice_is_named(tmp_path, change, words):
    series(tmp_path, VALUES, change=lambda file, index: change(file) if index == 2 else None)
    message = refusal(tmp_path)
    assert words in message
    assert "002.dcm" in message or "several" in message or "frames of reference" in message


@pytest.mark.parametrize("number", [b"8,0", b"nan", b"x.y"])
def test_a_number_that_is_none_is_named(tmp_path, number):
    series(tmp_path, VALUES)
    path = tmp_path / "001.dcm"
    path.write_bytes(path.read_bytes().replace(b"-10.0\\20.0\\8.0", b"-10.0\\20.0\\" + number))
    message = refusal(tmp_path)
    assert "001.dcm: ImagePositionPatient is not 3 numbers" in message


def test_a_file_that_is_cut_off_is_named(tmp_path):
    series(tmp_path, VALUES)
    path = tmp_path / "003.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    message = refusal(tmp_path)
    assert "003.dcm" in message
    assert "cannot be decoded" in message


def test_facts_that_are_no_numbers_and_lossy_pixels(tmp_path):
    series(tmp_path, VALUES, EchoTime=12.5, LossyImageCompression="01")
    path = tmp_path / "000.dcm"
    path.write_bytes(path.read_bytes().replace(b"12.5", b"12,5"))
    [one] = find_series(tmp_path)
    assert dict(one.facts)["echo_time_ms"] == "12,5"
    assert dict(one.facts)["lossy_compression"] == "yes"


def test_files_that_cannot_be_opened_or_parsed_are_named(tmp_path, monkeypatch):
    series(tmp_path, VALUES)
    path = tmp_path / "002.dcm"
    path.write_bytes(path.read_bytes()[:150] + b"\x10" * 40)
    assert "002.dcm is damaged" in refusal(tmp_path)
    path.write_bytes(b"")
    assert "002.dcm is named like a DICOM file but is not one (0 bytes)" in refusal(tmp_path)

    def closed(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", closed)
    assert "000.dcm cannot be opened (Permission denied)" in refusal(tmp_path)


def test_one_slice_is_as_thick_as_it_says(tmp_path):
    volume = read_volume(series(tmp_path / "a", VALUES[:1]))
    assert volume.spacing_mm == pytest.approx((1.5, 1.0, 3.0))
    assert "slice thickness of 3 mm" in volume.notes[0]
    thin = series(tmp_path / "b", VALUES[:1], change=lambda f, _: delattr(f, "SliceThickness"))
    assert "no SliceThickness" in refusal(thin)


ANATOMY = RNG.integers(0, 900, (4, 5, 6), np.int16)  # (z, y, x): to the head, the back, the left
# How a scanner lays rows, columns and slices through it: ImageOrientationPatient.
LAYOUTS = {
    "head first supine": (1, 0, 0, 0, 1, 0),
    "head first prone": (-1, 0, 0, 0, -1, 0),
    "feet first supine, mirrored": (-1, 0, 0, 0, 1, 0),
    "decubitus right": (0, 1, 0, -1, 0, 0),
    "decubitus left": (0, -1, 0, 1, 0, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "coronal from behind": (-1, 0, 0, 0, 0, 1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "sagittal mirrored": (0, -1, 0, 0, 0, -1),
}


def laid_out(folder, orientation):
    """The anatomy of 1 x 2 x 3 mm as slices of another orientation, written from its definition."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    axes = [np.cross(row, column), column, row]
    size_mm = np.array([1.0, 2.0, 3.0])
    last = (np.array(ANATOMY.shape[::-1]) - 1) * size_mm
    first = sum(np.where(axis < 0, last * np.abs(axis), 0) for axis in axes)
    steps = [float(np.abs(axis) @ size_mm) for axis in axes]
    counts = [int(np.abs(axis) @ np.array(ANATOMY.shape[::-1])) for axis in axes]
    values = np.empty(counts, np.int16)
    for k, j, i in np.ndindex(*counts):
        place = first + axes[0] * steps[0] * k + axes[1] * steps[1] * j + axes[2] * steps[2] * i
        x, y, z = np.round(place / size_mm).astype(int)
        values[k, j, i] = ANATOMY[z, y, x]
    return series(folder, values, spacing_mm=steps[::-1], origin_mm=first, orientation=orientation)


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_anatomy_is_one_volume_however_it_lay(tmp_path, name):
    volume = read_volume(laid_out(tmp_path, LAYOUTS[name]))
    assert np.array_equal(volume.values, ANATOMY)
    assert volume.spacing_mm == pytest.approx((1, 2, 3))
    assert volume.origin_mm == pytest.approx((0, 0, 0), abs=1e-9)
    assert np.allclose(volume.direction, np.eye(3))
    assert volume.slice_axis == {"s": 2, "c": 1}.get(name[0], 0)


def test_a_double_oblique_series_keeps_its_direction(tmp_path):
    turned = np.linalg.qr(np.array([[1.0, 0.2, -0.1], [-0.2, 0.9, 0.4], [0.2, -0.3, 0.9]]))[0]
    turned = turned * np.sign(np.diag(turned))
    orientation = (*turned[:, 0], *turned[:, 1])
    volume = read_volume(series(tmp_path, VALUES, orientation=orientation))
    assert np.allclose(volume.direction, turned, atol=1e-6)
    assert np.array_equal(volume.values, VALUES)
    image = as_simpleitk_reads(tmp_path)
    place = volume.grid.to_mm(np.array([[3.0, 2.0, 4.0]]))[0]
    assert place == pytest.approx(image.TransformIndexToPhysicalPoint((3, 2, 4)), abs=1e-4)


def test_files_are_recognised_by_what_they_hold(tmp_path):
    folder = series(tmp_path / "s", VALUES)
    bare = folder / "IM0001"
    whole = (folder / "001.dcm").read_bytes()
    bare.write_bytes(whole[132:])  # no preamble, no suffix
    (folder / "001.dcm").unlink()
    (folder / "._000.dcm").write_bytes(b"a fork of another system")
    (folder / "notes.txt").write_text("DICM")
    (folder / "DICOMDIR").write_text("")
    assert np.array_equal(read_volume(folder).values, VALUES)
    assert np.array_equal(read_volume(folder / "000.dcm").values, VALUES)


def test_a_folder_tells_images_from_what_belongs_to_them(tmp_path):
    series(tmp_path / "s", VALUES)
    structure_set(tmp_path / "rs.dcm", {"GTV": [np.eye(3)]})
    dose(tmp_path / "rd.dcm", np.ones((2, 3, 3), np.uint32))
    save(dataset(tmp_path / "plan.dcm", "RTPLAN"))
    raw = dataset(tmp_path / "raw.dcm", "MR", SeriesInstanceUID="1.7")
    raw.SOPClassUID = raw.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66"
    save(raw)
    folder = scan_folder(tmp_path)
    assert [one.description for one in folder.series] == ["T1 tra"]
    assert [path.name for path in folder.structure_sets] == ["rs.dcm"]
    assert [path.name for path in folder.doses] == ["rd.dcm"]
    assert [(path.name, kind) for path, kind in folder.others] == [
        ("plan.dcm", "RTPLAN"),
        ("raw.dcm", "MR"),
    ]
    assert "holds no image (RTSTRUCT)" in refusal(tmp_path / "rs.dcm")


def test_a_problem_is_known_before_pixels_are_read(tmp_path):
    [one] = find_series(without(series(tmp_path, VALUES), 2))
    assert "6.00 mm where 3.00 mm are usual" in one.problem()
    assert one.problem(["gaps"]) == ""


def test_messages_keep_the_free_text_of_a_series_to_themselves(tmp_path):
    series(tmp_path / "a", VALUES, SeriesDescription="T2 Miller")
    series(tmp_path / "b", VALUES, SeriesDescription="T1 Miller", SeriesInstanceUID="1.2.77")
    assert "Miller" not in refusal(tmp_path)
    message = refusal(without(tmp_path / "b", 2))
    assert "Miller" not in message
    assert message.startswith("Series 4 of b (1.2.77): its slices")


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing", "does not exist"), ("empty", "no series of images"), ("a.txt", "is no DICOM")],
)
def test_what_holds_no_series_is_named(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("text")
    assert words in refusal(tmp_path / name)


def test_facts_name_the_scan_and_not_the_patient(tmp_path):
    elements = {
        "Manufacturer": "M",
        "ConvolutionKernel": "030",
        "MagneticFieldStrength": 1.5,
        "RepetitionTime": 500,
        "ContrastBolusAgent": "Gd for Mrs Doe",
        "SeriesDescription": "T1 Doe",
    }
    volume = read_volume(series(tmp_path, VALUES, **elements, BurnedInAnnotation="YES"))
    assert volume.facts["manufacturer"] == "M"
    assert volume.facts["field_strength_t"] == 1.5
    assert volume.facts["kernel"] == "030"
    assert volume.facts["contrast_agent"] == "yes"
    assert volume.facts["study_year"] == "2019"
    assert volume.facts["slices"] == 6
    shown = repr((volume.facts, volume.notes, volume.series))
    assert "Doe" not in shown
    assert "4711" not in shown
    assert "20190203" not in shown
    assert "text in its pixels" in volume.notes[0]


@pytest.mark.parametrize("package", ["pydicom", "SimpleITK"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package):
    folder = series(tmp_path, VALUES)
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(tmp_path / "a.mha"))
    monkeypatch.setitem(sys.modules, package, None)
    message = refusal(folder if package == "pydicom" else tmp_path / "a.mha")
    assert f"need the package {package}" in message
    assert "sarcomil[volumes]" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: setattr(file, "PatientID", "other"), "its files name 2 patients"),
        (lambda file: setattr(file, "Modality", "CT"), "its files name 2 modalities"),
        (lambda file: setattr(file, "PatientPosition", "FFS"), "2 positions of the patient"),
        (lambda file: setattr(file, "PhotometricInterpretation", "MONOCHROME1"), "2 ways of showing"),
        (lambda file: setattr(file, "RescaleIntercept", -1000), "state no RescaleIntercept, as 000.dcm"),
        (lambda file: setattr(file, "RescaleSlope", 0.5), "state no RescaleSlope, as 000.dcm"),
        (lambda file: setattr(file, "Units", "GML"), "its files name 2 units"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("index", [2, 5])
def test_slices_of_two_scans_in_one_series_are_refused(tmp_path, change, words, index):
    """As where two exports were merged, or another tool has written a part."""

    def both(file, place):
        file.PatientPosition, file.Units = "HFS", "BQML"
        if place == index:
            change(file)

    series(tmp_path, VALUES, change=both)
    message = refusal(tmp_path)
    assert words in message
    assert "secret" not in message
    [one] = find_series(tmp_path)
    assert words in one.problem()


@pytest.mark.parametrize(
    ("units", "noted"), [("BQML", True), ("CNTS", True), ("GML", False), ("", False)]
)
def test_pet_that_is_no_suv_is_noted(tmp_path, units, noted):
    def change(file, index):
        file.RescaleSlope, file.RescaleIntercept = 1.5 + index, 0
        if units:
            file.Units = units

    volume = read_volume(series(tmp_path, VALUES, modality="PT", change=change))
    expected = (
        f"values of PET are in {units}, no SUV: between patients they differ by dose and weight too"
    )
    assert volume.notes == (expected,) * noted


def test_slices_as_far_apart_as_where_every_second_was_lost_are_noted(tmp_path):
    values = np.concatenate([VALUES, VALUES])
    folder = series(tmp_path, values)
    assert not any("thick" in note for note in read_volume(folder).notes)
    for path in sorted(folder.glob("*.dcm"))[1::2]:
        path.unlink()
    [note] = [note for note in read_volume(folder).notes if "thick" in note]
    assert note.startswith("its slices are 3 mm thick and 6 mm apart")


@pytest.mark.parametrize("lost", [1, 2])
def test_a_slice_with_another_sign_than_its_neighbours_is_refused_where_it_matters(tmp_path, lost):
    def unsigned(file, index):
        file.PixelRepresentation = int(index != lost)

    harmless = np.abs(VALUES)
    volume = read_volume(series(tmp_path / "positive", harmless, change=unsigned))
    np.testing.assert_array_equal(volume.values, harmless)
    below = harmless.copy()
    below[:, 0, 0] = -7
    with pytest.raises(VolumeError, match=rf"00{lost}\.dcm says that its values are never below 0"):
        read_volume(series(tmp_path / "below", below, change=unsigned))


def test_slices_of_ct_with_several_zeros_are_noted(tmp_path):
    def scaled(zeros):
        def change(file, index):
            file.RescaleSlope, file.RescaleIntercept = 1, zeros[index % 2]

        return change

    one, two = (
        read_volume(series(tmp_path / name, VALUES, modality="CT", change=scaled(zeros)))
        for name, zeros in (("one", ("-1024", "-1024.0")), ("two", (-1024, -24)))
    )
    assert not any("RescaleIntercept" in note for note in one.notes)
    assert any("have 2 zeros (RescaleIntercept)" in note for note in two.notes)


def test_files_of_two_examinations_under_one_series_are_refused(tmp_path):
    def change(file, index):
        file.StudyInstanceUID = f"1.2.3.{int(index > 0)}"

    with pytest.raises(VolumeError, match="its files name 2 examinations"):
        read_volume(series(tmp_path, VALUES, change=change))


@pytest.mark.parametrize("days", [1, 2])
def test_files_with_an_examination_each_are_one_series_of_one_day(tmp_path, days):
    """Some tools make a new UID for every file that they write."""

    def change(file, index):
        file.StudyInstanceUID = f"1.2.3.{index + 1}"
        file.StudyDate = f"2021070{1 + index % days}"

    folder = series(tmp_path, VALUES, change=change)
    if days > 1:
        with pytest.raises(VolumeError, match=rf"its files name {len(VALUES)} examinations"):
            read_volume(folder)
        return
    volume = read_volume(folder)
    assert np.array_equal(volume.values, VALUES)
    assert any("an examination of its own" in note for note in volume.notes)
