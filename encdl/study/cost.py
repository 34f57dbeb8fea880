"""What reading ciphertext costs beside reading plaintext, and beside decrypting first: one machine, one run."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encdl.ciphers.base import Cipher
from encdl.keys.planes import PlaneSpec, key_planes
from encdl.readers import GatedStem, KeyedStem, PlainStem, Reader

ROUNDS = 15
ENOUGH_S = 30.0
"""After so long at one size and batch, no further round begins."""


def cost(
    reader: Reader,
    cipher: Cipher,
    spec: PlaneSpec,
    device: str,
    sizes: tuple[int, ...],
    batches: tuple[int, ...],
) -> dict[str, dict[str, float]]:
    """Milliseconds a batch of each step, and their ratios.

    Every step runs once in each of up to `ROUNDS` rounds, and the median of its times counts, so that whatever else the
    machine does falls on all of them alike. Ciphertext and key are in the machine's memory; results stay on the device.

    Args:
        reader: Gives the backbone; its stem's width is that of the stems compared.
        cipher: In evaluation mode, on `device`.
        spec: Map and expansion of the key planes.
        device: Where to compute.
        sizes: Heights and widths of the pictures, in pixels.
        batches: Pictures a batch.

    Returns:
        For each size and batch (`128px_batch1`), times in ms: `key_planes`, `field`, `decrypt` (planes given), `plain`,
        `keyed` and `gated` (the reader with each stem, field given), `decrypt_then_infer` and `ciphertext` (everything
        from ciphertext and key on); ratios: `keyed_to_plain`, `gated_to_plain`, `ciphertext_to_plain` and
        `ciphertext_to_decrypt_then_infer`.
    """
    channels, width = reader.stem.channels, reader.stem.width
    readers = {
        name: Reader(stem(channels, width), reader.backbone).eval().to(device)
        for name, stem in (("plain", PlainStem), ("keyed", KeyedStem), ("gated", GatedStem))
    }
    found = {}
    for size in sizes:
        for batch in batches:
            shape = (batch, channels, size, size)
            picture = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
            found[f"{size}px_batch{batch}"] = _times(readers, cipher, spec, picture)
    return found


@torch.inference_mode()
def _times(readers: dict[str, Reader], cipher: Cipher, spec: PlaneSpec, picture: Tensor) -> dict[str, float]:
    secrets = [hashlib.sha256(f"encdl timing key {index}".encode()).digest() for index in range(len(picture))]

    def planes() -> Tensor:
        return torch.from_numpy(key_planes(secrets, spec, *picture.shape[1:])).to(picture.device)

    key = planes()
    mask = cipher.field(picture, key)
    steps: dict[str, Callable[[], Any]] = {
        "key_planes": planes,
        "field": lambda: cipher.field(picture, key),
        "decrypt": lambda: cipher.decrypt(picture, key),
        "plain": lambda: readers["plain"](picture),
        "keyed": lambda: readers["keyed"](picture, mask),
        "gated": lambda: readers["gated"](picture, mask),
        "decrypt_then_infer": lambda: readers["plain"](cipher.decrypt(picture, planes())),
        "ciphertext": lambda: readers["keyed"](picture, cipher.field(picture, planes())),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    begun = time.perf_counter()
    for turn in range(ROUNDS + 2):
        if turn > 4 and time.perf_counter() - begun > ENOUGH_S:
            break
        for name, step in steps.items():
            _settle(picture)
            started = time.perf_counter()
            step()
            _settle(picture)
            if turn >= 2:  # libraries choose their kernels in the first rounds
                seconds[name].append(time.perf_counter() - started)
    times = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    ratios = {
        "keyed_to_plain": times["keyed"] / times["plain"],
        "gated_to_plain": times["gated"] / times["plain"],
        "ciphertext_to_plain": times["ciphertext"] / times["plain"],
        "ciphertext_to_decrypt_then_infer": times["ciphertext"] / times["decrypt_then_infer"],
    }
    return times | ratios


def _settle(picture: Tensor) -> None:
    if picture.is_cuda:
        torch.cuda.synchronize(picture.device)
