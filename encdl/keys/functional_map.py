"""The integer map W behind a functional key: a strided convolution that host and key server compute exactly.

    W c - W m = W x     modulo 2^bits

for image x, mask m and c = x + m, whatever W is. The weights are small so that no number packs several pixels: with
weights of 1, 2^8, 2^16 and 2^24 one word of 32 bits would give four of them away.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from encdl.utils.errors import UsageError

WEIGHT_LIMIT: Final = 7
WORDS: Final = (8, 16, 32)
"""Bits of a word: 8 is the ciphertext itself, 16 and 32 are a reading layer's."""
MAX_TAPS: Final = 1 << 18
"""Weights of one output, at most: products of 32-bit words then sum to less than 2^53, which float64 holds exactly."""

PIECE_WORDS: Final = 1 << 20
"""Of images that are taken at once: of a volume slices come in pieces, for windows of float64 take up memory."""


@dataclass(frozen=True, eq=False)
class FunctionalMap:
    """W: `outputs` numbers at each place of a grid, each a sum of weighted pixels of a square window.

    Windows that hang over the lower or right edge see zeros there. Of volumes windows are cubes, and there is one more
    axis everywhere, the slices: (D, H, W).

    Attributes:
        weights: int8 (outputs, C, kernel, kernel), or (outputs, C, kernel, kernel, kernel), -7 to 7.
        stride: Pixels from window to window.
        size: Height and width of the images; of volumes depth, height and width.
        bits: Of a word: 8, 16 or 32.
        region: The part of the image that W sees, first and end of each axis of `size`; all of it by ().

    Raises:
        UsageError: On construction, if a value is out of its range.
    """

    weights: npt.NDArray[np.int8]
    stride: int
    size: tuple[int, ...]
    bits: int = 32
    region: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        shape, axes = self.weights.shape, len(self.size)
        cube = axes in {2, 3} and len(shape) == axes + 2 and len(set(shape[2:])) == 1
        if self.weights.dtype != np.int8 or not cube or 0 in shape:
            raise UsageError(
                f"weights of a functional map are int8 (outputs, C, K, K) or (outputs, C, K, K, K), not {shape}"
            )
        if np.abs(self.weights.astype(int)).max() > WEIGHT_LIMIT:
            raise UsageError(
                f"weights of a functional map lie in -{WEIGHT_LIMIT}..{WEIGHT_LIMIT}: larger ones pack pixels"
            )
        if self.bits not in WORDS or min(self.size) < 1 or not 1 <= self.stride <= shape[3]:
            raise UsageError(
                f"no functional map has {self.bits}-bit words, stride {self.stride}, kernel {shape[3]} and images of "
                f"{'x'.join(map(str, self.size))}: words have 8, 16 or 32 bits, and windows leave no gaps"
            )
        check_region(self.region, self.size)
        if self.weights[0].size > MAX_TAPS:
            raise UsageError(f"a functional map has at most {MAX_TAPS} weights for a number: use a smaller kernel")

    @property
    def grid(self) -> tuple[int, ...]:
        """Windows along each side of what W sees."""
        return grid(sides(self.region, self.size), self.weights.shape[3], self.stride)

    @property
    def numbers(self) -> int:
        """How many numbers the map makes of an image."""
        return len(self.weights) * math.prod(self.grid)

    @property
    def given_bits(self) -> int:
        """Bits of an image that a functional key gives away at most: words times their size."""
        return self.numbers * self.bits

    @cached_property
    def id(self) -> str:
        """SHA-256 over everything that the map is: 64 hexadecimal characters."""
        shape = (*self.weights.shape, self.stride, *self.size, self.bits)
        title = b"encdl functional map v1\0" if len(self.size) == 2 else b"encdl functional map of volumes v1\0"
        if self.region:
            title = b"encdl functional map of a region v1\0"
            shape += tuple(end for ends in self.region for end in ends)
        head = title + b"".join(int(each).to_bytes(4, "little") for each in shape)
        return hashlib.sha256(head + np.ascontiguousarray(self.weights).tobytes()).hexdigest()

    def apply(self, words: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """W of images, masks or ciphertexts, modulo 2^bits.

        Args:
            words: whole numbers from 0 to 2^bits - 1, (B, C, *size), of any integer type.

        Returns:
            Unsigned, `bits` wide, (B, outputs, *grid).

        Raises:
            UsageError: images of another shape.
        """
        channels = self.weights.shape[1]
        if words.shape[1:] != (channels, *self.size):
            raise UsageError(
                f"this functional map takes images of {' x '.join(map(str, (channels, *self.size)))} "
                f"({' x '.join('CDHW' if len(self.size) == 3 else 'CHW')}), not {tuple(words.shape[1:])}"
            )
        step = max(1, PIECE_WORDS // max(1, words[:1].size))
        words = words[within(self.region)]
        parts = [self._applied(words[start : start + step]) for start in range(0, max(1, len(words)), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _applied(self, words: npt.NDArray[Any]) -> npt.NDArray[Any]:
        outputs, _, kernel, *_ = self.weights.shape
        axes = tuple(range(2, 2 + len(self.size)))
        beyond = [
            (0, max(0, (count - 1) * self.stride + kernel - side))
            for count, side in zip(self.grid, words.shape[2:], strict=True)
        ]
        padded = np.pad(words.astype(np.float64), [(0, 0), (0, 0), *beyond])
        windows = sliding_window_view(padded, (kernel,) * len(axes), axis=axes)
        steps: tuple[Any, ...] = tuple(slice(0, count * self.stride, self.stride) for count in self.grid)
        kept = windows[(slice(None), slice(None), *steps)]
        taps = np.moveaxis(kept, 1, 1 + len(axes)).reshape(len(words), math.prod(self.grid), -1)
        # Sums below 2^53 are exact in float64, in whatever order they are taken.
        sums = (taps @ self.weights.reshape(outputs, -1).T.astype(np.float64)).astype(np.int64)
        residues = (sums & ((1 << self.bits) - 1)).astype(f"u{self.bits // 8}")
        return residues.transpose(0, 2, 1).reshape(len(words), outputs, *self.grid)


def check_region(region: tuple[tuple[int, int], ...], size: tuple[int, ...]) -> None:
    """Raise `UsageError` unless a region lies within images of this size, or is ()."""
    fits = len(region) == len(size) and all(
        0 <= first < end <= side for (first, end), side in zip(region, size, strict=True)
    )
    if region and not fits:
        raise UsageError(
            f"region of a functional map is first and end of each axis within {'x'.join(map(str, size))}, such as "
            f"{[[0, side] for side in size]}, not {[list(ends) for ends in region]}"
        )


def within(region: tuple[tuple[int, int], ...]) -> Any:
    """The index of a region's part of arrays or tensors (..., *size)."""
    return (..., *(slice(*ends) for ends in region))


def sides(region: tuple[tuple[int, int], ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """Sides of what W sees of images of this size."""
    return tuple(end - first for first, end in region) or size


def grid(size: tuple[int, ...], kernel: int, stride: int) -> tuple[int, ...]:
    """Windows along each side that cover an image of this size."""
    return tuple(-(-max(side - kernel, 0) // stride) + 1 for side in size)


def centred(residues: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Residues as the whole numbers nearest to 0 that they stand for, -2^(bits-1) to 2^(bits-1) - 1."""
    signed: npt.NDArray[np.int64] = residues.view(f"i{residues.dtype.itemsize}").astype(np.int64)
    return signed
