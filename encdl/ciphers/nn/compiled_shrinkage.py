"""The estimates of `encdl.ciphers.nn.shrinkage` by compiled code: some thirty times as fast on a CPU."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from encdl.utils import compiled

REVISION = 1
"""Of the C functions' form."""
ALONE = 2**15
"""Pixels up to which a thread of its own would not pay."""


def available() -> bool:
    """Whether the compiled code is here."""
    return _library() is not None


def denoised(images: Tensor, sigmas: Sequence[float], threshold: float) -> Tensor:
    """As `encdl.ciphers.nn.shrinkage.Shrinkage`, in as many threads as PyTorch takes, an image at a time.

    Args:
        images: (N, 1, H, W) float32 on the CPU.
        sigmas: Standard deviations of noise.
        threshold: What is noise, in these deviations.

    Returns:
        (N, `len(sigmas)`, H, W) float32.
    """
    library = _library()
    assert library is not None
    images = images.contiguous()
    count, _, height, width = images.shape
    found = torch.empty(count, len(sigmas), height, width, dtype=torch.float32)
    sizes, strengths = (ctypes.c_int64(height), ctypes.c_int64(width)), (ctypes.c_float * len(sigmas))(*sigmas)

    def some(first: int, many: int) -> None:
        room = torch.empty(library.encdl_shrinkage_room(*sizes), dtype=torch.float32)
        library.encdl_shrink(
            *(ctypes.c_void_p(each[first:].data_ptr()) for each in (images, found)),
            *(ctypes.c_int64(many), *sizes),
            *(strengths, ctypes.c_int64(len(sigmas)), ctypes.c_float(threshold), ctypes.c_void_p(room.data_ptr())),
        )

    threads = min(torch.get_num_threads(), count)
    if threads == 1 or images.numel() <= ALONE:
        some(0, count)
        return found
    with ThreadPoolExecutor(threads) as pool:  # C lets other threads run meanwhile
        list(pool.map(lambda index: some(index, 1), range(count)))
    return found


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = compiled.library("encdl_shrinkage_revision", REVISION)
    if library is not None:
        library.encdl_shrinkage_room.restype = ctypes.c_int64
        library.encdl_shrink.restype = None
    return library
