"""DICOM Segmentation objects (PS3.3 A.51): masks written as such, by highdicom, and read onto the grid of a scan."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files import scans
from encdl.files.formats.base import Document
from encdl.files.label_masks import COLOURS
from encdl.utils.errors import ImageFileError, UsageError

SCHEME = "99ENCDL"
"""Of the codes of classes: EncDL knows their names and no terminology."""
NEAR = 0.1
"""Pixels, and slices, by which a frame may lie beside those of its scan."""


def check_installed() -> None:
    """Raise `UsageError` without highdicom."""
    try:
        import highdicom  # noqa: F401, PLC0415
    except ImportError:
        raise UsageError(
            "masks in DICOM need the package highdicom: pip install 'encdl[seg]', or --masks nifti"
        ) from None


def seg_bytes(mask: npt.NDArray[np.uint8], sources: Sequence[Any], classes: Sequence[str]) -> bytes:
    """A mask as a DICOM SEG file: binary, a segment for each class but the first, empty frames left out.

    Patient and study are those of the sources, in the clear: the file is as confidential as they are.

    Args:
        mask: uint8 (S, H, W), the class index of each pixel.
        sources: The pydicom data set of each slice, in its order, without pixels; of one multi-frame file that alone.
        classes: Names of the classes by index; the first is the background.

    Raises:
        ImageFileError: The sources lack what a segmentation must say of them.
    """
    import highdicom  # noqa: PLC0415
    from pydicom.sr.codedict import codes  # noqa: PLC0415

    by = highdicom.AlgorithmIdentificationSequence("EncDL reader", codes.DCM.ArtificialIntelligence, _version())
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=highdicom.sr.CodedConcept(f"class-{number}", SCHEME, name[:64]),
            algorithm_type="AUTOMATIC",
            algorithm_identification=by,
            display_color=highdicom.color.CIELabColor.from_rgb(*COLOURS[(number - 1) % len(COLOURS)].tolist()),
        )
        for number, name in enumerate(classes[1:], start=1)
    ]
    stream = io.BytesIO()
    try:
        made = highdicom.seg.Segmentation(
            source_images=list(sources),
            pixel_array=mask,
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=9000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="EncDL",
            manufacturer_model_name="encdl predict",
            software_versions=_version(),
            device_serial_number="none",
            content_label="SEGMENTATION",
        )
        made.save_as(stream)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ImageFileError(f"no DICOM segmentation can refer to this series ({reason}): use --masks nifti") from None
    return stream.getvalue()


def is_seg(document: Document) -> bool:
    """Whether a document is a DICOM Segmentation."""
    if document.format != "dicom":
        return False
    return str(scans.dataset_of(document, ["Modality"]).get("Modality") or "") == "SEG"


def labels_on(
    path: Path, document: Document, affine: npt.NDArray[np.float64], shape: Sequence[int], classes: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """The segments of a DICOM Segmentation as a mask on the grid of the scan that it is of.

    A segment has the class of its label's name, or else of its number; where segments overlap the last one counts. Of
    fractions those above a half are in.

    Args:
        path: Of the file, for messages.
        document: The segmentation.
        affine: (4, 4) of the scan: (slice, row, column) to millimetres to the right, front and head.
        shape: Slices, rows and columns of the scan.
        classes: Names of the classes by index.

    Returns:
        uint8 of that shape; segment numbers may be beyond the classes.

    Raises:
        ImageFileError: Its frames do not lie on the scan's grid, or it is damaged.
    """
    dataset = scans.dataset_of(document)
    number_of = {
        int(each.SegmentNumber): _class_of(str(each.get("SegmentLabel", "")), int(each.SegmentNumber), classes)
        for each in dataset.get("SegmentSequence") or ()
    }
    half = int(dataset.get("MaximumFractionalValue") or 1) / 2
    mask, order = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    for frame, group, image in zip(scans.slices_of(path, document), groups, document.slices(), strict=False):
        place = _place(frame, affine, shape)
        if place is None:
            raise ImageFileError(f"{path}: its frames do not lie on the grid of the scan that it is named like")
        own = group.get("SegmentIdentificationSequence")
        pixels = np.asarray(image).reshape(frame.shape)
        # Without a segment of its own a frame's pixels are numbers of segments (label maps).
        numbers = np.where(pixels > half, int(own[0].ReferencedSegmentNumber), 0) if own else pixels
        over = numbers > order[place]
        order[place][over] = numbers[over]
        for number in np.unique(numbers[over]).tolist():
            mask[place][over & (numbers == number)] = number_of.get(number, min(number, 255))
    return mask


def _class_of(label: str, number: int, classes: Sequence[str]) -> int:
    return classes.index(label) if label in classes else min(number, 255)


def _place(
    frame: scans.Slice, affine: npt.NDArray[np.float64], shape: Sequence[int]
) -> tuple[int, slice, slice] | None:
    """Where in a scan a frame lies, if it lies on its pixels."""
    if frame.position is None or frame.axes is None:
        return None
    to_ras = np.array([-1.0, -1.0, 1.0])
    down, along = np.array(frame.axes[3:]) * frame.spacing[0], np.array(frame.axes[:3]) * frame.spacing[1]
    if not np.allclose(np.stack([down, along]) * to_ras, affine[:3, 1:3].T, atol=1e-3):
        return None
    exact = np.linalg.solve(affine[:3, :3], np.array(frame.position) * to_ras - affine[:3, 3])
    at, row, column = (int(index) for index in np.rint(exact))
    rows, columns = frame.shape
    inside = 0 <= at < shape[0] and 0 <= row <= shape[1] - rows and 0 <= column <= shape[2] - columns
    near = bool(np.abs(exact - np.rint(exact)).max() < NEAR)
    return (at, slice(row, row + rows), slice(column, column + columns)) if inside and near else None


def _version() -> str:
    from encdl import __version__  # noqa: PLC0415

    return __version__
