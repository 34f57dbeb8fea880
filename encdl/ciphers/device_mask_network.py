"""The mask network of the `agile` cipher on a GPU, in Triton: the same bytes as from the float layers.

All is integers of 8 bits with sums in 32: four channels lie in a word, and one instruction (DP4A) multiplies and adds
them. A place of a half has 16 planes, so four words of signs; a stage gives it one word. Each round is three kernels,
whose intermediate results stay in the cache for as many images as are done at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from encdl.ciphers.device.replay import replayed
from encdl.ciphers.mask_network import HALVES, FixedConv2d, HalfNetwork, MaskNetwork

PLACES_AT_ONCE = 2**23
"""Of half networks: 24 bytes of intermediate results each."""
_BLOCK, _WARPS = 128, 4


def masks(key_bytes: Tensor) -> Tensor:
    """The masks of images.

    Args:
        key_bytes: uint8 (N, 1, H, W).

    Returns:
        uint8 (N, 1, H, W) on the same device.
    """
    return replayed(_all_masks, "masks", key_bytes, key_bytes.numel())


def _all_masks(key_bytes: Tensor) -> Tensor:
    count, _, height, width = key_bytes.shape
    key_bytes, found = key_bytes.contiguous(), torch.empty_like(key_bytes, memory_format=torch.contiguous_format)
    at_once = max(1, PLACES_AT_ONCE // (((height + 1) // 2) * ((width + 1) // 2)))
    room = _room(min(count, at_once), height, width, key_bytes.device)
    for start in range(0, count, at_once):
        _masks(key_bytes[start : start + at_once], found[start : start + at_once], *room)
    return found


def _room(count: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The signs of one half, two words of 64 bits a place; and what both stages give, a word of 32 bits."""
    places = ((height + 1) // 2) * ((width + 1) // 2)
    signs = torch.empty((count, 2, places), dtype=torch.int64, device=device)
    first, second = (torch.empty((count, places), dtype=torch.int32, device=device) for _ in range(2))
    return signs, first, second


def _masks(keys: Tensor, found: Tensor, signs: Tensor, first: Tensor, second: Tensor) -> None:
    count, _, height, width = keys.shape
    h, w = (height + 1) // 2, (width + 1) // 2
    grid = (count * triton.cdiv(h * w, _BLOCK),)
    assembly = keys.device.type == "cuda"
    shape, form = (height, width, h, w), {"BLOCK": _BLOCK, "num_warps": _WARPS}
    f, g = _networks()
    a, b = HALVES
    _signs[grid](keys, signs, *shape, *b, **form)
    for net, (one, other), last in ((f, a, False), (g, b, True)):
        _first[grid](signs, first, h, w, *net[:2], assembly, **form)
        _second[grid](first, second, h, w, *net[2:4], assembly, **form)
        _last[grid](second, keys, found, signs, *shape, *net[4:], one, other, not last, assembly, **form)


@functools.cache
def _networks() -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """F and G as the kernels read them: weights and biases of both stages and of the last convolution."""
    network = MaskNetwork()
    return _packed(network.f), _packed(network.g)


def _packed(network: HalfNetwork) -> tuple[tuple[int, ...], ...]:
    return tuple(
        part(layers)
        for layers in (network.branches(0), network.branches(1), [network.out])
        for part in (_words, _biases)
    )


def _words(layers: Sequence[FixedConv2d]) -> tuple[int, ...]:
    """Weights in words of four channels, lowest first: (outputs of all layers, taps, words)."""
    by_tap = torch.cat([layer.weight.flatten(2).transpose(1, 2) for layer in layers])
    return tuple(by_tap.to(torch.int8).contiguous().view(torch.int32).flatten().tolist())


def _biases(layers: Sequence[FixedConv2d]) -> tuple[int, ...]:
    return tuple(torch.cat([layer.bias for layer in layers]).int().tolist())


@triton.jit
def _dot(sums, values, weights, ASSEMBLY: tl.constexpr):
    """Sums plus the products of the four signed bytes of values and weights."""
    if ASSEMBLY:
        return tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [values, weights, sums], dtype=tl.int32, is_pure=True, pack=1
        )
    weights += tl.zeros_like(values)  # a word, whose bytes can be shifted out
    for n in tl.static_range(4):
        sums += ((values << 24 - 8 * n) >> 24) * ((weights << 24 - 8 * n) >> 24)
    return sums


@triton.jit
def _clamped(sums):
    return tl.minimum(tl.maximum(sums, -64), 63) & 255


@triton.jit
def _place(h, w, BLOCK: tl.constexpr):
    """Image, row and column of each place of a program, and its number in the image, which may lie behind the end."""
    parts = tl.cdiv(h * w, BLOCK)
    place = tl.program_id(0) % parts * BLOCK + tl.arange(0, BLOCK)
    return (tl.program_id(0) // parts).to(tl.int64), place // w, place % w, place


@triton.jit
def _byte_signs(byte, inside):
    """Bits of bytes as bytes -1 and 1, lowest first, 0 where not inside: int64."""
    low = ((byte & 15) * 0x00204081) & 0x01010101
    high = ((byte >> 4) * 0x00204081) & 0x01010101
    ones = low.to(tl.int64) | (high.to(tl.int64) << 32)
    return tl.where(inside, (ones * 0xFE) ^ -1, 0)


@triton.jit
def _phase(image, y, x, height, width, PHASE: tl.constexpr):
    """Number in the whole batch of the pixel of a phase at each place, and whether it is inside its image."""
    row, column = 2 * y + PHASE // 2, 2 * x + PHASE % 2
    return image * height * width + row * width + column, (row < height) & (column < width)


@triton.jit(do_not_specialize=["height", "width", "h", "w"])
def _signs(keys, signs, height, width, h, w, ONE: tl.constexpr, OTHER: tl.constexpr, BLOCK: tl.constexpr):
    image, y, x, place = _place(h, w, BLOCK)
    to = signs + image * 2 * h * w + place
    for n in tl.static_range(2):
        at, inside = _phase(image, y, x, height, width, ONE if n == 0 else OTHER)
        byte = tl.load(keys + at, mask=inside, other=0).to(tl.int32)
        tl.store(to + n * h * w, _byte_signs(byte, inside), mask=place < h * w)


@triton.jit(do_not_specialize=["h", "w"])
def _first(
    signs, first, h, w, WEIGHTS: tl.constexpr, BIASES: tl.constexpr, ASSEMBLY: tl.constexpr, BLOCK: tl.constexpr
):
    image, y, x, place = _place(h, w, BLOCK)
    at = signs + image * 2 * h * w + place
    word = tl.zeros([BLOCK], tl.int32)
    for branch in tl.static_range(4):
        sums = tl.full([BLOCK], BIASES[branch], tl.int32)
        for tap in tl.static_range(9):
            down, right = (tap // 3 - 1) * (1 << branch), (tap % 3 - 1) * (1 << branch)
            inside = (y + down >= 0) & (y + down < h) & (x + right >= 0) & (x + right < w)
            for n in tl.static_range(2):
                eight = tl.load(at + n * h * w + down * w + right, mask=inside, other=0)
                sums = _dot(sums, eight.to(tl.int32), WEIGHTS[(branch * 9 + tap) * 4 + 2 * n], ASSEMBLY)
                sums = _dot(sums, (eight >> 32).to(tl.int32), WEIGHTS[(branch * 9 + tap) * 4 + 2 * n + 1], ASSEMBLY)
        word |= _clamped(sums) << 8 * branch
    tl.store(first + image * h * w + place, word, mask=place < h * w)


@triton.jit
def _conv(
    at,
    y,
    x,
    h,
    w,
    DILATION: tl.constexpr,
    WEIGHTS: tl.constexpr,
    FROM: tl.constexpr,
    BIAS: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """A convolution of words of four channels."""
    sums = tl.full(y.shape, BIAS, tl.int32)
    for tap in tl.static_range(9):
        down, right = (tap // 3 - 1) * DILATION, (tap % 3 - 1) * DILATION
        inside = (y + down >= 0) & (y + down < h) & (x + right >= 0) & (x + right < w)
        sums = _dot(sums, tl.load(at + down * w + right, mask=inside, other=0), WEIGHTS[FROM + tap], ASSEMBLY)
    return sums


@triton.jit(do_not_specialize=["h", "w"])
def _second(
    first, second, h, w, WEIGHTS: tl.constexpr, BIASES: tl.constexpr, ASSEMBLY: tl.constexpr, BLOCK: tl.constexpr
):
    image, y, x, place = _place(h, w, BLOCK)
    at = first + image * h * w + place
    word = tl.zeros([BLOCK], tl.int32)
    for branch in tl.static_range(4):
        sums = _conv(at, y, x, h, w, 1 << branch, WEIGHTS, branch * 9, BIASES[branch], ASSEMBLY)
        word |= _clamped(sums >> 4) << 8 * branch
    tl.store(second + image * h * w + place, word, mask=place < h * w)


@triton.jit(do_not_specialize=["height", "width", "h", "w"])
def _last(
    second, keys, found, signs, height, width, h, w,
    WEIGHTS: tl.constexpr, BIASES: tl.constexpr, ONE: tl.constexpr, OTHER: tl.constexpr,
    MORE: tl.constexpr, ASSEMBLY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The last convolution, added to the keys of two phases; with MORE, their signs for the next round."""
    image, y, x, place = _place(h, w, BLOCK)
    at = second + image * h * w + place
    for n in tl.static_range(2):
        pixel, inside = _phase(image, y, x, height, width, ONE if n == 0 else OTHER)
        sums = _conv(at, y, x, h, w, 1, WEIGHTS, n * 9, BIASES[n], ASSEMBLY)
        byte = (tl.load(keys + pixel, mask=inside, other=0).to(tl.int32) + sums) & 255
        tl.store(found + pixel, byte.to(tl.uint8), mask=inside)
        if MORE:
            tl.store(signs + image * 2 * h * w + n * h * w + place, _byte_signs(byte, inside), mask=place < h * w)
