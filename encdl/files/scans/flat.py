"""Scans as flat images, one a slice, with the slices beside it as channels if a reader wants them (2.5-D)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files.levels import ModalityLevels
from encdl.files.scans.geometry import Geometry
from encdl.files.scans.headers import Vector
from encdl.files.scans.volume import Volume


@dataclass(frozen=True)
class FlatScan:
    """The slices of a scan that are there, turned as a geometry wants.

    Attributes:
        levels: uint8 (slices, rows, columns).
        numbers: Which slice of the scan each is; -1 where turning made the slices lie across those of the scan.
        affine: (4, 4), of the turned scan.
        places: Which slice of the turned scan each is.
        beside: How many slices before, and behind, are further channels of each.
    """

    levels: npt.NDArray[np.uint8]
    numbers: tuple[int, ...]
    affine: Vector
    places: tuple[int, ...] = (0,)
    beside: int = 0

    @property
    def spacing(self) -> tuple[float, float]:
        """Millimetres between rows, and between columns."""
        _, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return rows, columns

    def __len__(self) -> int:
        return len(self.levels)

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """uint8 (1 + 2 `beside`, rows, columns); beyond the ends the last slice is repeated."""
        around = np.arange(index - self.beside, index + self.beside + 1).clip(0, len(self.levels) - 1)
        image: npt.NDArray[np.uint8] = self.levels[around]
        return image

    def file(self, index: int, volume: Volume) -> Path:
        """The file that a slice is of; of slices across those of the scan the first one."""
        path = volume.files[max(0, self.numbers[index])]
        return volume.files[volume.present[0]] if path is None else path  # type: ignore[return-value]


def flat_scan(volume: Volume, levels: ModalityLevels, geometry: Geometry, *, gaps: bool = False) -> FlatScan:
    """The slices of a scan, with the levels of its modality; missing ones are left out, or with `gaps` black."""
    rule = levels.choose(volume.stored[volume.present[0]])
    turned, affine = geometry.turned(volume.to_bytes(rule), volume.affine)
    order = np.broadcast_to(np.arange(len(volume.array))[:, None, None], volume.array.shape)
    places: npt.NDArray[Any] = geometry.turned(order, volume.affine)[0]
    along = bool((places == places[:, :1, :1]).all())
    numbers = [int(place[0, 0]) if along else -1 for place in places]
    kept = [at for at, number in enumerate(numbers) if gaps or number < 0 or volume.files[number] is not None]
    return FlatScan(turned[kept], tuple(numbers[at] for at in kept), affine, tuple(kept), geometry.beside)
