"""Small DICOM series, structure sets and doses, written for a test as scanners write them, or as they err."""

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTDoseStorage,
    RTStructureSetStorage,
    generate_uid,
)

CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "RTSTRUCT": RTStructureSetStorage,
    "RTDOSE": RTDoseStorage,
}
FRAME = "1.2.826.0.1.3680043.8.498.1"
SERIES = "1.2.826.0.1.3680043.8.498.2"
AXIAL = (1, 0, 0, 0, 1, 0)


def dataset(path, modality, *, syntax=ExplicitVRLittleEndian, **elements):
    """A DICOM file of a modality, not written yet."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CLASSES.get(modality, MRImageStorage)
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = syntax
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = meta.MediaStorageSOPClassUID
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    file.Modality = modality
    file.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    file.SeriesInstanceUID = SERIES
    file.FrameOfReferenceUID = FRAME
    file.PatientName, file.PatientID = "Doe^Jane", "secret-4711"
    file.StudyDate, file.SeriesNumber, file.SeriesDescription = "20190203", 4, "T1 tra"
    for name, value in elements.items():
        setattr(file, name, value)
    return file


def set_pixels(file, stored, *, bits=16):
    """Put (rows, columns) or (frames, rows, columns) whole numbers into a file."""
    file.Rows, file.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        file.NumberOfFrames = len(stored)
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * stored.dtype.itemsize, bits, bits - 1
    file.PixelRepresentation = int(stored.dtype.kind == "i")
    file.PixelData = stored.tobytes()
    file["PixelData"].VR = "OW"


def save(file, path=None):
    syntax = file.file_meta.TransferSyntaxUID
    little = not syntax.is_transfer_syntax or syntax.is_little_endian
    implicit = syntax.is_transfer_syntax and syntax.is_implicit_VR
    file.set_original_encoding(implicit, little)
    file.save_as(path or file.filename, enforce_file_format=True)


def series(folder, values, *, modality="MR", spacing_mm=(1.5, 1.0, 3.0), origin_mm=(-10.0, 20.0, 5.0),
           orientation=AXIAL, change=lambda file, index: None, **elements):  # fmt: skip
    """Write (z, rows, columns) stored values as one file per slice.

    Args:
        folder: it is made.
        values: int16 or uint16.
        spacing_mm: along (x, y, z) of the image: columns, rows, slices.
        origin_mm: of the first pixel of the first slice.
        orientation: ImageOrientationPatient.
        change: a function of (file, index of the slice) before a file is written.
        elements: for all files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    for index, pixels in enumerate(values):
        path = folder / f"{index:03d}.dcm"
        file = dataset(path, modality, **elements)
        position = np.asarray(origin_mm) + normal * spacing_mm[2] * index
        file.ImagePositionPatient = [round(float(part), 6) for part in position]
        file.ImageOrientationPatient = [float(part) for part in orientation]
        file.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        file.SliceThickness, file.InstanceNumber = spacing_mm[2], index + 1
        set_pixels(file, pixels)
        change(file, index)
        save(file)
    return folder


def structure_set(
    path, regions, *, frame=FRAME, series_uid=SERIES, kind="CLOSED_PLANAR", change=None
):
    """Write a structure set.

    Args:
        path: of the file.
        regions: (n, 3) contours in mm by name.
        frame: UID of the frame of reference.
        series_uid: of the series that it names.
        kind: of all contours.
        change: a function of the file before it is written.
    """
    file = dataset(path, "RTSTRUCT")
    file.StructureSetLabel = "test"
    one = Dataset()
    one.SeriesInstanceUID = series_uid
    study = Dataset()
    study.RTReferencedSeriesSequence = Sequence([one])
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    reference.RTReferencedStudySequence = Sequence([study])
    file.ReferencedFrameOfReferenceSequence = Sequence([reference])
    file.FrameOfReferenceUID = frame
    rois, drawn = [], []
    for number, (name, contours) in enumerate(regions.items(), 1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        rois.append(roi)
        item = Dataset()
        item.ReferencedROINumber = number
        item.ContourSequence = Sequence([contour(points, kind) for points in contours])
        drawn.append(item)
    file.StructureSetROISequence, file.ROIContourSequence = Sequence(rois), Sequence(drawn)
    if change:
        change(file)
    save(file)
    return path


def contour(points, kind="CLOSED_PLANAR"):
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [f"{value:.6f}"[:16] for value in np.asarray(points, dtype=float).ravel()]
    return item


def dose(path, stored, *, scaling=0.01, offsets=None, origin_mm=(0.0, 0.0, 0.0), spacing_mm=(2.0, 2.0, 2.0),
         orientation=AXIAL, syntax=ExplicitVRLittleEndian, change=None):  # fmt: skip
    """Write a dose of (frames, rows, columns) uint32 times a scaling."""
    file = dataset(path, "RTDOSE", syntax=syntax)
    file.DoseUnits, file.DoseType, file.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    file.DoseGridScaling = scaling
    file.ImagePositionPatient, file.ImageOrientationPatient = list(origin_mm), list(orientation)
    file.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
    set_pixels(file, stored, bits=32)
    if offsets is None:
        offsets = [spacing_mm[2] * frame for frame in range(len(stored))]
    file.GridFrameOffsetVector = list(offsets)
    if change:
        change(file)
    save(file)
    return path


DEFLATED = DeflatedExplicitVRLittleEndian
