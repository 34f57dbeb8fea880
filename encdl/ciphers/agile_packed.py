"""The networks of the `agile` cipher with their weights in the order that the compiled code reads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.ciphers.agile_bytes import MAX_BRANCHES, TOP, ZERO, Pairs, Stage, convolve, convolve_last
from encdl.nn.integer import IntegerConv2d, IntegerDilatedStage


@torch.no_grad()
def network(layers: Any, shift: int) -> Network:
    """The network of a module's `first`, `second` and `out`, packed once as long as their weights stay.

    The weights are compared with those that were packed: what PyTorch counts as changes leaves out those by fused
    optimisers, through `.data` or NumPy, and by other processes that share them.
    """
    convolutions = (*layers.first.branches, *layers.second.branches, layers.out)
    weights = [weight for layer in convolutions for weight in (layer.weight, layer.bias)]
    known = _packed.get(layers)
    if known is None or known[0] != shift or not all(map(_same, weights, known[1])):
        known = _packed[layers] = (shift, [weight.clone() for weight in weights], _pack(layers, shift))
    return known[2]


def _same(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)


_packed: WeakKeyDictionary[nn.Module, tuple[int, list[Tensor], Network]] = WeakKeyDictionary()


def _pack(layers: Any, shift: int) -> Network:
    return Network((layers.first, layers.second), layers.out, shift)


class Network:
    """Stages and a last convolution, with the weights that they have now.

    Args:
        stages: Of at most four branches and 1024 channels each.
        out: The last convolution.
        shift: Bits taken off its sums.
    """

    def __init__(self, stages: Sequence[IntegerDilatedStage], out: IntegerConv2d, shift: int) -> None:
        self._stages = [_Packed(list(stage.branches), stage.shift) for stage in stages]  # type: ignore[arg-type]
        self._out = _Packed([out], shift, last=True)

    def __call__(self, x: Pairs) -> Tensor:
        """The low bytes of the last convolution, uint8 (channels, h, w)."""
        for packed in self._stages:
            x = convolve(packed.stage, x)
        return convolve_last(self._out.stage, x)


class _Packed:
    """Parallel convolutions of one input; `last` keeps the low byte of a sum, and not what fits in seven bits."""

    def __init__(self, layers: Sequence[IntegerConv2d], shift: int, last: bool = False) -> None:
        weight = torch.stack([layer.integer_weight() for layer in layers]).int()
        weight = F.pad(weight, (0, 0, 0, 0, 0, weight.shape[2] % 2))
        bias = torch.stack([layer.integer_bias() for layer in layers]).int()
        branches, outputs, inputs = weight.shape[:3]
        paired = weight.view(branches, outputs, inputs // 2, 2, 9).permute(0, 2, 4, 1, 3)
        self._weights = paired.to("cpu", torch.int8).contiguous()
        self._bias = (bias - ZERO * weight.sum(dim=(2, 3, 4))).to("cpu", torch.int32).contiguous()
        self.stage = Stage(
            self._weights.data_ptr(),
            self._bias.data_ptr(),
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
