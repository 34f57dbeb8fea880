"""Cost of reading ciphertext, beside plaintext and beside decrypting first: one machine, one run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encdl.audit.studies.timing import milliseconds, ratios, take_turns
from encdl.ciphers.base import Cipher
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.keys.planes import PlaneSpec
from encdl.readers import KeyedStem, PlainStem, Reader

ROUNDS = 40
SIZES = (128, 256)
"""Heights and widths in pixels at which costs are measured."""
RATIOS = (("keyed", "plain"), ("ciphertext", "plain"), ("ciphertext", "decrypt_then_infer"))


def batches(device: str) -> tuple[int, int]:
    """Images a batch at which costs are measured."""
    return 1, 32 if device == "cuda" else 4


def cost(
    reader: Reader, cipher: Cipher, spec: PlaneSpec, device: str, sizes: tuple[int, ...], batches: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """Milliseconds a batch of each step, and their ratios; on a CPU of the process's own time (`timing`).

    Ciphertext and key are in the machine's memory; results stay on the device. From files: `encdl.audit.studies.files`.

    Args:
        reader: Gives the backbone; its stem's width is that of the stems compared.
        cipher: In evaluation mode, on `device`.
        spec: Map and expansion of the key planes.
        device: Where to compute.
        sizes: Heights and widths of the images, in pixels.
        batches: Images a batch.

    Returns:
        For each size and batch (`128px_batch1`), times in ms: `key_planes`, `field`, `decrypt` (planes given), `plain`
        and `keyed` (the reader with each stem, field given), `decrypt_then_infer` and `ciphertext` (everything from
        ciphertext and key on); ratios: `keyed_to_plain`, `ciphertext_to_plain` and `ciphertext_to_decrypt_then_infer`,
        each with its quartiles (see `encdl.audit.studies.timing.ratios`).
    """
    channels, width = reader.stem.channels, reader.stem.width
    readers = {
        name: Reader(stem(channels, width), reader.backbone).eval().to(device)
        for name, stem in (("plain", PlainStem), ("keyed", KeyedStem))
    }
    found = {}
    for size in sizes:
        for batch in batches:
            shape = (batch, channels, size, size)
            image = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
            found[f"{size}px_batch{batch}"] = _times(readers, cipher, spec, image)
    return found


@torch.inference_mode()
def _times(readers: dict[str, Reader], cipher: Cipher, spec: PlaneSpec, image: Tensor) -> dict[str, Any]:
    secrets = [hashlib.sha256(f"encdl timing key {index}".encode()).digest() for index in range(len(image))]

    def planes() -> Tensor:
        return plane_tensor(secrets, spec, image.shape[1:], image.device)

    key = planes()
    mask = cipher.field(image, key)
    steps: dict[str, Callable[[], Any]] = {
        "key_planes": planes,
        "field": lambda: cipher.field(image, key),
        "decrypt": lambda: cipher.decrypt(image, key),
        "plain": lambda: readers["plain"](image),
        "keyed": lambda: readers["keyed"](image, mask),
        "decrypt_then_infer": lambda: readers["plain"](cipher.decrypt(image, planes())),
        "ciphertext": lambda: readers["keyed"](image, cipher.field(image, planes())),
    }
    own = take_turns(steps, ROUNDS, image.device).own
    return milliseconds(own) | ratios(own, RATIOS)
