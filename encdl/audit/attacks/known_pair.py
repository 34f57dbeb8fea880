"""Masks recovered from one known image and its ciphertext, for attacks under a reused nonce."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from encdl.audit.attacks.algebra import planes_of_pair, solvable
from encdl.audit.attacks.targets import CipherTarget, Target

Opener = Callable[[Tensor], Tensor]
"""Ciphertexts to images, both uint8 (B, C, H, W)."""


def openers(target: Target, image: Tensor, ciphertext: Tensor) -> dict[str, Opener]:
    """Ways to open other ciphertexts, by their names.

    Args:
        target: The attacker knows which cipher it is, and its weights.
        image: uint8 (1, C, H, W), known.
        ciphertext: uint8 of the same shape, the image's.
    """
    keystream, mask = ciphertext ^ image, ciphertext - image
    found: dict[str, Opener] = {
        "XOR with a keystream": lambda c: c ^ keystream,
        "addition of a mask": lambda c: c - mask,
    }
    if isinstance(target, CipherTarget) and solvable(target.cipher):
        cipher = target.cipher
        planes = planes_of_pair(cipher, image, ciphertext)
        found[f"key planes of {cipher.name}"] = lambda c: cipher.decrypt(c, planes.expand_as(c).contiguous())
    return found
