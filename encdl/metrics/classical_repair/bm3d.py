"""BM3D: denoising by collaborative filtering of similar blocks, of our own making.

K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian, "Image Denoising by Sparse 3-D Transform-Domain Collaborative Filtering",
IEEE TIP 16 (2007) 2080-2095, with both stages: a basic estimate by hard thresholding, and the final one by an empirical
Wiener filter that takes matching and spectrum from it. The parameters are the paper's; both stages use the DCT within
blocks (the paper's first stage a biorthogonal wavelet) and the Haar transform across them.

The authors' package `bm3d` may not be used commercially. Those of a free licence need a GPU, or remove streaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dct

Floats: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.intp]

REACH = 19
"""Pixels that a similar block may lie away, in both directions."""
KAISER_BETA = 2.0
HARD_THRESHOLD = 2.7
"""In deviations of the noise."""
DISTANCES_AT_ONCE = 2**24
"""Bounds the memory that matching takes: 64 MiB."""


@dataclass(frozen=True)
class Stage:
    """The settings of one of the two stages.

    Attributes:
        group: Blocks of a group at the most, a power of two.
        distance: Mean squared difference up to which blocks are similar.
    """

    group: int
    distance: float


HARD, WIENER = Stage(16, 2500.0), Stage(32, 400.0)


def bm3d(image: npt.ArrayLike, sigma: float, block: int = 8, step: int = 3) -> Floats:
    """Remove white Gaussian noise.

    Args:
        image: (H, W), levels in units of 255; they may lie outside 0..255.
        sigma: Deviation of the noise in levels, above 0.
        block: Height and width of a block in pixels.
        step: Pixels from one reference block to the next.

    Returns:
        float32 (H, W), not clipped.

    Raises:
        ValueError: The image is not (H, W), or a number is out of its range.
    """
    noisy = np.ascontiguousarray(image, dtype=np.float32)
    if noisy.ndim != 2 or noisy.size == 0:
        raise ValueError(f"BM3D takes an image (H, W), got {noisy.shape}")
    if not sigma > 0 or not 1 <= step <= block:
        raise ValueError(f"sigma must be above 0, step from 1 to {block}: got {sigma} and {step}")
    height, width = noisy.shape
    noisy = np.pad(noisy, [(0, max(0, block - size)) for size in noisy.shape], mode="edge")
    basic = _estimate(noisy, noisy, HARD, sigma, block, step)
    return _estimate(noisy, basic, WIENER, sigma, block, step)[:height, :width]


def _estimate(noisy: Floats, guide: Floats, stage: Stage, sigma: float, block: int, step: int) -> Floats:
    """One stage: blocks matched in `guide`, filtered in `noisy`, put together again."""
    width = noisy.shape[1]
    columns = width - block + 1
    within = (np.arange(block)[:, None] * width + np.arange(block)).ravel()
    kaiser = np.kaiser(block, KAISER_BETA).astype(np.float32)
    window = np.outer(kaiser, kaiser).ravel()
    transform = _block_transform(block)
    spectra = _blocks(noisy, block) @ transform.T
    guides = _blocks(guide, block) @ transform.T if stage is WIENER else spectra
    sums, weights = np.zeros(noisy.size), np.zeros(noisy.size)
    for members in _groups(guide, stage, block, step):
        across = _haar(members.shape[1])
        stacks = np.matmul(across, spectra[members])
        if stage is WIENER:
            power = np.matmul(across, guides[members]) ** 2
            gain = power / (power + np.float32(sigma**2))
        else:
            gain = (np.abs(stacks) > HARD_THRESHOLD * sigma).astype(np.float32)
        stacks *= gain
        # What noise is left in a group decides its weight; a group without a coefficient has none, and counts once.
        weight = 1.0 / np.maximum((gain**2).sum((1, 2)), 1e-3 if stage is WIENER else 1.0)
        estimates = np.matmul(across.T, stacks) @ transform
        share = np.broadcast_to(weight[:, None, None] * window, estimates.shape)
        places = ((members // columns * width + members % columns)[:, :, None] + within).ravel()
        sums += np.bincount(places, (estimates * share).ravel(), noisy.size)
        weights += np.bincount(places, share.ravel(), noisy.size)
    return (sums / weights).astype(np.float32).reshape(noisy.shape)


def _groups(guide: Floats, stage: Stage, block: int, step: int) -> Iterator[Indices]:
    """Groups of similar blocks by their number in C order: (groups, size), all of one size at a time."""
    rows, columns = (size - block + 1 for size in guide.shape)
    at_rows, at_columns = (np.unique([*range(0, size, step), size - 1]) for size in (rows, columns))
    down, right = (np.arange(-min(REACH, size - 1), min(REACH, size - 1) + 1) for size in (rows, columns))
    offsets = (down[:, None] * columns + right).ravel()
    at_once = max(1, DISTANCES_AT_ONCE // (len(offsets) * len(at_columns)))
    for start in range(0, len(at_rows), at_once):
        chosen = at_rows[start : start + at_once]
        distances = _distances(guide, block, chosen, at_columns, down, right)
        # A block is in its own group, even where as many as the group holds are equal to it: it covers its pixels.
        distances[:, offsets == 0] = -1.0
        most = min(stage.group, len(offsets))
        nearest = np.argpartition(distances, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(distances, nearest, 1)
        order = np.argsort(near, axis=1, kind="stable")
        nearest, near = np.take_along_axis(nearest, order, 1), np.take_along_axis(near, order, 1)
        found = np.maximum((near <= stage.distance * block**2).sum(1), 1)
        sizes = 1 << np.floor(np.log2(found)).astype(np.intp)
        members = (chosen[:, None] * columns + at_columns).reshape(-1, 1) + offsets[nearest]
        for size in np.unique(sizes):
            yield members[sizes == size, :size]


def _distances(
    guide: Floats, block: int, at_rows: Indices, at_columns: Indices, down: Indices, right: Indices
) -> Floats:
    """Squared differences of the reference blocks to those around them: (references, offsets), inf past the border."""
    rows, columns = (size - block + 1 for size in guide.shape)
    found = np.full((len(down), len(right), len(at_rows), len(at_columns)), np.inf, np.float32)
    for y, dy in enumerate(down):
        inside = slice(*np.searchsorted(at_rows, (max(0, -dy), min(rows, rows - dy))))
        if inside.start == inside.stop:
            continue
        top, bottom = at_rows[inside][0], at_rows[inside][-1] + block
        for x, dx in enumerate(right):
            left, end = max(0, -dx), min(columns, columns - dx)
            across = slice(*np.searchsorted(at_columns, (left, end)))
            here = guide[top:bottom, left : end + block - 1]
            there = guide[top + dy : bottom + dy, left + dx : end + dx + block - 1]
            difference = cv2.subtract(here, there)
            summed = cv2.sqrBoxFilter(
                difference, -1, (block, block), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT
            )
            found[y, x, inside, across] = summed[at_rows[inside, None] - top, at_columns[across] - left]
    return np.ascontiguousarray(found.reshape(len(down) * len(right), -1).T)


def _blocks(image: Floats, block: int) -> Floats:
    """Every block, row by row: (blocks, pixels of a block)."""
    return np.lib.stride_tricks.sliding_window_view(image, (block, block)).reshape(-1, block**2)


@lru_cache(maxsize=8)
def _block_transform(block: int) -> Floats:
    """The orthonormal two-dimensional DCT of a block, as a matrix over its pixels."""
    one: Floats = dct(np.eye(block), axis=0, norm="ortho").astype(np.float32)
    return np.kron(one, one)


@lru_cache(maxsize=8)
def _haar(size: int) -> Floats:
    """The orthonormal Haar transform of `size` values, a power of two, as a matrix (size, size)."""
    if size == 1:
        return np.ones((1, 1), np.float32)
    smooth, detail = np.kron(_haar(size // 2), [1.0, 1.0]), np.kron(np.eye(size // 2), [1.0, -1.0])
    matrix: Floats = (np.concatenate([smooth, detail]) / np.sqrt(2.0)).astype(np.float32)
    return matrix
