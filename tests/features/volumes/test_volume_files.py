"""NIfTI, NRRD and MetaImage: one volume however its axes are stored, and an error for what is none."""

import gzip
import struct

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage

from features.errors import VolumeError
from features.volumes.image_files import read_layout
from features.volumes.series import find_series, read_volume
from tests.small_series import dataset, save, series, set_pixels

VALUES = np.random.default_rng(4).integers(0, 900, (4, 5, 6), np.int16)


def image(values=VALUES, spacing=(1.5, 1.0, 3.0), origin=(-10.0, 20.0, 5.0), direction=None):
    picture = sitk.GetImageFromArray(values)
    picture.SetSpacing(spacing)
    picture.SetOrigin(origin)
    picture.SetDirection((direction if direction is not None else np.eye(3)).ravel().tolist())
    return picture


def written(path, picture):
    sitk.WriteImage(picture, str(path))
    return path


def refusal(path):
    with pytest.raises(VolumeError) as caught:
        read_volume(path)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_a_file_is_the_volume_of_its_dicom_series(tmp_path, suffix):
    volume = read_volume(written(tmp_path / f"a{suffix}", image()))
    dicom = read_volume(series(tmp_path / "dicom", VALUES))
    assert np.array_equal(volume.values, dicom.values)
    assert volume.grid.is_same_as(dicom.grid)
    assert volume.values.dtype == np.float32
    assert volume.modality == ""


@pytest.mark.parametrize("stored", ["RAS", "LPS", "RPI", "SAL", "PIR", "ILP"])
def test_the_order_of_stored_axes_changes_nothing(tmp_path, stored):
    """SimpleITK turns the axes; values, places and shape must come back as they were."""
    usual = read_volume(written(tmp_path / "a.nii.gz", image()))
    turned = read_volume(written(tmp_path / "b.nii.gz", sitk.DICOMOrient(image(), stored)))
    assert np.array_equal(turned.values, usual.values)
    assert turned.grid.is_same_as(usual.grid)
    assert np.allclose(turned.direction, np.eye(3))


def test_an_oblique_file_is_turned_to_the_nearest_axes(tmp_path):
    turn = np.linalg.qr(np.array([[1.0, 0.3, -0.2], [-0.3, 0.9, 0.3], [0.2, -0.3, 0.9]]))[0]
    turn = turn * np.sign(np.diag(turn))
    usual = read_volume(written(tmp_path / "a.nrrd", image(direction=turn)))
    turned = sitk.Flip(sitk.PermuteAxes(image(direction=turn), (1, 2, 0)), (True, False, True))
    again = read_volume(written(tmp_path / "b.nrrd", turned))
    assert np.array_equal(again.values, VALUES)
    assert again.grid.is_same_as(usual.grid)


def patched(path, *patches):
    """A NIfTI file with other bytes in its header: (offset, layout, values)."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    for offset, layout, *values in patches:
        struct.pack_into("<" + layout, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def test_two_places_of_one_file_are_an_error_in_mm(tmp_path):
    path = written(tmp_path / "a.nii.gz", image())
    patched(path, (252, "2h", 1, 1), (268, "f", 17.5))  # qoffset_x; it was 10
    assert "qform and an sform that disagree by up to 7.50 mm" in refusal(path)


def test_a_flipped_qform_is_an_error(tmp_path):
    path = patched(written(tmp_path / "a.nii.gz", image()), (252, "2h", 1, 1), (256, "3f", 0, 0, 0))
    assert "qform and an sform that disagree by" in refusal(path)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (2, 1)])
def test_one_place_or_two_equal_ones_are_read(tmp_path, codes):
    path = patched(written(tmp_path / "a.nii.gz", image()), (252, "2h", *codes))
    assert read_volume(path).origin_mm == pytest.approx((-10, 20, 5), abs=1e-4)


def test_a_file_without_a_place_is_an_error(tmp_path):
    path = patched(written(tmp_path / "a.nii.gz", image()), (252, "2h", 0, 0))
    assert "neither qform nor sform" in refusal(path)


def test_an_analyze_file_is_an_error(tmp_path):
    path = patched(written(tmp_path / "a.nii.gz", image()), (344, "4s", b"\0\0\0\0"))
    assert "left and right" in refusal(path) or "cannot be read" in refusal(path)


def test_time_series_colours_and_pictures_are_refused(tmp_path):
    four = sitk.JoinSeries([image(), image(), image()])
    assert "series of volumes (6 x 5 x 4 x 3)" in refusal(written(tmp_path / "t.nii.gz", four))
    colours = sitk.Compose([sitk.Cast(image(), sitk.sitkUInt8)] * 3)
    assert "3 values per voxel" in refusal(written(tmp_path / "c.nii.gz", colours))
    picture = sitk.GetImageFromArray(VALUES[0])
    assert "one picture (6 x 5)" in refusal(written(tmp_path / "p.mha", picture))


def test_one_time_point_is_a_volume(tmp_path):
    path = written(tmp_path / "t.nii.gz", image())
    patched(path, (40, "8h", 4, 6, 5, 4, 1, 1, 1, 1))
    assert np.array_equal(read_volume(path).values, VALUES)


def test_damaged_and_empty_files_are_named(tmp_path):
    path = written(tmp_path / "a.nii.gz", image())
    path.write_bytes(path.read_bytes()[:60])
    refusal(path)
    (tmp_path / "b.nrrd").write_text("NRRD0004\n")
    refusal(tmp_path / "b.nrrd")


def test_a_file_that_holds_no_numbers(tmp_path):
    values = VALUES.astype(np.float32)
    values[0, 0, :2] = np.nan
    volume = read_volume(written(tmp_path / "a.nrrd", image(values)))
    assert (volume.values[0, 0, :2] == 0).all()
    assert volume.notes == ("2 voxels that are no numbers are 0",)
    assert "every voxel is NaN" in refusal(
        written(tmp_path / "b.nrrd", image(np.full((3, 4, 5), np.nan, np.float32)))
    )


NIFTI_1 = "i10s18sihcB8h3f4h8f3fhBB4f2i80s24s2h18f16s4s4x"


def big_endian(path):
    """A NIfTI-1 file of float32 with its bytes in the other order."""
    raw = path.read_bytes()
    head = struct.pack(">" + NIFTI_1, *struct.unpack("<" + NIFTI_1, raw[:352]))
    path.write_bytes(head + np.frombuffer(raw[352:], "<f4").astype(">f4").tobytes())
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numbers_that_nifti_lacks_are_0_and_noted(tmp_path, suffix, kind):
    values = VALUES.astype(kind)
    values[2, 1:3, 4], values[3, 0, 0] = np.nan, -np.inf
    volume = read_volume(written(tmp_path / f"a{suffix}", image(values)))
    assert volume.notes == ("3 voxels that are no numbers are 0",)
    assert np.array_equal(volume.values, np.where(np.isfinite(values), values, 0))
    empty = image(np.full((3, 4, 5), np.nan, kind))
    assert "every voxel is NaN" in refusal(written(tmp_path / f"b{suffix}", empty))


def test_numbers_that_nifti_lacks_in_the_other_byte_order(tmp_path):
    values = VALUES.astype(np.float32)
    assert read_volume(big_endian(written(tmp_path / "a.nii", image(values)))).notes == ()
    values[0, 2, :5] = np.nan
    volume = read_volume(big_endian(written(tmp_path / "b.nii", image(values))))
    assert volume.notes == ("5 voxels that are no numbers are 0",)
    assert np.array_equal(volume.values[1:], VALUES[1:])


def test_a_slope_of_nifti_is_not_rounded(tmp_path):
    path = patched(written(tmp_path / "a.nii.gz", image()), (112, "2f", 0.25, -3.0))
    assert np.array_equal(read_volume(path).values, VALUES * np.float32(0.25) - 3)


def test_an_nrrd_without_a_space_is_an_error(tmp_path):
    path = written(tmp_path / "a.nrrd", image())
    head, _, data = path.read_bytes().partition(b"\n\n")
    lines = [line for line in head.split(b"\n") if not line.startswith((b"space", b"kinds"))]
    path.write_bytes(b"\n".join([*lines, b"spacings: 1 1 3"]) + b"\n\n" + data)
    assert "left and right" in refusal(path)


def test_a_sheared_file_is_an_error(tmp_path):
    path = patched(written(tmp_path / "a.nii.gz", image()), (252, "2h", 0, 1), (284, "f", 0.4))
    assert "not at right angles" in refusal(path)


@pytest.mark.parametrize(("unit", "scale"), [(1, 1000), (3, 0.001)])
def test_units_other_than_millimetres(tmp_path, unit, scale):
    spacing = [1.5 / scale, 1.0 / scale, 3.0 / scale]
    path = patched(written(tmp_path / "a.nii.gz", image(spacing=spacing)), (123, "b", unit))
    assert read_volume(path).spacing_mm == pytest.approx((1.5, 1.0, 3.0))


@pytest.mark.parametrize("unit", [(1, "metres"), (3, "micrometres"), (2, "")])
@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_voxels_of_no_plausible_size_are_an_error(tmp_path, suffix, unit):
    if suffix == ".nii":
        path = written(tmp_path / "a.nii", image(spacing=(1.5, 0.5, 120.0)))
        content = bytearray(path.read_bytes())
        content[123] = unit[0]
        path.write_bytes(content)
        stated = f" (its unit is {unit[1]})" if unit[1] else ""
    else:
        path, stated = written(tmp_path / f"a{suffix}", image(spacing=(0.004, 0.5, 2.0))), ""
    assert f" mm{stated}; sides of 0.01 to 100 mm are plausible" in refusal(path)
    assert read_layout(path)[2] == refusal(path)


def test_slices_of_dicom_of_no_plausible_size_are_an_error(tmp_path):
    coarse = series(tmp_path / "a", VALUES, spacing_mm=(150.0, 1.0, 3.0))
    with pytest.raises(VolumeError, match="its voxels are 150 x 1 x 3 mm; sides of"):
        read_volume(coarse)
    [one] = find_series(series(tmp_path / "b", VALUES, spacing_mm=(1.5, 1.0, 110.0)))
    assert "its voxels are 1.5 x 1 x 110 mm" in one.problem()


def shortened(path, n_bytes):
    """A file of a volume without its last bytes, packed again if it was."""
    packed = path.name.endswith(".gz")
    content = path.read_bytes()
    content = (gzip.decompress(content) if packed else content)[:-n_bytes]
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_file_that_ends_before_its_voxels_is_refused_and_listed(tmp_path, suffix, kind):
    values = np.arange(4 * 5 * 6, dtype=kind).reshape(4, 5, 6)
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image(values), str(path), useCompression=suffix == ".nii.gz")
    assert read_layout(path)[2] == ""
    words = refusal(shortened(path, 7 * values.itemsize))
    assert "cut off" in words
    assert read_layout(path)[2] == words
    if suffix.startswith(".nii"):
        size = 352 + values.nbytes
        assert f"{size - 7 * values.itemsize} of the {size} bytes" in words
        assert "and 94% of its voxels" in words


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_voxels_in_a_file_beside_that_ends_early_are_refused(tmp_path, suffix):
    path = written(tmp_path / f"a{suffix}", image())
    shortened(tmp_path / "a.raw", 2)
    assert "it has 238 of 240 bytes of voxels" in refusal(path)


def test_a_packed_file_whose_end_says_nothing_is_counted(tmp_path):
    """As of several packed parts, or with bytes behind the voxels."""
    path = written(tmp_path / "a.nii", image())
    content = path.read_bytes()
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:] + b"later"))
    assert np.array_equal(read_volume(packed).values, VALUES)
    packed.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:-2]))
    assert "it has 590 of the 592 bytes" in refusal(packed)
    packed.write_bytes(gzip.compress(content)[:-60])
    assert "cannot be read" in read_layout(packed)[2]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("part", [0.3, 0.8, 0.99])
def test_a_packed_file_whose_end_is_zeros_is_refused_and_listed(tmp_path, suffix, part):
    """As a copy leaves it that broke off on a disk with the room set aside."""
    values = np.random.default_rng(0).normal(size=(9, 20, 20)).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image(values), str(path), useCompression=True)
    assert read_layout(path)[2] == ""
    assert np.array_equal(read_volume(path).values, values)
    packed = next((p for p in tmp_path.iterdir() if p != path), path)
    content = packed.read_bytes()
    end = int(part * len(content))
    packed.write_bytes(content[:end] + bytes(len(content) - end))
    words = refusal(path)
    assert "cut off" in words or "damaged" in words or "cannot be read" in words
    assert read_layout(path)[2] == words


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_packed_file_that_ends_early_is_listed(tmp_path, suffix):
    values = np.random.default_rng(0).normal(size=(9, 20, 20)).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image(values), str(path), useCompression=True)
    words = refusal(shortened(path, path.stat().st_size // 2))
    assert read_layout(path)[2] == words


def rewritten(path, old, new):
    """A file with a line of its header changed, or left out."""
    lines = path.read_bytes().split(b"\n")
    assert any(line.startswith(old) for line in lines)
    path.write_bytes(
        b"\n".join(new if o.startswith(old) else o for o in lines if new or not o.startswith(old))
    )
    return path


@pytest.mark.parametrize(
    ("suffix", "old", "new", "words"),
    [
        (".nrrd", b"space origin", b"", "has no space origin for each"),
        (".nrrd", b"space directions", b"space directions: (1.5,0,0) none (0,0,3)", "no space directions"),
        (".nrrd", b"space directions", b"space directions: (1,0,0) (.3,1,0) (0,0,3)", "right angles"),
        (".mha", b"Offset", b"", "has no Offset"),
        (".mha", b"TransformMatrix", b"", "has no TransformMatrix"),
        (".mha", b"ElementSpacing", b"", "has no ElementSpacing"),
        (".mha", b"ElementSpacing", b"ElementSpacing = 1.5 -1 3", "each side must be above 0"),
        (".mha", b"TransformMatrix", b"TransformMatrix = 1 0 0 0 1 0 .2 0 1", "right angles"),
    ],
)  # fmt: skip
def test_a_header_that_leaves_the_place_open_is_refused(tmp_path, suffix, old, new, words):
    path = written(tmp_path / f"a{suffix}", image())
    assert read_volume(path).origin_mm == (-10, 20, 5)
    assert words in refusal(rewritten(path, old, new))
    assert words in read_layout(path)[2]


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("side", [-2.0, 0.0])
def test_sides_of_voxels_that_are_not_above_0_are_refused(tmp_path, place, side):
    path = written(tmp_path / "a.nii.gz", image())
    patched(path, (252, "2h", 1, 0), (76 + 4 * place, "f", side))
    assert "mm (pixdim), but each side must be above 0" in refusal(path)


def enhanced(path, *, order=range(4), per_frame_slope=False, place=True, b_values=(None,)):
    """A multi-frame MR image whose frames are stored in some order, once for each b value."""
    file = dataset(path, "MR")
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    stored = [VALUES[index] + rank for rank in range(len(b_values)) for index in order]
    set_pixels(file, np.stack(stored))
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.0, 1.5], 9.0
    measures.SpacingBetweenSlices = 9.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for index, b_value in [(index, b_value) for b_value in b_values for index in order]:
        groups, position, scale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10, 20, 5 + 3 * index]
        scale.RescaleSlope, scale.RescaleIntercept = (index + 1 if per_frame_slope else 1), 0
        if place:
            groups.PlanePositionSequence = Sequence([position])
        groups.PixelValueTransformationSequence = Sequence([scale])
        if b_value is not None:
            diffusion = Dataset()
            diffusion.DiffusionBValue = b_value
            groups.MRDiffusionSequence = Sequence([diffusion])
        frames.append(groups)
    file.PerFrameFunctionalGroupsSequence = Sequence(frames)
    save(file)
    return path


def test_frames_of_an_enhanced_image_lie_where_each_says(tmp_path):
    volume = read_volume(enhanced(tmp_path / "e.dcm", order=[2, 0, 3, 1], per_frame_slope=True))
    assert np.array_equal(volume.values, VALUES * np.arange(1, 5, dtype=np.float32)[:, None, None])
    assert volume.spacing_mm == pytest.approx((1.5, 1.0, 3.0))
    usual = read_volume(series(tmp_path / "files", VALUES))
    assert volume.grid.is_same_as(usual.grid)


def test_frames_without_a_place_are_an_error(tmp_path):
    message = refusal(enhanced(tmp_path / "e.dcm", place=False))
    assert "has no ImagePositionPatient" in message


def test_a_frame_that_is_missing_is_an_error(tmp_path):
    message = refusal(enhanced(tmp_path / "e.dcm", order=[0, 1, 3]))
    assert "e.dcm, frame 2 to e.dcm, frame 3 there are 6.00 mm" in message


@pytest.mark.parametrize("frames", [3, 5])
def test_frames_and_their_places_that_differ_in_number_are_an_error(tmp_path, frames):
    path = enhanced(tmp_path / "e.dcm")
    file = pydicom.dcmread(path)
    file.NumberOfFrames = frames
    file.save_as(path)
    assert f"states {frames} frames (NumberOfFrames) and the places of 4" in refusal(path)


@pytest.mark.parametrize("frame", [0, 2])
def test_frames_of_two_scales_are_an_error(tmp_path, frame):
    path = enhanced(tmp_path / "a.dcm", per_frame_slope=True)
    file = pydicom.dcmread(path)
    del file.PerFrameFunctionalGroupsSequence[frame].PixelValueTransformationSequence
    file.save_as(path)
    with pytest.raises(VolumeError, match=r"1 of the 4 frames of a\.dcm state no RescaleSlope"):
        read_volume(path)


def test_b_values_of_one_enhanced_file_are_told_apart(tmp_path):
    path = enhanced(tmp_path / "e.dcm", order=[1, 0, 2, 3], b_values=(0.0, 50.0, 800.0))
    message = refusal(path)
    assert "4 slices, b value 800.0 s/mm2" in message
    for rank, part in enumerate(("b value 0.0 s/mm2", "b value 50.0 s/mm2", "b value 800.0 s/mm2")):
        assert np.array_equal(read_volume(path, part).values, VALUES + rank)


@pytest.mark.parametrize("spacing", [(0.0055, 0.0055, 0.0055), (0.009, 0.008, 0.05)])
def test_micro_ct_is_read_with_a_note(tmp_path, spacing):
    volume = read_volume(written(tmp_path / "a.nii.gz", image(spacing=spacing)))
    assert volume.spacing_mm == pytest.approx(spacing, rel=1e-6)
    assert volume.notes == (
        f"voxels of {min(spacing):g} mm, as of micro-CT; if the header means metres, multiply them by 1000",
    )
    slices = series(tmp_path / "dicom", VALUES, modality="CT", spacing_mm=spacing)
    assert read_volume(slices).spacing_mm == pytest.approx(spacing, rel=1e-3)
    assert read_volume(written(tmp_path / "b.nrrd", image(spacing=(0.011, 0.02, 0.02)))).notes == ()


@pytest.mark.parametrize(
    "spacing", [(0.0008, 0.0008, 0.005), (0.001, 0.001, 0.001), (0.0015, 0.0015, 0.06)]
)
def test_metres_in_place_of_millimetres_are_an_error_with_a_remedy(tmp_path, spacing):
    for path in (tmp_path / "a.nii", tmp_path / "a.mha"):
        message = refusal(written(path, image(spacing=spacing)))
        assert "If they are metres, multiply them by 1000 in the header" in message


def test_slices_of_micro_ct_that_share_a_place_or_move_aside_are_an_error(tmp_path):
    spacing = (0.006, 0.006, 0.006)

    def moved(step):
        def change(file, index):
            x, y, z = file.ImagePositionPatient
            file.ImagePositionPatient = [x, y + step[0] * index, z + (step[1] if index == 2 else 0)]

        return change

    for name, step, words in (
        ("tilt", (0.003, 0), "a tilted gantry"),
        ("copy", (0, -0.0058), "share a place"),
    ):
        folder = series(
            tmp_path / name, VALUES, modality="CT", spacing_mm=spacing, change=moved(step)
        )
        with pytest.raises(VolumeError, match=words):
            read_volume(folder)


@pytest.mark.parametrize("name", ["a.nii", "b.nii.gz", "C.NII", "D.Nii.Gz", "E.MHA", "f.Nrrd"])
def test_a_file_is_read_by_its_content_whatever_its_name(tmp_path, name):
    """Packed NIfTI as .nii, plain NIfTI as .nii.gz, and capitals."""
    right = written(tmp_path / f"right{name[1:].lower().replace('.gz', '')}", image())
    content = right.read_bytes()
    other = tmp_path / name
    other.write_bytes(gzip.compress(content) if name == "a.nii" or "Gz" in name else content)
    volume = read_volume(other)
    assert np.array_equal(volume.values, VALUES)
    assert volume.grid.is_same_as(read_volume(right).grid)
    assert read_layout(other) == read_layout(right)
    if ".nii" in name.lower():
        assert "cut off" in refusal(shortened_packed(other))


def shortened_packed(path):
    """A NIfTI file without its last voxels, packed or not as it was."""
    content = path.read_bytes()
    packed = content[:2] == b"\x1f\x8b"
    plain = (gzip.decompress(content) if packed else content)[:-6]
    path.write_bytes(gzip.compress(plain) if packed else plain)
    return path


@pytest.mark.parametrize(
    ("unit", "spacing"),
    [
        ('"cm" "cm" "cm"', (0.15, 0.1, 0.3)), ('"um" "um" "um"', (1500, 1000, 3000)),
        ('"mm" "mm" "mm"', (1.5, 1, 3)),
    ],
)  # fmt: skip
def test_units_of_nrrd_are_read(tmp_path, unit, spacing):
    path = written(tmp_path / "a.nrrd", image(spacing=spacing, origin=(0.0, 0.0, 0.0)))
    rewritten(path, b"kinds", f"kinds: domain domain domain\nspace units: {unit}".encode())
    assert read_volume(path).spacing_mm == pytest.approx((1.5, 1.0, 3.0))
    assert read_layout(path)[1] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("unit", "words"), [('"cm" "mm" "mm"', "cm, mm"), ('"s" "s" "s"', "in s ")]
)
def test_units_of_nrrd_that_are_no_length_or_differ_are_refused(tmp_path, unit, words):
    path = written(tmp_path / "a.nrrd", image())
    assert words in refusal(rewritten(path, b"kinds", f"space units: {unit}".encode()))


@pytest.mark.parametrize("line", ["Slope = 0.5", "Offset = -1024"])
def test_values_that_metaimage_scales_are_refused(tmp_path, line):
    path = written(tmp_path / "a.mha", image())
    rewritten(path, b"CenterOfRotation", f"ElementToIntensityFunction{line}".encode())
    assert "scales its values by a function" in refusal(path)
    assert "scales its values" in read_layout(path)[2]
