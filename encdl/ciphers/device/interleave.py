"""The interleaver of `encdl.ciphers.postprocess.interleave` on a GPU, and the addition that goes with it."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from encdl.ciphers.device import hashing

_BLOCK = 1024


def moved(source: Tensor, starts: Tensor, undo: bool, mask: Tensor | None = None) -> Tensor:
    """Images into the order of the file, after a mask is added; or back, before a mask is taken off.

    Args:
        source: uint8 or bool (B, C, H, W), less than 2**31 bytes an image.
        starts: int64 (B,), the byte of the order that each file begins with.
        undo: Whether the source is files.
        mask: uint8 of that shape, or none.

    Returns:
        The same form and type.
    """
    source, found = source.contiguous(), torch.empty_like(source, memory_format=torch.contiguous_format)
    if not source.numel():
        return found
    channels, height, width = source.shape[1:]
    grid = (len(source) * triton.cdiv(channels * height * width, _BLOCK),)
    data = [each.view(torch.uint8) for each in (source, found)]
    added = data[0] if mask is None else mask.contiguous()
    _moved[grid](*data, added, starts, channels, height, width, undo, mask is not None, _BLOCK, num_warps=4)
    return found


def starts_of(nonces: Tensor, domain: bytes, size: int) -> Tensor:
    """The first 8 bytes of SHA-256(domain || nonce) as a number, low byte first, modulo a size.

    Args:
        nonces: uint8 (N, 16).
        domain: 16 bytes.
        size: 1 to 2**31.

    Returns:
        int64 (N,).
    """
    before, behind = (part.expand(len(nonces), -1) for part in _around(domain, nonces.device))
    digests = hashing.sha256(torch.cat([before, nonces.contiguous().view(torch.int32), behind], dim=1))
    low, high = (digests[:, :2].long() & 0xFFFFFFFF).unbind(1)
    return (high % size * (2**32 % size) + low) % size


@functools.cache
def _around(domain: bytes, device: torch.device) -> tuple[Tensor, Tensor]:
    """What lies before and behind the nonce in the only block of the hash."""
    words = hashing.padded([domain + bytes(16)], 0, device)
    return words[:, :4], words[:, 8:]


@triton.jit
def _rows(y, phase):
    """Rows before y whose even pixels are of a phase, and those whose odd pixels are."""
    return (y - phase + 3) // 4, (y - (phase + 2) % 4 + 3) // 4


@triton.jit(do_not_specialize=["channels", "height", "width"])
def _moved(
    source, found, mask, starts, channels, height, width, UNDO: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    """Pixels of an image, each with its place in the file: those of its phase in rows above, and so on."""
    size = channels * height * width
    parts = tl.cdiv(size, BLOCK)
    image = (tl.program_id(0) // parts).to(tl.int64)
    pixel = tl.program_id(0) % parts * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < size
    x, row = pixel % width, pixel // width
    y, channel = row % height, row // height
    evens, odds = (width + 1) // 2, width // 2
    phase = (y + 2 * x) % 4
    even_rows, odd_rows = _rows(y, phase)
    place = channels * (even_rows * evens + odd_rows * odds) + channel * tl.where(x % 2 == 0, evens, odds) + x // 2
    for each in tl.static_range(3):  # the phases before
        even_rows, odd_rows = _rows(height, each)
        place += tl.where(phase > each, channels * (even_rows * evens + odd_rows * odds), 0)
    place -= tl.load(starts + image).to(tl.int32)
    place = tl.where(place < 0, place + size, place)
    one, other = image * size + (place if UNDO else pixel), image * size + (pixel if UNDO else place)
    byte = tl.load(source + one, mask=inside, other=0)
    if ADD:
        add = tl.load(mask + image * size + pixel, mask=inside, other=0)
        byte = byte - add if UNDO else byte + add
    tl.store(found + other, byte, mask=inside)
