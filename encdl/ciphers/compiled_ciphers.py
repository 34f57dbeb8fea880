"""Masks of the `agile` cipher and the interleaver by compiled code, on NumPy arrays: the same bytes as by PyTorch.

To load PyTorch takes longer than to encrypt most files, so that files on a processor go this way.

`mask_network.c` is for x86 processors with SSSE3, AVX2 or AVX-512 (VBMI and VNNI), and for ARM of 64 bits (NEON).
Where it was not built (`encdl.utils.compiled`) or the processor is another, `available` is false and the float layers
of `encdl.ciphers.mask_network` work instead.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from encdl.keys.derivation import ImageKeys, check_nonce
from encdl.keys.planes import PlaneSpec, key_planes
from encdl.utils import compiled

SEED: Final = b"EncDL agile 0.2, mask network"
"""The seed of the mask network's weights; see `drawn_integers`."""
STAGES: Final = ((16, 1), (16, 1), (16, 1), (16, 1), (4, 1), (4, 1), (4, 1), (4, 1), (4, 2))
"""Inputs and outputs of the layers of half a network: two stages of four dilations, and the last layer."""

REVISION = 2
"""Of the form of mask_network.c."""
POSTPROCESS: Final = ("interleave", "none")
"""The post-processings that need no PyTorch."""
INTERLEAVE_REVISION = 1
"""Of the form of interleave.c."""
INTERLEAVE_DOMAIN = b"encdl interleave"
"""Hashed before a nonce."""
ZERO = 64
"""The byte that stands for an activation of 0."""
NOWHERE = 48
"""The index of tables of 64 that stands for what lies outside the image."""
THREAD_BYTES = 2**20
"""Of key bytes, for which one more thread is worth its start: it takes some 0.4 ms until it works as the first does."""
MAX_ROOM = 2**26
"""Bytes of memory that a thread keeps: enough for 4096x4096 pixels."""

BITS_128, AVX2, AVX512 = 0, 1, 2
"""Vectors that `mask_network.c` may use."""
_WIDEST = AVX512  # tests take narrower ones
_WIDE_FROM = 65  # columns: narrower images fill no vector of 64 places, and AVX2 is sooner done with them
_kept = threading.local()
"""Memory that a thread keeps: a system clears new memory page by page, which takes as long as a network does."""

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


def available() -> bool:
    """Whether the compiled mask network is here and runs on this processor."""
    return compiled.library("encdl_mask_revision", REVISION) is not None


@dataclass(frozen=True)
class FixedMask:
    """The mask of `agile` or `keystream`, which no weights decide, on arrays; see `encdl.ciphers.Cipher`."""

    name: str

    exact: ClassVar[bool] = True
    keyed_mask: ClassVar[bool] = True
    planes: ClassVar[int] = 8

    def mask(self, key_bytes: Bytes, threads: int = 1) -> Bytes:
        """The mask under eight key planes, both uint8 (B, C, H, W), by up to so many threads."""
        if self.name == "keystream":
            return key_bytes
        return masks(key_bytes.reshape(-1, 1, *key_bytes.shape[2:]), threads).reshape(key_bytes.shape)


@dataclass(frozen=True)
class ArrayChunks:
    """Encrypts chunks and back. Chunks of one call have one shape, and each has its own keys.

    Attributes:
        cipher: the cipher.
        planes: how to make the key planes.
        postprocess: "interleave" or "none": what needs no PyTorch.
        together: calls that it is worth to have done at once, each by a thread.
        threads: that one call may take.
    """

    cipher: FixedMask
    planes: PlaneSpec
    postprocess: str
    together: int = 1
    threads: int = 1

    at_once: ClassVar[int] = 2**19
    """Bytes of chunks that one call should hold."""

    def encrypt(self, chunks: Sequence[Bytes], keys: Sequence[ImageKeys]) -> Bytes:
        """Byte planes uint8 (planes, h, w) of B chunks to their ciphertexts, uint8 (B, planes, h, w)."""
        key_bytes = key_planes([key.planes for key in keys], self.planes, *chunks[0].shape)
        ciphertext = self.cipher.mask(key_bytes, self.threads)
        for mask, chunk in zip(ciphertext, chunks, strict=True):
            np.add(mask, chunk, out=mask)  # uint8 wraps at 256 by itself
        return interleaved(ciphertext, [key.nonce for key in keys]) if self.postprocess == "interleave" else ciphertext

    def decrypt(self, bodies: Sequence[Bytes], keys: Sequence[ImageKeys]) -> Bytes:
        """Undo `encrypt`, once the ciphertexts were found authentic."""
        ciphertext, mask = self.ciphertext_and_mask(bodies, keys)
        return np.subtract(ciphertext, mask, out=mask)

    def ciphertext_and_mask(self, bodies: Sequence[Bytes], keys: Sequence[ImageKeys]) -> tuple[Bytes, Bytes]:
        """The ciphertexts without post-processing, and what lies on each pixel, both uint8 (B, planes, h, w)."""
        ciphertext = np.stack(bodies)
        if self.postprocess == "interleave":
            ciphertext = interleaved(ciphertext, [key.nonce for key in keys], undo=True)
        key_bytes = key_planes([key.planes for key in keys], self.planes, *ciphertext.shape[1:])
        return ciphertext, self.cipher.mask(key_bytes, self.threads)


def masks(key_bytes: Bytes, threads: int = 1) -> Bytes:
    """The masks of images under `agile`, both uint8 (N, 1, H, W), by up to so many threads."""
    library = compiled.library("encdl_mask_revision", REVISION)
    assert library is not None
    count, _, height, width = key_bytes.shape
    key_bytes, sizes = np.ascontiguousarray(key_bytes), (ctypes.c_int64(height), ctypes.c_int64(width))
    found = np.empty_like(key_bytes)
    threads = max(1, min(threads, count, key_bytes.size // THREAD_BYTES))
    library.encdl_mask_room.restype = ctypes.c_int64
    each = library.encdl_mask_room(*sizes)
    room = getattr(_kept, "room", None)
    if room is None or room.size < threads * each:
        room = np.empty(threads * each, np.uint8)
        if room.size <= MAX_ROOM:
            _kept.room = room

    def work(number: int) -> None:
        start, stop = count * number // threads, count * (number + 1) // threads
        places = (key_bytes[start:], found[start:])
        library.encdl_masks(
            networks(),
            *(ctypes.c_void_p(place.ctypes.data) for place in places),
            *(ctypes.c_int64(stop - start), *sizes, ctypes.c_void_p(room[number * each :].ctypes.data)),
            *(None, 1, _WIDEST if width >= _WIDE_FROM else min(_WIDEST, AVX2)),
        )

    if threads == 1:
        work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return found


def drawn_integers(seed: bytes) -> Iterator[int]:
    """Bytes of SHAKE256(seed) below 255, one after the other: uniform over 0..254."""
    return (byte for byte in hashlib.shake_256(seed).digest(2**14) if byte < 255)


def drawn_layer(numbers: Iterator[int], inputs: int, outputs: int) -> tuple[Integers, Integers]:
    """Weights int64 (outputs, inputs, 9), each a number modulo 15, less 7; then biases (outputs,), one less 127."""
    weights = [next(numbers) % 15 - 7 for _ in range(9 * inputs * outputs)]
    biases = [next(numbers) - 127 for _ in range(outputs)]
    return np.array(weights).reshape(outputs, inputs, 9), np.array(biases)


@functools.cache
def networks() -> bytes:
    """F and G as two `half`s of mask_network.c: their weights never change."""
    numbers = drawn_integers(SEED)
    halves = [[drawn_layer(numbers, *sizes) for sizes in STAGES] for _ in range(2)]
    return b"".join(_half(layers[:4], layers[4:8], layers[8:]) for layers in halves)


def _half(*stages: Sequence[tuple[Integers, Integers]]) -> bytes:
    """A `half`: of the first stage tables and biases, of the others weights by tap and biases, then wide tables.

    What `ZERO` adds to a sum goes off the biases. A table says what each value of four planes adds to a sum.
    """
    first, *others = stages
    signs = np.array([[2 * (value >> bit & 1) - 1 for bit in range(4)] for value in range(16)])
    tables = [np.einsum("nbt,vb->tnv", weights.reshape(4, 4, 9), signs) for weights, _ in first]
    parts: list[NDArray[Any]] = [
        np.stack(tables).astype(np.int8),
        np.concatenate([biases for _, biases in first]).astype(np.int16),
    ]
    for layers in others:
        weights = np.concatenate([each for each, _ in layers])
        biases = np.concatenate([each for _, each in layers])
        parts += [weights.transpose(0, 2, 1).astype(np.int8), (biases - ZERO * weights.sum((1, 2))).astype(np.int16)]
    parts.append(np.stack([_wide_tables(weights) for weights, _ in first]).astype(np.int8))
    return b"".join(part.tobytes() for part in parts)


def _wide_tables(weights: Integers) -> Integers:
    """What each index of a place adds to a sum: (taps, 3, 64), the second one's with 128 added, as int8 wraps.

    Six low bits of the first byte; two high bits of both, and for each whether it lies outside; six low bits of the
    second byte. A byte outside, whose low bits are NOWHERE, adds 0 to the second index and takes off nothing in the
    others: what NOWHERE would add inside is in the second index of all bytes that are there.
    """
    signs = np.array([[2 * (value >> bit & 1) - 1 for bit in range(8)] for value in range(256)])
    low, high = signs[:64, :6], signs[::64, 6:]
    weights = weights.reshape(2, 8, 9)
    one, two = np.einsum("nbt,vb->ntv", weights[:, :6], low)
    tops = np.einsum("nbt,vb->ntv", weights[:, 6:], high)  # of each byte's two high bits
    one_top, two_top = (top + low[:, NOWHERE, None] for top, low in zip(tops, (one, two), strict=True))
    inside = one_top[:, None, :] + two_top[:, :, None]
    zeros = np.zeros_like(inside)
    both = np.stack([inside, two_top[:, :, None] + zeros, one_top[:, None, :] + zeros, zeros], axis=1) + 128
    both = ((both + 128) % 256 - 128).reshape(9, 64)
    return np.stack([one - one[:, NOWHERE, None], both, two - two[:, NOWHERE, None]], axis=1)


def interleaved(images: Bytes, nonces: Sequence[bytes], undo: bool = False) -> Bytes:
    """`encdl.ciphers.postprocess.interleave`, or its inverse, by compiled code.

    Args:
        images: uint8 (B, C, H, W), any sizes; not changed.
        nonces: of each image, 16 bytes.
        undo: whether to invert it.
    """
    library = compiled.library("encdl_interleave_revision", INTERLEAVE_REVISION)
    assert library is not None
    source = np.ascontiguousarray(images)
    begin = np.array([interleave_start(nonce, source[0].size) for nonce in nonces], np.int64)
    moved = np.empty_like(source)
    image, file = (moved, source) if undo else (source, moved)
    library.encdl_interleave(
        *(ctypes.c_void_p(array.ctypes.data) for array in (image, file, begin)),
        *(ctypes.c_int64(size) for size in images.shape),
        undo,
    )
    return moved


def interleave_start(nonce: bytes, size: int) -> int:
    """Which byte of the interleaver's order an image's file begins with."""
    return int.from_bytes(hashlib.sha256(INTERLEAVE_DOMAIN + check_nonce(nonce)).digest()[:8], "little") % size
