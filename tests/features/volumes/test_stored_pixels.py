"""Stored pixels of every transfer syntax mean the same values, and what they mean is not rounded."""

import imagecodecs
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from features.errors import VolumeError
from features.volumes.series import read_volume
from tests.small_series import series

VALUES = np.random.default_rng(2).integers(0, 3000, (4, 16, 18), np.uint16)
ENCODERS = {
    JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="J2K"),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLosslessSV1: imagecodecs.ljpeg_encode,
    HTJ2KLossless: imagecodecs.htj2k_encode,
}


def compress(syntax, encode, pixels):
    def change(file, index):
        file.file_meta.TransferSyntaxUID = syntax
        file.PixelData = encapsulate([encode(pixels[index])])
        file["PixelData"].VR = "OB"
        file["PixelData"].is_undefined_length = True

    return change


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda uid: uid.name)
def test_compressed_pixels_are_the_values_that_were_stored(tmp_path, syntax):
    series(tmp_path, VALUES, change=compress(syntax, ENCODERS[syntax], VALUES))
    assert np.array_equal(read_volume(tmp_path).values, VALUES)
    if syntax != HTJ2KLossless:  # which GDCM does not know
        image = sitk.ReadImage(str(tmp_path / "002.dcm"), sitk.sitkFloat32)
        assert np.array_equal(sitk.GetArrayFromImage(image)[0], VALUES[2])


@pytest.mark.parametrize(("syntax", "bits"), [(JPEGBaseline8Bit, 8), (JPEGExtended12Bit, 12)])
def test_pixels_compressed_with_loss_are_near_the_values(tmp_path, syntax, bits):
    smooth = np.outer(np.arange(16), np.arange(18)) * (2**bits // 400)
    values = np.stack([smooth + step for step in range(4)]).astype(
        np.uint8 if bits == 8 else np.uint16
    )

    def encode(pixels):
        options = {} if bits == 8 else {"bitspersample": 12}
        return imagecodecs.jpeg8_encode(pixels, level=98, **options)

    def change(file, index):
        file.BitsStored, file.HighBit = bits, bits - 1
        compress(syntax, encode, values)(file, index)

    read = read_volume(series(tmp_path, values, change=change)).values
    assert np.abs(read - values).max() <= 2 ** (bits - 5)
    assert np.abs(read - values).mean() <= 2 ** (bits - 7)


def test_signed_values_in_an_unsigned_codestream_keep_their_sign(tmp_path):
    signed = VALUES.astype(np.int16) - 1000
    change = compress(JPEGLSLossless, imagecodecs.jpegls_encode, signed.view(np.uint16))
    series(tmp_path, signed, modality="CT", change=change)
    assert np.array_equal(read_volume(tmp_path).values, np.maximum(signed, -1024))


def test_signed_codestreams(tmp_path):
    signed = VALUES.astype(np.int16) - 1000
    series(tmp_path, signed, change=compress(JPEG2000Lossless, ENCODERS[JPEG2000Lossless], signed))
    assert np.array_equal(read_volume(tmp_path).values, signed)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.name,
)
def test_ways_of_writing_elements(tmp_path, syntax):
    def change(file, index):
        file.file_meta.TransferSyntaxUID = syntax
        if not syntax.is_little_endian:
            file.PixelData = VALUES[index].astype(">u2").tobytes()
            file["PixelData"].VR = "OW"

    series(tmp_path, VALUES, change=change)
    assert np.array_equal(read_volume(tmp_path).values, VALUES)


def test_run_length_encoding(tmp_path):
    series(tmp_path, VALUES, change=lambda file, _: file.compress(RLELossless))
    assert np.array_equal(read_volume(tmp_path).values, VALUES)


@pytest.mark.parametrize("syntax", [MPEG2MPML, UID("1.2.3.4.5")])
def test_pixels_that_nothing_decodes_are_named_with_their_syntax(tmp_path, syntax):
    series(tmp_path, VALUES, change=compress(syntax, ENCODERS[JPEG2000Lossless], VALUES))
    with pytest.raises(VolumeError, match=rf"000\.dcm are compressed.*\({syntax}\).*Explicit VR"):
        read_volume(tmp_path)


def test_slopes_of_slices_are_not_rounded(tmp_path):
    slopes = [1.0, 1.5, 0.0004, 2.25]

    def change(file, index):
        file.RescaleSlope, file.RescaleIntercept = slopes[index], -0.5 * index

    volume = read_volume(series(tmp_path, VALUES, modality="PT", change=change))
    for index, slope in enumerate(slopes):
        wanted = (VALUES[index] * np.float64(slope) - 0.5 * index).astype(np.float32)
        assert np.array_equal(volume.values[index], wanted)


def test_ct_that_states_no_hu_is_noted(tmp_path):
    def state(file, index):
        file.RescaleIntercept, file.RescaleSlope = -1024, 1

    bare = read_volume(series(tmp_path / "a", VALUES, modality="CT"))
    stated = read_volume(series(tmp_path / "b", VALUES, modality="CT", change=state))
    assert bare.notes == (
        "stored values are taken as HU, as files of CT state no RescaleIntercept",
    )
    assert stated.notes == ()
    assert np.array_equal(stated.values, bare.values - 1024)


def test_unused_bits_are_no_value(tmp_path):
    """Old files keep an overlay in the bits above those stored."""
    with_overlay = VALUES | np.uint16(0x8000)

    def change(file, _):
        file.BitsStored, file.HighBit = 12, 11

    assert np.array_equal(read_volume(series(tmp_path, with_overlay, change=change)).values, VALUES)


def test_signed_values_of_twelve_bits(tmp_path):
    signed = VALUES.astype(np.int16) - 1500

    def change(file, index):
        file.BitsStored, file.HighBit = 12, 11
        file.PixelData = (signed[index].view(np.uint16) & np.uint16(0x0FFF)).tobytes()

    assert np.array_equal(read_volume(series(tmp_path, signed, change=change)).values, signed)


@pytest.mark.parametrize(
    ("bits", "high", "words"), [(24, 23, ""), (1, 0, "1 bits"), (12, 20, "at 20")]
)
def test_bits_that_cannot_be_are_an_error(tmp_path, bits, high, words):
    def change(file, _):
        file.BitsStored, file.HighBit = bits, high

    folder = series(tmp_path, VALUES, change=change)
    with pytest.raises(VolumeError, match=rf"000\.dcm.*{words}"):
        read_volume(folder)


def test_values_kept_in_the_upper_bits(tmp_path):
    """Old scanners store twelve bits in the upper part of sixteen."""

    def change(file, index):
        file.BitsStored, file.HighBit = 12, 15
        file.PixelData = (VALUES[index] << 4).tobytes()

    assert np.array_equal(read_volume(series(tmp_path, VALUES, change=change)).values, VALUES)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_measurements_in_monochrome1_are_refused(tmp_path, modality):
    def change(file, _):
        file.PhotometricInterpretation = "MONOCHROME1"

    folder = series(tmp_path, VALUES, modality=modality, change=change)
    with pytest.raises(VolumeError, match=rf"000\.dcm is {modality} in MONOCHROME1"):
        read_volume(folder)


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_other_pictures_in_monochrome1_are_inverted_within_their_bits(tmp_path, kind):
    def change(file, _):
        file.PhotometricInterpretation, file.BitsStored, file.HighBit = "MONOCHROME1", 12, 11

    values = (VALUES // 2).astype(kind)
    volume = read_volume(series(tmp_path, values, modality="OT", change=change))
    assert np.array_equal(volume.values, (4095 if kind == np.uint16 else -1) - values.astype(int))
    assert volume.notes == ("4 files in MONOCHROME1 are inverted",)


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_of_old_ct_is_air(tmp_path, padding):
    stored = np.full((3, 8, 8), -2000, np.int16)
    stored[:, 2:6, 2:6] = 40

    def change(file, _):
        file.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)

    volume = read_volume(series(tmp_path, stored, modality="CT", change=change))
    assert volume.values.min() == -1024
    assert volume.values[1, 3, 3] == 40
    assert "144 padding pixels are -1024" in volume.notes[-1]


def test_a_range_of_padding_and_a_ring_without_one(tmp_path):
    stored = np.full((3, 4, 4), 100, np.int16)
    stored[:, 0], stored[:, 1] = -1500, -1400

    def change(file, _):
        file.add_new("PixelPaddingValue", "SS", -1500)
        file.add_new("PixelPaddingRangeLimit", "SS", -1450)

    volume = read_volume(series(tmp_path, stored, modality="CT", change=change))
    assert (volume.values[:, :2] == -1024).all()
    assert len(volume.notes) == 3


def test_padding_of_mri_is_nothing(tmp_path):
    stored = np.full((3, 4, 4), 100, np.int16)
    stored[:, 0] = -32768

    def change(file, _):
        file.add_new("PixelPaddingValue", "SS", -32768)

    volume = read_volume(series(tmp_path, stored, change=change))
    assert (volume.values[:, 0] == 0).all()
    assert (volume.values[:, 1:] == 100).all()


def test_values_stored_as_floats(tmp_path):
    floats = VALUES.astype(np.float32) / 7

    def change(file, index):
        del file.PixelData, file.BitsStored, file.HighBit, file.PixelRepresentation
        file.BitsAllocated, file.FloatPixelData = 32, floats[index].tobytes()

    assert np.allclose(read_volume(series(tmp_path, VALUES, change=change)).values, floats)


def test_pixels_of_another_size_are_an_error(tmp_path):
    series(
        tmp_path,
        VALUES,
        change=compress(JPEG2000Lossless, ENCODERS[JPEG2000Lossless], VALUES[:, :9]),
    )
    with pytest.raises(VolumeError, match=r"000\.dcm are 18 x 9, but the file says 18 x 16"):
        read_volume(tmp_path)


def test_a_damaged_codestream_is_named(tmp_path):
    def damaged(pixels):
        return ENCODERS[JPEG2000Lossless](pixels)[:40]

    series(tmp_path, VALUES, change=compress(JPEG2000Lossless, damaged, VALUES))
    with pytest.raises(VolumeError, match=r"pixels of 000\.dcm cannot be decoded"):
        read_volume(tmp_path)


def test_a_bare_file_is_little_endian(tmp_path):
    """Without a head a file names no transfer syntax: implicit little endian is the default of DICOM."""
    series(tmp_path, VALUES, syntax=ImplicitVRLittleEndian)
    path = tmp_path / "001.dcm"
    whole = path.read_bytes()
    length = int.from_bytes(whole[140:144], "little")
    path.write_bytes(whole[144 + length :])
    assert np.array_equal(read_volume(tmp_path).values, VALUES)


def test_a_syntax_in_its_own_file_alone(tmp_path):
    """One file of a series may be compressed and another not."""

    def change(file, index):
        if index == 1:
            compress(JPEGLosslessSV1, imagecodecs.ljpeg_encode, VALUES)(file, index)

    series(tmp_path, VALUES, change=change, syntax=ExplicitVRLittleEndian)
    assert np.array_equal(read_volume(tmp_path).values, VALUES)
