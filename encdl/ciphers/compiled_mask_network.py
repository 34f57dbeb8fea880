"""The mask network of the `agile` cipher by compiled code: the same bytes as from the float layers, many times as fast.

`mask_network.c` is for x86 processors with AVX2, and takes AVX-512 (with VBMI and VNNI) where the processor has it.
Where it was not built (`encdl.utils.compiled`) or the processor is another, `available` is false and the float layers
work instead.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encdl.ciphers.mask_network import FixedConv2d, HalfNetwork, MaskNetwork
from encdl.utils import compiled

REVISION = 2
"""Of the C functions' form."""
ZERO = 64
"""The byte that stands for an activation of 0."""
NOWHERE = 48
"""The index of tables of 64 that stands for what lies outside the image."""
MAX_ROOM = 2**26
"""Bytes of memory that a thread keeps: enough for 4096x4096 pixels."""

AVX2, AVX512 = 1, 2
"""Vectors that `mask_network.c` may use."""
_WIDEST = AVX512  # tests take narrower ones
_WIDE_FROM = 65  # columns: narrower images fill no vector of 64 places, and AVX2 is sooner done with them


def available() -> bool:
    """Whether the compiled code is here and runs on this processor."""
    return _library() is not None


def masks(key_bytes: Tensor) -> Tensor:
    """The masks of images, in as many threads as PyTorch takes, an image at a time.

    Args:
        key_bytes: uint8 (N, 1, H, W) on the CPU.

    Returns:
        uint8 (N, 1, H, W).
    """
    library = _library()
    assert library is not None
    count, _, height, width = key_bytes.shape
    key_bytes = key_bytes.contiguous()
    found = torch.empty_like(key_bytes)
    threads = min(torch.get_num_threads(), count)
    vectors = _WIDEST if width >= _WIDE_FROM else AVX2
    library.encdl_mask_room.restype = ctypes.c_int64
    sizes = (ctypes.c_int64(height), ctypes.c_int64(width))
    room = _rooms.take(threads * library.encdl_mask_room(*sizes))
    library.encdl_masks(
        ctypes.byref(_networks()),
        *(ctypes.c_void_p(each.data_ptr()) for each in (key_bytes, found)),
        *(ctypes.c_int64(count), *sizes, ctypes.c_void_p(room.ctypes.data)),
        *(_openmp(), threads, vectors),
    )
    return found


class _Half(ctypes.Structure):
    """The `half` of mask_network.c."""

    _fields_: ClassVar[Any] = [
        ("tables", ctypes.c_int8 * (4 * 9 * 4 * 16)),
        ("first_bias", ctypes.c_int16 * 4),
        ("second", ctypes.c_int8 * (4 * 9 * 4)),
        ("second_bias", ctypes.c_int16 * 4),
        ("out", ctypes.c_int8 * (2 * 9 * 4)),
        ("out_bias", ctypes.c_int16 * 2),
        ("wide_tables", ctypes.c_int8 * (4 * 9 * 3 * 64)),
    ]


@functools.cache
def _networks() -> Any:
    """F and G as the compiled code reads them: their weights never change."""
    network = MaskNetwork()
    return (_Half * 2)(_half(network.f), _half(network.g))


def _half(network: HalfNetwork) -> _Half:
    first, second, out = network.branches(0), network.branches(1), [network.out]
    fields = (
        torch.stack([_tables(layer) for layer in first]),
        torch.cat([layer.bias for layer in first]),
        *(part(layers) for layers in (second, out) for part in (_by_tap, _biases)),
        torch.stack([_wide_tables(layer) for layer in first]),
    )
    return _Half(
        *(kind(*field.flatten().int().tolist()) for (_, kind), field in zip(_Half._fields_, fields, strict=True))
    )


def _tables(layer: FixedConv2d) -> Tensor:
    """What each value of four planes adds to a sum: (taps, nibbles, 16)."""
    signs = torch.tensor([[2 * (value >> bit & 1) - 1 for bit in range(4)] for value in range(16)])
    return torch.einsum("nbt,vb->tnv", layer.weight.view(4, 4, 9), signs.float())


def _wide_tables(layer: FixedConv2d) -> Tensor:
    """What each index of a place adds to a sum: (taps, 3, 64), the second one's with 128 added, as int8 wraps.

    Six low bits of the first byte; two high bits of both, and for each whether it lies outside; six low bits of the
    second byte. A byte outside, whose low bits are NOWHERE, adds 0 to the second index and takes off nothing in the
    others: what NOWHERE would add inside is in the second index of all bytes that are there.
    """
    signs = torch.tensor([[2 * (value >> bit & 1) - 1 for bit in range(8)] for value in range(256)]).float()
    low, high = signs[:64, :6], signs[::64, 6:]
    weights = layer.weight.view(2, 8, 9)
    one, two = torch.einsum("nbt,vb->ntv", weights[:, :6], low)
    tops = torch.einsum("nbt,vb->ntv", weights[:, 6:], high)  # of each byte's two high bits
    one_top, two_top = (top + low[:, NOWHERE, None] for top, low in zip(tops, (one, two), strict=True))
    inside = one_top[:, None, :] + two_top[:, :, None]
    zeros = torch.zeros_like(inside)
    both = torch.stack([inside, two_top[:, :, None] + zeros, one_top[:, None, :] + zeros, zeros], dim=1) + 128
    both = (both + 128) % 256 - 128
    return torch.stack([one - one[:, NOWHERE, None], both.flatten(1), two - two[:, NOWHERE, None]], dim=1)


def _by_tap(layers: Sequence[FixedConv2d]) -> Tensor:
    """Weights (outputs of all layers, taps, in)."""
    return torch.cat([layer.weight.flatten(2).transpose(1, 2) for layer in layers])


def _biases(layers: Sequence[FixedConv2d]) -> Tensor:
    """Less what ZERO adds to a sum."""
    return torch.cat([layer.bias - ZERO * layer.weight.sum(dim=(1, 2, 3)) for layer in layers])


class _Rooms(threading.local):
    """Memory that a thread keeps: a system clears new memory page by page, which takes as long as a network does."""

    def __init__(self) -> None:
        self.room = np.empty(0, np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        if size > MAX_ROOM:
            return np.empty(size, np.uint8)
        if self.room.size < size:
            self.room = np.empty(size, np.uint8)
        return self.room


_rooms = _Rooms()


@functools.cache
def _openmp() -> ctypes.c_void_p:
    """GOMP_parallel, the entry to a parallel region in GCC's and Intel's runtimes, of the one that PyTorch has loaded.

    With threads of our own besides, the two pools would be in each other's way.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except (OSError, TypeError, AttributeError):  # another system's runtime: one thread does it all
        return ctypes.c_void_p(None)


def _library() -> ctypes.CDLL | None:
    return compiled.library("encdl_mask_revision", REVISION)
