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
from encdl.readers import FunctionalStem, KeyedStem, PlainStem, Reader

ROUNDS = 40
SIZES = (128, 256)
"""Heights and widths in pixels at which costs are measured."""
RATIOS = (("keyed", "plain"), ("ciphertext", "plain"), ("ciphertext", "decrypt_then_infer"), ("functional", "plain"))
MAP: dict[str, Any] = {"outputs": 2, "kernel": 8, "stride": 8}
"""Of the functional reader that is timed, whose features are as large as the image: backbones cost the same."""


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
        ciphertext and key on), `functional` (a host without a key, from the words of a reading layer and a functional
        key's numbers on); ratios: see `RATIOS`, each with its quartiles (`encdl.audit.studies.timing.ratios`).
    """
    channels, width = reader.stem.channels, reader.stem.width
    found = {}
    for size in sizes:
        stems = {
            "plain": PlainStem(channels, width),
            "keyed": KeyedStem(channels, width),
            "functional": FunctionalStem(channels, (size, size), width=width, **MAP),
        }
        readers = {name: Reader(stem, reader.backbone).eval().to(device) for name, stem in stems.items()}
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

    stem, backbone = readers["functional"].stem, readers["functional"].backbone
    assert isinstance(stem, FunctionalStem)
    words = torch.randint(0, 1 << 32, image.shape).to(image.device)
    given = stem.map.exact(words)

    def host() -> Tensor:
        logits: Tensor = backbone(stem.of_centred(stem.map.exact(words, given), whole=True))
        return logits

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
        "functional": host,
    }
    own = take_turns(steps, ROUNDS, image.device).own
    return milliseconds(own) | ratios(own, RATIOS)
