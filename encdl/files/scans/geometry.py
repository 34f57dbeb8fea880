"""Turning and resampling scans before a network, as MONAI's Orientation and Spacing do, and its answers back.

Turning makes views, without a copy. Resampling keeps the first voxel in its place and the directions of the axes, so
that it is a change of scale along each: of a sheared grid the network sees the sheared image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from encdl.files.scans.headers import Vector
from encdl.utils.errors import UsageError

Array = npt.NDArray[Any]
_LETTERS = "RLAPSI"


@dataclass(frozen=True)
class Geometry:
    """How a reader wants scans to lie.

    Attributes:
        orientation: Where slices, rows and columns lead, in the letters of MONAI's Orientation: "SPL" is an axial scan
            from the feet up, with the front of the body above and the patient's left on the right. None leaves it.
        spacing: Millimetres between slices, rows and columns; 0 leaves an axis as it is. None leaves all.
        fit: Pixels that the longer side of each slice gets, in the place of a spacing of rows and columns; 0 for none.
        beside: Of classifiers, how many slices before, and as many behind, are further channels of each (2.5-D).

    Raises:
        UsageError: It is no orientation, or no spacing.
    """

    orientation: str | None = None
    spacing: tuple[float, float, float] | None = None
    fit: int = 0
    beside: int = 0

    def __post_init__(self) -> None:
        axes = None if self.orientation is None else {_LETTERS.find(letter) // 2 for letter in self.orientation}
        if axes is not None and (len(str(self.orientation)) != 3 or axes != {0, 1, 2}):
            raise UsageError(f"an orientation is three letters, R or L, A or P, S or I, not {self.orientation!r}")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", tuple(float(length) for length in self.spacing))
            if len(self.spacing) != 3 or self.fit < 0 or not all(0 <= length < np.inf for length in self.spacing):
                raise UsageError(f"a spacing is three lengths in millimetres, 0 to leave an axis, not {self.spacing}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and checkpoints; `Geometry(**values)` undoes it."""
        spacing = self.spacing and list(self.spacing)
        return {"orientation": self.orientation, "spacing": spacing, "fit": self.fit, "beside": self.beside}

    def turned(self, array: Array, affine: Vector) -> tuple[Array, Vector]:
        """A view of (slices, rows, columns) in the wanted orientation, and its affine.

        The view of another array of the same grid is turned alike, so that what is written into it is turned back.
        """
        if self.orientation is None:
            return array, affine
        from nibabel import orientations  # noqa: PLC0415

        change = orientations.ornt_transform(
            orientations.io_orientation(affine), orientations.axcodes2ornt(self.orientation)
        )
        view: Array = orientations.apply_orientation(array, change)
        return view, affine @ orientations.inv_ornt_aff(change, array.shape)

    def scales(self, affine: Vector, shape: Sequence[int]) -> tuple[float, float, float]:
        """Old voxels in a new one along each axis of the turned scan of a shape; 1 where nothing is to change."""
        old, wanted = np.linalg.norm(affine[:3, :3], axis=0).tolist(), self.spacing or (0.0, 0.0, 0.0)
        if self.fit > 1:
            pixel = max((side - 1) * own for side, own in zip(shape[1:], old[1:], strict=True)) / (self.fit - 1)
            wanted = (wanted[0], pixel, pixel)
        first, second, third = (new / own if new else 1.0 for new, own in zip(wanted, old, strict=True))
        return first, second, third

    def own_affine(self) -> Vector:
        """Of a scan that lies as is wanted, its first voxel at the origin; 1 mm where nothing is wanted."""
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for column, letter in enumerate(self.orientation or "SPL"):  # of images without geometry, too
            axis = _LETTERS.find(letter)
            affine[axis // 2, column] = (1 - 2 * (axis % 2)) * ((self.spacing or (0, 0, 0))[column] or 1)
        return affine


AS_IT_IS: Final = Geometry()


def resized(array: Array, scales: Sequence[float], nearest: bool = False) -> Array:
    """An array at new voxels, linear between the old ones; as large as MONAI's Spacing makes it.

    Args:
        array: Any type, of as many axes as there are scales.
        scales: Old voxels in a new one.
        nearest: Take the value of the nearest voxel, as of masks.

    Returns:
        The same type; of integers the nearest one.
    """
    return sampled(array, scales, resized_shape(array.shape, scales), nearest)


def resized_shape(shape: Sequence[int], scales: Sequence[float]) -> list[int]:
    """The shape of what `resized` makes."""
    return [round((size - 1) / scale + 1) for size, scale in zip(shape, scales, strict=True)]


def counted(array: Array, scales: Sequence[float], size: Sequence[int]) -> Array:
    """What `resized` made, without the last voxels of axes that became one longer than `size`: training counts less."""
    kept = (
        slice(most if side == most + 1 and scale != 1 else side)
        for side, most, scale in zip(array.shape, size, scales, strict=True)
    )
    return array[tuple(kept)]


def sampled(array: Array, scales: Sequence[float], shape: Sequence[int], nearest: bool = False) -> Array:
    """`resized` to a shape; beyond the last voxel its value goes on."""
    if all(scale == 1 for scale in scales):
        return array
    from scipy import ndimage  # noqa: PLC0415

    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
    result: Array = ndimage.affine_transform(
        array,
        np.asarray(scales, np.float64),
        output_shape=tuple(shape),
        output=kind,
        order=0 if nearest else 1,
        mode="nearest",
    )
    return result if kind == array.dtype else np.rint(result).astype(array.dtype)
