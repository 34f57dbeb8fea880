"""The interleaver: a public order of an image's bytes in which a contiguous loss takes no two neighbours.

The bytes (c, y, x) are sorted by their phase (y + 2 x) mod 4, then by row, channel and column. The file begins at a
byte of this order that the nonce draws, and goes around:

    order = the C*H*W bytes sorted by ((y + 2 x) mod 4, y, c, x)
    start = first 8 bytes, little-endian, of SHA-256("encdl interleave" || nonce), mod C*H*W
    file[i] = image[order[(start + i) mod C*H*W]]

Why these phases: horizontal neighbours are two phases apart, vertical and diagonal ones one. So a run of up to a
quarter of the file, wherever it begins, takes no pixel together with one of its four neighbours, and none with a
diagonal one but in the rows where the run begins and ends. (Of C channels with odd sides: a quarter less C/2 bytes.)
What is lost lies in a quincunx, near to the hexagons that sample a plane best.
tests/ciphers/postprocess/test_interleave.py counts it beside other orders.

There is no secret in it: it hides nothing, and whoever has the file can undo it without a key.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from encdl.ciphers import device
from encdl.ciphers.compiled_ciphers import INTERLEAVE_REVISION, interleave_start, interleaved
from encdl.ciphers.postprocess.base import PostProcess
from encdl.keys.derivation import ImageKeys
from encdl.utils import compiled

PHASES = 4


class Interleave(PostProcess):
    """`interleave` by the nonces among the keys; of them it takes nothing else."""

    name = "interleave"
    keyed = False

    def _apply(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return interleave(ciphertext, [key.nonce for key in keys])

    def _undo(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return deinterleave(ciphertext, [key.nonce for key in keys])

    def _undo_lost(self, lost: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return deinterleave(lost, [key.nonce for key in keys])


def interleave(images: Tensor, nonces: Sequence[bytes]) -> Tensor:
    """Bring the bytes of images into the order of the file.

    Args:
        images: uint8 or bool (B, C, H, W), any sizes; not changed.
        nonces: the public nonce of each of the B images, 16 bytes.

    Returns:
        the same form and type, contiguous, on the same device.

    Raises:
        TypeError: the images are neither uint8 nor bool.
        ValueError: they are not (B, C, H, W), or there are not B nonces.
        UsageError: a nonce is not 16 bytes.
    """
    return _moved(images, nonces, undo=False)


def deinterleave(images: Tensor, nonces: Sequence[bytes]) -> Tensor:
    """Invert `interleave`, with the same arguments, result and errors."""
    return _moved(images, nonces, undo=True)


def _moved(images: Tensor, nonces: Sequence[bytes], undo: bool) -> Tensor:
    if images.dtype not in {torch.uint8, torch.bool}:
        raise TypeError(f"expected a tensor of bytes or bool, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"expected a tensor (B, C, H, W), got {tuple(images.shape)}")
    if len(nonces) != len(images):
        raise ValueError(f"expected the nonces of {len(images)} images, got {len(nonces)}")
    if not images.numel():
        return images
    size = images[0].numel()
    if images.device.type == "cpu" and compiled.library("encdl_interleave_revision", INTERLEAVE_REVISION) is not None:
        return torch.from_numpy(interleaved(images.numpy().view(np.uint8), nonces, undo)).view(images.dtype)
    starts = [interleave_start(nonce, size) for nonce in nonces]
    if size < 2**31 and device.available(images.device):
        from encdl.ciphers.device.interleave import moved  # noqa: PLC0415

        return moved(images, torch.tensor(starts).to(images.device, non_blocking=True), undo)
    return _by_index(images, starts, undo)


def _by_index(images: Tensor, starts: Sequence[int], undo: bool) -> Tensor:
    """By PyTorch, on any device."""
    flat = images.flatten(1)
    begin = torch.tensor(starts, device=images.device).unsqueeze(1)
    places = torch.arange(flat.shape[1], device=images.device) + begin
    places = _order(*images.shape[1:], images.device)[places]
    moved = torch.empty_like(flat).scatter_(1, places, flat) if undo else flat.gather(1, places)
    return moved.view(images.shape)


@functools.lru_cache(maxsize=4)
def _order(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """The order before its rotation, twice: int64 (2*C*H*W,), where in an image each byte comes from."""
    rows = torch.arange(height, device=device).unsqueeze(1)
    phases = ((rows + 2 * torch.arange(width, device=device)) % PHASES).to(torch.uint8)
    by_phase = phases.unsqueeze(1).expand(height, channels, width).flatten().argsort(stable=True)
    places = torch.arange(len(by_phase), device=device).view(channels, height, width)
    return places.transpose(0, 1).flatten()[by_phase].repeat(2)
