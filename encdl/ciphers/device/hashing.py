"""SHA-256 and HMAC-SHA256 (FIPS 180-4, RFC 2104) of many short inputs at once: one thread an input.

Every sub-key of an image is one HMAC of one block (HKDF-Expand, RFC 5869), so that the sub-keys of a batch are a few
launches. Bytes are kept in int32 words as they lie in memory; the kernels turn them around.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_BYTES, WORDS, MOST = 64, 8, 55
"""Of SHA-256: bytes of a block, words of a digest, bytes of a message of one block."""

_LANES = 32


_PRIMES = [n for n in range(2, 312) if all(n % d for d in range(2, n))]
_ROUNDS = [int(prime ** (1 / 3) % 1 * 2**32) for prime in _PRIMES]
_START = [int(prime ** (1 / 2) % 1 * 2**32) for prime in _PRIMES[:8]]


@functools.cache
def _constants(device: torch.device) -> Tensor:
    """The 64 constants of the rounds and the 8 of the start, int32."""
    return words_of(b"".join(value.to_bytes(4, "little") for value in _ROUNDS + _START), device)


def words_of(data: bytes, device: torch.device | str) -> Tensor:
    """Bytes as int32 words on a device."""
    return torch.frombuffer(bytearray(data), dtype=torch.int32).to(device, non_blocking=True)


@functools.cache
def public_messages(messages: tuple[bytes, ...], behind: int, device: torch.device) -> Tensor:
    """`padded` messages that are no secret, few, and kept on the device for ever: recordings (`replay`) read them."""
    return padded(messages, behind, device)


def padded(messages: Sequence[bytes], behind: int, device: torch.device) -> Tensor:
    """Messages of up to 55 bytes as last blocks of a hash, int32 (M, 16).

    Args:
        messages: What is hashed last.
        behind: Bytes hashed before them.
        device: Where the result is wanted.
    """
    assert all(len(message) <= MOST for message in messages)
    blocks = [
        (message + b"\x80").ljust(56, b"\0") + (8 * (behind + len(message))).to_bytes(8, "big") for message in messages
    ]
    return words_of(b"".join(blocks), device).view(-1, 16)


def hmac_sha256(keys: Tensor, messages: Tensor) -> Tensor:
    """HMACs of every message under every key.

    Args:
        keys: int32 (N, 8), their 32 bytes; behind shorter keys lie zeros.
        messages: `padded` behind 64 bytes, (M, 16).

    Returns:
        int32 (N, M, 8) on the keys' device.
    """
    found = torch.empty((len(keys), len(messages), WORDS), dtype=torch.int32, device=keys.device)
    if found.numel():
        grid = (triton.cdiv(len(keys), _LANES), len(messages))
        constants = _constants(keys.device)
        _hmac[grid](keys, messages, found, constants, len(keys), keys.stride(0), _LANES, num_warps=1)
    return found


def sha256(messages: Tensor) -> Tensor:
    """Digests of messages that are `padded` behind 0 bytes, int32 (N, 16): int32 (N, 8)."""
    found = torch.empty((len(messages), WORDS), dtype=torch.int32, device=messages.device)
    if len(messages):
        grid = (triton.cdiv(len(messages), _LANES),)
        _sha256[grid](messages.contiguous(), found, _constants(messages.device), len(messages), _LANES, num_warps=1)
    return found


@triton.jit
def _right(x, n: tl.constexpr):
    return (x >> n) | (x << (32 - n))


@triton.jit
def _compress(s, w, constants):
    a, b, c, d, e, f, g, h = s
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15 = w
    for at in tl.range(64, loop_unroll_factor=8):
        k = tl.load(constants + at).to(tl.uint32, bitcast=True)
        t = h + (_right(e, 6) ^ _right(e, 11) ^ _right(e, 25)) + (g ^ (e & (f ^ g))) + k + w0
        u = (_right(a, 2) ^ _right(a, 13) ^ _right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
        h, g, f, e, d, c, b, a = g, f, e, d + t, c, b, a, t + u
        new = w0 + (_right(w1, 7) ^ _right(w1, 18) ^ (w1 >> 3)) + w9 + (_right(w14, 17) ^ _right(w14, 19) ^ (w14 >> 10))
        w0, w1, w2, w3, w4, w5, w6, w7 = w1, w2, w3, w4, w5, w6, w7, w8
        w8, w9, w10, w11, w12, w13, w14, w15 = w9, w10, w11, w12, w13, w14, w15, new
    t0, t1, t2, t3, t4, t5, t6, t7 = s
    return (t0 + a, t1 + b, t2 + c, t3 + d, t4 + e, t5 + f, t6 + g, t7 + h)


@triton.jit
def _start(constants, pad):
    """The state that a hash starts with, for the lanes of `pad`."""
    zero = tl.zeros_like(pad)
    constants += 64
    return (
        zero + tl.load(constants).to(tl.uint32, bitcast=True),
        zero + tl.load(constants + 1).to(tl.uint32, bitcast=True),
        zero + tl.load(constants + 2).to(tl.uint32, bitcast=True),
        zero + tl.load(constants + 3).to(tl.uint32, bitcast=True),
        zero + tl.load(constants + 4).to(tl.uint32, bitcast=True),
        zero + tl.load(constants + 5).to(tl.uint32, bitcast=True),
        zero + tl.load(constants + 6).to(tl.uint32, bitcast=True),
        zero + tl.load(constants + 7).to(tl.uint32, bitcast=True),
    )


@triton.jit
def _turned(x):
    return (_right(x, 8) & 0xFF00FF00) | (_right(x, 24) & 0x00FF00FF)


@triton.jit
def _load(at, inside):
    return _turned(tl.load(at, mask=inside, other=0).to(tl.uint32, bitcast=True))


@triton.jit
def _load8(at, inside):
    return (
        _load(at, inside),
        _load(at + 1, inside),
        _load(at + 2, inside),
        _load(at + 3, inside),
        _load(at + 4, inside),
        _load(at + 5, inside),
        _load(at + 6, inside),
        _load(at + 7, inside),
    )


@triton.jit
def _store8(at, s, inside):
    for n in tl.static_range(8):
        tl.store(at + n, _turned(s[n]).to(tl.int32, bitcast=True), mask=inside)


@triton.jit
def _keyed(key, pad, constants):
    """The state behind a block of key XOR pad, of a key of 8 words and zeros."""
    k0, k1, k2, k3, k4, k5, k6, k7 = key
    block = (k0 ^ pad, k1 ^ pad, k2 ^ pad, k3 ^ pad, k4 ^ pad, k5 ^ pad, k6 ^ pad, k7 ^ pad)
    return _compress(_start(constants, pad), block + (pad, pad, pad, pad, pad, pad, pad, pad), constants)


@triton.jit(do_not_specialize=["count", "key_stride"])
def _hmac(keys, messages, found, constants, count, key_stride, LANES: tl.constexpr):
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = lane < count
    zero = tl.zeros([LANES], tl.uint32)
    key = _load8(keys + lane * key_stride, inside)
    message = messages + tl.program_id(1) * 16 + tl.zeros([LANES], tl.int32)
    inner = _keyed(key, zero + 0x36363636, constants)
    inner = _compress(inner, _load8(message, inside) + _load8(message + 8, inside), constants)
    # Behind the outer key comes the inner digest: 96 bytes, 768 bits.
    last = inner + (zero + 0x80000000, zero, zero, zero, zero, zero, zero, zero + 768)
    outer = _compress(_keyed(key, zero + 0x5C5C5C5C, constants), last, constants)
    _store8(found + (lane * tl.num_programs(1) + tl.program_id(1)) * 8, outer, inside)


@triton.jit(do_not_specialize=["count"])
def _sha256(messages, found, constants, count, LANES: tl.constexpr):
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = lane < count
    message = messages + lane * 16
    block = _load8(message, inside) + _load8(message + 8, inside)
    _store8(found + lane * 8, _compress(_start(constants, tl.zeros([LANES], tl.uint32)), block, constants), inside)
