"""The masks of the `agile` cipher by compiled code: the same bytes as from the float networks, several times as fast.

`agile_bytes.c` is for x86 processors with AVX2. Where it was not built (`encdl.compiled`) or the processor is another,
`available` is false and the float layers work instead. Gradients need these, too.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from encdl import compiled
from encdl.ciphers.agile_networks import KEY_LEVEL, ContentCoupling, KeyField
from encdl.nn.integer import IntegerConv2d

REVISION = 2
"""Of the C functions' form."""
ZERO, TOP = 64, 127
"""The bytes of 0 and of the largest activation."""
MAX_BRANCHES = 4
MAX_ROOM = 2**26
"""Bytes of memory that a thread keeps: enough for 2048x2048 pixels."""


def available() -> bool:
    """Whether the compiled code is here and runs on this processor."""
    return _library() is not None


def masks(
    field: KeyField, coupling: ContentCoupling, pictures: Tensor, key_planes: Tensor, clear: bool
) -> Tensor:
    """The masks of pictures, in as many threads as PyTorch takes.

    Args:
        field: F.
        coupling: E.
        pictures: uint8 (N, 1, H, W).
        key_planes: uint8 (N, P, H, W) in {0, 1}.
        clear: Whether the pictures are no ciphertexts yet.

    Returns:
        uint8 (N, 1, H, W).
    """
    library, packed = _library(), _packed(field, coupling)
    assert library is not None
    height, width = pictures.shape[2:]
    pictures, key_planes = pictures.contiguous(), key_planes.contiguous()
    found = torch.empty_like(pictures)
    networks = ctypes.byref(packed.networks)
    library.encdl_mask_room.restype = ctypes.c_int64
    room = _rooms.take(library.encdl_mask_room(networks, height, width))
    for picture, planes, mask in zip(pictures, key_planes, found, strict=True):
        library.encdl_mask(
            networks,
            *(ctypes.c_void_p(each.data_ptr()) for each in (planes, picture, mask)),
            *(height, width, clear, ctypes.c_void_p(room.ctypes.data)),
            *(_openmp(), torch.get_num_threads()),
        )
    return found


class _Stage(ctypes.Structure):
    """The `stage` of agile_bytes.c."""

    _fields_: ClassVar[Any] = [
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("dilations", ctypes.c_int32 * MAX_BRANCHES),
        *((name, ctypes.c_int32) for name in ("branches", "outputs", "pairs", "group", "shift", "last")),
    ]


class _Networks(ctypes.Structure):
    """The `networks` of agile_bytes.c."""

    _fields_: ClassVar[Any] = [
        ("field", _Stage * 3),
        ("coupling", _Stage * 3),
        ("planes", ctypes.c_int32),
        ("level", ctypes.c_int32),
    ]


class _Packed:
    """Both networks with the weights that they have now, in the order that the compiled code reads.

    Attributes:
        networks: What the compiled code takes.
    """

    def __init__(self, field: KeyField, coupling: ContentCoupling, weights: list[Tensor]) -> None:
        self._made_of = [weight.clone() for weight in weights]
        self._kept: list[Tensor] = []  # what the networks point into
        self.networks = _Networks(
            self._stages(field, 0),
            self._stages(coupling, coupling.OUTPUT_SHIFT),
            field.planes,
            int(KEY_LEVEL),
        )

    def is_of(self, weights: list[Tensor]) -> bool:
        """Whether these are still the weights.

        They are compared: what PyTorch counts as changes leaves out those by fused optimisers, through `.data` or
        NumPy, and by other processes that share them.
        """
        return all(map(_same, weights, self._made_of))

    def _stages(self, network: Any, shift: int) -> Any:
        first, second = network.first, network.second
        return (_Stage * 3)(
            self._stage(list(first.branches), first.shift, last=False),
            self._stage(list(second.branches), second.shift, last=False),
            self._stage([network.out], shift, last=True),
        )

    def _stage(self, layers: Sequence[IntegerConv2d], shift: int, last: bool) -> _Stage:
        weight = torch.stack([layer.integer_weight() for layer in layers]).int()
        weight = F.pad(weight, (0, 0, 0, 0, 0, weight.shape[2] % 2))
        bias = torch.stack([layer.integer_bias() for layer in layers]).int()
        branches, outputs, inputs = weight.shape[:3]
        paired = weight.view(branches, outputs, inputs // 2, 2, 9).permute(0, 2, 4, 1, 3)
        in_order = paired.to("cpu", torch.int8).contiguous()
        less = ZERO * weight.sum(dim=(2, 3, 4))  # as zeros are the byte 64
        shifted = (bias - less).to("cpu", torch.int32).contiguous()
        self._kept += [in_order, shifted]
        return _Stage(
            in_order.data_ptr(),
            shifted.data_ptr(),
            (ctypes.c_int32 * MAX_BRANCHES)(*(layer.dilation for layer in layers)),
            *(branches, outputs, inputs // 2, _group(paired), shift, last),
        )


def _group(paired: Tensor) -> int:
    """How many channel pairs of weights (branches, pairs, taps, outputs, 2) any bytes keep within 16 bits."""
    up_and_down = torch.stack([paired.clamp(min=0), -paired.clamp(max=0)])
    most = up_and_down.sum(dim=(3, 5))  # of a pair
    for group in range(paired.shape[1], 1, -1):
        if max(int(part.sum(dim=2).max()) for part in torch.split(most, group, dim=2)) * TOP < 2**15:
            return group
    return 1  # 18 weights of 7 are never too many


_known: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


@torch.no_grad()
def _packed(field: KeyField, coupling: ContentCoupling) -> _Packed:
    """The networks, packed once as long as their weights stay."""
    stages: list[Any] = [field.first, field.second, coupling.first, coupling.second]
    layers = [*(layer for stage in stages for layer in stage.branches), field.out, coupling.out]
    weights = [weight for layer in layers for weight in (layer.weight, layer.bias)]
    known = _known.get(field)
    if known is None or not known.is_of(weights):
        known = _known[field] = _Packed(field, coupling, weights)
    return known


def _same(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)


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
    return compiled.library("encdl_agile_revision", REVISION)
