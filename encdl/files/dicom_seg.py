"""Masks as DICOM Segmentation objects (PS3.3 A.51), which refer to the instances that they are of; by highdicom."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files.label_masks import COLOURS
from encdl.utils.errors import ImageFileError, UsageError

SCHEME = "99ENCDL"
"""Of the codes of classes: EncDL knows their names and no terminology."""


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


def _version() -> str:
    from encdl import __version__  # noqa: PLC0415

    return __version__
