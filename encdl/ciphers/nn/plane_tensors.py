"""Key planes as tensors, on the device that needs them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encdl.ciphers import device as kernels
from encdl.keys.planes import MAX_PLANES, PlaneSpec, check_request, key_planes
from encdl.utils.errors import UsageError


def plane_tensor(
    subkeys: Sequence[bytes], spec: PlaneSpec, shape: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """`encdl.keys.planes.key_planes` of images of the shape (C, H, W): packed, uint8 (B, C, H, W).

    Those of volumes (C, D, H, W) fill (C, D * H, W), so that none repeats.

    Raises:
        UsageError: as `key_planes`.
    """
    channels, *rows, width = shape
    flat = channels, math.prod(rows), width
    if subkeys and spec.expansion == "full" and kernels.available(device):
        from encdl.ciphers.device import derivation  # noqa: PLC0415

        check_request(subkeys, spec, flat)
        return derivation.key_planes(subkeys, spec, flat, device).view(len(subkeys), *shape)
    planes = torch.from_numpy(key_planes(subkeys, spec, *flat))
    return planes.view(len(subkeys), *shape).to(device)


def unpack(key_planes: Tensor, planes: int) -> Tensor:
    """The planes of packed ones, each by itself.

    Args:
        key_planes: uint8 (..., H, W); bit p of a byte is plane p.
        planes: P, how many of them, 1 to 8.

    Returns:
        uint8 (..., P, H, W) of 0 and 1.

    Raises:
        UsageError: not 1 to 8 planes, or `key_planes` are no bytes.
    """
    if not 1 <= planes <= MAX_PLANES or key_planes.dtype != torch.uint8:
        raise UsageError(
            f"packed key planes are uint8 and hold 1 to {MAX_PLANES} planes, not {planes} in {key_planes.dtype}"
        )
    bits = torch.arange(planes, dtype=torch.uint8, device=key_planes.device)[:, None, None]
    return key_planes.unsqueeze(-3).bitwise_right_shift(bits).bitwise_and_(1)
