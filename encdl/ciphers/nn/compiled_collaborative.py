"""The groups of `encdl.ciphers.nn.collaborative` by compiled code: some twenty times as fast on a CPU."""

from __future__ import annotations

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from encdl.utils import compiled

REVISION = 1
"""Of the C function's form."""
SIDE = 6
"""Rows and columns of a block. These three are as the C code has them."""
STEP = 4
"""From one reference block to the next."""
REACH = 6
"""Rows and columns that a similar block may lie away."""
ROWS = 32
"""Of reference blocks that one thread takes at a time; sums do not depend on the number of threads."""


def available() -> bool:
    """Whether the compiled code is here."""
    return _library() is not None


def sums(noisy: Tensor, guide: Tensor, sigma: float, many: int, basis: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted estimates of all groups, added up, and their weights.

    Args:
        noisy: (H, W) float32 on the CPU; H and W of 6 and a multiple of 3.
        guide: As it.
        sigma: Standard deviation of the noise.
        many: Blocks of a group, a power of two up to 16.
        basis: (6, 6) float32, the cosine basis.
        window: (6, 6) float32, what a block's pixels weigh.

    Returns:
        Both (H, W) float32.
    """
    library = _library()
    assert library is not None
    given = [each.contiguous() for each in (noisy, guide, basis, window)]
    height, width = noisy.shape
    references = (height - SIDE) // STEP + 1

    def part(first: int) -> tuple[int, Tensor]:
        last = min(first + ROWS, references)
        top, bottom = max(0, first * STEP - REACH), min(height, (last - 1) * STEP + SIDE + REACH)
        found = torch.zeros(2, bottom - top, width, dtype=torch.float32)
        numbers = (height, width, first, last, top, many)
        images, tables = ([ctypes.c_void_p(each.data_ptr()) for each in pair] for pair in (given[:2], given[2:]))
        library.encdl_collaborate(
            *(*images, *map(ctypes.c_int64, numbers), ctypes.c_float(sigma**2), *tables),
            *(ctypes.c_void_p(each.data_ptr()) for each in found),
        )
        return top, found

    if references <= ROWS:
        total = part(0)[1]
    else:
        total = torch.zeros(2, height, width, dtype=torch.float32)
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:  # C lets other threads run meanwhile
            for top, found in pool.map(part, range(0, references, ROWS)):
                total[:, top : top + found.shape[1]] += found
    return total[0], total[1]


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = compiled.library("encdl_collaborative_revision", REVISION)
    if library is not None:
        library.encdl_collaborate.restype = None
    return library
