"""Key planes as tensors, on the device that needs them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encdl.keys.maps import byte_sequence
from encdl.keys.planes import PlaneSpec, key_planes


def plane_tensor(
    subkeys: Sequence[bytes], spec: PlaneSpec, shape: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """`encdl.keys.planes.key_planes` of images of the shape (C, H, W): uint8 (B, C, P, H, W) of 0 and 1.

    Planes that do not repeat go to an accelerator packed, eight bits a byte, and are spread there: an eighth of the way
    through the slowest part.

    Raises:
        UsageError: as `key_planes`.
    """
    device = torch.device(device)
    if device.type == "cpu" or spec.expansion != "full" or min(shape) < 1:
        return torch.from_numpy(key_planes(subkeys, spec, *shape)).to(device)
    channels, height, width = shape
    size = (channels, spec.planes, height, width)
    packed = byte_sequence(spec.map, subkeys, -(-math.prod(size) // 8))
    return spread(torch.from_numpy(packed).to(device), size)


def spread(packed: Tensor, size: Sequence[int]) -> Tensor:
    """The bits of bytes uint8 (B, n), lowest first, as a tensor (B, *size) of 0 and 1; what is over is left out."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = packed.unsqueeze(-1).bitwise_right_shift(places).bitwise_and_(1).flatten(1)
    return bits[:, : math.prod(size)].reshape(len(packed), *size)
