"""Headers of DICOM slices and of volumes: where a slice lies, and what its stored integers mean."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files import formats
from encdl.files.formats.base import Document, decoding
from encdl.files.levels import Stored
from encdl.utils.errors import ImageFileError

Vector = npt.NDArray[np.float64]
NIFTI = ("nifti", "nifti-gz")


@dataclass(frozen=True)
class Slice:
    """One frame of a DICOM file.

    Attributes:
        path: Of the file.
        frame: Its number in the file, from 0.
        series: SeriesInstanceUID; "" if there is none.
        number: InstanceNumber.
        shape: Rows and columns.
        dtype: Of the stored integers.
        stored: What they mean.
        bits: BitsStored.
        spacing: Millimetres between rows, and between columns; 0 where the file does not say.
        thickness: Millimetres to the next slice as the file has them, for series of one slice; 0 for none.
        position: Of its first pixel's centre in DICOM's patient coordinates (left, posterior, head), if known.
        axes: Unit vectors along a row and down a column, if known.
    """

    path: Path
    frame: int
    series: str
    number: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    stored: Stored
    bits: int
    spacing: tuple[float, float]
    thickness: float
    position: tuple[float, ...] | None
    axes: tuple[float, ...] | None


def dataset_of(document: Document, names: list[str] | None = None) -> Any:
    """The pydicom data set of a DICOM document, without its pixels; with all elements by default.

    Raises:
        ImageFileError: It is damaged.
    """
    import pydicom  # noqa: PLC0415

    with decoding("file", "DICOM"):
        head = io.BytesIO(formats.file_head(document))
        return pydicom.dcmread(head, force=True, stop_before_pixels=True, specific_tags=names)


def series_of(document: Document) -> tuple[str, int] | None:
    """SeriesInstanceUID and InstanceNumber (0 if there is none) of a DICOM document; None if it is in no series."""
    if document.format != "dicom":
        return None
    try:
        dataset = dataset_of(document, ["SeriesInstanceUID", "InstanceNumber"])
        with decoding("file", "DICOM"):
            uid = str(dataset.get("SeriesInstanceUID") or "")
            number = int((_numbers([dataset], "InstanceNumber", 1) or (0,))[0])
    except ImageFileError:  # a damaged header is sealed as it is
        return None
    return (uid, number if 0 <= number < 2**31 else 0) if uid else None


def slices_of(path: Path, document: Document) -> list[Slice]:
    """The frames of a DICOM document; none if it is of another format or in colour."""
    if document.format != "dicom" or document.layout.endswith("C"):
        return []
    dataset = dataset_of(document)
    with decoding(path, "DICOM"):
        frames = document.shape[0] if document.layout.startswith("S") else 1
        return [_slice(path, document, dataset, frame) for frame in range(frames)]


def _slice(path: Path, document: Document, dataset: Any, frame: int) -> Slice:
    groups = _groups(dataset, frame)
    spacing = _numbers(groups, "PixelSpacing", 2) or _numbers(groups, "ImagerPixelSpacing", 2) or (0.0, 0.0)
    axes = _numbers(groups, "ImageOrientationPatient", 6)
    axes = axes if axes is not None and _are_axes(axes) else None
    gap = _numbers(groups, "SpacingBetweenSlices", 1) or _numbers(groups, "SliceThickness", 1) or (0.0,)
    rows, columns = document.slice_shape[:2]
    return Slice(
        path,
        frame,
        str(_found(groups, "SeriesInstanceUID") or ""),
        int((_numbers(groups, "InstanceNumber", 1) or (0,))[0]),
        (rows, columns),
        document.dtype,
        _stored(document, groups),
        _bits(document, groups),
        (spacing[0], spacing[1]),
        abs(gap[0]),
        _position(groups, axes, frame),
        axes,
    )


def _groups(dataset: Any, frame: int) -> list[Any]:
    """Where an element of a frame may stand: its own functional groups, those of all frames, the data set."""
    found = [dataset]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        items = dataset.get(name) or []
        index = frame if name.startswith("Per") else 0
        if index < len(items):
            found[:0] = [each for element in items[index] if element.VR == "SQ" for each in list(element.value)[:1]]
    return found


def _found(groups: list[Any], name: str) -> Any:
    return next((group[name].value for group in groups if group.get(name) not in (None, "")), None)


def _numbers(groups: list[Any], name: str, count: int) -> tuple[float, ...] | None:
    """That many finite numbers; None if the element is missing or holds something else."""
    value = _found(groups, name)
    try:
        numbers = tuple(float(each) for each in (value if count > 1 else [value]))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _position(groups: list[Any], axes: tuple[float, ...] | None, frame: int) -> tuple[float, ...] | None:
    """Of a frame; those of a dose (PS3.3 C.8.8.3.2) are offset along the normal."""
    position, offsets = _numbers(groups, "ImagePositionPatient", 3), _found(groups, "GridFrameOffsetVector")
    if position is None or axes is None or not offsets or frame >= len(offsets):
        return position
    moved = np.array(position) + np.cross(axes[:3], axes[3:]) * float(offsets[frame])
    return tuple(moved.tolist())


def _are_axes(axes: tuple[float, ...]) -> bool:
    row, column = np.array(axes[:3]), np.array(axes[3:])
    return bool(
        abs(np.linalg.norm(row) - 1) < 0.01 and abs(np.linalg.norm(column) - 1) < 0.01 and abs(row @ column) < 0.01
    )


def _bits(document: Document, groups: list[Any]) -> int:
    """BitsStored, or all bits where it says nothing possible."""
    most = 8 * document.dtype.itemsize
    bits = int((_numbers(groups, "BitsStored", 1) or (most,))[0])
    return bits if 0 < bits <= most else most


def _stored(document: Document, groups: list[Any]) -> Stored:
    dtype = document.dtype
    known: dict[str, Any] = {}
    bits = _bits(document, groups)
    if dtype.itemsize > 1 and dtype.kind in "iu":
        known = {"low": -(2.0 ** (bits - 1)), "high": 2.0 ** (bits - 1) - 1}
        known = known if dtype.kind == "i" else {"low": 0.0, "high": 2.0**bits - 1}
    slope, intercept = (_numbers(groups, f"Rescale{name}", 1) for name in ("Slope", "Intercept"))
    return Stored.of(
        dtype,
        slope=(slope or (1.0,))[0] or 1.0,
        intercept=(intercept or (0.0,))[0],
        inverted=_found(groups, "PhotometricInterpretation") == "MONOCHROME1",
        modality=str(_found(groups, "Modality") or ""),
        **known,
    )


def stored_of(path: Path, document: Document) -> Stored:
    """The meaning of the integers of any document; of a DICOM file with frames, those of the first."""
    if found := slices_of(path, document):
        return found[0].stored
    if document.format in NIFTI:
        return nifti(document)[1]
    return Stored.of(document.dtype)


def image_of(path: Path, document: Document) -> tuple[Stored, Callable[[Any], Any], tuple[float, float]]:
    """Of a single image: what its integers mean, what takes off bits that are not its own, and a pixel's sides.

    The sides are those of rows and columns, in millimetres or any other unit.
    """
    if found := slices_of(path, document):
        first = found[0]
        sides = first.spacing if all(first.spacing) else (1.0, 1.0)
        return first.stored, lambda array: without_high_bits(array, first.bits), sides
    if document.format not in NIFTI:
        return Stored.of(document.dtype), lambda array: array, (1.0, 1.0)
    affine, stored = nifti(document)
    columns, rows, _ = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return stored, lambda array: array, (rows, columns) if rows and columns else (1.0, 1.0)


def without_high_bits(array: Any, bits: int) -> Any:
    """Stored values without what lies above BitsStored, such as an overlay; of signed ones the sign goes up there."""
    above = 8 * array.dtype.itemsize - bits
    if array.dtype.kind not in "iu" or not 0 < above < 8 * array.dtype.itemsize:
        return array
    shift = array.dtype.type(above)
    return (array << shift) >> shift


def nifti(document: Document) -> tuple[Vector, Stored]:
    """Affine of the voxels (x, y, z) in millimetres to the right, front and head, and what their integers mean.

    Raises:
        ImageFileError: The header is damaged.
    """
    import nibabel  # noqa: PLC0415

    with decoding("file", "NIfTI"):
        head = formats.file_head(document)
        second = head[:4] in (bytes((28, 2, 0, 0)), bytes((0, 0, 2, 28)))  # 540, in either byte order
        kind, size = (nibabel.Nifti2Header, 540) if second else (nibabel.Nifti1Header, 348)
        header = kind(head[:size], check=False)
        slope, intercept = header.get_slope_inter()
        affine = np.asarray(header.get_best_affine(), np.float64)
    known = {} if slope is None else {"slope": float(slope), "intercept": float(intercept or 0.0)}
    return affine, Stored.of(document.dtype, **known)
