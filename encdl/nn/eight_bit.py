"""Integer convolutions on bytes: the sums of `encdl.nn.integer`, by the processor's 8-bit instructions.

What goes into an integer layer fits in seven bits and its weights in four, so at inference oneDNN's convolution of
bytes gives the very sums, in 32-bit integers, two to three times as fast as float32 does. It is a CPU's road alone,
and no gradient takes it; where a machine has none, `available` is false and the float layers work instead.

A byte b stands for the integer b - zero. PyTorch reaches oneDNN's 8-bit convolution through the operators that its
compiler emits for quantised models on x86 (`torch.ops.onednn`); they are not documented, hence the trial.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from encdl.nn.integer import IntegerConv2d

ZERO = 64
"""The byte of the integer 0, where nothing else is said: -64..63 are the bytes 0..127."""


def available() -> bool:
    """Whether this machine has 8-bit convolutions, and they give the sums of the float ones: tried once."""
    return _tried(torch.backends.cpu.get_cpu_capability())


def convolve(layer: IntegerConv2d, x: Tensor, zero: int = ZERO) -> Tensor:
    """The sums of a layer for bytes uint8 (N, in, H, W): float32 (N, out, H, W), whole numbers."""
    return _packed(layer, zero, 0).sums(x)


def convolve_shifted(layer: IntegerConv2d, x: Tensor, zero: int, shift: int) -> Tensor:
    """The sums of a layer, shifted right by `shift` bits, as bytes: floor(sum / 2**shift) + 64, kept in 0..255."""
    return _packed(layer, zero, shift).shifted(x)


def low_byte(sums: Tensor, shift: int = 0) -> Tensor:
    """floor(sums / 2**shift) modulo 256, uint8, of whole numbers in float32."""
    return sums.to(torch.int32).bitwise_right_shift_(shift).to(torch.uint8)


class Packed:
    """The weights of a "same" 3x3 convolution in oneDNN's order, for bytes whose `zero` stands for 0."""

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int, zero: int, shift: int) -> None:
        self._zero, self._shift, self._pads = zero, shift, [dilation, dilation]
        self._scales, self._zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.long)
        self._bias = bias.float()
        # oneDNN rounds to the nearest: with less than half a step taken off, that is the floor, and never a tie.
        self._lowered = self._bias - ((1 << shift) - 1) / 2
        self._weight = torch.ops.onednn.qconv_prepack(
            weight.to(torch.int8), self._scales, 1.0, zero, [1, 1], self._pads, self._pads, 1, None
        )

    def sums(self, x: Tensor) -> Tensor:
        """See `convolve`."""
        return self._run(x, self._bias, 1.0, 0, torch.float32)

    def shifted(self, x: Tensor) -> Tensor:
        """See `convolve_shifted`."""
        return self._run(x, self._lowered, float(1 << self._shift), ZERO, torch.uint8)

    def _run(self, x: Tensor, bias: Tensor, scale: float, zero: int, dtype: torch.dtype) -> Tensor:
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            *(x, 1.0, self._zero),
            *(self._weight, self._scales, self._zeros, bias),
            *([1, 1], self._pads, self._pads, 1),  # stride, padding, dilation, groups
            *(scale, zero, dtype),
            *("none", [], ""),  # nothing follows the convolution
        )
        return result


_kept: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], Packed]] = weakref.WeakKeyDictionary()
"""Packed weights by layer, with what tells whether the layer still has these weights."""


@torch.no_grad()
def _packed(layer: IntegerConv2d, zero: int, shift: int) -> Packed:
    tensors = (layer.weight, layer.bias)
    if any(tensor.is_inference() for tensor in tensors):  # nothing counts the changes of such
        return Packed(layer.integer_weight(), layer.integer_bias(), layer.dilation, zero, shift)
    now = (zero, shift, *(value for tensor in tensors for value in (tensor.data_ptr(), tensor._version)))
    then, packed = _kept.get(layer, (None, None))
    if packed is None or now != then:
        packed = Packed(layer.integer_weight(), layer.integer_bias(), layer.dilation, zero, shift)
        _kept[layer] = (now, packed)
    return packed


@functools.cache
@torch.no_grad()
def _tried(capability: str) -> bool:
    """Try the largest sums and some random ones against float32."""
    if "AVX" not in capability:  # elsewhere the operator may exist, but as a slow reference
        return False
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 128, (2, 24, 19, 17), generator=draw, dtype=torch.uint8)
    x[1] = 127
    weight = torch.randint(-7, 8, (6, 24, 3, 3), generator=draw).float()
    weight[0], weight[1] = 7.0, -7.0
    bias = torch.randint(-127, 128, (6,), generator=draw).float()
    try:
        for dilation in (1, 8):
            wanted = F.conv2d(x.float() - ZERO, weight, bias, padding=dilation, dilation=dilation).round()
            packed = Packed(weight, bias, dilation, ZERO, 5)
            floors = (wanted / 32).floor().add(ZERO).clamp(0, 255)
            if not (torch.equal(packed.sums(x), wanted) and torch.equal(packed.shifted(x).float(), floors)):
                return False
    except (
        AttributeError,
        RuntimeError,
        TypeError,
    ):  # another PyTorch: no such operator, or another form of it
        return False
    return True
