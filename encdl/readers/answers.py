"""What a reader says: of a file, of each slice of a scan, of each voxel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encdl.files.scans import Volume


@dataclass(frozen=True)
class Answer:
    """The logits of one file.

    Attributes:
        logits: float32 on the CPU: (classes,) of a classifier, (classes, H, W) of a segmenter.
        ciphertext: The body of the file as it lies on the disk, uint8 (C, H, W).
    """

    logits: Tensor
    ciphertext: npt.NDArray[np.uint8]

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """The softmax of the logits over the classes, of the same shape."""
        values: npt.NDArray[np.float32] = self.logits.softmax(0).numpy()
        return values

    @property
    def best(self) -> npt.NDArray[np.uint8]:
        """Index of the likeliest class: uint8 () of a classifier, (H, W) of a segmenter."""
        indices: npt.NDArray[np.uint8] = self.logits.argmax(0).to(torch.uint8).numpy()
        return indices


@dataclass(frozen=True)
class Segmentation:
    """The mask of a scan.

    Attributes:
        mask: Class index of each voxel, uint8 (slices, rows, columns); 0 in slices that are missing.
        levels: The scan as the reader takes it, uint8 of the same shape.
        volume: The scan.
    """

    mask: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.uint8]
    volume: Volume


@dataclass(frozen=True)
class Classification:
    """What a classifier says of a scan.

    Attributes:
        logits: float32 (slices, classes), of the slices that are there.
        files: The file of each of them.
        numbers: Which slice of the scan each is, from 0; -1 where the reader turned the scan.
    """

    logits: Tensor
    files: tuple[Path, ...]
    numbers: tuple[int, ...]

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """The mean over the slices of the softmax over the classes: (classes,)."""
        values: npt.NDArray[np.float32] = self.logits.softmax(1).mean(0).numpy()
        return values

    @property
    def best(self) -> npt.NDArray[np.uint8]:
        """Index of the likeliest class by that mean: uint8 ()."""
        return np.asarray(self.probabilities.argmax(), np.uint8)
