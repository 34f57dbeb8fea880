"""Images from damaged ciphertexts: decrypted as they are, and repaired by the cipher."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encdl.audit.evaluation.cipher import nonce
from encdl.ciphers.base import Cipher
from encdl.ciphers.channel import stored
from encdl.ciphers.damage import Damage, GaussianNoise, SaltPepper, Scatter
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.metrics.classical_repair import Kind
from encdl.metrics.classical_repair.tuning import Case

PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**21}
"""Pixels that one call of a cipher takes: images of one size go together."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """One image after damage.

    Attributes:
        plain: uint8 (C, H, W).
        decrypted: uint8, decrypted without repair.
        restored: uint8, what the cipher's own repair makes of it; None if it was not asked for.
        lost: bool, pixels known to be lost.
        hit: bool, pixels whose ciphertext is not the right one.
    """

    plain: Bytes
    decrypted: Bytes
    restored: Bytes | None
    lost: Mask
    hit: Mask

    def case(self, damage: Damage) -> Case:
        """As a classical repair is given it."""
        kind, noise = kind_of(damage)
        return Case(self.plain, self.decrypted, self.lost, kind, noise)


def kind_of(damage: Damage) -> tuple[Kind, float]:
    """What repairs are for it, and the deviation of its noise in levels."""
    if isinstance(damage, GaussianNoise):
        return "noise", damage.sigma
    return ("hits" if isinstance(damage, SaltPepper | Scatter) else "losses"), 0.0


@dataclass(frozen=True)
class Storage:
    """How images are encrypted and stored.

    Attributes:
        spec: Map and expansion of the key planes.
        process: Name of the post-processing, which damage of the stored bytes goes through.
        key: A test key.
        device: Where the cipher is.
    """

    spec: PlaneSpec
    process: str
    key: Key
    device: str

    def outcomes(
        self, cipher: Cipher, images: Sequence[Tensor], damage: Damage, seed: int, restore: bool = True
    ) -> Iterator[Outcome]:
        """Encrypt, post-process, damage, undo, decrypt and repair.

        Args:
            cipher: In evaluation mode.
            images: uint8 (C, H, W) each; the n-th has the n-th nonce, and damage that does not depend on the others.
            damage: What happens to the stored bytes.
            seed: Of the damage.
            restore: Whether to repair.
        """
        for chosen in self._batches(images):
            plain = torch.stack([images[index] for index in chosen]).to(self.device)
            keys = [self.key.image_keys(nonce(index)) for index in chosen]
            planes = plane_tensor([key.planes for key in keys], self.spec, plain.shape[1:], self.device)
            ciphertext = cipher.encrypt(plain, planes)
            parts = [
                stored(damage, ciphertext[n : n + 1], _generator(seed, index), self.process, keys[n : n + 1])
                for n, index in enumerate(chosen)
            ]
            damaged, lost = (torch.cat(part) for part in zip(*parts, strict=True))
            decrypted = cipher.decrypt(damaged, planes)
            restored = cipher.restore(damaged, planes, lost).cpu().numpy() if restore else None
            columns = [each.cpu().numpy() for each in (plain, decrypted, lost, damaged != ciphertext)]
            for n, (one, opened, gone, hit) in enumerate(zip(*columns, strict=True)):
                yield Outcome(one, opened, None if restored is None else restored[n], gone, hit)

    def _batches(self, images: Sequence[Tensor]) -> Iterator[list[int]]:
        """Numbers of images that follow one another, have one shape and fit into one call."""
        most = PIXELS_AT_ONCE.get(torch.device(self.device).type, PIXELS_AT_ONCE["cpu"])
        batch: list[int] = []
        for index, image in enumerate(images):
            if batch and (image.shape != images[batch[0]].shape or (len(batch) + 1) * image.numel() > most):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def _generator(seed: int, index: int) -> torch.Generator:
    """Draws the damage of one image; of a seed PyTorch's generator takes 32 bits."""
    name = hashlib.sha256(f"encdl evaluation damage {seed} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(name[:4], "little"))
