"""A scan as one image: its stored integers, its grid in the patient, and what the integers mean."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from encdl.files.formats.base import Array, Document, array_of
from encdl.files.levels import Levels, Stored
from encdl.files.scans.headers import NIFTI, Vector, nifti, without_high_bits
from encdl.files.scans.series import OnGrid, Scan
from encdl.utils.errors import ImageFileError

Opened = Callable[[Path], AbstractContextManager[Document]]
"""Opens a file, encrypted or not; its slices can be read as long as the context lasts."""
UNKNOWN_GRID = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""Of images without geometry: pixels of 1 mm, columns to the left and rows to the back, as ITK lays out a PNG."""


@dataclass(frozen=True)
class Volume(OnGrid):
    """One image of several slices.

    Attributes:
        array: Stored integers or floats (slices, rows, columns); 0 in slices that are missing.
        affine: (4, 4), of (slice, row, column) to millimetres to the right, front and head (RAS, as NIfTI and MONAI).
        stored: What the values mean, slice by slice.
        files: The file of each slice; None for one that is missing.
        known: Whether the geometry comes from the files.
        problems: What is wrong with it, a line each.
    """

    array: Array = field(repr=False)
    affine: Vector
    stored: tuple[Stored, ...]
    files: tuple[Path | None, ...]
    known: bool = True
    problems: tuple[str, ...] = ()

    @property
    def present(self) -> list[int]:
        """The numbers of the slices that are there."""
        return [number for number, path in enumerate(self.files) if path is not None]

    def bounds(self, levels: Levels) -> tuple[float, float]:
        """`Levels.bounds` of all slices that are there; without a copy of the volume where it holds up to 16 bits."""
        first = self.stored[self.present[0]]
        if not levels.of_image:
            return levels.bounds(None, first)
        if self.array.dtype.kind not in "iu" or self.array.dtype.itemsize > 2:
            return levels.bounds(np.stack([self._real(levels, number) for number in self.present]), first)
        lowest = int(np.iinfo(self.array.dtype).min)
        counted: dict[Stored, Array] = {}
        for number in self.present:
            values = self.array[number].astype(np.int32).ravel() - lowest
            counts = np.bincount(values, minlength=2 ** (8 * self.array.dtype.itemsize))
            counted[self.stored[number]] = counted.get(self.stored[number], 0) + counts
        ranges = [(np.flatnonzero(counts), counts, stored) for stored, counts in counted.items()]
        real = [stored.real(found + lowest) if levels.rescale else found + lowest for found, _, stored in ranges]
        return levels.bounds(
            np.concatenate(real), first, np.concatenate([counts[found] for found, counts, _ in ranges])
        )

    def to_bytes(self, levels: Levels) -> npt.NDArray[np.uint8]:
        """All slices as a network takes them, 0 to 255; those that are missing are 0."""
        bounds, result = self.bounds(levels), np.zeros(self.array.shape, np.uint8)
        for number in self.present:
            result[number] = levels.to_bytes(self.array[number], self.stored[number], bounds)
        return result

    def _real(self, levels: Levels, number: int) -> Array:
        return self.stored[number].real(self.array[number]) if levels.rescale else self.array[number]


def load_scan(scan: Scan, opened: Opened, progress: Callable[[int], object] | None = None) -> Volume:
    """Read the slices of a DICOM scan, a file at a time.

    Args:
        scan: Which slices, and where they lie.
        opened: Opens a file.
        progress: Is told how many slices more are read.
    """
    kinds = {each.dtype for each in scan.slices}
    array = np.zeros(scan.shape, np.result_type(*kinds) if len(kinds) > 1 else next(iter(kinds)).newbyteorder("="))
    wanted: dict[Path, dict[int, tuple[int, int]]] = {}
    for each, place in zip(scan.slices, scan.places, strict=True):
        wanted.setdefault(each.path, {})[each.frame] = (place, each.bits)
    for path, frames in wanted.items():
        with opened(path) as document:
            for number, part in enumerate(document.slices()):
                if number in frames:
                    place, bits = frames[number]
                    array[place] = without_high_bits(part, bits).reshape(array.shape[1:])
                    if progress is not None:
                        progress(1)
    files: list[Path | None] = [None] * len(array)
    stored = [scan.slices[0].stored] * len(array)
    for each, place in zip(scan.slices, scan.places, strict=True):
        files[place], stored[place] = each.path, each.stored
    return Volume(array, scan.affine, tuple(stored), tuple(files), scan.known, scan.problems)


def is_volume(document: Document) -> bool:
    """Whether a document of a format other than DICOM is one image of several slices."""
    letters = document.layout
    return document.format in NIFTI or (len(letters) == 3 and not letters.endswith("C"))


def load_volume(path: Path, document: Document) -> Volume:
    """Read a volume of NIfTI, or of a format without geometry.

    Raises:
        ImageFileError: It has more axes than three, or colour.
    """
    sizes = dict(zip(document.layout, document.shape, strict=True))
    others = {letter: size for letter, size in sizes.items() if letter not in "SHW" and size > 1}
    if others:
        raise ImageFileError(
            f"{path}: has the axes {document.layout} of {'x'.join(map(str, document.shape))}: one volume has slices, "
            "rows and columns alone, split it first"
        )
    array = array_of(document).reshape([sizes.get(letter, 1) for letter in "SHW"])
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    affine, stored, known = UNKNOWN_GRID, Stored.of(document.dtype), document.format in NIFTI
    if known:
        affine, stored = nifti(document)
        affine = affine[:, [2, 1, 0, 3]]  # the header counts x first
    told = () if known else ("no geometry: voxels are taken to be 1 mm wide",)
    return Volume(array, affine, (stored,) * len(array), (path,) * len(array), known, told)
