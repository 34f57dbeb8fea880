"""The steps of the `agile` cipher's networks on bytes, by compiled code: the same integers modulo 256, in less time.

`encdl.ciphers.agile_packed` makes networks of them. `agile_bytes.c` is for x86 processors with AVX2. Where it was not
built (`encdl.compiled`) or the processor is another, `available` is false and the float layers work instead. Gradients
need these, too.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encdl import compiled

REVISION = 1
"""Of the C functions' form."""
ZERO, TOP = 64, 127
"""The bytes of 0 and of the largest activation."""
STEP, MARGIN = 32, 16
MAX_BRANCHES = 4
FEATURE_PAIRS = 8
SIGNS, FEATURES, STAGE, FIRST_MASK, WHOLE_MASK = range(5)
"""What the C code can do."""
MAX_ROOM = 2**25
"""Bytes of a buffer that a thread keeps: enough for 2048x2048 pixels."""
WORTH_A_THREAD = 2**22
"""Products, about 0.1 ms of them, below which a second thread takes as long to wake as it saves."""


class Pairs(NamedTuple):
    """A picture's channels two by two: uint8 (h, pairs, stride, 2), as agile_bytes.c says; a byte b stands for b - 64.

    They lie in memory that the thread's next ones but one take over.
    """

    bytes: NDArray[np.uint8]
    width: int


class Stage(ctypes.Structure):
    """The `stage` of agile_bytes.c: parallel convolutions, and where their weights lie."""

    _fields_: ClassVar[Any] = [
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("dilations", ctypes.c_int32 * MAX_BRANCHES),
        *((name, ctypes.c_int32) for name in ("branches", "outputs", "pairs", "group", "shift", "last")),
    ]

    @property
    def channels(self) -> int:
        """Of the result."""
        return int(self.branches * self.outputs)


def available() -> bool:
    """Whether the compiled code is here and runs on this processor."""
    return _library() is not None


def signs(key_planes: Tensor) -> Pairs:
    """The planes uint8 (P, H, W) of phases 1, 2 and 3 as -1 and 1: 3P channels, phase after phase."""
    planes, *size = key_planes.shape
    height, width = (-(-side // 2) for side in size)
    pairs = _room((3 * planes + 1) // 2, height, width)
    _work(SIGNS, [key_planes.contiguous()], pairs.bytes, height, width, planes=key_planes.shape)
    return pairs


def features(masked: Tensor, mask: Tensor, level: int) -> Pairs:
    """`encdl.ciphers.agile_networks.signed_features` of two uint8 (h, w): 16 channels; a bit counts `level`."""
    height, width = masked.shape
    pairs = _room(FEATURE_PAIRS, height, width)
    _work(FEATURES, [masked.contiguous(), mask.contiguous()], pairs.bytes, height, width, level=level)
    return pairs


def convolve(stage: Stage, x: Pairs) -> Pairs:
    """The channels of a stage that is not the last, shifted and clamped to seven bits."""
    height, width = len(x.bytes), x.width
    pairs = _room((stage.channels + 1) // 2, height, width)
    _work(STAGE, [x.bytes], pairs.bytes, height, width, stage=stage)
    return pairs


def convolve_last(stage: Stage, x: Pairs) -> Tensor:
    """The low bytes of the last stage's shifted sums, uint8 (channels, h, w)."""
    y = torch.empty(stage.channels, len(x.bytes), x.width, dtype=torch.uint8, device="cpu")
    _work(STAGE, [x.bytes], y, *y.shape[1:], stage=stage)
    return y


def first_mask(key_planes: Tensor, field: Tensor) -> Tensor:
    """The mask of phase 0, uint8 (h, w): the bytes that the planes (P, H, W) spell there, and F (h, w) on top."""
    y = torch.empty_like(field, memory_format=torch.contiguous_format)
    arrays = [key_planes.contiguous(), field.contiguous()]
    _work(FIRST_MASK, arrays, y, *y.shape, planes=key_planes.shape)
    return y


def whole_mask(key_planes: Tensor, first: Tensor, others: Tensor) -> Tensor:
    """The mask uint8 (H, W): that of phase 0 (h, w), and of phases 1, 2 and 3 the bytes with E (3, h, w) on top."""
    y = torch.empty(key_planes.shape[1:], dtype=torch.uint8, device="cpu")
    arrays = [key_planes.contiguous(), first.contiguous(), others.contiguous()]
    _work(WHOLE_MASK, arrays, y, *y.shape, planes=key_planes.shape)
    return y


class _Work(ctypes.Structure):
    """The `work` of agile_bytes.c."""

    _fields_: ClassVar[Any] = [
        *((name, ctypes.c_int32) for name in ("kind", "next", "rows", "height", "width", "level")),
        *((name, ctypes.c_int32) for name in ("planes", "plane_height", "plane_width")),
        ("stage", ctypes.POINTER(Stage)),
        *((name, ctypes.c_void_p) for name in ("x", "second", "third", "y")),
    ]


def _work(
    kind: int,
    x: Sequence[Tensor | NDArray[np.uint8]],
    y: Tensor | NDArray[np.uint8],
    height: int,
    width: int,
    *,
    stage: Stage | None = None,
    level: int = 0,
    planes: Sequence[int] = (0, 0, 0),
) -> None:
    """Fill y from what x holds, all contiguous, in as many threads as PyTorch takes."""
    products = height * width * (16 if stage is None else 18 * stage.pairs * stage.channels)
    threads = max(1, min(torch.get_num_threads(), products // WORTH_A_THREAD))
    # A band of many rows, as neighbours share their input, but of so few that the threads end together.
    rows = height if threads == 1 else max(8, -(-height // (6 * threads)))
    work = _Work(
        *(kind, 0, rows, height, width, level),
        *planes,
        None if stage is None else ctypes.pointer(stage),
        *(_address(each) for each in (*x, *[None] * (3 - len(x)), y)),
    )
    _run(ctypes.byref(work), threads)


def _address(array: Tensor | NDArray[np.uint8] | None) -> int | None:
    if array is None:
        return None
    return array.data_ptr() if isinstance(array, Tensor) else array.ctypes.data


def _run(work: Any, threads: int) -> None:
    """Let threads share the work: those of PyTorch's own OpenMP runtime, as two pools would be in each other's way."""
    together = _openmp()
    if threads == 1 or together is None:
        _compiled().encdl_work(work)
    else:
        together(_compiled().encdl_work, work, threads, 0)


@functools.cache
def _openmp() -> Any:
    """GOMP_parallel(function, data, threads, flags), the entry to a parallel region in GCC's and Intel's runtimes."""
    try:
        return ctypes.CDLL(None).GOMP_parallel
    except (OSError, TypeError, AttributeError):  # another system's runtime: one thread does it all
        return None


class _Rooms(threading.local):
    """Two buffers a thread, by turns: a system clears new memory page by page, which takes as long as a stage does."""

    def __init__(self) -> None:
        self.turn, self.buffers = 0, [np.empty(0, np.uint8)] * 2

    def take(self, size: int) -> NDArray[np.uint8]:
        if size > MAX_ROOM:
            return np.empty(size, np.uint8)
        self.turn = 1 - self.turn
        if self.buffers[self.turn].size < size:
            self.buffers[self.turn] = np.empty(size, np.uint8)
        return self.buffers[self.turn][:size]


_rooms = _Rooms()


def _room(pairs: int, height: int, width: int) -> Pairs:
    shape = (height, pairs, -(-width // STEP) * STEP + 2 * MARGIN, 2)
    return Pairs(_rooms.take(math.prod(shape)).reshape(shape), width)


def _compiled() -> ctypes.CDLL:
    library = _library()
    assert library is not None
    return library


def _library() -> ctypes.CDLL | None:
    return compiled.library("encdl_agile_revision", REVISION)
