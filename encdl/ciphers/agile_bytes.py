"""The networks of the `agile` cipher on bytes, by compiled code: the same integers modulo 256, several times as fast.

`agile_bytes.c` is for x86 processors with AVX2. Where it was not built (`encdl.compiled`) or the processor is another,
`available` is false and the float layers work instead. No gradient takes this road.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl import compiled
from encdl.nn.integer import IntegerConv2d, IntegerDilatedStage

REVISION = 1
"""Of the C functions' form."""
ZERO, TOP = 64, 127
"""The bytes of 0 and of the largest activation."""
STEP, MARGIN = 32, 16
MAX_BRANCHES, MAX_CHANNELS = 4, 1024
FEATURE_PAIRS = 8
SIGNS, FEATURES, STAGE = range(3)
"""What the C code can do."""
WORTH_A_THREAD = 2**22
"""Products, about 0.1 ms of them, below which a second thread takes as long to wake as it saves."""


class Pairs(NamedTuple):
    """Channels two by two: uint8 (N, h, pairs, stride, 2), as agile_bytes.c says; a byte b stands for b - 64."""

    bytes: Tensor
    width: int


def available() -> bool:
    """Whether the compiled code is here and runs on this processor."""
    return _library() is not None


def signs(key_planes: Tensor) -> Pairs:
    """The planes uint8 (N, P, H, W) of phases 1, 2 and 3 as -1 and 1: 3P channels, phase after phase."""
    batch, planes, *size = key_planes.shape
    height, width = (-(-side // 2) for side in size)
    pairs = _room(batch, (3 * planes + 1) // 2, height, width)
    _work(SIGNS, key_planes.contiguous(), pairs.bytes, height, width, planes=key_planes.shape[1:])
    return pairs


def features(masked: Tensor, mask: Tensor, level: int) -> Pairs:
    """`encdl.ciphers.agile_networks.signed_features` of two uint8 (N, 1, h, w), 16 channels; a bit counts `level`."""
    batch, _, height, width = masked.shape
    pairs = _room(batch, FEATURE_PAIRS, height, width)
    _work(FEATURES, masked.contiguous(), pairs.bytes, height, width, level=level, mask=mask.contiguous())
    return pairs


class Network:
    """Stages and a last convolution, with the weights that they have now.

    Args:
        stages: Of at most four branches and 1024 channels each.
        out: The last convolution.
        shift: Bits taken off its sums.
    """

    def __init__(self, stages: Sequence[IntegerDilatedStage], out: IntegerConv2d, shift: int) -> None:
        self._stages = [_Stage(list(stage.branches), stage.shift) for stage in stages]  # type: ignore[arg-type]
        self._out = _Stage([out], shift, last=True)

    def __call__(self, x: Pairs) -> Tensor:
        """The low bytes of the last convolution, uint8 (N, channels, h, w)."""
        batch, height = x.bytes.shape[:2]
        for stage in self._stages:
            y = _room(batch, (stage.channels + 1) // 2, height, x.width)
            _work(STAGE, x.bytes, y.bytes, height, x.width, stage=stage)
            x = y
        out = torch.empty(batch, self._out.channels, height, x.width, dtype=torch.uint8)
        _work(STAGE, x.bytes, out, height, x.width, stage=self._out)
        return out


def network(layers: nn.Module, shift: int) -> Network:
    """The network of a module's `first`, `second` and `out`, packed once as long as their weights stay."""
    weights = list(layers.parameters())
    if any(weight.is_inference() for weight in weights):  # nothing counts the changes of such
        return _pack(layers, shift)
    made_of = (shift, *((weight.data_ptr(), weight._version) for weight in weights))
    known = _packed.get(layers)
    if known is None or known[0] != made_of:
        known = _packed[layers] = (made_of, _pack(layers, shift))
    return known[1]


_packed: WeakKeyDictionary[nn.Module, tuple[object, Network]] = WeakKeyDictionary()


@torch.no_grad()
def _pack(layers: Any, shift: int) -> Network:
    return Network((layers.first, layers.second), layers.out, shift)


class _Stage:
    """Parallel convolutions of one input; `last` keeps the low byte of a sum, and not what fits in seven bits."""

    def __init__(self, layers: Sequence[IntegerConv2d], shift: int, last: bool = False) -> None:
        weight = torch.stack([layer.integer_weight() for layer in layers]).int()
        weight = F.pad(weight, (0, 0, 0, 0, 0, weight.shape[2] % 2))
        bias = torch.stack([layer.integer_bias() for layer in layers]).int()
        branches, outputs, inputs = weight.shape[:3]
        self.products = weight.numel()
        self.channels = branches * outputs
        paired = weight.view(branches, outputs, inputs // 2, 2, 9).permute(0, 2, 4, 1, 3)
        self._weights = paired.to(torch.int8).contiguous()
        self._bias = (bias - ZERO * weight.sum(dim=(2, 3, 4))).int().contiguous()
        self.form = _Form(
            self._weights.data_ptr(),
            self._bias.data_ptr(),
            (ctypes.c_int32 * MAX_BRANCHES)(*(layer.dilation for layer in layers)),
            *(branches, outputs, inputs // 2, _group(paired), shift, last),
        )


class _Form(ctypes.Structure):
    """The `stage` of agile_bytes.c."""

    _fields_: ClassVar[Any] = [
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("dilations", ctypes.c_int32 * MAX_BRANCHES),
        *((name, ctypes.c_int32) for name in ("branches", "outputs", "pairs", "group", "shift", "last")),
    ]


class _Work(ctypes.Structure):
    """The `work` of agile_bytes.c."""

    _fields_: ClassVar[Any] = [
        *((name, ctypes.c_int32) for name in ("kind", "next", "rows", "batch", "height", "width")),
        ("stage", ctypes.POINTER(_Form)),
        *((name, ctypes.c_int32) for name in ("level", "planes", "plane_height", "plane_width")),
        *((name, ctypes.c_void_p) for name in ("x", "mask", "y")),
        *((name, ctypes.c_int64) for name in ("x_step", "y_step")),
    ]


def _work(
    kind: int,
    x: Tensor,
    y: Tensor,
    height: int,
    width: int,
    *,
    stage: _Stage | None = None,
    level: int = 0,
    planes: Sequence[int] = (0, 0, 0),
    mask: Tensor | None = None,
) -> None:
    """Fill y (N, ...) from x (N, ...), both contiguous, in as many threads as PyTorch takes."""
    products = y.numel() if stage is None else len(x) * height * width * stage.products
    threads = max(1, min(torch.get_num_threads(), products // WORTH_A_THREAD))
    work = _Work(
        *(kind, 0, _rows(len(x), height, threads), len(x), height, width),
        None if stage is None else ctypes.pointer(stage.form),
        *(level, *planes),
        *(x.data_ptr(), None if mask is None else mask.data_ptr(), y.data_ptr()),
        *(x.stride(0), y.stride(0)),
    )
    _run(ctypes.byref(work), threads)


def _rows(batch: int, height: int, threads: int) -> int:
    """The rows of a band: many, as neighbours share their input, but so few that the threads end together."""
    return height if threads == 1 else max(8, -(-batch * height // (6 * threads)))


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


def _group(paired: Tensor) -> int:
    """How many channel pairs of weights (branches, pairs, taps, outputs, 2) any bytes keep within 16 bits."""
    up_and_down = torch.stack([paired.clamp(min=0), -paired.clamp(max=0)])
    most = up_and_down.sum(dim=(3, 5))  # of a pair
    for group in range(paired.shape[1], 1, -1):
        if max(int(part.sum(dim=2).max()) for part in torch.split(most, group, dim=2)) * TOP < 2**15:
            return group
    return 1  # 18 weights of 7 are never too many


def _room(batch: int, pairs: int, height: int, width: int) -> Pairs:
    stride = -(-width // STEP) * STEP + 2 * MARGIN
    return Pairs(torch.empty(batch, height, pairs, stride, 2, dtype=torch.uint8), width)


def _compiled() -> ctypes.CDLL:
    library = _library()
    assert library is not None
    return library


def _library() -> ctypes.CDLL | None:
    return compiled.library("encdl_agile_revision", REVISION)
