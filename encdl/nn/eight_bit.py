"""Integer convolutions on bytes: the sums of `encdl.nn.integer`, by the processor's 8-bit instructions.

What goes into an integer layer fits in seven bits and its weights in four, so at inference oneDNN's convolution of
bytes gives the very sums, in 32-bit integers, two to three times as fast as float32 does. It is a CPU's road alone,
and no gradient takes it; where a machine has none, `available` is false and the float layers work instead.

A byte b stands for the integer b - zero. PyTorch reaches oneDNN's 8-bit convolution through the operators that its
compiler emits for quantised models on x86 (`torch.ops.onednn`); they are not documented, hence the trial.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor
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
    """The weights of a "same" 3x3 convolution in oneDNN's order, for bytes whose `zero` stands for 0.

    Args:
        weight: (out, in, 3, 3), integers in -7..7.
        bias: (out,), integers.
        dilation: Of the convolution.
        zero: The byte that stands for 0.
        shift: Bits that `shifted` takes off.
        made_of: What tells whether a layer still has these weights.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, dilation: int, zero: int, shift: int, made_of: object = None
    ) -> None:
        self.made_of = made_of
        pads, ones, zeros = (
            [dilation, dilation],
            torch.ones(len(weight)),
            torch.zeros(len(weight), dtype=torch.long),
        )
        packed = torch.ops.onednn.qconv_prepack(
            weight.to(torch.int8), ones, 1.0, zero, [1, 1], pads, pads, 1, None
        )
        self._operator = torch.ops.onednn.qconv2d_pointwise.default
        self._before = (1.0, zero, packed, ones, zeros)
        geometry = ([1, 1], pads, pads, 1)  # stride, padding, dilation, groups
        nothing: tuple[str, list[float], str] = ("none", [], "")  # what follows the convolution
        self._sums = (bias.float(), *geometry, 1.0, 0, torch.float32, *nothing)
        # oneDNN rounds to the nearest: with less than half a step taken off, that is the floor, and never a tie.
        lowered = bias.float() - ((1 << shift) - 1) / 2
        self._shifted = (lowered, *geometry, float(1 << shift), ZERO, torch.uint8, *nothing)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copy or a file of the layer has None in its place, and packs for itself."""
        return type(None), ()

    def sums(self, x: Tensor) -> Tensor:
        """See `convolve`."""
        result: Tensor = self._operator(x, *self._before, *self._sums)
        return result

    def shifted(self, x: Tensor) -> Tensor:
        """See `convolve_shifted`."""
        result: Tensor = self._operator(x, *self._before, *self._shifted)
        return result


def _packed(layer: IntegerConv2d, zero: int, shift: int) -> Packed:
    weight, bias = layer.weight, layer.bias
    made_of = None
    if not (weight.is_inference() or bias.is_inference()):  # nothing counts the changes of such
        made_of = (zero, shift, weight.data_ptr(), weight._version, bias.data_ptr(), bias._version)
        if layer.packed is not None and layer.packed.made_of == made_of:
            return layer.packed
    with torch.no_grad():
        integers = layer.integer_weight(), layer.integer_bias()
        layer.packed = Packed(*integers, layer.dilation, zero, shift, made_of)
    return layer.packed


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
