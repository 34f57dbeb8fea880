"""Fresh key planes for every image of every step, from a seed and nothing else.

A draw depends on (seed, rank, purpose, step) alone: no state to store, so a resumed run sees the keys that an
uninterrupted one would, and no two ranks see the same. These are training keys: they protect nothing.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.keys.planes import PlaneSpec


def fresh_planes(
    spec: PlaneSpec,
    shape: torch.Size,
    *,
    seed: int,
    rank: int,
    purpose: str,
    step: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Key planes of one fresh key an image.

    Args:
        spec: Map and expansion.
        shape: (B, C, H, W) of the images, or (B, C, D, H, W) of volumes.
        seed: The run's seed.
        rank: The process's rank.
        purpose: "train", "validate", …: purposes never share a key.
        step: Counts the draws of a purpose.
        device: Where the planes are wanted.

    Returns:
        uint8 of that shape, bit p of a byte is plane p.
    """
    origin = f"encdl training key/{seed}/{rank}/{purpose}/{step}".encode()
    secrets = hashlib.shake_256(origin).digest(32 * shape[0])
    subkeys = [secrets[i : i + 32] for i in range(0, len(secrets), 32)]
    return plane_tensor(subkeys, spec, shape[1:], device)


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator on a device, seeded by one on the CPU: what is drawn for each pixel is drawn where the pixels are."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))


def fresh_generator(*, seed: int, rank: int, purpose: str, step: int) -> torch.Generator:
    """A CPU generator for damage and the like, drawn the same way."""
    origin = f"encdl random draw/{seed}/{rank}/{purpose}/{step}".encode()
    number = int.from_bytes(hashlib.shake_256(origin).digest(7), "little")
    return torch.Generator().manual_seed(number)
