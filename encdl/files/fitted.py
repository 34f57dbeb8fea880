"""The reading layer that one reader was made for: its levels, its size, and how it wants scans to lie.

Its levels are the bytes that the reader gets of the same file from whoever has the key (`encdl.readers.predictor`), so
that W of the layer is what training takes W of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from encdl.files.container.chunk_grid import Grid
from encdl.files.container.header import TAG_BYTES
from encdl.files.container.sections import MAX_SECTION_BYTES
from encdl.files.formats.base import Document, array_of
from encdl.files.levels import ModalityLevels, tell_of_window
from encdl.files.reading import layer_bytes, scaled
from encdl.files.resize import FitImage
from encdl.files.scans import (
    UNKNOWN_GRID,
    Geometry,
    Volume,
    image_of,
    load_scan,
    load_volume,
    slices_of,
    sort_into_scans,
)
from encdl.files.scans.geometry import counted, resized, resized_shape, sampled
from encdl.utils.errors import UsageError
from encdl.utils.frames import framed, middle

LEVEL_BITS: Final = 8
_FILE: Final = Path("the file")


@dataclass(frozen=True)
class Fitted:
    """How to make a reading layer in words of 32 bits for one reader.

    Of images each slice of a file is resized to fit into the reader's images, and the reader pads it. A volume is
    turned, resampled and padded with black around the middle, and is one layer.

    Attributes:
        size: Height and width of the images that the reader takes, or depth, height and width of its volumes.
        levels: Rules by modality.
        geometry: How volumes shall lie.
        window: Whether the levels are a window that was asked for.

    Raises:
        UsageError: The layer is larger than a file holds.
    """

    size: tuple[int, ...]
    levels: ModalityLevels
    geometry: Geometry
    window: bool = False

    bits: ClassVar[int] = 32

    @property
    def placed(self) -> dict[str, Any]:
        """What the header of a file says of the layer of a volume."""
        return placed(self.size, self.geometry) if len(self.size) == 3 else {}

    def context(self) -> dict[str, Any]:
        """All settings as plain values."""
        return {"size": list(self.size), "levels": self.levels.to_dict(), "geometry": self.geometry.to_dict()}

    def shape(self, grid: Grid) -> tuple[int, ...]:
        """(S, C, H, W) of the layer of an array, or (1, C, D, H, W)."""
        whole = len(self.size) == 3
        sides = self.size if whole else scaled(grid, self.size)
        shape = (1 if whole else grid.slices, grid.channels, *sides)
        if layer_bytes(shape) > MAX_SECTION_BYTES - TAG_BYTES:
            raise UsageError(f"a reading layer of {'x'.join(map(str, shape))} is more than a file holds: it has 64 MiB")
        return shape

    def made(self, document: Document, grid: Grid) -> tuple[npt.NDArray[np.uint32], int]:
        """The layer's levels, of `shape`, and the bits of each.

        Raises:
            UsageError: The reader takes volumes, and the file is none that it can take.
            ImageFileError: The file is damaged.
        """
        self.shape(grid)
        if document.dtype.kind == "c":
            raise UsageError("complex values have no reading layer: leave --readable out")
        levels = self._volume(document) if len(self.size) == 3 else self._images(document, grid)
        return levels.astype(np.uint32), LEVEL_BITS

    def _images(self, document: Document, grid: Grid) -> npt.NDArray[np.uint8]:
        stored, clean, sides = image_of(_FILE, document)
        if self.geometry.fit and sides[0] != sides[1]:
            raise UsageError(
                "its pixels are not square, and hosts without a key do not know: give --readable a number, which takes "
                "them as they are"
            )
        rule = self.levels.choose(stored)
        values = clean(array_of(document)).reshape(grid.slices, grid.height, grid.width, grid.channels)
        if grid.channels == 1:
            known = (stored,) * grid.slices, (_FILE,) * grid.slices
            planes = Volume(values[..., 0], UNKNOWN_GRID, *known).to_bytes(rule)[:, None]
        else:
            planes = np.moveaxis(rule.to_bytes(values, stored), -1, 1)
        self._tell(stored)
        sides_of_layer = scaled(grid, self.size)
        fit = FitImage(max(sides_of_layer))
        inner = middle(sides_of_layer, (fit.size, fit.size))
        return np.stack([fit(image)[inner] for image in planes])

    def _volume(self, document: Document) -> npt.NDArray[np.uint8]:
        volume = volume_of(document)
        stored = volume.stored[volume.present[0]]
        self._tell(stored)
        levels, affine = self.geometry.turned(volume.to_bytes(self.levels.choose(stored)), volume.affine)
        scales = self.geometry.scales(affine, levels.shape)
        small = counted(resized(levels, scales), scales, self.size)
        if any(side > most for side, most in zip(small.shape, self.size, strict=True)):
            raise UsageError(
                f"has {_by(small.shape)} voxels (slices x rows x columns) as the reader wants them, and it takes up to "
                f"{_by(self.size)}: cut the volume to what the reader is for, or train one of a larger size"
            )
        return framed(small, self.size)[None, None]

    def _tell(self, stored: Any) -> None:
        tell_of_window(dict(self.levels.of)[""].window if self.window else None, stored)


def placed(size: tuple[int, ...], geometry: Geometry) -> dict[str, Any]:
    """The field `reading` of the header of a file with the layer of a volume."""
    return {"orientation": geometry.orientation or "", "size": list(size), "spacing": list(geometry.spacing or ())}


def volume_of(document: Document) -> Volume:
    """The volume that one file is.

    Raises:
        UsageError: A DICOM file of one slice, or of frames that are no volume.
        ImageFileError: The file is damaged, or has colour or more than three axes.
    """
    if not document.format.startswith("dicom"):
        return load_volume(_FILE, document)
    scans = sort_into_scans(slices_of(_FILE, document))
    if len(scans) != 1 or len(scans[0].slices) == 1:
        raise UsageError(
            "is no volume by itself, and of a series no file can hold the layer of one: put the slices into one file, "
            "NIfTI or multi-frame DICOM, and encrypt that"
        )
    return load_scan(scans[0], lambda _: contextlib.nullcontext(document))


def put_back(mask: npt.NDArray[Any], volume: Volume, said: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """A mask on the grid of a layer of a volume, on the grid of the volume: uint8 of its shape, the nearest voxel.

    Args:
        mask: (D, H, W) as the header says; or, of readers slice by slice, of the volume's own voxels.
        volume: The file's.
        said: The field `reading` of its header.

    Raises:
        UsageError: The mask is of another form, has values that no mask has, or the file has no such layer.
    """
    own = list(mask.shape) != said.get("size") and mask.shape == volume.array.shape
    if list(mask.shape) != said.get("size") and not own:
        layer = _by(said["size"]) if said else "none of a volume"
        raise UsageError(f"is {_by(mask.shape)}, and the file's reading layer is {layer}: give the mask of this file")
    if not np.array_equal(mask, mask.astype(np.uint8)):
        raise UsageError("is no mask: its values are other than the whole numbers 0 to 255")
    if own:
        return mask.astype(np.uint8)
    geometry = Geometry(said["orientation"] or None, tuple(said["spacing"]) or None)
    found = np.zeros(volume.array.shape, np.uint8)
    target, affine = geometry.turned(found, volume.affine)
    scales = geometry.scales(affine, target.shape)
    inner = resized_shape(target.shape, scales)
    target[:] = sampled(
        mask.astype(np.uint8)[middle(inner, mask.shape)], [1 / scale for scale in scales], target.shape, nearest=True
    )
    return found


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
