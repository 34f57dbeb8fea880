"""The cipher `agile` and what follows it once more, from docs/ciphers.md: slow, sharing no code with the package."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from typing import Any

from tests.keys.reference import LANES, chacha20, lane_outputs, subkey

Plane = dict[tuple[int, int], int]


def sequence(name: str, seed: bytes, count: int) -> bytes:
    if name == "chacha20":
        return chacha20(seed, count)
    chaotic = name.removesuffix("+chacha20")
    lanes = [lane_outputs(chaotic, subkey(seed, name, "chaotic"), lane) for lane in range(min(LANES, -(-count // 8)))]
    words = itertools.chain.from_iterable(zip(*lanes, strict=False))
    one = b"".join(struct.pack("<Q", word) for word in itertools.islice(words, -(-count // 8)))
    two = chacha20(subkey(seed, name, "chacha20"), count)
    return bytes(a ^ b for a, b in zip(one, two, strict=False))


def layers() -> list[list[tuple[int, list[list[list[int]]], list[int]]]]:
    """F and G, each nine convolutions: dilation, weights [out][in][tap], biases."""
    numbers = (byte for byte in hashlib.shake_256(b"EncDL agile 0.2, mask network").digest(2**14) if byte < 255)

    def conv(inputs: int, outputs: int, dilation: int) -> tuple[int, list[list[list[int]]], list[int]]:
        weights = [[[next(numbers) % 15 - 7 for _ in range(9)] for _ in range(inputs)] for _ in range(outputs)]
        return dilation, weights, [next(numbers) - 127 for _ in range(outputs)]

    return [
        [conv(16, 1, d) for d in (1, 2, 4, 8)] + [conv(4, 1, d) for d in (1, 2, 4, 8)] + [conv(4, 2, 1)]
        for _ in range(2)
    ]


def convolved(planes: list[Plane], layer: Any, places: list[tuple[int, int]]) -> list[Plane]:
    d, weights, biases = layer
    taps = [(d * (tap // 3 - 1), d * (tap % 3 - 1)) for tap in range(9)]
    return [
        {
            (y, x): bias
            + sum(w * plane.get((y + a, x + b), 0) for plane, row in zip(planes, rows, strict=True)
                  for (a, b), w in zip(taps, row, strict=True))
            for y, x in places
        }
        for rows, bias in zip(weights, biases, strict=True)
    ]  # fmt: skip


def network(half: list[Plane], convolutions: Any, places: list[tuple[int, int]]) -> list[Plane]:
    x = [{at: 2 * (byte >> bit & 1) - 1 for at, byte in phase.items()} for phase in half for bit in range(8)]
    for stage, shift in ((0, 0), (4, 4)):
        sums = [convolved(x, layer, places)[0] for layer in convolutions[stage : stage + 4]]
        x = [{at: min(63, max(-64, value >> shift)) for at, value in plane.items()} for plane in sums]
    return convolved(x, convolutions[8], places)


def mask(key: bytes, height: int, width: int) -> bytes:
    """Of one channel: key bytes to mask bytes, by a Feistel network over the halves of a checkerboard."""
    places = [(y, x) for y in range(-(-height // 2)) for x in range(-(-width // 2))]
    phases: list[Plane] = [{}, {}, {}, {}]
    for number, byte in enumerate(key):
        y, x = divmod(number, width)
        phases[2 * (y % 2) + x % 2][y // 2, x // 2] = byte
    a, b = [phases[0], phases[3]], [phases[1], phases[2]]
    for half, other, convolutions in zip((a, b), (b, a), layers(), strict=True):
        for phase, integers in zip(half, network(other, convolutions, places), strict=True):
            phase.update({at: (byte + integers[at]) % 256 for at, byte in phase.items()})
    return bytes(phases[2 * (y % 2) + x % 2][y // 2, x // 2] for y in range(height) for x in range(width))


def deinterleaved(body: bytes, nonce: bytes, shape: tuple[int, int, int]) -> bytes:
    order = sorted(itertools.product(*map(range, shape)), key=lambda p: ((p[1] + 2 * p[2]) % 4, p[1], p[0], p[2]))
    start = int.from_bytes(hashlib.sha256(b"encdl interleave" + nonce).digest()[:8], "little") % len(body)
    found = {order[(start + i) % len(order)]: byte for i, byte in enumerate(body)}
    return bytes(found[place] for place in itertools.product(*map(range, shape)))


def unconfused(body: bytes, key: bytes) -> bytes:
    n = len(body)
    a = math.isqrt(n - 1) + 1
    b = math.ceil(n / a)
    words = struct.unpack(f"<{8 * a}I", chacha20(key, 32 * a))

    def moved(place: int) -> int:
        left, right = divmod(place, b)
        for i in range(0, 8 * a, 2 * a):
            left = (left + words[i + right]) % a
            right = (right + words[i + a + left]) % b
        place = left * b + right
        return place if place < n else moved(place)

    found = {moved(place): byte for place, byte in enumerate(body)}
    return bytes(found[place] for place in range(n))


def undiffused(body: bytes, key: bytes, shape: tuple[int, int, int]) -> bytes:
    rows, width, n = shape[0] * shape[1], shape[2], len(body)
    stream = chacha20(key, 6 * 1024 + 6 * n)
    words = struct.unpack("<1536I", stream[: 6 * 1024])
    for number, (along, back) in reversed([*enumerate(((1, 0), (0, 0), (1, 1), (0, 1), (1, 0), (1, 1)))]):
        box = sorted(range(256), key=words[256 * number : 256 * number + 256].__getitem__)
        places = stream[6 * 1024 + number * n :]
        in_rows = (width >= rows) == bool(along)
        step, size = (1, width) if in_rows else (width, rows)
        undone = bytearray(n)
        for line in range(n // size):
            order = [(line * width if in_rows else line) + step * i for i in range(size)]
            last = 0
            for at in reversed(order) if back else order:
                undone[at] = (body[at] - box[last ^ places[at]]) % 256
                last = body[at]
        body = bytes(undone)
    return body


def unprocessed(name: str, body: bytes, shape: tuple[int, int, int], nonce: bytes, keys: dict[str, bytes]) -> bytes:
    """What the cipher made of a chunk, from its bytes in the file and the chunk's sub-keys."""
    if name == "interleave":
        return deinterleaved(body, nonce, shape)
    if name in ("diffusion", "both"):
        body = undiffused(body, keys["diffusion"], shape)
    return unconfused(body, keys["permutation"]) if name in ("confusion", "both") else body
