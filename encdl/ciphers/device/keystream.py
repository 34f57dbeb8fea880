"""The sequences of `encdl.keys.sequences` on a GPU, a row of bytes a seed: the same bytes.

Two kernels. `_lanes` runs the lanes of a chaotic map, each seeded by its block of ChaCha20; `_chacha20` writes
ChaCha20's keystream, by XOR onto what is there. A sequence is one of them or both, under keys that `hashing` derives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from encdl.ciphers.device import hashing
from encdl.keys.chaotic_maps import UnitMap
from encdl.keys.sequences import LANES, MAPS, ChaCha20Sequence, ChaoticSequence, MaskedSequence, lane_nonce

_WORD, _BLOCK = 8, 64
"""Bytes of a lane's output, and of a block of ChaCha20."""
_LANES_AT_ONCE, _BLOCKS_AT_ONCE = 64, 128


def seed_words(seeds: Sequence[bytes], device: torch.device | str) -> Tensor:
    """Seeds of 32 bytes as int32 words (N, 8) on a device."""
    return hashing.words_of(b"".join(seeds), device).view(-1, hashing.WORDS)


def byte_sequences(name: str, seeds: Tensor, count: int) -> Tensor:
    """`encdl.keys.sequences.byte_sequence`.

    Args:
        name: In `encdl.keys.sequences.MAPS`.
        seeds: `seed_words`, (N, 8).
        count: Bytes a row, at least 1.

    Returns:
        uint8 (N, count) on the seeds' device; rows may lie further apart than `count`.
    """
    blocks = -(-count // _BLOCK)
    out = torch.empty((len(seeds), blocks * _BLOCK), dtype=torch.uint8, device=seeds.device)
    source = MAPS[name]
    if isinstance(source, ChaoticSequence):
        _write_lanes(source.unit_map, seeds, out, count)
    elif isinstance(source, ChaCha20Sequence):
        _write_chacha20(seeds, out, False)
    else:
        assert isinstance(source, MaskedSequence)
        messages = hashing.public_messages(source.infos(), hashing.BLOCK_BYTES, seeds.device)
        chaotic, conservative = hashing.hmac_sha256(seeds, messages).unbind(1)
        _write_lanes(source.unit_map, chaotic, out, count)
        _write_chacha20(conservative, out, True)
    return out[:, :count]


def _write_lanes(unit_map: UnitMap, keys: Tensor, out: Tensor, count: int) -> None:
    words = -(-count // _WORD)
    lanes = min(LANES, words)
    nonce = lane_nonce(unit_map)
    numbers = [int.from_bytes(nonce[at : at + 4], "little", signed=True) for at in (0, 4, 8)]
    grid = (len(keys) * triton.cdiv(lanes, _LANES_AT_ONCE),)
    sizes = (keys.stride(0), out.shape[1] // _WORD, lanes, -(-words // lanes))
    _lanes[grid](keys, out.view(torch.int64), *sizes, *numbers, unit_map.code, _LANES_AT_ONCE, num_warps=2)


def _write_chacha20(keys: Tensor, out: Tensor, xor: bool) -> None:
    blocks = out.shape[1] // _BLOCK
    grid = (len(keys) * triton.cdiv(blocks, _BLOCKS_AT_ONCE),)
    _chacha20[grid](keys, out.view(torch.int64), keys.stride(0), blocks, xor, _BLOCKS_AT_ONCE, num_warps=4)


@triton.jit
def _quarter(a, b, c, d):
    a += b
    d ^= a
    d = (d << 16) | (d >> 16)
    c += d
    b ^= c
    b = (b << 12) | (b >> 20)
    a += b
    d ^= a
    d = (d << 8) | (d >> 24)
    c += d
    b ^= c
    b = (b << 7) | (b >> 25)
    return a, b, c, d


@triton.jit
def _key_word(key, n: tl.constexpr, zero):
    return zero + tl.load(key + n).to(tl.uint32, bitcast=True)


@triton.jit
def _block(key, counter, n0, n1, n2):
    """Blocks of ChaCha20 (RFC 8439) under one key: eight words of 64 bits."""
    zero = tl.zeros_like(counter)
    i0, i1, i2, i3 = zero + 0x61707865, zero + 0x3320646E, zero + 0x79622D32, zero + 0x6B206574
    i4, i5, i6, i7 = _key_word(key, 0, zero), _key_word(key, 1, zero), _key_word(key, 2, zero), _key_word(key, 3, zero)
    i8, i9, i10, i11 = (
        _key_word(key, 4, zero),
        _key_word(key, 5, zero),
        _key_word(key, 6, zero),
        _key_word(key, 7, zero),
    )
    i13, i14, i15 = (zero ^ n0).to(tl.uint32), (zero ^ n1).to(tl.uint32), (zero ^ n2).to(tl.uint32)
    x0, x1, x2, x3, x4, x5, x6, x7 = i0, i1, i2, i3, i4, i5, i6, i7
    x8, x9, x10, x11, x12, x13, x14, x15 = i8, i9, i10, i11, counter, i13, i14, i15
    for _ in range(10):
        x0, x4, x8, x12 = _quarter(x0, x4, x8, x12)
        x1, x5, x9, x13 = _quarter(x1, x5, x9, x13)
        x2, x6, x10, x14 = _quarter(x2, x6, x10, x14)
        x3, x7, x11, x15 = _quarter(x3, x7, x11, x15)
        x0, x5, x10, x15 = _quarter(x0, x5, x10, x15)
        x1, x6, x11, x12 = _quarter(x1, x6, x11, x12)
        x2, x7, x8, x13 = _quarter(x2, x7, x8, x13)
        x3, x4, x9, x14 = _quarter(x3, x4, x9, x14)
    return (
        _pair(x0 + i0, x1 + i1),
        _pair(x2 + i2, x3 + i3),
        _pair(x4 + i4, x5 + i5),
        _pair(x6 + i6, x7 + i7),
        _pair(x8 + i8, x9 + i9),
        _pair(x10 + i10, x11 + i11),
        _pair(x12 + counter, x13 + i13),
        _pair(x14 + i14, x15 + i15),
    )


@triton.jit
def _pair(low, high):
    return low.to(tl.uint64) | (high.to(tl.uint64) << 32)


@triton.jit(do_not_specialize=["key_stride", "blocks"])
def _chacha20(keys, out, key_stride, blocks, XOR: tl.constexpr, BLOCKS: tl.constexpr):
    parts = tl.cdiv(blocks, BLOCKS)
    row = tl.program_id(0) // parts
    block = tl.program_id(0) % parts * BLOCKS + tl.arange(0, BLOCKS)
    inside = block < blocks
    words = _block(keys + row * key_stride, block.to(tl.uint32), 0, 0, 0)
    at = out + row.to(tl.int64) * blocks * 8 + block * 8
    for n in tl.static_range(8):
        word = words[n].to(tl.int64, bitcast=True)
        if XOR:
            word ^= tl.load(at + n, mask=inside, other=0)
        tl.store(at + n, word, mask=inside)


@triton.jit
def _square(s):
    """floor(d**2 / 2**64) of d = 2|s| mod 2**64, s in two's complement."""
    sign = (s.to(tl.int64, bitcast=True) >> 63).to(tl.uint64, bitcast=True)
    d = ((s ^ sign) - sign) << 1
    return tl.umulhi(d, d)


@triton.jit
def _scale(v, slope):
    """floor(v * slope / 2**30) below 2**64, slope <= 2**32."""
    return (((v >> 32) * slope) << 2) + (((v & 0xFFFFFFFF) * slope) >> 30)


@triton.jit
def _map(u, q, left, right, MAP: tl.constexpr):
    """As `evaluate` in encdl/keys/coupled_maps.c."""
    half = tl.full(u.shape, 1, tl.uint64) << 63
    if MAP == 0:
        return _square(u) ^ 0xFFFFFFFFFFFFFFFF
    elif MAP == 1:
        return _square(_square(u) ^ half) ^ half
    elif MAP == 2:
        below = (u >> 1) < q
        return _scale(tl.where(below, u, u ^ 0xFFFFFFFFFFFFFFFF), tl.where(below, left, right))
    else:
        e = tl.where(u >= half, u ^ 0xFFFFFFFFFFFFFFFF, u)
        below = e < q
        return _scale(tl.where(below, e, e - q) << 1, tl.where(below, left, right))


@triton.jit(do_not_specialize=["key_stride", "row_words", "lanes", "steps", "n0", "n1", "n2"])
def _lanes(keys, out, key_stride, row_words, lanes, steps, n0, n1, n2, MAP: tl.constexpr, BLOCK: tl.constexpr):
    """Lanes from their seeds through four steps of warm-up and `steps` more, as `encdl.keys.sequences` has it."""
    parts = tl.cdiv(lanes, BLOCK)
    row = tl.program_id(0) // parts
    lane = tl.program_id(0) % parts * BLOCK + tl.arange(0, BLOCK)
    x, y, w, c, parameter, _, _, _ = _block(keys + row * key_stride, lane.to(tl.uint32), n0, n1, n2)
    c |= 1
    n = (parameter >> 34) + 0x20000000  # as `encdl.keys.chaotic_maps._Segments`
    q, left, right = n << 32, n, n
    if MAP >= 2:
        whole = tl.full([BLOCK], 1, tl.uint64) << 61
        left, right = whole // n, whole // (0x80000000 - n)
    at = out + row.to(tl.int64) * row_words + lane
    step = -4
    while step < steps:
        w += c
        x += _map(y, q, left, right, MAP) + w
        x = (x << 29) | (x >> 35)
        y += _map(x, q, left, right, MAP)
        y = (y << 19) | (y >> 45)
        z = y * 0x9E3779B97F4A7C15
        found = (x + (z ^ (z >> 32))).to(tl.int64, bitcast=True)
        inside = (step >= 0) & (lane < lanes) & (step * lanes + lane < row_words)
        tl.store(at + step * lanes, found, mask=inside)
        step += 1
