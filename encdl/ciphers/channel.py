"""The way of a ciphertext through its file: bytes are put in the file's order, damaged there, and put back.

What damage does to an image depends on that order: a lost run of an interleaved file is scattered over the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from encdl.ciphers import postprocess
from encdl.ciphers.damage import Damage
from encdl.keys.derivation import NONCE_BYTES, ImageKeys
from encdl.keys.key import Key

_KEY = Key(bytes(32))
"""Public: what is stored here is damaged on purpose, and its order alone counts."""


def file_keys(count: int, generator: torch.Generator | None = None) -> list[ImageKeys]:
    """Keys of `count` files whose nonces are drawn by a generator on the CPU (the global one if None)."""
    drawn = torch.randint(0, 256, (count, NONCE_BYTES), dtype=torch.uint8, generator=generator)
    return [_KEY.image_keys(nonce) for nonce in map(bytes, drawn.tolist())]


def stored(
    damage: Damage,
    ciphertext: Tensor,
    generator: torch.Generator | None = None,
    order: str = postprocess.DEFAULT,
    keys: Sequence[ImageKeys] | None = None,
) -> tuple[Tensor, Tensor]:
    """Damage a batch of ciphertexts in their files.

    Args:
        damage: What happens to the bytes in the file's order.
        ciphertext: uint8 (B, C, H, W), or (B, C, D, H, W) of volumes; not changed.
        generator: On the CPU; draws the damage, and the nonces where no keys are given. The same on every device.
        order: Post-processing by name, `encdl.ciphers.names.POSTPROCESS`.
        keys: Of each file.

    Returns:
        (damaged, lost): uint8 and bool (B, C, H, W) in the image's order; `lost` is True where a pixel is known to be
        lost.
    """
    process = postprocess.create(order)
    keys = file_keys(len(ciphertext), generator) if keys is None else keys
    damaged, lost = damage(process.apply(ciphertext.flatten(2, -2), keys), generator)
    shape = ciphertext.shape
    return process.undo(damaged, keys).view(shape), process.undo_lost(lost, keys).view(shape)
