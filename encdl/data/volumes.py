"""NIfTI volumes as flat slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from encdl.utils.errors import DataError

Axis: TypeAlias = Literal["sagittal", "coronal", "axial"]
AXES: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The slices lie across this axis of a volume whose axes run right, forward and up."""


@dataclass(frozen=True)
class Volume:
    """One volume, turned by its header so that its axes run right, forward and up.

    Attributes:
        voxels: float32 (C, X, Y, Z), all finite.
        spacing_mm: Size of a voxel along each axis.
        turned_from: How the axes ran in the file, such as ("L", "P", "S").
    """

    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    turned_from: tuple[str, ...]

    def plane(self, axis: Axis) -> tuple[float, float]:
        """Size (height, width) of a pixel of a slice in millimetres."""
        width, height = (self.spacing_mm[each] for each in range(3) if each != AXES[axis])
        return height, width


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file.

    Raises:
        DataError: It is missing, damaged, empty, or holds values that are no finite numbers.
    """
    import nibabel  # noqa: PLC0415

    if not path.is_file():
        raise DataError(f"{path}: no such file: fetch the data set again")
    try:
        image = nibabel.load(path)
        if image.get_data_dtype().kind not in "iuf":
            raise ValueError(f"its voxels are {image.get_data_dtype()}: real numbers are read")
        turned = nibabel.as_closest_canonical(image)
        voxels = np.asarray(turned.dataobj, dtype=np.float32)
        spacing = tuple(float(size) for size in turned.header.get_zooms()[:3])
        before = nibabel.aff2axcodes(image.affine)
    except Exception as error:  # on bad bytes it raises anything, from EOFError to zlib.error
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"{path}: is not a readable NIfTI volume: fetch it again ({reason})") from error
    if voxels.ndim not in {3, 4} or voxels.size == 0:
        raise DataError(f"{path}: has shape {voxels.shape}: give (X, Y, Z) or (X, Y, Z, channels)")
    if not np.isfinite(voxels).all() or not all(0 < size < np.inf for size in spacing):
        raise DataError(f"{path}: holds values or voxel sizes that are no finite numbers: mend or remove it")
    return Volume(np.moveaxis(voxels[..., None] if voxels.ndim == 3 else voxels, -1, 0), spacing, before)  # type: ignore[arg-type]


def flat(voxels: np.ndarray, axis: Axis, index: int) -> np.ndarray:
    """Slice `index` of (C, X, Y, Z) as an image (C, H, W), with the front of the body up, or its top."""
    return np.ascontiguousarray(np.rot90(np.take(voxels, index, axis=1 + AXES[axis]), axes=(1, 2)))


def to_bytes(voxels: np.ndarray, window: tuple[float, float] | None, percentiles: tuple[float, float]) -> np.ndarray:
    """Stretch each channel of (C, X, Y, Z) to uint8, from `window` or, if there is none, from its own percentiles."""
    result = np.empty(voxels.shape, np.uint8)
    for channel, stretched in zip(voxels, result, strict=True):
        low, high = window or (float(level) for level in np.percentile(channel, percentiles))
        scale = 255 / max(high - low, 1e-30)  # a volume of one level becomes black
        stretched[:] = ((channel - low) * scale).clip(0, 255).round()
    return result


def with_label(labels: np.ndarray, axis: Axis, empty: float) -> list[int]:
    """Numbers of the slices with a label other than 0, and of a share `empty` of the rest, evenly spread.

    Args:
        labels: uint8 (1, X, Y, Z).
        axis: Direction that the slices are across.
        empty: From 0 to 1.
    """
    some = labels.any(axis=tuple(each for each in range(4) if each != 1 + AXES[axis]))
    rest = np.flatnonzero(~some)
    spread = np.linspace(0, len(rest) - 1, round(empty * len(rest))).round().astype(int)
    return sorted([*np.flatnonzero(some).tolist(), *rest[spread].tolist()])
