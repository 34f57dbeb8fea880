"""A synthetic CT, a ball of soft tissue with a dense core in air, as DICOM slices with whatever may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHAPE = (60, 24, 28)
SPACING = (2.5, 1.5, 1.25)
AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)


def hounsfield(shape: Sequence[int] = SHAPE) -> np.ndarray[Any, Any]:
    """int16 (slices, rows, columns), -1000 to 300."""
    z, y, x = (np.linspace(-1, 1, size) for size in shape)
    radius = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + (x[None, None] + 0.2) ** 2)
    return np.select([radius < 0.3, radius < 0.8], [300, 40], -1000).astype(np.int16)


def write_series(
    folder: Path,
    tilt: float = 0.0,
    missing: Sequence[int] = (),
    axes: Sequence[float] = AXIAL,
    number: int = 1,
    shape: Sequence[int] = SHAPE,
    signed: bool = True,
    name: str = "ct",
    **elements: Any,
) -> list[Path]:
    """Write a series in an order of names that is not that of positions; the paths in that of positions.

    Args:
        folder: Where to.
        tilt: Millimetres by which each slice is shifted along its columns.
        missing: Slices to leave out.
        axes: ImageOrientationPatient.
        number: Of the series.
        shape: Slices, rows and columns.
        signed: Store Hounsfield units / 2 + 10 in int16; else Hounsfield units + 1024 in 12 bits of uint16.
        name: Beginning of the files' names.
        elements: Others; a function is called with the slice's number.
    """
    folder.mkdir(exist_ok=True)
    along, down = np.array(axes[:3], float), np.array(axes[3:], float)
    step = np.cross(along, down) * SPACING[0] + down * tilt
    paths = []
    for index, image in enumerate(hounsfield(shape)):
        if index in missing:
            continue
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        uid = meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, str(number), str(index)])
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.update({})
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, uid, "CT"
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "Doe^J", "7", "", ""
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = (generate_uid(entropy_srcs=[k]) for k in "sf")
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number)])
        dataset.StudyID, dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "1", "20260101", "120000", ""
        dataset.ReferringPhysicianName, dataset.Manufacturer, dataset.PositionReferenceIndicator = "", "A maker", ""
        dataset.SeriesNumber, dataset.InstanceNumber = number, index + 1
        dataset.ImageOrientationPatient = [float(each) for each in axes]
        dataset.ImagePositionPatient = [round(float(each), 6) for each in (-10, -20, 30) + index * step]
        dataset.PixelSpacing, dataset.SliceThickness = list(SPACING[1:]), SPACING[0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns = image.shape
        dataset.BitsAllocated, dataset.PixelRepresentation = 16, int(signed)
        dataset.BitsStored = 16 if signed else 12
        dataset.HighBit = dataset.BitsStored - 1
        slope, intercept = (2, -20) if signed else (1, -1024)
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.PixelData = ((image - intercept) // slope).astype("<i2" if signed else "<u2").tobytes()
        for key, value in elements.items():
            made = value(index) if callable(value) else value
            if made is None:
                delattr(dataset, key)
            else:
                setattr(dataset, key, made)
        path = folder / f"{name}-{(index * 37) % 997:03}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
